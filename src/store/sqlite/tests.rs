//! The store as a whole: against a model, across restarts and crashes, and under faults.

mod crash;
mod faults;
mod hand;
mod lists;

use std::collections::BTreeMap;
use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::ca::crl::CrlPolicy;
use crate::ca::id::{AccessKeyId, CaId, CaKeyId, CertSerial, CrlId, ScheduleId};
use crate::ca::lifecycle::Status;
use crate::secret::Secret;
use crate::store::{
    AccessKeyRecord, CaRecord, CrlPolicyRecord, CrlRecord, KeptSecret, RegisterCodeRecord,
    ScheduleRecord,
};

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
        first_seen_ms: 5,
    }
}

fn device_der(serial: u8) -> Bytes {
    der(&[1, 2, serial]).into()
}

fn put_device(serial: u8, ca_number: u8, status: Status) -> Change {
    Change::PutDevice {
        record: device(serial, ca_number, status),
        der: device_der(serial),
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

fn key(number: u8, status: Status) -> AccessKeyRecord {
    AccessKeyRecord {
        id: format!("key-{number}").parse().unwrap(),
        account: "owner".parse().unwrap(),
        comment: "für die Fabrik".to_owned(),
        status,
        secret: match number.is_multiple_of(2) {
            true => KeptSecret::Plain(Secret::new("hunter2".to_owned())),
            false => KeptSecret::Sealed(vec![0, 0xff, number]),
        },
        policy: (number.is_multiple_of(3)).then(|| "{}".to_owned()),
        created_at_ms: i64::from(number),
    }
}

/// The n-th issue of a list. What is in it does not matter to the store.
fn crl(list: u8, issue: u8) -> Change {
    let der = CrlDer(der(&[0xc7, list, issue]).into());
    let record = CrlRecord {
        instance: "post-cn-1".parse().unwrap(),
        id: CrlId::from_bytes([0xa0 + list; 32]),
        issuer: CaKeyId::from_bytes([7; 32]),
        digest: CrlDigest::of_der(&der.0),
        imported_at_ms: i64::from(issue),
    };
    Change::PutCrl { record, der }
}

fn delete_crl(list: u8) -> Change {
    Change::DeleteCrl {
        instance: "post-cn-1".parse().unwrap(),
        id: CrlId::from_bytes([0xa0 + list; 32]),
    }
}

fn crl_policy(issuer: u8, policy: CrlPolicy) -> CrlPolicyRecord {
    CrlPolicyRecord {
        instance: "post-cn-1".parse().unwrap(),
        issuer: CaKeyId::from_bytes([issuer; 32]),
        policy,
    }
}

fn schedule(number: u8, ca_number: u8, status: Status) -> ScheduleRecord {
    ScheduleRecord {
        id: ScheduleId::from_bytes([number; 8]),
        ca: ca(ca_number, status).id,
        status,
        at_ms: i64::from(number) - 1,
        force: number.is_multiple_of(2),
        principal: "host:root".to_owned(),
        created_at_ms: 3,
        ends: (status == Status::Active).then(|| ScheduleId::from_bytes([ca_number; 8])),
    }
}

/// What the store must be equivalent to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Model {
    cas: BTreeMap<CaId, CaRecord>,
    devices: BTreeMap<CertSerial, DeviceRecord>,
    certificates: BTreeMap<CertSerial, Bytes>,
    codes: BTreeMap<String, RegisterCodeRecord>,
    keys: BTreeMap<AccessKeyId, AccessKeyRecord>,
    crls: BTreeMap<CrlId, CrlRecord>,
    policies: BTreeMap<CaKeyId, CrlPolicyRecord>,
    schedules: BTreeMap<ScheduleId, ScheduleRecord>,
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
                    next.schedules.retain(|_, schedule| schedule.ca != id);
                }
                Change::PutDevice { record, der } => {
                    if !next.cas.contains_key(&record.ca) {
                        continue;
                    }
                    next.certificates.insert(record.serial.clone(), der);
                    let before = next.devices.insert(record.serial.clone(), record.clone());
                    if before.is_some_and(|it| it.status == Status::Inactive) {
                        next.devices.get_mut(&record.serial)?.status = Status::Inactive;
                    }
                }
                Change::SwitchDevice(record) => {
                    if let Some(device) = next.devices.get_mut(&record.serial) {
                        device.status = record.status;
                        continue;
                    }
                    if record.status == Status::Active {
                        return None;
                    }
                    let place = next.cas.contains_key(&record.ca).then_some(record.ca);
                    if let Some(ca) = place.or_else(|| next.cas.keys().next().copied()) {
                        let unknown = Bytes::from_static(&[0x30, 0]);
                        next.certificates.insert(record.serial.clone(), unknown);
                        let record = DeviceRecord { ca, ..record };
                        next.devices.insert(record.serial.clone(), record);
                    }
                }
                Change::MoveDevice { device, to } => {
                    let device = next.devices.get_mut(&device.serial);
                    if let Some(device) = device.filter(|_| next.cas.contains_key(&to)) {
                        device.ca = to;
                    }
                }
                Change::DeleteDevice(device) => {
                    next.devices.remove(&device.serial);
                }
                Change::PutRegisterCode(code) => {
                    next.codes.insert(code.code.clone(), code);
                }
                Change::DeleteRegisterCode(code) => {
                    next.codes.remove(&code);
                }
                Change::PutAccessKey(key) => {
                    next.keys.insert(key.id.clone(), key);
                }
                Change::DeleteAccessKey(id) => {
                    next.keys.remove(&id);
                }
                Change::PutCrl { record, .. } => {
                    next.crls.insert(record.id, record);
                }
                Change::DeleteCrl { id, .. } => {
                    next.crls.remove(&id);
                }
                Change::PutCrlPolicy(record) => {
                    match record.policy {
                        CrlPolicy::Optional => next.policies.remove(&record.issuer),
                        _ => next.policies.insert(record.issuer, record),
                    };
                }
                Change::PutSchedule(record) => {
                    if next.cas.contains_key(&record.ca) {
                        next.schedules.insert(record.id, record);
                    }
                }
                Change::DeleteSchedule(id) => {
                    next.schedules.remove(&id);
                }
            }
            let devices = &next.devices;
            next.certificates.retain(|it, _| devices.contains_key(it));
        }
        Some(next)
    }

    async fn of(store: &SqliteStore, snapshot: &Snapshot) -> Self {
        let devices: Vec<_> = snapshot.devices.iter().map(DeviceRecord::id).collect();
        let ders = store.device_certificates(devices.clone()).await.unwrap();
        assert_eq!(ders.len(), devices.len());
        let ders = devices.into_iter().zip(ders);
        let ders = ders.filter_map(|(device, der)| Some((device.serial, der?)));
        Self {
            certificates: ders.collect(),
            ..Self::of_snapshot(snapshot)
        }
    }

    fn of_snapshot(snapshot: &Snapshot) -> Self {
        let model = Self {
            cas: snapshot.cas.iter().map(|r| (r.id, r.clone())).collect(),
            devices: snapshot
                .devices
                .iter()
                .map(|r| (r.serial.clone(), r.clone()))
                .collect(),
            certificates: BTreeMap::new(),
            codes: snapshot
                .register_codes
                .iter()
                .map(|r| (r.code.clone(), r.clone()))
                .collect(),
            keys: snapshot
                .access_keys
                .iter()
                .map(|r| (r.id.clone(), r.clone()))
                .collect(),
            crls: snapshot.crls.iter().map(|r| (r.id, r.clone())).collect(),
            policies: snapshot
                .crl_policies
                .iter()
                .map(|r| (r.issuer, r.clone()))
                .collect(),
            schedules: snapshot
                .schedules
                .iter()
                .map(|r| (r.id, r.clone()))
                .collect(),
        };
        assert_eq!(model.cas.len(), snapshot.cas.len());
        assert_eq!(model.devices.len(), snapshot.devices.len());
        assert_eq!(model.codes.len(), snapshot.register_codes.len());
        assert_eq!(model.keys.len(), snapshot.access_keys.len());
        assert_eq!(model.crls.len(), snapshot.crls.len());
        assert_eq!(model.policies.len(), snapshot.crl_policies.len());
        assert_eq!(model.schedules.len(), snapshot.schedules.len());
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
            .prop_map(|(n, c, s)| put_device(n, c, s)),
        2 => (0..6_u8, 0..4_u8, any_status())
            .prop_map(|(n, c, s)| Change::SwitchDevice(device(n, c, s))),
        1 => (0..6_u8, 0..4_u8).prop_map(|(n, c)| Change::MoveDevice {
            device: device(n, 0, Status::Active).id(),
            to: ca(c, Status::Active).id,
        }),
        1 => (0..6_u8).prop_map(|n| Change::DeleteDevice(device(n, 0, Status::Active).id())),
        1 => (0..3_u8, any::<bool>()).prop_map(|(n, u)| Change::PutRegisterCode(code(n, u))),
        1 => (0..3_u8).prop_map(|n| Change::DeleteRegisterCode(format!("code-{n}"))),
        1 => (0..4_u8, any_status()).prop_map(|(n, s)| Change::PutAccessKey(key(n, s))),
        1 => (0..4_u8).prop_map(|n| Change::DeleteAccessKey(key(n, Status::Active).id)),
        1 => (0..3_u8, 0..3_u8).prop_map(|(list, issue)| crl(list, issue)),
        1 => (0..3_u8).prop_map(delete_crl),
        1 => (0..2_u8, 0..3_usize)
            .prop_map(|(n, p)| Change::PutCrlPolicy(crl_policy(n, CrlPolicy::ALL[p]))),
        1 => (0..3_u8, 0..4_u8, any_status())
            .prop_map(|(n, c, s)| Change::PutSchedule(schedule(n, c, s))),
        1 => (0..3_u8).prop_map(|n| Change::DeleteSchedule(schedule(n, 0, Status::Active).id)),
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
        // Most changes have something to change.
        let cas = (0..3).map(|n| Change::PutCa(ca(n, Status::Active)));
        let devices = (0..5).map(|n| put_device(n, n % 3, Status::Active));
        let first = (cas.chain(devices).collect(), false);
        for (changes, reopen) in std::iter::once(first).chain(commits) {
            let result = block_on(bench.store().commit(head, changes.clone()));
            match model.after(&changes) {
                Some(next) => {
                    head += 1;
                    prop_assert_eq!(result.unwrap(), head);
                    model = next;
                }
                None => {
                    let is_refused = matches!(result, Err(StoreError::Corrupt { .. }));
                    prop_assert!(is_refused);
                }
            }
            if reopen {
                bench.reopen();
            }
            let snapshot = block_on(bench.store().snapshot()).unwrap();
            prop_assert_eq!(snapshot.seq, head);
            prop_assert_eq!(block_on(bench.store().head()).unwrap(), head);
            prop_assert_eq!(&block_on(Model::of(bench.store(), &snapshot)), &model);
            for record in &snapshot.crls {
                let der = block_on(bench.store().crl(record.digest)).unwrap();
                prop_assert_eq!(CrlDigest::of_der(&der.0), record.digest);
            }
        }
    }
}

