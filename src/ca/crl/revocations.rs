//! What the lists of an issuer mean for its certificates.

use std::fmt;
use std::sync::Arc;

use super::issued::{Issued, Kind};
use super::revoked::Revoked;
use super::{Certificates, Crl, CrlNumber};
use crate::ca::id::CertSerial;

/// What is demanded of the lists of a CA before its certificates are accepted. The stricter one is
/// the smaller one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum CrlPolicy {
    /// A list that covers the certificate must be there and in date.
    Required,
    /// If there are lists that cover the certificate, one of them must be in date.
    InDate,
    /// Nothing: what the lists that are there revoke is refused, however old they are.
    #[default]
    Optional,
}

impl CrlPolicy {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Required, Self::InDate, Self::Optional];

    /// Its name in commands, answers and the store.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::InDate => "in_date",
            Self::Optional => "optional",
        }
    }

    /// The one of this name.
    pub fn find(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.word() == word)
    }
}

impl fmt::Display for CrlPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The lists of one issuer that are in force, and what is demanded of them.
#[derive(Debug, Clone, Default)]
pub struct Revocations {
    policy: CrlPolicy,
    lists: Vec<Arc<Crl>>,
    /// On their way to the disk: what they revoke counts already, and nothing else of them does.
    coming: Vec<Arc<Crl>>,
}

/// What is missing for a certificate to be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanting {
    /// No list covers it.
    Missing,
    /// The lists that cover it have expired.
    Expired {
        /// The one that did so last.
        crl: CrlNumber,
    },
}

impl Revocations {
    /// These lists, of one issuer, and nothing else.
    pub fn new(policy: CrlPolicy, lists: Vec<Arc<Crl>>) -> Self {
        Self {
            policy,
            lists,
            coming: Vec::new(),
        }
    }

    /// The same, and whatever else these lists or this policy would deny.
    #[must_use]
    pub fn denying_more(
        &self,
        policy: CrlPolicy,
        coming: impl IntoIterator<Item = Arc<Crl>>,
    ) -> Self {
        let mut more = self.clone();
        more.policy = more.policy.min(policy);
        for crl in coming {
            let known = more.lists.iter().chain(&more.coming);
            if !known
                .into_iter()
                .any(|known| known.digest() == crl.digest())
            {
                more.coming.push(crl);
            }
        }
        more
    }

    /// What is demanded of the lists.
    pub fn policy(&self) -> CrlPolicy {
        self.policy
    }

    /// The lists in force.
    pub fn lists(&self) -> &[Arc<Crl>] {
        &self.lists
    }

    /// Whether nothing is on its way to the disk.
    pub fn is_settled(&self) -> bool {
        self.coming.is_empty()
    }

    /// Whether it has no effect on anybody.
    pub fn is_empty(&self) -> bool {
        self.policy == CrlPolicy::Optional && self.lists.is_empty() && self.coming.is_empty()
    }

    /// What a list says of the certificate with this serial number. Every list counts, whichever
    /// part of the issuer's certificates it is for: serial numbers are unique for an issuer.
    pub(crate) fn find(&self, serial: &CertSerial) -> Option<Revoked> {
        let mut all = self.lists.iter().chain(&self.coming);
        all.find_map(|crl| crl.find(serial))
    }

    /// What is missing for the certificate to be accepted at `now` (Unix seconds).
    pub(crate) fn wanting(&self, certificate: &Issued, now: i64) -> Option<Wanting> {
        match (self.policy, certificate.kind) {
            (CrlPolicy::Optional, _) | (_, Kind::Registered) => None,
            (policy, Kind::Device | Kind::Intermediate) => {
                let covering = |crl: &&Arc<Crl>| crl.partition().covers(certificate);
                let last = self
                    .lists
                    .iter()
                    .filter(covering)
                    .max_by_key(|crl| crl.next_update());
                match (last, policy) {
                    (Some(crl), _) if !crl.has_expired(now) => None,
                    (Some(crl), _) => Some(Wanting::Expired { crl: crl.number() }),
                    (None, CrlPolicy::Required) => Some(Wanting::Missing),
                    (None, CrlPolicy::InDate | CrlPolicy::Optional) => None,
                }
            }
        }
    }

    /// What is missing for any device certificate to be accepted at `now` (Unix seconds), if it
    /// is missing for all of them.
    pub fn admit_nobody(&self, now: i64) -> Option<Wanting> {
        let of_devices = |crl: &&Arc<Crl>| crl.partition().certificates() != Certificates::Cas;
        let mut lists: Vec<_> = self.lists.iter().filter(of_devices).collect();
        lists.sort_by_key(|crl| crl.next_update());
        let last = lists.last();
        if self.policy == CrlPolicy::Optional || last.is_some_and(|crl| !crl.has_expired(now)) {
            return None;
        }
        let for_all = lists
            .iter()
            .any(|crl| crl.partition().points().next().is_none());
        match (last, self.policy) {
            (None, CrlPolicy::Required) => Some(Wanting::Missing),
            (Some(crl), CrlPolicy::Required) => Some(Wanting::Expired { crl: crl.number() }),
            (Some(crl), _) if for_all => Some(Wanting::Expired { crl: crl.number() }),
            (None | Some(_), _) => None,
        }
    }

    /// Whether a list of which that matters expires after `from` and until `to`.
    pub(crate) fn expires_between(&self, from: i64, to: i64) -> bool {
        self.policy != CrlPolicy::Optional
            && self
                .lists
                .iter()
                .any(|crl| crl.has_expired(to) && !crl.has_expired(from))
    }
}
