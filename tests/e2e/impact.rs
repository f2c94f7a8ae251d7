//! What a change would cut, asked before it is made.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::Broker;
use crate::harness::broker::program;
use crate::harness::pki;

#[track_caller]
fn preview(broker: &Broker, sn: &str, change: &str) -> Value {
    let wanted = [("Sn", sn), ("Change", change)];
    let answer = broker.api().call("PreviewCaCertificateChange", &wanted);
    answer.ok()["Data"].take()
}

/// Everything that a change leaves behind.
fn traces(broker: &Broker) -> (Vec<Value>, Vec<u8>) {
    let audit = std::fs::read(broker.data().join("audit.log")).unwrap();
    (broker.api().list(), audit)
}

#[test]
fn preview_says_what_inactivating_then_does_and_changes_nothing() {
    let broker = Broker::start();
    let api = broker.api();
    let (b, issuing) = (api.sn_of("ca-b"), api.sn_of("ca-b-issuing"));
    let mut a1 = broker.connect_as("device-a1", "c1");
    let b1 = broker.connect_as("device-b1", "c2");
    let device_sn = pki::sn(&broker.identity("device-b1").chain[0]);
    // Devices are recorded soon after they are let in.
    crate::harness::wait_until("the device is recorded", || {
        (preview(&broker, &b, "Inactivate")["DevicesRefused"]["Recorded"] == 1).then_some(())
    });
    let before = traces(&broker);
    let told = preview(&broker, &b, "Inactivate");
    assert_eq!(told["Connections"], 1, "{told:#}");
    assert_eq!(told["ConnectionsEnded"], 1);
    let client = &told["Clients"][0];
    assert_eq!(client["ClientId"], "c2");
    assert_eq!(client["DeviceSn"], device_sn.as_str());
    assert_eq!(client["CaSn"], issuing.as_str());
    let address = client["PeerAddress"].as_str().unwrap();
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    assert_eq!(told["DevicesRefused"]["Connected"], 1);
    assert_eq!(told["Below"]["Total"], 1);
    assert_eq!(told["Below"]["Cas"][0]["CaName"], "ca-b-issuing");
    assert_eq!(told["Below"]["Cas"][0]["Becomes"], "off");
    assert_eq!(told["LockedOut"], "");
    assert_eq!(traces(&broker), before);
    assert!(broker.admits(&broker.identity("device-b1")));

    let answer = api.inactivate(&b);
    assert_eq!(answer["ConnectionsEnded"], told["ConnectionsEnded"]);
    b1.wait_end();
    a1.ping().unwrap();
    let after = preview(&broker, &issuing, "Inactivate");
    assert_eq!(after["EffectiveStatus"], "0");
    assert_eq!(
        (&after["Connections"], &after["Becomes"]),
        (&json!(0), &json!("stays"))
    );
    // To delete what is inactive would let others in again.
    let deleted = preview(&broker, &b, "Delete");
    assert_eq!(deleted["LetInAgain"]["Cas"][0]["Sn"], issuing.as_str());

    for (params, code) in [
        (&[("Sn", "00"), ("Change", "Delete")][..], "FindCaBySnError"),
        (&[("Sn", &b)], "ParameterFieldCheckFailed"),
        (
            &[("Sn", &b), ("Change", "Activate")],
            "ParameterFieldCheckFailed",
        ),
        (&[("Change", "Delete")], "ParameterFieldCheckFailed"),
    ] {
        let answer = api.call("PreviewCaCertificateChange", params);
        assert_eq!(answer.code(), code, "{params:?}: {answer:?}");
    }
}

#[test]
fn device_that_went_away_is_told_with_its_time() {
    let broker = Broker::start();
    let issuing = broker.api().sn_of("ca-b-issuing");
    let device_sn = pki::sn(&broker.identity("device-b1").chain[0]);
    let b1 = broker.connect_as("device-b1", "c2");
    let of_device = || {
        let wanted = [
            ("CaSn", issuing.as_str()),
            ("DeviceSn", &device_sn),
            ("Change", "Inactivate"),
        ];
        let api = broker.api();
        let answer = api.call("PreviewDeviceCertificateChange", &wanted);
        (answer.status == 200).then(|| answer.json()["Data"].take())
    };
    let connected = crate::harness::wait_until("the device is recorded", of_device);
    assert_eq!(connected["Connections"], 1, "{connected}");
    assert_eq!(connected["Connected"], true);
    assert_eq!(connected["Clients"][0]["ClientId"], "c2");
    let now = time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
    drop(b1);
    // Not when it came, but when it went. Its connection ends a little after its session is let go.
    let at = |told: &Value, name: &str| told[name].as_str().unwrap().parse::<i128>();
    let away = crate::harness::wait_until("the device is away", || {
        of_device().filter(|told| {
            told["Connected"] == json!(false)
                && told["Connections"] == json!(0)
                && at(told, "LastSeen").is_ok_and(|at| at >= now)
        })
    });
    let began = at(&away, "SeenSince").unwrap();
    assert!((1_700_000_000_000..now).contains(&began), "{away}");
    let tally = preview(&broker, &issuing, "Inactivate")["DevicesRefused"].take();
    assert_eq!(tally["SeenWithinDay"], 1, "{tally}");
}

