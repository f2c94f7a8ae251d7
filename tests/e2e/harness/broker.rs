//! The broker as a process of its own, on directories of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

use super::api::Api;
use super::process::{Finished, Process};
use super::tls::{Identity, TlsClient, Version};
use super::wait_until;
use super::wire::Door;

/// The instance of the development mode.
pub const INSTANCE: &str = "post-cn-dev00001";

/// A running broker; killed when dropped, its log shown if the scenario failed.
pub struct Broker {
    home: Arc<TempDir>,
    process: Option<Process>,
    /// Where it takes MQTT over TLS.
    pub mqtt: SocketAddr,
    /// Where it serves the admin API.
    pub admin: SocketAddr,
    /// `http` or `https`, which the admin API speaks.
    pub scheme: &'static str,
}

impl Broker {
    /// Start one in development mode on fresh directories.
    pub fn start() -> Self {
        let home = Arc::new(tempfile::tempdir().unwrap());
        Self::start_in(home)
    }

    fn start_in(home: Arc<TempDir>) -> Self {
        Self::start_with_environment(home, &[])
    }

    /// Start one in development mode with these environment variables.
    pub fn start_with_environment(home: Arc<TempDir>, variables: &[(&str, &PathBuf)]) -> Self {
        let mut command = program();
        command.envs(variables.iter().copied());
        command
            .arg("serve")
            .arg("--data-dir")
            .arg(home.path().join("data"))
            .arg("--certs-dir")
            .arg(home.path().join("certs"))
            .args(["--mqtt-listen", "127.0.0.1:0"])
            .args(["--admin-listen", "127.0.0.1:0"]);
        Self::run(home, &mut command)
    }

    /// Start one from a configuration file in its home directory.
    pub fn start_with_config(home: Arc<TempDir>, config: &Path) -> Self {
        let mut command = program();
        command.current_dir(home.path());
        command.arg("serve").arg("--config").arg(config);
        Self::run(home, &mut command)
    }

    /// Start one on the development certificates, but from a configuration file, with what
    /// `lines` gives in its instance. It is given a broker in development mode to look at.
    pub fn start_with_lines(lines: impl FnOnce(&Self) -> String) -> Self {
        let broker = Self::start();
        let lines = lines(&broker);
        let home = broker.stop();
        let config = home.path().join("portcullis.toml");
        let text = format!(
            r#"
[[instance]]
id = "{INSTANCE}"
account = "dev-account"
mqtt_listen = "127.0.0.1:0"
tls_certificate = "certs/server.pem"
tls_key = "certs/server.key"
{lines}

[admin]
listen = "127.0.0.1:0"

[[admin.access_key]]
file = "certs/admin-key.json"
account = "dev-account"

[admin.control_channel]
ca = "certs/admin-ca.pem"
common_names = ["admin"]
"#
        );
        fs::write(&config, text).unwrap();
        Self::start_with_config(home, &config)
    }

    fn run(home: Arc<TempDir>, command: &mut Command) -> Self {
        let process = Process::spawn(command);
        let mqtt = process.wait_stdout("the MQTT address", |line| address(line, "mqtts://"));
        let (scheme, admin) = process.wait_stdout("the admin address", |line| {
            let of = |scheme| Some((scheme, address(line, &format!("{scheme}://"))?));
            line.contains("Admin API")
                .then(|| of("http").or_else(|| of("https")))
                .flatten()
        });
        let broker = Self {
            home,
            process: Some(process),
            mqtt,
            admin,
            scheme,
        };
        wait_until("the broker is ready", || {
            (broker.door().get("/ready").ok()?.status == 200).then_some(())
        });
        broker
    }

    /// Its directory.
    pub fn home(&self) -> Arc<TempDir> {
        self.home.clone()
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// A file of its development certificates.
    pub fn cert(&self, name: &str) -> PathBuf {
        self.home.path().join("certs").join(name)
    }

    /// Its access key for the admin API.
    pub fn api(&self) -> Api {
        self.api_of("admin-key.json")
    }

    /// The access key in this file of its certificates.
    pub fn api_of(&self, file: &str) -> Api {
        let text = fs::read_to_string(self.cert(file)).unwrap();
        Api::from_key_file(self.admin, &text)
    }

    /// Its admin API, for requests that are made by hand.
    pub fn door(&self) -> Door {
        match self.scheme {
            "https" => Door::https(self.admin, &self.cert("server-ca.pem")),
            _ => Door::http(self.admin),
        }
    }

    /// One of its development identities, such as `device-a1`.
    pub fn identity(&self, name: &str) -> Identity {
        Identity::from_files(
            &self.cert(&format!("{name}.pem")),
            &self.cert(&format!("{name}.key")),
        )
    }

    /// A TLS client that trusts its server certificate and shows this identity.
    pub fn client(&self, identity: &Identity, version: Version) -> TlsClient {
        TlsClient::new(
            self.mqtt,
            &self.cert("server-ca.pem"),
            Some(identity),
            version,
        )
    }

    /// Whether the device gets in: handshake, CONNECT, CONNACK.
    pub fn admits(&self, identity: &Identity) -> bool {
        self.client(identity, Version::V13).admitted()
    }

    /// End it in order and check that it says so.
    pub fn stop(mut self) -> Arc<TempDir> {
        let finished = self.terminate();
        assert_eq!(finished.code, 0, "{}", finished.stderr);
        self.home.clone()
    }

    /// End it with SIGTERM and give what it left.
    pub fn terminate(&mut self) -> Finished {
        let process = self.process.take().unwrap();
        process.terminate();
        process.finish()
    }

    /// End it as a power cut of the process would.
    pub fn kill9(mut self) -> Arc<TempDir> {
        let mut process = self.process.take().unwrap();
        process.kill();
        self.home.clone()
    }

    /// Start it again on what is there.
    pub fn restart(home: Arc<TempDir>) -> Self {
        Self::start_in(home)
    }

    /// Wait for a line of its log.
    pub fn wait_log(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let process = self.process.as_ref().unwrap();
        process.wait_stderr(what, |line| wanted(line).then(|| line.to_owned()))
    }

    /// Do this, which ends a connection, and wait until the broker has seen to the end.
    pub fn until_left(&mut self, end: impl FnOnce()) {
        let mut ended = || {
            let log = self.process().stderr();
            let ends = log.iter().filter(|it| it.contains("client disconnected"));
            ends.count()
        };
        let before = ended();
        end();
        super::wait_until("the client has left", || (ended() > before).then_some(()));
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().unwrap()
    }

    /// Run the program with these arguments against it.
    pub fn cli(&self, arguments: &[&str]) -> Finished {
        let mut command = program();
        command
            .args(arguments)
            .arg("--key-file")
            .arg(self.cert("admin-key.json"));
        Process::spawn(&mut command).finish()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let (true, Some(process)) = (std::thread::panicking(), &self.process) {
            eprintln!("--- log of the broker\n{}", process.stderr().join("\n"));
        }
    }
}

/// The program under test, deaf to the settings of whoever runs the tests.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    for name in [
        "RUST_LOG",
        "HTTP_PROXY",
        "http_proxy",
        "NO_COLOR",
        "PORTCULLIS_SOCKET",
        "PORTCULLIS_ENDPOINT",
        "PORTCULLIS_KEY_FILE",
    ] {
        command.env_remove(name);
    }
    command
}

fn address(line: &str, scheme: &str) -> Option<SocketAddr> {
    let rest = line.split(scheme).nth(1)?;
    rest.split_whitespace().next()?.parse().ok()
}
