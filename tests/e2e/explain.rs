//! `portcullis explain`: what is said of a chain is what happens to a client that sends it, in the
//! same words.

use std::io::Write;
use std::process::{Command, Stdio};

use rcgen::{ExtendedKeyUsagePurpose, SerialNumber};
use rmqtt_codec::v5::{DisconnectReasonCode, Packet};
use serde_json::Value;
use time::{Duration, OffsetDateTime};

use crate::chains::same_subject;
use crate::control_channel::Admin;
use crate::harness::broker::program;
use crate::harness::mqtt::Mqtt;
use crate::harness::pki::{self, Ca, ca_params, device_params, new_key, server_params};
use crate::harness::tls::{BOTH, Identity};
use crate::harness::{Broker, Version};

/// The chain in PEM, as its client would send it.
fn pem(identity: &Identity) -> String {
    identity.chain.iter().map(|der| pki::pem(der)).collect()
}

#[track_caller]
fn explained(broker: &Broker, identity: &Identity) -> Value {
    let chain = pem(identity);
    let answer = broker
        .api()
        .call("ExplainCertificate", &[("ChainContent", &chain)]);
    answer.ok()["Data"].take()
}

/// Check that a handshake comes to what is said of it, and that the log says it in the same words.
#[track_caller]
fn agrees(broker: &Broker, what: &str, identity: &Identity) -> Value {
    let told = explained(broker, identity);
    let accepted = told["Accepted"].as_bool().unwrap();
    for version in BOTH {
        let admitted = broker.client(identity, version).admitted();
        assert_eq!(admitted, accepted, "{what}: {told:#}");
    }
    let ways = told["Paths"].as_array().unwrap().iter();
    let ways = ways.filter(|path| path["Accepted"] == true).count();
    assert_eq!(ways > 0, accepted, "{what}: {told:#}");
    if !accepted {
        let text = |name: &str| told[name].as_str().unwrap().to_owned();
        let mut words = vec![
            "client certificate refused".to_owned(),
            format!("reason=\"{}\"", text("Reason")),
            format!("detail={}", text("Detail")),
        ];
        // What is too large is not read, not even for the log.
        if text("Reason") != "chain_too_large" {
            words.push(format!("device.sn={}", text("DeviceSn")));
        }
        if !text("CaSn").is_empty() {
            words.push(format!("ca.sn={}", text("CaSn")));
        }
        broker.wait_log(&format!("{what}: {words:?}"), |line| {
            words.iter().all(|words| line.contains(words))
        });
    }
    told
}

