//! The store as a whole: against a model, across restarts and crashes, and under faults.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::ca::id::{CaId, CaKeyId, CertSerial};
use crate::ca::lifecycle::Status;
use crate::store::{CaRecord, DeviceRecord, RegisterCodeRecord};

struct Bench {
    directory: TempDir,
    store: Option<SqliteStore>,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut bench = Self {
            directory,
            store: None,
        };
        bench.reopen();
        bench
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("registry.db")
    }

    fn store(&self) -> &SqliteStore {
        self.store.as_ref().unwrap()
    }

    fn reopen(&mut self) {
        self.store = None;
        self.store = Some(SqliteStore::open(&self.path()).unwrap());
    }

    /// Another program's connection.
    fn by_hand(&self) -> Connection {
        let connection = Connection::open(self.path()).unwrap();
        connection.busy_timeout(BUSY_TIMEOUT).unwrap();
        connection
    }

    /// Run something on the writer's connection, and wait until it is done.
    fn with(&self, act: impl FnOnce(&Connection) + Send + 'static) {
        let (done, wait) = mpsc::channel();
        let act = Box::new(move |connection: &Connection| {
            act(connection);
            done.send(()).unwrap();
        });
        self.store().writer.ask(Request::With(act)).unwrap();
        wait.recv().unwrap();
    }

    /// Hold the writer up until the returned sender is dropped or used.
    fn hold(&self) -> mpsc::Sender<()> {
        let (release, wait) = mpsc::channel::<()>();
        let (holding, held) = mpsc::channel();
        let act = Box::new(move |_: &Connection| {
            holding.send(()).unwrap();
            let _ = wait.recv();
        });
        self.store().writer.ask(Request::With(act)).unwrap();
        held.recv().unwrap();
        release
    }
}

fn der(content: &[u8]) -> Vec<u8> {
    let mut der = vec![0x30, u8::try_from(content.len()).unwrap()];
    der.extend_from_slice(content);
    der
}

fn ca(number: u8, status: Status) -> CaRecord {
    let der = der(&[number]);
    CaRecord {
        instance: "post-cn-1".parse().unwrap(),
        id: CaId::of_der(&der),
        name: format!("ca {number}"),
        status,
        der,
        verification_pem: (number.is_multiple_of(2)).then(|| "pem".to_owned()),
        register_code: (number.is_multiple_of(3)).then(|| "code".to_owned()),
        registered_at_ms: i64::from(number) - 2,
    }
}

fn device(serial: u8, ca_number: u8, status: Status) -> DeviceRecord {
    DeviceRecord {
        instance: "post-cn-1".parse().unwrap(),
        issuer: CaKeyId::from_bytes([7; 32]),
        serial: CertSerial::from_be_bytes(&[serial, 0]).unwrap(),
        ca: ca(ca_number, status).id,
        name: format!("Gerät '{serial}' \0 \u{1F512}"),
        status,
        der: der(&[1, 2, serial]),
        first_seen_ms: 5,
    }
}

fn code(number: u8, used: bool) -> RegisterCodeRecord {
    RegisterCodeRecord {
        instance: "post-cn-1".parse().unwrap(),
        account: "owner".parse().unwrap(),
        code: format!("code-{number}"),
        expires_at_ms: i64::MAX,
        used,
    }
}

/// What the store must be equivalent to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Model {
    cas: BTreeMap<CaId, CaRecord>,
    devices: BTreeMap<CertSerial, DeviceRecord>,
    codes: BTreeMap<String, RegisterCodeRecord>,
}

impl Model {
    /// `None` if the changes must be refused.
    fn after(&self, changes: &[Change]) -> Option<Self> {
        let mut next = self.clone();
        for change in changes.iter().cloned() {
            match change {
                Change::PutCa(ca) => {
                    next.cas.insert(ca.id, ca);
                }
                Change::DeleteCa(id) => {
                    next.cas.remove(&id);
                    next.devices.retain(|_, device| device.ca != id);
                }
                Change::PutDevice(device) => {
                    if !next.cas.contains_key(&device.ca) {
                        return None;
                    }
                    next.devices.insert(device.serial.clone(), device);
                }
                Change::DeleteDevice { serial, .. } => {
                    next.devices.remove(&serial);
                }
                Change::PutRegisterCode(code) => {
                    next.codes.insert(code.code.clone(), code);
                }
                Change::DeleteRegisterCode(code) => {
                    next.codes.remove(&code);
                }
            }
        }
        Some(next)
    }

