//! Certificates that have been read and found fit for their role.

use std::borrow::Cow;

use rustls_pki_types::pem::{PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor};
use webpki::EndEntityCert;
use x509_parser::der_parser::{Oid, oid};
use x509_parser::prelude::*;
use x509_parser::public_key::PublicKey;

use crate::ca::error::CertificateError;
use crate::ca::id::{CaId, CaKeyId, CertSerial};
use crate::ca::names::is_showable;

/// The signature algorithms that certificates may use.
pub type Algorithms = &'static [&'static dyn SignatureVerificationAlgorithm];

/// A certificate of a certificate authority: it may sign certificates, its key and signature
/// are strong enough, its dates are in order. Root or intermediate.
#[derive(Debug)]
pub struct CaCertificate {
    id: CaId,
    key_id: CaKeyId,
    serial: CertSerial,
    der: CertificateDer<'static>,
    issuer: Box<[u8]>,
    anchor: TrustAnchor<'static>,
    subject_text: String,
    path_len: Option<usize>,
    client_auth: ClientAuth,
    crl_sign: CrlSign,
    not_before: i64,
    not_after: i64,
}

/// What the key usage says about signing CRLs (RFC 5280, 4.2.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CrlSign {
    /// The extension is there, without cRLSign.
    Forbidden,
    /// The extension is absent or names it.
    Allowed,
}

/// What an extended key usage says about TLS clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientAuth {
    /// The extension is there, without clientAuth or anyExtendedKeyUsage.
    Forbidden,
    /// The extension is absent or names it.
    Allowed,
}

impl CaCertificate {
    /// Read exactly one certificate in PEM.
    ///
    /// # Errors
    /// What [`from_der`](Self::from_der) says, and [`CertificateError::Pem`] for text that is not
    /// one `CERTIFICATE` block.
    pub fn from_pem(pem: &str) -> Result<Self, CertificateError> {
        Self::from_der(&single_certificate(pem)?)
    }

    /// Read a certificate in DER and check that it can be a CA's.
    ///
    /// Its dates must be in order but need not include the present: whether they do is asked
    /// when it is registered and at every handshake.
    ///
    /// # Errors
    /// Which of the demands of RFC 5280 (4.1.2.2, 4.2.1.3, 4.2.1.9) or of the key strength
    /// policy it does not meet.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        if der.len() > MAX_CERTIFICATE_OCTETS {
            return Err(CertificateError::TooLarge {
                octets: der.len(),
                most: MAX_CERTIFICATE_OCTETS,
            });
        }
        let der = CertificateDer::from(der.to_vec());
        let parsed = parse(&der)?;
        // The strict reader of the path builder must take it as well; among others it refuses
        // critical extensions that nobody here understands.
        let strict =
            EndEntityCert::try_from(&der).map_err(|e| CertificateError::Der(e.to_string()))?;
        let constraints = parsed
            .basic_constraints()
            .map_err(|e| CertificateError::Der(e.to_string()))?
            .filter(|extension| extension.value.ca)
            .ok_or(CertificateError::NotCa)?;
        let path_len = constraints.value.path_len_constraint.map(|n| n as usize);
        if key_usage(&parsed)?.is_some_and(|usage| !usage.key_cert_sign()) {
            return Err(CertificateError::NoKeyCertSign);
        }
        let crl_sign = match key_usage(&parsed)? {
            Some(usage) if !usage.crl_sign() => CrlSign::Forbidden,
            Some(_) | None => CrlSign::Allowed,
        };
        let client_auth = client_auth(&parsed)?;
        check_key_strength(&parsed)?;
        if strict.issuer() != strict.subject() {
            check_signature_strength(&parsed)?;
        }
        let (not_before, not_after) = validity(&parsed)?;
        let serial = serial(&parsed)?;
        let subject_text = printable(&parsed.subject().to_string());
        let issuer = strict.issuer().into();
        if strict.subject().is_empty() {
            return Err(CertificateError::Der("the subject is empty".to_owned()));
        }
        let anchor = webpki::anchor_from_trusted_cert(&der)
            .map_err(|e| CertificateError::Der(e.to_string()))?
            .to_owned();
        let key_id = CaKeyId::of_parts(&anchor.subject, &webpki::spki_for_anchor(&anchor));
        Ok(Self {
            id: CaId::of_der(&der),
            key_id,
            serial,
            issuer,
            anchor,
            subject_text,
            path_len,
            client_auth,
            crl_sign,
            not_before,
            not_after,
            der,
        })
    }

    /// Identity of this certificate.
    pub fn id(&self) -> CaId {
        self.id
    }

    /// Identity of the authority it belongs to.
    pub fn key_id(&self) -> CaKeyId {
        self.key_id
    }

    /// Its serial number.
    pub fn serial(&self) -> &CertSerial {
        &self.serial
    }

    /// The certificate itself.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// The certificate itself, in PEM.
    pub fn to_pem(&self) -> String {
        to_pem(&self.der)
    }

    /// The contents of its subject name.
    pub fn subject(&self) -> &[u8] {
        &self.anchor.subject
    }

    /// The contents of its issuer name.
    pub fn issuer(&self) -> &[u8] {
        &self.issuer
    }

    /// Its subject for people to read.
    pub fn subject_text(&self) -> &str {
        &self.subject_text
    }

    /// First second of validity, Unix seconds.
    pub fn not_before(&self) -> i64 {
        self.not_before
    }

    /// Last second of validity, Unix seconds.
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// Whether `now` (Unix seconds) is within its dates.
    pub fn is_current(&self, now: i64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// How many CAs may stand between it and a device (RFC 5280, 4.2.1.9); `None` is any number.
    pub(crate) fn path_len(&self) -> Option<usize> {
        self.path_len
    }

    pub(crate) fn client_auth(&self) -> ClientAuth {
        self.client_auth
    }

    pub(crate) fn crl_sign(&self) -> CrlSign {
        self.crl_sign
    }

    pub(crate) fn anchor(&self) -> &TrustAnchor<'static> {
        &self.anchor
    }

    /// Whether `child` carries a signature made by this CA's key.
    pub fn has_signed(&self, child: &[u8], algorithms: Algorithms) -> bool {
        let Ok((_, child)) = X509Certificate::from_der(child) else {
            return false;
        };
        let Ok(own) = EndEntityCert::try_from(&self.der) else {
            return false;
        };
        algorithms.iter().any(|algorithm| {
            own.verify_signature(
                *algorithm,
                child.tbs_certificate.as_ref(),
                &child.signature_value.data,
            )
            .is_ok()
        })
    }
}

