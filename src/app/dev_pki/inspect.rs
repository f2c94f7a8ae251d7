//! What is there of a piece, and whether it holds together.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use rcgen::{KeyPair, PublicKeyData};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::DevPkiError;

/// What the directory has of a piece.
pub(super) enum Found {
    /// Neither certificate nor key.
    Nothing,
    /// A key that can be read; what was written first of a piece that was interrupted.
    KeyOnly(KeyPair),
    /// A certificate whose key is gone.
    CertificateOnly,
    /// Something that is not a certificate with its key; the text says what.
    Broken(String),
    /// A certificate with its key.
    Sound(Existing),
}

/// A certificate with its key, as read from the directory.
pub(super) struct Existing {
    pub(super) key: KeyPair,
    pub(super) der: CertificateDer<'static>,
    /// Certificates after the first one in the file.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// Last second of validity, Unix seconds.
    pub(super) not_after: i64,
}

impl Existing {
    /// Make it of PEM texts that belong together.
    pub(super) fn parse(pem: &str, key: KeyPair) -> Result<Self, String> {
        let mut certificates = CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| format!("the certificate is not PEM: {error}"))?
            .into_iter();
        let der = certificates
            .next()
            .ok_or("there is no certificate in the file")?;
        let (_, parsed) = X509Certificate::from_der(&der)
            .map_err(|error| format!("the certificate cannot be parsed: {error}"))?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err("the certificate does not belong to the key".to_owned());
        }
        let not_after = parsed.validity().not_after.timestamp();
        Ok(Self {
            key,
            not_after,
            chain: certificates.collect(),
            der,
        })
    }

    /// Whether the certificate names `issuer` as its issuer, by name and by key identifier.
    pub(super) fn is_issued_by(&self, issuer: &Existing) -> bool {
        let (Ok((_, own)), Ok((_, above))) = (
            X509Certificate::from_der(&self.der),
            X509Certificate::from_der(&issuer.der),
        ) else {
            return false;
        };
        let authority_key = own
            .iter_extensions()
            .find_map(|e| match e.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(aki) => aki.key_identifier.as_ref(),
                _ => None,
            });
        let issuer_key = above
            .iter_extensions()
            .find_map(|e| match e.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(ski) => Some(ski),
                _ => None,
            });
        own.issuer().as_raw() == above.subject().as_raw()
            && authority_key.is_some()
            && authority_key == issuer_key
    }
}

/// Read the piece's two files.
pub(super) fn read(certificate: &Path, key: &Path) -> Result<Found, DevPkiError> {
    let pem = read_optional(certificate)?;
    let key_pem = read_optional(key)?.map(|text| KeyPair::from_pem(&text));
    Ok(match (pem, key_pem) {
        (None, None) => Found::Nothing,
        (None, Some(Ok(key))) => Found::KeyOnly(key),
        (Some(_), None) => Found::CertificateOnly,
        (_, Some(Err(error))) => Found::Broken(format!("the key cannot be read: {error}")),
        (Some(pem), Some(Ok(key))) => match Existing::parse(&pem, key) {
            Ok(existing) => Found::Sound(existing),
            Err(what) => Found::Broken(what),
        },
    })
}

fn read_optional(path: &Path) -> Result<Option<String>, DevPkiError> {
    match fs::read(path) {
        // What is not UTF-8 is not PEM; the parser says so.
        Ok(octets) => Ok(Some(String::from_utf8_lossy(&octets).into_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DevPkiError::io("read", path, source)),
    }
}
