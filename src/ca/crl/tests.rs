//! What is read as a list, and what is not.

mod gate;

use proptest::prelude::*;
use rcgen::KeyUsagePurpose;

use super::*;
use crate::testing::crl::{
    CERTIFICATE_ISSUER, CRL_NUMBER, Critical, DELTA, INDIRECT, ONLY_ATTRIBUTES, ONLY_CAS,
    ONLY_DEVICES, TestCrl, entry, extension, reason, tlv, verify,
};
use crate::testing::{TestCa, ca_params, now_secs};

fn has(crl: &Crl, serial: u64) -> bool {
    let serial = CertSerial::from_be_bytes(&serial.to_be_bytes()).unwrap();
    crl.find(&serial).is_some()
}

#[test]
fn list_of_a_registered_ca_is_read_whole() {
    let ca = TestCa::root("ca", 1);
    let crl = TestCrl::revoking(7, &[0xf2, 3])
        .with_entry(entry(9, &[reason(1)]))
        .verified(&ca)
        .unwrap();
    assert_eq!(crl.issuer(), ca.certificate().key_id());
    assert_eq!(crl.number().to_string(), "7");
    assert_eq!(crl.revoked().len(), 3);
    assert!(has(&crl, 0xf2) && has(&crl, 3) && has(&crl, 9) && !has(&crl, 4));
    let found = crl.find(&"09".parse().unwrap()).unwrap();
    assert_eq!(
        found.to_string(),
        "CRL 7 of its issuer, reason keyCompromise"
    );
    assert_eq!((found.since - now_secs() + 3600).abs() / 60, 0);
    assert!(!crl.has_expired(now_secs()) && crl.has_expired(crl.next_update()));
    let none = TestCrl::new(1).verified(&ca).unwrap();
    assert!(none.revoked().is_empty());
}