    fn of(snapshot: &Snapshot) -> Self {
        let model = Self {
            cas: snapshot.cas.iter().map(|r| (r.id, r.clone())).collect(),
            devices: snapshot
                .devices
                .iter()
                .map(|r| (r.serial.clone(), r.clone()))
                .collect(),
            codes: snapshot
                .register_codes
                .iter()
                .map(|r| (r.code.clone(), r.clone()))
                .collect(),
        };
        assert_eq!(model.cas.len(), snapshot.cas.len());
        assert_eq!(model.devices.len(), snapshot.devices.len());
        assert_eq!(model.codes.len(), snapshot.register_codes.len());
        model
    }
}

fn any_status() -> impl Strategy<Value = Status> {
    prop_oneof![Just(Status::Active), Just(Status::Inactive)]
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => (0..4_u8, any_status()).prop_map(|(n, s)| Change::PutCa(ca(n, s))),
        1 => (0..4_u8).prop_map(|n| Change::DeleteCa(ca(n, Status::Active).id)),
        3 => (0..6_u8, 0..4_u8, any_status())
            .prop_map(|(n, c, s)| Change::PutDevice(device(n, c, s))),
        1 => (0..6_u8).prop_map(|n| {
            let DeviceRecord { instance, issuer, serial, .. } = device(n, 0, Status::Active);
            Change::DeleteDevice { instance, issuer, serial }
        }),
        1 => (0..3_u8, any::<bool>()).prop_map(|(n, u)| Change::PutRegisterCode(code(n, u))),
        1 => (0..3_u8).prop_map(|n| Change::DeleteRegisterCode(format!("code-{n}"))),
    ]
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn random_changes_fold_to_the_model(
        commits in proptest::collection::vec(
            (proptest::collection::vec(any_change(), 0..5), any::<bool>()),
            1..12,
        ),
    ) {
        let mut bench = Bench::new();
        let mut model = Model::default();
        let mut head = 0;
        for (changes, reopen) in commits {
            let result = block_on(bench.store().commit(head, changes.clone()));
            match model.after(&changes) {
                Some(next) => {
                    head += 1;
                    prop_assert_eq!(result.unwrap(), head);
                    model = next;
                }
                None => prop_assert!(matches!(result, Err(StoreError::Database(_)))),
            }
            if reopen {
                bench.reopen();
            }
            let snapshot = block_on(bench.store().snapshot()).unwrap();
            prop_assert_eq!(snapshot.seq, head);
            prop_assert_eq!(block_on(bench.store().head()).unwrap(), head);
            prop_assert_eq!(&Model::of(&snapshot), &model);
        }
    }
}

#[tokio::test]
async fn a_stale_commit_is_a_conflict_and_changes_nothing() {
    let bench = Bench::new();
    let store = bench.store();
    let put = |n| vec![Change::PutCa(ca(n, Status::Active))];
    assert_eq!(store.commit(0, put(1)).await.unwrap(), 1);
    for expected in [0, 2] {
        let result = store.commit(expected, put(2)).await;
        assert!(
            matches!(result, Err(StoreError::Conflict { expected: e, head: 1 }) if e == expected),
            "{result:?}"
        );
    }
    let snapshot = store.snapshot().await.unwrap();
    assert_eq!((snapshot.seq, snapshot.cas.len()), (1, 1));
}

