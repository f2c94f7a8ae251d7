//! What is made from the description of the command line: completion scripts and manual pages.

use std::collections::BTreeSet;
use std::process::Command;

use crate::harness::broker::program;
use crate::harness::process::{Finished, Process};

fn run(arguments: &[&str]) -> Finished {
    Process::spawn(program().args(arguments)).finish()
}

/// The commands below this one, as its help lists them.
fn commands(of: &[&str]) -> Vec<String> {
    let help = run(&[of, &["--help"]].concat());
    assert_eq!(help.code, 0, "{help:?}");
    let list = help.stdout.split("\nCommands:\n").nth(1);
    let lines = list.into_iter().flat_map(str::lines);
    lines
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn completion_script_is_one_that_bash_reads_and_names_the_commands() {
    let script = run(&["completion", "bash"]);
    assert_eq!(script.code, 0, "{script:?}");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("portcullis");
    std::fs::write(&file, &script.stdout).unwrap();
    let read = Process::spawn(Command::new("bash").arg("-n").arg(&file)).finish();
    assert_eq!((read.code, read.stderr.as_str()), (0, ""));

    // What a user gets who types `portcullis session <TAB>`.
    let ask = format!(
        "source {}; COMP_WORDS=(portcullis session ''); COMP_CWORD=2; _portcullis portcullis '' session; echo \"${{COMPREPLY[@]}}\"",
        file.display()
    );
    let offered = Process::spawn(Command::new("bash").arg("-c").arg(&ask)).finish();
    for command in ["list", "show", "close"] {
        let mut words = offered.stdout.split_whitespace();
        assert!(words.any(|word| word == command), "{offered:?}");
    }
}

#[test]
fn there_is_a_completion_script_for_each_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completion", shell]);
        assert_eq!(script.code, 0, "{script:?}");
        assert!(script.stdout.contains("inactivate"), "{shell}");
    }
    assert_eq!(run(&["completion", "no-shell"]).code, 2);
}

#[test]
fn every_command_has_a_manual_page_that_can_be_read() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("made/man1");
    let written = run(&["man", directory.to_str().unwrap()]);
    assert_eq!(written.code, 0, "{written:?}");
    let mut expected = BTreeSet::from(["portcullis.1".to_owned()]);
    for command in commands(&[]) {
        for below in commands(&[&command]) {
            expected.insert(format!("portcullis-{command}-{below}.1"));
        }
        expected.insert(format!("portcullis-{command}.1"));
    }
    assert!(expected.len() > 20, "{expected:?}");
    assert!(
        expected.contains("portcullis-session-close.1"),
        "{expected:?}"
    );
    let entries = std::fs::read_dir(&directory).unwrap();
    let pages: BTreeSet<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(pages, expected);

    let page = std::fs::read_to_string(directory.join("portcullis-session-close.1")).unwrap();
    assert!(page.contains("CLIENT_ID"), "{page}");
    let main = run(&["man"]);
    assert!(main.stdout.contains(".TH portcullis 1"), "{main:?}");
    let file = directory.join("portcullis.1");
    assert_eq!(
        std::fs::read_to_string(file).unwrap().trim_end(),
        main.stdout
    );

    // Where there is a formatter, it finds nothing wrong.
    if Command::new("groff").arg("--version").output().is_ok() {
        for page in pages {
            let mut groff = Command::new("groff");
            groff.args(["-man", "-Tascii", "-ww", "-z"]);
            let rendered = Process::spawn(groff.arg(directory.join(&page))).finish();
            let faults = (rendered.code, rendered.stderr.as_str());
            assert_eq!(faults, (0, ""), "{page}");
        }
    }
}

#[test]
fn manual_pages_that_cannot_be_written_are_an_error() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("file");
    std::fs::write(&file, "").unwrap();
    let failed = run(&["man", file.join("below").to_str().unwrap()]);
    assert_eq!(failed.code, 1, "{failed:?}");
    assert!(failed.stderr.contains("manual pages"), "{failed:?}");
}
