//! What to do about a refusal.

use std::fmt;

use webpki::EndEntityCert;
use x509_parser::certificate::X509Certificate;

use super::{Chain, Path, Standing};
use crate::ca::certificate::{Algorithms, parse, printable};
use crate::ca::error::{OffReason, PathMember, Refusal};
use crate::ca::id::CertSerial;
use crate::ca::registry::{CaEntry, Registry};

/// What would change a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advice {
    /// A CA has to be switched on.
    ActivateCa(CertSerial),
    /// The device has to be switched on.
    ActivateDevice {
        /// The registered CA that it is listed under.
        ca: CertSerial,
        /// Its serial number.
        device: CertSerial,
    },
    /// A CA has to be registered, or its certificate sent.
    Register(Missing),
    /// The certificate of the device has to be renewed.
    RenewDevice,
    /// The certificate of an intermediate CA has to be renewed, and sent.
    RenewIntermediate,
    /// The certificate of a registered CA has to be renewed, and registered.
    RenewCa(CertSerial),
    /// Of a revoked certificate, there has to be one with a new key in its place.
    Replace(PathMember),
    /// The issuer of a certificate has to publish a list of revoked certificates that is in date.
    ImportCrl(PathMember),
    /// A certificate has to be issued anew, without its fault.
    Reissue,
    /// Fewer certificates have to be sent.
    SendLess,
}

/// What is missing between a device and the registered CAs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Subject of the CA that signed the highest certificate that was sent.
    pub subject: String,
    /// Whether the certificate of that CA was sent, which is not enough.
    pub sent: bool,
    /// Subject of the highest intermediate that was sent, if there is one below that CA.
    pub highest: Option<String>,
    /// Registered CAs of that subject with another key.
    pub namesakes: Vec<CertSerial>,
}

impl Advice {
    /// The command that does it, without the name of the program; `None` if none does.
    pub fn command(&self) -> Option<String> {
        match self {
            Self::ActivateCa(sn) => Some(format!("ca activate {sn}")),
            Self::ActivateDevice { ca, device } => {
                Some(format!("device activate {device} --ca {ca}"))
            }
            Self::Register(_) | Self::RenewCa(_) => Some("ca register NAME CA.pem".to_owned()),
            Self::ImportCrl(_) => Some("crl import CA CA.crl".to_owned()),
            Self::RenewDevice
            | Self::RenewIntermediate
            | Self::Replace(_)
            | Self::Reissue
            | Self::SendLess => None,
        }
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ActivateCa(sn) => write!(f, "switch CA {sn} on"),
            Self::ActivateDevice { .. } => f.write_str("switch the device on"),
            Self::Register(missing) => missing.fmt(f),
            Self::RenewDevice => f.write_str("issue a new certificate for the device"),
            Self::RenewIntermediate => {
                f.write_str("let the device send a renewed certificate of its intermediate CA")
            }
            Self::RenewCa(sn) => write!(f, "register a renewed certificate of CA {sn}"),
            Self::Replace(who) => write!(
                f,
                "issue a certificate with a new key in place of that of {who}; should the \
                 revocation be wrong, import a newer CRL of its issuer without it"
            ),
            Self::ImportCrl(who) => write!(f, "import a CRL in date of the CA that signed {who}"),
            Self::Reissue => f.write_str("issue the certificate anew without that fault"),
            Self::SendLess => f.write_str(
                "let the device send its own certificate and the intermediates above it, and no \
                 others",
            ),
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "register the CA with the subject \"{}\"", self.subject)?;
        if self.sent {
            f.write_str(", whose certificate was sent")?;
        }
        match &self.highest {
            Some(highest) => write!(f, ", or the one with the subject \"{highest}\" below it")?,
            None if self.sent => {}
            None => f.write_str(
                "; or, if a registered CA signed that one, let the device send its certificate \
                 after its own",
            )?,
        }
        let mut separator = "; registered with that subject, but with another key: ";
        for sn in &self.namesakes {
            write!(f, "{separator}{sn}")?;
            separator = ", ";
        }
        Ok(())
    }
}

