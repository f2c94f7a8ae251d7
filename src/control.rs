//! The one way to change trust. HTTP, the in-broker channel, the command line and start-up all
//! go through it.
//!
//! A change is planned, its intent audited, then carried out. Toward deny: in memory first (no
//! handshake completes from then on), then on disk, then the live connections end. Toward allow:
//! on disk first. Then the outcome is audited and the call answered. Changes are made one after
//! the other, each in a task of its own that goes on if its caller goes away.

pub mod access_key;
mod ca;
mod change;
pub mod crl;
mod device;
pub mod error;
pub mod explain;
pub mod grant;
pub mod impact;
mod jumps;
pub mod keys;
mod ledger;
pub mod lockout;
pub mod observe;
mod owed;
pub mod pace;
pub mod policy;
mod recording;
mod register_code;
pub mod schedule;
pub mod seal;
mod seconds;
pub mod sessions;
pub mod start;
mod switch;
mod undo;
mod view;
mod watch;

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::runtime::Handle;
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::{AuditLog, Event, Origin};
use crate::ca::certificate::CaCertificate;
use crate::ca::id::{AccountId, InstanceId};
use crate::ca::path::signatures::REMEMBERED;
use crate::ca::registry::Registry;
use crate::ca::topology::SameKey;
use crate::store::Store;
use crate::tls::live::LivePeers;
use crate::tls::peer::VerifiedPeer;

use self::access_key::AccessKeys;
use self::change::Turn;
pub use self::error::{CaRefusal, ControlError, CrlRefusal};
use self::grant::Lacking;
pub use self::grant::{Grant, Need};
use self::keys::KeySettings;
use self::ledger::Ledger;
use self::observe::Observer;
use self::pace::Paces;
use self::recording::Recorder;
use self::seal::EncryptionKey;
use self::sessions::Sessions;
pub use self::switch::{Back, Manner, Switched};
pub use self::view::{
    CaView, Caller, Changed, DeviceView, Door, Effective, Page, PageRequest, Principal,
};

/// What becomes of live sessions when their CA or device is inactivated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnInactivate {
    /// They end.
    #[default]
    Cut,
    /// They go on until they end by themselves; new ones are refused all the same.
    Keep,
}

/// An instance as the configuration describes it.
#[derive(Debug)]
pub struct InstanceSettings {
    /// Its name.
    pub id: InstanceId,
    /// The account that owns it.
    pub account: AccountId,
    /// The region it says it is in, as policies name it.
    pub region: String,
    /// What one inactive certificate means for others of the same key.
    pub same_key: SameKey,
    /// What becomes of live sessions.
    pub on_inactivate: OnInactivate,
    /// CAs whose certificates make administrators.
    pub admin_cas: Vec<CaCertificate>,
}

/// Limits and lifetimes.
#[derive(Debug, Clone)]
pub struct ControlSettings {
    /// How long a register code is good. Default: 24 hours.
    pub register_code_lifetime: Duration,
    /// Unused register codes an instance may have; the oldest give way. Default: 1,000.
    pub max_register_codes: usize,
    /// CA certificates an instance may have. Default: 100,000.
    pub max_cas: usize,
    /// Device certificates that are recorded for an instance. Default: 1,000,000.
    pub max_devices: usize,
    /// Access keys that commands may make. Default: 1,000.
    pub max_access_keys: usize,
    /// Lists of revoked certificates an instance may have. Default: 1,000.
    pub max_crls: usize,
    /// Entries of all of them together, 25 octets each. Default: 10,000,000.
    pub max_crl_entries: usize,
    /// Octets of one of them. Default: 128 MiB.
    pub max_crl_octets: usize,
    /// Signatures on certificates that are known to hold, of each instance, which are not verified
    /// again; 0 verifies all each time. Default: 100,000.
    pub max_remembered_signatures: usize,
}

impl Default for ControlSettings {
    fn default() -> Self {
        Self {
            register_code_lifetime: Duration::from_secs(24 * 3600),
            max_register_codes: 1_000,
            max_cas: 100_000,
            max_devices: 1_000_000,
            max_access_keys: 1_000,
            max_crls: 1_000,
            max_crl_entries: 10_000_000,
            max_crl_octets: 128 << 20,
            max_remembered_signatures: REMEMBERED,
        }
    }
}

