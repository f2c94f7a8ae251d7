//! What the program runs on, and how it comes from a file.
//!
//! [`file::File`] mirrors what is written; [`Config`] is what the program runs on. The one
//! conversion between them reports everything that is wrong at once.

mod addresses;
mod convert;
mod convert_access;
mod convert_admin;
mod convert_audit;
mod convert_mqtt;
mod convert_reach;
pub mod fault;
pub mod file;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::admin::router::RequestLimits;
use crate::admin::server::ConnectionLimits;
use crate::admin::service::ServiceSettings;
use crate::audit::{Forward, Rotation};
use crate::ca::id::{AccessKeyId, AccountId, InstanceId};
use crate::ca::topology::SameKey;
use crate::control::policy::Policy;
use crate::control::seal::EncryptionKey;
use crate::control::{ControlSettings, OnInactivate};
use crate::mqtt;
use crate::mqtt::listener::Proxies;
use crate::mqtt::websocket::upgrade::Door;
use crate::telemetry::LogSettings;
use crate::tls::gates::GateName;
use crate::tls::server_config::{CipherOrder, TlsVersions};

pub use crate::secret::{self, Secret};
pub use addresses::{Listener, Wire};
pub use fault::{ConfigError, Fault};

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The instances to serve; at least one.
    pub instances: Vec<Instance>,
    /// Limits of the registry.
    pub registry: ControlSettings,
    /// How often the files of CRLs are looked at.
    pub crl_poll: Duration,
    /// TLS in front of the broker.
    pub tls: Tls,
    /// The admin API and the control topic.
    pub admin: Admin,
    /// Directory of the registry's database, and of the sessions that are kept.
    pub data_dir: PathBuf,
    /// How often what changed in sessions and retained messages is written.
    pub checkpoint: Duration,
    /// The audit log.
    pub audit_path: PathBuf,
    /// When the audit log goes on in a new file, and how many full ones are kept.
    pub audit_rotation: Rotation,
    /// Where its records are sent as well.
    pub audit_forward: Option<Forward>,
    /// The log of the program.
    pub log: LogSettings,
    /// How long everything may take to end when the program is told to.
    pub shutdown_grace: Duration,
    /// How long the sessions and retained messages of an instance may take to be written after
    /// that.
    pub save_limit: Duration,
    /// Set in the development mode.
    pub development: Option<Development>,
}

/// One named broker.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Its name in the API (`MqttInstanceId`).
    pub id: InstanceId,
    /// The account that owns it.
    pub account: AccountId,
    /// The region it says it is in.
    pub region: String,
    /// Where it listens for MQTT over TLS.
    pub mqtt_listen: SocketAddr,
    /// Where it listens for WebSocket over TLS, if it does.
    pub websocket: Option<WebSocket>,
    /// The proxies that stand before its addresses.
    pub proxies: Proxies,
    /// The server names by which clients ask for it there. Without, it takes the clients that
    /// ask for none of another instance's; with names, no others than those.
    pub server_names: Vec<GateName>,
    /// PEM file of the server's certificate, with intermediates after it.
    pub tls_certificate: PathBuf,
    /// PEM file of its key.
    pub tls_key: PathBuf,
    /// What becomes of connected devices when their CA or certificate is switched off.
    pub on_inactivate: OnInactivate,
    /// What one inactive certificate of a CA means for its others.
    pub same_key: SameKey,
    /// Files from which CRLs are imported whenever they change.
    pub crls: Vec<CrlSource>,
    /// Whether its sessions and retained messages survive a restart.
    pub persistence: Persistence,
    /// What its sessions are built from.
    pub mqtt: mqtt::settings::Settings,
}

/// A file, or a directory of files, from which CRLs are imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlSource {
    /// Where it is.
    pub path: PathBuf,
    /// Serial number or name of the CA whose list it must be; any registered one's if it is not
    /// said.
    pub ca: Option<String>,
}

/// MQTT over WebSocket.
#[derive(Debug, Clone)]
pub struct WebSocket {
    /// Where it is listened for.
    pub listen: SocketAddr,
    /// What clients may ask for there.
    pub door: Door,
}

/// Whether sessions and retained messages survive a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// They end with the process, and what was kept before is removed.
    Off,
    /// They are kept in the data directory.
    On,
}

