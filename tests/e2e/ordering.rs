//! Changes of one CA, one after the other and many at once: there is one order, and memory, disk
//! and audit log agree on it.
//!
//! The order is seen in the audit log, which has one, and in which each answer is found by its
//! request id. A call that was answered before another was made must stand before it.

use std::fs;
use std::sync::Barrier;
use std::time::Instant;

use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use crate::harness::pki;
use crate::harness::sdk::{Caller, Sdk, Style};
use crate::harness::tls::Identity;
use crate::harness::wire::{Place, Signature, Wire};
use crate::harness::{Broker, Version, wait_until};

const ON: &str = "ActiveCaCertificate";
const OFF: &str = "InactivateCaCertificate";

#[test]
fn concurrent_changes_of_one_ca_have_one_order_everywhere() {
    let mut broker = Broker::start();
    let sn = broker.api().sn_of("ca-a");
    let device = broker.identity("device-a1");
    let mut state = "active".to_owned();
    for round in 0..3 {
        let before = records(&broker, &sn).len();
        let calls = melee(&broker, &sn);
        let log = records(&broker, &sn).split_off(before);
        state = one_order(&log, &calls, state);
        stands(&broker, &sn, &device, &state, round);
        let home = broker.kill9();
        broker = Broker::restart(home);
        stands(&broker, &sn, &device, &state, round);
        assert_eq!(records(&broker, &sn).len(), before + log.len());
    }
    let verified = broker.verify_audit();
    assert_eq!(verified.code, 0, "{verified:?}");
}

/// A call that was answered.
struct Called {
    operation: &'static str,
    request_id: String,
    began: Instant,
    ended: Instant,
}

/// Change the CA to and fro, through many clients at once.
fn melee(broker: &Broker, sn: &str) -> Vec<Called> {
    let wires = [
        (Signature::V3, "POST", Place::Query),
        (Signature::V3, "GET", Place::Form),
        (Signature::V1, "POST", Place::Both),
        (Signature::V1, "GET", Place::Query),
    ];
    let wires = wires.map(|(signature, method, place)| Wire {
        door: broker.door(),
        api: broker.api(),
        signature,
        method,
        place,
    });
    let styles = [Style::Sync, Style::Async, Style::PopPost, Style::OpenApi];
    let sdks = styles.map(|style| Sdk::new(broker, style));
    for sdk in &sdks {
        sdk.ok("GetCaCertificate", json!({"Sn": sn})); // it has started
    }
    let start = Barrier::new(wires.len() + sdks.len());
    std::thread::scope(|scope| {
        let mut clients = Vec::new();
        for (index, wire) in wires.iter().enumerate() {
            let start = &start;
            clients.push(scope.spawn(move || {
                start.wait();
                let one = |turn: usize| {
                    let operation = [ON, OFF][(turn + index) % 2];
                    let began = Instant::now();
                    let body = wire.ok(operation, json!({"Sn": sn}));
                    called(operation, &body, began)
                };
                (0..15).map(one).collect::<Vec<_>>()
            }));
        }
        for sdk in &sdks {
            let start = &start;
            clients.push(scope.spawn(move || {
                start.wait();
                let mut all = Vec::new();
                for _ in 0..3 {
                    let operations = [ON, OFF, ON, OFF];
                    let calls = operations.map(|operation| (operation, json!({"Sn": sn})));
                    let began = Instant::now();
                    let answers = sdk.at_once(&calls);
                    for (operation, answer) in operations.into_iter().zip(answers) {
                        all.push(called(operation, &answer["ok"], began));
                    }
                }
                all
            }));
        }
        let done = clients.into_iter();
        done.flat_map(|client| client.join().unwrap()).collect()
    })
}

fn called(operation: &'static str, body: &Value, began: Instant) -> Called {
    let request_id = body["RequestId"].as_str();
    Called {
        operation,
        request_id: request_id.unwrap_or_else(|| panic!("{body}")).to_owned(),
        began,
        ended: Instant::now(),
    }
}

/// Check that the log tells of these calls and no others, one after the other, each from the
/// state in which the one before left the CA; gives the last state.
fn one_order(log: &[Value], calls: &[Called], mut state: String) -> String {
    assert_eq!(
        log.len(),
        2 * calls.len(),
        "intent and outcome of each call"
    );
    let mut latest_begin: Option<Instant> = None;
    for pair in log.chunks(2) {
        let [intent, done] = pair else {
            panic!("{pair:?}")
        };
        let id = &intent["origin"]["request_id"];
        assert_eq!(
            *id, done["origin"]["request_id"],
            "nothing between: {pair:?}"
        );
        assert_eq!(
            (&intent["phase"], &done["phase"]),
            (&json!("intent"), &json!("done"))
        );
        let call = calls.iter().find(|call| *id == call.request_id.as_str());
        let call = call.unwrap_or_else(|| panic!("nobody made this call: {pair:?}"));
        for record in pair {
            assert_eq!(record["action"], call.operation);
            assert_eq!(record["before"], state.as_str(), "{record}");
        }
        let late = latest_begin.is_some_and(|begin| call.ended < begin);
        assert!(
            !late,
            "it was answered before one was made that it follows: {pair:?}"
        );
        latest_begin = latest_begin.max(Some(call.began));
        state = match call.operation {
            ON => "active".to_owned(),
            _ => "inactive".to_owned(),
        };
        assert_eq!(done["after"], state.as_str(), "{done}");
    }
    state
}

