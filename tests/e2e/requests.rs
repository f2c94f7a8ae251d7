//! Requests as other clients may send them: either method, parameters in the query and in the
//! body, either signature, HTTP and HTTPS; what is signed and how it is written; and what every
//! answer has.
//!
//! What is known to bite those who stand in for the vendor's endpoint, and what shows that it
//! does not here:
//!
//! 1. all parameters in the query of a POST, either method, query and form merged:
//!    `every_operation_works_with_either_method_and_place` and those of `sdk.rs`
//! 2. signed headers differ: `signature_covers_the_headers_that_it_names`
//! 3. encodings differ: `query_is_signed_as_it_is_meant_and_not_as_it_is_written`
//! 4. an unsigned content type: `unsigned_content_type_of_an_empty_body_is_no_matter`
//! 5. answers without JSON: `every_answer_is_a_json_object`
//! 6. error fields that are no strings: `fields_of_refusals_are_strings` and the same test
//! 7. `SignatureDoesNotMatch` and its colon: `wrong_secret_is_called_so_by_every_sdk`
//! 8. `Code` in refusals only: `every_answer_is_a_json_object`, and `Caller::ok` everywhere
//! 9. the header for throttling: `throttling.rs`, and that no other refusal has it:
//!    `fields_of_refusals_are_strings`
//! 10. statuses: `sdk_errors.rs`

use serde_json::{Value, json};

use crate::harness::Broker;
use crate::harness::api::Answer;
use crate::harness::configured::{Configured, Transport};
use crate::harness::pki::Ca;
use crate::harness::sdk::Caller;
use crate::harness::wire::{Place, Signature, Wire};
use crate::life_cycle::{self, is_request_id};

#[test]
fn every_operation_works_with_either_method_and_place() {
    every_operation(&Broker::start());
}

#[test]
fn every_operation_works_with_either_method_and_place_over_https() {
    let configured = Configured {
        transport: Transport::Https,
        ..Configured::default()
    };
    every_operation(&configured.start());
}

fn every_operation(broker: &Broker) {
    for signature in [Signature::V3, Signature::V1] {
        for method in ["GET", "POST"] {
            for place in [Place::Query, Place::Form, Place::Both] {
                let wire = wire(broker, signature, method, place);
                life_cycle::run(broker, &wire);
            }
        }
    }
}

fn wire(broker: &Broker, signature: Signature, method: &'static str, place: Place) -> Wire {
    Wire {
        door: broker.door(),
        api: broker.api(),
        signature,
        method,
        place,
    }
}

fn post(broker: &Broker, signature: Signature) -> Wire {
    wire(broker, signature, "POST", Place::Query)
}

#[test]
fn signature_covers_the_headers_that_it_names() {
    let broker = Broker::start();
    let wire = post(&broker, Signature::V3);
    // Not named in the signature: whatever is between may add or change them.
    let mut request = wire.request("GetRegisterCode", &json!({}));
    for (name, value) in [
        ("accept", "*/*"),
        ("accept-encoding", "gzip, deflate"),
        ("user-agent", "something else"),
        ("x-forwarded-for", "192.0.2.1"),
    ] {
        request.add(name, value);
    }
    wire.door.send(&request).ok();
    // Named: the value counts.
    let signed = &[("accept", "application/json"), ("user-agent", " spaced  ")];
    let request = wire.sign_v3("GetRegisterCode", instance(), signed);
    wire.door.send(&request).ok();
    for (name, _) in signed {
        let mut request = wire.sign_v3("GetRegisterCode", instance(), signed);
        *request.header(name) = "other".to_owned();
        let answer = wire.door.send(&request);
        assert_eq!(answer.code(), "SignatureDoesNotMatch", "{name}");
    }
}

