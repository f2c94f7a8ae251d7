//! Registering a CA: the proof of possession, and everything that can be wrong.

use std::process::Command;

use rcgen::{CertificateParams, IsCa};
use time::{Duration, OffsetDateTime};

use crate::harness::Broker;
use crate::harness::api::Answer;
use crate::harness::pki::{Ca, ca_params, new_key};
use crate::harness::process::Process;

#[test]
fn registered_ca_admits_its_devices_at_once() {
    let broker = Broker::start();
    let api = broker.api();
    let ca = Ca::root("a CA of the customer's");
    let device = ca.device("device");
    let client = broker.client(&device, crate::harness::Version::V13);
    client.refused_with(rustls::AlertDescription::UnknownCA);
    assert_eq!(api.register("customer", &ca), ca.sn());
    assert!(broker.admits(&device));

    let shown = api.call("GetCaCertificate", &[("Sn", &ca.sn())]).ok();
    let shown = &shown["Data"];
    assert_eq!(shown["CaName"], "customer");
    assert_eq!(shown["Status"], "1");
    assert_eq!(shown["Sn"], ca.sn().as_str());
    assert_eq!(shown["CaContent"].as_str().unwrap().trim(), ca.pem().trim());
    for field in ["ValidBegin", "ValidEnd"] {
        let text = shown[field].as_str().expect("a number that is a string");
        assert_eq!(text.len(), 13, "milliseconds: {text}");
    }
}

#[test]
fn register_code_is_good_once() {
    let broker = Broker::start();
    let api = broker.api();
    let code = api.register_code();
    assert_ne!(code, api.register_code());
    let register = |ca: &Ca, code: &str| {
        api.call(
            "RegisterCaCertificate",
            &[
                ("CaName", "customer"),
                ("CaContent", &ca.pem()),
                ("VerificationContent", &ca.verification(code)),
            ],
        )
    };
    register(&Ca::root("one"), &code).ok();
    assert_eq!(register(&Ca::root("two"), &code).code(), "RegisterCodeUsed");
    let never = register(&Ca::root("three"), "13274673-8f90-4630-bea1-9cccb25756ad");
    assert_eq!(never.code(), "RegisterCodeError");
}

#[test]
fn verification_signed_by_another_key_is_refused() {
    let broker = Broker::start();
    let api = broker.api();
    let (ca, other) = (Ca::root("the same name"), Ca::root("the same name"));
    let answer = api.call(
        "RegisterCaCertificate",
        &[
            ("CaName", "not mine"),
            ("CaContent", &ca.pem()),
            (
                "VerificationContent",
                &other.verification(&api.register_code()),
            ),
        ],
    );
    assert_eq!(answer.code(), "CertificateContentError", "{answer:?}");
    assert!(!broker.admits(&ca.device("device")));
}

/// CA certificates that must not be registered, each with the words that tell why.
fn unfit_cas() -> Vec<(String, &'static str)> {
    let of = |change: fn(&mut CertificateParams)| {
        let mut params = ca_params("unfit");
        change(&mut params);
        Ca::self_signed(params, &new_key()).pem()
    };
    let good = Ca::root("good");
    let two = format!("{0}{0}", good.pem());
    let with_key = format!("{}{}", good.pem(), good.key_pem);
    let half = &good.der[..good.der.len() - 1];
    let more = [&good.der[..], &[0]].concat();
    vec![
        (
            of(|params| params.is_ca = IsCa::ExplicitNoCa),
            "not a CA certificate: basicConstraints must have CA:TRUE",
        ),
        (
            of(|params| params.is_ca = IsCa::NoCa),
            "not a CA certificate: basicConstraints must have CA:TRUE",
        ),
        (
            of(|params| params.key_usages = vec![rcgen::KeyUsagePurpose::CrlSign]),
            "keyCertSign must be set",
        ),
        (
            of(|params| params.not_after = OffsetDateTime::now_utc() - Duration::minutes(1)),
            "CA certificate: it is outside its validity period",
        ),
        (
            of(|params| params.not_before = OffsetDateTime::now_utc() + Duration::minutes(9)),
            "CA certificate: it is outside its validity period",
        ),
        (
            openssl_ca("rsa:1024", "-sha256", Signed::Itself),
            "RSA keys must have 2048 to 8192 bits, this has 1024",
        ),
        (
            openssl_ca("rsa:2048", "-sha1", Signed::ByAnother),
            "signed with MD5 or SHA-1; use SHA-256 or better",
        ),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(),
            "the certificate cannot be read",
        ),
        (
            crate::harness::pki::pem(half),
            "the certificate cannot be read",
        ),
        (crate::harness::pki::pem(&more), "octets follow it"),
        (
            "no PEM".to_owned(),
            "must begin with -----BEGIN CERTIFICATE-----",
        ),
        (good.pem()[..200].to_owned(), "the PEM cannot be read"),
        (two, "more than one certificate"),
        (with_key, "never a key"),
    ]
}

