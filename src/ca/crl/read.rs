//! From octets to a list that can be trusted.
//!
//! `webpki` reads every octet and refuses what it does not understand. It shows the entries, and
//! keeps to itself what else is needed here: that is read again from what it found well formed.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine as _;
use rustls_pki_types::pem::{PemObject, SectionKind};
use webpki::{BorrowedCertRevocationList, EndEntityCert};
use x509_parser::asn1_rs::{Any, Tag};
use x509_parser::extensions::{ParsedExtension, X509Extension};
use x509_parser::oid_registry::{OID_X509_EXT_CRL_NUMBER, OID_X509_EXT_ISSUER_DISTRIBUTION_POINT};
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Name;

use super::error::CrlError;
use super::partition::Partition;
use super::revoked::RevokedSet;
use super::{Crl, CrlNumber};
use crate::ca::certificate::{Algorithms, CaCertificate, CrlSign, printable};
use crate::ca::id::{CaKeyId, CrlDigest};

/// The DER of a list that comes as DER, as one block in PEM, or as base64 of DER.
///
/// # Errors
/// [`CrlError::Encoding`] if it is none of them.
pub fn to_der(content: &[u8]) -> Result<Cow<'_, [u8]>, CrlError> {
    let wrong = |what: String| Err(CrlError::Encoding(what));
    if content.first() == Some(&SEQUENCE) {
        return Ok(Cow::Borrowed(content));
    }
    if content
        .windows(PEM_BEGIN.len())
        .take(MOST_BEFORE_PEM)
        .any(|it| it == PEM_BEGIN)
    {
        let mut found = None;
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(content) {
            match section {
                Ok((SectionKind::Crl, der)) if found.is_none() => found = Some(der),
                Ok((SectionKind::Crl, _)) => return wrong("there are several in it".to_owned()),
                Ok(_) => return wrong("there is something else in it".to_owned()),
                Err(error) => return wrong(error.to_string()),
            }
        }
        return match found {
            Some(der) => Ok(Cow::Owned(der)),
            None => wrong("there is no X509 CRL in it".to_owned()),
        };
    }
    let text: Vec<u8> = content
        .iter()
        .copied()
        .filter(|it| !it.is_ascii_whitespace())
        .collect();
    match base64::engine::general_purpose::STANDARD.decode(text) {
        Ok(der) if der.first() == Some(&SEQUENCE) => Ok(Cow::Owned(der)),
        Ok(_) => wrong("what is encoded is no DER".to_owned()),
        Err(error) => wrong(error.to_string()),
    }
}

/// A list that is well formed. Nobody has looked at its signature.
#[derive(Debug)]
pub struct UnverifiedCrl<'a> {
    der: &'a [u8],
    strict: BorrowedCertRevocationList<'a>,
    signed: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
    issuer: &'a [u8],
    issuer_text: String,
    this_update: i64,
    next_update: i64,
    number: CrlNumber,
    partition: Partition,
}

impl<'a> UnverifiedCrl<'a> {
    /// Read everything but the entries.
    ///
    /// # Errors
    /// If it is no CRL of version 2 with a number, or one that is not understood whole.
    pub fn read(der: &'a [u8]) -> Result<Self, CrlError> {
        let strict = BorrowedCertRevocationList::from_der(der).map_err(|error| {
            match (CrlError::of(&error), has_version(der)) {
                (CrlError::Malformed(_), Ok(false)) => CrlError::Version,
                (error, _) => error,
            }
        })?;
        let (_, list) = any(der)?;
        let (after, body) = any(list.data)?;
        let signed = list.data.get(..list.data.len() - after.len());
        let (after, algorithm) = any(after)?;
        let (_, signature) = any(after)?;

        let (rest, _version) = any(body.data)?;
        let (rest, _algorithm) = any(rest)?;
        let before = rest;
        let (rest, issuer) = any(rest)?;
        let (_, name) = X509Name::from_der(before).map_err(|e| malformed(&e))?;
        let (rest, this_update) = ASN1Time::from_der(rest).map_err(|e| malformed(&e))?;
        let (rest, next_update) = ASN1Time::from_der(rest).map_err(|e| malformed(&e))?;
        if next_update <= this_update {
            return Err(CrlError::Dates);
        }
        let (rest, next) = any(rest)?;
        let extensions = match next.tag() {
            Tag::Sequence => any(rest)?.1,
            _ => next,
        };
        let (number, partition) = read_extensions(any(extensions.data)?.1.data)?;
        Ok(Self {
            der,
            strict,
            signed: signed.unwrap_or_default(),
            algorithm: algorithm.data,
            // The first octet says that no bits are unused.
            signature: signature.data.get(1..).unwrap_or_default(),
            issuer: issuer.data,
            issuer_text: printable(&name.to_string()),
            this_update: this_update.timestamp(),
            next_update: next_update.timestamp(),
            number,
            partition,
        })
    }

