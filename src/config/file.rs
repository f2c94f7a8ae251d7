//! The configuration file: its keys as they are written, and what each is if it is left out.
//!
//! The defaults stand here and nowhere else. A key without a default is an `Option`; whether it
//! may be left out is for [`convert`](super::convert) to say.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct File {
    /// The instances that this process serves; at least one.
    pub instance: Vec<Instance>,
    /// TLS in front of the broker.
    pub tls: Tls,
    /// Limits of the MQTT session layer.
    pub mqtt: Mqtt,
    /// The admin API and the control topic.
    pub admin: Admin,
    /// What survives a restart.
    pub store: Store,
    /// The audit log.
    pub audit: Audit,
    /// The log of the program.
    pub log: Log,
    /// How the program ends.
    pub shutdown: Shutdown,
}

/// `[[instance]]`
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Instance {
    pub id: Option<String>,
    pub account: Option<String>,
    pub region: String,
    pub mqtt_listen: String,
    pub tls_certificate: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    pub on_inactivate: String,
    pub will_on_cut: String,
    pub client_id: String,
    pub same_key: String,
}

/// `[tls]`
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    pub min_version: String,
    pub handshake_timeout_seconds: u64,
    pub max_concurrent_handshakes: u64,
}

/// `[mqtt]`
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mqtt {
    pub max_connections: u64,
}

/// `[admin]`
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    pub listen: String,
    pub signature_v1: bool,
    pub access_key: Vec<AccessKey>,
    pub control_channel: Option<ControlChannel>,
}

/// `[[admin.access_key]]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessKey {
    pub file: Option<PathBuf>,
    pub account: Option<String>,
}

/// `[admin.control_channel]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ControlChannel {
    pub ca: Option<PathBuf>,
    pub common_names: Vec<String>,
}

/// `[store]`
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    pub data_dir: PathBuf,
}

/// `[audit]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Audit {
    pub path: Option<PathBuf>,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    pub format: String,
    pub filter: String,
}

/// `[shutdown]`
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shutdown {
    pub grace_seconds: u64,
}

impl Default for Instance {
    fn default() -> Self {
        Self {
            id: None,
            account: None,
            region: "cn-hangzhou".to_owned(),
            mqtt_listen: "0.0.0.0:8883".to_owned(),
            tls_certificate: None,
            tls_key: None,
            on_inactivate: "cut".to_owned(),
            will_on_cut: "publish".to_owned(),
            client_id: "any".to_owned(),
            same_key: "deny".to_owned(),
        }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            min_version: "1.2".to_owned(),
            handshake_timeout_seconds: 10,
            max_concurrent_handshakes: 512,
        }
    }
}

impl Default for Mqtt {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".to_owned(),
            signature_v1: true,
            access_key: Vec::new(),
            control_channel: None,
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            data_dir: "data".into(),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: "text".to_owned(),
            filter: "info".to_owned(),
        }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { grace_seconds: 10 }
    }
}
