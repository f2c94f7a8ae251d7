//! CAs and devices, ECDSA P-256, made in memory.

// Each benchmark uses a part of it.
#![allow(dead_code)]

use std::sync::Arc;

use portcullis::ca::certificate::CaCertificate;
use portcullis::ca::id::InstanceId;
use portcullis::ca::lifecycle::Status;
use portcullis::ca::registry::{Purpose, Registry};
use portcullis::ca::topology::SameKey;
use portcullis::tls::server_config::{algorithms, provider};
use portcullis::tls::verifier::CaVerifier;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;

/// How many CAs, or devices, are registered.
pub const SIZES: [usize; 4] = [1, 100, 10_000, 100_000];

/// CAs by number. All have one key: a name makes another CA of it, and keys are slow to make.
pub struct Authorities(KeyPair);

impl Authorities {
    pub fn new() -> Self {
        Self(KeyPair::generate().unwrap())
    }

    /// A CA that nobody stands above.
    pub fn root(&self, number: usize) -> CertificateDer<'static> {
        let certificate = params(number).self_signed(&self.0).unwrap();
        certificate.der().clone()
    }

    /// A CA below another.
    pub fn below(&self, above: usize, number: usize) -> CertificateDer<'static> {
        let above = params(above);
        let certificate = params(number).signed_by(&self.0, &Issuer::from_params(&above, &self.0));
        certificate.unwrap().der().clone()
    }

    /// What a CA issues for this key.
    pub fn leaf(
        &self,
        issuer: usize,
        usage: ExtendedKeyUsagePurpose,
        key: &KeyPair,
    ) -> CertificateDer<'static> {
        let mut leaf = CertificateParams::default();
        leaf.distinguished_name.push(DnType::CommonName, "leaf");
        leaf.subject_alt_names = vec![SanType::DnsName("localhost".try_into().unwrap())];
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![usage];
        let issuer = params(issuer);
        let certificate = leaf.signed_by(key, &Issuer::from_params(&issuer, &self.0));
        certificate.unwrap().der().clone()
    }
}

fn params(number: usize) -> CertificateParams {
    let mut params = CertificateParams::default();
    let name = format!("CA {number}");
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from(number as u64));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

pub fn parsed(der: &CertificateDer<'_>) -> Arc<CaCertificate> {
    Arc::new(CaCertificate::from_der(der).unwrap())
}

/// A registry in which these are active. It remembers no signature: each device is as one that has not
/// been there before.
pub fn registry(certificates: impl IntoIterator<Item = Arc<CaCertificate>>) -> Arc<Registry> {
    let registry = Registry::new(SameKey::Deny, algorithms()).remembering(0);
    for certificate in certificates {
        registry
            .insert(certificate, Purpose::Device, Status::Active)
            .unwrap();
    }
    Arc::new(registry)
}

pub fn verifier(registry: Arc<Registry>) -> Arc<CaVerifier> {
    let instance: InstanceId = "bench".parse().unwrap();
    let algorithms = provider().signature_verification_algorithms;
    Arc::new(CaVerifier::new(instance, registry, algorithms))
}