    /// The contents of the issuer's name.
    pub fn issuer(&self) -> &'a [u8] {
        self.issuer
    }

    /// Which issue it is.
    pub fn number(&self) -> CrlNumber {
        self.number
    }

    /// Check that one of these registered CAs signed it, and read its entries, at most `most`.
    ///
    /// # Errors
    /// If none of them did, or an entry is not understood.
    pub fn verify(
        self,
        candidates: &[Arc<CaCertificate>],
        algorithms: Algorithms,
        most: usize,
    ) -> Result<Crl, CrlError> {
        let algorithms: Vec<_> = algorithms
            .iter()
            .filter(|it| it.signature_alg_id().as_ref() == self.algorithm)
            .collect();
        if algorithms.is_empty() {
            return Err(CrlError::SignatureAlgorithm);
        }
        let mut tried: Vec<CaKeyId> = Vec::new();
        for ca in candidates.iter().filter(|ca| ca.subject() == self.issuer) {
            // Certificates of one key would all give the same answer.
            if tried.contains(&ca.key_id()) {
                continue;
            }
            tried.push(ca.key_id());
            let Ok(signer) = EndEntityCert::try_from(ca.der()) else {
                continue;
            };
            let holds = algorithms.iter().any(|algorithm| {
                let verified = signer.verify_signature(**algorithm, self.signed, self.signature);
                verified.is_ok()
            });
            if !holds {
                continue;
            }
            let allowed = candidates
                .iter()
                .any(|it| it.key_id() == ca.key_id() && it.crl_sign() == CrlSign::Allowed);
            return match allowed {
                true => self.of(ca.key_id(), most),
                false => Err(CrlError::NoCrlSign {
                    issuer: self.issuer_text,
                }),
            };
        }
        Err(CrlError::NotSigned {
            issuer: self.issuer_text,
        })
    }

    /// The list without looking at its signature: for one that was verified before it was kept
    /// where nobody else can write, and that `issuer` had signed.
    ///
    /// # Errors
    /// If an entry is not understood.
    pub fn verified_before(self, issuer: CaKeyId) -> Result<Crl, CrlError> {
        self.of(issuer, usize::MAX)
    }

    fn of(self, issuer: CaKeyId, most: usize) -> Result<Crl, CrlError> {
        Ok(Crl {
            id: self.partition.id(issuer),
            digest: CrlDigest::of_der(self.der),
            octets: self.der.len(),
            issuer,
            issuer_text: self.issuer_text,
            partition: self.partition,
            number: self.number,
            this_update: self.this_update,
            next_update: self.next_update,
            revoked: RevokedSet::read(self.strict.into_iter(), most)?,
        })
    }
}

/// The number, and the part of the issuer's certificates.
fn read_extensions(mut rest: &[u8]) -> Result<(CrlNumber, Partition), CrlError> {
    let (mut number, mut partition) = (None, None);
    while !rest.is_empty() {
        let (after, extension) = X509Extension::from_der(rest).map_err(|e| malformed(&e))?;
        rest = after;
        if extension.oid == OID_X509_EXT_CRL_NUMBER {
            let (_, value) = any(extension.value)?;
            if number
                .replace(CrlNumber::from_be_bytes(value.data)?)
                .is_some()
            {
                return Err(CrlError::Number);
            }
        } else if extension.oid == OID_X509_EXT_ISSUER_DISTRIBUTION_POINT {
            let read = match extension.parsed_extension() {
                ParsedExtension::IssuingDistributionPoint(it) => Partition::read(it)?,
                _ => return Err(CrlError::DistributionPoint),
            };
            if partition.replace(read).is_some() {
                return Err(CrlError::DistributionPoint);
            }
        }
    }
    let number = number.ok_or(CrlError::Number)?;
    Ok((number, partition.unwrap_or_else(Partition::whole)))
}

/// Whether a version is named; version 1 is that of a list that names none.
fn has_version(der: &[u8]) -> Result<bool, CrlError> {
    let (_, list) = any(der)?;
    let (_, body) = any(list.data)?;
    let (_, first) = any(body.data)?;
    let list = list.tag() == Tag::Sequence && body.tag() == Tag::Sequence;
    Ok(!list || first.tag() == Tag::Integer)
}

fn any(input: &[u8]) -> Result<(&[u8], Any<'_>), CrlError> {
    Any::from_der(input).map_err(|error| malformed(&error))
}

fn malformed(error: &impl std::fmt::Display) -> CrlError {
    CrlError::Malformed(error.to_string())
}

const SEQUENCE: u8 = 0x30;

const PEM_BEGIN: &[u8] = b"-----BEGIN";

/// What may stand before the first block of a PEM.
const MOST_BEFORE_PEM: usize = 64 * 1024;
