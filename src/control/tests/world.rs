//! A control over a store that can be made to fail.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::sync::Notify;

use super::INSTANCE;
use crate::audit::{AuditLog, Rotation};
use crate::ca::certificate::to_pem;
use crate::ca::crl::CrlPolicy;
use crate::ca::error::Refusal;
use crate::ca::id::{CaId, CrlDigest, RequestId};
use crate::ca::lifecycle::Status;
use crate::ca::path::Admitted;
use crate::ca::topology::SameKey;
use crate::control::keys::KeySettings;
use crate::control::{
    Caller, Control, ControlError, ControlParts, ControlSettings, Door, Grant, InstanceSettings,
    OnInactivate, Patience, Principal,
};
use crate::store::{
    Change, CrlDer, DeviceId, DeviceRecord, Parts, Snapshot, Store, StoreError, StoreFuture,
};
use crate::testing::{TestCa, TestDevice, now_secs};
use crate::tls::live::LivePeer;
use crate::tls::peer::VerifiedPeer;

/// A store in memory that outlives the control over it, as a file would.
#[derive(Default)]
pub(super) struct TestStore {
    pub(super) kept: Mutex<Snapshot>,
    pub(super) lists: Mutex<HashMap<CrlDigest, CrlDer>>,
    pub(super) certificates: Mutex<HashMap<DeviceId, Bytes>>,
    /// Certificates are asked for in vain.
    pub(super) lookups_hang: AtomicBool,
    pub(super) broken: AtomicBool,
    /// Commits get no answer, and are made when [`answer`](TestStore::answer) is called.
    pub(super) silent: AtomicBool,
    late: Mutex<Vec<(u64, Vec<Change>)>>,
    /// Octets of the largest list that there is room for; 0 is any.
    pub(super) room: AtomicUsize,
    /// How often a list was to be kept.
    pub(super) lists_tried: AtomicUsize,
    pub(super) changed: Notify,
}

impl TestStore {
    pub(super) fn apply(&self, changes: Vec<Change>) -> u64 {
        let mut kept = self.kept.lock().unwrap();
        for change in changes {
            match change {
                Change::PutCa(ca) => {
                    kept.cas.retain(|other| other.id != ca.id);
                    kept.cas.push(ca);
                }
                Change::DeleteCa(id) => {
                    kept.cas.retain(|ca| ca.id != id);
                    kept.devices.retain(|device| device.ca != id);
                    let left: Vec<_> = kept.devices.iter().map(DeviceRecord::id).collect();
                    let mut certificates = self.certificates.lock().unwrap();
                    certificates.retain(|device, _| left.contains(device));
                    kept.schedules.retain(|schedule| schedule.ca != id);
                }
                Change::PutDevice { mut record, der } => {
                    if !kept.cas.iter().any(|ca| ca.id == record.ca) {
                        continue;
                    }
                    self.certificates.lock().unwrap().insert(record.id(), der);
                    let before = take_device(&mut kept, &record.id());
                    if before.is_some_and(|before| before.status == Status::Inactive) {
                        record.status = Status::Inactive;
                    }
                    kept.devices.push(record);
                }
                Change::SwitchDevice(record) => match take_device(&mut kept, &record.id()) {
                    Some(before) => kept.devices.push(DeviceRecord {
                        status: record.status,
                        ..before
                    }),
                    None => {
                        let place = kept.cas.iter().map(|ca| ca.id);
                        let place = place.min_by_key(|id| (*id != record.ca, *id));
                        if let Some(ca) = place {
                            let unknown = Bytes::from_static(&[0x30, 0]);
                            let mut certificates = self.certificates.lock().unwrap();
                            certificates.insert(record.id(), unknown);
                            kept.devices.push(DeviceRecord { ca, ..record });
                        }
                    }
                },
                Change::MoveDevice { device, to } => {
                    if kept.cas.iter().any(|ca| ca.id == to)
                        && let Some(before) = take_device(&mut kept, &device)
                    {
                        kept.devices.push(DeviceRecord { ca: to, ..before });
                    }
                }
                Change::DeleteDevice(device) => {
                    self.certificates.lock().unwrap().remove(&device);
                    take_device(&mut kept, &device);
                }
                Change::PutRegisterCode(code) => {
                    kept.register_codes.retain(|other| other.code != code.code);
                    kept.register_codes.push(code);
                }
                Change::DeleteRegisterCode(code) => {
                    kept.register_codes.retain(|other| other.code != code);
                }
                Change::PutAccessKey(key) => {
                    kept.access_keys.retain(|other| other.id != key.id);
                    kept.access_keys.push(key);
                }
                Change::DeleteAccessKey(id) => kept.access_keys.retain(|key| key.id != id),
                Change::PutCrl { record, der } => {
                    self.lists.lock().unwrap().insert(record.digest, der);
                    kept.crls.retain(|other| other.id != record.id);
                    kept.crls.push(record);
                }
                Change::DeleteCrl { id, .. } => kept.crls.retain(|crl| crl.id != id),
                Change::PutCrlPolicy(policy) => {
                    kept.crl_policies
                        .retain(|other| other.issuer != policy.issuer);
                    if policy.policy != CrlPolicy::Optional {
                        kept.crl_policies.push(policy);
                    }
                }
                Change::PutSchedule(schedule) => {
                    kept.schedules.retain(|other| other.id != schedule.id);
                    if kept.cas.iter().any(|ca| ca.id == schedule.ca) {
                        kept.schedules.push(schedule);
                    }
                }
                Change::DeleteSchedule(id) => {
                    kept.schedules.retain(|schedule| schedule.id != id);
                }
            }
        }
        kept.seq += 1;
        self.changed.notify_waiters();
        kept.seq
    }