/// Tells the time; tests bring their own.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// What [`Control::open`] is made of.
pub struct ControlParts {
    /// The kept records.
    pub store: Arc<dyn Store>,
    /// The audit log, and the intents in it that have no outcome.
    pub audit: (AuditLog, Vec<Event>),
    /// The instances of this process; at least one.
    pub instances: Vec<InstanceSettings>,
    /// Limits and lifetimes.
    pub settings: ControlSettings,
    /// The access keys of the configuration, and how others are kept.
    pub keys: KeySettings,
    /// The clock.
    pub clock: Clock,
    /// How long a change waits for a disk that does not answer.
    pub patience: Patience,
}

/// How long a change waits for a disk that does not answer, so that the next one has its turn: a
/// denial is made in memory whatever becomes of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// With the audit log, for each record. Default: 2 seconds.
    pub audit: Duration,
    /// With the store, for each commit, and for certificates that are read. Default: 5 seconds.
    pub store: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            audit: Duration::from_secs(2),
            store: Duration::from_secs(5),
        }
    }
}

/// The handle to change and read trust. Cheap to clone.
#[derive(Clone)]
pub struct Control(Arc<Inner>);

struct Inner {
    instances: HashMap<InstanceId, Instance>,
    settings: ControlSettings,
    clock: Clock,
    /// When it was opened, Unix milliseconds.
    began_ms: i64,
    store: Arc<dyn Store>,
    /// How long a commit may take.
    store_limit: Duration,
    /// The last commit had no answer in time.
    store_hangs: AtomicBool,
    /// Whether certificates were asked for in vain.
    lookups_hang: AtomicBool,
    recorder: Recorder,
    ledger: RwLock<Ledger>,
    /// The access keys in force, those of the configuration too.
    keys: Arc<AccessKeys>,
    encryption: Option<EncryptionKey>,
    /// Held while a change is made.
    turn: Mutex<Turn>,
    /// Whether everything denied in memory is denied on disk, too.
    durable: AtomicBool,
    /// Whether the last attempt to read what another hand changed succeeded.
    followed: AtomicBool,
    seen: mpsc::Sender<VerifiedPeer>,
    /// Held while a list of revoked certificates is read, so that only one takes the memory.
    reading: Semaphore,
    /// The connections that end over a time.
    paces: Paces,
    tasks: TaskTracker,
    /// Where changes are made; if nothing is said, where they are asked for.
    changes: OnceLock<Handle>,
    closing: CancellationToken,
}

pub(crate) struct Instance {
    id: InstanceId,
    account: AccountId,
    /// Its name in policies: `acs:mq:REGION:ACCOUNT:INSTANCE`.
    resource: String,
    region: String,
    on_inactivate: OnInactivate,
    same_key: SameKey,
    registry: Arc<Registry>,
    peers: Arc<LivePeers>,
    /// Whose turn it is for what takes long and changes nothing.
    aside: Semaphore,
    /// Who may wait for that turn.
    aside_queue: Semaphore,
    /// Set when its broker is there.
    sessions: OnceLock<Arc<dyn Sessions>>,
    /// The same.
    observer: OnceLock<Arc<dyn Observer>>,
}

type Answer<T> = Result<T, ControlError>;

impl Control {
    /// The gate's registry of an instance.
    pub fn registry(&self, instance: &InstanceId) -> Option<Arc<Registry>> {
        let instance = self.0.instances.get(instance)?;
        Some(Arc::clone(&instance.registry))
    }

    /// The connected peers of an instance.
    pub fn peers(&self, instance: &InstanceId) -> Option<Arc<LivePeers>> {
        let instance = self.0.instances.get(instance)?;
        Some(Arc::clone(&instance.peers))
    }

    /// The account that owns an instance.
    pub fn owner(&self, instance: &InstanceId) -> Option<AccountId> {
        Some(self.0.instances.get(instance)?.account.clone())
    }

    /// The instance of this process, if there is but one.
    pub fn only_instance(&self) -> Option<InstanceId> {
        let mut all = self.0.instances.keys();
        match (all.next(), all.next()) {
            (Some(only), None) => Some(only.clone()),
            (_, Some(_)) | (None, None) => None,
        }
    }

    /// Whether trust can be changed, every change is durable and recorded, and what is in the store
    /// is known.
    pub fn is_ready(&self) -> bool {
        self.0.durable.load(Ordering::Acquire)
            && self.0.followed.load(Ordering::Acquire)
            && self.0.recorder.is_up_to_date()
            && !self.0.closing.is_cancelled()
    }

