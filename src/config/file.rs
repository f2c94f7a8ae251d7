//! The configuration file: its keys as they are written, and what each is if it is left out.
//!
//! The defaults stand here, or in the settings of the module that a key is for. A key without a default is an `Option`; whether it
//! may be left out is for `convert` to say.

use std::num::NonZeroU32;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::admin::router::RequestLimits;
use crate::admin::server::ConnectionLimits;
use crate::admin::service::ServiceSettings;
use crate::audit::Rotation;
use crate::control::ControlSettings;
use crate::mqtt::bus::BusSettings;
use crate::mqtt::settings::{Limits, PerAddress};
use crate::mqtt::sys::SysSettings;
use crate::mqtt::websocket::upgrade::Door;

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct File {
    /// The instances that this process serves; at least one.
    pub instance: Vec<Instance>,
    /// Limits of the registry.
    pub registry: Registry,
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
#[allow(missing_docs)] // config/full.toml explains every key
pub struct Instance {
    pub id: Option<String>,
    pub account: Option<String>,
    pub region: String,
    pub mqtt_listen: String,
    pub websocket_listen: Option<String>,
    pub websocket_path: String,
    pub websocket_origins: Vec<String>,
    pub proxy_protocol: String,
    pub proxy_trusted: Vec<String>,
    pub server_names: Vec<String>,
    pub tls_certificate: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    pub on_inactivate: String,
    pub will_on_cut: String,
    pub session_on_cut: String,
    pub client_id: String,
    pub session_owner: String,
    pub same_key: String,
    pub crl: Vec<Crl>,
    pub persistence: String,
    pub access_default: Option<String>,
    pub access: Vec<AccessRule>,
}

/// `[[instance.crl]]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Crl {
    pub path: Option<PathBuf>,
    pub ca: Option<String>,
}

/// `[[instance.access]]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct AccessRule {
    pub effect: Option<String>,
    pub action: Option<String>,
    pub topic: Option<String>,
    pub ca: Option<Vec<String>>,
    pub common_name: Option<Vec<String>>,
}

/// `[registry]`
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Registry {
    pub register_code_lifetime_seconds: u64,
    pub max_register_codes: usize,
    pub max_cas: usize,
    pub max_devices: usize,
    pub max_access_keys: usize,
    pub max_crls: usize,
    pub max_crl_entries: usize,
    pub max_crl_bytes: usize,
    pub max_remembered_signatures: usize,
    pub crl_poll_seconds: u64,
}

/// `[tls]`
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Tls {
    pub min_version: String,
    pub cipher_order: String,
    pub handshake_timeout_seconds: u64,
    pub max_concurrent_handshakes: usize,
    pub max_handshakes_per_address: usize,
}

/// `[mqtt]`, for each instance.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Mqtt {
    pub shards: usize,
    pub shard_window_bytes: usize,
    pub publish_timeout_seconds: u64,
    pub max_connections: usize,
    pub max_connections_per_address: usize,
    pub max_connects_per_second_per_address: u32,
    pub connect_timeout_seconds: u64,
    pub write_timeout_seconds: u64,
    pub takeover_timeout_seconds: u64,
    pub max_packet_bytes: usize,
    pub max_client_id_bytes: usize,
    pub max_topic_bytes: usize,
    pub max_topic_levels: usize,
    pub control_characters: String,
    pub receive_maximum: u16,
    pub max_inflight: u16,
    pub max_topic_aliases: u16,
    pub max_keep_alive_seconds: u16,
    pub max_sessions: usize,
    pub max_session_expiry_seconds: u32,
    pub max_subscriptions: usize,
    pub max_queued_messages: usize,
    pub max_queued_bytes: usize,
    pub max_total_queued_bytes: usize,
    pub max_queued_age_seconds: u64,
    pub overflow: String,
    pub max_retained_messages: usize,
    pub max_retained_bytes: usize,
    pub sys_interval_seconds: u64,
    pub max_refusal_events_per_second: u32,
    pub max_waiting_events: usize,
}

