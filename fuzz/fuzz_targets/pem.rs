//! Certificates that somebody wants to register: what is accepted reads back as the same, in every
//! way to write it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::ca::certificate::{CaCertificate, VerificationCertificate, to_pem};
use portcullis::ca::id::CertSerial;

fn ca(text: &str) {
    let Ok(ca) = CaCertificate::from_pem(text) else {
        assert!(CaCertificate::from_pem(text).is_err());
        return;
    };
    let same = |other: &CaCertificate| {
        assert_eq!((other.id(), other.key_id()), (ca.id(), ca.key_id()));
        assert_eq!(other.serial(), ca.serial());
        assert_eq!(other.der(), ca.der());
    };
    let pem = ca.to_pem();
    same(&CaCertificate::from_pem(&pem).expect("its own PEM"));
    same(&CaCertificate::from_der(ca.der()).expect("its own DER"));
    // As clients that escape line ends send it, and as editors of other systems write it.
    same(&CaCertificate::from_pem(&pem.replace('\n', "\\n")).expect("escaped line ends"));
    same(&CaCertificate::from_pem(&pem.replace('\n', "\\r\\n")).expect("escaped line ends"));
    same(&CaCertificate::from_pem(&pem.replace('\n', "\r\n")).expect("CRLF"));
    assert!(CaCertificate::from_pem(&format!("{pem}{pem}")).is_err());
    assert!(CaCertificate::from_pem(&format!("{text}\n{pem}")).is_err());
    assert!(CaCertificate::from_der(&ca.der()[1..]).is_err());
    assert!(CaCertificate::from_der(&[ca.der(), &[0][..]].concat()).is_err());

    let serial: CertSerial = ca.serial().to_string().parse().expect("its own serial");
    assert_eq!(&serial, ca.serial());
    assert!(ca.not_before() <= ca.not_after());
    assert!(ca.is_current(ca.not_before()) && ca.is_current(ca.not_after()));
    assert!(!ca.is_current(ca.not_after().saturating_add(1)));
    assert!(!ca.subject().is_empty());
    assert!(!ca.subject_text().chars().any(char::is_control));
}

fn verification(text: &str) {
    let Ok(proof) = VerificationCertificate::from_pem(text) else {
        assert!(VerificationCertificate::from_pem(text).is_err());
        return;
    };
    let name = proof.common_name();
    assert!(!name.is_empty() && name.len() <= 255 && !name.chars().any(char::is_control));
    let pem = to_pem(proof.der());
    let again = VerificationCertificate::from_pem(&pem).expect("its own PEM");
    assert_eq!((again.common_name(), again.der()), (name, proof.der()));
    assert!(VerificationCertificate::from_pem(&format!("{pem}{pem}")).is_err());
}

fuzz_target!(|octets: &[u8]| {
    if let Ok(text) = std::str::from_utf8(octets) {
        ca(text);
        verification(text);
    }
    // The same as DER, which the fuzzer changes more easily.
    let text = to_pem(octets);
    assert_eq!(
        CaCertificate::from_pem(&text).map(|ca| ca.id()).ok(),
        CaCertificate::from_der(octets).map(|ca| ca.id()).ok()
    );
    ca(&text);
    verification(&text);
});
