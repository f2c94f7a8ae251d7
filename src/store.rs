//! What survives a restart: one ordered sequence of changes, and the records it folds to.
//!
//! Nothing outside this module knows which database keeps them.

pub(crate) mod files;
mod migrations;
mod own_file;
pub mod replay;
pub mod sessions;
pub mod sqlite;

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::ca::crl::CrlPolicy;
use crate::ca::id::{
    AccessKeyId, AccountId, CaId, CaKeyId, CertSerial, CrlDigest, CrlId, InstanceId, ScheduleId,
};
use crate::ca::lifecycle::Status;
use crate::secret::Secret;

/// A CA certificate as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaRecord {
    /// The instance whose devices it admits.
    pub instance: InstanceId,
    /// Identity: SHA-256 of `der`.
    pub id: CaId,
    /// Name given at registration, 1 to 64 characters.
    pub name: String,
    /// Own state.
    pub status: Status,
    /// The certificate.
    pub der: Vec<u8>,
    /// The verification certificate (PEM), if the registrant proved possession of the key.
    pub verification_pem: Option<String>,
    /// The register code that was used up for it.
    pub register_code: Option<String>,
    /// When it was registered, Unix milliseconds.
    pub registered_at_ms: i64,
}

/// Which device certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeviceId {
    /// The instance it is recorded for.
    pub instance: InstanceId,
    /// The authority (subject and key) that issued it.
    pub issuer: CaKeyId,
    /// Its serial number, unique for the issuer.
    pub serial: CertSerial,
}

/// A device as it is kept. Its certificate is kept apart: there may be a million of them, and they are
/// only ever looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRecord {
    /// The instance it logged in to.
    pub instance: InstanceId,
    /// The authority (subject and key) that issued it.
    pub issuer: CaKeyId,
    /// Its serial number, unique for the issuer.
    pub serial: CertSerial,
    /// The registered CA certificate nearest to it on the path, under which it is listed; or, of an inactive
    /// one, another of the instance, if that was deleted.
    pub ca: CaId,
    /// Its common name, or the empty string.
    pub name: String,
    /// Own state.
    pub status: Status,
    /// When it was recorded, Unix milliseconds.
    pub first_seen_ms: i64,
}

impl DeviceRecord {
    /// Which it is.
    pub fn id(&self) -> DeviceId {
        DeviceId {
            instance: self.instance.clone(),
            issuer: self.issuer,
            serial: self.serial.clone(),
        }
    }
}

/// A register code that was given out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterCodeRecord {
    /// The instance it is bound to.
    pub instance: InstanceId,
    /// The account that asked for it.
    pub account: AccountId,
    /// The code itself.
    pub code: String,
    /// When it stops being good, Unix milliseconds.
    pub expires_at_ms: i64,
    /// Whether a CA was registered with it; a used code is kept so that a second use is told
    /// apart from a code that never was.
    pub used: bool,
}

/// An access key as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessKeyRecord {
    /// Public half.
    pub id: AccessKeyId,
    /// The account it belongs to.
    pub account: AccountId,
    /// What it is for, in the words of whoever made it.
    pub comment: String,
    /// Inactive: its requests are refused.
    pub status: Status,
    /// Secret half.
    pub secret: KeptSecret,
    /// Its policy (JSON); without one it may do everything on its account's instances.
    pub policy: Option<String>,
    /// When it was made, Unix milliseconds.
    pub created_at_ms: i64,
}

/// A list of revoked certificates as it is kept. Its DER is kept apart: it may be large.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlRecord {
    /// The instance in whose gate it is.
    pub instance: InstanceId,
    /// The list, the same for all of its issues.
    pub id: CrlId,
    /// The authority (subject and key) that signed it.
    pub issuer: CaKeyId,
    /// The issue of it: SHA-256 of its DER.
    pub digest: CrlDigest,
    /// When it was imported, Unix milliseconds.
    pub imported_at_ms: i64,
}

/// What is demanded of the lists of a CA, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlPolicyRecord {
    /// The instance in whose gate it holds.
    pub instance: InstanceId,
    /// The authority (subject and key) whose lists are meant.
    pub issuer: CaKeyId,
    /// What is demanded.
    pub policy: CrlPolicy,
}

/// A change of a CA that is to be made at a time, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleRecord {
    /// Its name.
    pub id: ScheduleId,
    /// The CA certificate; another one of the same serial number is not meant.
    pub ca: CaId,
    /// The state that it is to have.
    pub status: Status,
    /// When, Unix milliseconds.
    pub at_ms: i64,
    /// Whether it is made if it locks administrators out.
    pub force: bool,
    /// Who asked for it, in the words of the audit log.
    pub principal: String,
    /// When it was asked for, Unix milliseconds.
    pub created_at_ms: i64,
    /// Of an activation: the inactivation that it ends. Its own id stands for one that was made by
    /// hand. `None` if it was planned for itself.
    pub ends: Option<ScheduleId>,
}

