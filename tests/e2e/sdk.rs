//! The vendor's unmodified Python SDK, and requests that are wrong on purpose.

use rmqtt_codec::v5::DisconnectReasonCode;
use rustls::AlertDescription;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use crate::harness::pki::{self, Ca};
use crate::harness::sdk::{Sdk, Style};
use crate::harness::{Broker, Version};

#[test]
fn sdk_runs_every_operation() {
    all_operations(Style::Sync);
}

#[test]
fn sdk_runs_every_operation_asynchronously() {
    all_operations(Style::Async);
}

fn all_operations(style: Style) {
    let broker = Broker::start();
    let sdk = Sdk::new(&broker, style);
    let ca = Ca::root("a CA of the customer's");
    let device = ca.device("device");

    let code = sdk.ok("GetRegisterCode", json!({}));
    let code = code["RegisterCode"].as_str().unwrap();
    let registered = sdk.ok(
        "RegisterCaCertificate",
        json!({
            "ca_name": "müller & söhne +/=*~'()!",
            "ca_content": ca.pem(),
            "verification_content": ca.verification(code),
        }),
    );
    let sn = registered["Sn"].as_str().unwrap().to_owned();
    assert_eq!(sn, ca.sn());
    assert!(broker.admits(&device));

    let by_sn = json!({"sn": sn});
    let answers = sdk.calls(&[
        ("GetCaCertificate", by_sn.clone()),
        (
            "ListCaCertificate",
            json!({"page_no": "1", "page_size": "100"}),
        ),
        ("InactivateCaCertificate", by_sn.clone()),
        ("InactivateCaCertificate", by_sn.clone()),
        ("GetCaCertificate", by_sn.clone()),
    ]);
    let ok: Vec<_> = answers.iter().map(|answer| &answer["ok"]).collect();
    assert!(
        ok.iter().all(|body| body["RequestId"].is_string()),
        "{answers:?}"
    );
    assert_eq!(ok[0]["Data"]["CaName"], "müller & söhne +/=*~'()!");
    assert_eq!(ok[0]["Data"]["Status"], "1");
    assert_eq!(ok[0]["Data"]["RegistrationCode"], code);
    assert_eq!(ok[1]["Data"]["Total"], 4);
    assert_eq!(
        ok[1]["Data"]["CaCertificateVOS"].as_array().unwrap().len(),
        4
    );
    assert_eq!(ok[2]["Sn"], sn.as_str());
    assert_eq!(ok[4]["Data"]["Status"], "0");
    assert!(!broker.admits(&device));

    let answers = sdk.calls(&[
        ("ActiveCaCertificate", by_sn.clone()),
        ("GetCaCertificate", by_sn),
    ]);
    assert_eq!(answers[0]["ok"]["Sn"], sn.as_str(), "{answers:?}");
    assert_eq!(answers[1]["ok"]["Data"]["Status"], "1");
    assert!(broker.admits(&device));
}

#[test]
fn sdk_runs_every_device_operation() {
    device_operations(Style::Sync);
}

#[test]
fn sdk_runs_every_device_operation_asynchronously() {
    device_operations(Style::Async);
}

fn device_operations(style: Style) {
    let broker = Broker::start();
    let sdk = Sdk::new(&broker, style);
    let ca = Ca::root("a CA of the customer's");
    let ca_sn = broker.api().register("customer", &ca);
    let device = ca.device("thermometer");
    let device_sn = pki::sn(&device.chain[0]);
    let named = json!({"ca_sn": ca_sn, "device_sn": device_sn});
    let by_ca = json!({"ca_sn": ca_sn, "page_no": "1", "page_size": "10"});
    let unseen = sdk.error("GetDeviceCertificate", named.clone());
    assert_eq!(unseen["code"], "FindDeviceBySnError", "{unseen}");

    assert!(broker.admits(&device), "recorded at its first connection");
    let shown = sdk.ok("GetDeviceCertificate", named.clone())["Data"].clone();
    assert_eq!(shown["DeviceName"], "thermometer");
    assert_eq!(shown["DeviceSn"], device_sn.as_str());
    assert_eq!(shown["CaSn"], ca_sn.as_str());
    assert_eq!(shown["Status"], "1");
    let page = json!({"page_no": "1", "page_size": "10"});
    let all = sdk.ok("ListDeviceCertificate", page);
    assert_eq!(all["Data"]["DeviceCertificateVOS"], json!([shown]));
    let all = sdk.ok("ListDeviceCertificateByCaSn", by_ca.clone());
    assert_eq!(all["Data"]["Total"], 1);

    let live = broker.client(&device, Version::V13).connect().unwrap();
    let answer = sdk.ok("InactivateDeviceCertificate", named.clone());
    assert_eq!(answer["DeviceSn"], device_sn.as_str());
    assert_eq!(
        live.wait_disconnect(),
        DisconnectReasonCode::AdministrativeAction
    );
    let client = broker.client(&device, Version::V13);
    client.refused_with(AlertDescription::AccessDenied);
    assert!(broker.admits(&ca.device("another")), "the CA is active");
    sdk.ok("ActiveDeviceCertificate", named.clone());
    assert!(broker.admits(&device));

    sdk.ok("DeleteDeviceCertificate", named.clone());
    let gone = sdk.error("GetDeviceCertificate", named);
    assert_eq!(gone["code"], "FindDeviceBySnError", "{gone}");
    assert!(broker.admits(&device), "recorded again");

    let live = broker.client(&device, Version::V13).connect().unwrap();
    sdk.ok("DeleteCaCertificate", json!({"sn": ca_sn}));
    live.wait_end();
    let client = broker.client(&device, Version::V13);
    client.refused_with(AlertDescription::UnknownCA);
    let gone = sdk.error("ListDeviceCertificateByCaSn", by_ca);
    assert_eq!(gone["code"], "FindCaBySnError", "{gone}");
}

