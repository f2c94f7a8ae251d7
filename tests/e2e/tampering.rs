//! Whatever is signed is changed in turn: it is refused, and nothing comes of it.

mod v1;

use time::{Duration, OffsetDateTime};

use crate::harness::Broker;
use crate::harness::broker::INSTANCE;
use crate::harness::wire::{Place, Raw, Signature, Wire, sha256};
use crate::signatures;

const MISMATCH: &str = "SignatureDoesNotMatch";
const INCOMPLETE: &str = "IncompleteSignature";
const UNREADABLE: &str = "ParameterCheckFailed";

/// What is done to a request, and the code that it comes to.
type Row<'a> = (String, Box<dyn Fn(&mut Raw) + 'a>, &'a str);

/// A row of the table.
fn row<'a>(what: impl Into<String>, code: &'a str, change: impl Fn(&mut Raw) + 'a) -> Row<'a> {
    (what.into(), Box::new(change), code)
}

/// Requests to inactivate a CA that are right so far.
struct Scene {
    broker: Broker,
    wire: Wire,
    sn: String,
}

impl Scene {
    fn new(signature: Signature, method: &'static str, place: Place) -> Self {
        let broker = Broker::start();
        let wire = Wire {
            door: broker.door(),
            api: broker.api(),
            signature,
            method,
            place,
        };
        let sn = broker.api().sn_of("ca-a");
        Self { broker, wire, sn }
    }

    fn params(&self) -> Vec<(String, String)> {
        let all = [
            ("Sn", self.sn.as_str()),
            ("MqttInstanceId", INSTANCE),
            ("Unknown", "ignored"),
            ("Empty", ""),
        ];
        all.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec()
    }

    fn request(&self) -> Raw {
        let signed = &[("accept", "application/json"), ("x-acs-extra", "a value")];
        match self.wire.signature {
            Signature::V3 => self
                .wire
                .sign_v3("InactivateCaCertificate", self.params(), signed),
            Signature::V1 => self.wire.sign("InactivateCaCertificate", self.params()),
        }
    }

    /// Each change is refused with its code, and the request without any is carried out.
    fn check(&self, rows: &[Row<'_>]) {
        let records = self.audited();
        for (what, change, code) in rows {
            let mut request = self.request();
            let before = request.clone();
            change(&mut request);
            assert_ne!(request, before, "{what} changes nothing");
            let answer = self.wire.door.send(&request);
            assert_eq!(answer.code(), *code, "{what}: {answer:?}");
            assert!((400..500).contains(&answer.status), "{what}: {answer:?}");
            if *code == MISMATCH {
                let message = answer.json()["Message"].as_str().unwrap().to_owned();
                let text = "Specified signature is not matched with our calculation. \
                            server string to sign is:";
                assert!(message.starts_with(text), "{what}: {message}");
            }
            assert_eq!(self.wire.api.status(&self.sn), "1", "{what}");
        }
        assert_eq!(self.audited(), records, "not even refused as a change");
        self.wire.door.send(&self.request()).ok();
        assert_eq!(self.wire.api.status(&self.sn), "0");
    }

    fn audited(&self) -> usize {
        let log = std::fs::read_to_string(self.broker.audit_file()).unwrap();
        log.lines().count()
    }
}

/// Take the text out of the place, which has it.
fn replace(place: &mut String, from: &str, to: &str) {
    assert!(place.contains(from), "{from} in {place}");
    *place = place.replacen(from, to, 1);
}

#[test]
fn tampered_request_is_refused() {
    let scene = Scene::new(Signature::V3, "POST", Place::Both);
    let request = scene.request();
    assert!(!request.query.is_empty() && !request.body.is_empty());
    let mut rows = line_rows(MISMATCH);
    rows.extend(query_rows(&request));
    rows.extend(body_rows());
    rows.extend(header_rows(&request));
    rows.extend(authorization_rows(&request));
    scene.check(&rows);
}

fn line_rows(method: &str) -> Vec<Row<'_>> {
    let mut rows = vec![row("method GET", method, |raw| {
        raw.method = "GET".to_owned()
    })];
    for other in ["PUT", "DELETE", "post", "HEADS"] {
        let code = "UnsupportedHTTPMethod";
        rows.push(row(format!("method {other}"), code, move |raw| {
            raw.method = other.to_owned();
        }));
    }
    for other in ["//", "/x", "/.", "/%2F", "/;"] {
        rows.push(row(
            format!("path {other}"),
            "InvalidApi.NotFound",
            move |raw| {
                raw.path = other.to_owned();
            },
        ));
    }
    rows
}

