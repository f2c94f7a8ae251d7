//! The audit log: what both doors leave, and that a changed record is found.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::control_channel::Admin;
use crate::harness::Broker;
use crate::harness::broker::program;
use crate::harness::process::{Finished, Process};

impl Broker {
    /// The file of the audit log.
    pub fn audit_file(&self) -> PathBuf {
        self.data().join("audit.log")
    }

    /// `portcullis audit verify` on it.
    pub fn verify_audit(&self) -> Finished {
        let mut command = program();
        command.args(["audit", "verify"]).arg(self.audit_file());
        Process::spawn(&mut command).finish()
    }

    /// All records.
    pub fn audit_records(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.audit_file()).unwrap();
        let records = text.lines().map(|line| serde_json::from_str(line).unwrap());
        records.collect()
    }

    /// The records of this action.
    fn audit(&self, action: &str) -> Vec<Value> {
        let records = self.audit_records();
        let wanted = |record: &Value| find(record, "action").is_some_and(|found| found == action);
        records.into_iter().filter(wanted).collect()
    }
}

#[test]
fn change_through_either_door_leaves_the_same_records() {
    let broker = Broker::start();
    let api = broker.api();
    let sn = api.sn_of("ca-a");
    api.inactivate(&sn);
    let http = broker.audit("InactivateCaCertificate");
    api.activate(&sn);
    Admin::connect(&broker).command("InactivateCaCertificate", json!({"Sn": sn}));
    let both = broker.audit("InactivateCaCertificate");
    let mqtt = &both[http.len()..];

    assert!(http.len() >= 2, "intent and outcome: {http:?}");
    assert_eq!(http.len(), mqtt.len());
    for (http, mqtt) in http.iter().zip(mqtt) {
        for field in ["phase", "subject", "before", "after", "code", "instance"] {
            assert_eq!(find(http, field), find(mqtt, field), "{field}");
        }
        assert_eq!(find(http, "door").unwrap(), "http");
        assert_eq!(find(mqtt, "door").unwrap(), "mqtt");
        let principal = find(http, "principal").unwrap().as_str().unwrap();
        assert_eq!(principal, format!("access_key:{}", api.key_id));
        let principal = find(mqtt, "principal").unwrap().as_str().unwrap();
        assert!(principal.starts_with("certificate:"), "{principal}");
    }
    assert_eq!(find(&http[0], "phase").unwrap(), "intent");
    assert_eq!(find(http.last().unwrap(), "phase").unwrap(), "done");
    let text = fs::read_to_string(broker.audit_file()).unwrap();
    for secret in ["BEGIN", &api.secret] {
        assert!(!text.contains(secret), "{secret} in the audit log");
    }
}

#[test]
fn chain_that_was_changed_is_found() {
    let broker = Broker::start();
    let api = broker.api();
    let sn = api.sn_of("ca-a");
    api.inactivate(&sn);
    api.activate(&sn);
    let held = broker.verify_audit();
    assert_eq!(held.code, 0, "{held:?}");

    let file = broker.audit_file();
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines.len() >= 4);
    let middle = lines.len() / 2;
    let removed = [&lines[..middle], &lines[middle + 1..]].concat();
    let mut swapped = lines.clone();
    swapped.swap(middle, middle - 1);
    let changed = text.replacen("intent", "closed", 1);
    let join = |lines: Vec<&str>| lines.join("\n") + "\n";
    for (what, broken) in [
        ("removed", join(removed)),
        ("swapped", join(swapped)),
        ("changed", changed),
    ] {
        assert_ne!(broken, text);
        fs::write(&file, broken).unwrap();
        let found = broker.verify_audit();
        assert_ne!(found.code, 0, "{what}: {found:?}");
        assert!(found.stderr.contains("line"), "{what}: {found:?}");
    }
    fs::write(&file, &text).unwrap();
    assert_eq!(broker.verify_audit().code, 0);
}

