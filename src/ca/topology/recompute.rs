//! What holds for authorities after a change, worked out anew for all that it may concern: those
//! that it is about, and all below them.
//!
//! With very many below, looking them up is what takes the time. So each is looked up once, and
//! gets a place in a list; what follows goes by places.

use std::cell::OnceCell;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::{Culprit, Node, Recomputed, SameKey, Topology, Verdict, Whose};
use crate::ca::by_digest::DigestMap;
use crate::ca::crl::Revoked;
use crate::ca::id::{CaId, CaKeyId};
use crate::ca::lifecycle::Status;

/// Some authorities and all below them, nearest first.
pub(super) struct Gathered {
    pub(super) keys: Vec<CaKeyId>,
    places: DigestMap<CaKeyId, usize>,
}

/// One of them, while it is worked out what holds for it.
struct Open<'a> {
    key: CaKeyId,
    certificates: Vec<Registered<'a>>,
    /// Where those stand that it signed.
    below: Vec<usize>,
    off: Option<Arc<Culprit>>,
    /// Its culprit in the words of those below it.
    told_below: OnceCell<Arc<Culprit>>,
}

struct Registered<'a> {
    id: CaId,
    node: &'a Node,
    revoked: Option<Revoked>,
    above: Above<'a>,
}

/// What stands above a certificate.
enum Above<'a> {
    /// Nothing that is off.
    Nothing,
    /// An authority that is not concerned, and is off.
    Off(&'a Arc<Culprit>),
    /// An authority that is concerned, by its place.
    Concerned(usize),
}

/// Why one certificate is off.
enum Cause<'a> {
    Own(&'a Registered<'a>),
    Above(Arc<Culprit>),
}

impl Topology {
    pub(super) fn gather(&self, seeds: Vec<CaKeyId>) -> Gathered {
        let mut all = Gathered {
            keys: Vec::new(),
            places: DigestMap::default(),
        };
        for seed in seeds {
            all.add(seed);
        }
        let mut next = 0;
        while let Some(key) = all.keys.get(next) {
            next += 1;
            for id in self.signed.get(key).into_iter().flatten() {
                if let Some(node) = self.nodes.get(id) {
                    all.add(node.certificate.key_id());
                }
            }
        }
        all
    }

    /// Works out anew what holds for these authorities and all below them: the smallest set of
    /// authorities that are off, so that two that signed each other do not hold each other off.
    pub(super) fn recompute_all(&mut self, seeds: Vec<CaKeyId>) -> Recomputed {
        let recomputed = self.work_out(&self.gather(seeds));
        for (key, verdict) in &recomputed.verdicts {
            match verdict {
                Some(verdict) => self.verdicts.insert(*key, verdict.clone()),
                None => self.verdicts.remove(key),
            };
        }
        recomputed
    }

    fn work_out(&self, gathered: &Gathered) -> Recomputed {
        let mut all = self.open(gathered);
        let mut round: Vec<usize> = (0..all.len()).collect();
        while !round.is_empty() {
            // Of several causes the least one is told, in whatever order they are found: so it is
            // the same one each time, and after whatever changes.
            let found: Vec<_> = round
                .into_iter()
                .filter_map(|place| Some((place, self.culprit(all.get(place)?, &all)?)))
                .collect();
            round = Vec::new();
            for (place, culprit) in found {
                if let Some(open) = all.get_mut(place)
                    && open.knows_none_before(&culprit)
                {
                    open.off = Some(culprit);
                    open.told_below = OnceCell::new();
                    round.extend_from_slice(&open.below);
                }
            }
        }
        let mut recomputed = Recomputed::default();
        for open in all {
            let verdict = match open.off {
                _ if open.certificates.is_empty() => None,
                Some(culprit) => Some(Verdict::Off(culprit)),
                None => Some(Verdict::On),
            };
            recomputed.verdicts.push((open.key, verdict));
            for registered in open.certificates {
                match registered.revoked {
                    Some(revoked) => recomputed.revoked.push((registered.id, revoked)),
                    None => recomputed.not_revoked.push(registered.id),
                }
            }
        }
        recomputed
    }

