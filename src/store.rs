//! What survives a restart: one ordered sequence of changes, and the records it folds to.
//!
//! Nothing outside this module knows which database keeps them.

pub mod sqlite;

use std::future::Future;
use std::pin::Pin;

use crate::ca::id::{AccountId, CaId, CaKeyId, CertSerial, InstanceId};
use crate::ca::lifecycle::Status;

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

/// A device certificate as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRecord {
    /// The instance it logged in to.
    pub instance: InstanceId,
    /// The authority (subject and key) that issued it.
    pub issuer: CaKeyId,
    /// Its serial number, unique for the issuer.
    pub serial: CertSerial,
    /// The registered CA certificate nearest to it on the path, under which it is listed.
    pub ca: CaId,
    /// Its common name, or the empty string.
    pub name: String,
    /// Own state.
    pub status: Status,
    /// The certificate.
    pub der: Vec<u8>,
    /// When it was recorded, Unix milliseconds.
    pub first_seen_ms: i64,
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

/// One change to the kept records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Insert the CA, or replace the one with the same id.
    PutCa(CaRecord),
    /// Remove the CA.
    DeleteCa(CaId),
    /// Insert the device, or replace the one of the same instance, issuer and serial.
    PutDevice(DeviceRecord),
    /// Remove the device.
    DeleteDevice {
        instance: InstanceId,
        issuer: CaKeyId,
        serial: CertSerial,
    },
    /// Insert the register code, or replace it.
    PutRegisterCode(RegisterCodeRecord),
    /// Remove the register code.
    DeleteRegisterCode(String),
}

/// All records at one point of the sequence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Number of the last commit in it; 0 for an empty store.
    pub seq: u64,
    pub cas: Vec<CaRecord>,
    pub devices: Vec<DeviceRecord>,
    pub register_codes: Vec<RegisterCodeRecord>,
}

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another writer committed first; read a new snapshot.
    #[error("the store is at revision {head}, the change was made for revision {expected}")]
    Conflict { expected: u64, head: u64 },
    /// The data directory or the database file cannot be used as it is.
    #[error("{what}")]
    Unusable { what: String },
    /// The database failed.
    #[error("the database failed: {0}")]
    Database(#[from] rusqlite::Error),
    /// The writer has stopped.
    #[error("the store is closed")]
    Closed,
}

/// What a store answers with.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// The kept records, behind whichever database holds them.
///
/// `seq` is dense, starts at 1 with the first commit, and is written in the same transaction
/// as the change it numbers.
pub trait Store: Send + Sync + 'static {
    /// All records, and the number of the last commit in them.
    fn snapshot(&self) -> StoreFuture<'_, Snapshot>;

    /// The number of the last commit.
    fn head(&self) -> StoreFuture<'_, u64>;

    /// Apply the changes as one commit and give its number; durable when it returns.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the head is not `expected`; nothing is changed then.
    fn commit(&self, expected: u64, changes: Vec<Change>) -> StoreFuture<'_, u64>;

    /// Resolves once something newer than `after` is committed, by this process or by a hand
    /// on the database file, with the new head.
    fn changed(&self, after: u64) -> StoreFuture<'_, u64>;
}
