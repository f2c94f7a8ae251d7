//! Which authority stands above which, and which of them are off because of it.
//!
//! An authority is one subject and one public key ([`CaKeyId`]); it may have several registered
//! certificates. A certificate is *on* if it is active, not on a list of revoked certificates of
//! the registered authority that signed it, and that authority is not off. Whether an authority
//! is off follows from its certificates by [`SameKey`].

mod outlook;
mod recompute;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::ca::by_digest::{DigestMap, DigestSet};
use crate::ca::certificate::{Algorithms, CaCertificate};
use crate::ca::crl::{Revocations, Revoked};
use crate::ca::error::{OffReason, PathMember, Refusal};
use crate::ca::id::{CaId, CaKeyId, CertSerial};
use crate::ca::lifecycle::Status;
use crate::parallel;

pub(crate) use self::outlook::{Concerned, Look};

/// What one inactive certificate of an authority means for its other certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SameKey {
    /// One certificate that is off switches the authority off.
    #[default]
    Deny,
    /// One certificate that is on carries the authority on.
    AllowActive,
}

/// Whether an authority admits anyone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Shared with those below it, which may be very many.
    Off(Arc<Culprit>),
    On,
}

/// The certificate that switches an authority off: inactive, or revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Culprit {
    pub(crate) id: CaId,
    pub(crate) sn: CertSerial,
    pub(crate) whose: Whose,
    /// What the list of its issuer says of it, unless it is inactive.
    pub(crate) revoked: Option<Revoked>,
}

/// To whom the inactive certificate belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Whose {
    /// To the authority itself: that is told rather than what is above.
    Own,
    /// To one above it.
    Above,
}

impl Culprit {
    /// The reason as it is told of the certificate `id` of this authority.
    pub(crate) fn reason_for(&self, id: CaId) -> OffReason {
        match (self.whose, &self.revoked) {
            (_, Some(by)) => OffReason::Revoked {
                sn: self.sn.clone(),
                crl: by.crl,
            },
            (Whose::Own, None) if self.id == id => OffReason::Own,
            (Whose::Own, None) => OffReason::Sibling(self.sn.clone()),
            (Whose::Above, None) => OffReason::Above(self.sn.clone()),
        }
    }

    /// The refusal of a path over the certificate `id`, with the serial number `sn`, of this
    /// authority.
    pub(crate) fn refusal(&self, id: CaId, sn: &CertSerial) -> Refusal {
        match &self.revoked {
            Some(by) => Refusal::Revoked {
                who: PathMember::Ca(self.sn.clone()),
                by: by.clone(),
            },
            None => Refusal::CaInactive {
                sn: sn.clone(),
                why: self.reason_for(id),
            },
        }
    }

    /// The refusal that names this certificate and nothing below it.
    pub(crate) fn refusal_alone(&self) -> Refusal {
        match &self.revoked {
            Some(_) => self.refusal(self.id, &self.sn),
            None => Refusal::CaInactive {
                sn: self.sn.clone(),
                why: OffReason::Own,
            },
        }
    }
}

/// Which authorities a change concerned.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Recomputed {
    /// Every authority that was looked at, with what holds for it now; `None`: it has no
    /// certificate left.
    pub(crate) verdicts: Vec<(CaKeyId, Option<Verdict>)>,
    /// Their certificates that the list of their issuer has, with what it says of them.
    pub(crate) revoked: Vec<(CaId, Revoked)>,
    /// All others of theirs.
    pub(crate) not_revoked: Vec<CaId>,
}

/// The registered certificates and how they hang together. For writers; the gate reads only
/// the verdicts.
#[derive(Debug, Clone)]
pub(crate) struct Topology {
    same_key: SameKey,
    algorithms: Algorithms,
    nodes: DigestMap<CaId, Node>,
    groups: DigestMap<CaKeyId, DigestSet<CaId>>,
    /// Certificates by the contents of their subject, and of their issuer.
    by_subject: HashMap<Box<[u8]>, DigestSet<CaId>>,
    by_issuer: HashMap<Box<[u8]>, DigestSet<CaId>>,
    /// Certificates that an authority signed, its own renewals left out.
    signed: DigestMap<CaKeyId, DigestSet<CaId>>,
    verdicts: DigestMap<CaKeyId, Verdict>,
    /// The lists by who issues them.
    revocations: DigestMap<CaKeyId, Arc<Revocations>>,
}

