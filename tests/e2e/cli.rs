//! `portcullis ca …` against the HTTP API.

use std::fs;

use serde_json::Value;

use crate::harness::Broker;
use crate::harness::pki::Ca;

#[test]
fn ca_list_shows_a_table_and_json() {
    let broker = Broker::start();
    let sn = broker.api().sn_of("ca-a");
    let table = broker.cli(&["ca", "list"]);
    assert_eq!(table.code, 0, "{table:?}");
    for text in ["ca-a", "ca-b", "ca-b-issuing", &sn, "active"] {
        assert!(table.stdout.contains(text), "{text} in\n{}", table.stdout);
    }
    let json = broker.cli(&["ca", "list", "--json"]);
    assert_eq!(json.code, 0, "{json:?}");
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert!(json.to_string().contains(&sn));
}

#[test]
fn ca_show_inactivate_and_activate_do_what_they_say() {
    let broker = Broker::start();
    let sn = broker.api().sn_of("ca-a");
    let a1 = broker.identity("device-a1");
    let shown = broker.cli(&["ca", "show", &sn]);
    assert_eq!(shown.code, 0, "{shown:?}");
    assert!(shown.stdout.contains("ca-a"), "{}", shown.stdout);

    let done = broker.cli(&["ca", "inactivate", &sn]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(!broker.admits(&a1));
    let json = broker.cli(&["ca", "show", &sn, "--json"]);
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert!(
        json.to_string().contains(r#""Status":"0""#),
        "the API's own words: {json}"
    );
    let done = broker.cli(&["ca", "activate", &sn, "--json"]);
    assert_eq!(done.code, 0, "{done:?}");
    let json: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(json["Sn"], sn.as_str());
    assert!(broker.admits(&a1));
}

#[test]
fn ca_register_proves_possession_with_the_key() {
    let broker = Broker::start();
    let ca = Ca::load(&broker, "ca-x");
    let x1 = broker.identity("device-x1");
    assert!(!broker.admits(&x1));
    let (certificate, key) = (broker.cert("ca-x.pem"), broker.cert("ca-x.key"));
    let certificate = certificate.to_str().unwrap();
    let key = key.to_str().unwrap();
    let done = broker.cli(&["ca", "register", "ca-x", certificate, "--key", key]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.stdout.contains(&ca.sn()), "{done:?}");
    assert!(broker.admits(&x1));
}

#[test]
fn ca_register_refuses_the_key_of_another_ca() {
    let broker = Broker::start();
    let (certificate, key) = (broker.cert("ca-x.pem"), broker.cert("ca-a.key"));
    let certificate = certificate.to_str().unwrap();
    let key = key.to_str().unwrap();
    let done = broker.cli(&["ca", "register", "ca-x", certificate, "--key", key]);
    assert_ne!(done.code, 0, "{done:?}");
    assert!(!broker.admits(&broker.identity("device-x1")));
}

#[test]
fn failures_have_exit_codes_and_say_what_to_do() {
    let broker = Broker::start();
    let unknown = broker.cli(&["ca", "inactivate", "0123456789"]);
    assert_eq!(unknown.code, 4, "{unknown:?}");
    assert!(unknown.stderr.contains("0123456789"), "{unknown:?}");
    assert!(unknown.stdout.is_empty(), "{unknown:?}");
    let usage = broker.cli(&["ca", "inactivate"]);
    assert_eq!(usage.code, 2, "{usage:?}");

    let key = broker.cert("admin-key.json");
    let right = fs::read_to_string(&key).unwrap();
    let secret = broker.api().secret;
    fs::write(&key, right.replace(&secret, "wrong")).unwrap();
    let refused = broker.cli(&["ca", "list"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.stderr.contains("SignatureDoesNotMatch"),
        "{refused:?}"
    );
    fs::write(&key, right).unwrap();

    let home = broker.stop();
    let key = home.path().join("certs/admin-key.json");
    let mut command = crate::harness::broker::program();
    command.args(["ca", "list", "--key-file"]).arg(key);
    let gone = crate::harness::process::Process::spawn(&mut command).finish();
    assert_eq!(gone.code, 3, "{gone:?}");
    assert!(gone.stderr.contains("127.0.0.1"), "{gone:?}");
}