#[tokio::test]
async fn commits_that_wait_together_keep_their_numbers_and_their_own_errors() {
    let bench = Bench::new();
    let store = bench.store();
    let put = |n| vec![Change::PutCa(ca(n, Status::Active))];
    let orphan = vec![
        Change::PutCa(ca(8, Status::Active)),
        Change::PutDevice(device(1, 9, Status::Active)),
    ];
    let release = bench.hold();
    let mut watcher = bench.by_hand();
    let commits = async {
        tokio::join!(
            store.commit(0, put(1)),
            store.commit(1, orphan),
            store.commit(1, put(2)),
            store.commit(1, put(3)),
            store.commit(2, put(4)),
            async {
                drop(release);
                store.changed(0).await
            },
        )
    };
    let (one, refused, two, stale, three, changed) = commits.await;
    assert_eq!(one.unwrap(), 1);
    assert!(matches!(refused, Err(StoreError::Database(_))));
    assert_eq!(two.unwrap(), 2);
    assert!(matches!(stale, Err(StoreError::Conflict { head: 2, .. })));
    assert_eq!(three.unwrap(), 3);
    assert_eq!(changed.unwrap(), 3, "one transaction, so one step");
    let transaction = watcher.transaction().unwrap();
    assert_eq!(rows::snapshot(&transaction).unwrap().cas.len(), 3);
}

#[tokio::test]
async fn a_commit_goes_on_when_its_caller_goes_away() {
    let bench = Bench::new();
    let release = bench.hold();
    {
        let commit = bench.store().commit(0, Vec::new());
        tokio::pin!(commit);
        let polled = futures_poll_once(commit.as_mut()).await;
        assert!(polled.is_none());
    }
    drop(release);
    assert_eq!(bench.store().changed(0).await.unwrap(), 1);
}

async fn futures_poll_once<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut future).poll(context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test]
async fn an_edit_by_hand_gets_a_number_and_wakes_who_waits() {
    let bench = Bench::new();
    let store = bench.store();
    let put = vec![Change::PutCa(ca(1, Status::Active))];
    assert_eq!(store.commit(0, put.clone()).await.unwrap(), 1);

    let hand = bench.by_hand();
    hand.execute("UPDATE ca SET status = 'inactive'", [])
        .unwrap();
    assert_eq!(store.changed(1).await.unwrap(), 2);
    let snapshot = store.snapshot().await.unwrap();
    assert_eq!(snapshot.seq, 2);
    assert_eq!(snapshot.cas[0].status, Status::Inactive);

    // Not noticed yet when somebody commits against the state before it.
    let release = bench.hold();
    hand.execute("UPDATE ca SET name = 'x'", []).unwrap();
    let (stale, head, ()) = tokio::join!(store.commit(2, put), store.head(), async {
        drop(release);
    });
    assert!(
        matches!(stale, Err(StoreError::Conflict { head: 3, .. })),
        "{stale:?}"
    );
    assert_eq!(head.unwrap(), 3);
    assert_eq!(store.snapshot().await.unwrap().cas[0].name, "x");

    // Whatever it does to the number itself.
    hand.execute("UPDATE head SET seq = 0", []).unwrap();
    assert_eq!(store.head().await.unwrap(), 4);
    assert_eq!(store.commit(4, Vec::new()).await.unwrap(), 5);
}

#[tokio::test]
async fn a_ca_deleted_by_hand_takes_its_devices_along() {
    let bench = Bench::new();
    let store = bench.store();
    let changes = vec![
        Change::PutCa(ca(1, Status::Active)),
        Change::PutCa(ca(2, Status::Active)),
        Change::PutDevice(device(1, 1, Status::Active)),
        Change::PutDevice(device(2, 2, Status::Active)),
    ];
    store.commit(0, changes).await.unwrap();
    let hand = bench.by_hand();
    hand.pragma_update(None, "foreign_keys", false).unwrap();
    hand.execute("DELETE FROM ca WHERE name = 'ca 1'", [])
        .unwrap();
    let snapshot = store.snapshot().await.unwrap();
    assert_eq!(snapshot.devices, [device(2, 2, Status::Active)]);
}

