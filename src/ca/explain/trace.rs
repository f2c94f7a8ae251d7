//! What is noted while the gate decides, for whoever wants to know more than the answer.

use std::cell::{Cell, RefCell};

use webpki::VerifiedPath;

use crate::ca::error::Refusal;
use crate::ca::id::CaKeyId;
use crate::ca::registry::CaEntry;

/// What a decision went through.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    only: Option<CaEntry>,
    candidates: RefCell<Vec<CaEntry>>,
    paths: RefCell<Vec<TracedPath>>,
    unverified: Cell<Option<Unverified>>,
}

/// A path whose signatures hold, and what the rules said of it.
#[derive(Debug)]
pub(super) struct TracedPath {
    /// DER and authority of each, from the device up.
    pub(super) intermediates: Vec<(Vec<u8>, CaKeyId)>,
    pub(super) anchor: CaEntry,
    pub(super) refusal: Option<Refusal>,
}

/// Why no path was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unverified {
    NotSigned,
    NotReached,
    /// Another rule, which the refusal names.
    Rule,
}

impl Trace {
    /// The trace of a decision in which no other CA counts.
    pub(super) fn over(only: &CaEntry) -> Self {
        Self {
            only: Some(only.clone()),
            ..Self::default()
        }
    }

    pub(crate) fn only(&self) -> Option<&CaEntry> {
        self.only.as_ref()
    }

    pub(crate) fn candidates(&self, candidates: &[CaEntry]) {
        self.candidates.replace(candidates.to_vec());
    }

    /// Note what the rules said of a path.
    pub(crate) fn path(
        &self,
        anchor: Option<&CaEntry>,
        path: &VerifiedPath<'_>,
        refusal: Option<&Refusal>,
    ) {
        let mut paths = self.paths.borrow_mut();
        // One that is accepted is the last.
        if paths.len() >= MOST_PATHS && refusal.is_some() {
            return;
        }
        let Some(anchor) = anchor else { return };
        let told = path.intermediate_certificates().map(|intermediate| {
            let spki = intermediate.subject_public_key_info();
            let key = CaKeyId::of_parts(intermediate.subject(), &spki);
            (intermediate.der().to_vec(), key)
        });
        paths.push(TracedPath {
            intermediates: told.collect(),
            anchor: anchor.clone(),
            refusal: refusal.cloned(),
        });
    }

    /// Note why no path was built.
    pub(crate) fn unverified(&self, error: &webpki::Error) {
        use webpki::Error as E;
        self.unverified.set(Some(match error {
            E::InvalidSignatureForPublicKey
            | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => Unverified::NotSigned,
            E::UnknownIssuer => Unverified::NotReached,
            _ => Unverified::Rule,
        }));
    }

    pub(super) fn why_unverified(&self) -> Option<Unverified> {
        self.unverified.get()
    }

    pub(super) fn take_paths(&self) -> Vec<TracedPath> {
        self.paths.take()
    }

    /// The CAs whose names fit, and the paths.
    pub(super) fn into_parts(self) -> (Vec<CaEntry>, Vec<TracedPath>) {
        (self.candidates.into_inner(), self.paths.into_inner())
    }
}

/// Paths of one decision that are noted.
const MOST_PATHS: usize = 8;