#[test]
fn list_made_by_rcgen_is_read() {
    use rcgen::{CertificateRevocationListParams, Issuer, KeyIdMethod, RevokedCertParams};
    let ca = TestCa::root("ca", 1);
    let now = time::OffsetDateTime::now_utc();
    let params = CertificateRevocationListParams {
        this_update: now,
        next_update: now + time::Duration::days(1),
        crl_number: rcgen::SerialNumber::from(300_u64),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: rcgen::SerialNumber::from(0xf269_u64),
            revocation_time: now,
            reason_code: Some(rcgen::RevocationReason::KeyCompromise),
            invalidity_date: Some(now),
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let crl = params
        .signed_by(&Issuer::from_params(&ca.params, &*ca.key))
        .unwrap();
    let crl = verify(crl.der(), &[&ca]).unwrap();
    assert!(has(&crl, 0xf269));
    assert_eq!(crl.number().to_string(), "300");
}

#[test]
fn der_pem_and_base64_are_one_list() {
    use base64::Engine as _;
    let ca = TestCa::root("ca", 1);
    let der = TestCrl::revoking(1, &[5]).der(&ca);
    let text = base64::engine::general_purpose::STANDARD.encode(&der);
    let lines: Vec<_> = text
        .as_bytes()
        .chunks(64)
        .map(String::from_utf8_lossy)
        .collect();
    let pem = format!(
        "-----BEGIN X509 CRL-----\n{}\n-----END X509 CRL-----\n",
        lines.join("\n")
    );
    for content in [
        der.as_slice(),
        pem.as_bytes(),
        format!("some words\n{pem}").as_bytes(),
        pem.replace('\n', "\r\n").as_bytes(),
        text.as_bytes(),
        format!("{}\n", lines.join("\n")).as_bytes(),
    ] {
        assert_eq!(to_der(content).unwrap(), der);
    }
    let certificate = ca.pem();
    for bad in [
        "",
        "words",
        "AAAA",
        &certificate,
        &format!("{pem}{pem}"),
        &format!("{pem}{certificate}"),
        &pem.replace("END", "END OF"),
    ] {
        let refused = to_der(bad.as_bytes());
        assert!(
            matches!(refused, Err(CrlError::Encoding(_))),
            "{bad:.40} {refused:?}"
        );
    }
}

#[test]
fn cut_or_lengthened_list_is_refused() {
    let ca = TestCa::root("ca", 1);
    let der = TestCrl::revoking(1, &[5, 6]).der(&ca);
    assert!(verify(&der, &[&ca]).is_ok());
    for end in 0..der.len() {
        assert!(verify(&der[..end], &[&ca]).is_err(), "cut at {end}");
    }
    assert!(verify(&[der.as_slice(), &[0]].concat(), &[&ca]).is_err());
}

#[test]
fn only_the_key_of_a_registered_ca_of_the_issuers_name_counts() {
    let (ca, other) = (TestCa::root("ca", 1), TestCa::root("other", 2));
    let namesake = TestCa::root("ca", 3);
    let der = TestCrl::revoking(1, &[5]).der(&ca);
    let not_signed = |registered: &[&TestCa]| {
        let refused = verify(&der, registered);
        matches!(refused, Err(CrlError::NotSigned { issuer }) if issuer.contains("CN=ca"))
    };
    assert!(not_signed(&[]) && not_signed(&[&other]) && not_signed(&[&namesake]));
    let found = verify(&der, &[&other, &namesake, &ca]).unwrap();
    assert_eq!(found.issuer(), ca.certificate().key_id());
}

#[test]
fn ca_that_may_not_sign_lists_signs_none() {
    let mut params = ca_params("ca", 1);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca = TestCa::self_signed(params);
    let refused = TestCrl::new(1).verified(&ca);
    assert!(
        matches!(refused, Err(CrlError::NoCrlSign { .. })),
        "{refused:?}"
    );
    // Without the extension it may.
    let mut params = ca_params("ca", 1);
    params.key_usages = Vec::new();
    assert!(
        TestCrl::new(1)
            .verified(&TestCa::self_signed(params))
            .is_ok()
    );
}

#[test]
fn what_is_not_understood_is_refused_with_the_reason() {
    let ca = TestCa::root("ca", 1);
    let with = |extension| TestCrl::new(1).with_extension(extension);
    let of_entry = |extension| TestCrl::new(1).with_entry(entry(5, &[extension]));
    let mut unnumbered = TestCrl::new(1);
    unnumbered.extensions = vec![extension(&[0x55, 0x1d, 35], Critical::No, &tlv(0x30, &[]))];
    let mut first_version = TestCrl::new(1);
    (first_version.version, first_version.extensions) = (Vec::new(), Vec::new());
    let mut endless = TestCrl::new(1);
    endless.next_update = None;
    let unknown = &[0x2a, 0x03, 0x04];
    let with_serial = |octets: &[u8]| {
        let mut entry = entry(5, &[]);
        entry.splice(2..5, tlv(0x02, octets));
        entry[1] = u8::try_from(entry.len() - 2).unwrap();
        TestCrl::new(1).with_entry(entry)
    };
    for (crl, error) in [
        (
            with(extension(DELTA, Critical::Yes, &tlv(0x02, &[1]))),
            "delta",
        ),
        (with(extension(unknown, Critical::Yes, &[5, 0])), "critical"),
        (
            of_entry(extension(unknown, Critical::Yes, &[5, 0])),
            "critical",
        ),
        (
            of_entry(extension(
                CERTIFICATE_ISSUER,
                Critical::Yes,
                &tlv(0x30, &[]),
            )),
            "indirect",
        ),
        (of_entry(reason(8)), "removeFromCRL"),
        (of_entry(reason(7)), "cannot be read"),
        (
            with(extension(CRL_NUMBER, Critical::No, &tlv(0x02, &[2]))),
            "CRL number",
        ),
        (
            with(extension(&[0x55, 0x1d, 20, 1], Critical::Yes, &[5, 0])),
            "critical",
        ),
        (unnumbered, "CRL number"),
        (first_version, "not of version 2"),
        (endless, "cannot be read"),
        (TestCrl::new(1).until(now_secs() - 60), "next update"),
        (TestCrl::new(1).until(now_secs() - 3600), "next update"),
        (with_serial(&[]), "serial number"),
        (with_serial(&[0x11; 21]), "serial number"),
        (TestCrl::new(1).with_entry(tlv(0x30, &[])), "serial number"),
        (
            TestCrl::new(1).for_points(&["http://a"], &[INDIRECT]),
            "indirect",
        ),
        (
            TestCrl::new(1).for_points(&["http://a"], &[ONLY_ATTRIBUTES]),
            "cannot be read",
        ),
        (
            TestCrl::new(1).for_points(&["http://a"], &[ONLY_DEVICES, ONLY_CAS]),
            "distribution",
        ),
        (
            TestCrl::new(1).for_points(&[], &[ONLY_DEVICES]),
            "distribution",
        ),
        (
            TestCrl::new(1).for_points(&[&"a".repeat(3000)], &[]),
            "distribution",
        ),
    ] {
        let refused = crl
            .verified(&ca)
            .map(|_| ())
            .map_err(|error| error.to_string());
        assert!(
            refused.as_ref().is_err_and(|text| text.contains(error)),
            "{error}: {refused:?}"
        );
    }
    // What need not be understood is passed over.
    let with = with(extension(unknown, Critical::No, &[5, 0]));
    assert!(with.verified(&ca).is_ok());
    assert!(
        of_entry(extension(unknown, Critical::No, &[5, 0]))
            .verified(&ca)
            .is_ok()
    );
}

#[test]
fn entries_are_bounded() {
    let ca = TestCa::root("ca", 1);
    let crl = |entries: u64| TestCrl::revoking(1, &(1..=entries).collect::<Vec<_>>());
    assert!(crl(1_000).verified(&ca).is_ok());
    let refused = crl(1_001).verified(&ca).map(|_| ());
    assert_eq!(refused, Err(CrlError::TooManyEntries(1_000)));
}

#[test]
fn part_of_the_certificates_is_part_of_the_identity() {
    let ca = TestCa::root("ca", 1);
    let id = |crl: TestCrl| crl.verified(&ca).unwrap().id();
    let (a, b) = ("http://a/1.crl", "http://a/2.crl");
    let whole = id(TestCrl::new(1));
    let ids = [
        whole,
        id(TestCrl::new(1).for_points(&[a], &[])),
        id(TestCrl::new(1).for_points(&[b], &[])),
        id(TestCrl::new(1).for_points(&[a, b], &[])),
        id(TestCrl::new(1).for_points(&[a], &[ONLY_DEVICES])),
        id(TestCrl::new(1).for_points(&[a], &[ONLY_CAS])),
    ];
    let distinct: std::collections::HashSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len());
    assert_eq!(
        whole,
        id(TestCrl::revoking(9, &[1])),
        "issues are of one list"
    );
    assert_eq!(
        id(TestCrl::new(1).for_points(&[a, b], &[])),
        id(TestCrl::new(2).for_points(&[b, a], &[]))
    );
    let other = TestCa::root("ca", 1);
    assert_ne!(whole, TestCrl::new(1).verified(&other).unwrap().id());
}