/// Each parameter of the query: changed, renamed, taken out, given twice.
fn query_rows<'a>(request: &Raw) -> Vec<Row<'a>> {
    let mut rows = vec![
        row("one more", MISMATCH, |raw| raw.query.push_str("&More=1")),
        row("one more, empty", MISMATCH, |raw| raw.query.push_str("&x")),
        row("broken escape", UNREADABLE, |raw| {
            raw.query.push_str("&x=%")
        }),
        row("no UTF-8", UNREADABLE, |raw| raw.query.push_str("&x=%ff")),
    ];
    for pair in request.query.split('&') {
        // Those of version 1's own have rows of their own.
        let (name, value) = pair.split_once('=').unwrap();
        if !["Sn", "MqttInstanceId", "Unknown", "Empty"].contains(&name) {
            continue;
        }
        let (pair, value) = (pair.to_owned(), value.to_owned());
        let to = |what: &str, to: String, code| {
            let pair = pair.clone();
            row(format!("{pair} {what}"), code, move |raw: &mut Raw| {
                raw.query = raw
                    .query
                    .split('&')
                    .map(|found| if found == pair { &to } else { found })
                    .filter(|found| !found.is_empty())
                    .collect::<Vec<_>>()
                    .join("&");
            })
        };
        rows.push(to("changed", format!("{name}={value}0"), MISMATCH));
        rows.push(to("renamed", format!("{name}2={value}"), MISMATCH));
        rows.push(to("in lower case", pair.to_lowercase() + "x", MISMATCH));
        rows.push(to("taken out", String::new(), MISMATCH));
        rows.push(to("twice", format!("{pair}&{pair}"), UNREADABLE));
        rows.push(to("twice, other", format!("{pair}&{name}=01"), UNREADABLE));
        rows.push(to("before", format!("{name}=01&{pair}"), UNREADABLE));
        let first = format!("%{:02X}", name.as_bytes()[0]);
        let hidden = format!("{pair}&{first}{}=01", &name[1..]);
        rows.push(to("twice, encoded", hidden, UNREADABLE));
    }
    rows
}

fn body_rows<'a>() -> Vec<Row<'a>> {
    // The hash of a body that was changed no longer fits; nor does one that was made to fit.
    type Change = fn(&mut String);
    let changed: [(&str, Change); 5] = [
        ("longer", |body| body.push_str("&More=1")),
        ("shorter", |body| body.truncate(body.len() - 1)),
        ("other", |body| *body = body.replace('=', "=0")),
        ("empty", |body| body.clear()),
        ("line break", |body| body.push_str("\r\n")),
    ];
    let mut rows = Vec::new();
    for (what, change) in changed {
        rows.push(row(format!("body {what}"), INCOMPLETE, move |raw| {
            change(&mut raw.body);
        }));
        rows.push(row(
            format!("body {what}, hash made to fit"),
            MISMATCH,
            move |raw| {
                change(&mut raw.body);
                *raw.header("x-acs-content-sha256") = sha256(&raw.body);
            },
        ));
    }
    rows.push(row("body has what the query has", MISMATCH, |raw| {
        raw.body = raw.query.clone();
        *raw.header("x-acs-content-sha256") = sha256(&raw.body);
    }));
    rows.push(row("body has a name twice", UNREADABLE, |raw| {
        raw.body = format!("{0}&{0}", raw.body);
    }));
    rows.push(row("body moved to the query", INCOMPLETE, |raw| {
        raw.query = format!("{}&{}", raw.query, raw.body);
        raw.body.clear();
    }));
    rows
}

/// Each signed header: changed, taken out, given twice.
fn header_rows<'a>(request: &Raw) -> Vec<Row<'a>> {
    let mut rows = Vec::new();
    for (name, value) in request.headers.clone() {
        if name == "authorization" {
            continue;
        }
        let changed = match name.as_str() {
            "content-type" => UNREADABLE,
            "x-acs-content-sha256" => INCOMPLETE,
            "x-acs-date" => "InvalidTimeStamp.Format",
            _ => MISMATCH,
        };
        let missing = match name.as_str() {
            "content-type" => UNREADABLE,
            "x-acs-action" => "MissingAction",
            "x-acs-version" => "MissingVersion",
            "x-acs-date" => "MissingTimestamp",
            "x-acs-signature-nonce" => "MissingSignatureNonce",
            // HTTP itself demands it; our own code is about what is signed.
            _ => INCOMPLETE,
        };
        let header = name.clone();
        rows.push(row(format!("{name} changed"), changed, move |raw| {
            raw.header(&header).push('0');
        }));
        let header = name.clone();
        rows.push(row(
            format!("{name} empty"),
            empty(&name, missing),
            move |raw| {
                raw.header(&header).clear();
            },
        ));
        let header = name.clone();
        rows.push(row(format!("{name} taken out"), missing, move |raw| {
            raw.remove(&header);
        }));
        for again in [value, "other".to_owned()] {
            let header = name.clone();
            rows.push(row(
                format!("{name} twice, {again}"),
                INCOMPLETE,
                move |raw| {
                    raw.add(&header, &again);
                },
            ));
        }
    }
    rows.push(row("another operation", MISMATCH, |raw| {
        replace(raw.header("x-acs-action"), "Inactivate", "Delete");
    }));
    rows.push(row("a second earlier", MISMATCH, |raw| {
        let date = OffsetDateTime::now_utc() - Duration::minutes(1);
        *raw.header("x-acs-date") = signatures::written(date);
    }));
    rows.push(row(
        "a header of the vendor's that is not signed",
        INCOMPLETE,
        |raw| {
            raw.add("x-acs-security-token", "x");
        },
    ));
    rows
}