#[tokio::test]
async fn a_device_that_is_moved_stays_as_it_was_when_its_ca_goes() {
    let mut bench = Bench::new();
    let (on, off) = (Status::Active, Status::Inactive);
    let puts = vec![
        Change::PutCa(ca(1, on)),
        Change::PutCa(ca(2, on)),
        put_device(1, 1, off),
        put_device(2, 1, on),
        put_device(3, 1, on),
    ];
    bench.store().commit(0, puts).await.unwrap();
    let to = |serial, number| Change::MoveDevice {
        device: device(serial, 1, on).id(),
        to: ca(number, on).id,
    };
    // Neither the CA number 9 is there nor the device number 8.
    let moves = vec![
        to(1, 2),
        to(2, 2),
        to(3, 9),
        to(8, 2),
        Change::DeleteCa(ca(1, on).id),
    ];
    bench.store().commit(1, moves).await.unwrap();
    bench.reopen();
    let snapshot = bench.store().snapshot().await.unwrap();
    let under_the_other = |serial, status| DeviceRecord {
        ca: ca(2, on).id,
        ..device(serial, 1, status)
    };
    assert_eq!(
        snapshot.devices,
        [under_the_other(1, off), under_the_other(2, on)]
    );
    let ids = [1, 2, 3].map(|serial| device(serial, 1, on).id());
    let ders = bench.store().device_certificates(ids.to_vec()).await;
    let expected = [Some(device_der(1)), Some(device_der(2)), None];
    assert_eq!(ders.unwrap(), expected);
}

