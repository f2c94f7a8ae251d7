//! What the sessions of an instance are built from: `[mqtt]`, and what other sections say of it.

use std::num::NonZeroU32;

use super::fault::Faults;
use super::file;
use crate::mqtt::access::rules::AccessSettings;
use crate::mqtt::bus::BusSettings;
use crate::mqtt::settings::{
    Administrators, ClientIdPolicy, IdentityPolicy, Limits, Overflow, PerAddress, Policy,
    SessionOnCut, Settings, WillOnCut,
};
use crate::mqtt::sys::SysSettings;
use crate::mqtt::topics::{ControlCharacters, TopicLimits};

/// The settings that all instances share; the policy and the rules of each are added later.
pub(super) fn settings(faults: &mut Faults, file: &file::File) -> Option<Settings> {
    let bus = bus(faults, &file.mqtt);
    let limits = limits(faults, file);
    let sys = sys(faults, &file.mqtt);
    let overflow = faults.word(
        "mqtt.overflow",
        &file.mqtt.overflow,
        &[
            ("drop_newest", Overflow::DropNewest),
            ("drop_oldest", Overflow::DropOldest),
        ],
    );
    Some(Settings {
        bus: bus?,
        limits: limits?,
        policy: Policy {
            overflow: overflow?,
            administrators: Administrators::Named(match &file.admin.control_channel {
                Some(channel) => channel.common_names.clone(),
                None => Vec::new(),
            }),
            ..Policy::default()
        },
        access: AccessSettings::default(),
        sys: sys?,
    })
}

/// What an instance decides one way or the other.
pub(super) fn policy(faults: &mut Faults, key: &str, written: &file::Instance) -> Option<Policy> {
    let will_on_cut = faults.word(
        &format!("{key}.will_on_cut"),
        &written.will_on_cut,
        &[
            ("suppress", WillOnCut::Suppress),
            ("publish", WillOnCut::Publish),
        ],
    );
    let session_on_cut = faults.word(
        &format!("{key}.session_on_cut"),
        &written.session_on_cut,
        &[
            ("discard", SessionOnCut::Discard),
            ("keep", SessionOnCut::Keep),
        ],
    );
    let client_id = faults.word(
        &format!("{key}.client_id"),
        &written.client_id,
        &[
            ("common_name", ClientIdPolicy::CommonName),
            ("prefix", ClientIdPolicy::Prefix),
            ("san", ClientIdPolicy::San),
            ("any", ClientIdPolicy::Any),
        ],
    );
    let identity = faults.word(
        &format!("{key}.session_owner"),
        &written.session_owner,
        &[
            ("certificate", IdentityPolicy::Certificate),
            ("name", IdentityPolicy::Name),
        ],
    );
    Some(Policy {
        client_id: client_id?,
        identity: identity?,
        will_on_cut: will_on_cut?,
        session_on_cut: session_on_cut?,
        ..Policy::default()
    })
}

/// The instance's policy with what all instances share: full queues, and the administrators.
pub(super) fn with_shared(policy: Policy, shared: &Settings) -> Policy {
    Policy {
        overflow: shared.policy.overflow,
        administrators: shared.policy.administrators.clone(),
        ..policy
    }
}

/// How operators are told; the name of the instance is added later.
fn sys(faults: &mut Faults, written: &file::Mqtt) -> Option<SysSettings> {
    let interval = faults.seconds(
        "mqtt.sys_interval_seconds",
        written.sys_interval_seconds,
        0,
        86_400,
    );
    let refusals = faults.number(
        "mqtt.max_refusal_events_per_second",
        written.max_refusal_events_per_second,
        0,
        10_000,
    );
    let waiting = faults.number(
        "mqtt.max_waiting_events",
        written.max_waiting_events,
        1,
        1_000_000,
    );
    Some(SysSettings {
        instance: None,
        interval: interval.map(|interval| (!interval.is_zero()).then_some(interval))?,
        refusals_per_second: refusals?,
        waiting: waiting?,
    })
}

fn bus(faults: &mut Faults, written: &file::Mqtt) -> Option<BusSettings> {
    let defaults = BusSettings::default();
    let shards = faults.number("mqtt.shards", written.shards, 0, 256);
    let window_bytes = faults.number(
        "mqtt.shard_window_bytes",
        written.shard_window_bytes,
        64 << 10,
        1 << 30,
    );
    let publish_timeout = faults.seconds(
        "mqtt.publish_timeout_seconds",
        written.publish_timeout_seconds,
        1,
        600,
    );
    Some(BusSettings {
        shards: match shards? {
            0 => defaults.shards.clamp(1, 256),
            shards => shards,
        },
        window_bytes: window_bytes?,
        publish_timeout: publish_timeout?,
        ..defaults
    })
}