#[test]
fn query_is_signed_as_it_is_meant_and_not_as_it_is_written() {
    let broker = Broker::start();
    let name = "a b*~()!'+/=ä";
    for signature in [Signature::V3, Signature::V1] {
        let wire = post(&broker, signature);
        for written in [
            "a+b*~()!'%2B/=%C3%A4",
            "a%20b%2a%7e%28%29%21%27%2b%2f%3d%c3%a4",
            "%61+%62%2A~()!%27%2B/%3D%C3%A4",
        ] {
            let ca = Ca::root("a CA of the customer's");
            let code = wire.api.register_code();
            let arguments = json!({
                "CaName": name,
                "CaContent": ca.pem(),
                "VerificationContent": ca.verification(&code),
            });
            let mut request = wire.request("RegisterCaCertificate", &arguments);
            let encoded = "a%20b%2A~%28%29%21%27%2B%2F%3D%C3%A4";
            assert!(request.query.contains(encoded), "{}", request.query);
            let pairs = request.query.replace(encoded, written);
            // Backwards, and not as the names are sorted.
            let pairs: Vec<_> = pairs.split('&').rev().collect();
            request.query = pairs.join("&");
            let sn = wire.door.send(&request).ok()["Sn"].clone();
            let shown = wire.ok("GetCaCertificate", json!({"Sn": sn}));
            assert_eq!(shown["Data"]["CaName"], name, "{written}");
        }
    }
}

#[test]
fn unsigned_content_type_of_an_empty_body_is_no_matter() {
    let broker = Broker::start();
    for signature in [Signature::V3, Signature::V1] {
        let wire = post(&broker, signature);
        for content_type in ["application/octet-stream", "application/json", "nonsense"] {
            let mut request = wire.request("GetRegisterCode", &json!({}));
            request.add("content-type", content_type);
            wire.door.send(&request).ok();
        }
    }
}

#[test]
fn every_answer_is_a_json_object() {
    let broker = Broker::start();
    let send = |text: &str| broker.door().exchange(text).unwrap();
    let end = "host: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    for method in ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"] {
        for path in ["/", "/live", "/metrics", "/nowhere", "/?Action=x"] {
            is_a_refusal(&send(&format!("{method} {path} HTTP/1.1\r\n{end}")), path);
        }
    }
    for path in [
        "/",
        "/nowhere",
        "/x?Action=x",
        "//",
        "/%2e%2e/",
        "/live/",
        "/?%zz",
        "/?%ff",
    ] {
        for method in ["GET", "POST"] {
            is_a_refusal(&send(&format!("{method} {path} HTTP/1.1\r\n{end}")), path);
        }
    }
    let long = "a".repeat(70_000);
    let many = "x: y\r\n".repeat(300);
    for nonsense in [
        "\0\0\0\0\r\n\r\n".to_owned(),
        "GET / HTTP/9.9\r\n\r\n".to_owned(),
        format!("GET nowhere HTTP/1.1\r\n{end}"),
        "GET / HTTP/1.1\r\nno field\r\n\r\n".to_owned(),
        "G\u{e4}T / HTTP/1.1\r\n\r\n".to_owned(),
        "POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n".to_owned(),
        "POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n".to_owned(),
        "POST / HTTP/1.1\r\ntransfer-encoding: nonsense\r\n\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\n{many}{end}"),
        format!("GET / HTTP/1.1\r\nx: {long}\r\n{end}"),
        format!("GET /?{long} HTTP/1.1\r\n{end}"),
    ] {
        is_a_refusal(&send(&nonsense), &format!("{nonsense:.60?}"));
    }
}

#[test]
fn fields_of_refusals_are_strings() {
    let broker = Broker::start();
    let wire = post(&broker, Signature::V3);
    for (operation, arguments) in [
        ("GetCaCertificate", json!({})),
        ("GetCaCertificate", json!({"Sn": "0123456789"})),
        ("GetRegisterCode", json!({"MqttInstanceId": "nowhere"})),
        ("SendMessage", json!({})),
        ("NoSuchOperation", json!({})),
    ] {
        let answer = wire.door.send(&wire.request(operation, &arguments));
        is_a_refusal(&answer, operation);
        let header = "x-acs-retry-after";
        assert!(!answer.headers.contains(header), "{answer:?}");
    }
}

