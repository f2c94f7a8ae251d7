//! Start and stop: what is made, what is kept, what is refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use crate::harness::Broker;
use crate::harness::broker::program;
use crate::harness::process::{Process, signal};

const CERTIFICATES: [&str; 12] = [
    "server-ca",
    "server",
    "ca-a",
    "device-a1",
    "device-a2",
    "ca-b",
    "ca-b-issuing",
    "device-b1",
    "device-b2",
    "ca-x",
    "device-x1",
    "admin",
];

#[test]
fn first_start_makes_everything_with_private_modes() {
    let broker = Broker::start();
    for name in CERTIFICATES {
        assert!(broker.cert(&format!("{name}.pem")).exists(), "{name}.pem");
        if name != "server-ca" {
            let key = broker.cert(&format!("{name}.key"));
            assert_eq!(mode(&key), 0o600, "{name}.key");
        }
    }
    assert_eq!(mode(&broker.cert("admin-key.json")), 0o600);
    for file in fs::read_dir(broker.data()).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(mode(&path) & 0o077, 0, "{}", path.display());
    }
    let key = fs::read_to_string(broker.cert("admin-key.json")).unwrap();
    let key: serde_json::Value = serde_json::from_str(&key).unwrap();
    assert_eq!(key["Endpoint"], format!("http://{}", broker.admin));
    let mut names: Vec<_> = broker
        .api()
        .list()
        .iter()
        .map(|ca| ca["CaName"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["ca-a", "ca-b", "ca-b-issuing"]);
}

#[test]
fn second_start_reuses_everything() {
    let broker = Broker::start();
    let before = contents(&broker);
    let serials: Vec<_> = broker.api().list();
    let broker = Broker::restart(broker.stop());
    let mut after = contents(&broker);
    let mut before = before;
    for files in [&mut before, &mut after] {
        // The endpoint in it follows the port that the system picked.
        files.retain(|(name, _)| name != "admin-key.json");
    }
    assert_eq!(before, after);
    assert_eq!(broker.api().list(), serials);
    assert!(broker.admits(&broker.identity("device-a1")));
}

#[test]
fn termination_signals_end_it_with_exit_code_0() {
    let mut broker = Broker::start();
    let client = broker.client(&broker.identity("device-a1"), crate::harness::Version::V13);
    let session = client.connect().unwrap();
    let finished = broker.terminate();
    assert_eq!(finished.code, 0, "{finished:?}");
    session.wait_end();

    let mut broker = Broker::restart(broker.home());
    signal(broker.process().id(), "INT");
    assert_eq!(broker.process().wait_exit().code(), Some(0));
}

#[test]
fn commands_that_are_printed_work_as_they_are() {
    let mut broker = Broker::start();
    broker.process().wait_stdout("the end of the tour", |line| {
        line.contains("The log follows").then_some(())
    });
    let printed = broker.process().stdout().join("\n");
    let line = |wanted: &str| {
        let found = printed.lines().find(|line| line.trim().starts_with(wanted));
        found
            .unwrap_or_else(|| panic!("no {wanted} in:\n{printed}"))
            .trim()
            .to_owned()
    };
    let shell = |command: &str| {
        let mut sh = std::process::Command::new("sh");
        Process::spawn(sh.args(["-c", command])).finish()
    };
    let publish = line("mosquitto_pub");
    assert_eq!(shell(&publish).code, 0, "{publish}");
    let inactivate = printed
        .lines()
        .find(|line| line.contains(" ca inactivate ") && !line.contains("cargo"))
        .unwrap()
        .trim();
    let done = shell(inactivate);
    assert_eq!(done.code, 0, "{inactivate}: {done:?}");
    assert_ne!(shell(&publish).code, 0, "refused now");
    let activate = printed
        .lines()
        .find(|line| line.contains(" ca activate ") && !line.contains("cargo"))
        .unwrap()
        .trim();
    assert_eq!(shell(activate).code, 0, "{activate}");
    assert_eq!(shell(&publish).code, 0, "{publish}");
    let listen = line("mosquitto_sub");
    let mut sh = std::process::Command::new("sh");
    let subscriber = Process::spawn(sh.args(["-c", &format!("exec stdbuf -oL {listen} -d")]));
    subscriber.wait_stdout("SUBACK", |line| line.contains("SUBACK").then_some(()));
}

#[test]
fn occupied_port_is_a_clear_failure() {
    let broker = Broker::start();
    let other = tempfile::tempdir().unwrap();
    let mut command = program();
    command
        .arg("serve")
        .arg("--data-dir")
        .arg(other.path().join("data"))
        .arg("--certs-dir")
        .arg(other.path().join("certs"))
        .args(["--mqtt-listen", &broker.mqtt.to_string()])
        .args(["--admin-listen", "127.0.0.1:0"]);
    let finished = Process::spawn(&mut command).finish();
    assert_eq!(finished.code, 1, "{finished:?}");
    assert!(
        finished.stderr.contains(&broker.mqtt.to_string()),
        "{finished:?}"
    );
}

