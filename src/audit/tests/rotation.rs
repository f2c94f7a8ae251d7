//! Full files and the chain through them.

use super::*;
use crate::audit::rotation::{full_files, renew};

impl Bench {
    fn open_with(&self, max_octets: u64, keep: Option<usize>) -> AuditLog {
        let rotation = Rotation {
            max_octets: Some(max_octets),
            keep,
        };
        AuditLog::open(&self.path, rotation, NOW).unwrap().0
    }

    /// A log whose files hold a few records each.
    fn rotated(keep: Option<usize>) -> Self {
        let bench = Self::new();
        let log = bench.open_with(2_000, keep);
        record(&log, &pairs(20));
        bench
    }

    /// The full files, oldest first.
    fn full(&self) -> Vec<PathBuf> {
        let full = full_files(&self.path).unwrap();
        full.into_iter().map(|full| full.path).collect()
    }

    fn request_ids(&self) -> Vec<String> {
        let mut found = Vec::new();
        let verified = read(&self.path, |entry| found.push(entry)).unwrap();
        assert_eq!(verified.records, found.len() as u64);
        let first = verified.first;
        assert!((first..).zip(&found).all(|(seq, entry)| entry.seq == seq));
        found.retain(|entry| entry.event.origin.door != "system");
        let mut ids = found.into_iter().map(|entry| entry.event.origin.request_id);
        ids.by_ref().collect()
    }
}

fn record(log: &AuditLog, events: &[Event]) {
    block_on(async {
        for event in events {
            log.record(NOW, event.clone()).await.unwrap();
        }
    });
}

fn requests(numbers: std::ops::Range<u32>) -> Vec<String> {
    let pairs = numbers.flat_map(|n| [n, n]);
    pairs.map(|n| format!("R{n}")).collect()
}