#[tokio::test]
async fn a_device_is_listed_under_no_ca_of_another_instance() {
    let mut bench = Bench::new();
    let (on, off) = (Status::Active, Status::Inactive);
    let others = CaRecord {
        instance: "post-cn-2".parse().unwrap(),
        ..ca(2, on)
    };
    let changes = vec![
        Change::PutCa(ca(1, on)),
        Change::PutCa(others.clone()),
        put_device(1, 1, on),
        put_device(2, 2, on),
        Change::MoveDevice {
            device: device(1, 1, on).id(),
            to: others.id,
        },
    ];
    bench.store().commit(0, changes).await.unwrap();
    let snapshot = bench.store().snapshot().await.unwrap();
    assert_eq!(snapshot.devices, [device(1, 1, on)]);
    // A hand can put it there; a denial takes it back.
    let edit = format!("UPDATE device SET ca = '{}'", others.id);
    bench.by_hand().execute(&edit, []).unwrap();
    let head = bench.store().head().await.unwrap();
    let denial = vec![Change::SwitchDevice(device(1, 1, off))];
    bench.store().commit(head, denial).await.unwrap();
    bench.reopen();
    let snapshot = bench.store().snapshot().await.unwrap();
    assert_eq!(snapshot.devices, [device(1, 1, off)]);
}

