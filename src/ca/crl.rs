//! Lists of revoked certificates (RFC 5280, section 5): read strictly, verified once, looked up
//! in a set.
//!
//! A [`Crl`] exists only if all of its octets were understood and a registered CA signed it.
//! What the lists of an issuer mean for its certificates is said by [`Revocations`].

mod error;
mod issued;
mod partition;
mod read;
mod revocations;
mod revoked;

use std::fmt;

pub use self::error::CrlError;
pub(crate) use self::issued::{Issued, Kind, points};
pub use self::partition::{Certificates, Partition};
pub use self::read::{UnverifiedCrl, to_der};
pub use self::revocations::{CrlPolicy, Revocations, Wanting};
pub use self::revoked::{Revoked, RevokedSet};

use crate::ca::id::{CaKeyId, CertSerial, CrlDigest, CrlId};

/// One issue of a list of revoked certificates, verified.
#[derive(Debug)]
pub struct Crl {
    id: CrlId,
    digest: CrlDigest,
    octets: usize,
    issuer: CaKeyId,
    issuer_text: String,
    partition: Partition,
    number: CrlNumber,
    this_update: i64,
    next_update: i64,
    revoked: RevokedSet,
}

impl Crl {
    /// Identity of the list, the same for all of its issues.
    pub fn id(&self) -> CrlId {
        self.id
    }
    /// Identity of this issue.
    pub fn digest(&self) -> CrlDigest {
        self.digest
    }
    /// Length of its DER.
    pub fn octets(&self) -> usize {
        self.octets
    }
    /// The authority whose certificates it revokes, which signed it.
    pub fn issuer(&self) -> CaKeyId {
        self.issuer
    }
    /// The issuer's name for people to read.
    pub fn issuer_text(&self) -> &str {
        &self.issuer_text
    }
    /// Which of the issuer's certificates it is for.
    pub fn partition(&self) -> &Partition {
        &self.partition
    }
    /// Which issue it is: the numbers of a list go up.
    pub fn number(&self) -> CrlNumber {
        self.number
    }
    /// When it was issued, Unix seconds.
    pub fn this_update(&self) -> i64 {
        self.this_update
    }
    /// When the next one is there at the latest, Unix seconds. From then on it has expired.
    pub fn next_update(&self) -> i64 {
        self.next_update
    }
    /// Whether the next issue should be there at `now` (Unix seconds).
    pub fn has_expired(&self, now: i64) -> bool {
        now >= self.next_update
    }
    /// The certificates on it.
    pub fn revoked(&self) -> &RevokedSet {
        &self.revoked
    }

    /// What the list says of the certificate with this serial number, if it is on it.
    pub(crate) fn find(&self, serial: &CertSerial) -> Option<Revoked> {
        self.revoked.find(serial, self.number)
    }
}

/// The number of an issue (RFC 5280, 5.2.3): at most 20 octets.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CrlNumber([u8; CertSerial::MAX_OCTETS]);

impl CrlNumber {
    /// The number with these big-endian octets.
    ///
    /// # Errors
    /// [`CrlError::Number`] if there are none, or more than 20 significant ones.
    pub fn from_be_bytes(octets: &[u8]) -> Result<Self, CrlError> {
        CertSerial::fixed(octets)
            .map(Self)
            .map_err(|_| CrlError::Number)
    }
}

/// In decimal as far as it goes, in hexadecimal beyond, as OpenSSL shows it.
impl fmt::Display for CrlNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (high, low) = self.0.split_at(4);
        match <[u8; 16]>::try_from(low) {
            Ok(low) if high == [0; 4] => write!(f, "{}", u128::from_be_bytes(low)),
            _ => write!(f, "0x{}", hex::encode(self.0)),
        }
    }
}

impl fmt::Debug for CrlNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CrlNumber({self})")
    }
}

#[cfg(test)]
mod tests;
