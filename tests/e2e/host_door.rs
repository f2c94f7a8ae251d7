//! Administrators on the host: the socket of the broker, access keys and their policies.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::api::Api;
use crate::harness::broker::{INSTANCE, program};
use crate::harness::pki::Ca;
use crate::harness::process::{Finished, Process};
use crate::harness::sdk::{Caller, Sdk, Style};
use crate::harness::{Broker, Version};

/// The command line, over the broker's socket.
fn host(broker: &Broker, arguments: &[&str]) -> Finished {
    let mut command = program();
    command.args(arguments).arg("--socket").arg(socket(broker));
    Process::spawn(&mut command).finish()
}

#[track_caller]
fn done(broker: &Broker, arguments: &[&str]) -> String {
    let finished = host(broker, arguments);
    assert_eq!(finished.code, 0, "{arguments:?}: {}", finished.stderr);
    finished.stdout
}

#[track_caller]
fn done_json(broker: &Broker, arguments: &[&str]) -> Value {
    let text = done(broker, &[arguments, &["--json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn socket(broker: &Broker) -> PathBuf {
    broker.data().join("admin.sock")
}

/// A file in the broker's directory.
fn file(broker: &Broker, name: &str, content: &str) -> String {
    let path = broker.home().path().join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A new key, with this policy if there is one.
fn create(broker: &Broker, policy: Option<&Value>) -> Api {
    let path = policy.map(|policy| file(broker, "policy.json", &policy.to_string()));
    let mut arguments = vec!["key", "create"];
    arguments.extend(
        path.as_deref()
            .map(|path| ["--policy", path])
            .iter()
            .flatten(),
    );
    let key = done_json(broker, &arguments);
    let text = |name: &str| key[name].as_str().unwrap().to_owned();
    Api {
        key_id: text("AccessKeyId"),
        secret: text("AccessKeySecret"),
        ..broker.api()
    }
}

fn policy(statements: &[(&str, &[&str], &str)]) -> Value {
    let statements: Vec<_> = statements
        .iter()
        .map(|(effect, actions, resource)| {
            json!({"Effect": effect, "Action": actions, "Resource": resource})
        })
        .collect();
    json!({"Version": "1", "Statement": statements})
}

#[test]
fn host_administrator_needs_no_key_and_no_proof_and_the_audit_log_says_so() {
    let broker = Broker::start();
    let ca = Ca::root("a CA without its key here");
    let device = ca.device("device");
    let pem = file(&broker, "ca.pem", &ca.pem());
    assert!(!broker.admits(&device));
    let out = done(&broker, &["ca", "register", "supplier", &pem]);
    assert!(out.contains("Nobody proved"), "{out}");
    let live = broker.client(&device, Version::V13).connect().unwrap();
    let out = done(&broker, &["ca", "inactivate", "supplier"]);
    assert!(out.contains("1 live connection was ended"), "{out}");
    live.wait_end();
    assert!(!broker.admits(&device));
    done(&broker, &["ca", "activate", "supplier"]);
    assert!(broker.admits(&device));

    let records = broker.audit_records();
    let of = |phase: &str| {
        let mut all = records.iter().rev();
        all.find(|it| it["action"] == "RegisterCaCertificate" && it["phase"] == phase)
            .unwrap_or_else(|| panic!("{records:?}"))
    };
    let intent = of("intent");
    assert_eq!(intent["origin"]["door"], "host");
    let principal = intent["origin"]["principal"].as_str().unwrap();
    assert!(principal.starts_with("host:"), "{principal}");
    let detail = intent["detail"].as_str().unwrap();
    assert!(detail.contains("without proof of possession"), "{detail}");
}

#[test]
fn registration_over_the_network_demands_the_proof() {
    let broker = Broker::start();
    let ca = Ca::root("unproved");
    let answer = broker.api().call(
        "RegisterCaCertificate",
        &[("CaName", "x"), ("CaContent", &ca.pem())],
    );
    assert_eq!(answer.code(), "ParameterFieldCheckFailed");
    let pem = file(&broker, "ca.pem", &ca.pem());
    let refused = broker.cli(&["ca", "register", "x", &pem]);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("--verification"),
        "{}",
        refused.stderr
    );
}

#[test]
fn socket_is_for_the_broker_and_root_only() {
    let broker = Broker::start();
    let mode = std::fs::metadata(socket(&broker))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    if !nix_is_root() {
        // Only root can try as somebody else.
        return;
    }
    // Even who could reach the file is turned away by the broker.
    let open = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    for directory in [broker.home().path(), &broker.data()] {
        open(directory, 0o711);
    }
    open(&socket(&broker), 0o666);
    let code = r#"
import os, socket, sys
os.setgid(65534); os.setuid(65534)
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
try:
    s.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
    print(s.recv(10))
except (BrokenPipeError, ConnectionResetError):
    print(b"")
"#;
    let mut command = Command::new("python3");
    command.arg("-c").arg(code).arg(socket(&broker));
    let tried = Process::spawn(&mut command).finish();
    assert_eq!(tried.stdout.trim(), "b''", "{}", tried.stderr);
    broker.wait_log("the refusal", |line| {
        line.contains("local admin connection refused")
    });
}

fn nix_is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout == b"0\n"
}

#[test]
fn created_key_signs_at_once_and_after_a_restart_until_it_is_disabled() {
    let broker = Broker::start();
    let mut api = create(&broker, None);
    let sn = api.sn_of("ca-a");
    let listed = done(&broker, &["key", "list"]);
    assert!(listed.contains(&api.key_id), "{listed}");
    assert!(!listed.contains(&api.secret), "{listed}");

    let broker = Broker::restart(broker.stop());
    api.address = broker.admin;
    assert_eq!(api.status(&sn), "1");
    done(&broker, &["key", "disable", &api.key_id, "--yes"]);
    let answer = api.call("GetCaCertificate", &[("Sn", &sn)]);
    assert_eq!(answer.code(), "InvalidAccessKeyId.Inactive");

    let broker = Broker::restart(broker.kill9());
    api.address = broker.admin;
    let answer = api.call("GetCaCertificate", &[("Sn", &sn)]);
    assert_eq!(answer.code(), "InvalidAccessKeyId.Inactive");
    done(&broker, &["key", "enable", &api.key_id]);
    assert_eq!(api.status(&sn), "1");
    done(&broker, &["key", "delete", &api.key_id, "--yes"]);
    let answer = api.call("GetCaCertificate", &[("Sn", &sn)]);
    assert_eq!(answer.code(), "InvalidAccessKeyId.NotFound");
    assert_eq!(answer.status, 404);
    let gone = host(&broker, &["key", "enable", &api.key_id]);
    assert_eq!(gone.code, 4, "{}", gone.stderr);

    // The audit log has all of it, and not the secret.
    let records = broker.audit_records();
    for action in ["CreateAccessKey", "UpdateAccessKey", "DeleteAccessKey"] {
        assert!(records.iter().any(|it| it["action"] == action), "{action}");
    }
    assert!(
        !serde_json::to_string(&records)
            .unwrap()
            .contains(&api.secret)
    );
}

#[test]
fn key_does_what_its_policy_allows_and_denial_wins() {
    let broker = Broker::start();
    let resource = format!("acs:mq:cn-hangzhou:dev-account:{INSTANCE}");
    let api = create(
        &broker,
        Some(&policy(&[
            ("Allow", &["mq:*"], &resource),
            ("Deny", &["mq:UnregisterCaCertificate"], "acs:mq:*:*:*"),
        ])),
    );
    let sn = api.sn_of("ca-a");
    let mut sdk = Sdk::new(&broker, Style::Sync);
    sdk.api = api.clone();
    let error = sdk.error("InactivateCaCertificate", json!({"Sn": sn}));
    assert_eq!(error["code"], "PermissionCheckFailed", "{error}");
    assert_eq!(error["status"], 403);
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("Failed to verify API permissions."),
        "{message}"
    );
    assert!(message.contains("mq:UnregisterCaCertificate"), "{message}");
    assert_eq!(api.status(&sn), "1");
    let refused = broker.audit_records();
    let last = refused.last().unwrap();
    assert_eq!(last["phase"], "refused");
    assert_eq!(
        last["origin"]["principal"],
        format!("access_key:{}", api.key_id)
    );

    // Another policy is in force from the next call on.
    let reads = policy(&[("Allow", &["mq:Get*", "mq:MqttInstanceAccess"], "*")]);
    let path = file(&broker, "reads.json", &reads.to_string());
    done(&broker, &["key", "set-policy", &api.key_id, &path]);
    assert_eq!(api.status(&sn), "1");
    let page = [("PageNo", "1"), ("PageSize", "1")];
    let answer = api.call("ListCaCertificate", &page);
    assert_eq!(answer.code(), "PermissionCheckFailed");
    done(&broker, &["key", "set-policy", &api.key_id, "--everything"]);
    api.inactivate(&sn);
}

#[test]
fn key_of_another_account_or_another_resource_gets_the_documented_refusal() {
    let broker = Broker::start();
    let foreign = done_json(&broker, &["key", "create", "--account", "somebody"]);
    assert_eq!(foreign["OwnsAnInstance"], false);
    let text = |name: &str| foreign[name].as_str().unwrap().to_owned();
    let foreign = Api {
        key_id: text("AccessKeyId"),
        secret: text("AccessKeySecret"),
        ..broker.api()
    };
    let answer = foreign.call("GetRegisterCode", &[]);
    assert_eq!(
        (answer.code().as_str(), answer.status),
        ("MqttOwnerCheckError", 500)
    );
    let sn = broker.api().sn_of("ca-a");
    let answer = foreign.call("InactivateCaCertificate", &[("Sn", &sn)]);
    assert_eq!(
        (answer.code().as_str(), answer.status),
        ("MqttOwnerCheckError", 403)
    );

    let elsewhere = policy(&[("Allow", &["*"], "acs:mq:*:*:post-cn-other")]);
    let api = create(&broker, Some(&elsewhere));
    let answer = api.call("InactivateCaCertificate", &[("Sn", &sn)]);
    assert_eq!(
        (answer.code().as_str(), answer.status),
        ("PermissionCheckFailed", 403)
    );
    let params = [("MqttInstanceId", "post-cn-none"), ("Sn", sn.as_str())];
    let answer = api.send(&api.request("InactivateCaCertificate", &params));
    assert_eq!(
        (answer.code().as_str(), answer.status),
        ("MqttInstanceNotFound", 500)
    );
}

#[test]
fn policy_that_is_not_understood_makes_no_key() {
    let broker = Broker::start();
    let before = done_json(&broker, &["key", "list"]);
    for (text, says) in [
        (
            r#"{"Version":"1","Statement":[{"Effect":"Allow","Action":"mq:InactivateCaCertificate","Resource":"*"}]}"#,
            "mq:UnregisterCaCertificate",
        ),
        (
            r#"{"Version":"1","Statement":[{"Effect":"Allow","Action":"*","Resource":"*","Condition":{}}]}"#,
            "Condition",
        ),
        ("nothing", "not a policy"),
    ] {
        let path = file(&broker, "bad.json", text);
        let refused = host(&broker, &["key", "create", "--policy", &path]);
        assert_eq!(refused.code, 1, "{}", refused.stderr);
        assert!(refused.stderr.contains(says), "{}", refused.stderr);
    }
    assert_eq!(done_json(&broker, &["key", "list"]), before);
}

#[test]
fn key_file_is_private_complete_and_never_overwritten() {
    let broker = Broker::start();
    let path = broker.home().path().join("operator.json");
    let path_text = path.to_str().unwrap();
    let out = done(
        &broker,
        &["key", "create", "--out", path_text, "--instance", INSTANCE],
    );
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let written = std::fs::read_to_string(&path).unwrap();
    let key: Value = serde_json::from_str(&written).unwrap();
    assert!(
        !out.contains(key["AccessKeySecret"].as_str().unwrap()),
        "{out}"
    );
    let endpoint = format!("http://{}", broker.admin);
    let mut command = program();
    command.args([
        "ca",
        "list",
        "--key-file",
        path_text,
        "--endpoint",
        &endpoint,
    ]);
    let listed = Process::spawn(&mut command).finish();
    assert_eq!(listed.code, 0, "{}", listed.stderr);
    let again = host(&broker, &["key", "create", "--out", path_text]);
    assert_eq!(again.code, 2, "{}", again.stderr);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), written);
}

