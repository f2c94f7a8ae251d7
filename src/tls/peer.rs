//! Who is at the other end, as proved by the handshake.

use std::sync::Arc;

use crate::ca::id::{CaId, CaKeyId, CertSerial, InstanceId};

/// What the registered CA at the end of the path is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// It signs device certificates; registered and switched through the API.
    Device,
    /// It signs certificates of in-broker administrators; named in the configuration.
    Admin,
}

/// A peer whose certificate was accepted. Only the verifier makes one.
#[derive(Debug, Clone)]
pub struct VerifiedPeer(pub(crate) Arc<PeerParts>);

#[derive(Debug)]
pub(crate) struct PeerParts {
    pub(crate) instance: InstanceId,
    pub(crate) purpose: Purpose,
    pub(crate) serial: CertSerial,
    pub(crate) issuer: CaKeyId,
    pub(crate) ca: CaId,
    pub(crate) ca_sn: CertSerial,
    pub(crate) common_name: Option<String>,
    pub(crate) path: Vec<CaKeyId>,
    pub(crate) der: Vec<u8>,
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
}

impl VerifiedPeer {
    /// The instance whose registry accepted it.
    pub fn instance(&self) -> &InstanceId {
        &self.0.instance
    }
    /// What its CA is for.
    pub fn purpose(&self) -> Purpose {
        self.0.purpose
    }
    /// Serial number of its certificate, unique for [`issuer`](Self::issuer).
    pub fn serial(&self) -> &CertSerial {
        &self.0.serial
    }
    /// The authority that signed its certificate.
    pub fn issuer(&self) -> CaKeyId {
        self.0.issuer
    }
    /// The registered CA certificate nearest to it on the verified path.
    pub fn ca(&self) -> CaId {
        self.0.ca
    }
    /// Serial number of that CA certificate.
    pub fn ca_sn(&self) -> &CertSerial {
        &self.0.ca_sn
    }
    /// Common name of its certificate (the last one, if there are several); no control characters.
    pub fn common_name(&self) -> Option<&str> {
        self.0.common_name.as_deref()
    }
    /// The authorities of the verified path, from the issuer up to the anchor.
    pub fn path(&self) -> &[CaKeyId] {
        &self.0.path
    }
    /// Its certificate.
    pub fn der(&self) -> &[u8] {
        &self.0.der
    }
    /// First second of validity of its certificate, Unix seconds.
    pub fn not_before(&self) -> i64 {
        self.0.not_before
    }
    /// Last second of validity of its certificate, Unix seconds.
    pub fn not_after(&self) -> i64 {
        self.0.not_after
    }
}
