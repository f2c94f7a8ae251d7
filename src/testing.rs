//! Certificates made in memory for the tests of this crate.

pub(crate) mod crl;
pub(crate) mod schedule;

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use time::{Duration, OffsetDateTime};

use crate::ca::certificate::CaCertificate;
use crate::ca::lifecycle::Status;
use crate::ca::registry::{Effects, Purpose, Registry};
use crate::ca::topology::SameKey;
use crate::tls::server_config::algorithms;

/// A CA of a test: certificate, key and what it was made of.
pub(crate) struct TestCa {
    pub(crate) params: CertificateParams,
    pub(crate) key: Arc<KeyPair>,
    pub(crate) der: CertificateDer<'static>,
}

/// A device of a test.
pub(crate) struct TestDevice {
    pub(crate) key: KeyPair,
    pub(crate) der: CertificateDer<'static>,
}

impl TestDevice {
    pub(crate) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).unwrap()
    }
}

pub(crate) fn ca_params(name: &str, serial: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from(serial));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = OffsetDateTime::now_utc() - Duration::hours(1);
    params.not_after = OffsetDateTime::now_utc() + Duration::days(1);
    params
}

pub(crate) fn device_params(name: &str, serial: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from(serial));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = OffsetDateTime::now_utc() - Duration::hours(1);
    params.not_after = OffsetDateTime::now_utc() + Duration::hours(12);
    params
}

impl TestCa {
    pub(crate) fn root(name: &str, serial: u64) -> Self {
        Self::self_signed(ca_params(name, serial))
    }

    pub(crate) fn self_signed(params: CertificateParams) -> Self {
        Self::self_signed_with(params, Arc::new(KeyPair::generate().unwrap()))
    }

    pub(crate) fn self_signed_with(params: CertificateParams, key: Arc<KeyPair>) -> Self {
        let der = params.self_signed(&*key).unwrap().der().clone();
        Self { params, key, der }
    }

    /// A CA below this one.
    pub(crate) fn issue_ca(&self, params: CertificateParams) -> Self {
        self.issue_ca_with(params, Arc::new(KeyPair::generate().unwrap()))
    }

    pub(crate) fn issue_ca_with(&self, params: CertificateParams, key: Arc<KeyPair>) -> Self {
        let issuer = Issuer::from_params(&self.params, &*self.key);
        let der = params.signed_by(&*key, &issuer).unwrap().der().clone();
        Self { params, key, der }
    }

    pub(crate) fn issue(&self, name: &str, serial: u64) -> TestDevice {
        self.issue_device(device_params(name, serial))
    }

    pub(crate) fn issue_device(&self, params: CertificateParams) -> TestDevice {
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_params(&self.params, &*self.key);
        let der = params.signed_by(&key, &issuer).unwrap().der().clone();
        TestDevice { key, der }
    }

    pub(crate) fn certificate(&self) -> CaCertificate {
        CaCertificate::from_der(&self.der).unwrap()
    }

    pub(crate) fn pem(&self) -> String {
        crate::ca::certificate::to_pem(&self.der)
    }

    /// Register it as a device CA.
    pub(crate) fn register(&self, registry: &Registry) -> Effects {
        registry
            .insert(
                Arc::new(self.certificate()),
                Purpose::Device,
                Status::Active,
            )
            .unwrap()
    }
}

pub(crate) fn registry(same_key: SameKey) -> Registry {
    Registry::new(same_key, algorithms())
}

pub(crate) fn now() -> UnixTime {
    UnixTime::now()
}

pub(crate) fn now_secs() -> i64 {
    i64::try_from(UnixTime::now().as_secs()).unwrap()
}