#[track_caller]
fn is_a_refusal(answer: &Answer, what: &str) {
    assert!(answer.status >= 400, "{what}: {answer:?}");
    let body = answer.json();
    for field in ["Code", "Message", "RequestId", "HostId"] {
        let text = body[field].as_str().unwrap_or_default();
        assert!(!text.is_empty(), "{field} of {what}: {answer:?}");
    }
    let recommend = &body["Recommend"];
    assert!(recommend.is_null() || recommend.is_string(), "{body}");
    assert!(is_request_id(body["RequestId"].as_str().unwrap()), "{body}");
    let is_json = "content-type: application/json; charset=utf-8";
    assert!(answer.headers.contains(is_json), "{what}: {answer:?}");
    assert!(answer.text.starts_with('{'), "no mark of an encoding");
}

#[test]
fn answers_in_xml_are_refused() {
    let broker = Broker::start();
    for signature in [Signature::V3, Signature::V1] {
        for place in [Place::Query, Place::Form] {
            let wire = wire(&broker, signature, "POST", place);
            for format in ["JSON", "json", ""] {
                wire.ok("GetRegisterCode", json!({"Format": format}));
            }
            for format in ["XML", "xml", "RAW"] {
                let error = wire.error("GetRegisterCode", json!({"Format": format}));
                assert_eq!(error["code"], "InvalidParameter.Format", "{error}");
                assert_eq!(error["status"], 400);
            }
        }
    }
}

#[test]
fn page_numbers_and_sizes_have_limits() {
    let broker = Broker::start();
    let wire = post(&broker, Signature::V3);
    let ca = broker.api().sn_of("ca-a");
    for operation in [
        "ListCaCertificate",
        "ListDeviceCertificate",
        "ListDeviceCertificateByCaSn",
    ] {
        let page = |number: &str, size: &str| {
            wire.call(
                operation,
                json!({"PageNo": number, "PageSize": size, "CaSn": ca}),
            )
        };
        for (number, size) in [("1", "1"), ("1", "100"), ("999999999", "100")] {
            let listed = page(number, size);
            let data = &listed["ok"]["Data"];
            assert_eq!(data["PageNo"].to_string(), number, "{listed}");
            assert_eq!(data["PageSize"].to_string(), size, "{listed}");
            assert!(data["Total"].is_u64(), "{listed}");
        }
        let long = "9".repeat(100);
        for bad in [
            "", "0", "-1", "+1", "1.0", "1e1", " 1", "1 ", "0x1", "\u{ff11}", "one", &long,
        ] {
            for (number, size) in [(bad, "10"), ("1", bad)] {
                let refused = page(number, size);
                let code = &refused["error"]["code"];
                assert_eq!(code, "ParameterFieldCheckFailed", "{operation} {bad:?}");
                assert_eq!(refused["error"]["status"], 400);
            }
        }
        let refused = page("1", "101");
        assert_eq!(refused["error"]["code"], "ParameterFieldCheckFailed");
    }
}

#[test]
fn pages_together_are_the_whole_list() {
    let broker = Broker::start();
    let wire = post(&broker, Signature::V3);
    for index in 0..5 {
        wire.api.register(&format!("ca {index}"), &Ca::root("a CA"));
    }
    let whole = Value::from(wire.api.list());
    let mut pages = Vec::new();
    for number in 1..=3 {
        let page = json!({"PageNo": number.to_string(), "PageSize": "3"});
        let listed = wire.ok("ListCaCertificate", page)["Data"].clone();
        assert_eq!(listed["Total"], 8, "with the three of the development mode");
        pages.extend(listed["CaCertificateVOS"].as_array().unwrap().clone());
    }
    assert_eq!(Value::from(pages), whole);
}

fn instance() -> Vec<(String, String)> {
    let instance = crate::harness::broker::INSTANCE;
    vec![("MqttInstanceId".to_owned(), instance.to_owned())]
}
