//! What the vendor's SDKs show of a request that is refused before it is a call: keys, signatures,
//! dates, nonces.

use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use crate::harness::Broker;
use crate::harness::configured::Configured;
use crate::harness::sdk::{Caller, Sdk, Style};
use crate::life_cycle::is_request_id;

#[test]
fn wrong_secret_is_called_so_by_every_sdk() {
    let broker = Broker::start();
    let sn = broker.api().sn_of("ca-a");
    for style in Style::ALL {
        let mut sdk = Sdk::new(&broker, style);
        sdk.api.secret = "wrong".to_owned();
        for (operation, arguments) in [
            // A typed request of the older core sends the first with GET, the second with POST.
            ("GetCaCertificate", json!({"Sn": sn})),
            ("InactivateCaCertificate", json!({"Sn": sn})),
            (
                "InactivateCaCertificate",
                json!({"Sn": "ä :*~'()!+/=\n%3A"}),
            ),
        ] {
            let error = sdk.error(operation, arguments);
            assert_eq!(error["status"], 400, "{style:?}: {error}");
            assert!(is_request_id(error["request_id"].as_str().unwrap()));
            let message = error["message"].as_str().unwrap();
            match style {
                // It has compared our string to sign with its own, octet by octet.
                Style::CoreTyped => {
                    assert_eq!(error["code"], "InvalidAccessKeySecret", "{error}");
                }
                _ => {
                    assert_eq!(error["code"], "SignatureDoesNotMatch", "{style:?}");
                    let text = "Specified signature is not matched with our calculation. \
                                server string to sign is:";
                    assert!(message.contains(text), "{style:?}: {error}");
                }
            }
        }
    }
    assert_eq!(broker.api().status(&sn), "1");
}

#[test]
fn unknown_key_is_called_so_by_every_sdk() {
    let broker = Broker::start();
    let sn = broker.api().sn_of("ca-a");
    for style in Style::ALL {
        let mut sdk = Sdk::new(&broker, style);
        sdk.api.key_id = "nobody".to_owned();
        let error = sdk.error("InactivateCaCertificate", json!({"Sn": sn}));
        is_refusal(&error, "InvalidAccessKeyId.NotFound", 404);
    }
    assert_eq!(broker.api().status(&sn), "1");
}

#[test]
fn date_that_is_wrong_is_called_so() {
    let broker = Broker::start();
    let sn = broker.api().sn_of("ca-a");
    let format =
        time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    let at = |minutes| {
        let date = OffsetDateTime::now_utc() + Duration::minutes(minutes);
        date.format(&format).unwrap()
    };
    for (date, code) in [
        (at(-16), "InvalidTimeStamp.Expired"),
        (at(16), "InvalidTimeStamp.Expired"),
        ("yesterday".to_owned(), "InvalidTimeStamp.Format"),
        ("2026-11-24 08:39:42".to_owned(), "InvalidTimeStamp.Format"),
    ] {
        for error in inactivations(&broker, &sn, "x-acs-date", "Timestamp", &date, 1) {
            is_refusal(&error["error"], code, 400);
        }
    }
    assert_eq!(broker.api().status(&sn), "1");
    for good in [at(-14), at(14)] {
        for answer in inactivations(&broker, &sn, "x-acs-date", "Timestamp", &good, 1) {
            assert!(answer["ok"].is_object(), "{good}: {answer}");
        }
    }
}

#[test]
fn nonce_that_was_used_is_called_so() {
    let broker = Broker::start();
    let sn = broker.api().sn_of("ca-a");
    let (header, param) = ("x-acs-signature-nonce", "SignatureNonce");
    let mut answers = inactivations(&broker, &sn, header, param, "the same", 2);
    // One key, one memory of nonces: only the very first of all is good.
    let first = answers.remove(0);
    assert!(first["ok"].is_object(), "{first}");
    for answer in answers {
        is_refusal(&answer["error"], "SignatureNonceUsed", 400);
    }
}

/// Inactivations by SDKs that let their caller say what is otherwise theirs to say: a header in
/// signature 3, a parameter in signature 1.
fn inactivations(
    broker: &Broker,
    sn: &str,
    header: &str,
    param: &str,
    value: &str,
    times: usize,
) -> Vec<Value> {
    let mut outcomes = Vec::new();
    for style in [Style::Sync, Style::Async, Style::OpenApi, Style::PopPost] {
        let mut sdk = Sdk::new(broker, style);
        let mut arguments = json!({"Sn": sn});
        match style {
            Style::PopPost => arguments[param] = json!(value),
            _ => {
                sdk.headers.insert(header.to_owned(), json!(value));
            }
        }
        for _ in 0..times {
            outcomes.push(sdk.call("InactivateCaCertificate", arguments.clone()));
        }
    }
    outcomes
}

#[test]
fn older_signature_that_is_switched_off_is_refused() {
    let configured = Configured {
        admin: "signature_v1 = false",
        ..Configured::default()
    };
    let broker = configured.start();
    for style in Style::ALL {
        let sdk = Sdk::new(&broker, style);
        match style {
            Style::Sync | Style::Async | Style::OpenApi => {
                sdk.ok("GetRegisterCode", json!({}));
            }
            _ => {
                let error = sdk.error("GetRegisterCode", json!({}));
                is_refusal(&error, "InvalidSignatureMethod", 400);
            }
        }
    }
}

#[test]
fn format_that_is_not_json_is_refused() {
    let broker = Broker::start();
    for style in [Style::OpenApi, Style::PopGet, Style::PopPost] {
        let sdk = Sdk::new(&broker, style);
        let error = sdk.error("GetRegisterCode", json!({"Format": "XML"}));
        is_refusal(&error, "InvalidParameter.Format", 400);
    }
}

#[track_caller]
fn is_refusal(error: &Value, code: &str, status: u16) {
    assert_eq!(error["code"], code, "{error}");
    assert_eq!(error["status"], status, "{error}");
    let id = error["request_id"].as_str().unwrap_or_default();
    assert!(is_request_id(id), "{error}");
}
