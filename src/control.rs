//! The one way to change trust. HTTP, the in-broker channel, the command line and start-up all
//! go through it.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::ca::id::{AccessKeyId, AccountId, CaId, CertSerial, InstanceId, RequestId};
use crate::ca::lifecycle::Status;

/// Through which door a call came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// The signed HTTP API.
    Http,
    /// The control topic inside the broker.
    Mqtt,
    /// A command run on the host itself.
    Host,
    /// The broker itself, such as the development set-up.
    System,
}

/// Who calls, as proved by a signature or a handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// The holder of an access key.
    AccessKey(AccessKeyId),
    /// The holder of an administrator's certificate.
    Certificate {
        ca_sn: CertSerial,
        serial: CertSerial,
    },
    /// An operator on the host.
    Host(String),
    /// The broker itself.
    System,
}

/// One call: who, from where, under which name.
#[derive(Debug, Clone)]
pub struct Caller {
    pub principal: Principal,
    /// The account on whose behalf the call is made.
    pub account: AccountId,
    pub door: Door,
    pub address: Option<SocketAddr>,
    pub request_id: RequestId,
}

/// A registered CA as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaView {
    pub instance: InstanceId,
    pub id: CaId,
    pub sn: CertSerial,
    pub name: String,
    pub pem: String,
    pub verification_pem: Option<String>,
    pub register_code: Option<String>,
    /// Unix seconds.
    pub not_before: i64,
    /// Unix seconds.
    pub not_after: i64,
    /// Own state.
    pub status: Status,
    /// Own state, that of its siblings of the same key, and that of the CAs above it.
    pub effective: Effective,
    /// Subject in RFC 4514 form.
    pub subject: String,
    pub registered_at_ms: i64,
}

/// Whether a CA admits devices now, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effective {
    /// It is inactive itself.
    Inactive,
    /// Another certificate of the same subject and key is inactive.
    InactiveSibling { sn: CertSerial },
    /// A registered CA above it is off.
    InactiveAbove { sn: CertSerial },
    /// Its dates do not hold.
    OutsideValidity,
    /// It admits devices.
    Active,
}

/// A recorded device certificate as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceView {
    pub instance: InstanceId,
    pub ca_sn: CertSerial,
    pub serial: CertSerial,
    /// Common name, or empty.
    pub name: String,
    pub pem: String,
    /// Unix seconds.
    pub not_before: i64,
    /// Unix seconds.
    pub not_after: i64,
    pub status: Status,
    pub first_seen_ms: i64,
}

/// One page of a listing, oldest registration first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Number of records on all pages.
    pub total: usize,
}

/// Which page, counted from 1, of how many entries (1 to 100).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRequest {
    pub number: usize,
    pub size: usize,
}

/// What a change of state did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The canonical serial number of what was changed.
    pub sn: CertSerial,
    /// `false` if it already was in that state.
    pub changed: bool,
    /// Live sessions that were ended.
    pub sessions_ended: usize,
}

/// Why a CA certificate cannot be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaRefusal {
    #[error("the PEM cannot be read: {0}")]
    Pem(String),
    #[error("the certificate cannot be parsed: {0}")]
    Der(String),
    #[error("it is not a CA certificate: basicConstraints must have CA:TRUE")]
    NotCa,
    #[error("its key usage does not allow signing certificates (keyCertSign)")]
    NoKeyCertSign,
    #[error("it is outside its validity period")]
    OutsideValidity,
    #[error("its key or signature is too weak: {0}")]
    Weak(String),
    #[error("the verification certificate is not signed by the CA's key")]
    VerificationNotSigned,
    #[error("the verification certificate is outside its validity period")]
    VerificationOutsideValidity,
}