#[test]
fn second_broker_on_the_same_data_is_refused() {
    let broker = Broker::start();
    let mut command = program();
    command
        .arg("serve")
        .arg("--data-dir")
        .arg(broker.data())
        .arg("--certs-dir")
        .arg(broker.home().path().join("certs"))
        .args(["--mqtt-listen", "127.0.0.1:0"])
        .args(["--admin-listen", "127.0.0.1:0"]);
    let finished = Process::spawn(&mut command).finish();
    assert_eq!(finished.code, 1, "{finished:?}");
    assert!(broker.admits(&broker.identity("device-a1")));
}

#[test]
fn real_configuration_never_makes_development_certificates() {
    // A development run provides the server certificate and the access key.
    let broker = Broker::start();
    let home = broker.stop();
    let real = Arc::new(tempfile::tempdir().unwrap());
    for name in ["server.pem", "server.key", "admin-key.json"] {
        fs::copy(home.path().join("certs").join(name), real.path().join(name)).unwrap();
    }
    fs::copy(
        home.path().join("certs/server-ca.pem"),
        real.path().join("server-ca.pem"),
    )
    .unwrap();
    let config = real.path().join("portcullis.toml");
    fs::write(
        &config,
        r#"
[[instance]]
id = "post-cn-dev00001"
account = "1234567890"
mqtt_listen = "127.0.0.1:0"
tls_certificate = "server.pem"
tls_key = "server.key"

[admin]
listen = "127.0.0.1:0"

[[admin.access_key]]
file = "admin-key.json"
account = "1234567890"
"#,
    )
    .unwrap();
    let mut broker = Broker::start_with_config(real.clone(), &config);
    assert!(!real.path().join("certs").exists());
    let key = fs::read_to_string(real.path().join("admin-key.json")).unwrap();
    let api = crate::harness::api::Api::from_key_file(broker.admin, &key);
    assert!(api.list().is_empty(), "no CA is registered by itself");

    let ca = crate::harness::pki::Ca::root("a CA of the customer's");
    api.register("customer", &ca);
    let device = ca.device("device");
    let client = crate::harness::tls::TlsClient::new(
        broker.mqtt,
        &real.path().join("server-ca.pem"),
        Some(&device),
        crate::harness::Version::V13,
    );
    assert!(client.admitted());
    assert_eq!(broker.terminate().code, 0);
    let pems = |path: &Path| fs::read_dir(path).unwrap().count();
    assert!(!real.path().join("certs").exists());
    assert!(pems(real.path()) <= 6, "nothing but data was made");
}

#[test]
fn bad_configuration_exits_64_and_names_all_faults() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("bad.toml");
    fs::write(
        &config,
        r#"
[[instance]]
id = "not an id"
mqtt_listen = "nowhere"

[tls]
min_version = "1.0"

[admin]
listen = "127.0.0.1:notaport"
"#,
    )
    .unwrap();
    let mut command = program();
    command.arg("serve").arg("--config").arg(&config);
    let finished = Process::spawn(&mut command).finish();
    assert_eq!(finished.code, 64, "{finished:?}");
    for fault in [
        "id",
        "mqtt_listen",
        "min_version",
        "listen",
        "1.0",
        "nowhere",
    ] {
        assert!(finished.stderr.contains(fault), "{fault}: {finished:?}");
    }
    let mut command = program();
    command.args(["serve", "--config", "/does/not/exist.toml"]);
    let finished = Process::spawn(&mut command).finish();
    assert_eq!(finished.code, 64, "{finished:?}");
    assert!(finished.stderr.contains("/does/not/exist.toml"));
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn contents(broker: &Broker) -> Vec<(String, Vec<u8>)> {
    let directory = broker.home().path().join("certs");
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn running_broker_leaves_no_core_and_tells_its_supervisor() {
    use std::os::unix::net::UnixDatagram;
    let home = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let path = home.path().join("notify");
    let supervisor = UnixDatagram::bind(&path).unwrap();
    supervisor
        .set_read_timeout(Some(crate::harness::DEADLINE))
        .unwrap();
    let mut broker = Broker::start_with_environment(home, &[("NOTIFY_SOCKET", &path)]);
    let mut heard = [0; 256];
    let octets = supervisor.recv(&mut heard).unwrap();
    assert_eq!(&heard[..octets], b"READY=1\n");
    let limits = format!("/proc/{}/limits", broker.process().id());
    let limits = std::fs::read_to_string(limits).unwrap();
    let core = limits.lines().find(|line| line.contains("core file size"));
    let core: Vec<_> = core.unwrap().split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"], "soft and hard: {core:?}");
    broker.process().terminate();
    let octets = supervisor.recv(&mut heard).unwrap();
    assert_eq!(&heard[..octets], b"STOPPING=1\n");
}
