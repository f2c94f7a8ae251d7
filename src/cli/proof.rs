//! The proof that a registrant holds the CA's key: a certificate signed with it.

use rcgen::{CertificateParams, DnType, Issuer, KeyPair};
use time::{Duration, OffsetDateTime};

use super::client::{ClientError, usage};
use crate::config::secret::Secret;

/// Signs verification certificates with the CA's key.
pub(super) struct Prover(Issuer<'static, KeyPair>);

impl Prover {
    /// With this CA certificate and key, both PEM.
    ///
    /// # Errors
    /// If they cannot be read or do not belong together.
    pub(super) fn new(certificate: &str, key: &Secret) -> Result<Self, ClientError> {
        let key = KeyPair::from_pem(key.reveal()).map_err(|error| {
            usage(format!(
                "the CA's key cannot be used: {error}; it must be an unencrypted PEM private key (RSA or EC). If it is elsewhere, get a code with `portcullis ca register-code` and give --verification"
            ))
        })?;
        let public = key.public_key_raw().to_vec();
        let issuer = Issuer::from_ca_cert_pem(certificate, key)
            .map_err(|error| usage(format!("the CA certificate cannot be used: {error}")))?;
        match is_of_key(certificate, &public) {
            true => Ok(Self(issuer)),
            false => Err(usage(
                "the key given with --key is not the key of the CA certificate".to_owned(),
            )),
        }
    }

    /// A verification certificate (PEM) with the register code as common name, good for a day.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(super) fn verification(&self, code: &str) -> Result<String, ClientError> {
        let failed = |error| {
            usage(format!(
                "the verification certificate cannot be made: {error}"
            ))
        };
        let now = OffsetDateTime::now_utc();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, code);
        // The broker's clock may be behind.
        params.not_before = now - Duration::hours(1);
        params.not_after = now + Duration::days(1);
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &self.0).map_err(failed)?;
        Ok(certificate.pem())
    }
}

fn is_of_key(certificate: &str, public: &[u8]) -> bool {
    let parsed = x509_parser::pem::parse_x509_pem(certificate.as_bytes());
    let Ok((_, pem)) = parsed else { return false };
    pem.parse_x509()
        .is_ok_and(|it| it.public_key().subject_public_key.data.as_ref() == public)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestCa;

    #[test]
    fn verification_certificate_has_the_code_and_the_signature() {
        let ca = TestCa::root("root", 7);
        let key = Secret::new(ca.key.serialize_pem());
        let pem = Prover::new(&ca.pem(), &key)
            .unwrap()
            .verification("the-code")
            .unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        assert_eq!(certificate.subject().to_string(), "CN=the-code");
        assert_eq!(certificate.issuer().to_string(), "CN=root");
    }

    #[test]
    fn key_of_another_ca_is_noticed_before_anything_is_sent() {
        let (ca, other) = (TestCa::root("root", 7), TestCa::root("root", 7));
        let key = Secret::new(other.key.serialize_pem());
        let error = Prover::new(&ca.pem(), &key).err().unwrap();
        assert!(error.to_string().contains("not the key"), "{error}");
        assert!(Prover::new("no pem", &key).is_err());
        assert!(Prover::new(&ca.pem(), &Secret::new("no key".to_owned())).is_err());
    }
}
