//! The vendor's unmodified SDKs against the broker: every operation, and HTTPS with a private CA.

use rcgen::CustomExtension;
use serde_json::json;

use crate::harness::Broker;
use crate::harness::configured::{Configured, Transport};
use crate::harness::pki::{Ca, ca_params, new_key};
use crate::harness::sdk::{Caller, Sdk, Style, Trust};
use crate::life_cycle;

#[test]
fn python_sdk_runs_every_operation() {
    every_operation(&[Style::Sync]);
}

#[test]
fn asynchronous_python_sdk_runs_every_operation() {
    every_operation(&[Style::Async]);
}

#[test]
fn python_sdk_that_signs_with_version_1_runs_every_operation() {
    every_operation(&[Style::SyncV1]);
}

#[test]
fn older_python_core_runs_every_operation() {
    every_operation(&[Style::CoreGet, Style::CorePost]);
}

#[test]
fn older_python_core_runs_every_operation_with_forms_and_typed_requests() {
    every_operation(&[Style::CoreForm, Style::CoreTyped]);
}

#[test]
fn older_node_core_runs_every_operation() {
    every_operation(&[Style::PopGet, Style::PopPost]);
}

#[test]
fn node_client_runs_every_operation() {
    every_operation(&[Style::OpenApi]);
}

fn every_operation(styles: &[Style]) {
    let broker = Broker::start();
    for style in styles {
        life_cycle::run(&broker, &Sdk::new(&broker, *style));
    }
}

#[test]
fn every_operation_works_over_https_with_a_private_ca() {
    let broker = https();
    for (style, trust) in [
        (Style::Sync, Trust::Config),
        (Style::Async, Trust::Runtime),
        (Style::CoreForm, Trust::Config),
        (Style::PopPost, Trust::Config),
        (Style::OpenApi, Trust::Config),
    ] {
        let mut sdk = Sdk::new(&broker, style);
        sdk.trust = trust;
        life_cycle::run(&broker, &sdk);
    }
}

#[test]
fn private_ca_is_trusted_where_the_sdk_is_told_of_it_and_nowhere_else() {
    let broker = https();
    let page = json!({"PageNo": "1", "PageSize": "1"});
    for (style, places) in [
        (Style::Sync, &[Trust::Config, Trust::Runtime][..]),
        (Style::Async, &[Trust::Config, Trust::Runtime]),
        (Style::SyncV1, &[Trust::Config, Trust::Runtime]),
        (Style::CorePost, &[Trust::Config]),
        (Style::PopGet, &[Trust::Config]),
        (Style::OpenApi, &[Trust::Config]),
    ] {
        for place in places {
            let mut sdk = Sdk::new(&broker, style);
            sdk.trust = *place;
            sdk.ok("ListCaCertificate", page.clone());
        }
        let mut sdk = Sdk::new(&broker, style);
        sdk.trust = Trust::Default;
        let error = sdk.error("ListCaCertificate", page.clone());
        assert!(error["status"].is_null(), "{style:?}: {error}");
        let message = error["message"].as_str().unwrap().to_ascii_lowercase();
        assert!(message.contains("certificate"), "{style:?}: {error}");
    }
}

/// The newer SDKs send certificates in the query, however long they are.
#[test]
fn certificates_of_16_kib_fit_into_the_query() {
    let broker = Broker::start();
    // Each of them, as in a certificate: in base64 few of them are written as three.
    let octets: Vec<_> = (0..15_000).map(|n| (n * 31 % 256) as u8).collect();
    for style in [
        Style::Sync,
        Style::Async,
        Style::CoreGet,
        Style::PopGet,
        Style::OpenApi,
    ] {
        let mut params = ca_params("with a long extension");
        let extension = CustomExtension::from_oid_content(&[2, 999, 1], octets.clone());
        params.custom_extensions = vec![extension];
        let ca = Ca::self_signed(params, &new_key());
        assert!(ca.pem().len() > 20_000);
        let sdk = Sdk::new(&broker, style);
        let code = sdk.ok("GetRegisterCode", json!({}))["RegisterCode"].clone();
        let arguments = json!({
            "CaName": "long",
            "CaContent": ca.pem(),
            "VerificationContent": ca.verification(code.as_str().unwrap()),
        });
        sdk.ok("RegisterCaCertificate", arguments);
        let shown = sdk.ok("GetCaCertificate", json!({"Sn": ca.sn()}));
        assert_eq!(shown["Data"]["CaContent"], ca.pem());
    }
}

/// Longer than any request line may be: the refusal is one that the SDKs can read.
#[test]
fn request_that_is_too_long_is_called_so() {
    let broker = Broker::start();
    for style in [Style::Sync, Style::CoreGet, Style::PopGet, Style::OpenApi] {
        let sdk = Sdk::new(&broker, style);
        for octets in [33_000, 66_000] {
            let long = "x".repeat(octets);
            let error = sdk.error("GetCaCertificate", json!({"Sn": long}));
            assert_eq!(
                error["code"], "RequestHeadTooLarge",
                "{style:?} {octets}: {error:.300}"
            );
        }
    }
}

#[test]
fn endpoint_that_is_a_url_is_signed_and_taken_as_it_is() {
    let broker = Broker::start();
    for style in [Style::Sync, Style::Async] {
        let mut sdk = Sdk::new(&broker, style);
        sdk.endpoint = format!("http://{}", broker.admin);
        sdk.ok("GetRegisterCode", json!({}));
    }
}

fn https() -> Broker {
    let configured = Configured {
        transport: Transport::Https,
        ..Configured::default()
    };
    configured.start()
}
