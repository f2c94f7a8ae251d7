//! From the kept records to a gate that can be opened.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, RwLock};

use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::{Event, Phase};
use crate::ca::certificate::CaCertificate;
use crate::ca::error::CertificateError;
use crate::ca::id::{AccessKeyId, CaId, InstanceId};
use crate::ca::lifecycle::Status;
use crate::ca::registry::{Purpose, Registry, RegistryError};
use crate::control::change::Toward;
use crate::control::change::Turn;
use crate::control::explain::MOST_WAITING;
use crate::control::keys::KeyFault;
use crate::control::ledger::{Ca, Devices, KeptCrl, Ledger, device_key};
use crate::control::recording::Recorder;
use crate::control::seal;
use crate::control::{Control, ControlParts, Inner, Instance, InstanceSettings, clock_ms};
use crate::parallel;
use crate::store::{
    AccessKeyRecord, CaRecord, Change, DeviceRecord, KeptSecret, Parts, Snapshot, StoreError,
    each_device_is_there_once,
};
use crate::tls::live::LivePeers;
use crate::tls::server_config::algorithms;

/// Why trust cannot be loaded. The broker does not start then: it would not know whom to refuse.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store cannot be read.
    #[error("the store cannot be read: {0}")]
    Store(#[from] StoreError),
    /// A kept CA certificate cannot be read.
    #[error("the CA certificate {id} in the store cannot be used: {source}")]
    Certificate {
        /// Which.
        id: CaId,
        /// Why.
        source: CertificateError,
    },
    /// A kept record belongs to an instance that the configuration does not name.
    #[error(
        "the store has certificates or CRLs of instance {0}, which the configuration does not name; \
         add it, or use another data directory"
    )]
    UnknownInstance(InstanceId),
    /// The certificates contradict each other.
    #[error("the CA certificate {id} cannot be registered: {source}")]
    Registry {
        /// Which.
        id: CaId,
        /// Why.
        source: RegistryError,
    },
    /// A kept access key cannot be used.
    #[error("the access key {id} in the store cannot be used: {source}")]
    AccessKey {
        /// Which.
        id: AccessKeyId,
        /// Why.
        source: KeyFault,
    },
    /// The thread that was to read the CA certificates has panicked.
    #[error("the CA certificates in the store could not be read: a thread has panicked")]
    Panicked,
    /// The audit log cannot be written.
    #[error("the audit log cannot be written: {0}")]
    Audit(#[from] crate::audit::AuditError),
}

impl Control {
    /// Load what is kept and be ready to change it. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// If anything that is kept cannot be read: nobody can say then who is to be refused.
    pub async fn open(parts: ControlParts) -> Result<Self, OpenError> {
        let Parts { mut rest, devices } = parts.store.snapshot_by_parts().await?;
        // The devices take longest, so the certificates of the CAs are read while they come.
        let records = std::mem::take(&mut rest.cas);
        let cas = tokio::task::spawn_blocking(|| parallel::map(records, read));
        let devices = devices.await?;
        let snapshot = Snapshot { devices, ..rest };
        let cas = cas.await.map_err(|_| OpenError::Panicked)?;
        let cas = cas.into_iter().collect::<Result<Vec<_>, _>>()?;
        let remembered = parts.settings.max_remembered_signatures;
        let instances = parts
            .instances
            .into_iter()
            .map(|settings| {
                let id = &settings.id;
                let devices = snapshot.devices.iter().filter(|it| it.instance == *id);
                let devices = devices.count();
                build_instance(settings, remembered, devices)
            })
            .collect::<Result<HashMap<_, _>, OpenError>>()?;
        let (audit, open_intents) = parts.audit;
        let (seen, to_record) = mpsc::channel(8 * 1024);
        let inner = Arc::new(Inner {
            instances,
            settings: parts.settings,
            began_ms: clock_ms(&parts.clock),
            clock: parts.clock,
            store: parts.store,
            store_limit: parts.patience.store,
            store_hangs: AtomicBool::new(false),
            lookups_hang: AtomicBool::new(false),
            recorder: Recorder::new(audit, parts.patience.audit),
            ledger: RwLock::new(Ledger::default()),
            keys: Arc::new(parts.keys.configured.into_iter().collect()),
            encryption: parts.keys.encryption,
            turn: Mutex::new(Turn {
                seq: snapshot.seq,
                ..Turn::default()
            }),
            durable: AtomicBool::new(true),
            followed: AtomicBool::new(true),
            seen,
            reading: Semaphore::new(1),
            paces: Default::default(),
            tasks: TaskTracker::new(),
            changes: OnceLock::new(),
            closing: CancellationToken::new(),
        });
        let crls = inner.read_new_crls(&snapshot).await?;
        inner.load(cas, snapshot, crls)?;
        inner.seal_secrets().await?;
        inner.close_intents(open_intents).await?;
        // What was due meanwhile, before anybody is served.
        inner.do_what_is_due().await;
        for task in [
            inner
                .tasks
                .spawn(Arc::clone(&inner).record_devices(to_record)),
            inner.tasks.spawn(Arc::clone(&inner).pay_what_is_owed()),
            inner.tasks.spawn(Arc::clone(&inner).record_what_is_owed()),
            inner.tasks.spawn(Arc::clone(&inner).follow_the_store()),
            inner.tasks.spawn(Arc::clone(&inner).follow_the_clock()),
            inner.tasks.spawn(Arc::clone(&inner).follow_schedules()),
        ] {
            drop(task);
        }
        Ok(Self(inner))
    }
}