impl Registry {
    pub(super) fn advice(
        &self,
        chain: &Chain,
        refusal: &Refusal,
        paths: &[Path],
        candidates: &[CaEntry],
    ) -> Option<Advice> {
        match refusal {
            Refusal::UnknownCa => self.missing(chain, candidates).map(Advice::Register),
            Refusal::CaInactive { sn, why } => Some(match why {
                OffReason::Own => Advice::ActivateCa(sn.clone()),
                OffReason::Sibling(by) | OffReason::Above(by) => Advice::ActivateCa(by.clone()),
                OffReason::Revoked { sn, .. } => Advice::Replace(PathMember::Ca(sn.clone())),
            }),
            Refusal::Revoked { who, .. } => Some(Advice::Replace(who.clone())),
            Refusal::NoCrl { who, .. } => Some(Advice::ImportCrl(who.clone())),
            Refusal::DeviceInactive => device_of(paths),
            Refusal::OutsideValidity(PathMember::Device) => Some(Advice::RenewDevice),
            Refusal::OutsideValidity(PathMember::Intermediate) => Some(Advice::RenewIntermediate),
            Refusal::OutsideValidity(PathMember::Ca(sn)) => Some(Advice::RenewCa(sn.clone())),
            Refusal::Misused { .. } | Refusal::InvalidPath(_) | Refusal::BadSignature => {
                Some(Advice::Reissue)
            }
            Refusal::ChainTooLarge | Refusal::TooMuchWork => Some(Advice::SendLess),
            Refusal::Malformed(_) => None,
        }
    }

    /// Where the chain ends: from the device up, as far as signatures lead.
    fn missing(&self, chain: &Chain, candidates: &[CaEntry]) -> Option<Missing> {
        let all: Vec<_> = chain
            .all()
            .filter_map(|der| Some((EndEntityCert::try_from(der).ok()?, parse(der).ok()?)))
            .collect();
        let first = all.first()?;
        let (mut strict, mut top) = (&first.0, &first.1);
        let mut climbed = Vec::new();
        loop {
            let above = all.iter().enumerate().skip(1).find(|(place, (above, _))| {
                !climbed.contains(place)
                    && above.subject() == strict.issuer()
                    && has_signed(above, top, self.algorithms())
            });
            let Some((place, (above, parsed))) = above else {
                break;
            };
            climbed.push(place);
            (strict, top) = (above, parsed);
        }
        let own_issuer = !climbed.is_empty() && strict.subject() == strict.issuer();
        let below = match (own_issuer, climbed.as_slice()) {
            (false, [.., place]) | (true, [.., place, _]) => all.get(*place),
            (false, []) | (true, [] | [_]) => None,
        };
        let namesakes = candidates.iter().filter(|candidate| {
            candidate.certificate.subject() == strict.issuer()
                && !candidate
                    .certificate
                    .has_signed(top.as_raw(), self.algorithms())
        });
        Some(Missing {
            subject: printable(&top.issuer().to_string()),
            sent: own_issuer,
            highest: below.map(|(_, parsed)| printable(&parsed.subject().to_string())),
            namesakes: namesakes
                .map(|candidate| candidate.certificate.serial().clone())
                .collect(),
        })
    }
}

/// The device as it is listed: under the registered CA nearest to it on the path that was refused
/// for it.
fn device_of(paths: &[Path]) -> Option<Advice> {
    let path = paths.iter().find(|path| match &path.fault {
        Some(super::PathFault::Refused(refusal)) => *refusal == Refusal::DeviceInactive,
        _ => false,
    })?;
    let (device, above) = path.steps.split_first()?;
    let ca = above.iter().find(|step| match step.standing {
        Standing::Registered { .. } => true,
        Standing::Device(_) | Standing::Copy { .. } | Standing::Unregistered => false,
    })?;
    Some(Advice::ActivateDevice {
        ca: ca.facts.serial.clone(),
        device: device.facts.serial.clone(),
    })
}

fn has_signed(
    issuer: &EndEntityCert<'_>,
    child: &X509Certificate<'_>,
    algorithms: Algorithms,
) -> bool {
    algorithms.iter().any(|algorithm| {
        let (message, signature) = (child.tbs_certificate.as_ref(), &child.signature_value.data);
        issuer
            .verify_signature(*algorithm, message, signature)
            .is_ok()
    })
}