/// Why a call was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A parameter is missing or wrong; the text says which and how.
    #[error("{0}")]
    Parameter(String),
    #[error("there is no instance {0}")]
    InstanceNotFound(String),
    #[error("account {account} does not own instance {instance}")]
    NotOwner {
        account: AccountId,
        instance: InstanceId,
    },
    #[error("{0} is not allowed")]
    PermissionDenied(String),
    #[error("no CA certificate with serial number {0}")]
    CaNotFound(String),
    #[error("no device certificate with serial number {0}")]
    DeviceNotFound(String),
    #[error(
        "the register code in the verification certificate is not one of this instance, or has expired"
    )]
    RegisterCodeUnknown,
    #[error("the register code has been used")]
    RegisterCodeUsed,
    #[error("the instance already has {0} CA certificates, the most it may have")]
    TooManyCas(usize),
    #[error("the CA certificate cannot be registered: {0}")]
    CaRefused(#[from] CaRefusal),
    #[error("serial number {0} is already registered")]
    SnNotUnique(CertSerial),
    /// The change is in force in memory, but a restart would lose it.
    #[error("the CA or device is denied now, but the change could not be made durable: {0}")]
    NotDurable(String),
    /// Nothing was changed.
    #[error("nothing was changed: {0}")]
    Internal(String),
    /// The broker is shutting down.
    #[error("the broker is shutting down")]
    ShuttingDown,
}

/// The handle to change and read trust. Cheap to clone; a change goes on if its caller goes away.
#[derive(Clone)]
pub struct Control(#[allow(dead_code)] Arc<Inner>);

struct Inner {}

type Answer<T> = Result<T, ControlError>;

#[allow(unused_variables)]
impl Control {
    /// A new register code for the account's instance: single use, with a lifetime.
    pub async fn register_code(&self, caller: &Caller, instance: &str) -> Answer<String> {
        todo!()
    }

    /// Register a CA with proof that the caller holds its key: `verification_pem` is a
    /// certificate signed by it with the register code as common name.
    pub async fn register_ca(
        &self,
        caller: &Caller,
        instance: &str,
        name: &str,
        ca_pem: &str,
        verification_pem: &str,
    ) -> Answer<CertSerial> {
        todo!()
    }

    /// Register a CA without proof of possession; only for [`Door::Host`] and [`Door::System`].
    pub async fn register_ca_unproved(
        &self,
        caller: &Caller,
        instance: &str,
        name: &str,
        ca_pem: &str,
    ) -> Answer<CertSerial> {
        todo!()
    }

    pub async fn get_ca(&self, caller: &Caller, instance: &str, sn: &str) -> Answer<CaView> {
        todo!()
    }

    pub async fn list_cas(
        &self,
        caller: &Caller,
        instance: &str,
        page: PageRequest,
    ) -> Answer<Page<CaView>> {
        todo!()
    }

    /// Switch a CA off or on. When it returns `Ok`, the state is in force on every thread and on disk.
    pub async fn set_ca_status(
        &self,
        caller: &Caller,
        instance: &str,
        sn: &str,
        status: Status,
    ) -> Answer<Changed> {
        todo!()
    }

    /// Delete a CA with the device certificates recorded under it.
    pub async fn delete_ca(&self, caller: &Caller, instance: &str, sn: &str) -> Answer<Changed> {
        todo!()
    }

    /// Device certificates of the instance; only those of one CA if `ca_sn` is given.
    pub async fn list_devices(
        &self,
        caller: &Caller,
        instance: &str,
        ca_sn: Option<&str>,
        page: PageRequest,
    ) -> Answer<Page<DeviceView>> {
        todo!()
    }

    pub async fn get_device(
        &self,
        caller: &Caller,
        instance: &str,
        ca_sn: &str,
        device_sn: &str,
    ) -> Answer<DeviceView> {
        todo!()
    }

    pub async fn set_device_status(
        &self,
        caller: &Caller,
        instance: &str,
        ca_sn: &str,
        device_sn: &str,
        status: Status,
    ) -> Answer<Changed> {
        todo!()
    }

    /// Forget a device certificate; it is recorded again, as active, at its next connection.
    pub async fn delete_device(
        &self,
        caller: &Caller,
        instance: &str,
        ca_sn: &str,
        device_sn: &str,
    ) -> Answer<Changed> {
        todo!()
    }

    /// Whether trust can be read and changed: registry loaded, store and audit log writable.
    pub fn is_ready(&self) -> bool {
        todo!()
    }
}