#[test]
fn sdk_sees_the_documented_errors() {
    let broker = Broker::start();
    let sdk = Sdk::new(&broker, Style::Sync);
    let error = sdk.error("InactivateCaCertificate", json!({"sn": "0123456789"}));
    assert_eq!(error["code"], "FindCaBySnError", "{error}");
    assert_eq!(error["status"], 500);
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("Failed to find the CA by the SN"),
        "{error}"
    );
    let error = sdk.error("GetCaCertificate", json!({}));
    assert_eq!(error["code"], "ParameterFieldCheckFailed", "{error}");
    assert_eq!(error["status"], 400);
}

#[test]
fn sdk_with_wrong_secret_is_refused() {
    let broker = Broker::start();
    let sn = broker.api().sn_of("ca-a");
    for style in [Style::Sync, Style::Async] {
        let mut sdk = Sdk::new(&broker, style);
        sdk.api.secret = "wrong".to_owned();
        let error = sdk.error("InactivateCaCertificate", json!({"sn": sn}));
        assert_eq!(error["code"], "SignatureDoesNotMatch", "{error}");
        let mut sdk = Sdk::new(&broker, style);
        sdk.api.key_id = "nobody".to_owned();
        let error = sdk.error("InactivateCaCertificate", json!({"sn": sn}));
        assert_eq!(error["code"], "InvalidAccessKeyId.NotFound", "{error}");
    }
    assert_eq!(broker.api().status(&sn), "1");
}

#[test]
fn replayed_request_is_refused() {
    let broker = Broker::start();
    let api = broker.api();
    let (request, sn) = inactivation(&broker);
    assert_eq!(api.send(&request).status, 200);
    api.activate(&sn);
    assert_eq!(api.send(&request).code(), "SignatureNonceUsed");
    assert_eq!(api.status(&sn), "1");
}

#[test]
fn stale_request_is_refused() {
    let broker = Broker::start();
    let api = broker.api();
    for minutes in [-16, 16] {
        let (mut request, sn) = inactivation(&broker);
        let date = OffsetDateTime::now_utc() + Duration::minutes(minutes);
        let format =
            time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
        request.date = date.format(&format).unwrap();
        assert_eq!(api.send(&request).code(), "InvalidTimeStamp.Expired");
        assert_eq!(api.status(&sn), "1");
    }
    let (mut request, _) = inactivation(&broker);
    request.date = "yesterday".to_owned();
    assert_eq!(api.send(&request).code(), "InvalidTimeStamp.Format");
}

#[test]
fn tampered_request_is_refused() {
    let broker = Broker::start();
    let api = broker.api();
    let (mut request, sn) = inactivation(&broker);
    request.tampered = Some("&Sn=01".to_owned());
    assert_eq!(api.send(&request).status, 400);
    let (mut request, _) = inactivation(&broker);
    request.tampered = Some("&Extra=1".to_owned());
    let answer = api.send(&request);
    assert_eq!(answer.code(), "SignatureDoesNotMatch");
    let message = answer.json()["Message"].as_str().unwrap().to_owned();
    assert!(
        message.starts_with(
            "Specified signature is not matched with our calculation. server string to sign is:"
        ),
        "{message}"
    );
    assert_eq!(api.status(&sn), "1");
}

#[test]
fn unsigned_request_is_refused() {
    let broker = Broker::start();
    let (_, sn) = inactivation(&broker);
    let host = broker.admin;
    for headers in [
        "",
        "authorization: ACS3-HMAC-SHA256\r\n",
        "authorization: Basic YTpi\r\n",
        "authorization: ACS3-HMAC-SHA256 Credential=,SignedHeaders=,Signature=\r\n",
    ] {
        let raw = format!(
            "POST /?MqttInstanceId=post-cn-dev00001&Sn={sn} HTTP/1.1\r\nhost: {host}\r\nx-acs-action: InactivateCaCertificate\r\nx-acs-version: 2020-04-20\r\n{headers}content-length: 0\r\nconnection: close\r\n\r\n"
        );
        let answer = crate::harness::api::exchange(host, &raw).unwrap();
        assert!((400..500).contains(&answer.status), "{answer:?}");
        assert!(answer.json()["Code"].is_string(), "{answer:?}");
    }
    assert_eq!(broker.api().status(&sn), "1");
}

/// A request to inactivate `ca-a` that is right so far, and its serial number.
fn inactivation(broker: &Broker) -> (crate::harness::api::Request, String) {
    let api = broker.api();
    let sn = api.sn_of("ca-a");
    let params = [
        ("MqttInstanceId", crate::harness::broker::INSTANCE),
        ("Sn", &sn),
    ];
    (api.request("InactivateCaCertificate", &params), sn)
}

#[test]
fn every_answer_is_a_json_object() {
    let broker = Broker::start();
    let api = broker.api();
    let answer = api.call("NoSuchAction", &[]);
    assert!(answer.json()["Code"].is_string(), "{answer:?}");
    let object = |value: Value| value.is_object();
    for (method, path) in [
        ("PUT", "/"),
        ("DELETE", "/"),
        ("GET", "/nowhere"),
        ("POST", "/x"),
    ] {
        let raw = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        let answer = crate::harness::api::exchange(broker.admin, &raw).unwrap();
        assert!(answer.status >= 400, "{answer:?}");
        assert!(object(answer.json()), "{method} {path}");
    }
}
