//! Killed, and cut short, in the middle of commits.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::*;

/// The n-th commit of the crash tests.
fn crash_commit(number: u64) -> Vec<Change> {
    let small = u8::try_from(number % 7).unwrap();
    let status = if number.is_multiple_of(2) {
        Status::Active
    } else {
        Status::Inactive
    };
    match number % 5 {
        0 => vec![Change::DeleteCa(ca(small, status).id)],
        1 => vec![Change::PutRegisterCode(code(small, true))],
        _ => vec![
            Change::PutCa(ca(small, status)),
            put_device(small, small, status),
        ],
    }
}

fn crash_model(head: u64) -> Model {
    (1..=head).fold(Model::default(), |model, number| {
        model.after(&crash_commit(number)).unwrap()
    })
}

#[tokio::test]
async fn a_log_cut_anywhere_leaves_a_prefix_of_the_commits() {
    let bench = Bench::new();
    for number in 1..=12 {
        let changes = crash_commit(number);
        bench.store().commit(number - 1, changes).await.unwrap();
    }
    let database = fs::read(bench.path()).unwrap();
    let log = fs::read(files::with_suffix(&bench.path(), "-wal")).unwrap();
    let mut heads = Vec::new();
    for cut in (0..=log.len()).rev().step_by(1999) {
        let copy = tempfile::tempdir().unwrap();
        let path = copy.path().join("registry.db");
        let wal = files::with_suffix(&path, "-wal");
        for (path, content) in [(&path, &database[..]), (&wal, &log[..cut])] {
            files::ensure_private(path).unwrap();
            fs::write(path, content).unwrap();
        }
        let store = SqliteStore::open(&path).unwrap();
        let snapshot = store.snapshot().await.unwrap();
        assert_eq!(
            Model::of(&store, &snapshot).await,
            crash_model(snapshot.seq),
            "cut at {cut}"
        );
        heads.push(snapshot.seq);
    }
    assert_eq!(heads.first(), Some(&12));
    assert!(heads.is_sorted_by(|a, b| a >= b), "{heads:?}");
}

const CHILD_PATH: &str = "PORTCULLIS_TEST_STORE";

#[test]
fn a_killed_broker_loses_no_answered_commit() {
    let bench = {
        let mut bench = Bench::new();
        bench.store = None;
        bench
    };
    let mut head = 0;
    for round in 0..6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "store::sqlite::tests::crash::child_that_is_killed",
            ])
            .args(["--ignored", "--nocapture"])
            .env(CHILD_PATH, bench.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut answered = lines.map_while(Result::ok).filter_map(|line| {
            let (_, number) = line.split_once("answered ")?;
            number.parse::<u64>().ok()
        });
        let mut last = answered.nth(round * 7).unwrap();
        child.kill().unwrap();
        last = answered.last().unwrap_or(last);
        child.wait().unwrap();

        let store = SqliteStore::open(&bench.path()).unwrap();
        let snapshot = block_on(store.snapshot()).unwrap();
        assert!(snapshot.seq >= last, "{} < {last}", snapshot.seq);
        assert!(snapshot.seq > head);
        head = snapshot.seq;
        assert_eq!(block_on(Model::of(&store, &snapshot)), crash_model(head));
    }
}

#[test]
#[ignore = "run by a_killed_broker_loses_no_answered_commit"]
fn child_that_is_killed() {
    let Some(path) = std::env::var_os(CHILD_PATH) else {
        return;
    };
    let store = SqliteStore::open(Path::new(&path)).unwrap();
    let mut head = block_on(store.head()).unwrap();
    loop {
        head = block_on(store.commit(head, crash_commit(head + 1))).unwrap();
        println!("\nanswered {head}");
    }
}
