//! Why a chain is accepted or refused: what the gate decides, told for every path it could try.
//!
//! [`Registry::explain`] asks the same code that decides at a handshake
//! ([`Registry::admit`](crate::ca::registry::Registry::admit)), first about the chain as it is, then
//! over each registered CA whose name fits alone. It gives facts and no
//! [`Admitted`](crate::ca::path::Admitted), so that nothing is let in by it, and it changes nothing.

mod advice;
mod chain;
#[cfg(test)]
mod tests;
mod trace;

use std::fmt;

use rustls_pki_types::UnixTime;
use x509_parser::certificate::X509Certificate;

use crate::ca::certificate::{parse, printable, serial, validity};
use crate::ca::error::{CertificateError, OffReason, Refusal};
use crate::ca::id::{CaId, CaKeyId, CertSerial};
use crate::ca::lifecycle::Status;
use crate::ca::path::Refused;
use crate::ca::registry::{CaEntry, DeviceKey, Registry};
use crate::ca::topology::Verdict;

pub use self::advice::{Advice, Missing};
pub use self::chain::Chain;
pub(crate) use self::trace::Trace;
use self::trace::{TracedPath, Unverified};

/// What the gate says of a chain, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// What a handshake with this chain would come to now.
    pub decision: Result<(), Refused>,
    /// The certificates as they were given, the device's first.
    pub sent: Vec<Sent>,
    /// The paths that were tried; the one that is accepted first, if one is.
    pub paths: Vec<Path>,
    /// Registered CAs whose name fits and that were not looked at one by one, since there are too
    /// many.
    pub left_out: usize,
    /// What would change the decision.
    pub advice: Option<Advice>,
}

/// A certificate as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// What stands in it.
    pub facts: Result<Facts, CertificateError>,
    /// Whether a path that was tried goes over it.
    pub used: bool,
}

/// What stands in a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Its serial number.
    pub serial: CertSerial,
    /// Its subject, for people to read.
    pub subject: String,
    /// Its issuer, for people to read.
    pub issuer: String,
    /// First second of validity, Unix seconds.
    pub not_before: i64,
    /// Last second of validity, Unix seconds.
    pub not_after: i64,
}

/// A path from the device certificate to a registered CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// Its certificates, the device's first and the registered CA's last. If the path could not be
    /// built, those two only.
    pub steps: Vec<Step>,
    /// Why it is no way in; `None` if it is one.
    pub fault: Option<PathFault>,
}

/// A certificate of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What stands in it.
    pub facts: Facts,
    /// Whether it was sent or is registered.
    pub source: Source,
    /// What the registry knows of it.
    pub standing: Standing,
}

/// Where a certificate of a path comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The client sends it.
    Sent,
    /// It is the registered CA that the path ends at.
    Registered,
}

/// What the registry knows of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The device's own certificate.
    Device(Recorded),
    /// A CA certificate that is registered.
    Registered {
        /// Which.
        ca: CaId,
        /// Its own state.
        status: Status,
        /// Why it admits nobody, if it does not.
        off: Option<OffReason>,
    },
    /// A CA certificate that is not registered, but another one of the same subject and key is.
    Copy {
        /// Why the authority admits nobody, if it does not.
        off: Option<OffReason>,
    },
    /// A CA certificate of which the registry knows nothing.
    Unregistered,
}

/// Whether a device certificate is recorded, and with which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// No path holds, so that nobody knows whose device it is: whoever makes a certificate up learns
    /// nothing of one that has its number.
    Unknown,
    /// It never connected, or was deleted since.
    No,
    /// It has this state.
    As(Status),
}

/// Why a path is no way in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathFault {
    /// A rule of the gate.
    Refused(Refusal),
    /// The CA has the right name, but not the key that signed the certificate below it.
    NotSigned,
    /// No certificate that was sent leads to the CA.
    NotReached,
}

impl PathFault {
    /// The reason as one word, from a closed set.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.reason(),
            Self::NotSigned => "not_signed",
            Self::NotReached => "not_reached",
        }
    }
}

impl fmt::Display for PathFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::NotSigned => {
                f.write_str("its name fits, but its key did not sign the certificate below it")
            }
            Self::NotReached => f.write_str("no certificate that was sent leads to it"),
        }
    }
}