    /// The disk is back: what was asked of it meanwhile is done, in that order.
    pub(super) fn answer(&self) {
        self.silent.store(false, Ordering::Relaxed);
        for (expected, changes) in std::mem::take(&mut *self.late.lock().unwrap()) {
            let head = self.kept.lock().unwrap().seq;
            if head == expected {
                self.apply(changes);
            }
        }
    }

    /// Whether there is room for the lists among these changes.
    fn has_room(&self, changes: &[Change]) -> bool {
        let room = self.room.load(Ordering::Relaxed);
        let lists = changes.iter().filter_map(|change| match change {
            Change::PutCrl { der, .. } => Some(der.0.len()),
            _ => None,
        });
        let sizes: Vec<_> = lists.collect();
        self.lists_tried.fetch_add(sizes.len(), Ordering::Relaxed);
        room == 0 || sizes.iter().all(|size| *size <= room)
    }

    /// Whether a device is to be switched on that is not there.
    fn cannot_be_on(&self, changes: &[Change]) -> bool {
        let kept = self.kept.lock().unwrap();
        changes.iter().any(|change| match change {
            Change::SwitchDevice(record) if record.status == Status::Active => {
                kept.devices.iter().all(|other| other.id() != record.id())
            }
            _ => false,
        })
    }

    pub(super) fn status(&self, id: CaId) -> Option<Status> {
        let kept = self.kept.lock().unwrap();
        kept.cas.iter().find(|ca| ca.id == id).map(|ca| ca.status)
    }
}

