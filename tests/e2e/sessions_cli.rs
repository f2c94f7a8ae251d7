//! `portcullis session …` and `portcullis instance …`.

use serde_json::Value;

use crate::harness::Broker;
use crate::harness::broker::INSTANCE;
use crate::harness::pki;

#[test]
fn session_list_shows_a_table_and_json() {
    let broker = Broker::start();
    let empty = broker.cli(&["session", "list"]);
    assert_eq!(empty.code, 0, "{empty:?}");
    assert!(empty.stdout.contains("no sessions"), "{empty:?}");
    let _c1 = broker.connect_as("device-a1", "c1");
    let c2 = broker.connect_as("device-b1", "c2");
    let closed = broker.cli(&["session", "close", "c2", "--yes"]);
    assert_eq!(closed.code, 0, "{closed:?}");
    c2.wait_end();

    let table = broker.cli(&["session", "list"]);
    assert_eq!(table.code, 0, "{table:?}");
    let row = |id: &str| {
        let mut lines = table.stdout.lines();
        lines.find(|line| line.starts_with(id)).unwrap().to_owned()
    };
    assert!(row("CLIENT ID").contains("SUBSCRIPTIONS"));
    let sn = broker.api().sn_of("ca-a");
    for text in ["online", "device-a1", "127.0.0.1:", &sn] {
        assert!(row("c1").contains(text), "{text} in\n{}", table.stdout);
    }
    assert!(row("c2").contains("away"), "{}", table.stdout);

    let ids = |arguments: &[&str]| -> Vec<String> {
        let listed = broker.cli(&[&["session", "list", "--json"], arguments].concat());
        assert_eq!(listed.code, 0, "{listed:?}");
        let all: Vec<Value> = serde_json::from_str(&listed.stdout).unwrap();
        let id = |session: &Value| session["ClientId"].as_str().unwrap().to_owned();
        all.iter().map(id).collect()
    };
    assert_eq!(ids(&[]), ["c1", "c2"]);
    assert_eq!(ids(&["--online"]), ["c1"]);
    assert_eq!(ids(&["--ca", "ca-a"]), ["c1"]);
    assert_eq!(ids(&["--ca", &sn]), ["c1"]);
    assert_eq!(ids(&["--ca", "ca-a", "--online"]), ["c1"]);
    assert!(ids(&["--ca", "ca-b"]).is_empty());
    let unknown = broker.cli(&["session", "list", "--ca", "nobody"]);
    assert_eq!(unknown.code, 4, "{unknown:?}");
}

#[test]
fn session_close_says_what_happened_and_what_keeps_the_client_out() {
    let broker = Broker::start();
    let a1 = broker.identity("device-a1");
    let session = broker.connect_as("device-a1", "c1");
    let shown = broker.cli(&["session", "show", "c1"]);
    assert_eq!(shown.code, 0, "{shown:?}");
    let device_sn = pki::sn(&a1.chain[0]);
    for text in ["online", "device-a1", &device_sn] {
        assert!(shown.stdout.contains(text), "{text} in\n{}", shown.stdout);
    }

    let closed = broker.cli(&["session", "close", "c1", "--yes"]);
    assert_eq!(closed.code, 0, "{closed:?}");
    session.wait_end();
    assert!(closed.stdout.contains("may connect again"), "{closed:?}");
    let again = broker.cli(&["session", "close", "c1", "--yes"]);
    assert_eq!(again.code, 0, "{again:?}");
    assert!(again.stdout.contains("not connected"), "{again:?}");
    assert!(broker.admits(&a1), "it may come back");

    // The command that is named keeps it out.
    let line = closed.stdout.lines().find_map(|line| {
        line.split_once("portcullis ")
            .map(|(_, command)| command.to_owned())
    });
    let line = line.unwrap();
    assert!(line.contains(&device_sn), "{line}");
    let words: Vec<&str> = line.split(' ').collect();
    let end = words.iter().position(|word| *word == "--key-file").unwrap();
    let done = broker.cli(&words[..end]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(!broker.admits(&a1));

    let json = broker.cli(&["session", "close", "c1", "--yes", "--json"]);
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(
        (&json["Code"], &json["Success"]),
        (&200.into(), &false.into())
    );
    for command in ["show", "close"] {
        let unknown = broker.cli(&["session", command, "nobody", "--yes"]);
        assert_eq!(unknown.code, 4, "{unknown:?}");
        assert!(unknown.stderr.contains("nobody"), "{unknown:?}");
        let usage = broker.cli(&["session", command]);
        assert_eq!(usage.code, 2, "{usage:?}");
    }
    let bad = broker.cli(&["session", "show", "a\nb"]);
    assert_eq!(bad.code, 1, "{bad:?}");
    assert!(bad.stderr.contains("ParameterFieldCheckFailed"), "{bad:?}");
}

#[test]
fn instance_list_and_show_say_what_there_is() {
    let broker = Broker::start();
    let _client = broker.connect_as("device-a1", "c1");
    let table = broker.cli(&["instance", "list"]);
    assert_eq!(table.code, 0, "{table:?}");
    let row = table.stdout.lines().nth(1).unwrap();
    for text in [INSTANCE, "in service", "cn-hangzhou", "dev-account", "1"] {
        assert!(row.contains(text), "{text} in\n{}", table.stdout);
    }
    for arguments in [&["instance", "show"][..], &["instance", "show", INSTANCE]] {
        let shown = broker.cli(arguments);
        assert_eq!(shown.code, 0, "{shown:?}");
        assert!(shown.stdout.contains(INSTANCE), "{shown:?}");
        let json = broker.cli(&[arguments, &["--json"]].concat());
        let json: Value = serde_json::from_str(&json.stdout).unwrap();
        assert_eq!(json["Sessions"], 1);
    }
    let unknown = broker.cli(&["instance", "show", "post-cn-none"]);
    assert_eq!(unknown.code, 4, "{unknown:?}");
}

#[test]
fn instances_are_found_without_knowing_one() {
    let broker = Broker::start();
    let path = broker.cert("admin-key.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut key: Value = serde_json::from_str(&text).unwrap();
    key.as_object_mut().unwrap().remove("MqttInstanceId");
    std::fs::write(&path, key.to_string()).unwrap();
    let listed = broker.cli(&["instance", "list"]);
    assert!(listed.stdout.contains(INSTANCE), "{listed:?}");
    let other = broker.cli(&["session", "list"]);
    assert_eq!(other.code, 2, "{other:?}");
    assert!(
        other.stderr.contains("portcullis instance list"),
        "{other:?}"
    );
}