    /// Make changes there, whoever asks for them. The first word counts. It must live until
    /// [`close`](Self::close) has returned.
    pub fn make_changes_on(&self, runtime: Handle) {
        let _ = self.0.changes.set(runtime);
    }

    /// Finish the changes that are under way and take no more.
    pub async fn close(&self) {
        self.0.closing.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
        self.0.recorder.close(self.0.now_ms()).await;
    }

    /// Run a change to its end, whatever becomes of the caller.
    async fn detached<T, F>(&self, change: F) -> Answer<T>
    where
        T: Send + 'static,
        F: Future<Output = Answer<T>> + Send + 'static,
    {
        if self.0.closing.is_cancelled() {
            return Err(ControlError::ShuttingDown);
        }
        let made = match self.0.changes.get() {
            Some(runtime) => self.0.tasks.spawn_on(change, runtime),
            None => self.0.tasks.spawn(change),
        };
        match made.await {
            Ok(answer) => answer,
            Err(error) if error.is_cancelled() => Err(ControlError::ShuttingDown),
            Err(error) => Err(ControlError::Internal(format!(
                "the change panicked: {error}"
            ))),
        }
    }
}

impl Inner {
    fn now(&self) -> i64 {
        self.now_ms().div_euclid(1000)
    }

    fn now_ms(&self) -> i64 {
        clock_ms(&self.clock)
    }

    fn ledger(&self) -> RwLockReadGuard<'_, Ledger> {
        self.ledger.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn ledger_mut(&self) -> RwLockWriteGuard<'_, Ledger> {
        self.ledger.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The instance, if it exists, the caller's account owns it, and the caller's grant reaches.
    fn authorize(&self, caller: &Caller, instance: &str, need: Need) -> Answer<&Instance> {
        let found = instance
            .parse::<InstanceId>()
            .ok()
            .and_then(|id| self.instances.get(&id))
            .ok_or_else(|| ControlError::InstanceNotFound(instance.chars().take(64).collect()))?;
        match caller.door {
            Door::System | Door::Host => return Ok(found),
            Door::Http | Door::Mqtt if caller.account == found.account => {}
            Door::Http | Door::Mqtt => {
                return Err(ControlError::NotOwner {
                    account: caller.account.clone(),
                    instance: found.id.clone(),
                });
            }
        }
        match caller.grant.check(need, &found.resource) {
            Ok(()) => Ok(found),
            Err(Lacking::Revoked) => Err(ControlError::PermissionDenied(
                "the access key was revoked while the call was under way".to_owned(),
            )),
            Err(Lacking::Action(action)) => Err(ControlError::PermissionDenied(format!(
                "the policy of the access key does not allow {action} on {}",
                found.resource
            ))),
        }
    }
}

fn clock_ms(clock: &Clock) -> i64 {
    // A clock before 1970 makes every certificate invalid, which is the safe side.
    clock()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_millis()).ok())
        .unwrap_or(i64::MAX)
}

/// What the audit log says of a change in all of its phases.
pub(crate) struct Record<'a> {
    caller: &'a Caller,
    action: &'static str,
    /// As the caller named it; `None` if the change is about none.
    instance: Option<&'a str>,
    subject: String,
    before: Option<&'static str>,
    after: Option<&'static str>,
    /// What the intent says besides.
    note: Option<String>,
}

/// What the audit log says of one phase.
#[derive(Default)]
pub(crate) struct Outcome {
    code: Option<String>,
    detail: Option<String>,
}

impl Outcome {
    fn detail(detail: impl Into<String>) -> Self {
        Self {
            code: None,
            detail: Some(detail.into()),
        }
    }

    fn error(error: &ControlError) -> Self {
        Self {
            code: Some(error.name().to_owned()),
            detail: Some(error.to_string()),
        }
    }
}

fn origin(caller: &Caller) -> Origin {
    Origin {
        principal: match &caller.principal {
            Principal::AccessKey(id) => format!("access_key:{id}"),
            Principal::Certificate { ca_sn, serial, .. } => format!("certificate:{ca_sn}/{serial}"),
            Principal::Host(user) => format!("host:{user}"),
            Principal::System => "system".to_owned(),
        },
        door: caller.door.as_str().to_owned(),
        address: caller.address.map(|address| address.to_string()),
        request_id: caller.request_id.to_string(),
    }
}

#[cfg(test)]
mod tests;