#[tokio::test]
async fn a_row_that_is_no_record_fails_the_snapshot_and_is_named() {
    let cases = [
        ("ca", "UPDATE ca SET id = 'zz' || substr(id, 3)", "id "),
        ("ca", "UPDATE ca SET id = upper(id)", "id "),
        ("ca", "UPDATE ca SET id = x'00'", "id "),
        ("ca", "UPDATE ca SET der = x'300107'", "id "),
        ("ca", "UPDATE ca SET der = x'3002'", "der "),
        ("ca", "UPDATE ca SET der = 'text'", "der "),
        ("ca", "UPDATE ca SET status = 'Active'", "status "),
        ("ca", "UPDATE ca SET status = 1", "status "),
        ("ca", "UPDATE ca SET instance = 'a b'", "instance "),
        (
            "ca",
            "UPDATE ca SET registered_at_ms = 'soon'",
            "registered_at_ms ",
        ),
        ("ca", "UPDATE ca SET name = CAST(x'ff' AS TEXT)", "name "),
        ("device", "UPDATE device SET serial = '0001'", "serial "),
        ("device", "UPDATE device SET serial = '1'", "serial "),
        ("device", "UPDATE device SET serial = 'ff00'", "serial "),
        (
            "device",
            "UPDATE device SET serial = '00' || hex(zeroblob(30))",
            "serial ",
        ),
        ("device", "UPDATE device SET issuer = ''", "issuer "),
        ("device", "UPDATE device SET status = ''", "status "),
        ("device", "UPDATE device SET ca = issuer", "ca "),
        (
            "device",
            "UPDATE device SET der = substr(der, 1, 3)",
            "der ",
        ),
        (
            "device",
            "UPDATE device SET first_seen_ms = 1.5",
            "first_seen_ms ",
        ),
        (
            "register_code",
            "UPDATE register_code SET used = 2",
            "used ",
        ),
        (
            "register_code",
            "UPDATE register_code SET account = ''",
            "account ",
        ),
        (
            "register_code",
            "UPDATE register_code SET code = x'00'",
            "code ",
        ),
    ];
    let bench = Bench::new();
    let store = bench.store();
    let changes = vec![
        Change::PutCa(ca(1, Status::Active)),
        Change::PutDevice(device(1, 1, Status::Active)),
        Change::PutRegisterCode(code(1, false)),
    ];
    store.commit(0, changes.clone()).await.unwrap();
    let hand = bench.by_hand();
    hand.execute_batch("PRAGMA ignore_check_constraints = ON; PRAGMA foreign_keys = OFF")
        .unwrap();
    for (at, edit, column) in cases {
        hand.execute(edit, []).unwrap();
        match store.snapshot().await {
            Err(StoreError::Corrupt { table, row, what }) => {
                assert_eq!((table, row.as_str()), (at, "rowid 1"), "{edit}");
                assert!(what.starts_with(column), "{edit}: {what}");
            }
            other => panic!("{edit}: {other:?}"),
        }
        hand.execute_batch("DELETE FROM device; DELETE FROM ca; DELETE FROM register_code")
            .unwrap();
        let head = store.head().await.unwrap();
        store.commit(head, changes.clone()).await.unwrap();
        store.snapshot().await.unwrap();
    }
    hand.execute("DELETE FROM head", []).unwrap();
    assert!(matches!(
        store.snapshot().await,
        Err(StoreError::Corrupt { table: "head", .. })
    ));
    assert!(store.commit(99, Vec::new()).await.is_err());
}

#[tokio::test]
async fn the_database_itself_refuses_a_hand_that_slips() {
    let bench = Bench::new();
    let put = vec![Change::PutCa(ca(1, Status::Active))];
    bench.store().commit(0, put).await.unwrap();
    let hand = bench.by_hand();
    for edit in [
        "UPDATE ca SET status = 'off'",
        "UPDATE ca SET status = NULL",
        "UPDATE ca SET id = upper(id)",
        "UPDATE ca SET der = 'x'",
    ] {
        assert!(hand.execute(edit, []).is_err(), "{edit}");
    }
    // The form that operators will use.
    let changed = hand.execute("UPDATE ca SET status = 'inactive' WHERE name = 'ca 1'", []);
    assert_eq!(changed.unwrap(), 1);
}

#[tokio::test]
async fn a_record_that_could_not_be_read_back_is_not_written() {
    let bench = Bench::new();
    let mut foreign = ca(1, Status::Active);
    foreign.id = ca(2, Status::Active).id;
    let mut torn = device(1, 3, Status::Active);
    torn.der.pop();
    let changes = [
        vec![Change::PutCa(foreign)],
        vec![
            Change::PutCa(ca(3, Status::Active)),
            Change::PutDevice(torn),
        ],
    ];
    for changes in changes {
        let result = bench.store().commit(0, changes).await;
        assert!(
            matches!(result, Err(StoreError::Corrupt { .. })),
            "{result:?}"
        );
    }
    assert_eq!(bench.store().snapshot().await.unwrap(), Snapshot::default());
}

