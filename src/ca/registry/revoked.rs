//! The lists of revoked certificates in the gate.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Effects, Registry};
use crate::ca::certificate::CaCertificate;
use crate::ca::crl::{Issued, Kind, Revocations};
use crate::ca::error::{PathMember, Refusal};
use crate::ca::id::{CaId, CaKeyId};

impl Registry {
    /// Put the lists of an issuer into force, in place of those it had.
    ///
    /// To deny and allow in one go would show a reader some of both; whoever needs it otherwise
    /// first sets what denies more ([`Revocations::denying_more`]).
    pub fn set_revocations(&self, issuer: CaKeyId, revocations: Revocations) -> Effects {
        let mut topology = self.lock();
        let revocations = Some(revocations)
            .filter(|revocations| !revocations.is_empty())
            .map(Arc::new);
        let recomputed = topology.set_revocations(issuer, revocations.clone());
        match revocations {
            Some(revocations) => {
                self.revocations.insert(issuer, revocations);
            }
            None => {
                self.revocations.remove(&issuer);
            }
        }
        let mut effects = self.publish(recomputed);
        if !effects.denied.contains(&issuer) {
            effects.denied.push(issuer);
        }
        effects
    }

    /// The lists of an issuer that are in force, and what is demanded of them.
    pub fn revocations(&self, issuer: CaKeyId) -> Arc<Revocations> {
        let found = self.revocations.get(&issuer);
        found.map(|found| Arc::clone(&found)).unwrap_or_default()
    }

    /// The registered certificates with this subject, for whatever purpose: one of them may have
    /// signed a list.
    pub fn with_name(&self, subject: &[u8]) -> Vec<Arc<CaCertificate>> {
        let found = self.with_subject(subject).into_iter();
        found.map(|entry| entry.certificate).collect()
    }

    /// Whether a certificate of this authority is registered.
    pub fn has_authority(&self, key: CaKeyId) -> bool {
        self.verdict(key).is_some()
    }

    /// Say what time it is (Unix seconds), and learn which issuers have lists that have expired
    /// since this was last said: their peers are to be looked at. Nobody comes in with an older
    /// time than this from here on.
    pub fn lists_expired(&self, now: i64) -> Vec<CaKeyId> {
        let before = self.looked.swap(now, Ordering::AcqRel);
        let expired = self
            .revocations
            .iter()
            .filter(|it| it.expires_between(before, now));
        expired.map(|it| *it.key()).collect()
    }

    /// Why these certificates of a path, the device's first, are not accepted at `now` by the
    /// lists of their issuers.
    pub(crate) fn revocation(&self, path: &[Issued], now: i64) -> Option<Refusal> {
        let now = now.max(self.looked.load(Ordering::Acquire));
        path.iter().find_map(|certificate| {
            let lists = Arc::clone(&*self.revocations.get(&certificate.issuer)?);
            let who = || match certificate.kind {
                Kind::Device => PathMember::Device,
                Kind::Intermediate => PathMember::Intermediate,
                Kind::Registered => PathMember::Ca(certificate.serial.clone()),
            };
            if let Some(by) = lists.find(&certificate.serial) {
                return Some(Refusal::Revoked { who: who(), by });
            }
            lists
                .wanting(certificate, now)
                .map(|wanting| Refusal::NoCrl {
                    who: who(),
                    wanting,
                })
        })
    }

    /// Why the registered certificate itself is refused, by the list of its issuer.
    pub(crate) fn own_revocation(&self, id: CaId) -> Option<Refusal> {
        let by = self.revoked.get(&id)?.clone();
        let sn = self.entry(id)?.certificate.serial().clone();
        Some(Refusal::Revoked {
            who: PathMember::Ca(sn),
            by,
        })
    }
}