impl Registry {
    /// What the gate would say of this chain at `now`, and why. Changes nothing.
    ///
    /// The work is bounded whatever is in the chain, but is up to [`MOST_CANDIDATES`] times that of
    /// a handshake: not for a thread that others wait for.
    pub fn explain(&self, chain: &Chain, now: UnixTime) -> Explanation {
        let (leaf, intermediates) = chain.parts();
        let whole = Trace::default();
        let decision = self
            .admit_tracing(leaf, intermediates, now, Some(&whole))
            .map(drop)
            .map_err(|refused| *refused);
        let (candidates, mut traced) = whole.into_parts();
        let mut paths = Vec::new();
        for candidate in candidates.iter().take(MOST_CANDIDATES) {
            let id = candidate.certificate.id();
            if traced.iter().any(|path| path.anchor.certificate.id() == id) {
                continue;
            }
            let alone = Trace::over(candidate);
            let result = self.admit_tracing(leaf, intermediates, now, Some(&alone));
            match (result, alone.take_paths()) {
                (Err(refused), found) if found.is_empty() => {
                    paths.extend(self.no_path(chain, candidate, &alone, refused.refusal));
                }
                (_, found) => traced.extend(found),
            }
        }
        paths.extend(traced.iter().filter_map(|path| self.path(chain, path)));
        // What is accepted first, and what could not be built last.
        paths.sort_by_key(|path| match &path.fault {
            None => 0,
            Some(PathFault::Refused(_)) => 1,
            Some(PathFault::NotSigned | PathFault::NotReached) => 2,
        });
        let advice = match &decision {
            Ok(()) => None,
            Err(refused) => self.advice(chain, &refused.refusal, &paths, &candidates),
        };
        Explanation {
            sent: chain.sent(&traced),
            left_out: candidates.len().saturating_sub(MOST_CANDIDATES),
            decision,
            paths,
            advice,
        }
    }

    /// A path whose signatures hold, told.
    fn path(&self, chain: &Chain, traced: &TracedPath) -> Option<Path> {
        let (leaf, _) = chain.parts();
        let leaf = Facts::of_der(leaf).ok()?;
        let anchor = &traced.anchor;
        let mut steps = Vec::new();
        let mut issuer = None;
        for (der, key) in &traced.intermediates {
            issuer.get_or_insert(*key);
            steps.push(Step {
                facts: Facts::of_der(der).ok()?,
                source: Source::Sent,
                standing: self.standing(CaId::of_der(der), *key),
            });
        }
        steps.push(self.anchor_step(anchor)?);
        let device = DeviceKey {
            issuer: issuer.unwrap_or_else(|| anchor.certificate.key_id()),
            serial: leaf.serial.clone(),
        };
        let recorded = match self.device_status(&device) {
            Some(status) => Recorded::As(status),
            None => Recorded::No,
        };
        steps.insert(0, device_step(leaf, recorded));
        Some(Path {
            steps,
            fault: traced.refusal.clone().map(PathFault::Refused),
        })
    }

    /// The path over this CA that could not be built.
    fn no_path(
        &self,
        chain: &Chain,
        candidate: &CaEntry,
        trace: &Trace,
        refusal: Refusal,
    ) -> Option<Path> {
        let (leaf, _) = chain.parts();
        let leaf = Facts::of_der(leaf).ok()?;
        Some(Path {
            steps: vec![
                device_step(leaf, Recorded::Unknown),
                self.anchor_step(candidate)?,
            ],
            fault: Some(match trace.why_unverified() {
                Some(Unverified::NotSigned) => PathFault::NotSigned,
                Some(Unverified::NotReached) => PathFault::NotReached,
                Some(Unverified::Rule) | None => PathFault::Refused(refusal),
            }),
        })
    }

    fn anchor_step(&self, anchor: &CaEntry) -> Option<Step> {
        let certificate = &anchor.certificate;
        Some(Step {
            facts: Facts::of_der(certificate.der()).ok()?,
            source: Source::Registered,
            standing: self.standing(certificate.id(), certificate.key_id()),
        })
    }

    fn standing(&self, id: CaId, key: CaKeyId) -> Standing {
        let registered = self.entry(id).and_then(|_| self.status(id));
        match (registered, self.verdict(key)) {
            (Some(status), _) => Standing::Registered {
                ca: id,
                status,
                off: match status {
                    // Under the milder policy its authority may be on all the same.
                    Status::Inactive => Some(OffReason::Own),
                    Status::Active => self.off_reason(id),
                },
            },
            (None, Some(Verdict::Off(culprit))) => Standing::Copy {
                off: Some(culprit.reason_for(id)),
            },
            (None, Some(Verdict::On)) => Standing::Copy { off: None },
            (None, None) => Standing::Unregistered,
        }
    }
}

impl Facts {
    fn of_der(der: &[u8]) -> Result<Self, CertificateError> {
        Self::of(&parse(der)?)
    }

    fn of(parsed: &X509Certificate<'_>) -> Result<Self, CertificateError> {
        let (not_before, not_after) = validity(parsed)?;
        Ok(Self {
            serial: serial(parsed)?,
            subject: printable(&parsed.subject().to_string()),
            issuer: printable(&parsed.issuer().to_string()),
            not_before,
            not_after,
        })
    }

    /// Whether `now` (Unix seconds) is within its dates.
    pub fn is_current(&self, now: i64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }
}

fn device_step(facts: Facts, recorded: Recorded) -> Step {
    Step {
        facts,
        source: Source::Sent,
        standing: Standing::Device(recorded),
    }
}

/// The registered CAs that are looked at one by one. As many as may have one subject: more have
/// names that fit only if the chain names several.
pub const MOST_CANDIDATES: usize = crate::ca::registry::MAX_PER_SUBJECT;
