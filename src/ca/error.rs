//! Why a certificate is not fit for its role, and why a peer is refused.

use std::fmt;

use crate::ca::crl::{CrlNumber, Revoked, Wanting};
use crate::ca::id::CertSerial;

/// Why a certificate cannot be registered, or cannot prove anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The text is not one certificate in PEM.
    #[error("the PEM cannot be read: {0}")]
    Pem(String),
    /// The DER is not a certificate that can be understood.
    #[error("the certificate cannot be read: {0}")]
    Der(String),
    /// Larger than anything real.
    #[error("it has {octets} octets, the most is {most}")]
    TooLarge {
        /// How many it has.
        octets: usize,
        /// How many it may have.
        most: usize,
    },
    /// Not a CA (RFC 5280, 4.2.1.9).
    #[error("it is not a CA certificate: basicConstraints must have CA:TRUE")]
    NotCa,
    /// A CA whose key usage forbids signing certificates (RFC 5280, 4.2.1.3).
    #[error("its key usage does not allow signing certificates: keyCertSign must be set")]
    NoKeyCertSign,
    /// Key or signature below the policy.
    #[error("it is too weak: {0}")]
    Weak(String),
    /// No usable common name.
    #[error("it has no common name that can be used")]
    NoCommonName,
}

/// Why a peer does not get in. Each has its own word in logs, metrics and audit records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// More certificates than a real chain has, or one that is too large.
    ChainTooLarge,
    /// A certificate of the chain cannot be read.
    Malformed(String),
    /// No registered CA stands above the certificate.
    UnknownCa,
    /// A CA of the path is off.
    CaInactive {
        /// The CA of the path.
        sn: CertSerial,
        /// What switched it off.
        why: OffReason,
    },
    /// The device certificate is off.
    DeviceInactive,
    /// A certificate is on a list of revoked certificates of its issuer.
    Revoked {
        /// Which certificate.
        who: PathMember,
        /// What the list says of it.
        by: Revoked,
    },
    /// A list of revoked certificates is demanded, and there is none that vouches for a
    /// certificate.
    NoCrl {
        /// For which certificate.
        who: PathMember,
        /// What is missing.
        wanting: Wanting,
    },
    /// A date of the path does not hold.
    OutsideValidity(PathMember),
    /// A signature of the path does not verify.
    BadSignature,
    /// A rule about what a certificate may be used for is broken.
    Misused {
        /// By which certificate.
        who: PathMember,
        /// Which rule.
        rule: &'static str,
    },
    /// Another rule of path validation, in the validator's words.
    InvalidPath(String),
    /// Checking it took more work than allowed.
    TooMuchWork,
}

/// Which certificate of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMember {
    /// The one that the peer proved to own.
    Device,
    /// One between it and the registered CA.
    Intermediate,
    /// The registered CA.
    Ca(CertSerial),
}

impl fmt::Display for PathMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathMember::Device => f.write_str("the device certificate"),
            PathMember::Intermediate => f.write_str("an intermediate certificate"),
            PathMember::Ca(sn) => write!(f, "the CA certificate {sn}"),
        }
    }
}

/// What switched a CA off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OffReason {
    /// It was inactivated itself.
    Own,
    /// Another certificate of the same subject and key was.
    Sibling(CertSerial),
    /// A registered CA above it is off.
    Above(CertSerial),
    /// Its own certificate, or one of a registered CA above it, is revoked.
    Revoked {
        /// The revoked certificate.
        sn: CertSerial,
        /// The list that it is on.
        crl: CrlNumber,
    },
}

impl fmt::Display for OffReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OffReason::Own => f.write_str("it is inactive"),
            OffReason::Sibling(by) => write!(f, "certificate {by} of the same key is inactive"),
            OffReason::Above(by) => write!(f, "CA {by} above it is inactive"),
            OffReason::Revoked { sn, crl } => write!(f, "certificate {sn} is on CRL {crl}"),
        }
    }
}

impl Refusal {
    /// The reason as one word for logs and metric labels, from a closed set.
    pub fn reason(&self) -> &'static str {
        match self {
            Refusal::ChainTooLarge => "chain_too_large",
            Refusal::Malformed(_) => "malformed",
            Refusal::UnknownCa => "unknown_ca",
            Refusal::CaInactive { .. } => "ca_inactive",
            Refusal::DeviceInactive => "device_inactive",
            Refusal::Revoked { who, .. } => match who {
                PathMember::Device => "device_revoked",
                PathMember::Intermediate => "intermediate_revoked",
                PathMember::Ca(_) => "ca_revoked",
            },
            Refusal::NoCrl { wanting, .. } => match wanting {
                Wanting::Missing => "crl_missing",
                Wanting::Expired { .. } => "crl_expired",
            },
            Refusal::OutsideValidity(PathMember::Device) => "device_outside_validity",
            Refusal::OutsideValidity(PathMember::Intermediate) => "intermediate_outside_validity",
            Refusal::OutsideValidity(PathMember::Ca(_)) => "ca_outside_validity",
            Refusal::BadSignature => "bad_signature",
            Refusal::Misused { .. } => "misused",
            Refusal::InvalidPath(_) => "invalid_path",
            Refusal::TooMuchWork => "too_much_work",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::ChainTooLarge => {
                f.write_str("the client sent more or larger certificates than are read")
            }
            Refusal::Malformed(what) => write!(f, "a certificate cannot be read: {what}"),
            Refusal::UnknownCa => {
                f.write_str("no registered CA stands above the device certificate")
            }
            Refusal::CaInactive {
                sn,
                why: OffReason::Own,
            } => write!(f, "CA {sn} is inactive"),
            Refusal::CaInactive {
                sn,
                why: OffReason::Sibling(by),
            } => write!(
                f,
                "CA {sn} is off because certificate {by} of the same key is inactive"
            ),
            Refusal::CaInactive {
                sn,
                why: OffReason::Above(by),
            } => {
                write!(f, "CA {sn} is off because CA {by} above it is inactive")
            }
            Refusal::CaInactive {
                sn,
                why: OffReason::Revoked { sn: by, crl },
            } => write!(f, "CA {sn} is off because certificate {by} is on CRL {crl}"),
            Refusal::DeviceInactive => f.write_str("the device certificate is inactive"),
            Refusal::Revoked { who, by } => write!(f, "{who} is revoked: it is on {by}"),
            Refusal::NoCrl {
                who,
                wanting: Wanting::Missing,
            } => write!(
                f,
                "its issuer must have a CRL that covers {who}, and none is imported"
            ),
            Refusal::NoCrl {
                who,
                wanting: Wanting::Expired { crl },
            } => write!(
                f,
                "CRL {crl}, which covers {who}, has expired, and there is no newer one"
            ),
            Refusal::OutsideValidity(who) => {
                write!(f, "{who} has expired or is not valid yet")
            }
            Refusal::BadSignature => f.write_str("a signature on the path does not verify"),
            Refusal::Misused { who, rule } => write!(f, "{who} must not be used so: {rule}"),
            Refusal::InvalidPath(what) => write!(f, "the path is not valid: {what}"),
            Refusal::TooMuchWork => f.write_str("the chain takes too much work to check"),
        }
    }
}

impl std::error::Error for Refusal {}
