//! The same for version 1 of the signature, in which everything is a parameter.

use super::{INCOMPLETE, MISMATCH, Row, Scene, UNREADABLE, line_rows, query_rows, replace, row};
use crate::harness::wire::{Place, Raw, Signature};

#[test]
fn tampered_request_of_version_1_is_refused() {
    let scene = Scene::new(Signature::V1, "POST", Place::Query);
    let request = scene.request();
    let mut rows = line_rows(MISMATCH);
    rows.extend(query_rows(&request));
    rows.extend(version_1_rows(|raw| &mut raw.query));
    scene.check(&rows);
}

#[test]
fn tampered_form_of_version_1_is_refused() {
    let scene = Scene::new(Signature::V1, "POST", Place::Form);
    let mut rows = line_rows(MISMATCH);
    rows.extend(version_1_rows(|raw| &mut raw.body));
    rows.push(row("content type", UNREADABLE, |raw| {
        *raw.header("content-type") = "text/plain".to_owned();
    }));
    scene.check(&rows);
}

#[test]
fn tampered_get_of_version_1_is_refused() {
    let scene = Scene::new(Signature::V1, "GET", Place::Query);
    scene.check(&[row("method", MISMATCH, |raw| {
        raw.method = "POST".to_owned()
    })]);
}

/// The parameters that version 1 signs with.
fn version_1_rows<'a>(place: fn(&mut Raw) -> &mut String) -> Vec<Row<'a>> {
    let change = |from: &'static str, to: &'static str, code| {
        row(format!("{from} to {to}"), code, move |raw: &mut Raw| {
            replace(place(raw), from, to);
        })
    };
    let signature = |what: &'static str, code, to: fn(&str) -> String| {
        row(what, code, move |raw: &mut Raw| {
            let place = place(raw);
            let at = place.find("&Signature=").unwrap() + "&Signature=".len();
            *place = format!("{}{}", &place[..at], to(&place[at..]));
        })
    };
    let duplicate = |name: &'static str| {
        row(format!("{name} twice"), UNREADABLE, move |raw: &mut Raw| {
            place(raw).push_str(&format!("&{name}=x"));
        })
    };
    let mut rows = vec![
        change("Sn=", "Sn=0", MISMATCH),
        change("MqttInstanceId=", "MqttInstanceId=x", MISMATCH),
        change("Action=Inactivate", "Action=Delete", MISMATCH),
        change("Action=Inactivate", "Other=Inactivate", "MissingAction"),
        change("Version=2020-04-20", "Version=2020-04-21", MISMATCH),
        change(
            "Version=2020-04-20",
            "Versions=2020-04-20",
            "MissingVersion",
        ),
        change(
            "AccessKeyId=",
            "AccessKeyId=x",
            "InvalidAccessKeyId.NotFound",
        ),
        change("AccessKeyId=", "AccessKeyIds=", "MissingAccessKeyId"),
        change("Timestamp=20", "Timestamp=x20", "InvalidTimeStamp.Format"),
        change("Timestamp=20", "Timestamp=10", "InvalidTimeStamp.Expired"),
        change("Timestamp=", "Timestamps=", "MissingTimestamp"),
        change("SignatureNonce=", "SignatureNonce=0", MISMATCH),
        change(
            "SignatureNonce=",
            "SignatureNonces=",
            "MissingSignatureNonce",
        ),
        change("=HMAC-SHA1", "=HMAC-SHA256", "InvalidSignatureMethod"),
        change("=HMAC-SHA1", "=", "MissingSignatureMethod"),
        change(
            "SignatureVersion=1.0",
            "SignatureVersion=1.1",
            "InvalidSignatureMethod",
        ),
        change("SignatureVersion=1.0", "x=1.0", "MissingSignatureVersion"),
        change("SignatureType=", "SignatureType=x", MISMATCH),
        change("&SignatureType=", "", MISMATCH),
        change("Format=JSON", "Format=XML", MISMATCH),
        change("Format=JSON", "Format=json", MISMATCH),
        signature("signature empty", MISMATCH, |_| String::new()),
        signature("signature other", MISMATCH, |text| {
            text.replacen("%3D", "", 1)
        }),
        signature("signature shorter", MISMATCH, |text| text[4..].to_owned()),
        signature("signature no base64", MISMATCH, |text| format!("*{text}")),
        row("no signature", "MissingAccessKeyId", move |raw| {
            let place = place(raw);
            place.truncate(place.find("&Signature=").unwrap());
        }),
        row("the same in the other place", UNREADABLE, |raw| {
            raw.remove("content-type");
            raw.add("content-type", "application/x-www-form-urlencoded");
            match raw.body.is_empty() {
                true => raw.body = "Sn=01".to_owned(),
                false => raw.query = "Sn=01".to_owned(),
            }
        }),
        row("one more in the other place", MISMATCH, |raw| {
            raw.remove("content-type");
            raw.add("content-type", "application/x-www-form-urlencoded");
            match raw.body.is_empty() {
                true => raw.body = "More=1".to_owned(),
                false => raw.query = "More=1".to_owned(),
            }
        }),
        row("a signature of version 3 that is none", INCOMPLETE, |raw| {
            raw.add("authorization", "ACS3-HMAC-SHA256 x");
        }),
    ];
    rows.extend(["Sn", "Action", "AccessKeyId", "Signature", "SignatureNonce"].map(duplicate));
    rows
}
