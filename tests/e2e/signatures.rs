//! Requests that are signed in a way that does not count: not at all, too long ago, twice, for
//! something else than it says.

use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use crate::harness::Broker;
use crate::harness::broker::INSTANCE;
use crate::harness::wire::{Place, Signature, Wire};

#[test]
fn unsigned_action_next_to_a_signed_one_is_ignored() {
    let broker = Broker::start();
    let sn = broker.api().sn_of("ca-a");
    let wire = wire(&broker, Signature::V1, Place::Query);
    let mut request = wire.request("GetCaCertificate", &json!({"Sn": sn}));
    request.add("x-acs-action", "DeleteCaCertificate");
    request.add("x-acs-version", "2000-01-01");
    let shown = wire.door.send(&request).ok();
    assert_eq!(shown["Data"]["Sn"], sn.as_str());
    assert_eq!(wire.api.status(&sn), "1");
}

#[test]
fn replayed_request_is_refused() {
    for signature in [Signature::V3, Signature::V1] {
        let broker = Broker::start();
        let sn = broker.api().sn_of("ca-a");
        let wire = wire(&broker, signature, Place::Both);
        let request = wire.request("InactivateCaCertificate", &json!({"Sn": sn}));
        wire.door.send(&request).ok();
        wire.api.activate(&sn);
        let again = wire.door.send(&request);
        assert_eq!(again.code(), "SignatureNonceUsed", "{again:?}");
        assert_eq!(wire.api.status(&sn), "1");
    }
}

#[test]
fn stale_request_is_refused() {
    let broker = Broker::start();
    let api = broker.api();
    let sn = api.sn_of("ca-a");
    let params = [("MqttInstanceId", INSTANCE), ("Sn", &sn)];
    for minutes in [-16, 16] {
        let mut request = api.request("InactivateCaCertificate", &params);
        request.date = written(OffsetDateTime::now_utc() + Duration::minutes(minutes));
        assert_eq!(api.send(&request).code(), "InvalidTimeStamp.Expired");
        assert_eq!(api.status(&sn), "1");
    }
    let mut request = api.request("InactivateCaCertificate", &params);
    request.date = "yesterday".to_owned();
    assert_eq!(api.send(&request).code(), "InvalidTimeStamp.Format");
}

#[test]
fn unsigned_request_is_refused() {
    let broker = Broker::start();
    let sn = broker.api().sn_of("ca-a");
    let host = broker.admin;
    for headers in [
        "",
        "authorization: ACS3-HMAC-SHA256\r\n",
        "authorization: Basic YTpi\r\n",
        "authorization: ACS3-HMAC-SHA256 Credential=,SignedHeaders=,Signature=\r\n",
        "x-acs-bearer-token: x\r\n",
    ] {
        let raw = format!(
            "POST /?MqttInstanceId={INSTANCE}&Sn={sn} HTTP/1.1\r\nhost: {host}\r\nx-acs-action: InactivateCaCertificate\r\nx-acs-version: 2020-04-20\r\n{headers}content-length: 0\r\nconnection: close\r\n\r\n"
        );
        let answer = broker.door().exchange(&raw).unwrap();
        assert!((400..500).contains(&answer.status), "{answer:?}");
        assert!(
            matches!(answer.json()["Code"], Value::String(_)),
            "{answer:?}"
        );
    }
    assert_eq!(broker.api().status(&sn), "1");
}

#[test]
fn parameters_given_twice_are_refused_although_signed() {
    let broker = Broker::start();
    let sn = broker.api().sn_of("ca-a");
    for signature in [Signature::V3, Signature::V1] {
        for place in [Place::Query, Place::Form, Place::Both] {
            for second in [sn.as_str(), "01"] {
                let wire = wire(&broker, signature, place);
                let params = [("Sn", sn.as_str()), ("Sn", second)];
                let mut params = params.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec();
                params.insert(0, ("MqttInstanceId".to_owned(), INSTANCE.to_owned()));
                let request = wire.sign("InactivateCaCertificate", params);
                let answer = wire.door.send(&request);
                assert_eq!(answer.code(), "ParameterCheckFailed", "{request:?}");
            }
        }
    }
    assert_eq!(broker.api().status(&sn), "1");
}

fn wire(broker: &Broker, signature: Signature, place: Place) -> Wire {
    Wire {
        door: broker.door(),
        api: broker.api(),
        signature,
        method: "POST",
        place,
    }
}

/// The date as it is signed.
pub fn written(date: OffsetDateTime) -> String {
    let format =
        time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    date.format(&format).unwrap()
}