impl Inner {
    /// `snapshot` is without its CAs.
    fn load(&self, cas: Vec<Ca>, snapshot: Snapshot, crls: Vec<KeptCrl>) -> Result<(), OpenError> {
        let mut ledger = self.ledger_mut();
        // What takes long is done side by side.
        let devices = snapshot.devices;
        let (loaded, devices) =
            parallel::join(|| self.load_cas(&cas), || self.load_devices(devices));
        loaded?;
        for ca in cas {
            ledger.put_ca(ca);
        }
        ledger.set_devices(devices?);
        for code in snapshot.register_codes {
            ledger.put_code(code);
        }
        for kept in snapshot.access_keys {
            let key = self
                .in_force(&kept)
                .map_err(|source| key_fault(&kept, source))?;
            self.keys.insert(key);
            ledger.put_key(kept);
        }
        ledger.set_crls(crls, snapshot.crl_policies);
        ledger.set_schedules(snapshot.schedules);
        if let Some(kept) = ledger
            .crls()
            .find(|kept| !self.instances.contains_key(&kept.record.instance))
        {
            return Err(OpenError::UnknownInstance(kept.record.instance.clone()));
        }
        for (instance, issuer) in ledger.crl_issuers() {
            let Some(at) = self.instances.get(&instance) else {
                // A policy that outlived its CA. It lets nobody in, and counts if they come back.
                tracing::warn!(%instance, "a CRL policy of an instance that the configuration does not name has no effect");
                continue;
            };
            let revocations = ledger.revocations(&instance, issuer);
            at.registry.set_revocations(issuer, revocations);
        }
        Ok(())
    }

    fn load_cas(&self, cas: &[Ca]) -> Result<(), OpenError> {
        let mut certificates: HashMap<&InstanceId, Vec<_>> = HashMap::new();
        for ca in cas {
            let one = (Arc::clone(&ca.certificate), ca.record.status);
            certificates
                .entry(&ca.record.instance)
                .or_default()
                .push(one);
        }
        for (instance, certificates) in certificates {
            let at = self.known_instance(instance)?;
            at.registry
                .load(&certificates, Purpose::Device)
                .map_err(|(id, source)| OpenError::Registry { id, source })?;
        }
        Ok(())
    }

    fn load_devices(&self, records: Vec<DeviceRecord>) -> Result<Devices, OpenError> {
        let any_fault = AtomicBool::new(false);
        // A thread that waits in `load_cas`, with the lock of a registry held, may do this meanwhile:
        // nothing here takes that lock.
        parallel::each(&records, |device| {
            let at = self.instances.get(&device.instance);
            let was_known = at.map(|at| at.registry.set_device(device_key(device), device.status));
            if was_known != Some(false) {
                any_fault.store(true, Ordering::Relaxed);
            }
        });
        if any_fault.into_inner() {
            for device in &records {
                self.known_instance(&device.instance)?;
            }
            each_device_is_there_once(&records)?;
        }
        Ok(Devices::new(records))
    }

