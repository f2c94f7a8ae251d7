//! What every client of the API is put through: all thirteen operations, from a register code to
//! the deletion of the CA, with devices that come and go.

use rmqtt_codec::v5::DisconnectReasonCode;
use rustls::AlertDescription;
use serde_json::{Value, json};

use crate::harness::pki::{self, Ca};
use crate::harness::sdk::Caller;
use crate::harness::{Broker, Version, wait_until};

/// All of Latin 1, what RFC 3986 reserves, what one encoder or another leaves raw, more than 16
/// bits, and what looks encoded already.
const NAME: &str = "müller & söhne +/=*~'()!?#%20 证书 \u{1f511}";

/// Run all thirteen operations through `caller`; leaves nothing registered.
pub fn run(broker: &Broker, caller: &impl Caller) {
    let ca = Ca::root("a CA of the customer's");
    let sn = register(broker, caller, &ca);
    cas(broker, caller, &ca, &sn);
    devices(broker, caller, &ca, &sn);
}

fn register(broker: &Broker, caller: &impl Caller, ca: &Ca) -> String {
    let code = caller.ok("GetRegisterCode", json!({}));
    has_request_id(&code);
    let code = code["RegisterCode"].as_str().unwrap();
    assert!(code.len() <= 64, "fits into a common name: {code}");
    let arguments = json!({
        "CaName": NAME,
        "CaContent": ca.pem(),
        "VerificationContent": ca.verification(code),
    });
    let registered = caller.ok("RegisterCaCertificate", arguments);
    has_request_id(&registered);
    let sn = registered["Sn"].as_str().unwrap().to_owned();
    assert_eq!(sn, ca.sn());
    assert!(broker.admits(&ca.device("first")));
    let shown = caller.ok("GetCaCertificate", json!({"Sn": sn}))["Data"].clone();
    assert_eq!(shown["RegistrationCode"], code);
    sn
}

fn cas(broker: &Broker, caller: &impl Caller, ca: &Ca, sn: &str) {
    let device = ca.device("device");
    let by_sn = json!({"Sn": sn});
    let shown = caller.ok("GetCaCertificate", by_sn.clone());
    has_request_id(&shown);
    let shown = &shown["Data"];
    assert_eq!(shown["CaName"], NAME);
    assert_eq!(shown["Sn"], sn);
    assert_eq!(shown["Status"], "1");
    assert_eq!(shown["CaContent"], ca.pem(), "with its line breaks");
    let verification = shown["VerificationContent"].as_str().unwrap();
    assert!(verification.starts_with("-----BEGIN CERTIFICATE-----\n"));
    validity_is_in_milliseconds(shown);

    let page = |number: usize| json!({"PageNo": number.to_string(), "PageSize": "1"});
    let first = caller.ok("ListCaCertificate", page(1))["Data"].clone();
    assert_eq!(first["PageNo"], 1, "a number");
    assert_eq!(first["PageSize"], 1);
    let total = first["Total"].as_u64().unwrap() as usize;
    let last = caller.ok("ListCaCertificate", page(total))["Data"].clone();
    assert_eq!(last["CaCertificateVOS"], json!([shown]), "the newest");
    let beyond = caller.ok("ListCaCertificate", page(total + 1))["Data"].clone();
    assert_eq!(beyond["CaCertificateVOS"], json!([]));
    assert_eq!(beyond["Total"], total);

    let live = broker.client(&device, Version::V13).connect().unwrap();
    for status in ["0", "0", "1", "1"] {
        let operation = match status {
            "0" => "InactivateCaCertificate",
            _ => "ActiveCaCertificate",
        };
        let changed = caller.ok(operation, by_sn.clone());
        has_request_id(&changed);
        assert_eq!(changed["Sn"], sn);
        assert!(changed.get("Code").is_none(), "{changed}");
        let shown = caller.ok("GetCaCertificate", by_sn.clone());
        assert_eq!(shown["Data"]["Status"], status);
        assert_eq!(broker.admits(&device), status == "1", "{operation}");
    }
    let end = live.wait_disconnect();
    assert_eq!(end, DisconnectReasonCode::AdministrativeAction);
    let upper = json!({"Sn": sn.to_uppercase()});
    let shown = caller.ok("GetCaCertificate", upper);
    assert_eq!(shown["Data"]["Sn"], sn, "found and told as it is written");
}