#[test]
fn access_keys_cannot_be_managed_over_the_network() {
    let broker = Broker::start();
    let api = broker.api();
    for action in [
        "CreateAccessKey",
        "ListAccessKeys",
        "UpdateAccessKey",
        "DeleteAccessKey",
    ] {
        let answer = api.call(action, &[("Account", "dev-account")]);
        assert_eq!(answer.code(), "InvalidApi.NotFound", "{action}");
    }
    let refused = broker.cli(&["key", "list"]);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("--socket"), "{}", refused.stderr);
}

#[test]
fn command_line_says_when_no_broker_answers_on_the_socket() {
    let broker = Broker::start();
    let path = socket(&broker);
    assert!(path.exists());
    let home = broker.stop();
    assert!(!path.exists(), "it goes with the broker");
    let mut command = program();
    command.args(["ca", "list", "--socket"]).arg(&path);
    let finished = Process::spawn(&mut command).finish();
    assert_eq!(finished.code, 3, "{}", finished.stderr);
    assert!(
        finished.stderr.contains("admin.sock"),
        "{}",
        finished.stderr
    );
    // A broker that was killed leaves a socket behind; the next one takes its place.
    let broker = Broker::restart(Broker::restart(home).kill9());
    done(&broker, &["ca", "list"]);
}

#[test]
fn command_that_is_hinted_at_reaches_the_same_broker() {
    let broker = Broker::start();
    let options = format!(" --socket {}", socket(&broker).display());
    let code = done(&broker, &["ca", "register-code"]);
    let next =
        format!("portcullis ca register NAME CA.pem --verification verification.pem{options}");
    assert!(code.contains(&next), "{code}");
    for (arguments, hint) in [
        (["session", "show", "nobody"], "portcullis session list"),
        (["key", "show", "nobody"], "portcullis key list"),
        (["instance", "show", "nowhere"], "portcullis instance list"),
    ] {
        let refused = host(&broker, &arguments);
        assert_eq!(refused.code, 4, "{}", refused.stderr);
        let hint = format!("`{hint}{options}`");
        assert!(refused.stderr.contains(&hint), "{}", refused.stderr);
    }
}