fn limits(faults: &mut Faults, file: &file::File) -> Option<Limits> {
    let written = &file.mqtt;
    let default_channel = file::ControlChannel::default();
    let channel = file
        .admin
        .control_channel
        .as_ref()
        .unwrap_or(&default_channel);

    let mut count = |key: &str, value: usize, least, most| {
        faults.number(&format!("mqtt.{key}"), value, least, most)
    };
    let max_connections = count("max_connections", written.max_connections, 1, MANY);
    let of_address = count(
        "max_connections_per_address",
        written.max_connections_per_address,
        0,
        MANY,
    );
    let max_packet = count(
        "max_packet_bytes",
        written.max_packet_bytes,
        256,
        LARGEST_PACKET,
    );
    let max_client_id = count(
        "max_client_id_bytes",
        written.max_client_id_bytes,
        23,
        65_535,
    );
    let max_topic = count("max_topic_bytes", written.max_topic_bytes, 1, 65_535);
    let max_levels = count("max_topic_levels", written.max_topic_levels, 1, 256);
    let max_sessions = count("max_sessions", written.max_sessions, 1, MANY);
    let max_subscriptions = count("max_subscriptions", written.max_subscriptions, 1, MANY);
    let queue_messages = count("max_queued_messages", written.max_queued_messages, 1, MANY);
    let queue_bytes = count("max_queued_bytes", written.max_queued_bytes, 1_024, BYTES);
    let total = count(
        "max_total_queued_bytes",
        written.max_total_queued_bytes,
        1_024,
        BYTES,
    );
    let retained_messages = count(
        "max_retained_messages",
        written.max_retained_messages,
        0,
        MANY,
    );
    let retained_bytes = count("max_retained_bytes", written.max_retained_bytes, 0, BYTES);

    let queue_age = match written.max_queued_age_seconds {
        0 => Some(None),
        seconds => faults
            .seconds("mqtt.max_queued_age_seconds", seconds, 1, LONG)
            .map(Some),
    };

    let mut time = |key: &str, value| faults.seconds(&format!("mqtt.{key}"), value, 1, 600);
    let connect_timeout = time("connect_timeout_seconds", written.connect_timeout_seconds);
    let write_timeout = time("write_timeout_seconds", written.write_timeout_seconds);
    let takeover_timeout = time("takeover_timeout_seconds", written.takeover_timeout_seconds);

    let receive_maximum =
        faults.number("mqtt.receive_maximum", written.receive_maximum, 1, u16::MAX);
    let max_inflight = faults.number("mqtt.max_inflight", written.max_inflight, 1, u16::MAX);
    let control_characters = faults.word(
        "mqtt.control_characters",
        &written.control_characters,
        &[
            ("refuse", ControlCharacters::Refuse),
            ("allow", ControlCharacters::Allow),
        ],
    );
    let max_handshakes = faults.number(
        "tls.max_concurrent_handshakes",
        file.tls.max_concurrent_handshakes,
        1,
        1_000_000,
    );
    let handshakes_of_address = faults.number(
        "tls.max_handshakes_per_address",
        file.tls.max_handshakes_per_address,
        0,
        1_000_000,
    );
    let connects_of_address = faults.number(
        "mqtt.max_connects_per_second_per_address",
        written.max_connects_per_second_per_address,
        0,
        1_000_000,
    );

    let mut at = |key: &str, value, least, most| {
        faults.number(&format!("admin.control_channel.{key}"), value, least, most)
    };
    let command_bytes = at(
        "max_command_bytes",
        channel.max_command_bytes,
        1_024,
        LARGEST_PACKET,
    );
    let commands_at_once = at(
        "max_commands_at_once",
        channel.max_commands_at_once,
        1,
        10_000,
    );
    let command_timeout = faults.seconds(
        "admin.control_channel.command_timeout_seconds",
        channel.command_timeout_seconds,
        1,
        600,
    );
    // An impossible value is a fault of [shutdown] already.
    let shutdown_grace = std::time::Duration::from_secs(file.shutdown.grace_seconds);

    Some(Limits {
        max_connections: max_connections?,
        max_handshakes: max_handshakes?,
        per_address: PerAddress {
            connections: unless_zero(of_address?),
            handshakes: unless_zero(handshakes_of_address?),
            connects_per_second: NonZeroU32::new(connects_of_address?),
        },
        connect_timeout: connect_timeout?,
        write_timeout: write_timeout?,
        takeover_timeout: takeover_timeout?,
        shutdown_grace,
        max_packet: max_packet?,
        max_client_id: max_client_id?,
        receive_maximum: receive_maximum?,
        max_inflight: max_inflight?,
        max_aliases: written.max_topic_aliases,
        max_session_expiry: written.max_session_expiry_seconds,
        max_keep_alive: match written.max_keep_alive_seconds {
            0 => None,
            seconds => Some(seconds),
        },
        max_sessions: max_sessions?,
        max_subscriptions: max_subscriptions?,
        queue_messages: queue_messages?,
        queue_bytes: queue_bytes?,
        total_queue_bytes: total?,
        queue_age: queue_age?,
        retained_messages: retained_messages?,
        retained_bytes: retained_bytes?,
        topics: TopicLimits {
            max_bytes: max_topic?,
            max_levels: max_levels?,
            control_characters: control_characters?,
        },
        command_bytes: command_bytes?,
        commands_at_once: commands_at_once?,
        command_timeout: command_timeout?,
    })
}

/// In the file, 0 is no limit.
fn unless_zero(limit: usize) -> Option<usize> {
    (limit > 0).then_some(limit)
}

/// Seconds, longer than any session: 136 years.
const LONG: u64 = u32::MAX as u64;

/// More of one thing than a process can serve.
const MANY: usize = 100_000_000;

/// More octets than a machine has: 16 TiB.
const BYTES: usize = 1 << 44;

/// The largest packet that MQTT can express.
const LARGEST_PACKET: usize = 268_435_460;
