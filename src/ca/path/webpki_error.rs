//! What the path builder objects to, in our words.

use rustls_pki_types::UnixTime;
use x509_parser::certificate::X509Certificate;

use super::unix;
use crate::ca::certificate::validity;
use crate::ca::error::{PathMember, Refusal};

/// The refusal of a chain over which there is no path.
pub(super) fn from_webpki(
    error: &webpki::Error,
    leaf: &X509Certificate<'_>,
    now: UnixTime,
) -> Refusal {
    use webpki::Error as E;
    match error {
        // A CA of the right name with another key did not sign it: for us that is no CA.
        E::UnknownIssuer
        | E::InvalidSignatureForPublicKey
        | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => Refusal::UnknownCa,
        E::CertExpired { .. } | E::CertNotValidYet { .. } | E::InvalidCertValidity => {
            let now = unix(now);
            let leaf_is_current = validity(leaf)
                .is_ok_and(|(not_before, not_after)| (not_before..=not_after).contains(&now));
            Refusal::OutsideValidity(if leaf_is_current {
                PathMember::Intermediate
            } else {
                PathMember::Device
            })
        }
        E::CaUsedAsEndEntity => Refusal::Misused {
            who: PathMember::Device,
            rule: "it is a CA certificate",
        },
        E::EndEntityUsedAsCa => Refusal::Misused {
            who: PathMember::Intermediate,
            rule: "it is not a CA certificate",
        },
        E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => Refusal::Misused {
            who: PathMember::Device,
            rule: "an extended key usage does not allow TLS clients",
        },
        E::PathLenConstraintViolated => Refusal::Misused {
            who: PathMember::Intermediate,
            rule: "more CAs stand below it than its path length allows",
        },
        E::MaximumPathBuildCallsExceeded
        | E::MaximumSignatureChecksExceeded
        | E::MaximumNameConstraintComparisonsExceeded => Refusal::TooMuchWork,
        E::UnsupportedSignatureAlgorithmContext(_) => Refusal::InvalidPath(
            "a certificate is signed with an algorithm that is weak or not known; ECDSA and Ed25519, \
             and RSA from 2048 bits, with SHA-256 or more, are taken"
                .to_owned(),
        ),
        E::NameConstraintViolation => Refusal::InvalidPath(
            "a name is not among those that a CA above it may issue for (name constraints)".to_owned(),
        ),
        E::UnsupportedCriticalExtension => {
            Refusal::InvalidPath("a critical extension is not understood".to_owned())
        }
        other => Refusal::InvalidPath(other.to_string()),
    }
}