    /// Each with its certificates, and with what is below it.
    fn open(&self, gathered: &Gathered) -> Vec<Open<'_>> {
        let mut below = vec![Vec::new(); gathered.keys.len()];
        let mut all = Vec::with_capacity(gathered.keys.len());
        for (place, key) in gathered.keys.iter().enumerate() {
            let group = self.groups.get(key).into_iter().flatten();
            let certificates = group.filter_map(|id| {
                let node = self.nodes.get(id)?;
                let above = self.above_of(node, gathered);
                if let Above::Concerned(parent) = above
                    && let Some(below) = below.get_mut(parent)
                {
                    below.push(place);
                }
                Some(Registered {
                    id: *id,
                    node,
                    revoked: self.revoked(node),
                    above,
                })
            });
            all.push(Open {
                key: *key,
                certificates: certificates.collect(),
                below: Vec::new(),
                off: None,
                told_below: OnceCell::new(),
            });
        }
        for (open, below) in all.iter_mut().zip(below) {
            open.below = below;
        }
        all
    }

    fn above_of(&self, node: &Node, gathered: &Gathered) -> Above<'_> {
        let Some(parent) = &node.parent else {
            return Above::Nothing;
        };
        match (gathered.places.get(parent), self.verdicts.get(parent)) {
            (Some(place), _) => Above::Concerned(*place),
            (None, Some(Verdict::Off(culprit))) => Above::Off(culprit),
            (None, Some(Verdict::On) | None) => Above::Nothing,
        }
    }

    /// The certificate that switches the authority off, by what is known so far.
    fn culprit(&self, open: &Open<'_>, all: &[Open<'_>]) -> Option<Arc<Culprit>> {
        let mut culprit = None;
        for registered in &open.certificates {
            match (self.same_key, registered.cause(all)) {
                (SameKey::AllowActive, None) => return None,
                (SameKey::Deny, None) => {}
                // Rather one of its own, and among equals always the same one.
                (SameKey::Deny | SameKey::AllowActive, Some(off)) => {
                    let nearer = culprit
                        .as_ref()
                        .is_none_or(|known: &Cause<'_>| off.rank() < known.rank());
                    if nearer {
                        culprit = Some(off);
                    }
                }
            }
        }
        culprit.map(Cause::into_culprit)
    }
}

impl Gathered {
    fn add(&mut self, key: CaKeyId) {
        if let Entry::Vacant(place) = self.places.entry(key) {
            place.insert(self.keys.len());
            self.keys.push(key);
        }
    }
}

impl Open<'_> {
    fn knows_none_before(&self, culprit: &Culprit) -> bool {
        let known = self.off.as_ref();
        known.is_none_or(|known| culprit.rank() < known.rank())
    }

    fn told_below(&self) -> Option<Arc<Culprit>> {
        let culprit = self.off.as_ref()?;
        let told = self.told_below.get_or_init(|| from_above(culprit));
        Some(Arc::clone(told))
    }
}

impl Registered<'_> {
    fn cause(&self, all: &[Open<'_>]) -> Option<Cause<'_>> {
        let above = match (self.node.status, &self.revoked, &self.above) {
            (Status::Inactive, _, _) | (Status::Active, Some(_), _) => {
                return Some(Cause::Own(self));
            }
            (Status::Active, None, Above::Nothing) => None,
            (Status::Active, None, Above::Off(culprit)) => Some(from_above(culprit)),
            (Status::Active, None, Above::Concerned(place)) => all.get(*place)?.told_below(),
        };
        above.map(Cause::Above)
    }
}

impl Cause<'_> {
    /// As [`Culprit::rank`].
    fn rank(&self) -> (Whose, CaId) {
        match self {
            Self::Own(registered) => (Whose::Own, registered.id),
            Self::Above(culprit) => culprit.rank(),
        }
    }

    fn into_culprit(self) -> Arc<Culprit> {
        match self {
            Self::Own(registered) => Arc::new(Culprit {
                id: registered.id,
                sn: registered.node.certificate.serial().clone(),
                whose: Whose::Own,
                // What an inactive one is besides is not told.
                revoked: match registered.node.status {
                    Status::Inactive => None,
                    Status::Active => registered.revoked.clone(),
                },
            }),
            Self::Above(culprit) => culprit,
        }
    }
}

impl Culprit {
    /// Of several the least is told.
    fn rank(&self) -> (Whose, CaId) {
        (self.whose, self.id)
    }
}

/// A culprit in the words of those below the authority that it switches off.
fn from_above(culprit: &Arc<Culprit>) -> Arc<Culprit> {
    match culprit.whose {
        Whose::Above => Arc::clone(culprit),
        Whose::Own => Arc::new(Culprit {
            whose: Whose::Above,
            ..Culprit::clone(culprit)
        }),
    }
}
