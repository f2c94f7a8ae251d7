//! Why a call was not carried out.

use crate::ca::crl::{CrlError, CrlNumber};
use crate::ca::error::CertificateError;
use crate::ca::id::{AccessKeyId, AccountId, CertSerial, InstanceId};
use crate::ca::registry::RegistryError;
use crate::control::lockout::LockedOut;

/// Why a CA certificate cannot be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaRefusal {
    /// The CA certificate itself is not fit.
    #[error("CA certificate: {0}")]
    Certificate(CertificateError),
    /// It has expired, or is not valid yet.
    #[error("CA certificate: it is outside its validity period")]
    OutsideValidity,
    /// The verification certificate cannot be read.
    #[error("verification certificate: {0}")]
    Verification(CertificateError),
    /// The registrant does not hold the CA's key.
    #[error("verification certificate: it is not signed by the key of the CA certificate")]
    VerificationNotSigned,
    /// The proof is old, or not valid yet.
    #[error("verification certificate: it is outside its validity period")]
    VerificationOutsideValidity,
    /// The registry cannot take it.
    #[error("{0}")]
    Registry(#[from] RegistryError),
}

/// Why a list of revoked certificates is not imported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CrlRefusal {
    /// It cannot be read, or no registered CA signed it.
    #[error("{0}")]
    Crl(#[from] CrlError),
    /// Another CA than the one that was named signed it.
    #[error("it is the list of another CA ({issuer})")]
    OtherIssuer {
        /// Whose list it is.
        issuer: String,
    },
    /// The one in force is as new or newer.
    #[error("its number {number} does not go up: CRL {known} is in force")]
    NumberGoesBack {
        /// Its number.
        number: CrlNumber,
        /// The number of the one in force.
        known: CrlNumber,
    },
    /// A higher number with an older date.
    #[error("it was issued before CRL {known}, which is in force, and has a higher number")]
    DateGoesBack {
        /// The number of the one in force.
        known: CrlNumber,
    },
    /// It is from the future.
    #[error("it was issued in the future; one of the clocks is wrong")]
    NotYet,
    /// It would vouch for nobody.
    #[error("it has expired, and one in date is demanded of this CA; import a newer one")]
    Expired,
    /// The limit of the configuration.
    #[error("the instance has {0} CRLs, the most it may have")]
    TooMany(usize),
    /// The limit of the configuration.
    #[error("the CRLs of the instance would have more than {0} entries, the most they may have")]
    TooManyEntries(usize),
}

/// Why a call was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A parameter is missing or wrong; the text says which and how.
    #[error("{0}")]
    Parameter(String),
    /// This process has no such instance.
    #[error("there is no instance {0:?} here")]
    InstanceNotFound(String),
    /// The caller's account is not the owner.
    #[error("account {account} does not own instance {instance}")]
    NotOwner {
        /// On whose behalf the call was made.
        account: AccountId,
        /// The instance it was about.
        instance: InstanceId,
    },
    /// The caller may not do this.
    #[error("{0}")]
    PermissionDenied(String),
    /// No such CA in the instance.
    #[error("no CA certificate with serial number {0:?}")]
    CaNotFound(String),
    /// No such device under the CA.
    #[error("no device certificate with serial number {0:?}")]
    DeviceNotFound(String),
    /// The code was never given out for this instance and account, or has expired.
    #[error(
        "the register code in the verification certificate was not given out for this instance, or has expired"
    )]
    RegisterCodeUnknown,
    /// The code has served its purpose.
    #[error("the register code has been used")]
    RegisterCodeUsed,
    /// The limit of the configuration.
    #[error("the instance has {0} CA certificates, the most it may have")]
    TooManyCas(usize),
    /// The certificates do not meet the demands.
    #[error("{0}")]
    CaRefused(#[from] CaRefusal),
    /// A serial number names one CA in this process.
    #[error("serial number {0} is already registered")]
    SnNotUnique(CertSerial),
    /// The list is not what it must be.
    #[error("the CRL is not taken: {0}")]
    CrlRefused(#[from] CrlRefusal),
    /// No such list.
    #[error("no CRL with id {0:?}")]
    CrlNotFound(String),
    /// No such scheduled change.
    #[error("no schedule with id {0:?}")]
    ScheduleNotFound(String),
    /// No such access key.
    #[error("no access key with id {0:?}")]
    KeyNotFound(String),
    /// The access key is not for commands to change.
    #[error(
        "access key {0} stands in the configuration file; change it there and restart the broker"
    )]
    KeyIsConfigured(AccessKeyId),
    /// The limit of the configuration.
    #[error("there are {0} access keys, the most there may be")]
    TooManyKeys(usize),
    /// The denial is in force in memory, but a restart might lose it.
    #[error("it is denied now, but that could not be made durable: {0}")]
    NotDurable(String),
    /// The denial is in force and on disk, but its record is not in the audit log yet.
    #[error("it is denied now, also after a restart; it is not in the audit log yet: {0}")]
    Unrecorded(String),
    /// The disk does not answer. Nothing is allowed; if the disk makes the change after all, it is
    /// taken back.
    #[error("it is not made, and is taken back if the disk makes it later: {0}")]
    Unanswered(String),
    /// Nothing was changed; the text is for the log.
    #[error("nothing was changed: {0}")]
    Internal(String),
    /// Administrators would have no way in any more.
    #[error("{0}")]
    LocksOut(LockedOut),
    /// Others ask for the like, and it would take too long.
    #[error("too much of this kind is asked for at the same time")]
    Busy,
    /// The broker is shutting down.
    #[error("the broker is shutting down")]
    ShuttingDown,
}

impl ControlError {
    /// The error as one word for audit records, from a closed set.
    pub fn name(&self) -> &'static str {
        match self {
            ControlError::Parameter(_) => "parameter",
            ControlError::InstanceNotFound(_) => "instance_not_found",
            ControlError::NotOwner { .. } => "not_owner",
            ControlError::PermissionDenied(_) => "permission_denied",
            ControlError::CaNotFound(_) => "ca_not_found",
            ControlError::DeviceNotFound(_) => "device_not_found",
            ControlError::RegisterCodeUnknown => "register_code_unknown",
            ControlError::RegisterCodeUsed => "register_code_used",
            ControlError::TooManyCas(_) => "too_many_cas",
            ControlError::CaRefused(_) => "ca_refused",
            ControlError::SnNotUnique(_) => "sn_not_unique",
            ControlError::CrlRefused(_) => "crl_refused",
            ControlError::CrlNotFound(_) => "crl_not_found",
            ControlError::ScheduleNotFound(_) => "schedule_not_found",
            ControlError::KeyNotFound(_) => "key_not_found",
            ControlError::KeyIsConfigured(_) => "key_is_configured",
            ControlError::TooManyKeys(_) => "too_many_keys",
            ControlError::NotDurable(_) => "not_durable",
            ControlError::Unrecorded(_) => "unrecorded",
            ControlError::Unanswered(_) => "unanswered",
            ControlError::Internal(_) => "internal",
            ControlError::LocksOut(_) => "locks_out",
            ControlError::Busy => "busy",
            ControlError::ShuttingDown => "shutting_down",
        }
    }
}