/// The chains of the scenarios about chains, with every CA in turn inactive.
#[test]
fn explain_and_handshakes_agree_on_every_chain() {
    let broker = Broker::start();
    let api = broker.api();
    let load = |name| Ca::load(&broker, name);
    let (a, b, issuing) = (load("ca-a"), load("ca-b"), load("ca-b-issuing"));
    let old = Ca::root("a renewed CA");
    let renewed = Ca::self_signed(ca_params("a renewed CA"), &old.key_pem);
    let (one, two) = (Ca::root("the same name"), Ca::root("the same name"));
    let registered = [
        ("old", &old),
        ("renewed", &renewed),
        ("one", &one),
        ("two", &two),
    ];
    for (name, ca) in registered {
        api.register(name, ca);
    }
    let middle = a.issue_ca(ca_params("nobody registered it"), &new_key());
    let reissued = b.issue_ca(same_subject(&issuing), &issuing.key_pem);
    let crossed = a.issue_ca(same_subject(&issuing), &issuing.key_pem);
    let crossed_root = a.issue_ca(same_subject(&b), &b.key_pem);
    let forged = Ca::self_signed(same_subject(&a), &new_key());
    let device = |ca: &Ca, chain: &[&Ca]| ca.issue_device(device_params("device"), chain);
    let dated = |from: Duration, to: Duration| {
        let mut params = device_params("dated");
        params.not_before = OffsetDateTime::now_utc() + from;
        params.not_after = OffsetDateTime::now_utc() + to;
        a.issue_device(params, &[])
    };
    let mut server = server_params(&["localhost"]);
    server.serial_number = Some(SerialNumber::from(0x7777_7777_u64));
    let mut leaf_only = broker.identity("device-b1");
    leaf_only.chain.truncate(1);
    let many: Vec<&Ca> = std::iter::repeat_n(&a, 9).collect();
    let unfit = {
        let mut params = device_params("unfit");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        a.issue_device(params, &[])
    };
    let chains = [
        ("plain", broker.identity("device-a1")),
        ("with its intermediate", broker.identity("device-b1")),
        ("without its intermediate", leaf_only),
        ("of a CA nobody registered", broker.identity("device-x1")),
        (
            "under an unregistered intermediate",
            device(&middle, &[&middle]),
        ),
        ("the same, not sent", device(&middle, &[])),
        (
            "over a re-issued intermediate",
            device(&issuing, &[&reissued]),
        ),
        (
            "over a cross-signed intermediate",
            device(&issuing, &[&crossed]),
        ),
        ("over both", device(&issuing, &[&reissued, &crossed])),
        (
            "over a cross-signed root",
            device(&issuing, &[&issuing, &crossed_root]),
        ),
        ("with a decoy", device(&a, &[&b])),
        ("of a renewed CA", device(&old, &[])),
        ("of the first of one name", device(&one, &[])),
        ("of the second of one name", device(&two, &[])),
        ("forged", device(&forged, &[&a])),
        ("expired", dated(-Duration::days(2), -Duration::minutes(5))),
        ("not yet valid", dated(Duration::days(1), Duration::days(2))),
        ("of a server", a.issue_device(server, &[])),
        ("for code", unfit),
        ("too long", device(&a, &many)),
    ];
    let all = |state: &str| {
        for (name, identity) in &chains {
            agrees(&broker, &format!("{name}, {state}"), identity);
        }
    };
    all("all CAs active");
    let cas = [&a, &b, &issuing, &old, &renewed, &one, &two];
    for ca in cas {
        api.inactivate(&ca.sn());
        all(&format!("{} inactive", ca.sn()));
        api.activate(&ca.sn());
    }
}

#[test]
fn refused_chain_is_told_what_to_do_and_doing_it_lets_it_in() {
    let broker = Broker::start();
    let api = broker.api();
    let b1 = broker.identity("device-b1");
    assert!(broker.admits(&b1));
    let file = broker.cert("device-b1.pem");
    let file = file.to_str().unwrap();
    let run = |arguments: &[&str]| broker.cli(&[&["explain", file], arguments].concat());
    let fine = run(&[]);
    assert_eq!(fine.code, 0, "{fine:?}");
    assert!(fine.stdout.starts_with("accepted: device "), "{fine:?}");
    for text in ["ca-b-issuing", "active", "path 1: accepted"] {
        assert!(fine.stdout.contains(text), "{text} in\n{}", fine.stdout);
    }

    // Each refusal names the command that ends it.
    let (root, device) = (api.sn_of("ca-b"), pki::sn(&b1.chain[0]));
    api.inactivate(&root);
    let issuing = api.sn_of("ca-b-issuing");
    let inactive = [("CaSn", issuing.as_str()), ("DeviceSn", &device)];
    api.call("InactivateDeviceCertificate", &inactive).ok();
    for detail in [
        format!("CA {issuing} is off because CA {root} above it is inactive"),
        "the device certificate is inactive".to_owned(),
    ] {
        let refused = run(&[]);
        assert_eq!(refused.code, 5, "{refused:?}");
        assert!(refused.stdout.contains(&detail), "{refused:?}");
        let mut lines = refused.stdout.lines().map(str::trim);
        let command = lines
            .find_map(|line| line.strip_prefix("portcullis "))
            .unwrap();
        let words: Vec<_> = command.split(' ').collect();
        let options = words.iter().position(|it| *it == "--key-file").unwrap();
        let done = broker.cli(&words[..options]);
        assert_eq!(done.code, 0, "{words:?}: {done:?}");
    }
    assert_eq!(run(&[]).code, 0);
    assert!(broker.admits(&b1));

    let json = run(&["--json"]);
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["Accepted"], true);
    assert_eq!(json["DeviceSn"], device.as_str());
    let steps = json["Paths"][0]["Certificates"].as_array().unwrap();
    assert_eq!(steps[0]["State"], "active", "it is recorded");
    assert_eq!(steps.last().unwrap()["Role"], "registered");
}

