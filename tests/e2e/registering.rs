//! Registering a CA: the proof of possession, and everything that can be wrong.

use rcgen::IsCa;

use crate::harness::Broker;
use crate::harness::pki::{Ca, ca_params, new_key};

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

#[test]
fn certificate_that_is_no_ca_is_refused() {
    let broker = Broker::start();
    let mut params = ca_params("no CA at all");
    params.is_ca = IsCa::ExplicitNoCa;
    let answer = broker
        .api()
        .try_register("no-ca", &Ca::self_signed(params, &new_key()));
    assert_eq!(answer.code(), "CertificateContentError", "{answer:?}");

    let mut params = ca_params("signs no certificates");
    params.key_usages = vec![rcgen::KeyUsagePurpose::CrlSign];
    let answer = broker
        .api()
        .try_register("no-key-cert-sign", &Ca::self_signed(params, &new_key()));
    assert_eq!(answer.code(), "CertificateContentError", "{answer:?}");
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