/// TLS in front of the broker.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The versions that are spoken.
    pub versions: TlsVersions,
    /// How the cipher suite of a connection is chosen.
    pub cipher_order: CipherOrder,
    /// How long a client may take for the handshake.
    pub handshake_timeout: Duration,
}

/// The admin API and the control topic.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Where the API listens.
    pub listen: SocketAddr,
    /// What it speaks there.
    pub transport: AdminTransport,
    /// The socket for administrators on the host; none if it is switched off.
    pub socket: Option<PathBuf>,
    /// Encrypts the secrets of access keys where they are kept.
    pub secret_encryption: Option<EncryptionKey>,
    /// How calls are answered.
    pub service: ServiceSettings,
    /// What requests are bounded by.
    pub requests: RequestLimits,
    /// What connections are bounded by.
    pub connections: ConnectionLimits,
    /// Whether the older signature is taken.
    pub signature_v1: SignatureV1,
    /// The keys that may sign requests.
    pub access_keys: Vec<AccessKey>,
    /// Administrators inside the broker.
    pub control_channel: Option<ControlChannel>,
}

/// What the admin API speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminTransport {
    /// HTTPS.
    Tls {
        /// PEM file of the certificate, with intermediates after it.
        certificate: PathBuf,
        /// PEM file of its key.
        key: PathBuf,
    },
    /// HTTP; the requests are signed, but can be read by who is between.
    Plain,
}

/// Whether requests with the older signature (HMAC-SHA1) are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureV1 {
    /// They are refused.
    Refuse,
    /// They are taken.
    Accept,
}

/// A key that signs requests to the admin API.
#[derive(Debug, Clone)]
pub struct AccessKey {
    /// Public half.
    pub id: AccessKeyId,
    /// Secret half.
    pub secret: Secret,
    /// The account it belongs to.
    pub account: AccountId,
    /// What it may do; everything on its account's instances if there is none.
    pub policy: Option<Policy>,
}

/// Who may give commands through the control topic.
#[derive(Debug, Clone)]
pub struct ControlChannel {
    /// PEM file of the CA that signs administrators' certificates.
    pub ca: PathBuf,
    /// Common names of the administrators.
    pub common_names: Vec<String>,
}

/// What the development mode adds.
#[derive(Debug, Clone)]
pub struct Development {
    /// Directory of the generated certificates.
    pub certs_dir: PathBuf,
}

/// What the command line sets besides the file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// Directory of the database, and of the audit log if the file does not place it elsewhere.
    pub data_dir: Option<PathBuf>,
    /// Where the only instance listens.
    pub mqtt_listen: Option<SocketAddr>,
    /// Where the admin API listens.
    pub admin_listen: Option<SocketAddr>,
}

impl Config {
    /// Read and check the configuration file.
    ///
    /// # Errors
    /// If it cannot be read, or with everything that is wrong with it.
    pub fn load(path: &Path, overrides: &Overrides) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        let origin = format!("the configuration file {}", path.display());
        let file = parse(&origin, &text)?;
        convert::convert(file, overrides, None, &origin)
    }

    /// The configuration of the development mode, with certificates in `certs_dir` (by default
    /// `certs/dev`). The files need not exist yet.
    ///
    /// # Errors
    /// If what the command line sets does not fit.
    pub fn development(
        certs_dir: Option<PathBuf>,
        overrides: &Overrides,
    ) -> Result<Self, ConfigError> {
        let origin = "the built-in development configuration";
        let file = parse(origin, DEVELOPMENT)?;
        let certs_dir = certs_dir.unwrap_or_else(|| DEVELOPMENT_CERTS.into());
        convert::convert(file, overrides, Some(certs_dir), origin)
    }
}

/// The file that the development mode runs on.
const DEVELOPMENT: &str = include_str!("../config/dev.toml");

/// Where it has its certificates.
pub const DEVELOPMENT_CERTS: &str = "certs/dev";

fn parse(origin: &str, text: &str) -> Result<file::File, ConfigError> {
    toml::from_str(text).map_err(|error| ConfigError::Syntax {
        origin: origin.to_owned(),
        what: error.to_string().trim_end().to_owned(),
    })
}
