use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use super::*;
use crate::mqtt::access::rules::{AccessSettings, Action, Effect, Only, Rule};

mod addresses;

const MINIMAL: &str = include_str!("../../config/minimal.toml");
const FULL: &str = include_str!("../../config/full.toml");

/// A directory with the files that a configuration names, private as they must be.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write("server.pem", "");
        files.write("server.key", "");
        files.write("admin-ca.pem", "");
        files.write("admin-server.key", "");
        let collector = crate::testing::TestCa::root("collector", 1).pem();
        files.write("collector-ca.pem", &collector);
        let key = r#"{"AccessKeyId": "operator", "AccessKeySecret": "s3cret", "Endpoint": "x"}"#;
        files.write("admin-key.json", key);
        files.write("secret-encryption.key", &"0123456789abcdef".repeat(4));
        let policy = r#"{"Version": "1", "Statement": [{"Effect": "Allow", "Action": "mq:*", "Resource": "*"}]}"#;
        files.write("policy.json", policy);
        files
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// Load the text with `/etc/portcullis` standing for this directory.
    fn load(&self, text: &str) -> Result<Config, ConfigError> {
        let text = text.replace("/etc/portcullis", self.0.path().to_str().unwrap());
        let path = self.write("portcullis.toml", &text);
        Config::load(&path, &Overrides::default())
    }

    fn faults(&self, text: &str) -> Vec<Fault> {
        match self.load(text) {
            Err(ConfigError::Faults { faults, .. }) => faults,
            other => panic!("{other:?}"),
        }
    }
}

fn keys(faults: &[Fault]) -> Vec<&str> {
    faults.iter().map(|fault| fault.key.as_str()).collect()
}

#[test]
fn minimal_file_loads() {
    let config = Files::new().load(MINIMAL).unwrap();
    assert_eq!(config.instances[0].mqtt_listen.port(), 8883);
    assert_eq!(config.admin.access_keys[0].id.as_str(), "operator");
    assert_eq!(config.audit_path, Path::new("data/audit.log"));
    assert!(config.development.is_none());
    assert!(!format!("{config:?}").contains("s3cret"));
}

#[test]
fn full_file_loads() {
    let config = Files::new().load(FULL).unwrap();
    assert!(config.admin.control_channel.is_some());
    assert!(config.admin.secret_encryption.is_some());
    assert!(config.admin.access_keys[0].policy.is_some());
    let [crl] = config.instances[0].crls.as_slice() else {
        panic!("{:?}", config.instances[0].crls)
    };
    assert_eq!(crl.ca.as_deref(), Some("plant 7"));
    assert!(crl.path.ends_with("crls"));
    assert_eq!(config.crl_poll, Duration::from_secs(10));
    assert_eq!(config.admin.requests.crl, 192 << 20);
    assert_eq!(
        config.admin.socket.as_deref(),
        Some(Path::new("data/admin.sock"))
    );
}

/// The minimal file with these lines in its instance.
fn with_access(lines: &str) -> String {
    MINIMAL.replace(
        "[[admin.access_key]]",
        &format!("{lines}\n[[admin.access_key]]"),
    )
}

#[test]
fn access_is_open_without_rules_and_closed_beside_them_unless_the_file_says_otherwise() {
    let settings = |lines: &str| {
        let config = Files::new().load(&with_access(lines)).unwrap();
        config.instances[0].mqtt.access.clone()
    };
    let rule = Rule {
        effect: Effect::Deny,
        action: Action::Publish,
        topic: "a/${ca_sn}".parse().unwrap(),
        cas: Only::OneOf(vec!["0a0b".parse().unwrap()]),
        common_names: Only::Any,
    };
    let of = |rules: &[Rule], default| AccessSettings::new(rules.to_vec(), default).unwrap();
    let written = r#"
        [[instance.access]]
        effect = "deny"
        action = "publish"
        topic = "a/${ca_sn}"
        ca = ["A:0B"]
    "#;
    let with = |default: &str| settings(&format!("access_default = \"{default}\"{written}"));
    assert_eq!(settings(""), of(&[], Effect::Allow));
    assert_eq!(settings("access_default = \"deny\""), of(&[], Effect::Deny));
    let rules = [rule];
    assert_eq!(settings(written), of(&rules, Effect::Deny));
    assert_eq!(with("deny"), of(&rules, Effect::Deny));
    assert_eq!(with("allow"), of(&rules, Effect::Allow));
}