#[test]
fn dry_run_shows_what_would_be_cut_and_the_command_that_goes_on() {
    let broker = Broker::start();
    let api = broker.api();
    let b1 = broker.connect_as("device-b1", "c2");
    let identity = broker.identity("device-b1");
    let before = traces(&broker);
    let told = broker.cli(&["ca", "inactivate", "ca-b", "--dry-run"]);
    assert_eq!(told.code, 0, "{told:?}");
    for text in [
        "Nothing was changed",
        "1 would be ended",
        "ca-b-issuing",
        "c2",
        "127.0.0.1:",
    ] {
        assert!(told.stdout.contains(text), "{text} in\n{}", told.stdout);
    }
    let json = broker.cli(&["ca", "delete", "ca-b-issuing", "--dry-run", "--json"]);
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(
        json["StillAdmittedBy"]["Cas"][0]["Why"], "above",
        "{json:#}"
    );
    crate::harness::wait_until("the device is recorded", || {
        let told = broker.cli(&["device", "inactivate", "device-b1", "--dry-run"]);
        (told.code == 0 && told.stdout.contains("1 would be ended")).then_some(())
    });
    assert_eq!(traces(&broker), before);

    // The command that is named does it.
    let line = told
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix("Go on  portcullis "));
    let words: Vec<_> = line.unwrap().split(' ').collect();
    let options = words.iter().position(|it| *it == "--key-file").unwrap();
    let done = broker.cli(&words[..options]);
    assert_eq!(done.code, 0, "{done:?}");
    b1.wait_end();
    assert!(!broker.admits(&identity));
    assert_eq!(api.status(&api.sn_of("ca-b")), "0");
}

/// Run the program at a terminal on which this is typed; gives the exit code and what is shown.
fn at_a_terminal(broker: &Broker, typed: &str, arguments: &[&str]) -> (i32, String) {
    const PTY: &str = "import os, pty, sys\n\
        sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    let mut command = Command::new("python3");
    command
        .args(["-c", PTY])
        .arg(program().get_program())
        .args(arguments)
        .arg("--key-file")
        .arg(broker.cert("admin-key.json"))
        .env_remove("PORTCULLIS_SOCKET");
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // The terminal ends when the program does, not when nothing more is typed.
    let mut keyboard = child.stdin.take().unwrap();
    writeln!(keyboard, "{typed}").unwrap();
    let output = child.wait_with_output().unwrap();
    drop(keyboard);
    let shown = String::from_utf8(output.stdout).unwrap();
    (output.status.code().unwrap(), shown)
}

#[test]
fn operator_at_a_terminal_types_the_name_of_the_ca_that_is_to_be_cut() {
    let broker = Broker::start();
    let sn = broker.api().sn_of("ca-b");
    let b1 = broker.connect_as("device-b1", "c2");
    let inactivate = ["ca", "inactivate", "ca-b"];
    // What is typed by habit, the name of another, and nothing.
    for typed in ["y", "yes", "ca-a", ""] {
        let (code, shown) = at_a_terminal(&broker, typed, &inactivate);
        assert_eq!(code, 2, "{typed}: {shown}");
        assert!(shown.contains("1 would be ended"), "{shown}");
        assert!(shown.contains("Type the name of the CA (ca-b)"), "{shown}");
        assert_eq!(broker.api().status(&sn), "1", "{typed}");
    }
    let (code, shown) = at_a_terminal(&broker, "ca-b", &inactivate);
    assert_eq!(code, 0, "{shown}");
    assert_eq!(broker.api().status(&sn), "0");
    b1.wait_end();
    // Nobody would be cut: yes is enough. And nobody is asked who does not want to be.
    let (code, shown) = at_a_terminal(&broker, "y", &inactivate);
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("[y/N]"), "{shown}");
    let (code, shown) = at_a_terminal(&broker, "", &["ca", "inactivate", "ca-a", "--yes"]);
    assert_eq!(code, 0, "{shown}");
    assert!(
        !shown.contains("[y/N]") && !shown.contains("Type"),
        "{shown}"
    );
}