#[test]
fn missing_intermediate_is_named() {
    let broker = Broker::start();
    let a = Ca::load(&broker, "ca-a");
    let middle = a.issue_ca(ca_params("the missing one"), &new_key());
    let told = explained(&broker, &middle.issue_device(device_params("device"), &[]));
    assert_eq!(told["Reason"], "unknown_ca");
    let hint = told["Hint"].as_str().unwrap();
    assert!(hint.contains("CN=the missing one"), "{hint}");
    assert!(hint.contains("send its certificate"), "{hint}");
    let whole = middle.issue_device(device_params("device"), &[&middle]);
    assert_eq!(explained(&broker, &whole)["Accepted"], true);
}

/// Neither the device nor anything else: not on disk, not in the audit log.
#[test]
fn explaining_changes_nothing() {
    let broker = Broker::start();
    let api = broker.api();
    let x1 = broker.identity("device-x1");
    let page = [("PageNo", "1"), ("PageSize", "100")];
    let state = || {
        let devices = api.call("ListDeviceCertificate", &page).ok();
        let audit = std::fs::read(broker.data().join("audit.log")).unwrap();
        (devices["Data"]["Total"].clone(), api.list(), audit)
    };
    let before = state();
    for identity in [
        broker.identity("device-a1"),
        broker.identity("device-b1"),
        x1,
    ] {
        explained(&broker, &identity);
    }
    assert_eq!(state(), before);
    assert_eq!(before.0, 0);
}

#[test]
fn key_beside_the_certificate_is_not_sent_and_standard_input_is_read() {
    let broker = Broker::start();
    let read = |name: &str| std::fs::read_to_string(broker.cert(name)).unwrap();
    let both = read("device-a1.key") + &read("device-a1.pem");
    // The broker would refuse a key, so that whoever sends one learns not to.
    let sent = broker
        .api()
        .call("ExplainCertificate", &[("ChainContent", &both)]);
    assert_eq!(sent.code(), "ParameterFieldCheckFailed", "{sent:?}");
    assert!(sent.text.contains("never a key"), "{sent:?}");

    let mut command = program();
    command
        .args(["explain", "-", "--key-file"])
        .arg(broker.cert("admin-key.json"));
    let (code, stdout) = fed(&mut command, both.as_bytes());
    assert_eq!(code, 0, "{stdout}");
    assert!(stdout.starts_with("accepted"), "{stdout}");

    for (text, status) in [(&b"no PEM"[..], 2), (&b""[..], 2)] {
        let mut command = program();
        command
            .args(["explain", "-", "--key-file"])
            .arg(broker.cert("admin-key.json"));
        assert_eq!(fed(&mut command, text).0, status);
    }
    let missing = broker.cli(&["explain", "/nowhere/cert.pem"]);
    assert_eq!(missing.code, 2, "{missing:?}");
    assert_eq!(broker.cli(&["explain"]).code, 2);
}

/// Run a command on this input; gives its exit code and output.
fn fed(command: &mut Command, input: &[u8]) -> (i32, String) {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    (output.status.code().unwrap(), stdout)
}

#[test]
fn hostile_chains_are_refused_or_explained_and_the_broker_goes_on() {
    let broker = Broker::start();
    let api = broker.api();
    let a1 = broker.identity("device-a1");
    let garbage = pki::pem(&[0x30, 0x82, 0xff, 0xff]);
    let good = pem(&a1);
    let code = |chain: &str| {
        api.call("ExplainCertificate", &[("ChainContent", chain)])
            .code()
    };
    for bad in ["", "x", "-----BEGIN CERTIFICATE-----\n", &good.repeat(33)] {
        let head = &bad[..bad.len().min(40)];
        // Too long for the target of a request is refused before it is read.
        let codes = ["ParameterFieldCheckFailed", "RequestHeadTooLarge"];
        assert!(codes.contains(&code(bad).as_str()), "{head:?}");
    }
    for told in [garbage.clone(), good.clone() + &garbage, garbage + &good] {
        let answer = api.call("ExplainCertificate", &[("ChainContent", &told)]);
        answer.ok();
    }
    // What is in a name does not reach the terminal as it is.
    let a = Ca::load(&broker, "ca-a");
    let mut params = device_params("x");
    let name = "\u{1b}[2J\u{7}<script>";
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    let file = broker.home().path().join("hostile.pem");
    std::fs::write(&file, pem(&a.issue_device(params, &[]))).unwrap();
    let told = broker.cli(&["explain", file.to_str().unwrap()]);
    assert_eq!(told.code, 0, "{told:?}");
    assert!(!told.stdout.contains(['\u{1b}', '\u{7}']), "{told:?}");
    assert!(broker.admits(&a1));
}