/// The certificate by which a registrant proves to hold the CA's key: its common name is the
/// register code. What else is in it does not matter.
#[derive(Debug)]
pub struct VerificationCertificate {
    der: CertificateDer<'static>,
    common_name: String,
    not_before: i64,
    not_after: i64,
}

impl VerificationCertificate {
    /// Read exactly one certificate in PEM; versions 1 and 3 are taken.
    ///
    /// # Errors
    /// If it is not one certificate with one common name.
    pub fn from_pem(pem: &str) -> Result<Self, CertificateError> {
        let der = single_certificate(pem)?;
        let parsed = parse(&der)?;
        let common_name = common_name(&parsed).ok_or(CertificateError::NoCommonName)?;
        let (not_before, not_after) = validity(&parsed)?;
        Ok(Self {
            common_name,
            not_before,
            not_after,
            der,
        })
    }

    /// Its common name: the register code it was made for.
    pub fn common_name(&self) -> &str {
        &self.common_name
    }

    /// Its DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Whether `now` (Unix seconds) is within its dates.
    pub fn is_current(&self, now: i64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }
}

/// PEM of a certificate, lines of 64 characters, with a final newline (RFC 7468).
pub fn to_pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::with_capacity(text.len() + text.len() / 64 + 64);
    pem.push_str("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = tail;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

fn single_certificate(pem: &str) -> Result<CertificateDer<'static>, CertificateError> {
    if pem.len() > MAX_PEM_OCTETS {
        return Err(CertificateError::TooLarge {
            octets: pem.len(),
            most: MAX_PEM_OCTETS,
        });
    }
    let text = with_line_ends(pem);
    let mut found = None;
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()) {
        match section {
            Ok((SectionKind::Certificate, der)) if found.is_none() => {
                found = Some(CertificateDer::from(der));
            }
            Ok((SectionKind::Certificate, _)) => {
                return Err(CertificateError::Pem(
                    "there is more than one certificate in it; send exactly one".to_owned(),
                ));
            }
            Ok(_) => {
                return Err(CertificateError::Pem(
                    "there is something other than a certificate in it; send the certificate \
                     alone, never a key"
                        .to_owned(),
                ));
            }
            Err(error) => return Err(CertificateError::Pem(error.to_string())),
        }
    }
    found.ok_or_else(|| {
        CertificateError::Pem(
            "it holds no certificate; it must begin with -----BEGIN CERTIFICATE-----".to_owned(),
        )
    })
}

/// The text with line ends where it has them spelled out: some clients send the two characters
/// `\n`. PEM has no backslash.
pub(crate) fn with_line_ends(pem: &str) -> Cow<'_, str> {
    match pem.contains('\\') {
        true => Cow::Owned(pem.replace("\\r", "").replace("\\n", "\n")),
        false => Cow::Borrowed(pem),
    }
}

pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CertificateError> {
    match X509Certificate::from_der(der) {
        Ok(([], parsed)) => Ok(parsed),
        Ok(_) => Err(CertificateError::Der("octets follow it".to_owned())),
        Err(error) => Err(CertificateError::Der(error.to_string())),
    }
}

pub(crate) fn serial(parsed: &X509Certificate<'_>) -> Result<CertSerial, CertificateError> {
    CertSerial::from_be_bytes(parsed.raw_serial())
        .map_err(|error| CertificateError::Der(error.to_string()))
}

