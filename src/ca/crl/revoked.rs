//! The serial numbers of a list, 25 octets each.

use std::fmt;

use webpki::{BorrowedRevokedCert, RevocationReason};

use super::CrlNumber;
use super::error::CrlError;
use crate::ca::id::CertSerial;

/// The certificates of a list: sorted, of one size, in one piece of memory. A million entries
/// take 25 MB.
#[derive(Debug)]
pub struct RevokedSet(Box<[Entry]>);

/// What a list says of a certificate that is on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// The number of the list.
    pub crl: CrlNumber,
    /// Since when, Unix seconds.
    pub since: i64,
    /// Why, if the list says so.
    pub reason: Option<RevocationReason>,
}

/// Without alignment, so that it has no gaps.
#[derive(Debug, Clone, Copy)]
struct Entry {
    serial: [u8; CertSerial::MAX_OCTETS],
    /// Unix seconds, until the year 2106.
    since: [u8; 4],
    reason: u8,
}

impl RevokedSet {
    /// Read all entries, at most `most`.
    pub(super) fn read<'a>(
        entries: impl Iterator<Item = Result<BorrowedRevokedCert<'a>, webpki::Error>>,
        most: usize,
    ) -> Result<Self, CrlError> {
        let mut set = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| CrlError::of(&error))?;
            if set.len() >= most {
                return Err(CrlError::TooManyEntries(most));
            }
            set.push(Entry::read(&entry)?);
        }
        Ok(Self::sorted(set))
    }

    fn sorted(mut set: Vec<Entry>) -> Self {
        if !set.is_sorted_by(|a, b| a.serial < b.serial) {
            set.sort_unstable_by(|a, b| (&a.serial, &a.since).cmp(&(&b.serial, &b.since)));
            set.dedup_by(|later, earlier| later.serial == earlier.serial);
        }
        Self(set.into_boxed_slice())
    }

    /// How many certificates there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn find(&self, serial: &CertSerial, crl: CrlNumber) -> Option<Revoked> {
        let serial = CertSerial::fixed(serial.as_bytes()).ok()?;
        let place = self.0.binary_search_by(|entry| entry.serial.cmp(&serial));
        let entry = self.0.get(place.ok()?)?;
        Some(Revoked {
            crl,
            since: i64::from(u32::from_be_bytes(entry.since)),
            reason: RevocationReason::try_from(entry.reason).ok(),
        })
    }
}

impl Entry {
    fn read(entry: &BorrowedRevokedCert<'_>) -> Result<Self, CrlError> {
        if entry.reason_code == Some(RevocationReason::RemoveFromCrl) {
            return Err(CrlError::RemoveFromCrl);
        }
        let since = u32::try_from(entry.revocation_date.as_secs()).unwrap_or(u32::MAX);
        Ok(Self {
            serial: CertSerial::fixed(entry.serial_number).map_err(|_| CrlError::Serial)?,
            since: since.to_be_bytes(),
            reason: entry.reason_code.map_or(NO_REASON, |reason| reason as u8),
        })
    }
}

/// As it stands in the message of a refusal.
impl fmt::Display for Revoked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CRL {} of its issuer", self.crl)?;
        if let Some(reason) = self.reason {
            write!(f, ", reason {}", word(reason))?;
        }
        Ok(())
    }
}

/// The name of the reason in RFC 5280, 5.3.1.
fn word(reason: RevocationReason) -> &'static str {
    match reason {
        RevocationReason::Unspecified => "unspecified",
        RevocationReason::KeyCompromise => "keyCompromise",
        RevocationReason::CaCompromise => "cACompromise",
        RevocationReason::AffiliationChanged => "affiliationChanged",
        RevocationReason::Superseded => "superseded",
        RevocationReason::CessationOfOperation => "cessationOfOperation",
        RevocationReason::CertificateHold => "certificateHold",
        RevocationReason::RemoveFromCrl => "removeFromCRL",
        RevocationReason::PrivilegeWithdrawn => "privilegeWithdrawn",
        RevocationReason::AaCompromise => "aACompromise",
    }
}

/// No code of a reason.
const NO_REASON: u8 = u8::MAX;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set(serials: &[Vec<u8>]) -> RevokedSet {
        let entries = serials.iter().map(|serial| Entry {
            serial: CertSerial::fixed(serial).unwrap(),
            since: [0; 4],
            reason: NO_REASON,
        });
        RevokedSet::sorted(entries.collect())
    }

    #[test]
    fn an_entry_has_no_gaps() {
        assert_eq!(size_of::<Entry>(), 25);
    }

    proptest! {
        /// Few values, so that the same ones come again, also with zeros in front.
        #[test]
        fn set_has_what_an_ordered_set_has(
            serials in proptest::collection::vec(proptest::collection::vec(0_u8..3, 1..=4), 0..60),
            asked in proptest::collection::vec(proptest::collection::vec(0_u8..3, 1..=4), 0..60),
        ) {
            let number = CrlNumber::from_be_bytes(&[1]).unwrap();
            let of = |octets: &Vec<u8>| CertSerial::from_be_bytes(octets).unwrap();
            let model: BTreeSet<_> = serials.iter().map(of).collect();
            let set = set(&serials);
            prop_assert_eq!(set.len(), model.len());
            for serial in serials.iter().chain(&asked) {
                let found = set.find(&of(serial), number).is_some();
                prop_assert_eq!(found, model.contains(&of(serial)));
            }
        }

        #[test]
        fn long_serials_are_told_apart(
            serials in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..=20), 1..40),
            one in proptest::collection::vec(any::<u8>(), 1..=20),
        ) {
            let number = CrlNumber::from_be_bytes(&[1]).unwrap();
            let one = CertSerial::from_be_bytes(&one).unwrap();
            let model: BTreeSet<_> =
                serials.iter().map(|it| CertSerial::from_be_bytes(it).unwrap()).collect();
            let set = set(&serials);
            prop_assert_eq!(set.find(&one, number).is_some(), model.contains(&one));
            for serial in &model {
                prop_assert!(set.find(serial, number).is_some());
            }
        }
    }
}
