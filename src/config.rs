//! What the program runs on, and how it comes from a file.
//!
//! [`file::File`] mirrors what is written; [`Config`] is what the program runs on. The one
//! conversion between them reports everything that is wrong at once.

mod convert;
pub mod fault;
pub mod file;
pub mod secret;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::ca::id::{AccessKeyId, AccountId, InstanceId};
use crate::telemetry::LogSettings;

pub use fault::{ConfigError, Fault};
pub use secret::Secret;

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The instances to serve; at least one.
    pub instances: Vec<Instance>,
    /// TLS in front of the broker.
    pub tls: Tls,
    /// The admin API and the control topic.
    pub admin: Admin,
    /// Directory of the registry's database.
    pub data_dir: PathBuf,
    /// The audit log.
    pub audit_path: PathBuf,
    /// The log of the program.
    pub log: LogSettings,
    /// How long connections may take to end when the program does.
    pub shutdown_grace: Duration,
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
    /// PEM file of the server's certificate, with intermediates after it.
    pub tls_certificate: PathBuf,
    /// PEM file of its key.
    pub tls_key: PathBuf,
    /// What becomes of connected devices when their CA or certificate is switched off.
    pub on_inactivate: OnInactivate,
    /// What becomes of their wills.
    pub will_on_cut: WillOnCut,
    /// Which client ids a device may use.
    pub client_id: ClientIdPolicy,
    /// What one inactive certificate of a CA means for its others.
    pub same_key: SameKeyPolicy,
}

/// What becomes of connected devices when their CA or certificate is switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnInactivate {
    /// Their connections are ended at once.
    Cut,
    /// Their connections stay; only new ones are refused.
    Keep,
}

/// What becomes of the will of a device that is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WillOnCut {
    /// It is dropped.
    Discard,
    /// It is published, as for any connection that breaks.
    Publish,
}

/// Which client ids a device may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientIdPolicy {
    /// Only the common name of its certificate.
    CommonName,
    /// Its common name, or a text that begins with it and a `-`, `/`, `_`, `:` or `.`.
    Prefix,
    /// Any.
    Any,
}

/// What one inactive certificate of a CA means for other certificates of the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameKeyPolicy {
    /// It switches the CA off.
    Deny,
    /// An active one carries the CA on.
    AllowActive,
}

/// TLS in front of the broker.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// How long a client may take for the handshake.
    pub handshake_timeout: Duration,
    /// How many handshakes may run at the same time.
    pub max_concurrent_handshakes: usize,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

/// The admin API and the control topic.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Where the API listens, in plain HTTP.
    pub listen: SocketAddr,
    /// Whether the older signature is taken.
    pub signature_v1: SignatureV1,
    /// The keys that may sign requests.
    pub access_keys: Vec<AccessKey>,
    /// Administrators inside the broker.
    pub control_channel: Option<ControlChannel>,
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