pub(crate) fn key_usage<'c>(
    parsed: &'c X509Certificate<'_>,
) -> Result<Option<&'c KeyUsage>, CertificateError> {
    parsed
        .key_usage()
        .map(|extension| extension.map(|extension| extension.value))
        .map_err(|error| CertificateError::Der(error.to_string()))
}

pub(crate) fn client_auth(parsed: &X509Certificate<'_>) -> Result<ClientAuth, CertificateError> {
    let usage = parsed
        .extended_key_usage()
        .map_err(|error| CertificateError::Der(error.to_string()))?;
    Ok(match usage {
        Some(usage) if !usage.value.client_auth && !usage.value.any => ClientAuth::Forbidden,
        _ => ClientAuth::Allowed,
    })
}

/// The most specific common name, if it can be shown: no control characters, at most 255 octets.
pub(crate) fn common_name(parsed: &X509Certificate<'_>) -> Option<String> {
    let name = parsed.subject().iter_common_name().last()?.as_str().ok()?;
    is_showable(name).then(|| name.to_owned())
}

pub(crate) fn validity(parsed: &X509Certificate<'_>) -> Result<(i64, i64), CertificateError> {
    let validity = parsed.validity();
    let dates = (
        validity.not_before.timestamp(),
        validity.not_after.timestamp(),
    );
    if dates.0 > dates.1 {
        return Err(CertificateError::Der(
            "its validity ends before it begins".to_owned(),
        ));
    }
    Ok(dates)
}

fn check_key_strength(parsed: &X509Certificate<'_>) -> Result<(), CertificateError> {
    let key = parsed
        .public_key()
        .parsed()
        .map_err(|error| CertificateError::Der(error.to_string()))?;
    match key {
        PublicKey::RSA(rsa) => match rsa.key_size() {
            2048..=8192 => Ok(()),
            bits => Err(CertificateError::Weak(format!(
                "RSA keys must have 2048 to 8192 bits, this has {bits}"
            ))),
        },
        PublicKey::EC(point) => match point.key_size() {
            256 | 384 | 521 | 528 => Ok(()),
            bits => Err(CertificateError::Weak(format!(
                "elliptic curve keys must be P-256, P-384 or P-521, this has {bits} bits"
            ))),
        },
        _ if parsed.public_key().algorithm.algorithm == oid_registry::OID_SIG_ED25519 => Ok(()),
        _ => Err(CertificateError::Weak(
            "the key must be RSA, ECDSA or Ed25519".to_owned(),
        )),
    }
}

/// Whether a handshake can show that the client owns this key: a signature by it must be one of those
/// that we verify.
///
/// # Errors
/// The rule that is broken.
pub(crate) fn check_device_key(parsed: &X509Certificate<'_>) -> Result<(), &'static str> {
    let algorithm = &parsed.public_key().algorithm;
    let curve = || {
        let parameters = algorithm.parameters.as_ref()?;
        parameters.as_oid().ok()
    };
    match parsed.public_key().parsed() {
        Ok(PublicKey::RSA(rsa)) if (2048..=8192).contains(&rsa.key_size()) => Ok(()),
        Ok(PublicKey::RSA(_)) => Err("its RSA key has less than 2048 bits or more than 8192"),
        Ok(PublicKey::EC(_)) if curve().is_some_and(|curve| CURVES.contains(&curve)) => Ok(()),
        Ok(PublicKey::EC(_)) => Err("its key is on another curve than P-256, P-384 and P-521"),
        _ if algorithm.algorithm == oid_registry::OID_SIG_ED25519 => Ok(()),
        _ => Err("its key is neither RSA nor ECDSA nor Ed25519"),
    }
}

fn check_signature_strength(parsed: &X509Certificate<'_>) -> Result<(), CertificateError> {
    let weak = [
        oid_registry::OID_PKCS1_SHA1WITHRSA,
        oid_registry::OID_PKCS1_MD5WITHRSAENC,
        ECDSA_WITH_SHA1,
    ];
    if weak.contains(&parsed.signature_algorithm.algorithm) {
        return Err(CertificateError::Weak(
            "it is signed with MD5 or SHA-1; use SHA-256 or better".to_owned(),
        ));
    }
    Ok(())
}

/// The text without what could break a line or a terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .take(1024)
        .collect()
}

/// P-256, P-384 and P-521 (RFC 5480, 2.1.1.1).
const CURVES: [Oid<'static>; 3] = [
    oid!(1.2.840.10045.3.1.7),
    oid!(1.3.132.0.34),
    oid!(1.3.132.0.35),
];

/// ecdsa-with-SHA1 (RFC 3279, 2.2.3).
const ECDSA_WITH_SHA1: Oid<'static> = oid!(1.2.840.10045.4.1);

/// A certificate that is larger than this is refused unread.
pub(crate) const MAX_CERTIFICATE_OCTETS: usize = 16 * 1024;

const MAX_PEM_OCTETS: usize = 32 * 1024;