impl Store for TestStore {
    fn snapshot_by_parts(&self) -> StoreFuture<'_, Parts> {
        Box::pin(async {
            let mut rest = self.kept.lock().unwrap().clone();
            let devices = std::mem::take(&mut rest.devices);
            Ok(Parts {
                rest,
                devices: Box::pin(std::future::ready(Ok(devices))),
            })
        })
    }

    fn head(&self) -> StoreFuture<'_, u64> {
        Box::pin(async {
            match self.silent.load(Ordering::Relaxed) {
                true => std::future::pending().await,
                false => Ok(self.kept.lock().unwrap().seq),
            }
        })
    }

    fn device_certificates(&self, devices: Vec<DeviceId>) -> StoreFuture<'_, Vec<Option<Bytes>>> {
        Box::pin(async move {
            if self.lookups_hang.load(Ordering::Relaxed) {
                return std::future::pending().await;
            }
            let kept = self.certificates.lock().unwrap();
            Ok(devices.iter().map(|it| kept.get(it).cloned()).collect())
        })
    }

    fn crl(&self, digest: CrlDigest) -> StoreFuture<'_, CrlDer> {
        Box::pin(async move {
            let found = self.lists.lock().unwrap().get(&digest).cloned();
            found.ok_or(StoreError::Closed)
        })
    }

    fn prepare_crl(&self, _: CrlDigest, _: CrlDer) -> StoreFuture<'_, ()> {
        Box::pin(async {
            match self.broken.load(Ordering::Relaxed) {
                true => Err(StoreError::Closed),
                false => Ok(()),
            }
        })
    }

    fn commit(&self, expected: u64, changes: Vec<Change>) -> StoreFuture<'_, u64> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            if self.broken.load(Ordering::Relaxed) || !self.has_room(&changes) {
                return Err(StoreError::Closed);
            }
            if self.silent.load(Ordering::Relaxed) {
                self.late.lock().unwrap().push((expected, changes));
                return std::future::pending().await;
            }
            let head = self.kept.lock().unwrap().seq;
            if head != expected {
                return Err(StoreError::Conflict { expected, head });
            }
            if self.cannot_be_on(&changes) {
                return Err(StoreError::Corrupt {
                    table: "device",
                    row: String::new(),
                    what: "is not there".to_owned(),
                });
            }
            Ok(self.apply(changes))
        })
    }

    fn changed(&self, after: u64) -> StoreFuture<'_, u64> {
        Box::pin(async move {
            loop {
                let notified = self.changed.notified();
                tokio::pin!(notified);
                notified.as_mut().enable();
                let head = self.kept.lock().unwrap().seq;
                if head > after {
                    return Ok(head);
                }
                notified.await;
            }
        })
    }
}

fn take_device(kept: &mut Snapshot, device: &DeviceId) -> Option<DeviceRecord> {
    let at = kept.devices.iter().position(|other| other.id() == *device);
    at.map(|at| kept.devices.remove(at))
}