/// The value of this field, wherever the record has it.
fn find<'a>(record: &'a Value, field: &str) -> Option<&'a Value> {
    let fields = record.as_object()?;
    fields
        .get(field)
        .or_else(|| fields.values().find_map(|value| find(value, field)))
}

#[test]
fn listing_shows_who_did_what_and_stops_where_the_chain_breaks() {
    let broker = Broker::start();
    let api = broker.api();
    let sn = api.sn_of("ca-a");
    api.inactivate(&sn);
    let list = |arguments: &[&str]| {
        let mut command = program();
        command
            .args(["audit", "list"])
            .arg(broker.audit_file())
            .args(arguments);
        Process::spawn(&mut command).finish()
    };
    let shown = list(&["--about", "InactivateCa"]);
    assert_eq!(shown.code, 0, "{}", shown.stderr);
    let lines: Vec<_> = shown.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "a head, intent and outcome: {lines:#?}");
    for line in &lines[1..] {
        assert!(
            line.contains(&format!("access_key:{}", api.key_id)),
            "{line}"
        );
        assert!(line.contains(&sn), "{line}");
    }
    assert!(
        lines[1].contains("intent: active to inactive"),
        "{lines:#?}"
    );
    assert!(lines[2].contains("done"), "{lines:#?}");
    let json = list(&["--last", "1", "--json"]);
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json[0]["phase"], "done");
    assert_eq!(json.as_array().unwrap().len(), 1);

    let text = fs::read_to_string(broker.audit_file()).unwrap();
    let changed = text.replacen("\"after\":\"inactive\"", "\"after\":\"active\"", 1);
    assert_ne!(changed, text);
    let file = broker.home().path().join("changed.log");
    fs::write(&file, changed).unwrap();
    let mut command = program();
    command.args(["audit", "list"]).arg(&file);
    let broken = Process::spawn(&mut command).finish();
    assert_eq!(broken.code, 1);
    assert!(
        broken.stdout.contains("RegisterCaCertificate"),
        "what is before it"
    );
    assert!(!broken.stdout.contains("InactivateCa"), "{}", broken.stdout);
    assert!(
        broken.stderr.contains("is broken at line"),
        "{}",
        broken.stderr
    );
}

#[test]
fn full_log_is_followed_through_its_files_by_verify_and_list() {
    let settings = "[audit]\nmax_bytes = 65536\nkeep_files = 2";
    let broker = Broker::start_with_lines(|_| settings.to_owned());
    let api = broker.api();
    let sn = api.sn_of("ca-a");
    let full = || {
        let files = fs::read_dir(broker.data()).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        let mut full: Vec<_> = names
            .filter(|name| name.starts_with("audit.log.0"))
            .collect();
        full.sort();
        full
    };
    let mut first = Vec::new();
    while first.is_empty() || full().contains(&first[0]) {
        api.inactivate(&sn);
        api.activate(&sn);
        if first.is_empty() {
            first = full();
        }
    }
    assert_eq!(full().len(), 2);
    let verified = broker.verify_audit();
    assert_eq!(verified.code, 0, "{}", verified.stderr);
    assert!(
        verified.stdout.contains("in 3 files"),
        "{}",
        verified.stdout
    );
    assert!(
        verified.stdout.contains("older ones were removed"),
        "{}",
        verified.stdout
    );
    let list = |last: &str| {
        let mut command = program();
        command.args(["audit", "list", "--json", "--last", last]);
        let finished = Process::spawn(command.arg(broker.audit_file())).finish();
        assert_eq!(finished.code, 0, "{}", finished.stderr);
        serde_json::from_str::<Vec<Value>>(&finished.stdout).unwrap()
    };
    let in_the_newest = fs::read_to_string(broker.audit_file())
        .unwrap()
        .lines()
        .count();
    assert!(list("0").len() > in_the_newest);

    fs::remove_file(broker.data().join(&full()[1])).unwrap();
    let verified = broker.verify_audit();
    assert_ne!(verified.code, 0);
    assert!(
        verified.stderr.contains("records were removed"),
        "{}",
        verified.stderr
    );
}
