//! What would follow from a change that is not made.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Recomputed, Topology, Verdict};
use crate::ca::certificate::CaCertificate;
use crate::ca::crl::Revocations;
use crate::ca::id::{CaId, CaKeyId};
use crate::ca::lifecycle::Status;

/// An authority that a change would concern, before and after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Concerned {
    pub(crate) key: CaKeyId,
    /// Its registered certificates with their own states, before the change.
    pub(crate) certificates: Vec<(CaId, Status)>,
    /// `None`: it has no certificate.
    pub(crate) before: Option<Verdict>,
    pub(crate) after: Option<Verdict>,
}

/// What the registered certificates say of a change, all from one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Look {
    /// The authority that the change is about, and those below it.
    pub(crate) concerned: Vec<Concerned>,
    /// The authorities above it, nearest first.
    pub(crate) above: Vec<Concerned>,
}

impl Topology {
    /// What setting this state would do.
    pub(crate) fn look_at_status(&self, id: CaId, status: Status) -> Look {
        self.look(id, |imagined| imagined.set_status(id, status))
    }

    /// What would hold for the authorities at or below these certificates if they were active.
    pub(crate) fn verdicts_if_active(&self, ids: &[CaId]) -> HashMap<CaKeyId, Option<Verdict>> {
        let mut verdicts = HashMap::new();
        if ids.is_empty() {
            return verdicts;
        }
        let mut imagined = self.clone();
        for id in ids {
            let recomputed = imagined.set_status(*id, Status::Active);
            verdicts.extend(recomputed.verdicts);
        }
        verdicts
    }

    /// What removing this certificate would do.
    pub(crate) fn look_at_removal(&self, id: CaId) -> Look {
        self.look(id, |imagined| imagined.remove(id))
    }

    /// What registering this certificate, active, would do.
    pub(crate) fn look_at_insertion(&self, certificate: Arc<CaCertificate>) -> Look {
        self.look(certificate.id(), |imagined| {
            imagined.insert(certificate, Status::Active)
        })
    }

    /// What these lists of an authority would do, in place of those it has.
    pub(crate) fn look_at_revocations(
        &self,
        issuer: CaKeyId,
        revocations: Arc<Revocations>,
    ) -> Look {
        self.look_from(Vec::new(), |imagined| {
            imagined.set_revocations(issuer, Some(revocations))
        })
    }

    /// Whether a change of this certificate, registered or not, could change anything for that
    /// authority: it stands at or above it, or would once it is registered.
    pub(crate) fn reaches(&self, certificate: &CaCertificate, key: CaKeyId) -> bool {
        let mut ids: Vec<CaId> = self
            .groups
            .get(&key)
            .into_iter()
            .flatten()
            .copied()
            .collect();
        let mut seen = HashSet::from([key]);
        while let Some(id) = ids.pop() {
            let Some(node) = self.nodes.get(&id) else {
                continue;
            };
            let of_the_same = node.certificate.key_id() == certificate.key_id();
            let above_by_name =
                node.parent.is_none() && node.certificate.issuer() == certificate.subject();
            if of_the_same || above_by_name {
                return true;
            }
            if let Some(parent) = node.parent
                && seen.insert(parent)
            {
                ids.extend(self.groups.get(&parent).into_iter().flatten());
            }
        }
        false
    }

    /// The change is made to a copy, by the same code as a real one: nothing that it does can be
    /// forgotten here, and nothing of it can stay. It takes about as long as a change that concerns
    /// all CAs; no other is made meanwhile, and handshakes do not wait for it.
    fn look(&self, id: CaId, change: impl FnOnce(&mut Self) -> Recomputed) -> Look {
        self.look_from(self.above(id), change)
    }

    fn look_from(&self, above: Vec<CaKeyId>, change: impl FnOnce(&mut Self) -> Recomputed) -> Look {
        let mut imagined = self.clone();
        let mut verdicts = change(&mut imagined).verdicts;
        // People look at it: the same order each time.
        verdicts.sort_unstable_by_key(|(key, _)| *key);
        Look {
            concerned: verdicts
                .into_iter()
                .map(|(key, after)| self.concerned(key, after))
                .collect(),
            above: above
                .into_iter()
                .map(|key| self.concerned(key, imagined.verdicts.get(&key).cloned()))
                .collect(),
        }
    }

    fn concerned(&self, key: CaKeyId, after: Option<Verdict>) -> Concerned {
        let group = self.groups.get(&key).into_iter().flatten();
        let mut certificates: Vec<_> = group
            .filter_map(|id| Some((*id, self.nodes.get(id)?.status)))
            .collect();
        certificates.sort_by_key(|(id, _)| *id);
        Concerned {
            key,
            certificates,
            before: self.verdicts.get(&key).cloned(),
            after,
        }
    }
}