pub(super) struct World {
    pub(super) store: Arc<TestStore>,
    pub(super) directory: tempfile::TempDir,
    pub(super) control: Control,
    pub(super) time: Arc<Mutex<SystemTime>>,
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with(SameKey::Deny, OnInactivate::Cut).await
    }

    pub(super) async fn with(same_key: SameKey, on_inactivate: OnInactivate) -> Self {
        let store = Arc::new(TestStore::default());
        let directory = tempfile::tempdir().unwrap();
        let time = Arc::new(Mutex::new(SystemTime::now()));
        let path = directory.path().join("audit.jsonl");
        let mut parts = parts(&store, path, &time);
        parts.instances[0].same_key = same_key;
        parts.instances[0].on_inactivate = on_inactivate;
        let control = Control::open(parts).await.unwrap();
        Self {
            store,
            directory,
            control,
            time,
        }
    }

    /// The process ends at once and starts again.
    pub(super) async fn restart(&mut self) {
        let log = format!("{}.jsonl", uuid::Uuid::new_v4());
        self.restart_with(&log, |_| ()).await;
    }

    /// The same, with another log and with parts that are changed so.
    pub(super) async fn restart_with(&mut self, log: &str, change: impl FnOnce(&mut ControlParts)) {
        // A process that has ended does nothing more.
        self.control.0.closing.cancel();
        let mut parts = parts(&self.store, self.directory.path().join(log), &self.time);
        change(&mut parts);
        self.control = Control::open(parts).await.unwrap();
    }

    pub(super) async fn register(&self, ca: &TestCa, name: &str) -> String {
        self.control
            .register_ca_unproved(&host(), INSTANCE, name, &ca.pem())
            .await
            .unwrap()
            .to_string()
    }

    pub(super) async fn register_with(
        &self,
        ca: &TestCa,
        proof: &TestDevice,
    ) -> Result<String, ControlError> {
        self.control
            .register_ca(&caller(), INSTANCE, "ca", &ca.pem(), &to_pem(&proof.der))
            .await
            .map(|sn| sn.to_string())
    }

    pub(super) fn admit(&self, device: &TestDevice) -> Result<Admitted, Refusal> {
        self.admit_over(device, &[])
    }

    pub(super) fn admit_over(
        &self,
        device: &TestDevice,
        chain: &[&TestCa],
    ) -> Result<Admitted, Refusal> {
        let chain: Vec<CertificateDer<'_>> = chain.iter().map(|ca| ca.der.clone()).collect();
        self.control
            .registry(&INSTANCE.parse().unwrap())
            .unwrap()
            .admit(&device.der, &chain, UnixTime::now())
            .map_err(|refused| refused.refusal)
    }

    pub(super) async fn set_device(&self, ca_sn: &str, device_sn: &str, status: Status) {
        let (control, caller) = (&self.control, host());
        let set = control.set_device_status(&caller, INSTANCE, ca_sn, device_sn, status);
        set.await.unwrap();
    }

    pub(super) async fn record(&self, device: &TestDevice) -> VerifiedPeer {
        self.record_over(device, &[]).await
    }

    pub(super) async fn record_over(&self, device: &TestDevice, chain: &[&TestCa]) -> VerifiedPeer {
        let admitted = self.admit_over(device, chain).unwrap();
        let peer = VerifiedPeer::new(INSTANCE.parse().unwrap(), admitted);
        self.control.device_admitted(&peer);
        let registry = self.control.registry(peer.instance()).unwrap();
        while registry.device_status(peer.admitted().device()).is_none() {
            tokio::task::yield_now().await;
        }
        peer
    }

    /// It is connected.
    pub(super) fn enter(&self, peer: VerifiedPeer) -> LivePeer {
        let registry = self.control.registry(peer.instance()).unwrap();
        let peers = self.control.peers(peer.instance()).unwrap();
        peers.enter(peer, &registry, now_secs()).unwrap()
    }

    pub(super) fn audit_lines(&self) -> Vec<serde_json::Value> {
        std::fs::read_to_string(self.directory.path().join("audit.jsonl"))
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

pub(super) fn parts(
    store: &Arc<TestStore>,
    audit: PathBuf,
    time: &Arc<Mutex<SystemTime>>,
) -> ControlParts {
    let clock = Arc::clone(time);
    ControlParts {
        store: Arc::clone(store) as Arc<dyn Store>,
        audit: AuditLog::open(&audit, Rotation::default(), 0).unwrap(),
        instances: vec![InstanceSettings {
            id: INSTANCE.parse().unwrap(),
            account: "owner".parse().unwrap(),
            region: "cn-hangzhou".to_owned(),
            same_key: SameKey::Deny,
            on_inactivate: OnInactivate::Cut,
            admin_cas: Vec::new(),
        }],
        settings: ControlSettings {
            max_cas: 4,
            max_access_keys: 3,
            max_crls: 2,
            max_crl_entries: 100,
            max_crl_octets: 16 << 10,
            ..ControlSettings::default()
        },
        keys: KeySettings::default(),
        clock: Arc::new(move || *clock.lock().unwrap()),
        // Where time is paused it leaps, and the log's thread takes real time.
        patience: Patience {
            audit: Duration::from_secs(1 << 30),
            store: Duration::from_secs(1 << 30),
        },
    }
}

pub(super) fn caller() -> Caller {
    Caller {
        principal: Principal::AccessKey("AK1".parse().unwrap()),
        account: "owner".parse().unwrap(),
        grant: Grant::Everything,
        door: Door::Http,
        address: Some("127.0.0.1:9".parse().unwrap()),
        request_id: RequestId::from_random([7; 16]),
    }
}

pub(super) fn host() -> Caller {
    Caller {
        principal: Principal::Host("root".to_owned()),
        door: Door::Host,
        ..caller()
    }
}
