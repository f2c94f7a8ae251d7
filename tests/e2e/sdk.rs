//! The vendor's unmodified SDKs against the broker: every operation, and HTTPS with a private CA.

use serde_json::json;

use crate::harness::Broker;
use crate::harness::configured::{Configured, Transport};
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