/// Check that the CA is in this state: as told, for a device, and on disk.
#[track_caller]
fn stands(broker: &Broker, sn: &str, device: &Identity, state: &str, round: usize) {
    let digit = if state == "active" { "1" } else { "0" };
    assert_eq!(broker.api().status(sn), digit, "round {round}");
    assert_eq!(broker.admits(device), state == "active", "round {round}");
    let kept: String = store(broker)
        .query_row("SELECT status FROM ca WHERE sn = ?1", [sn], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(kept, state, "round {round}");
}

#[test]
fn repeated_change_succeeds_and_changes_nothing() {
    let broker = Broker::start();
    let api = broker.api();
    let (a, b) = (api.sn_of("ca-a"), api.sn_of("ca-b"));
    let (device, other) = (broker.identity("device-a1"), broker.identity("device-b1"));
    let device_sn = pki::sn(&device.chain[0]);
    let named = json!({"CaSn": a, "DeviceSn": device_sn});
    let sdks = [Style::Sync, Style::CoreForm, Style::PopPost].map(|style| Sdk::new(&broker, style));

    let mut bystander = broker.client(&other, Version::V13).connect().unwrap();
    let mut live = broker.client(&device, Version::V13).connect().unwrap();
    let both = json!({"PageNo": "1", "PageSize": "10"});
    wait_until("both devices are recorded", || {
        let all = sdks[0].ok("ListDeviceCertificate", both.clone());
        (all["Data"]["Total"] == 2).then_some(())
    });
    let by_ca = json!({"Sn": a});
    let device_subject = format!("device:{a}/{device_sn}");
    for (operation, arguments, subject, state) in [
        ("ActiveCaCertificate", &by_ca, format!("ca:{a}"), "active"),
        (
            "ActiveDeviceCertificate",
            &named,
            device_subject.clone(),
            "active",
        ),
        (
            "InactivateDeviceCertificate",
            &named,
            device_subject,
            "inactive",
        ),
        (
            "InactivateCaCertificate",
            &by_ca,
            format!("ca:{a}"),
            "inactive",
        ),
    ] {
        let first = sdks[0].ok(operation, arguments.clone());
        if state == "active" {
            live.ping().unwrap();
        }
        let (seq, records) = (head(&broker), all_records(&broker).len());
        for sdk in &sdks {
            let again = sdk.ok(operation, arguments.clone());
            for field in ["Sn", "DeviceSn"] {
                assert_eq!(again[field], first[field], "{operation}");
            }
            // Our own field; the newer Python SDK does not show it.
            let ended = again.get("ConnectionsEnded");
            assert!(ended.is_none_or(|ended| *ended == 0), "{operation}");
        }
        assert_eq!(head(&broker), seq, "{operation}: nothing is written again");
        let new = all_records(&broker).split_off(records);
        assert_eq!(new.len(), 2 * sdks.len(), "{operation}: {new:?}");
        for (index, record) in new.iter().enumerate() {
            assert_eq!(record["subject"], subject.as_str());
            assert_eq!(record["phase"], ["intent", "done"][index % 2], "{record}");
            assert_eq!(
                (&record["before"], &record["after"]),
                (&json!(state), &json!(state))
            );
        }
        bystander.ping().unwrap();
        if state == "active" {
            live.ping().unwrap();
        }
    }
    live.wait_disconnect();
    assert_eq!(api.status(&b), "1");
    bystander.ping().unwrap();
}

/// The records about this CA.
fn records(broker: &Broker, sn: &str) -> Vec<Value> {
    let subject = format!("ca:{sn}");
    let mut records = all_records(broker);
    records.retain(|record| record["subject"] == subject.as_str());
    records
}

fn all_records(broker: &Broker) -> Vec<Value> {
    let text = fs::read_to_string(broker.audit_file()).unwrap();
    let records = text.lines().map(|line| serde_json::from_str(line).unwrap());
    records.collect()
}

/// Number of the last commit.
fn head(broker: &Broker) -> i64 {
    store(broker)
        .query_row("SELECT seq FROM head", [], |row| row.get(0))
        .unwrap()
}

fn store(broker: &Broker) -> Connection {
    let file = broker.data().join("registry.db");
    Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
}