    fn known_instance(&self, id: &InstanceId) -> Result<&Instance, OpenError> {
        let known = self.instances.get(id);
        known.ok_or_else(|| OpenError::UnknownInstance(id.clone()))
    }

    /// Encrypt the secrets that were kept as they are before the configuration had a key for it.
    async fn seal_secrets(&self) -> Result<(), OpenError> {
        if self.encryption.is_none() {
            return Ok(());
        }
        let mut sealed = Vec::new();
        for kept in self.ledger().keys() {
            if let KeptSecret::Plain(secret) = &kept.secret {
                let secret = seal::seal(self.encryption.as_ref(), &kept.id, secret)
                    .map_err(|error| key_fault(kept, error.into()))?;
                sealed.push(AccessKeyRecord {
                    secret,
                    ..kept.clone()
                });
            }
        }
        if sealed.is_empty() {
            return Ok(());
        }
        let changes = sealed.iter().cloned().map(Change::PutAccessKey).collect();
        let mut turn = self.turn.lock().await;
        self.commit(&mut turn, changes, Toward::Allow).await?;
        tracing::info!(
            keys = sealed.len(),
            "the secrets of access keys are encrypted from now on"
        );
        let mut ledger = self.ledger_mut();
        for kept in sealed {
            ledger.put_key(kept);
        }
        Ok(())
    }

    /// An intent without an outcome is a change that a crash cut short: say what holds now.
    async fn close_intents(&self, intents: Vec<Event>) -> Result<(), OpenError> {
        for intent in intents {
            let holds = intent
                .subject
                .strip_prefix("ca:")
                .and_then(|sn| sn.parse().ok())
                .map(|sn| match self.ledger().ca_by_sn(&sn) {
                    Some(ca) => format!("after the restart it is {}", ca.record.status),
                    None => "after the restart it is not registered".to_owned(),
                })
                .unwrap_or_else(|| "what holds now is what the listings show".to_owned());
            tracing::warn!(
                action = intent.action,
                subject = intent.subject,
                detail = holds,
                "a change was cut short by the end of the process"
            );
            let closed = Event {
                phase: Phase::Closed,
                detail: Some(holds),
                ..intent
            };
            self.recorder.write_at_last(self.now_ms(), closed).await?;
        }
        Ok(())
    }
}

fn key_fault(kept: &AccessKeyRecord, source: KeyFault) -> OpenError {
    OpenError::AccessKey {
        id: kept.id.clone(),
        source,
    }
}

pub(crate) fn read(record: CaRecord) -> Result<Ca, OpenError> {
    let certificate =
        CaCertificate::from_der(&record.der).map_err(|source| OpenError::Certificate {
            id: record.id,
            source,
        })?;
    Ok(Ca {
        record,
        certificate: Arc::new(certificate),
    })
}

fn build_instance(
    settings: InstanceSettings,
    remembered: usize,
    devices: usize,
) -> Result<(InstanceId, Instance), OpenError> {
    let registry = Registry::new(settings.same_key, algorithms())
        .remembering(remembered)
        .expecting(devices);
    for ca in settings.admin_cas {
        let id = ca.id();
        registry
            .insert(Arc::new(ca), Purpose::Admin, Status::Active)
            .map_err(|source| OpenError::Registry { id, source })?;
    }
    let instance = Instance {
        resource: format!(
            "acs:mq:{}:{}:{}",
            settings.region, settings.account, settings.id
        ),
        id: settings.id.clone(),
        account: settings.account,
        region: settings.region,
        on_inactivate: settings.on_inactivate,
        same_key: settings.same_key,
        registry: Arc::new(registry),
        peers: LivePeers::new(),
        aside: Semaphore::new(1),
        aside_queue: Semaphore::new(MOST_WAITING),
        sessions: OnceLock::new(),
        observer: OnceLock::new(),
    };
    Ok((settings.id, instance))
}
