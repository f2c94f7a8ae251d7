//! Calls and what is shown in answer to them.

use std::net::SocketAddr;

use crate::ca::crl::{CrlNumber, CrlPolicy, Wanting};
use crate::ca::error::OffReason;
use crate::ca::id::{AccessKeyId, AccountId, CaId, CaKeyId, CertSerial, InstanceId, RequestId};
use crate::ca::lifecycle::Status;
use crate::control::grant::Grant;
use crate::control::ledger::Ca;
use crate::control::{Inner, Instance};

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

impl Door {
    /// The word for it in the audit log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Mqtt => "mqtt",
            Self::Host => "host",
            Self::System => "system",
        }
    }
}

/// Who calls, as proved by a signature or a handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// The holder of an access key.
    AccessKey(AccessKeyId),
    /// The holder of an administrator's certificate.
    Certificate {
        /// Serial number of the CA.
        ca_sn: CertSerial,
        /// Serial number of the certificate.
        serial: CertSerial,
        /// The authority that signed it.
        issuer: CaKeyId,
        /// Last second at which every certificate of its path is valid, Unix seconds.
        not_after: i64,
    },
    /// An operator on the host, by user name.
    Host(String),
    /// The broker itself.
    System,
}

/// One call: who, from where, under which name.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who calls.
    pub principal: Principal,
    /// The account on whose behalf the call is made.
    pub account: AccountId,
    /// What the caller may do on the instances of that account.
    pub grant: Grant,
    /// Through which door.
    pub door: Door,
    /// From where, if over the network.
    pub address: Option<SocketAddr>,
    /// The name of the call in answers, logs and audit records.
    pub request_id: RequestId,
}

/// A registered CA as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaView {
    /// The instance whose devices it admits.
    pub instance: InstanceId,
    /// Identity of the certificate.
    pub id: CaId,
    /// Serial number, which names it in the API.
    pub sn: CertSerial,
    /// Name given at registration.
    pub name: String,
    /// The certificate.
    pub pem: String,
    /// The proof of possession, if there was one.
    pub verification_pem: Option<String>,
    /// The register code that was used up for it.
    pub register_code: Option<String>,
    /// First second of validity, Unix seconds.
    pub not_before: i64,
    /// Last second of validity, Unix seconds.
    pub not_after: i64,
    /// Own state.
    pub status: Status,
    /// What follows from its own state, its dates, its siblings of the same key, and the CAs
    /// above it.
    pub effective: Effective,
    /// What is demanded of its lists of revoked certificates.
    pub crl_policy: CrlPolicy,
    /// Subject, for people to read.
    pub subject: String,
    /// Unix milliseconds.
    pub registered_at_ms: i64,
}

/// Whether a CA admits devices now, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effective {
    /// It is inactive itself.
    Inactive,
    /// Another certificate of the same subject and key is inactive.
    InactiveSibling {
        /// Which.
        sn: CertSerial,
    },
    /// A registered CA above it is off.
    InactiveAbove {
        /// Which certificate was inactivated.
        sn: CertSerial,
    },
    /// Its certificate, or that of a registered CA above it, is revoked.
    Revoked {
        /// Which certificate.
        sn: CertSerial,
        /// The list that it is on.
        crl: CrlNumber,
    },
    /// A list of revoked certificates is demanded, and there is none that could vouch for a device.
    NoCrl(Wanting),
    /// Its dates do not hold.
    OutsideValidity,
    /// It admits devices.
    Active,
}

/// A recorded device certificate as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceView {
    /// The instance it logged in to.
    pub instance: InstanceId,
    /// The registered CA it is listed under.
    pub ca_sn: CertSerial,
    /// Its serial number.
    pub serial: CertSerial,
    /// Common name, or empty.
    pub name: String,
    /// The certificate. Empty, with dates of 0, if it is not known (another hand has deleted it) or
    /// cannot be read now.
    pub pem: String,
    /// First second of validity, Unix seconds.
    pub not_before: i64,
    /// Last second of validity, Unix seconds.
    pub not_after: i64,
    /// Own state.
    pub status: Status,
    /// Unix milliseconds.
    pub first_seen_ms: i64,
}

/// One page of a listing, oldest registration first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The entries of this page; none if the page is past the end.
    pub items: Vec<T>,
    /// Number of entries on all pages.
    pub total: usize,
}

/// Which page, counted from 1, of how many entries (1 to 100).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRequest {
    /// From 1.
    pub number: usize,
    /// 1 to 100.
    pub size: usize,
}

impl PageRequest {
    pub(crate) fn offset(self) -> usize {
        self.number.saturating_sub(1).saturating_mul(self.size)
    }
}

/// What a change did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The canonical serial number of what was changed.
    pub sn: CertSerial,
    /// `false` if it already was so.
    pub changed: bool,
    /// Live connections that were ended.
    pub sessions_ended: usize,
}

impl Inner {
    pub(crate) fn view_ca(&self, at: &Instance, ca: &Ca) -> CaView {
        let lists = at.registry.revocations(ca.certificate.key_id());
        let effective = match (ca.record.status, at.registry.off_reason(ca.record.id)) {
            (Status::Inactive, _) | (_, Some(OffReason::Own)) => Effective::Inactive,
            (_, Some(OffReason::Sibling(sn))) => Effective::InactiveSibling { sn },
            (_, Some(OffReason::Above(sn))) => Effective::InactiveAbove { sn },
            (_, Some(OffReason::Revoked { sn, crl })) => Effective::Revoked { sn, crl },
            (Status::Active, None) if !ca.certificate.is_current(self.now()) => {
                Effective::OutsideValidity
            }
            (Status::Active, None) => match lists.admit_nobody(self.now()) {
                Some(wanting) => Effective::NoCrl(wanting),
                None => Effective::Active,
            },
        };
        CaView {
            instance: ca.record.instance.clone(),
            id: ca.record.id,
            sn: ca.certificate.serial().clone(),
            name: ca.record.name.clone(),
            pem: ca.certificate.to_pem(),
            verification_pem: ca.record.verification_pem.clone(),
            register_code: ca.record.register_code.clone(),
            not_before: ca.certificate.not_before(),
            not_after: ca.certificate.not_after(),
            status: ca.record.status,
            effective,
            crl_policy: lists.policy(),
            subject: ca.certificate.subject_text().to_owned(),
            registered_at_ms: ca.record.registered_at_ms,
        }
    }
}