/// By whom a certificate is signed.
enum Signed {
    Itself,
    ByAnother,
}

/// A CA certificate as OpenSSL's command makes it. rcgen makes none that is weak.
fn openssl_ca(key: &str, digest: &str, signed: Signed) -> String {
    let directory = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new("openssl");
        command.args(arguments).current_dir(&directory);
        let finished = Process::spawn(&mut command).finish();
        assert_eq!(finished.code, 0, "{arguments:?}: {finished:?}");
    };
    let request = |key: &str, name: &str| {
        let subject = format!("/CN={name}");
        let (file, certificate) = (format!("{name}.key"), format!("{name}.pem"));
        run(&[
            "req",
            "-x509",
            "-newkey",
            key,
            "-nodes",
            "-keyout",
            &file,
            "-out",
            &certificate,
            "-subj",
            &subject,
            "-days",
            "1",
            digest,
        ]);
    };
    request(key, "weak");
    if let Signed::ByAnother = signed {
        request("rsa:2048", "above");
        run(&[
            "req", "-new", "-key", "weak.key", "-subj", "/CN=weak", "-out", "weak.csr",
        ]);
        std::fs::write(directory.path().join("ext"), "basicConstraints=CA:TRUE").unwrap();
        run(&[
            "x509",
            "-req",
            "-in",
            "weak.csr",
            "-CA",
            "above.pem",
            "-CAkey",
            "above.key",
            "-set_serial",
            "77",
            "-days",
            "1",
            digest,
            "-extfile",
            "ext",
            "-out",
            "weak.pem",
        ]);
    }
    std::fs::read_to_string(directory.path().join("weak.pem")).unwrap()
}

const CONTENT: &str = "Certificate content error, please check ca/verification certificate content. BasicConstraints extension should be set to true in CA certificate.";

/// What is refused, and the words that follow the vendor's.
#[track_caller]
fn assert_content_error(answer: &Answer, words: &str) {
    assert_eq!(answer.status, 500, "{answer:?}");
    assert_eq!(answer.code(), "CertificateContentError", "{answer:?}");
    let body = answer.json();
    let message = body["Message"].as_str().unwrap();
    let own = message.strip_prefix(CONTENT).expect(message);
    assert!(own.contains(words), "{words}: {message}");
}

#[test]
fn unfit_ca_is_refused_with_the_reason_and_uses_no_code_up() {
    let broker = Broker::start();
    let api = broker.api();
    let ca = Ca::root("a CA");
    let verification = ca.verification(&api.register_code());
    let before = api.list().len();
    let register = |ca: &str| {
        let all = [
            ("CaName", "unfit"),
            ("CaContent", ca),
            ("VerificationContent", &verification),
        ];
        api.call("RegisterCaCertificate", &all)
    };
    for (unfit, words) in unfit_cas() {
        assert_content_error(&register(&unfit), words);
    }
    assert_eq!(api.list().len(), before);
    register(&ca.pem()).ok();
}