fn devices(broker: &Broker, caller: &impl Caller, ca: &Ca, sn: &str) {
    let device = ca.device("thermometer");
    let device_sn = pki::sn(&device.chain[0]);
    let named = json!({"CaSn": sn, "DeviceSn": device_sn});
    let unseen = caller.error("GetDeviceCertificate", named.clone());
    assert_eq!(unseen["code"], "FindDeviceBySnError", "{unseen}");
    assert!(broker.admits(&device));
    let shown = wait_until("it is recorded", || {
        let shown = caller.call("GetDeviceCertificate", named.clone());
        shown["ok"].get("Data").cloned()
    });
    assert_eq!(shown["DeviceName"], "thermometer");
    assert_eq!(shown["DeviceSn"], device_sn.as_str());
    assert_eq!(shown["CaSn"], sn);
    assert_eq!(shown["Status"], "1");
    assert_eq!(shown["DeviceContent"], pki::pem(&device.chain[0]));
    validity_is_in_milliseconds(&shown);

    let page = json!({"PageNo": "1", "PageSize": "100"});
    let all = caller.ok("ListDeviceCertificate", page.clone());
    has_request_id(&all);
    let mut by_ca = page;
    by_ca["CaSn"] = json!(sn);
    let of_ca = caller.ok("ListDeviceCertificateByCaSn", by_ca.clone());
    has_request_id(&of_ca);
    for listed in [&all["Data"], &of_ca["Data"]] {
        let devices = listed["DeviceCertificateVOS"].as_array().unwrap();
        assert!(devices.contains(&shown), "{listed}");
        assert_eq!(listed["Total"], devices.len(), "{listed}");
        assert_eq!(listed["PageSize"], 100);
    }

    let live = broker.client(&device, Version::V13).connect().unwrap();
    for (operation, status) in [
        ("InactivateDeviceCertificate", "0"),
        ("InactivateDeviceCertificate", "0"),
        ("ActiveDeviceCertificate", "1"),
    ] {
        let changed = caller.ok(operation, named.clone());
        has_request_id(&changed);
        assert_eq!(changed["DeviceSn"], device_sn.as_str());
        let shown = caller.ok("GetDeviceCertificate", named.clone());
        assert_eq!(shown["Data"]["Status"], status);
        assert_eq!(broker.admits(&device), status == "1", "{operation}");
        assert!(broker.admits(&ca.device("another")), "the CA is active");
    }
    let end = live.wait_disconnect();
    assert_eq!(end, DisconnectReasonCode::AdministrativeAction);

    let deleted = caller.ok("DeleteDeviceCertificate", named.clone());
    assert_eq!(deleted["DeviceSn"], device_sn.as_str());
    let gone = caller.error("GetDeviceCertificate", named);
    assert_eq!(gone["code"], "FindDeviceBySnError", "{gone}");

    let live = broker.client(&device, Version::V13).connect().unwrap();
    let deleted = caller.ok("DeleteCaCertificate", json!({"Sn": sn}));
    has_request_id(&deleted);
    assert_eq!(deleted["Sn"], sn);
    live.wait_end();
    let client = broker.client(&device, Version::V13);
    client.refused_with(AlertDescription::UnknownCA);
    let gone = caller.error("ListDeviceCertificateByCaSn", by_ca);
    assert_eq!(gone["code"], "FindCaBySnError", "{gone}");
}

/// An upper-case UUID.
#[track_caller]
pub fn has_request_id(body: &Value) {
    let id = body["RequestId"].as_str().unwrap_or_default();
    assert!(is_request_id(id), "{body}");
}

/// Whether it is an upper-case UUID.
pub fn is_request_id(id: &str) -> bool {
    let digits = |part: &str| part.bytes().all(|c| matches!(c, b'0'..=b'9' | b'A'..=b'F'));
    let lengths: Vec<_> = id.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12] && id.split('-').all(digits)
}

#[track_caller]
fn validity_is_in_milliseconds(shown: &Value) {
    for field in ["ValidBegin", "ValidEnd"] {
        let text = shown[field].as_str().expect("a number that is a string");
        assert!(text.len() == 13 && text.ends_with("000"), "{text}");
    }
}