#[test]
fn example_in_the_document_on_access_rules_loads() {
    let document = include_str!("../../docs/access-rules.md");
    let example = document.split("```").nth(1).unwrap();
    let (before, rules) = example
        .strip_prefix("toml")
        .unwrap()
        .split_once("# …")
        .unwrap();
    let (instance, rest) = MINIMAL.split_once("[[admin").unwrap();
    let (_, instance) = instance.split_once("example01\"").unwrap();
    let text = format!("{before}{instance}{rules}\n[[admin{rest}");
    let config = Files::new().load(&text).unwrap();
    assert_ne!(config.instances[0].mqtt.access, AccessSettings::default());
}

#[test]
fn faults_of_access_rules_are_reported_at_once() {
    let faults = Files::new().faults(&with_access(
        r#"
        access_default = "perhaps"
        [[instance.access]]
        [[instance.access]]
        effect = "permit"
        action = "read"
        topic = "a/${user}"
        ca = []
        common_name = ["x"]
        [[instance.access]]
        effect = "allow"
        action = "both"
        topic = "$SYS/#"
        ca = ["0a", "ca-a"]
        "#,
    ));
    assert_eq!(
        keys(&faults),
        [
            "instance[0].access_default",
            "instance[0].access[0].effect",
            "instance[0].access[0].action",
            "instance[0].access[0].topic",
            "instance[0].access[1].effect",
            "instance[0].access[1].action",
            "instance[0].access[1].topic",
            "instance[0].access[1].ca",
            "instance[0].access[2].topic",
            "instance[0].access[2].ca[1]",
        ]
    );
    assert!(faults[6].what.contains("common_name"), "{}", faults[6]);
    let rule = "[[instance.access]]\neffect = \"allow\"\naction = \"both\"\ntopic = \"a\"\n";
    let faults = Files::new().faults(&with_access(&rule.repeat(1_001)));
    assert_eq!(keys(&faults), ["instance[0].access"]);
    assert!(faults[0].what.contains("1000"), "{}", faults[0]);
}