#[test]
fn full_log_goes_on_in_a_new_file_and_the_chain_goes_through_all() {
    let bench = Bench::rotated(None);
    let full = bench.full();
    assert!(full.len() >= 4, "{full:?}");
    assert_eq!(bench.request_ids(), requests(0..20));
    assert_eq!(verify(&bench.path).unwrap().files, full.len() + 1);
    for path in &full {
        let text = fs::read_to_string(path).unwrap();
        let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let seq = last["seq"].as_u64().unwrap();
        assert_eq!(name, format!("audit.jsonl.{seq:012}"));
        // A change is in one file.
        assert_eq!(last["open"], 0);
        let mode = fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let text = fs::read_to_string(&bench.path).unwrap();
    assert!(text.lines().next().unwrap().contains("RotateAuditLog"));
    // And after a restart.
    record(&bench.open_with(2_000, None), &[event(Phase::Done, 20)]);
    assert_eq!(bench.request_ids().last().unwrap(), "R20");
}

#[test]
fn file_that_was_removed_renamed_or_changed_is_found() {
    let bench = Bench::rotated(None);
    for (place, path) in bench.full().iter().enumerate() {
        let content = fs::read(path).unwrap();
        fs::remove_file(path).unwrap();
        let error = verify(&bench.path).unwrap_err().to_string();
        let what = if place == 0 {
            "are missing"
        } else {
            "were removed"
        };
        assert!(error.contains(what), "{error}");

        let other = path.with_extension("999999999999");
        fs::write(&other, &content).unwrap();
        assert!(verify(&bench.path).is_err());
        fs::remove_file(&other).unwrap();

        let mut changed = content.clone();
        changed[300] ^= 1;
        fs::write(path, changed).unwrap();
        let error = verify(&bench.path).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
        fs::write(path, content).unwrap();
    }
    assert!(verify(&bench.path).is_ok());
    // The newest one alone says that there were others.
    for path in bench.full() {
        fs::remove_file(path).unwrap();
    }
    let error = verify(&bench.path).unwrap_err().to_string();
    assert!(error.contains("are missing"), "{error}");
    // Old files may be moved away: that stops no broker.
    record(&bench.open_with(2_000, None), &[event(Phase::Done, 20)]);
}

#[test]
fn old_files_are_removed_when_a_record_says_so() {
    let bench = Bench::rotated(Some(2));
    assert_eq!(bench.full().len(), 2);
    let verified = verify(&bench.path).unwrap();
    assert!(verified.first > 1, "{verified:?}");
    let ids = bench.request_ids();
    assert_eq!(ids, requests(0..20)[40 - ids.len()..]);
    // One more than the record says is too much.
    fs::remove_file(&bench.full()[0]).unwrap();
    let error = verify(&bench.path).unwrap_err().to_string();
    assert!(error.contains("are missing"), "{error}");
}

#[test]
fn change_that_is_under_way_keeps_its_file() {
    let bench = Bench::new();
    let log = bench.open_with(1_200, None);
    record(&log, &[event(Phase::Intent, 1), event(Phase::Intent, 2)]);
    record(&log, &[event(Phase::Done, 2), event(Phase::Intent, 3)]);
    assert!(bench.read().len() > 1_200);
    assert_eq!(bench.full(), Vec::<PathBuf>::new());
    record(&log, &[event(Phase::Done, 1), event(Phase::Done, 3)]);
    record(&log, &[event(Phase::Intent, 4)]);
    assert_eq!(bench.full().len(), 1);
    drop(log);
    let (_, open) = bench.open();
    assert_eq!(open, [event(Phase::Intent, 4)]);
}

#[test]
fn changes_without_a_break_do_not_keep_a_file_for_ever() {
    let bench = Bench::new();
    let log = bench.open_with(1_200, None);
    record(&log, &[event(Phase::Intent, 0)]);
    for n in 1..10 {
        record(&log, &[event(Phase::Intent, n), event(Phase::Done, n - 1)]);
    }
    assert!(bench.full().len() >= 2, "{:?}", bench.full());
    drop(log);
    let (log, open) = bench.open();
    assert_eq!(open, [event(Phase::Intent, 9)]);
    record(&log, &[event(Phase::Done, 9)]);
    assert_eq!(verify(&bench.path).unwrap().first, 1);
}

#[test]
fn file_that_cannot_be_removed_keeps_the_younger_ones() {
    let bench = Bench::rotated(None);
    // A directory in its place is what even root cannot remove as a file.
    let oldest = bench.full()[0].clone();
    let (aside, rest) = (bench.path.with_extension("aside"), bench.full()[1].clone());
    fs::rename(&oldest, &aside).unwrap();
    fs::create_dir(&oldest).unwrap();
    let full = full_files(&bench.path).unwrap();
    crate::audit::rotation::remove(&full[..2]);
    assert!(rest.exists());
    fs::remove_dir(&oldest).unwrap();
    fs::rename(&aside, &oldest).unwrap();
    crate::audit::rotation::remove(&full[..2]);
    assert!(!rest.exists() && !oldest.exists());
}

#[test]
fn full_file_that_others_may_read_stops_the_start() {
    let bench = Bench::rotated(None);
    let mode = fs::Permissions::from_mode(0o644);
    fs::set_permissions(&bench.full()[0], mode).unwrap();
    let opened = AuditLog::open(&bench.path, Rotation::default(), NOW).map(|_| ());
    let error = opened.unwrap_err().to_string();
    assert!(error.contains("run `chmod 600"), "{error}");
}

#[test]
fn crash_between_any_two_steps_of_a_rotation_loses_nothing() {
    let steps: [fn(&Bench, &PathBuf); 3] = [
        // A new file was made.
        |bench, _| fs::write(bench.path.with_extension("jsonl.new"), "").unwrap(),
        // The old one has its new name.
        |bench, full| {
            fs::write(bench.path.with_extension("jsonl.new"), "").unwrap();
            fs::rename(&bench.path, full).unwrap();
        },
        // The new one is in its place, and nothing is in it.
        |bench, _| drop(renew(&bench.path, 6).unwrap()),
    ];
    for crash in steps {
        let bench = Bench::with(&pairs(3));
        let full = bench.path.with_extension("jsonl.000000000006");
        crash(&bench, &full);
        let log = bench.open_with(1, None);
        record(&log, &pairs(5)[6..]);
        assert_eq!(bench.request_ids(), requests(0..5));
        assert!(full.exists());
    }
}

#[test]
fn log_that_cannot_be_renamed_goes_on_as_it_is() {
    let bench = Bench::new();
    let log = bench.open_with(2_000, None);
    let directory = bench.path.with_extension("jsonl.new");
    // In the way of the new file.
    fs::create_dir(&directory).unwrap();
    record(&log, &pairs(10));
    assert_eq!(bench.full(), Vec::<PathBuf>::new());
    assert_eq!(bench.request_ids(), requests(0..10));
    fs::remove_dir(&directory).unwrap();
    record(&log, &pairs(20)[20..]);
    assert!(!bench.full().is_empty());
    assert_eq!(bench.request_ids(), requests(0..20));
}
