//! The audit log as a whole: what it keeps, what it finds, and what it survives.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;

mod rotation;

use super::record::MAX_LINE;
use super::*;

pub(super) struct Bench {
    _directory: TempDir,
    pub(super) path: PathBuf,
}

impl Bench {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            path: directory.path().join("audit.jsonl"),
            _directory: directory,
        }
    }

    fn open(&self) -> (AuditLog, Vec<Event>) {
        AuditLog::open(&self.path, Rotation::default(), NOW).unwrap()
    }

    /// A log with these events.
    pub(super) fn with(events: &[Event]) -> Self {
        let bench = Self::new();
        let (log, _) = bench.open();
        block_on(async {
            for event in events {
                log.record(NOW, event.clone()).await.unwrap();
            }
        });
        bench
    }

    fn read(&self) -> Vec<u8> {
        fs::read(&self.path).unwrap()
    }

    fn append(&self, content: &[u8]) {
        let mut file = OpenOptions::new().append(true).open(&self.path).unwrap();
        file.write_all(content).unwrap();
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.read()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    pub(super) fn set_lines(&self, lines: &[String]) {
        fs::write(&self.path, lines.join("\n") + "\n").unwrap();
    }
}

const NOW: i64 = 1_795_521_600_123;

pub(super) fn event(phase: Phase, request: u32) -> Event {
    Event {
        phase,
        origin: Origin {
            principal: "access_key:AK".to_owned(),
            door: "http".to_owned(),
            address: Some("127.0.0.1:1".to_owned()),
            request_id: format!("R{request}"),
        },
        action: "InactivateCaCertificate".to_owned(),
        instance: Some("post-cn-1".to_owned()),
        subject: "ca:00f2".to_owned(),
        before: Some("active".to_owned()),
        after: Some("inactive".to_owned()),
        code: None,
        detail: None,
    }
}

pub(super) fn pairs(count: u32) -> Vec<Event> {
    (0..count)
        .flat_map(|n| [event(Phase::Intent, n), event(Phase::Done, n)])
        .collect()
}

pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

fn broken_line<T: std::fmt::Debug>(result: Result<T, AuditError>) -> u64 {
    match result {
        Err(AuditError::Broken { line, .. }) => line,
        other => panic!("not found broken: {other:?}"),
    }
}