#[test]
fn what_the_admin_door_cannot_use_is_named() {
    let files = Files::new();
    files.write("secret-encryption.key", "secret words");
    files.write("policy.json", r#"{"Version": "1", "Statement": [{}]}"#);
    let text = FULL.replace("data/admin.sock", &format!("/{}", "s".repeat(107)));
    let faults = files.faults(&text);
    assert_eq!(
        keys(&faults),
        [
            "admin.access_key[0].policy",
            "admin.socket",
            "admin.secret_encryption_file"
        ]
    );
    assert!(!format!("{faults:?}").contains("secret words"));
    let off = files.load(&MINIMAL.replace("[[admin.", "[admin]\nsocket = \"\"\n[[admin."));
    assert_eq!(off.unwrap().admin.socket, None);
}

#[test]
fn crl_without_a_file_and_limits_out_of_range_are_named() {
    let text = MINIMAL.replace("[[admin.", "[[instance.crl]]\nca = \"x\"\n[[admin.")
        + "\n[registry]\nmax_crl_bytes = 1\ncrl_poll_seconds = 0\nmax_crls = 0\n";
    assert_eq!(
        keys(&Files::new().faults(&text)),
        [
            "instance[0].crl[0].path",
            "registry.max_crls",
            "registry.max_crl_bytes",
            "registry.crl_poll_seconds"
        ]
    );
}

#[test]
fn forwarding_without_a_place_or_trust_is_named() {
    let files = Files::new();
    files.write("empty.pem", "no certificate");
    let fault = |lines: &str| {
        let faults = files.faults(&format!("{MINIMAL}\n[audit.forward]\n{lines}\n"));
        let [fault] = faults.as_slice() else {
            panic!("{faults:?}")
        };
        (fault.key.clone(), fault.what.clone())
    };
    for (lines, key, what) in [
        ("", "to", "required"),
        ("to = \"syslog\"", "to", "must be \"unix:PATH\""),
        ("to = \"file:/tmp/x\"", "to", "must be \"unix:PATH\""),
        ("to = \"unix:\"", "to", "must be \"unix:PATH\""),
        ("to = \"udp:host\"", "to", "a host and a port"),
        ("to = \"tcp:host:0\"", "to", "a host and a port"),
        ("to = \"tcp:host:66000\"", "to", "a host and a port"),
        ("to = \"tcp:::1:514\"", "to", "a host and a port"),
        ("to = \"tcp:[::z]:514\"", "to", "a host and a port"),
        ("to = \"tls:host:6514\"", "to", "audit.forward.ca_file"),
        (
            "to = \"udp:host:514\"\nformat = \"xml\"",
            "format",
            "must be one of",
        ),
        (
            "to = \"tls:h:1\"\nca_file = \"/etc/portcullis/none.pem\"",
            "ca_file",
            "cannot be read",
        ),
        (
            "to = \"tls:h:1\"\nca_file = \"/etc/portcullis/empty.pem\"",
            "ca_file",
            "no certificate",
        ),
        (
            "to = \"tcp:h:1\"\nca_file = \"/etc/portcullis/collector-ca.pem\"",
            "to",
            "only tls: has",
        ),
        (
            "to = \"tls:a b:1\"\nca_file = \"/etc/portcullis/collector-ca.pem\"",
            "to",
            "no name",
        ),
    ] {
        let found = fault(lines);
        assert_eq!(found.0, format!("audit.forward.{key}"), "{lines}");
        assert!(found.1.contains(what), "{lines}: {}", found.1);
    }
    for to in [
        "unix:/dev/log",
        "udp:127.0.0.1:514",
        "tcp:[::1]:601",
        "tcp:logs.example.com:601",
    ] {
        let config = files.load(&format!("{MINIMAL}\n[audit.forward]\nto = \"{to}\"\n"));
        let forward = config.unwrap().audit_forward.unwrap();
        assert_eq!(forward.to.to_string(), to);
        assert_eq!(forward.format, crate::audit::Format::Syslog);
    }
    assert!(files.load(MINIMAL).unwrap().audit_forward.is_none());
}

#[test]
fn limits_for_each_address_are_none_at_zero() {
    let files = Files::new();
    let limits = |text: &str| {
        let config = files.load(text).unwrap();
        config.instances[0].mqtt.limits.per_address.clone()
    };
    assert_eq!(limits(MINIMAL), Default::default());
    let none = "[tls]\nmax_handshakes_per_address = 0\n[mqtt]\nmax_connections_per_address = 0\n";
    let none = limits(&format!("{none}{MINIMAL}"));
    assert_eq!((none.connections, none.handshakes), (None, None));
    let some = "[mqtt]\nmax_connects_per_second_per_address = 7\n";
    let some = limits(&format!("{some}{MINIMAL}"));
    assert_eq!(some.connects_per_second.map(|it| it.get()), Some(7));
}

#[test]
fn region_is_a_part_of_resource_names() {
    let text = MINIMAL.replace("[[instance]]", "[[instance]]\nregion = \"a:b\"");
    assert_eq!(keys(&Files::new().faults(&text)), ["instance[0].region"]);
}

#[test]
fn development_file_loads_with_and_without_overrides() {
    let config = Config::development(None, &Overrides::default()).unwrap();
    assert_eq!(config.instances[0].id.as_str(), "post-cn-dev00001");
    assert_eq!(
        config.instances[0].mqtt_listen,
        "127.0.0.1:8883".parse().unwrap()
    );
    assert_eq!(config.admin.listen, "127.0.0.1:8080".parse().unwrap());

    let overrides = Overrides {
        data_dir: Some("elsewhere".into()),
        mqtt_listen: Some("127.0.0.1:0".parse().unwrap()),
        admin_listen: Some("127.0.0.1:0".parse().unwrap()),
    };
    let config = Config::development(Some("c".into()), &overrides).unwrap();
    assert_eq!(config.data_dir, Path::new("elsewhere"));
    assert_eq!(config.audit_path, Path::new("elsewhere/audit.log"));
    assert_eq!(config.instances[0].tls_key, Path::new("c/server.key"));
    assert_eq!(config.instances[0].mqtt_listen.port(), 0);
    let channel = config.admin.control_channel.unwrap();
    assert_eq!(channel.ca, Path::new("c/admin-ca.pem"));
}

/// Every key there is, as JSON, with `null` for one that is not set.
fn json(file: &file::File) -> Value {
    serde_json::to_value(file).unwrap()
}

#[test]
fn full_file_names_every_key() {
    let written: Value = toml::from_str(FULL).unwrap();
    let read = json(&toml::from_str(FULL).unwrap());
    // A key that the file leaves out would stand in `read` only, as its default or null.
    assert_eq!(read, written);
}

#[test]
fn full_file_states_the_real_defaults() {
    fn compare(path: &str, default: &Value, stated: &Value) {
        match (default, stated) {
            // Has no default, or belongs to a section that may be left out.
            (Value::Null, _) => {}
            (Value::Object(default), Value::Object(stated)) => {
                for (key, default) in default {
                    compare(&format!("{path}.{key}"), default, &stated[key]);
                }
            }
            (Value::Array(default), _) if default.is_empty() => {}
            _ => assert_eq!(default, stated, "{path}"),
        }
    }
    let stated = json(&toml::from_str(FULL).unwrap());
    compare("", &json(&file::File::default()), &stated);
    let instance = serde_json::to_value(file::Instance::default()).unwrap();
    compare("instance", &instance, &stated["instance"][0]);
}

#[test]
fn every_line_with_a_key_is_explained() {
    for text in [FULL] {
        let lines: Vec<&str> = text.lines().collect();
        for pair in lines.windows(2) {
            if pair[1].contains(" = ") && !pair[1].starts_with('#') {
                assert!(pair[0].starts_with('#'), "no comment above {:?}", pair[1]);
            }
        }
    }
}

#[test]
fn all_faults_are_reported_at_once_with_key_and_value() {
    let files = Files::new();
    files.write("open.json", "{}");
    let open = files.0.path().join("open.json");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
    let faults = files.faults(
        r#"
        [[instance]]
        id = "a b"
        mqtt_listen = "localhost"
        on_inactivate = "perhaps"
        persistence = "maybe"
        tls_key = "/etc/portcullis/missing.key"
        [tls]
        handshake_timeout_seconds = 0
        [admin]
        listen = "127.0.0.1"
        [[admin.access_key]]
        file = "/etc/portcullis/open.json"
        account = "owner"
        [log]
        filter = "portcullis=loud"
        [mqtt]
        max_queued_age_seconds = 5000000000
        [store]
        checkpoint_seconds = 0
        [shutdown]
        grace_seconds = 4000
        save_seconds = 0
        "#,
    );
    assert_eq!(
        keys(&faults),
        [
            "mqtt.max_queued_age_seconds",
            "instance[0].id",
            "instance[0].account",
            "instance[0].mqtt_listen",
            "instance[0].tls_certificate",
            "instance[0].tls_key",
            "instance[0].on_inactivate",
            "instance[0].persistence",
            "tls.handshake_timeout_seconds",
            "admin.listen",
            "admin.access_key[0].file",
            "log.filter",
            "shutdown.grace_seconds",
            "shutdown.save_seconds",
            "store.checkpoint_seconds",
        ]
    );
    assert_eq!(
        faults[6].to_string(),
        r#"instance[0].on_inactivate = "perhaps": must be one of "cut", "keep""#
    );
    assert!(faults[10].what.contains("chmod 600"), "{}", faults[10]);
}

#[test]
fn unknown_key_is_refused_by_name() {
    let error = Files::new().load("[tls]\nhandshake_timout_seconds = 3\n");
    let error = error.unwrap_err().to_string();
    assert!(error.contains("handshake_timout_seconds"), "{error}");
    assert!(error.contains("line 2"), "{error}");
}

#[test]
fn two_instances_must_differ_in_id_and_in_how_they_are_reached() {
    let twice = MINIMAL.replace("[[admin", "\n[[admin");
    let instance: String = twice.split("[[admin").next().unwrap().to_owned();
    let faults = Files::new().faults(&format!("{instance}{instance}"));
    assert_eq!(
        keys(&faults),
        ["instance[1].id", "instance[1].server_names"]
    );
}

#[test]
fn access_key_file_that_is_not_one_is_told_without_its_content() {
    let files = Files::new();
    files.write(
        "admin-key.json",
        r#"{"AccessKeyId": "x", "AccessKeySecret": 77"#,
    );
    let faults = files.faults(MINIMAL);
    assert_eq!(keys(&faults), ["admin.access_key[0].file"]);
    assert!(!faults[0].to_string().contains("77"));
}
