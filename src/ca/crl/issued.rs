//! A certificate as the lists of its issuer see it.

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{DistributionPointName, ParsedExtension};
use x509_parser::oid_registry::OID_X509_EXT_CRL_DISTRIBUTION_POINTS;

use super::error::{MOST_POINT_OCTETS, MOST_POINTS};
use super::partition::uris;
use crate::ca::id::{CaKeyId, CertSerial};

/// A certificate of a verified path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Issued {
    /// Who issued it.
    pub(crate) issuer: CaKeyId,
    pub(crate) serial: CertSerial,
    pub(crate) kind: Kind,
    /// The distribution points that it names.
    pub(crate) points: Box<[Box<str>]>,
}

/// What kind of certificate it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The one that the peer proved to own.
    Device,
    /// A CA that is not registered.
    Intermediate,
    /// A CA that an operator registered: it needs no list that vouches for it.
    Registered,
}

/// The distribution points that a certificate names for complete lists of its own issuer. What is
/// not understood is none: then no list for a part covers it.
pub(crate) fn points(certificate: &X509Certificate<'_>) -> Box<[Box<str>]> {
    let Ok(Some(extension)) =
        certificate.get_extension_unique(&OID_X509_EXT_CRL_DISTRIBUTION_POINTS)
    else {
        return Box::default();
    };
    let ParsedExtension::CRLDistributionPoints(named) = extension.parsed_extension() else {
        return Box::default();
    };
    named
        .points
        .iter()
        .filter(|point| point.reasons.is_none() && point.crl_issuer.is_none())
        .filter_map(|point| match &point.distribution_point {
            Some(DistributionPointName::FullName(names)) => Some(uris(names)),
            Some(DistributionPointName::NameRelativeToCRLIssuer(_)) | None => None,
        })
        .flatten()
        .filter(|point| point.len() <= MOST_POINT_OCTETS)
        .take(MOST_POINTS)
        .collect()
}