/// `[admin]`
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Admin {
    pub listen: String,
    pub socket: Option<PathBuf>,
    pub tls_certificate: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    pub secret_encryption_file: Option<PathBuf>,
    pub signature_v1: bool,
    pub status_profile: String,
    pub host_id: String,
    pub max_calls_per_second: u32,
    pub call_timeout_seconds: u64,
    pub max_concurrent_requests: usize,
    pub max_head_bytes: usize,
    pub max_head_fields: usize,
    pub max_body_bytes: usize,
    pub body_timeout_seconds: u64,
    pub max_connections: usize,
    pub max_connections_per_address: usize,
    pub handshake_timeout_seconds: u64,
    pub head_timeout_seconds: u64,
    pub max_connection_lifetime_seconds: u64,
    pub access_key: Vec<AccessKey>,
    pub control_channel: Option<ControlChannel>,
}

/// `[[admin.access_key]]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct AccessKey {
    pub file: Option<PathBuf>,
    pub account: Option<String>,
    pub policy: Option<PathBuf>,
}

/// `[admin.control_channel]`
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ControlChannel {
    pub ca: Option<PathBuf>,
    pub common_names: Vec<String>,
    pub max_command_bytes: usize,
    pub max_commands_at_once: usize,
    pub command_timeout_seconds: u64,
}

/// `[store]`
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Store {
    pub data_dir: PathBuf,
    pub checkpoint_seconds: u64,
}

/// `[audit]`
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Audit {
    pub path: Option<PathBuf>,
    pub max_bytes: u64,
    pub keep_files: usize,
    pub forward: Option<AuditForward>,
}

/// `[audit.forward]`
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct AuditForward {
    pub to: Option<String>,
    pub format: String,
    pub ca_file: Option<PathBuf>,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Log {
    pub format: String,
    pub filter: String,
}

/// `[shutdown]`
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Shutdown {
    pub grace_seconds: u64,
    pub save_seconds: u64,
}

impl Default for Instance {
    fn default() -> Self {
        Self {
            id: None,
            account: None,
            region: "cn-hangzhou".to_owned(),
            mqtt_listen: "0.0.0.0:8883".to_owned(),
            websocket_listen: None,
            websocket_path: Door::default().path,
            websocket_origins: Vec::new(),
            proxy_protocol: "off".to_owned(),
            proxy_trusted: Vec::new(),
            server_names: Vec::new(),
            tls_certificate: None,
            tls_key: None,
            on_inactivate: "cut".to_owned(),
            will_on_cut: "publish".to_owned(),
            session_on_cut: "keep".to_owned(),
            client_id: "any".to_owned(),
            session_owner: "name".to_owned(),
            same_key: "deny".to_owned(),
            crl: Vec::new(),
            persistence: "off".to_owned(),
            access_default: None,
            access: Vec::new(),
        }
    }
}

impl Default for Audit {
    fn default() -> Self {
        let rotation = Rotation::default();
        Self {
            path: None,
            max_bytes: rotation.max_octets.unwrap_or(0),
            keep_files: rotation.keep.unwrap_or(0),
            forward: None,
        }
    }
}

impl Default for AuditForward {
    fn default() -> Self {
        Self {
            to: None,
            format: "syslog".to_owned(),
            ca_file: None,
        }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            min_version: "1.2".to_owned(),
            cipher_order: "cheapest".to_owned(),
            handshake_timeout_seconds: 10,
            max_concurrent_handshakes: Limits::default().max_handshakes,
            max_handshakes_per_address: PerAddress::default().handshakes.unwrap_or(0),
        }
    }
}

