//! Who is at the other end, as proved by the handshake.

use std::sync::{Arc, OnceLock};

use crate::ca::id::{CaId, CaKeyId, CertSerial, InstanceId};
use crate::ca::names::SubjectNames;
use crate::ca::path::Admitted;
pub use crate::ca::registry::Purpose;

/// A peer whose certificate was accepted. Only the verifier makes one. Cheap to clone.
#[derive(Debug, Clone)]
pub struct VerifiedPeer(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    instance: InstanceId,
    admitted: Admitted,
    names: OnceLock<SubjectNames>,
}

impl VerifiedPeer {
    pub(crate) fn new(instance: InstanceId, admitted: Admitted) -> Self {
        Self(Arc::new(Parts {
            instance,
            admitted,
            names: OnceLock::new(),
        }))
    }

    /// What the gate found.
    pub fn admitted(&self) -> &Admitted {
        &self.0.admitted
    }
    /// The instance whose registry accepted it.
    pub fn instance(&self) -> &InstanceId {
        &self.0.instance
    }
    /// What its CA is for.
    pub fn purpose(&self) -> Purpose {
        self.0.admitted.purpose()
    }
    /// Serial number of its certificate, unique for [`issuer`](Self::issuer).
    pub fn serial(&self) -> &CertSerial {
        &self.0.admitted.device().serial
    }
    /// The authority that signed its certificate.
    pub fn issuer(&self) -> CaKeyId {
        self.0.admitted.device().issuer
    }
    /// The registered CA certificate nearest to it on the verified path.
    pub fn ca(&self) -> CaId {
        self.0.admitted.ca()
    }
    /// Serial number of that CA certificate.
    pub fn ca_sn(&self) -> &CertSerial {
        self.0.admitted.ca_sn()
    }
    /// Common name of its certificate (the last one, if there are several); no control characters.
    pub fn common_name(&self) -> Option<&str> {
        self.0.admitted.common_name()
    }
    /// The other names in its certificate, read from it when they are asked for first.
    pub fn names(&self) -> &SubjectNames {
        let admitted = &self.0.admitted;
        self.0
            .names
            .get_or_init(|| SubjectNames::of_der(admitted.der()))
    }
    /// The authorities of the verified path, from the issuer up to the anchor.
    pub fn path(&self) -> &[CaKeyId] {
        self.0.admitted.path()
    }
    /// Its certificate.
    pub fn der(&self) -> &[u8] {
        self.0.admitted.der()
    }
    /// First second of validity of its certificate, Unix seconds.
    pub fn not_before(&self) -> i64 {
        self.0.admitted.not_before()
    }
    /// Last second of validity of its certificate, Unix seconds.
    pub fn not_after(&self) -> i64 {
        self.0.admitted.not_after()
    }
}
