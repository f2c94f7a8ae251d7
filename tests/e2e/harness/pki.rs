//! Certificates that the development mode does not make, made in memory.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint,
    CrlIssuingDistributionPoint, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevocationReason, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use time::{Duration, OffsetDateTime};

use super::Broker;
use super::tls::Identity;

/// A CA with its key.
#[derive(Clone)]
pub struct Ca {
    pub der: CertificateDer<'static>,
    pub key_pem: String,
}

/// Parameters of a CA certificate that is good for a day.
pub fn ca_params(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Parameters of a device certificate that is good for a day.
pub fn device_params(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params
}

/// Parameters of a server certificate for these DNS names that is good for a day.
pub fn server_params(names: &[&str]) -> CertificateParams {
    let mut params = params("server");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let names = names.iter().map(|name| (*name).try_into().unwrap());
    params.subject_alt_names = names.map(SanType::DnsName).collect();
    params
}

fn params(name: &str) -> CertificateParams {
    static SERIAL: AtomicU64 = AtomicU64::new(0x0100_0000);
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    params.serial_number = Some(SerialNumber::from(serial));
    params.not_before = OffsetDateTime::now_utc() - Duration::hours(1);
    params.not_after = OffsetDateTime::now_utc() + Duration::days(1);
    params
}

/// A fresh key, as PEM.
pub fn new_key() -> String {
    KeyPair::generate().unwrap().serialize_pem()
}

impl Ca {
    /// One of the development CAs.
    pub fn load(broker: &Broker, name: &str) -> Self {
        Self {
            der: read_der(&broker.cert(&format!("{name}.pem"))),
            key_pem: fs::read_to_string(broker.cert(&format!("{name}.key"))).unwrap(),
        }
    }

    /// A self-signed CA with a new key.
    pub fn root(name: &str) -> Self {
        Self::self_signed(ca_params(name), &new_key())
    }

    /// A self-signed CA.
    pub fn self_signed(params: CertificateParams, key_pem: &str) -> Self {
        let key = KeyPair::from_pem(key_pem).unwrap();
        Self {
            der: params.self_signed(&key).unwrap().der().clone(),
            key_pem: key_pem.to_owned(),
        }
    }

    /// A CA below this one.
    pub fn issue_ca(&self, params: CertificateParams, key_pem: &str) -> Self {
        let key = KeyPair::from_pem(key_pem).unwrap();
        Self {
            der: params
                .signed_by(&key, &self.issuer())
                .unwrap()
                .der()
                .clone(),
            key_pem: key_pem.to_owned(),
        }
    }

    /// A device of this CA that sends `chain` after its own certificate.
    pub fn issue_device(&self, params: CertificateParams, chain: &[&Ca]) -> Identity {
        let key = KeyPair::generate().unwrap();
        let der = params
            .signed_by(&key, &self.issuer())
            .unwrap()
            .der()
            .clone();
        let above = chain.iter().map(|ca| ca.der.clone());
        Identity {
            chain: std::iter::once(der).chain(above).collect(),
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        }
    }

    /// An ordinary device of this CA.
    pub fn device(&self, name: &str) -> Identity {
        self.issue_device(device_params(name), &[])
    }

    /// The certificate that proves possession of the key: the register code as common name.
    pub fn verification(&self, code: &str) -> String {
        let key = KeyPair::generate().unwrap();
        let certificate = params(code).signed_by(&key, &self.issuer()).unwrap();
        certificate.pem()
    }

    /// The certificate as PEM.
    pub fn pem(&self) -> String {
        pem(&self.der)
    }

    /// The serial number as the API writes it.
    pub fn sn(&self) -> String {
        sn(&self.der)
    }

    /// A CRL of this CA that is good for a day, in DER.
    pub fn crl(&self, number: u64, revoked: &[&Identity]) -> Vec<u8> {
        self.crl_until(
            number,
            revoked,
            OffsetDateTime::now_utc() + Duration::days(1),
        )
    }

    /// One that expires then.
    pub fn crl_until(
        &self,
        number: u64,
        revoked: &[&Identity],
        next_update: OffsetDateTime,
    ) -> Vec<u8> {
        let serials = revoked.iter().map(|it| serial(&it.chain[0]));
        self.crl_of(number, serials, next_update, None)
    }

    /// One for these serial numbers, and for a distribution point if there is one.
    pub fn crl_of(
        &self,
        number: u64,
        serials: impl IntoIterator<Item = SerialNumber>,
        next_update: OffsetDateTime,
        point: Option<&str>,
    ) -> Vec<u8> {
        let this_update = next_update.min(OffsetDateTime::now_utc()) - Duration::minutes(1);
        let revoked = serials.into_iter().map(|serial_number| RevokedCertParams {
            serial_number,
            revocation_time: this_update,
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update,
            next_update,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: point.map(|point| CrlIssuingDistributionPoint {
                distribution_point: CrlDistributionPoint {
                    uris: vec![point.to_owned()],
                },
                scope: None,
            }),
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer()).unwrap().der().to_vec()
    }

    fn issuer(&self) -> Issuer<'static, KeyPair> {
        let key = KeyPair::from_pem(&self.key_pem).unwrap();
        Issuer::from_ca_cert_der(&self.der, key).unwrap()
    }
}

/// The first certificate of a PEM file.
pub fn read_der(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

/// The serial number of a certificate as the API writes it: hex of the DER content octets.
pub fn sn(der: &[u8]) -> String {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).unwrap();
    hex::encode(certificate.tbs_certificate.raw_serial())
}

/// The serial number of a certificate.
pub fn serial(der: &[u8]) -> SerialNumber {
    SerialNumber::from(hex::decode(sn(der)).unwrap())
}

/// DER as PEM.
pub fn pem(der: &[u8]) -> String {
    pem_of("CERTIFICATE", der)
}

/// The DER of a CRL as PEM.
pub fn crl_pem(der: &[u8]) -> String {
    pem_of("X509 CRL", der)
}

fn pem_of(what: &str, der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(str_of).collect();
    format!(
        "-----BEGIN {what}-----\n{}\n-----END {what}-----\n",
        lines.join("\n")
    )
}

fn str_of(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}