#[derive(Debug, Clone)]
struct Node {
    certificate: Arc<CaCertificate>,
    status: Status,
    /// The registered authority that signed it.
    parent: Option<CaKeyId>,
}

impl Topology {
    pub(crate) fn new(same_key: SameKey, algorithms: Algorithms) -> Self {
        Self {
            same_key,
            algorithms,
            nodes: DigestMap::default(),
            groups: DigestMap::default(),
            by_subject: HashMap::new(),
            by_issuer: HashMap::new(),
            signed: DigestMap::default(),
            verdicts: DigestMap::default(),
            revocations: DigestMap::default(),
        }
    }

    pub(crate) fn status(&self, id: CaId) -> Option<Status> {
        self.nodes.get(&id).map(|node| node.status)
    }

    /// How many certificates have this subject.
    pub(crate) fn with_subject(&self, subject: &[u8]) -> usize {
        self.by_subject.get(subject).map_or(0, DigestSet::len)
    }

    pub(crate) fn insert(&mut self, certificate: Arc<CaCertificate>, status: Status) -> Recomputed {
        let id = certificate.id();
        if self.nodes.contains_key(&id) {
            return self.set_status(id, status);
        }
        let parent = self.find_parent(&certificate);
        if let Some(parent) = parent {
            self.signed.entry(parent).or_default().insert(id);
        }
        self.adopt_children(&certificate);
        let key = certificate.key_id();
        self.enter(certificate, status, parent);
        self.recompute(key)
    }

    /// [`insert`](Self::insert) for many: who signed what is found out on all processors, and what
    /// follows is worked out once, when all are in. If someone has made a second key of an issuer's name
    /// under which a signature holds as well, the one that comes first counts, as it would there.
    pub(crate) fn load(&mut self, all: &[(Arc<CaCertificate>, Status)]) -> Recomputed {
        for (certificate, status) in all {
            match self.nodes.get_mut(&certificate.id()) {
                Some(node) => node.status = *status,
                None => self.enter(Arc::clone(certificate), *status, None),
            }
        }
        let places = (0..).zip(all);
        let places: HashMap<CaId, usize> =
            places.map(|(place, (ca, _))| (ca.id(), place)).collect();
        let orphans = self.nodes.iter().filter(|(_, node)| node.parent.is_none());
        let orphans: Vec<_> = orphans
            .filter(|(_, node)| self.issuers(&node.certificate).next().is_some())
            .map(|(id, node)| (*id, &node.certificate))
            .collect();
        let signed = parallel::map(orphans, |(id, orphan)| {
            let mut issuers: Vec<_> = self.issuers(orphan).collect();
            issuers.sort_by_key(|issuer| places.get(&issuer.id()));
            (id, self.signer(orphan, issuers))
        });
        for (id, parent) in signed {
            if let Some(parent) = parent
                && let Some(node) = self.nodes.get_mut(&id)
            {
                node.parent = Some(parent);
                self.signed.entry(parent).or_default().insert(id);
            }
        }
        self.recompute_all(self.groups.keys().copied().collect())
    }

    fn enter(&mut self, certificate: Arc<CaCertificate>, status: Status, parent: Option<CaKeyId>) {
        let id = certificate.id();
        let key = certificate.key_id();
        self.groups.entry(key).or_default().insert(id);
        self.by_subject
            .entry(certificate.subject().into())
            .or_default()
            .insert(id);
        self.by_issuer
            .entry(certificate.issuer().into())
            .or_default()
            .insert(id);
        self.nodes.insert(
            id,
            Node {
                certificate,
                status,
                parent,
            },
        );
    }

    pub(crate) fn set_status(&mut self, id: CaId, status: Status) -> Recomputed {
        let Some(node) = self.nodes.get_mut(&id) else {
            return Recomputed::default();
        };
        node.status = status;
        let key = node.certificate.key_id();
        self.recompute(key)
    }

    /// Take over the lists of an issuer.
    pub(crate) fn set_revocations(
        &mut self,
        issuer: CaKeyId,
        revocations: Option<Arc<Revocations>>,
    ) -> Recomputed {
        match revocations {
            Some(revocations) => self.revocations.insert(issuer, revocations),
            None => self.revocations.remove(&issuer),
        };
        self.recompute(issuer)
    }

