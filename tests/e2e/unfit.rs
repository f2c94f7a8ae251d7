//! Certificates that must not be registered, and proofs that prove nothing.

use rcgen::{
    CertificateParams, IsCa, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256, PublicKeyData,
    SerialNumber, SignatureAlgorithm, SigningKey,
};
use time::{Duration, OffsetDateTime};

use crate::harness::pki::{Ca, ca_params, new_key, pem};

/// CA certificates in PEM that are not fit, each with what is wrong.
pub fn cas() -> Vec<(&'static str, String)> {
    let of = |change: fn(&mut CertificateParams)| {
        let mut params = ca_params("unfit");
        change(&mut params);
        Ca::self_signed(params, &new_key()).pem()
    };
    let good = Ca::root("good");
    let key = good.key_pem.clone();
    let mut changed = good.der.to_vec();
    changed.truncate(changed.len() - 1);
    vec![
        ("no CA", of(|params| params.is_ca = IsCa::ExplicitNoCa)),
        (
            "no basicConstraints",
            of(|params| params.is_ca = IsCa::NoCa),
        ),
        (
            "no keyCertSign",
            of(|params| params.key_usages = vec![KeyUsagePurpose::CrlSign]),
        ),
        (
            "expired",
            of(|params| params.not_after = OffsetDateTime::now_utc() - Duration::minutes(1)),
        ),
        (
            "not valid yet",
            of(|params| params.not_before = OffsetDateTime::now_utc() + Duration::minutes(1)),
        ),
        (
            "no subject",
            of(|params| params.distinguished_name = rcgen::DistinguishedName::new()),
        ),
        ("weak key", weak_key()),
        ("weak signature", weak_signature()),
        ("no PEM", "no PEM at all".to_owned()),
        ("half a PEM", good.pem()[..200].to_owned()),
        (
            "PEM without its end",
            good.pem().replace("-----END", "----"),
        ),
        ("no base64", good.pem().replacen('M', "*", 1)),
        ("half a certificate", pem(&changed)),
        (
            "octets after the certificate",
            pem(&[&good.der[..], b"x"].concat()),
        ),
        ("two certificates", format!("{0}{0}", good.pem())),
        ("a key", key.clone()),
        ("a key after the certificate", good.pem() + &key),
        ("larger than any", pem(&vec![0x30; 20_000])),
    ]
}

/// Verification certificates in PEM that do not prove to hold the key of `ca`.
pub fn verifications(ca: &Ca, code: &str) -> Vec<(&'static str, String)> {
    let good = ca.verification(code);
    let mut expired = ca_params(code);
    expired.not_after = OffsetDateTime::now_utc() - Duration::minutes(1);
    let mut early = ca_params(code);
    early.not_before = OffsetDateTime::now_utc() + Duration::minutes(1);
    let mut nameless = ca_params(code);
    nameless.distinguished_name = rcgen::DistinguishedName::new();
    let signed = |params| ca.issue_ca(params, &new_key()).pem();
    let twin = Ca::root("a CA of the customer's");
    vec![
        ("signed by a CA of the same name", twin.verification(code)),
        (
            "signed by itself",
            Ca::self_signed(ca_params(code), &new_key()).pem(),
        ),
        ("expired", signed(expired)),
        ("not valid yet", signed(early)),
        ("no common name", signed(nameless)),
        ("no PEM", code.to_owned()),
        ("half a PEM", good[..200].to_owned()),
        ("two certificates", format!("{good}{good}")),
    ]
}

/// Another CA of this serial number.
pub fn with_serial(sn: &str) -> Ca {
    let mut params = ca_params("of the same serial number");
    params.serial_number = Some(SerialNumber::from_slice(&hex::decode(sn).unwrap()));
    Ca::self_signed(params, &new_key())
}

/// An RSA key of 1024 bits. It is a number that nobody knows the factors of, and it signs
/// nothing that verifies; a CA certificate's own signature does not count.
struct WeakKey(Vec<u8>);

impl WeakKey {
    fn new() -> Self {
        // SEQUENCE { INTEGER of 128 octets after a zero, INTEGER 65537 }
        let mut der = vec![0x30, 0x81, 0x89, 0x02, 0x81, 0x81, 0x00];
        der.extend([0xc5; 128]);
        der.extend([0x02, 0x03, 0x01, 0x00, 0x01]);
        Self(der)
    }
}

impl PublicKeyData for WeakKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_RSA_SHA256
    }
}

impl SigningKey for WeakKey {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(vec![0x5a; 128])
    }
}

fn weak_key() -> String {
    let certificate = ca_params("unfit").self_signed(&WeakKey::new()).unwrap();
    certificate.pem()
}

/// An intermediate that says it was signed with SHA-1.
fn weak_signature() -> String {
    let issuer = rcgen::Issuer::new(ca_params("issuer"), WeakKey::new());
    let key = KeyPair::generate().unwrap();
    let certificate = ca_params("unfit").signed_by(&key, &issuer).unwrap();
    // sha256WithRSAEncryption, and sha1WithRSAEncryption: 1.2.840.113549.1.1.11 and .5
    let oid = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];
    let mut der = certificate.der().to_vec();
    let places: Vec<_> = (0..der.len() - oid.len())
        .filter(|at| der[*at..].starts_with(&oid))
        .collect();
    assert_eq!(places.len(), 2, "inside and outside of what is signed");
    for place in places {
        der[place + oid.len() - 1] = 0x05;
    }
    pem(&der)
}
