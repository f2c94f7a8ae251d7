//! What a change of trust would do, found out before it is made.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ca::certificate::CaCertificate;
use crate::ca::crl::Revocations;
use crate::ca::error::{OffReason, Refusal};
use crate::ca::id::{CaId, CaKeyId, CertSerial};
use crate::ca::lifecycle::Status;
use crate::ca::path::Admitted;
use crate::ca::registry::Registry;
use crate::ca::topology::{Concerned, Look, Verdict};

/// A change that is thought of.
#[derive(Debug, Clone)]
pub(crate) enum Proposal {
    /// Another own state of a registered certificate.
    Status(Arc<CaCertificate>, Status),
    /// A registered certificate is forgotten.
    Removal(Arc<CaCertificate>),
    /// A certificate is registered, as active.
    Insertion(Arc<CaCertificate>),
    /// Other lists of revoked certificates of this authority.
    Revocations(CaKeyId, Arc<Revocations>),
}

/// What a change would do to the authorities, all from one moment.
#[derive(Debug)]
pub(crate) struct Outlook {
    /// The authority that the change is about, and those below it.
    pub(crate) concerned: Vec<Concerned>,
    /// The authorities above it, nearest first.
    pub(crate) above: Vec<Concerned>,
    after: HashMap<CaKeyId, Option<Verdict>>,
}

/// Which way an authority would go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shift {
    /// It admits now, and would no longer.
    Off,
    /// It admits nobody now, and would.
    On,
    /// Nothing would change for it.
    None,
}

impl Concerned {
    pub(crate) fn shift(&self) -> Shift {
        let on = |verdict: &Option<Verdict>| *verdict == Some(Verdict::On);
        match (on(&self.before), on(&self.after)) {
            (true, false) => Shift::Off,
            (false, true) => Shift::On,
            (true, true) | (false, false) => Shift::None,
        }
    }

    /// Why its certificate `id` admits nobody now.
    pub(crate) fn off_before(&self, id: CaId) -> Option<OffReason> {
        reason(self.before.as_ref(), id)
    }

    /// Why its certificate `id` would admit nobody after the change.
    pub(crate) fn off_after(&self, id: CaId) -> Option<OffReason> {
        reason(self.after.as_ref(), id)
    }
}

fn reason(verdict: Option<&Verdict>, id: CaId) -> Option<OffReason> {
    match verdict {
        Some(Verdict::Off(culprit)) => Some(culprit.reason_for(id)),
        Some(Verdict::On) | None => None,
    }
}

impl Outlook {
    /// The authorities that would admit nobody any more.
    pub(crate) fn denied(&self) -> Vec<CaKeyId> {
        let denied = self.concerned.iter().filter(|it| it.shift() == Shift::Off);
        denied.map(|it| it.key).collect()
    }

    /// The authorities that would admit nobody, whether they do now or not.
    pub(crate) fn off_after(&self) -> Vec<CaKeyId> {
        let off = self.concerned.iter();
        off.filter(|it| it.after != Some(Verdict::On))
            .map(|it| it.key)
            .collect()
    }
}

/// Administrators' CAs that a change would switch off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AdminsOff {
    /// Serial numbers of their certificates.
    pub(crate) sns: Vec<CertSerial>,
    /// Whether another one would still admit administrators.
    pub(crate) rest: Rest,
}

/// Whether anything is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    None,
    Some,
}

impl Registry {
    /// What the change would do. Nothing is changed, and handshakes do not wait for it.
    pub(crate) fn outlook(&self, proposal: &Proposal) -> Outlook {
        let Look { concerned, above } = {
            let topology = self.lock();
            match proposal {
                Proposal::Status(ca, status) => topology.look_at_status(ca.id(), *status),
                Proposal::Removal(ca) => topology.look_at_removal(ca.id()),
                Proposal::Insertion(ca) => topology.look_at_insertion(Arc::clone(ca)),
                Proposal::Revocations(issuer, lists) => {
                    topology.look_at_revocations(*issuer, Arc::clone(lists))
                }
            }
        };
        Outlook {
            after: concerned
                .iter()
                .map(|it| (it.key, it.after.clone()))
                .collect(),
            concerned,
            above,
        }
    }

    /// Why somebody who is connected would have to go after the change; `None` if they would not,
    /// or have to anyway.
    pub(crate) fn objection_under(
        &self,
        outlook: &Outlook,
        admitted: &Admitted,
        now: i64,
    ) -> Option<Refusal> {
        if self.objection(admitted, now).is_some() {
            return None;
        }
        self.objection_after(outlook, admitted, now)
    }

    /// The same, whether they have to go anyway or not.
    pub(crate) fn objection_after(
        &self,
        outlook: &Outlook,
        admitted: &Admitted,
        now: i64,
    ) -> Option<Refusal> {
        self.objection_if(&outlook.after, admitted, now)
    }

    /// What would hold for the authorities at or below these certificates if they were active: for
    /// [`objection_if`](Self::objection_if).
    pub(crate) fn verdicts_if_active(&self, ids: &[CaId]) -> HashMap<CaKeyId, Option<Verdict>> {
        if ids.is_empty() {
            return HashMap::new();
        }
        self.lock().verdicts_if_active(ids)
    }

    /// Why somebody who was admitted would not be admitted again if these verdicts held in place
    /// of those in force.
    pub(crate) fn objection_if(
        &self,
        verdicts: &HashMap<CaKeyId, Option<Verdict>>,
        admitted: &Admitted,
        now: i64,
    ) -> Option<Refusal> {
        self.objection_by(admitted, now, |key| match verdicts.get(&key) {
            Some(verdict) => verdict.clone(),
            None => self.verdict(key),
        })
    }

    /// Which administrators' CAs the change would switch off. Costs next to nothing unless the
    /// change is about a CA above one of them.
    pub(crate) fn admins_off(&self, proposal: &Proposal, now: i64) -> Option<AdminsOff> {
        let admins = self.admins();
        let near = {
            let topology = self.lock();
            admins.iter().any(|it| match proposal {
                Proposal::Status(ca, _) | Proposal::Removal(ca) | Proposal::Insertion(ca) => {
                    topology.reaches(ca, it.key_id())
                }
                Proposal::Revocations(issuer, _) => topology.above(it.id()).contains(issuer),
            })
        };
        if !near {
            return None;
        }
        let outlook = self.outlook(proposal);
        let admits = |it: &&Arc<CaCertificate>| {
            it.is_current(now) && self.verdict(it.key_id()) == Some(Verdict::On)
        };
        let denied = outlook.denied();
        let (off, on): (Vec<_>, Vec<_>) = admins
            .iter()
            .filter(admits)
            .partition(|it| denied.contains(&it.key_id()));
        if off.is_empty() {
            return None;
        }
        Some(AdminsOff {
            sns: off.into_iter().map(|it| it.serial().clone()).collect(),
            rest: match on.is_empty() {
                true => Rest::None,
                false => Rest::Some,
            },
        })
    }
}