impl Default for Registry {
    fn default() -> Self {
        let settings = ControlSettings::default();
        Self {
            register_code_lifetime_seconds: settings.register_code_lifetime.as_secs(),
            max_register_codes: settings.max_register_codes,
            max_cas: settings.max_cas,
            max_devices: settings.max_devices,
            max_access_keys: settings.max_access_keys,
            max_crls: settings.max_crls,
            max_crl_entries: settings.max_crl_entries,
            max_crl_bytes: settings.max_crl_octets,
            max_remembered_signatures: settings.max_remembered_signatures,
            crl_poll_seconds: 10,
        }
    }
}

impl Default for Mqtt {
    fn default() -> Self {
        let (bus, limits) = (BusSettings::default(), Limits::default());
        let sys = SysSettings::default();
        Self {
            shards: 0,
            shard_window_bytes: bus.window_bytes,
            publish_timeout_seconds: bus.publish_timeout.as_secs(),
            max_connections: limits.max_connections,
            max_connections_per_address: limits.per_address.connections.unwrap_or(0),
            max_connects_per_second_per_address: (limits.per_address.connects_per_second)
                .map_or(0, NonZeroU32::get),
            connect_timeout_seconds: limits.connect_timeout.as_secs(),
            write_timeout_seconds: limits.write_timeout.as_secs(),
            takeover_timeout_seconds: limits.takeover_timeout.as_secs(),
            max_packet_bytes: limits.max_packet,
            max_client_id_bytes: limits.max_client_id,
            max_topic_bytes: limits.topics.max_bytes,
            max_topic_levels: limits.topics.max_levels,
            control_characters: "refuse".to_owned(),
            receive_maximum: limits.receive_maximum,
            max_inflight: limits.max_inflight,
            max_topic_aliases: limits.max_aliases,
            max_keep_alive_seconds: limits.max_keep_alive.unwrap_or(0),
            max_sessions: limits.max_sessions,
            max_session_expiry_seconds: limits.max_session_expiry,
            max_subscriptions: limits.max_subscriptions,
            max_queued_messages: limits.queue_messages,
            max_queued_bytes: limits.queue_bytes,
            max_total_queued_bytes: limits.total_queue_bytes,
            max_queued_age_seconds: limits.queue_age.map_or(0, |age| age.as_secs()),
            overflow: "drop_newest".to_owned(),
            max_retained_messages: limits.retained_messages,
            max_retained_bytes: limits.retained_bytes,
            sys_interval_seconds: sys.interval.map_or(0, |interval| interval.as_secs()),
            max_refusal_events_per_second: sys.refusals_per_second,
            max_waiting_events: sys.waiting,
        }
    }
}

impl Default for ControlChannel {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            ca: None,
            common_names: Vec::new(),
            max_command_bytes: limits.command_bytes,
            max_commands_at_once: limits.commands_at_once,
            command_timeout_seconds: limits.command_timeout.as_secs(),
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        let service = ServiceSettings::default();
        let (requests, connections) = (RequestLimits::default(), ConnectionLimits::default());
        Self {
            listen: "127.0.0.1:8080".to_owned(),
            socket: None,
            tls_certificate: None,
            tls_key: None,
            secret_encryption_file: None,
            signature_v1: true,
            status_profile: "documented".to_owned(),
            host_id: service.host_id,
            max_calls_per_second: service.calls_per_second.get(),
            call_timeout_seconds: service.call_timeout.as_secs(),
            max_concurrent_requests: requests.concurrent,
            max_head_bytes: requests.head,
            max_head_fields: requests.headers,
            max_body_bytes: requests.body,
            body_timeout_seconds: requests.body_timeout.as_secs(),
            max_connections: connections.total,
            max_connections_per_address: connections.per_address,
            handshake_timeout_seconds: connections.handshake_timeout.as_secs(),
            head_timeout_seconds: connections.head_timeout.as_secs(),
            max_connection_lifetime_seconds: connections.lifetime.as_secs(),
            access_key: Vec::new(),
            control_channel: None,
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            data_dir: "data".into(),
            checkpoint_seconds: 10,
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
        Self {
            grace_seconds: Limits::default().shutdown_grace.as_secs(),
            save_seconds: 30,
        }
    }
}
