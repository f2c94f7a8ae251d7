//! Changes that are planned from the command line, and made also after a crash.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Broker, wait_until};

fn done(broker: &Broker, arguments: &[&str]) -> String {
    let finished = broker.cli(arguments);
    assert_eq!(finished.code, 0, "{arguments:?}: {}", finished.stderr);
    finished.stdout
}

fn planned(broker: &Broker) -> Vec<Value> {
    let text = done(broker, &["schedule", "list", "--json"]);
    serde_json::from_str(&text).unwrap()
}

#[test]
fn temporary_cut_ends_by_itself_unless_it_is_made_for_good() {
    let broker = Broker::start();
    let device = broker.identity("device-a1");
    // On a slow machine a short one is over before it is looked at.
    let seen = [2, 8, 32].into_iter().any(|seconds| {
        let (began, time) = (Instant::now(), format!("{seconds}s"));
        let cut = ["ca", "inactivate", "ca-a", "--for", &time, "--yes"];
        let said = done(&broker, &cut);
        assert!(said.contains("Scheduled: activate CA ca-a"), "{said}");
        let is_cut = !broker.admits(&device);
        assert!(is_cut || began.elapsed() >= Duration::from_secs(seconds));
        is_cut
    });
    assert!(seen);
    wait_until("it is active again", || {
        broker.admits(&device).then_some(())
    });

    done(
        &broker,
        &["ca", "inactivate", "ca-a", "--for", "12h", "--yes"],
    );
    assert_eq!(planned(&broker).len(), 1);
    let said = done(&broker, &["ca", "inactivate", "ca-a", "--yes"]);
    assert!(said.contains("1 planned activation is cancelled"), "{said}");
    assert!(planned(&broker).is_empty());
    assert!(!broker.admits(&device));
    // Who comes later with a temporary one does not undo that.
    let temporary = ["ca", "inactivate", "ca-a", "--for", "1s", "--yes"];
    let said = done(&broker, &temporary);
    assert!(said.contains("no activation is planned"), "{said}");
    assert!(planned(&broker).is_empty());
}

#[test]
fn cut_and_its_end_are_one_answer_now_and_at_a_time() {
    let broker = Broker::start();
    let json =
        |arguments: &[&str]| -> Value { serde_json::from_str(&done(&broker, arguments)).unwrap() };
    let cut = json(&["ca", "inactivate", "ca-a", "--for", "2h", "--yes", "--json"]);
    assert_eq!(cut["Activation"]["Change"], "Activate", "{cut}");
    let said = done(
        &broker,
        &[
            "ca",
            "inactivate",
            "ca-b",
            "--at",
            "1h",
            "--for",
            "2h",
            "--dry-run",
        ],
    );
    assert!(said.contains("Nothing was changed"), "{said}");
    assert!(said.contains(" --for 7200s"), "{said}");
    assert_eq!(planned(&broker).len(), 1);
    let planning = [
        "ca",
        "inactivate",
        "ca-b",
        "--at",
        "1h",
        "--for",
        "2h",
        "--json",
    ];
    let window = json(&planning);
    let ends = &window["Activation"]["Ends"];
    assert_eq!(
        (&window["Change"], ends),
        (&"Inactivate".into(), &window["ScheduleId"])
    );
    assert_eq!(planned(&broker).len(), 3);
    let id = window["ScheduleId"].as_str().unwrap();
    done(&broker, &["schedule", "cancel", id]);
    let left = planned(&broker);
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0], cut["Activation"]);
}

#[test]
fn planned_cut_survives_a_crash_and_can_be_cancelled() {
    let broker = Broker::start();
    let said = done(&broker, &["ca", "inactivate", "ca-a", "--at", "3s"]);
    assert!(said.contains("Scheduled: inactivate CA ca-a"), "{said}");
    done(&broker, &["ca", "inactivate", "ca-b", "--at", "30days"]);
    let broker = Broker::restart(broker.kill9());
    let device = broker.identity("device-a1");
    wait_until("it is cut", || (!broker.admits(&device)).then_some(()));
    let left = planned(&broker);
    assert_eq!(left.len(), 1, "{left:?}");
    let id = left[0]["ScheduleId"].as_str().unwrap();
    let said = done(&broker, &["schedule", "cancel", id]);
    assert!(said.contains("Cancelled: inactivate CA ca-b"), "{said}");
    let finished = broker.cli(&["schedule", "cancel", id]);
    assert_eq!(finished.code, 4, "{}", finished.stderr);
    let finished = broker.cli(&["ca", "inactivate", "ca-b", "--at", "2001-01-01T00:00:00Z"]);
    assert_eq!(finished.code, 1, "{}", finished.stderr);
    assert!(finished.stderr.contains("is past"), "{}", finished.stderr);
}