#[test]
fn a_line_is_as_documented() {
    let bench = Bench::with(&pairs(1));
    let lines = bench.lines();
    let first: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(first["seq"], 1);
    assert_eq!(first["time"], "2026-11-24T12:00:00.123Z");
    assert_eq!(first["prev"], "0".repeat(64));
    assert_eq!(first["open"], 1);
    assert_eq!(first["phase"], "intent");
    assert_eq!(first["origin"]["request_id"], "R0");
    assert_eq!(first["action"], "InactivateCaCertificate");
    let digest = |text: &str| {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
        hex::encode(digest)
    };
    let second: serde_json::Value = serde_json::from_str(&lines[1]).unwrap();
    assert_eq!(second["prev"], digest(&lines[0]));
    assert_eq!(second["open"], 0);
    let (body, _) = lines[1].split_once(",\"hash\"").unwrap();
    assert_eq!(second["hash"], digest(&format!("{body}}}")));
    let verified = verify(&bench.path).unwrap();
    assert_eq!(verified.records, 2);
    assert_eq!(verified.head, second["hash"]);
    let mode = fs::metadata(&bench.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn the_chain_goes_on_after_a_restart() {
    let bench = Bench::new();
    for restart in 0..4 {
        let (log, open) = bench.open();
        assert_eq!(open, []);
        for event in pairs(2) {
            block_on(log.record(NOW, event)).unwrap();
        }
        drop(log);
        assert_eq!(verify(&bench.path).unwrap().records, (restart + 1) * 4);
    }
}

#[test]
fn every_changed_octet_is_found() {
    let bench = Bench::with(&pairs(2));
    let good = bench.read();
    let mut line = 1;
    for (index, &octet) in good.iter().enumerate() {
        for other in [octet ^ 1, octet ^ 0x20, b'\n', b' ', 0] {
            if other == octet {
                continue;
            }
            let mut bad = good.clone();
            bad[index] = other;
            fs::write(&bench.path, &bad).unwrap();
            assert_eq!(broken_line(verify(&bench.path)), line, "octet {index}");
        }
        let mut shorter = good.clone();
        shorter.remove(index);
        fs::write(&bench.path, &shorter).unwrap();
        assert_eq!(broken_line(verify(&bench.path)), line, "octet {index} gone");
        line += u64::from(octet == b'\n');
    }
    fs::write(&bench.path, &good).unwrap();
    verify(&bench.path).unwrap();
}

#[test]
fn removed_repeated_reordered_and_foreign_lines_are_found() {
    let bench = Bench::with(&pairs(3));
    let good = bench.lines();
    for index in 0..good.len() - 1 {
        let mut lines = good.clone();
        lines.remove(index);
        bench.set_lines(&lines);
        assert_eq!(broken_line(verify(&bench.path)), index as u64 + 1);

        let mut lines = good.clone();
        lines.swap(index, index + 1);
        bench.set_lines(&lines);
        assert_eq!(broken_line(verify(&bench.path)), index as u64 + 1);

        let mut lines = good.clone();
        lines.insert(index, good[index].clone());
        bench.set_lines(&lines);
        assert_eq!(broken_line(verify(&bench.path)), index as u64 + 2);
    }
    // A line that holds by itself, from another log.
    let mut events = pairs(3);
    events[2].detail = Some("other".to_owned());
    let foreign = Bench::with(&events).lines();
    let mut lines = good.clone();
    lines[2].clone_from(&foreign[2]);
    bench.set_lines(&lines);
    assert_eq!(broken_line(verify(&bench.path)), 4);
    // The end cut off shows only against a head noted elsewhere.
    bench.set_lines(&good);
    let head = verify(&bench.path).unwrap().head;
    bench.set_lines(&good[..5]);
    assert_ne!(verify(&bench.path).unwrap().head, head);
}

#[test]
fn a_torn_last_line_is_cut_off_and_recorded() {
    let bench = Bench::with(&pairs(1));
    let good = bench.read();
    let second_line = good.iter().position(|&octet| octet == b'\n').unwrap() + 1;
    for end in second_line + 1..good.len() {
        fs::write(&bench.path, &good[..end]).unwrap();
        assert_eq!(broken_line(verify(&bench.path)), 2);
        let (log, open) = bench.open();
        drop(log);
        // The intent is whole, its outcome was torn.
        assert_eq!(open, [event(Phase::Intent, 0)]);
        assert_eq!(verify(&bench.path).unwrap().records, 2);
        let lines = bench.lines();
        let octets = end - second_line;
        assert!(
            lines[1].contains(&format!("incomplete, {octets} octets")),
            "{}",
            lines[1]
        );
    }
    // The same where no line is whole, and where the file system left zeros.
    for content in [&good[..second_line - 1], &[0; 4096][..]] {
        fs::write(&bench.path, content).unwrap();
        drop(bench.open());
        assert_eq!(verify(&bench.path).unwrap().records, 1);
    }
}

#[test]
fn a_break_before_the_end_refuses_to_open() {
    let bench = Bench::with(&pairs(3));
    let mut lines = bench.lines();
    lines[3] = lines[3].replace("Inactivate", "Activate");
    bench.set_lines(&lines);
    let before = bench.read();
    let opened = AuditLog::open(&bench.path, Rotation::default(), NOW).map(|_| ());
    let text = opened.as_ref().unwrap_err().to_string();
    assert!(text.contains("move this one away"), "{text}");
    assert_eq!(broken_line(opened), 4);
    assert_eq!(bench.read(), before);
    // A whole line that does not hold is no power cut, at the end neither.
    bench.set_lines(&lines[..4]);
    assert_eq!(
        broken_line(AuditLog::open(&bench.path, Rotation::default(), NOW).map(|_| ())),
        4
    );
}

#[test]
fn open_intents_are_found_by_request_action_and_subject() {
    let mut other_subject = event(Phase::Done, 2);
    other_subject.subject = "ca:01".to_owned();
    let mut other_action = event(Phase::Failed, 3);
    other_action.action = "ActiveCaCertificate".to_owned();
    let bench = Bench::with(&[
        event(Phase::Intent, 1),
        event(Phase::Intent, 2),
        event(Phase::Refused, 1),
        other_subject,
        event(Phase::Intent, 3),
        other_action,
        event(Phase::Intent, 4),
        event(Phase::Failed, 4),
        event(Phase::Refused, 5),
    ]);
    let (log, open) = bench.open();
    assert_eq!(open, [event(Phase::Intent, 2), event(Phase::Intent, 3)]);
    block_on(log.record(NOW, event(Phase::Closed, 2))).unwrap();
    drop(log);
    let (log, open) = bench.open();
    assert_eq!(open, [event(Phase::Intent, 3)]);
    block_on(log.record(NOW, event(Phase::Closed, 3))).unwrap();
    drop(log);
    assert_eq!(bench.open().1, []);
}

#[test]
fn an_old_open_intent_is_found_far_from_the_end() {
    let bench = Bench::new();
    let (log, _) = bench.open();
    let log = Arc::new(log);
    let mut long = event(Phase::Done, 0);
    long.detail = Some("x".repeat(900));
    block_on(async {
        for event in pairs(3) {
            log.record(NOW, event).await.unwrap();
        }
        log.record(NOW, event(Phase::Intent, 77)).await.unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..2000 {
            let (log, event) = (Arc::clone(&log), long.clone());
            tasks.spawn(async move { log.record(NOW, event).await.unwrap() });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    });
    drop(log);
    assert!(fs::metadata(&bench.path).unwrap().len() > 2 * 1024 * 1024);
    let (_, open) = bench.open();
    assert_eq!(open, [event(Phase::Intent, 77)]);
    assert_eq!(verify(&bench.path).unwrap().records, 2007);
}

#[test]
fn a_break_far_from_the_end_is_found_by_verify_only() {
    let mut long = event(Phase::Refused, 0);
    long.detail = Some("x".repeat(1000));
    let bench = Bench::with(&vec![long; 400]);
    let mut lines = bench.lines();
    lines[7] = lines[7].replace('x', "y");
    bench.set_lines(&lines);
    assert_eq!(broken_line(verify(&bench.path)), 8);
    drop(bench.open());
    // Within the checked end, the number of the line is still right.
    lines[390] = lines[390].replace('x', "y");
    bench.set_lines(&lines);
    assert_eq!(
        broken_line(AuditLog::open(&bench.path, Rotation::default(), NOW).map(|_| ())),
        391
    );
}

#[test]
fn a_full_disk_fails_the_record_and_heals() {
    let bench = Bench::with(&pairs(1));
    let (log, _) = bench.open();
    let swap = |path: PathBuf| {
        let (done, wait) = mpsc::channel();
        let act = Box::new(move |file: &mut File| {
            *file = OpenOptions::new().append(true).open(path).unwrap();
            done.send(()).unwrap();
        });
        log.requests
            .as_ref()
            .unwrap()
            .send(Request::With(act))
            .unwrap();
        wait.recv().unwrap();
    };
    swap("/dev/full".into());
    for _ in 0..2 {
        let error = block_on(log.record(NOW, event(Phase::Intent, 9))).unwrap_err();
        assert!(matches!(error, AuditError::Io { .. }), "{error}");
    }
    // What a half-written record leaves is gone before the next one.
    bench.append(b"{\"seq\":3,");
    swap(bench.path.clone());
    block_on(log.record(NOW, event(Phase::Refused, 9))).unwrap();
    drop(log);
    assert_eq!(verify(&bench.path).unwrap().records, 3);
    assert_eq!(bench.open().1, []);
}

#[test]
fn a_log_that_was_cut_takes_no_records() {
    let bench = Bench::with(&pairs(2));
    let (log, _) = bench.open();
    let whole = bench.read();
    fs::write(&bench.path, "").unwrap();
    let error = block_on(log.record(NOW, event(Phase::Intent, 9))).unwrap_err();
    assert!(error.to_string().contains("another hand cut it"), "{error}");
    fs::write(&bench.path, whole).unwrap();
    block_on(log.record(NOW, event(Phase::Refused, 9))).unwrap();
    assert_eq!(verify(&bench.path).unwrap().records, 5);
}

#[test]
fn a_log_moved_away_takes_no_records() {
    let bench = Bench::with(&pairs(1));
    let (log, _) = bench.open();
    let aside = bench.path.with_extension("old");
    fs::rename(&bench.path, &aside).unwrap();
    assert!(block_on(log.record(NOW, event(Phase::Intent, 1))).is_err());
    fs::rename(&aside, &bench.path).unwrap();
    block_on(log.record(NOW, event(Phase::Intent, 1))).unwrap();
}

#[test]
fn a_second_writer_an_open_mode_and_a_directory_are_refused() {
    let bench = Bench::with(&[]);
    let (log, _) = bench.open();
    let error = AuditLog::open(&bench.path, Rotation::default(), NOW)
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("another broker"), "{error}");
    drop(log);
    fs::set_permissions(&bench.path, fs::Permissions::from_mode(0o644)).unwrap();
    let error = AuditLog::open(&bench.path, Rotation::default(), NOW)
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("chmod 600"), "{error}");
    assert!(AuditLog::open(bench.path.parent().unwrap(), Rotation::default(), NOW).is_err());
    assert!(
        AuditLog::open(
            std::path::Path::new("/proc/audit.jsonl"),
            Rotation::default(),
            NOW
        )
        .is_err()
    );
}

#[test]
fn the_longest_event_makes_a_line_that_verifies() {
    let worst = "\u{1}".repeat(5000);
    let mut event = event(Phase::Failed, 1);
    for text in [
        &mut event.origin.principal,
        &mut event.origin.door,
        &mut event.origin.request_id,
        &mut event.action,
        &mut event.subject,
    ] {
        text.clone_from(&worst);
    }
    for text in [
        &mut event.origin.address,
        &mut event.instance,
        &mut event.before,
        &mut event.after,
        &mut event.code,
        &mut event.detail,
    ] {
        *text = Some(worst.clone());
    }
    let bench = Bench::with(&[event.clone(), event]);
    assert!(bench.lines()[0].len() < MAX_LINE);
    assert!(bench.lines()[0].contains("[cut]"));
    assert_eq!(verify(&bench.path).unwrap().records, 2);
    drop(bench.open());
    bench.append(&[b'x'; MAX_LINE + 1]);
    assert_eq!(broken_line(verify(&bench.path)), 3);
}

#[test]
fn an_empty_log_verifies_and_a_missing_one_is_an_error() {
    let bench = Bench::with(&[]);
    let verified = verify(&bench.path).unwrap();
    assert_eq!((verified.records, verified.head), (0, "0".repeat(64)));
    fs::remove_file(&bench.path).unwrap();
    assert!(matches!(verify(&bench.path), Err(AuditError::Io { .. })));
}

fn any_event() -> impl Strategy<Value = Event> {
    let phase = prop_oneof![
        Just(Phase::Intent),
        Just(Phase::Done),
        Just(Phase::Refused),
        Just(Phase::Failed),
        Just(Phase::Closed),
    ];
    (phase, 0..4_u32, ".*", proptest::option::of(".{0,2000}")).prop_map(
        |(phase, request, principal, detail)| {
            let mut event = event(phase, request);
            event.origin.principal = principal;
            event.detail = detail;
            event
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_events_verify_and_their_open_intents_are_found(
        events in proptest::collection::vec(any_event(), 0..20),
        now in any::<i64>(),
    ) {
        let bench = Bench::new();
        let (log, _) = bench.open();
        let mut open: Vec<u32> = Vec::new();
        for event in &events {
            block_on(log.record(now, event.clone())).unwrap();
            let request = event.origin.request_id[1..].parse().unwrap();
            if event.phase == Phase::Intent {
                open.push(request);
            } else if let Some(index) = open.iter().position(|&r| r == request) {
                open.remove(index);
            }
        }
        drop(log);
        prop_assert_eq!(verify(&bench.path).unwrap().records, events.len() as u64);
        let (_, found) = bench.open();
        let found: Vec<u32> = found
            .iter()
            .map(|event| event.origin.request_id[1..].parse().unwrap())
            .collect();
        prop_assert_eq!(found, open);
    }
}