#[test]
fn numbers_are_compared_as_numbers() {
    let of = |octets: &[u8]| CrlNumber::from_be_bytes(octets).unwrap();
    assert!(of(&[1, 0]) > of(&[0xff]) && of(&[0, 0, 7]) == of(&[7]));
    assert_eq!(of(&[1, 0]).to_string(), "256");
    assert!(of(&[0x7f; 20]).to_string().starts_with("0x7f7f"));
    assert!(
        CrlNumber::from_be_bytes(&[0x7f; 21]).is_err() && CrlNumber::from_be_bytes(&[]).is_err()
    );
}

proptest! {
    /// Whatever one octet is changed to, it is refused: also where it is of the signature alone.
    #[test]
    fn changed_list_is_never_taken(place in any::<proptest::sample::Index>(), flip in 1_u8..) {
        static MADE: std::sync::LazyLock<(TestCa, Vec<u8>)> = std::sync::LazyLock::new(|| {
            let ca = TestCa::root("ca", 1);
            let der = TestCrl::revoking(1, &[5, 6, 7]).der(&ca);
            (ca, der)
        });
        let (ca, der) = &*MADE;
        let mut changed = der.clone();
        changed[place.index(der.len())] ^= flip;
        prop_assert!(verify(&changed, &[ca]).is_err());
    }

    #[test]
    fn octets_never_make_the_reader_panic(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = to_der(&octets).map(|der| UnverifiedCrl::read(&der).map(drop));
        let _ = UnverifiedCrl::read(&tlv(0x30, &octets)).map(drop);
    }
}