#[test]
fn explanation_needs_the_right_to_see_cas() {
    let broker = Broker::start();
    let policy = broker.home().path().join("policy.json");
    let chain = pem(&broker.identity("device-a1"));
    for (actions, code) in [
        (r#"["mq:GetCaCertificate", "mq:MqttInstanceAccess"]"#, ""),
        (
            r#"["mq:List*", "mq:MqttInstanceAccess"]"#,
            "PermissionCheckFailed",
        ),
    ] {
        let text = format!(
            r#"{{"Version": "1", "Statement": {{"Effect": "Allow", "Action": {actions}, "Resource": "*"}}}}"#
        );
        std::fs::write(&policy, text).unwrap();
        let socket = broker.data().join("admin.sock");
        let mut command = program();
        command
            .args(["key", "create", "--json", "--policy"])
            .arg(&policy)
            .arg("--socket")
            .arg(socket);
        let made = crate::harness::process::Process::spawn(&mut command).finish();
        let key: Value = serde_json::from_str(&made.stdout).unwrap();
        let mut api = broker.api();
        api.key_id = key["AccessKeyId"].as_str().unwrap().to_owned();
        api.secret = key["AccessKeySecret"].as_str().unwrap().to_owned();
        let answer = api.call("ExplainCertificate", &[("ChainContent", &chain)]);
        assert_eq!(answer.code(), code, "{actions}: {answer:?}");
    }
}

#[test]
fn both_doors_explain_the_same() {
    let broker = Broker::start();
    let identity = broker.identity("device-x1");
    let mut admin = Admin::connect(&broker);
    let command = serde_json::json!({"ChainContent": pem(&identity)});
    let mut over_mqtt = admin.command("ExplainCertificate", command)["Data"].take();
    let mut over_http = explained(&broker, &identity);
    for told in [&mut over_mqtt, &mut over_http] {
        told["CheckedAt"] = Value::Null;
    }
    assert_eq!(over_mqtt, over_http);
    assert_eq!(over_http["Accepted"], false);
}

/// The reason string of the broker's DISCONNECT.
fn farewell(mut client: Mqtt) -> String {
    loop {
        if let Packet::Disconnect(end) = client.next().unwrap() {
            let code = end.reason_code;
            assert_eq!(code, DisconnectReasonCode::AdministrativeAction);
            return end.reason_string.unwrap().to_string();
        }
    }
}

#[test]
fn client_that_is_cut_is_told_in_the_words_of_the_explanation() {
    let broker = Broker::start();
    let api = broker.api();
    let (root, issuing) = (api.sn_of("ca-b"), api.sn_of("ca-b-issuing"));
    let b1 = broker.identity("device-b1");
    let connect = || broker.client(&b1, Version::V13).connect().unwrap();
    let device = pki::sn(&b1.chain[0]);
    let which = [("CaSn", issuing.as_str()), ("DeviceSn", &device)];
    for sn in [&root, &issuing] {
        let client = connect();
        api.inactivate(sn);
        let words = farewell(client);
        assert_eq!(explained(&broker, &b1)["Detail"], words.as_str());
        assert!(words.contains(sn.as_str()), "{words}");
        broker.wait_log("the end with its words", |line| {
            line.contains("client disconnected") && line.contains(&words)
        });
        api.activate(sn);
    }
    let client = connect();
    api.call("InactivateDeviceCertificate", &which).ok();
    let words = farewell(client);
    assert_eq!(explained(&broker, &b1)["Detail"], words.as_str());
    api.call("ActiveDeviceCertificate", &which).ok();
    let client = connect();
    api.call("DeleteCaCertificate", &[("Sn", &issuing)]).ok();
    let words = farewell(client);
    assert!(words.contains(&issuing), "{words}");
}