    pub(crate) fn remove(&mut self, id: CaId) -> Recomputed {
        let Some(node) = self.nodes.remove(&id) else {
            return Recomputed::default();
        };
        let key = node.certificate.key_id();
        if let Some(parent) = node.parent {
            remove_from(&mut self.signed, &parent, id);
        }
        remove_from(&mut self.by_subject, node.certificate.subject(), id);
        remove_from(&mut self.by_issuer, node.certificate.issuer(), id);
        remove_from(&mut self.groups, &key, id);
        let mut seeds = vec![key];
        if !self.groups.contains_key(&key) {
            for child in self.signed.remove(&key).unwrap_or_default() {
                if let Some(child) = self.nodes.get_mut(&child) {
                    child.parent = None;
                    seeds.push(child.certificate.key_id());
                }
            }
        }
        self.recompute_all(seeds)
    }

    /// The authorities that stand below this one, itself included.
    pub(crate) fn at_or_below(&self, key: CaKeyId) -> Vec<CaKeyId> {
        self.gather(vec![key]).keys
    }

    /// The authorities that stand above this certificate, nearest first.
    pub(crate) fn above(&self, id: CaId) -> Vec<CaKeyId> {
        let mut found: Vec<CaKeyId> = Vec::new();
        let mut seen = HashSet::new();
        let mut open = VecDeque::from([id]);
        while let Some(id) = open.pop_front() {
            if let Some(parent) = self.nodes.get(&id).and_then(|node| node.parent)
                && seen.insert(parent)
            {
                found.push(parent);
                open.extend(self.groups.get(&parent).into_iter().flatten());
            }
        }
        found
    }

    /// The registered authority that signed the certificate.
    fn find_parent(&self, certificate: &CaCertificate) -> Option<CaKeyId> {
        self.signer(certificate, self.issuers(certificate))
    }

    /// The first of these that signed the certificate.
    fn signer<'a>(
        &self,
        certificate: &CaCertificate,
        issuers: impl IntoIterator<Item = &'a CaCertificate>,
    ) -> Option<CaKeyId> {
        let mut issuers = issuers.into_iter();
        issuers
            .find(|issuer| issuer.has_signed(certificate.der(), self.algorithms))
            .map(CaCertificate::key_id)
    }

    /// The certificates whose key may have signed this one, by their names. Its own key is left out.
    fn issuers<'a>(
        &'a self,
        certificate: &CaCertificate,
    ) -> impl Iterator<Item = &'a CaCertificate> {
        let own = certificate.key_id();
        self.by_subject
            .get(certificate.issuer())
            .into_iter()
            .flatten()
            .filter_map(|id| self.nodes.get(id))
            .map(|issuer| &*issuer.certificate)
            .filter(move |issuer| issuer.key_id() != own)
    }

    fn adopt_children(&mut self, certificate: &CaCertificate) {
        let Some(candidates) = self.by_issuer.get(certificate.subject()) else {
            return;
        };
        for id in candidates.clone() {
            let Some(child) = self.nodes.get_mut(&id) else {
                continue;
            };
            if child.parent.is_none()
                && child.certificate.key_id() != certificate.key_id()
                && certificate.has_signed(child.certificate.der(), self.algorithms)
            {
                child.parent = Some(certificate.key_id());
                self.signed
                    .entry(certificate.key_id())
                    .or_default()
                    .insert(id);
            }
        }
    }

    fn recompute(&mut self, key: CaKeyId) -> Recomputed {
        self.recompute_all(vec![key])
    }

    /// What the list of the authority that signed the certificate says of it. A certificate that
    /// its own key signed is not asked for: there is nobody above who could revoke it, and many
    /// CAs give their own serial number to a device once more.
    fn revoked(&self, node: &Node) -> Option<Revoked> {
        let lists = self.revocations.get(&node.parent?)?;
        lists.find(node.certificate.serial())
    }
}

fn remove_from<K, Q, S>(map: &mut HashMap<K, DigestSet<CaId>, S>, key: &Q, id: CaId)
where
    S: std::hash::BuildHasher,
    K: std::hash::Hash + Eq + std::borrow::Borrow<Q>,
    Q: std::hash::Hash + Eq + ?Sized,
{
    if let Some(set) = map.get_mut(key) {
        set.remove(&id);
        if set.is_empty() {
            map.remove(key);
        }
    }
}
