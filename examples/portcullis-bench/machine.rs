//! Where the figures come from.

use std::fs;
use std::process::Command;

use time::OffsetDateTime;

/// One line: processor, cores, system, date, commit.
pub fn about() -> String {
    let today = OffsetDateTime::now_utc().date();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let commit = first_line(Command::new("git").args(["describe", "--always", "--dirty"]));
    format!(
        "{today}, {cores} cores of {}, Linux {}, commit {}",
        processor(),
        kernel.trim(),
        commit.unwrap_or_else(|| "unknown".to_owned())
    )
}

fn processor() -> String {
    let all = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = all.lines().find_map(|line| line.strip_prefix("model name"));
    let name = name.and_then(|rest| rest.split(':').nth(1));
    name.map_or_else(|| "unknown".to_owned(), |name| name.trim().to_owned())
}

/// The first line that a command prints, if there is such a command.
pub fn first_line(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    let line = said.lines().find(|line| !line.trim().is_empty())?;
    Some(line.trim().to_owned())
}
