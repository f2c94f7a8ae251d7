//! What is read as a CA certificate, and what proves the possession of its key.

use rcgen::{IsCa, KeyUsagePurpose};

use crate::ca::certificate::{CaCertificate, VerificationCertificate};
use crate::ca::error::CertificateError;
use crate::testing::{TestCa, ca_params};

#[test]
fn certificates_that_are_no_cas_are_told_why() {
    let root = TestCa::root("root", 1);
    let mut params = ca_params("leaf", 2);
    params.is_ca = IsCa::NoCa;
    let leaf = TestCa::self_signed(params);
    assert_eq!(
        CaCertificate::from_der(&leaf.der).unwrap_err(),
        CertificateError::NotCa
    );
    let mut params = ca_params("no-sign", 2);
    params.key_usages = vec![KeyUsagePurpose::CrlSign];
    let no_sign = TestCa::self_signed(params);
    assert_eq!(
        CaCertificate::from_der(&no_sign.der).unwrap_err(),
        CertificateError::NoKeyCertSign
    );
    let two = format!("{}{}", root.pem(), root.pem());
    let key = format!("{}{}", root.pem(), root.key.serialize_pem());
    for bad in [
        "",
        "x",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\nMIIB",
        &two,
        &key,
    ] {
        assert!(CaCertificate::from_pem(bad).is_err(), "{bad:?}");
    }
    let spelled_out = root.pem().replace('\n', "\\n");
    let with_returns = root.pem().replace('\n', r"\r\n");
    for text in [&spelled_out, &with_returns, &format!("{spelled_out}\n")] {
        let read = CaCertificate::from_pem(text).unwrap();
        assert_eq!(read.id(), root.certificate().id(), "{text:?}");
    }
    assert!(CaCertificate::from_pem(&root.pem().replace('\n', "\r\n")).is_ok());
}

#[test]
fn verification_certificate_proves_only_the_key_that_signed_it() {
    let (ca, other) = (TestCa::root("ca", 1), TestCa::root("ca", 2));
    let proof = ca.issue("the-code", 3);
    let pem = crate::ca::certificate::to_pem(&proof.der);
    let parsed = VerificationCertificate::from_pem(&pem).unwrap();
    assert_eq!(parsed.common_name(), "the-code");
    let algorithms = crate::tls::server_config::algorithms();
    assert!(ca.certificate().has_signed(parsed.der(), algorithms));
    assert!(!other.certificate().has_signed(parsed.der(), algorithms));
}