/// The DER of a list. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct CrlDer(pub Arc<[u8]>);

impl std::fmt::Debug for CrlDer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CrlDer({} octets)", self.0.len())
    }
}

/// A secret as it is kept.
#[derive(Clone, PartialEq, Eq)]
pub enum KeptSecret {
    /// Encrypted; what is in it is for who sealed it.
    Sealed(Vec<u8>),
    /// As it is.
    Plain(Secret),
}

impl std::fmt::Debug for KeptSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sealed(_) => "[sealed]",
            Self::Plain(_) => "[redacted]",
        })
    }
}

/// One change to the kept records. Those of one commit take effect in their order; removing or moving
/// what is not there changes nothing, nor does anything that would stand under a CA that is not there
/// (it would have gone with it), but for a denial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Insert the CA, or replace the one with the same id.
    PutCa(CaRecord),
    /// Remove the CA, and with it the devices that are listed under it.
    DeleteCa(CaId),
    /// Insert the device, or replace the one of the same id; one that is inactive stays so.
    PutDevice {
        /// What is kept of it.
        record: DeviceRecord,
        /// The certificate itself.
        der: Bytes,
    },
    /// Give the device the status of this record. One that is not there cannot be active, and is
    /// inserted if it is to be inactive: a denial is kept, if need be without a certificate, and under
    /// another CA of the instance. Only where there is none at all it is not.
    SwitchDevice(DeviceRecord),
    /// List the device under another CA.
    MoveDevice {
        /// Which.
        device: DeviceId,
        /// That CA.
        to: CaId,
    },
    /// Remove the device.
    DeleteDevice(DeviceId),
    /// Insert the register code, or replace it.
    PutRegisterCode(RegisterCodeRecord),
    /// Remove the register code.
    DeleteRegisterCode(String),
    /// Insert the access key, or replace the one with the same id.
    PutAccessKey(AccessKeyRecord),
    /// Remove the access key.
    DeleteAccessKey(AccessKeyId),
    /// Insert the list, or replace the one of the same instance and id.
    PutCrl {
        /// What is kept of it.
        record: CrlRecord,
        /// The list itself, whose digest is in the record.
        der: CrlDer,
    },
    /// Remove the list.
    DeleteCrl {
        /// The instance it is kept for.
        instance: InstanceId,
        /// Which.
        id: CrlId,
    },
    /// Insert the policy, or replace the one of the same instance and issuer. `Optional` removes it:
    /// that is what holds without one.
    PutCrlPolicy(CrlPolicyRecord),
    /// Insert the schedule, or replace the one with the same id. It goes with its CA.
    PutSchedule(ScheduleRecord),
    /// Remove the schedule.
    DeleteSchedule(ScheduleId),
}

impl Change {
    /// The device that it is about.
    pub(crate) fn device(&self) -> Option<DeviceId> {
        match self {
            Self::PutDevice { record, .. } | Self::SwitchDevice(record) => Some(record.id()),
            Self::MoveDevice { device, .. } | Self::DeleteDevice(device) => Some(device.clone()),
            Self::PutCa(_)
            | Self::DeleteCa(_)
            | Self::PutRegisterCode(_)
            | Self::DeleteRegisterCode(_)
            | Self::PutAccessKey(_)
            | Self::DeleteAccessKey(_)
            | Self::PutCrl { .. }
            | Self::DeleteCrl { .. }
            | Self::PutCrlPolicy(_)
            | Self::PutSchedule(_)
            | Self::DeleteSchedule(_) => None,
        }
    }

    /// Whether it changes a list of revoked certificates, which lies in a file of its own.
    pub(crate) fn is_of_a_list(&self) -> bool {
        matches!(self, Self::PutCrl { .. } | Self::DeleteCrl { .. })
    }
}

/// All records at one point of the sequence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Number of the last commit in it; 0 for an empty store.
    pub seq: u64,
    /// CA certificates.
    pub cas: Vec<CaRecord>,
    /// Devices, without their certificates; the CA of each is among `cas`.
    pub devices: Vec<DeviceRecord>,
    /// Register codes, used ones too.
    pub register_codes: Vec<RegisterCodeRecord>,
    /// Access keys.
    pub access_keys: Vec<AccessKeyRecord>,
    /// Lists of revoked certificates, without their DER.
    pub crls: Vec<CrlRecord>,
    /// What is demanded of lists, where anything was ever said.
    pub crl_policies: Vec<CrlPolicyRecord>,
    /// Changes that are to be made; the CA of each is among `cas`.
    pub schedules: Vec<ScheduleRecord>,
}

