//! A message on its way to one client: what it counts for, and how it is written.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};

use crate::mqtt::frame::Frame;
use crate::mqtt::wire::publish::PublishOut;
use crate::mqtt::wire::{QoS, Version};

/// A message for one client.
#[derive(Debug, Clone)]
pub struct Message {
    /// The message as it was published.
    pub frame: Frame,
    /// The QoS it is delivered with.
    pub qos: QoS,
    /// The retain flag it is delivered with.
    pub retain: bool,
    /// The identifiers of the subscriptions that matched.
    pub subscription_ids: Vec<u32>,
    /// When it began to wait, milliseconds of the broker's clock; before its start if it waited
    /// for an earlier one.
    pub queued_at: i64,
}

/// The octets that wait in all sessions of a broker.
#[derive(Debug)]
pub struct SharedBudget {
    pub(super) used: AtomicUsize,
    pub(super) max: usize,
}

/// The topic aliases introduced to a client on this connection.
#[derive(Debug, Default)]
pub(super) struct Aliases {
    max: u16,
    by_topic: HashMap<Bytes, u16>,
}

impl SharedBudget {
    /// A budget of so many octets.
    pub fn new(max: usize) -> Self {
        Self {
            used: AtomicUsize::new(0),
            max,
        }
    }

    /// The octets in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

impl Aliases {
    /// None introduced yet, at most `max`.
    pub(super) fn new(max: u16) -> Self {
        Self {
            max,
            by_topic: HashMap::new(),
        }
    }
}

impl Message {
    /// What it counts for: its octets and what it takes to keep it.
    pub(super) fn size(&self) -> usize {
        self.frame.octets().len() + size_of::<Self>()
    }

    /// Whether it is of no use any more (3.3.2.3.3).
    pub(super) fn has_expired(&self, now: u64) -> bool {
        self.frame.expires_at().is_some_and(|at| at <= now)
    }

    pub(super) fn packet(&self, now: u64) -> PublishOut<'_> {
        PublishOut {
            frame: &self.frame,
            qos: self.qos,
            retain: self.retain,
            dup: false,
            id: None,
            alias: None,
            subscription_ids: &self.subscription_ids,
            // What is left of the time it is of use (3.3.2.3.3), a second begun counting whole.
            expiry: self.frame.expires_at().map(|at| {
                u32::try_from(at.saturating_sub(now).div_ceil(1_000)).unwrap_or(u32::MAX)
            }),
        }
    }
}

/// Write the packet, with a topic alias if there is one; `false` if the client does not take
/// packets of its size.
pub(super) fn write(
    mut packet: PublishOut<'_>,
    aliases: &mut Aliases,
    version: Version,
    max_packet: u32,
    out: &mut BytesMut,
) -> bool {
    let topic = packet.frame.topic_octets();
    let known = aliases.by_topic.get(topic).copied();
    let fresh = u16::try_from(aliases.by_topic.len())
        .ok()
        .and_then(|count| count.checked_add(1))
        .filter(|&alias| known.is_none() && alias <= aliases.max && topic.len() >= ALIAS_MIN_TOPIC);
    packet.alias = match (known, fresh) {
        (Some(alias), _) => Some((alias, false)),
        (None, Some(alias)) => Some((alias, true)),
        (None, None) => None,
    };
    if packet.len(version) > max_packet as usize {
        return false;
    }
    if let Some((alias, true)) = packet.alias {
        let topic = Bytes::copy_from_slice(topic);
        aliases.by_topic.insert(topic, alias);
    }
    packet.encode(version, out);
    true
}

/// Below this an alias costs as much as it saves.
const ALIAS_MIN_TOPIC: usize = 4;