#[test]
fn proof_that_proves_nothing_is_refused_with_the_reason_and_uses_no_code_up() {
    let broker = Broker::start();
    let api = broker.api();
    let ca = Ca::root("a CA");
    let code = api.register_code();
    let register = |verification: &str| {
        let all = [
            ("CaName", "unproved"),
            ("CaContent", &ca.pem()),
            ("VerificationContent", verification),
        ];
        api.call("RegisterCaCertificate", &all)
    };
    let of = |change: fn(&mut CertificateParams)| {
        let mut params = ca_params(&code);
        change(&mut params);
        ca.issue_ca(params, &new_key()).pem()
    };
    let good = ca.verification(&code);
    for (proof, words) in [
        (
            Ca::self_signed(ca_params(&code), &new_key()).pem(),
            "not signed by the key of the CA certificate",
        ),
        (
            of(|params| params.not_after = OffsetDateTime::now_utc() - Duration::minutes(1)),
            "verification certificate: it is outside its validity period",
        ),
        (
            of(|params| params.not_before = OffsetDateTime::now_utc() + Duration::minutes(9)),
            "verification certificate: it is outside its validity period",
        ),
        (
            of(|params| params.distinguished_name = rcgen::DistinguishedName::new()),
            "verification certificate: it has no common name",
        ),
        (format!("{good}{good}"), "more than one certificate"),
        (code.clone(), "must begin with -----BEGIN CERTIFICATE-----"),
    ] {
        assert_content_error(&register(&proof), words);
    }
    for not_the_code in [
        code.to_uppercase(),
        format!("{code} "),
        code[1..].to_owned(),
    ] {
        let answer = register(&ca.verification(&not_the_code));
        assert_eq!(answer.code(), "RegisterCodeError", "{answer:?}");
        let message = "Register code error in verification certificate.";
        assert_eq!(answer.json()["Message"], message);
    }
    register(&good).ok();
}

#[test]
fn serial_number_that_is_registered_is_refused_until_its_ca_is_deleted() {
    let broker = Broker::start();
    let api = broker.api();
    let mut params = ca_params("the first");
    params.serial_number = Some(rcgen::SerialNumber::from(0x00f2_6900_ba87_u64));
    let first = Ca::self_signed(params.clone(), &new_key());
    let sn = api.register("first", &first);
    let second = Ca::self_signed(params, &new_key());
    let answer = api.try_register("second", &second);
    assert_eq!(answer.code(), "SnNotUnique", "{answer:?}");
    assert_eq!(answer.json()["Message"], "Sn is not unique in global.");
    api.call("DeleteCaCertificate", &[("Sn", &sn)]).ok();
    assert_eq!(api.register("second", &second), sn);
}

#[test]
fn broken_parameters_are_refused_with_a_code() {
    let broker = Broker::start();
    let api = broker.api();
    let ca = Ca::root("a CA");
    let verification = ca.verification(&api.register_code());
    let register = |name: &str, ca: &str, verification: &str| {
        let all = [
            ("CaName", name),
            ("CaContent", ca),
            ("VerificationContent", verification),
        ];
        api.call("RegisterCaCertificate", &all)
    };
    let two = format!("{0}{0}", ca.pem());
    for broken in [
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "no PEM",
        &two,
    ] {
        let answer = register("broken", broken, &verification);
        assert_eq!(answer.code(), "CertificateContentError", "{broken}");
        let answer = register("broken", &ca.pem(), broken);
        assert_eq!(answer.code(), "CertificateContentError", "{broken}");
    }
    for (name, ca, verification) in [
        ("", ca.pem(), verification.clone()),
        ("name", String::new(), verification.clone()),
        ("name", ca.pem(), String::new()),
    ] {
        let answer = register(name, &ca, &verification);
        assert_eq!(answer.code(), "ParameterFieldCheckFailed", "{answer:?}");
    }
    assert_eq!(
        api.call("RegisterCaCertificate", &[]).code(),
        "ParameterFieldCheckFailed"
    );
    register("after all", &ca.pem(), &verification).ok();
}

#[test]
fn unknown_serial_and_instance_have_their_codes() {
    let broker = Broker::start();
    let api = broker.api();
    for action in [
        "GetCaCertificate",
        "InactivateCaCertificate",
        "ActiveCaCertificate",
    ] {
        let answer = api.call(action, &[("Sn", "0123456789")]);
        assert_eq!(answer.code(), "FindCaBySnError", "{action}");
        let other = api.request(action, &[("MqttInstanceId", "post-cn-other"), ("Sn", "01")]);
        assert_eq!(api.send(&other).code(), "MqttInstanceNotFound", "{action}");
        let missing = api.call(action, &[]);
        assert_eq!(missing.code(), "ParameterFieldCheckFailed", "{action}");
    }
}
