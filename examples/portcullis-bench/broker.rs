//! The contenders: how each is found, set up and started.

pub mod floor;
mod mosquitto;
mod nats;
mod portcullis;
mod rmqtt;
mod rumqttd;

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use clap::ValueEnum;
use tempfile::TempDir;

use crate::Result;
use crate::machine::first_line;
use crate::process::Process;

pub use self::portcullis::{INSTANCE, Seed};

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Kind {
    /// This broker.
    Portcullis,
    /// A bare tokio-rustls server that verifies and answers CONNACK: nobody can do with less.
    Floor,
    /// Eclipse Mosquitto, of the system.
    Mosquitto,
    /// NATS server, of the system.
    Nats,
    /// rmqttd of crates.io.
    Rmqtt,
    /// rumqttd of crates.io: its router is in Portcullis, its own TLS server is not.
    Rumqttd,
}

impl Kind {
    pub const ALL: [Self; 6] = [
        Self::Portcullis,
        Self::Floor,
        Self::Mosquitto,
        Self::Nats,
        Self::Rmqtt,
        Self::Rumqttd,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Portcullis => "Portcullis",
            Self::Floor => "floor",
            Self::Mosquitto => "mosquitto",
            Self::Nats => "NATS",
            Self::Rmqtt => "rmqtt",
            Self::Rumqttd => "rumqttd",
        }
    }

    /// Whether it carries messages.
    pub fn routes(self) -> bool {
        self != Self::Floor
    }
}

/// The programs that were found.
pub struct Programs(BTreeMap<Kind, Program>);

struct Program {
    path: PathBuf,
    version: String,
}

impl Programs {
    /// Look for those of `kinds`; the ones that are not there are told and left out.
    pub fn find(portcullis: PathBuf, kinds: &[Kind]) -> Result<Self> {
        let mut found = BTreeMap::new();
        for kind in kinds {
            let path = match kind {
                Kind::Portcullis => Some(portcullis.clone()),
                Kind::Floor => Some(std::env::current_exe()?),
                Kind::Mosquitto => on_path("mosquitto"),
                Kind::Nats => on_path("nats-server"),
                Kind::Rmqtt => installed("rmqttd"),
                Kind::Rumqttd => installed("rumqttd"),
            };
            let Some(path) = path else {
                println!("{} is not there and left out{}", kind.name(), hint(*kind));
                continue;
            };
            let version = match kind {
                Kind::Floor => Some("rustls, as in Portcullis".to_owned()),
                Kind::Mosquitto => first_line(Command::new(&path).arg("-h")),
                Kind::Rmqtt | Kind::Rumqttd => version_installed(*kind),
                Kind::Portcullis | Kind::Nats => first_line(Command::new(&path).arg("--version")),
            };
            let version = version.unwrap_or_else(|| "unknown version".to_owned());
            found.insert(*kind, Program { path, version });
        }
        Ok(Self(found))
    }

    /// Those that are there, in the order in which tables show them.
    pub fn kinds(&self) -> Vec<Kind> {
        self.0.keys().copied().collect()
    }

    /// Names and versions in one line.
    pub fn about(&self) -> String {
        let versions = self.0.iter();
        let versions =
            versions.map(|(kind, program)| format!("{}: {}", kind.name(), program.version));
        versions.collect::<Vec<_>>().join("; ")
    }

