//! Which certificates of its issuer a list is for.

use x509_parser::extensions::{DistributionPointName, GeneralName, IssuingDistributionPoint};

use super::error::{CrlError, MOST_POINT_OCTETS, MOST_POINTS};
use super::issued::{Issued, Kind};
use crate::ca::id::{CaKeyId, CrlId};

/// The part of an issuer's certificates that a list is for (RFC 5280, 5.2.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    certificates: Certificates,
    /// In order; none: all certificates, whatever distribution points they name.
    points: Box<[Box<str>]>,
}

/// Which kind of certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certificates {
    /// Those of devices only (`onlyContainsUserCerts`).
    Devices,
    /// Those of CAs only (`onlyContainsCACerts`).
    Cas,
    /// All.
    All,
}

impl Partition {
    /// The part for everything: a list without the extension.
    pub(super) fn whole() -> Self {
        Self {
            certificates: Certificates::All,
            points: Box::default(),
        }
    }

    /// What the extension says.
    pub(super) fn read(extension: &IssuingDistributionPoint<'_>) -> Result<Self, CrlError> {
        let certificates = match (
            extension.only_contains_user_certs,
            extension.only_contains_ca_certs,
        ) {
            (false, false) => Certificates::All,
            (true, false) => Certificates::Devices,
            (false, true) => Certificates::Cas,
            (true, true) => return Err(CrlError::DistributionPoint),
        };
        let mut points = match &extension.distribution_point {
            Some(DistributionPointName::FullName(names)) => uris(names).collect::<Vec<_>>(),
            Some(DistributionPointName::NameRelativeToCRLIssuer(_)) | None => Vec::new(),
        };
        points.sort_unstable();
        points.dedup();
        let long = points.iter().any(|point| point.len() > MOST_POINT_OCTETS);
        if points.is_empty() || points.len() > MOST_POINTS || long {
            return Err(CrlError::DistributionPoint);
        }
        Ok(Self {
            certificates,
            points: points.into(),
        })
    }

    /// Which kind of certificates it is for.
    pub fn certificates(&self) -> Certificates {
        self.certificates
    }

    /// The distribution points that it is for; none is all.
    pub fn points(&self) -> impl Iterator<Item = &str> {
        self.points.iter().map(AsRef::as_ref)
    }

    /// Whether a list for this part would have the certificate if it were revoked.
    ///
    /// A list for some distribution points says nothing of a certificate that names none of them.
    pub(super) fn covers(&self, certificate: &Issued) -> bool {
        let kind = match (self.certificates, certificate.kind) {
            (Certificates::All, _) => true,
            (Certificates::Devices, kind) => kind == Kind::Device,
            (Certificates::Cas, kind) => kind != Kind::Device,
        };
        let points = &certificate.points;
        kind && (self.points.is_empty()
            || points
                .iter()
                .any(|it| self.points.binary_search(it).is_ok()))
    }

    /// The identity of the list of this part of the issuer's certificates.
    pub(super) fn id(&self, issuer: CaKeyId) -> CrlId {
        let kind: &[u8] = match self.certificates {
            Certificates::Devices => b"devices",
            Certificates::Cas => b"cas",
            Certificates::All => b"all",
        };
        let points = self.points.iter().map(|point| point.as_bytes());
        CrlId::of_parts(
            [issuer.as_bytes().as_slice(), kind]
                .into_iter()
                .chain(points),
        )
    }
}

/// The URIs among the names, as they are.
pub(super) fn uris<'a>(names: &'a [GeneralName<'_>]) -> impl Iterator<Item = Box<str>> + 'a {
    names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(Box::from(*uri)),
        _ => None,
    })
}