#[tokio::test]
async fn a_full_or_read_only_disk_fails_the_callers_and_heals() {
    let bench = Bench::new();
    let store = bench.store();
    let mut large = ca(1, Status::Active);
    large.verification_pem = Some("x".repeat(100_000));
    let large = vec![Change::PutCa(large)];
    let small = vec![Change::PutCa(ca(2, Status::Active))];

    bench.with(|connection| {
        let pages: i64 = connection
            .query_row("PRAGMA page_count", [], |row| row.get(0))
            .unwrap();
        connection
            .pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
            .unwrap();
    });
    let release = bench.hold();
    let (full, with_it, head, ()) = tokio::join!(
        store.commit(0, large.clone()),
        store.commit(0, Vec::new()),
        store.head(),
        async { drop(release) },
    );
    for result in [full, with_it] {
        let error = result.unwrap_err();
        assert!(error.to_string().contains("full"), "{error}");
    }
    assert_eq!(head.unwrap(), 0);
    bench.with(|connection| {
        connection
            .pragma_update_and_check(None, "max_page_count", 1_000_000, |_| Ok(()))
            .unwrap();
    });
    assert_eq!(store.commit(0, large).await.unwrap(), 1);

    bench.with(|connection| connection.pragma_update(None, "query_only", true).unwrap());
    let error = store.commit(1, small.clone()).await.unwrap_err();
    assert!(error.to_string().contains("readonly"), "{error}");
    assert_eq!(store.snapshot().await.unwrap().seq, 1);
    bench.with(|connection| connection.pragma_update(None, "query_only", false).unwrap());
    assert_eq!(store.commit(1, small).await.unwrap(), 2);
}

#[tokio::test]
async fn a_second_broker_is_refused_until_the_first_is_gone() {
    let mut bench = Bench::new();
    let error = SqliteStore::open(&bench.path()).err().unwrap().to_string();
    assert!(error.contains("another broker uses"), "{error}");
    assert!(error.contains(&std::process::id().to_string()), "{error}");
    assert_eq!(bench.store().commit(0, Vec::new()).await.unwrap(), 1);
    bench.reopen();
    assert_eq!(bench.store().head().await.unwrap(), 1);
}

#[test]
fn files_are_for_the_owner_only_and_refused_otherwise() {
    let mut bench = Bench::new();
    block_on(bench.store().commit(0, Vec::new())).unwrap();
    for suffix in ["", "-wal", "-shm", ".lock"] {
        let path = files::with_suffix(&bench.path(), suffix);
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{suffix}");
    }
    bench.store = None;
    fs::set_permissions(bench.path(), fs::Permissions::from_mode(0o640)).unwrap();
    let error = SqliteStore::open(&bench.path()).err().unwrap().to_string();
    let command = format!("chmod 600 {}", bench.path().display());
    assert!(error.contains(&command), "{error}");
}

#[test]
fn a_newer_schema_is_refused_and_not_touched() {
    let mut bench = Bench::new();
    bench.store = None;
    let newer = migrations::newest() + 1;
    bench
        .by_hand()
        .execute(
            "INSERT INTO schema_version (version, name) VALUES ($1, 'tomorrow')",
            [newer],
        )
        .unwrap();
    let before = fs::read(bench.path()).unwrap();
    let error = SqliteStore::open(&bench.path()).err().unwrap().to_string();
    assert!(
        error.contains(&format!("schema version {newer}")),
        "{error}"
    );
    assert_eq!(fs::read(bench.path()).unwrap(), before);
}