/// What it comes to if the header is there without a value.
fn empty<'a>(name: &str, missing: &'a str) -> &'a str {
    match name {
        "host" | "accept" | "x-acs-extra" => MISMATCH,
        _ => missing,
    }
}

fn authorization_rows<'a>(request: &Raw) -> Vec<Row<'a>> {
    let change = |from: String, to: &'static str, code| {
        row(format!("{from:?} to {to:?}"), code, move |raw: &mut Raw| {
            replace(raw.header("authorization"), &from, to);
        })
    };
    let with = |what: &'static str, code, change: fn(&mut String)| {
        row(what, code, move |raw: &mut Raw| {
            change(raw.header("authorization"))
        })
    };
    let mut rows = vec![
        with("signature shorter", MISMATCH, |text| {
            text.truncate(text.len() - 2)
        }),
        with("signature cut in a digit", MISMATCH, |text| {
            text.truncate(text.len() - 1)
        }),
        with("signature longer", MISMATCH, |text| text.push_str("00")),
        with("signature with a space", MISMATCH, |text| {
            text.push_str(" 0")
        }),
        with("signature other", MISMATCH, |text| {
            let last = text.pop().unwrap();
            text.push(if last == '0' { '1' } else { '0' });
        }),
        with("signature empty", MISMATCH, |text| {
            text.truncate(text.find("Signature=").unwrap() + "Signature=".len());
        }),
        with("no signature", INCOMPLETE, |text| {
            text.truncate(text.find(",Signature=").unwrap());
        }),
        with("signature twice", INCOMPLETE, |text| {
            text.push_str(",Signature=00")
        }),
        with("one more field", INCOMPLETE, |text| {
            text.push_str(",More=1")
        }),
        with("empty", INCOMPLETE, String::clear),
        change(
            "Credential=".to_owned(),
            "Credential=x",
            "InvalidAccessKeyId.NotFound",
        ),
        change("Credential=".to_owned(), "Credential=,Other=", INCOMPLETE),
        change("Credential=".to_owned(), "credential=", INCOMPLETE),
        change(
            "ACS3-HMAC-SHA256".to_owned(),
            "ACS3-HMAC-SM3",
            "InvalidSignatureMethod",
        ),
        change(
            "ACS3-HMAC-SHA256".to_owned(),
            "ACS3-RSA-SHA256",
            "InvalidSignatureMethod",
        ),
        change(
            "ACS3-HMAC-SHA256".to_owned(),
            "acs3-hmac-sha256",
            INCOMPLETE,
        ),
        change("ACS3-HMAC-SHA256".to_owned(), "Basic", INCOMPLETE),
        change("accept;".to_owned(), "accept;accept;", INCOMPLETE),
        change("accept;".to_owned(), "Accept;", INCOMPLETE),
        change("accept;".to_owned(), "accept;connection;", MISMATCH),
        change("accept;".to_owned(), "accept;absent;", INCOMPLETE),
        change(
            "accept;content-type;".to_owned(),
            "content-type;accept;",
            INCOMPLETE,
        ),
        row("no authorization", "MissingAccessKeyId", |raw| {
            raw.remove("authorization")
        }),
        row("authorization twice", INCOMPLETE, |raw| {
            let again = raw.header("authorization").clone();
            raw.add("authorization", &again);
        }),
    ];
    // The list of headers: each of them left out.
    for (name, _) in &request.headers {
        if name == "authorization" {
            continue;
        }
        let must = name == "host" || name.starts_with("x-acs-");
        let code = if must { INCOMPLETE } else { MISMATCH };
        let from = match name.as_str() {
            "x-acs-version" => format!(";{name},"),
            _ => format!("{name};"),
        };
        let to = if from.ends_with(',') { "," } else { "" };
        rows.push(change(from, to, code));
    }
    rows
}