/// Of two records of one device nobody can say which one counts. Only a damaged file has them.
pub(crate) fn each_device_is_there_once(devices: &[DeviceRecord]) -> Result<(), StoreError> {
    let mut seen = HashSet::with_capacity(devices.len());
    let twice = devices
        .iter()
        .find(|device| !seen.insert((&device.instance, device.issuer, &device.serial)));
    match twice {
        None => Ok(()),
        Some(device) => Err(StoreError::Corrupt {
            table: "device",
            row: format!(
                "instance {}, issuer {}, serial {}",
                device.instance, device.issuer, device.serial
            ),
            what:
                "is there twice, and only one state can hold: restore a backup, or delete one of \
                   the rows by its rowid and REINDEX"
                    .to_owned(),
        }),
    }
}

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another writer committed first; read a new snapshot.
    #[error("the store is at revision {head}, the change was made for revision {expected}")]
    Conflict {
        /// The revision the change was made for.
        expected: u64,
        /// The revision at its turn.
        head: u64,
    },
    /// The data directory or the database file cannot be used as it is.
    #[error("{what}")]
    Unusable {
        /// What is wrong, and what to do.
        what: String,
    },
    /// A record that is no record: found when reading, or refused when writing.
    #[error("table {table}, {row}: {what}")]
    Corrupt {
        /// Its table.
        table: &'static str,
        /// Which row, such as `rowid 7`.
        row: String,
        /// What is wrong with it, beginning with the column where there is one.
        what: String,
    },
    /// The database failed. Nothing was changed for now, but if it was the final write that
    /// failed, a crash may bring the change back.
    #[error("the database failed: {0}")]
    Database(#[from] rusqlite::Error),
    /// It takes too long to wait for. What was asked for may still be done.
    #[error("the disk of the store has not answered for {0:?}")]
    Silent(std::time::Duration),
    /// The disk is known not to answer, so that the change was not asked of it.
    #[error("the disk of the store does not answer, and the change was not asked of it")]
    NotAsked,
    /// The writer has stopped.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Whether nothing is known of the disk but that it does not answer.
    pub(crate) fn is_silence(&self) -> bool {
        matches!(self, Self::Silent(_) | Self::NotAsked)
    }
}

/// A snapshot that is still being read.
pub struct Parts {
    /// Everything but the devices.
    pub rest: Snapshot,
    /// The devices.
    pub devices: StoreFuture<'static, Vec<DeviceRecord>>,
}

/// How long whoever asks for something to be on disk waits for that: a disk that hangs shall keep nobody from
/// what can be done without it. A real disk of tests may be slow, and none of them waits for a hanging one.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 60 } else { 2 });

/// Whether something is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durable {
    /// Not yet; it is tried again every second.
    NotYet,
    /// It is.
    Yes,
}

/// What a store answers with.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// The kept records, behind whichever database holds them.
///
/// `seq` is dense, starts at 1 with the first commit, and is written in the same transaction
/// as the change it numbers.
pub trait Store: Send + Sync + 'static {
    /// All records, oldest first, and the number of the last commit in them. Commits go on
    /// meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] names a record that cannot be read; none is ever left out.
    fn snapshot(&self) -> StoreFuture<'_, Snapshot> {
        Box::pin(async {
            let Parts { rest, devices } = self.snapshot_by_parts().await?;
            let devices = devices.await?;
            Ok(Snapshot { devices, ..rest })
        })
    }

    /// The same, all of one moment, but what does not take long is given while the devices are still
    /// being read: there may be a million of them.
    ///
    /// # Errors
    /// As [`snapshot`](Self::snapshot), here or when the devices are waited for.
    fn snapshot_by_parts(&self) -> StoreFuture<'_, Parts>;

    /// The number of the last commit.
    fn head(&self) -> StoreFuture<'_, u64>;

    /// What is kept as the certificates (DER) of these devices, in this order; `None` for one that is
    /// not there, or damaged. Commits go on meanwhile.
    ///
    /// # Errors
    /// If they cannot be read.
    fn device_certificates(&self, devices: Vec<DeviceId>) -> StoreFuture<'_, Vec<Option<Bytes>>>;

    /// The DER of a kept list.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if it is not there, or is another.
    fn crl(&self, digest: CrlDigest) -> StoreFuture<'_, CrlDer>;

    /// Write the DER of a list ahead of the commit that names it, so that the commit need not: what
    /// is large goes to disk while other changes go on. What no commit names goes again.
    ///
    /// # Errors
    /// If it cannot be written, or is not the list of this digest.
    fn prepare_crl(&self, digest: CrlDigest, der: CrlDer) -> StoreFuture<'_, ()>;

    /// Apply the changes as one commit and give its number; durable when it returns. Once the
    /// future was polled, the commit goes on if the future is dropped; one with lists may then
    /// leave nothing behind.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the head is not `expected`, [`StoreError::Corrupt`] for a
    /// record that could not be read back, and a device to be switched on that is not there; nothing
    /// is changed then.
    fn commit(&self, expected: u64, changes: Vec<Change>) -> StoreFuture<'_, u64>;

    /// Resolves once something newer than `after` is committed, by this process or by a hand
    /// on the database file, with the new head.
    fn changed(&self, after: u64) -> StoreFuture<'_, u64>;
}