#[test]
fn what_is_no_database_is_refused_and_not_touched() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.db");
    files::ensure_private(&path).unwrap();
    fs::write(&path, "my shopping list, which is rather long. ".repeat(50)).unwrap();
    let before = fs::read(&path).unwrap();
    let error = SqliteStore::open(&path).err().unwrap().to_string();
    assert!(error.contains("cannot be read as a database"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
    assert!(SqliteStore::open(Path::new("/proc/nowhere/registry.db")).is_err());
}

#[test]
fn a_directory_that_cannot_be_written_is_a_clear_error() {
    let directory = tempfile::tempdir().unwrap();
    let closed = directory.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).unwrap();
    if fs::write(closed.join("probe"), "").is_ok() {
        return; // The superuser may write everywhere.
    }
    let error = SqliteStore::open(&closed.join("registry.db"))
        .err()
        .unwrap();
    assert!(error.to_string().contains("cannot be created"), "{error}");
}

#[tokio::test]
async fn a_replaced_file_fails_every_call() {
    let bench = Bench::new();
    let store = bench.store();
    fs::rename(bench.path(), bench.directory.path().join("old.db")).unwrap();
    fs::write(bench.path(), "").unwrap();
    for error in [
        store.commit(0, Vec::new()).await.unwrap_err(),
        store.head().await.unwrap_err(),
        store.snapshot().await.unwrap_err(),
    ] {
        assert!(error.to_string().contains("was replaced"), "{error}");
    }
    store.changed(0).await.unwrap();
}

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
            Change::PutDevice(device(small, small, status)),
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
            Model::of(&snapshot),
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
            .args(["--exact", "store::sqlite::tests::child_that_is_killed"])
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
        assert_eq!(Model::of(&snapshot), crash_model(head));
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

/// `cargo test --release --lib store::sqlite::tests::large -- --ignored --nocapture`
#[test]
#[ignore = "takes a gigabyte of disk; for measuring"]
fn large_snapshot_is_timed() {
    let bench = Bench::new();
    let store = bench.store();
    let mut head = 0;
    let body = |seed: u32, length: usize| {
        let mut der = vec![0x30, 0x82];
        der.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        der.extend(seed.to_be_bytes().iter().cycle().take(length));
        der
    };
    let mut ids = Vec::new();
    for chunk in 0..100_u32 {
        let cas = (0..1000).map(|n| {
            let der = body(chunk * 1000 + n, 900);
            let mut record = ca(0, Status::Active);
            record.id = CaId::of_der(&der);
            record.der = der;
            ids.push(record.id);
            Change::PutCa(record)
        });
        head = block_on(store.commit(head, cas.collect())).unwrap();
    }
    for chunk in 0..1000_u32 {
        let devices = (0..1000).map(|n| {
            let number = chunk * 1000 + n;
            let mut record = device(1, 0, Status::Active);
            record.ca = ids[number as usize % ids.len()];
            record.serial =
                CertSerial::from_be_bytes(&CaId::of_der(&number.to_be_bytes()).as_bytes()[..16])
                    .unwrap();
            record.der = body(number, 700);
            Change::PutDevice(record)
        });
        head = block_on(store.commit(head, devices.collect())).unwrap();
    }
    for _ in 0..3 {
        let begin = std::time::Instant::now();
        let snapshot = block_on(store.snapshot()).unwrap();
        let taken = begin.elapsed();
        println!(
            "{} CAs, {} devices, {} MB: {taken:?}",
            snapshot.cas.len(),
            snapshot.devices.len(),
            fs::metadata(bench.path()).unwrap().len() >> 20
        );
    }
}

#[tokio::test]
async fn the_sqlite3_command_reads_and_edits_the_live_file() {
    let bench = Bench::new();
    let mut record = ca(1, Status::Active);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
    params.serial_number = Some(rcgen::SerialNumber::from_slice(&[0xf2, 0x69]));
    record.der = params.self_signed(&key).unwrap().der().to_vec();
    record.id = CaId::of_der(&record.der);
    let put = vec![Change::PutCa(record)];
    bench.store().commit(0, put).await.unwrap();
    let output = Command::new("sqlite3")
        .arg(bench.path())
        .arg("SELECT sn, name, status FROM ca; UPDATE ca SET status = 'inactive' WHERE sn = '00f269'")
        .output();
    let Ok(output) = output else {
        return; // The command is not installed.
    };
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "00f269|ca 1|active\n"
    );
    assert_eq!(bench.store().changed(1).await.unwrap(), 2);
    let snapshot = bench.store().snapshot().await.unwrap();
    assert_eq!(snapshot.cas[0].status, Status::Inactive);
}