    /// Start one with certificates from `certs`. Somebody else may take the port that was free, so
    /// it is tried again.
    pub fn start(&self, kind: Kind, certs: &Path, seed: Option<&Seed>) -> Result<Broker> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.try_start(kind, certs, seed) {
                Err(_) if attempts < ATTEMPTS => {}
                started => return started,
            }
        }
    }

    fn try_start(&self, kind: Kind, certs: &Path, seed: Option<&Seed>) -> Result<Broker> {
        let program = &self.0.get(&kind).ok_or("no such contender")?.path;
        let directory = tempfile::Builder::new()
            .prefix("portcullis-bench-")
            .tempdir()?;
        let port = free_port()?;
        let at = Place {
            program,
            certs,
            directory: directory.path(),
            port,
        };
        let (mut command, admin) = match kind {
            Kind::Portcullis => portcullis::command(&at, seed)?,
            Kind::Floor => (floor::command(&at)?, None),
            Kind::Mosquitto => (mosquitto::command(&at)?, None),
            Kind::Nats => (nats::command(&at)?, None),
            Kind::Rmqtt => (rmqtt::command(&at)?, None),
            Kind::Rumqttd => (rumqttd::command(&at)?, None),
        };
        let log = directory.path().join("output.log");
        let began = Instant::now();
        let mut process = Process::start(command.current_dir(directory.path()), &log)?;
        let listens = || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
        // The socket of the administrators is made when everything is loaded. Before that nobody is
        // accepted: to look by connecting would fill the queue, and who waits behind it is told to
        // try again in a second.
        let is_ready = || admin.as_ref().is_none_or(|socket| socket.exists()) && listens();
        process.wait_until(is_ready, &log)?;
        if kind == Kind::Rumqttd {
            rumqttd::set_nodelay(process.pid())?;
        }
        Ok(Broker {
            address: (Ipv4Addr::LOCALHOST, port).into(),
            began,
            admin,
            process,
            _directory: directory,
        })
    }
}

/// What a broker is set up with.
struct Place<'a> {
    program: &'a Path,
    /// Has `ca.pem`, `server.pem` and `server.key`.
    certs: &'a Path,
    /// Its own.
    directory: &'a Path,
    /// For MQTT over TLS.
    port: u16,
}

impl Place<'_> {
    fn cert(&self, name: &str) -> String {
        self.certs.join(name).display().to_string()
    }

    /// Write its configuration.
    fn configure(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.directory.join(name);
        fs::write(&path, text)?;
        Ok(path)
    }
}

/// One that runs; it ends with this value, and its files with it.
pub struct Broker {
    pub address: SocketAddr,
    /// When its process was started.
    pub began: Instant,
    /// The socket for its administrators.
    pub admin: Option<PathBuf>,
    pub process: Process,
    _directory: TempDir,
}

/// Build the broker that is measured; gives the program.
pub fn build_portcullis() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args([
            "build",
            "--quiet",
            "--release",
            "--locked",
            "--bin",
            "portcullis",
        ])
        .status()?;
    if !status.success() {
        return Err("the broker does not build".into());
    }
    // This program is in `examples/` of the directory that it is in.
    let this = std::env::current_exe()?;
    let directory = this.parent().and_then(Path::parent);
    Ok(directory.ok_or("where am I?")?.join("portcullis"))
}

/// Build the peers of crates.io into `target/peers`.
pub fn install_peers() -> Result<()> {
    for (name, more) in [rmqtt::INSTALL, rumqttd::INSTALL] {
        let status = Command::new("cargo")
            .args(["install", "--root"])
            .arg(peers())
            .arg(name)
            .args(more)
            .status()?;
        if !status.success() {
            return Err(format!("{name} does not build").into());
        }
    }
    Ok(())
}

fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers")
}

fn installed(name: &str) -> Option<PathBuf> {
    let path = peers().join("bin").join(name);
    path.exists().then_some(path)
}

/// As cargo remembers it.
fn version_installed(kind: Kind) -> Option<String> {
    let list = Command::new("cargo")
        .args(["install", "--list", "--root"])
        .arg(peers())
        .output()
        .ok()?;
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    let wanted = match kind {
        Kind::Rmqtt => "rmqttd ",
        _ => "rumqttd ",
    };
    let line = list.lines().find(|line| line.starts_with(wanted))?;
    Some(line.trim_end_matches(':').to_owned())
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let system = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let mut all = std::env::split_paths(&path).chain(system);
    all.find_map(|directory| Some(directory.join(name)).filter(|path| path.is_file()))
}

fn hint(kind: Kind) -> &'static str {
    match kind {
        Kind::Mosquitto => " (apt-get install mosquitto)",
        Kind::Nats => " (apt-get install nats-server)",
        Kind::Rmqtt | Kind::Rumqttd => " (--install builds it)",
        Kind::Portcullis | Kind::Floor => "",
    }
}

/// A port that was free just now.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

/// How often a start is tried.
const ATTEMPTS: usize = 3;