#[tokio::test]
async fn a_damaged_certificate_of_a_device_is_none() {
    let bench = Bench::new();
    let puts = vec![
        Change::PutCa(ca(1, Status::Active)),
        put_device(1, 1, Status::Inactive),
    ];
    bench.store().commit(0, puts).await.unwrap();
    let hand = bench.by_hand();
    for der in ["x'300201'", "'text'"] {
        hand.execute_batch("PRAGMA ignore_check_constraints = ON")
            .unwrap();
        let edit = format!("UPDATE device SET der = {der}");
        hand.execute(&edit, []).unwrap();
        let ids = vec![device(1, 1, Status::Active).id()];
        let ders = bench.store().device_certificates(ids).await.unwrap();
        assert_eq!(ders, [None], "{der}");
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
        Change::SwitchDevice(device(1, 9, Status::Active)),
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
    assert!(matches!(refused, Err(StoreError::Corrupt { .. })));
    assert_eq!(two.unwrap(), 2);
    assert!(matches!(stale, Err(StoreError::Conflict { head: 2, .. })));
    assert_eq!(three.unwrap(), 3);
    assert_eq!(changed.unwrap(), 3, "one transaction, so one step");
    let transaction = watcher.transaction().unwrap();
    assert_eq!(rows::all_but_devices(&transaction).unwrap().0.cas.len(), 3);
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
            let der = body(number, 700).into();
            Change::PutDevice { record, der }
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
            std::fs::metadata(bench.path()).unwrap().len() >> 20
        );
    }
}
