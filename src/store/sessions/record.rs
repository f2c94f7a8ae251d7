//! What is written and read: plain values, times in Unix milliseconds.

use std::net::SocketAddr;

use bytes::Bytes;
use bytestring::ByteString;

use crate::ca::id::{CaKeyId, CertSerial};
use crate::ca::registry::Purpose;

/// A session, besides what it has many of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// Its number, never used for another one.
    pub key: u64,
    /// The client id.
    pub client_id: ByteString,
    /// Whose it is.
    pub holder: HolderRecord,
    /// When it ends; `None` is never.
    pub expires_at_ms: Option<i64>,
    /// The packet id of the next message.
    pub next_packet_id: u16,
}

/// Whoever had the session last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolderRecord {
    /// What its CA was for.
    pub purpose: Purpose,
    /// Whether it was an administrator of the broker.
    pub administrator: bool,
    /// The authority that issued its certificate.
    pub issuer: CaKeyId,
    /// Serial number of its certificate.
    pub serial: CertSerial,
    /// Common name of its certificate.
    pub common_name: Option<String>,
    /// Serial number of the registered CA that let it in.
    pub ca_sn: CertSerial,
    /// Where it connected from.
    pub address: SocketAddr,
    /// When CONNECT was accepted.
    pub since_ms: i64,
}

/// A will that waits for its delay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WillRecord {
    /// When it is published.
    pub due_at_ms: i64,
    /// Seconds it is of use after that.
    pub expiry_seconds: Option<u32>,
    /// Its QoS.
    pub qos: u8,
    /// Whether it is retained.
    pub retain: bool,
    /// Where it goes.
    pub topic: ByteString,
    /// The properties that are passed on, as on the wire of MQTT 5.
    pub properties: Bytes,
    /// What it says.
    pub payload: Bytes,
}

/// A subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionRecord {
    /// The filter, as in SUBSCRIBE.
    pub filter: String,
    /// The options, as in SUBSCRIBE (MQTT 5, 3.8.3.1).
    pub options: u8,
    /// The subscription identifier.
    pub identifier: Option<u32>,
}

/// A message on the way to the client, without the last acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InFlightRecord {
    /// Its packet id.
    pub packet_id: u16,
    /// The message; `None` once it was received (PUBREC).
    pub message: Option<MessageRecord>,
}

/// A message for one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageRecord {
    /// The QoS it is delivered with.
    pub qos: u8,
    /// The retain flag it is delivered with.
    pub retain: bool,
    /// When it expires.
    pub expires_at_ms: Option<i64>,
    /// When it began to wait.
    pub queued_at_ms: i64,
    /// The identifiers of the subscriptions that matched.
    pub subscription_ids: Vec<u32>,
    /// Where it goes.
    pub topic: ByteString,
    /// The properties that are passed on, as on the wire of MQTT 5.
    pub properties: Bytes,
    /// What it says.
    pub payload: Bytes,
}

/// A retained message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetainedRecord {
    /// Its topic.
    pub topic: ByteString,
    /// The QoS it was published with.
    pub qos: u8,
    /// Number of the session that published it; 0 is the broker.
    pub publisher: u64,
    /// When it expires.
    pub expires_at_ms: Option<i64>,
    /// The properties that are passed on, as on the wire of MQTT 5.
    pub properties: Bytes,
    /// What it says.
    pub payload: Bytes,
}

/// All of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WholeSession {
    /// What there is once.
    pub session: SessionRecord,
    /// Its will.
    pub will: Option<WillRecord>,
    /// Its subscriptions.
    pub subscriptions: Vec<SubscriptionRecord>,
    /// Packet ids of QoS 2 messages that were received and not released.
    pub received: Vec<u16>,
    /// What is on the way, in the order of sending.
    pub in_flight: Vec<InFlightRecord>,
    /// What waits, in order.
    pub queue: Vec<MessageRecord>,
    /// The number of the first message that waits; the others have the numbers that follow.
    pub first: u64,
}

/// Something to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// The session, in place of what is kept of it.
    Session(Box<WholeSession>),
    /// What became of the queue of a kept session.
    Queue {
        /// The session.
        session: u64,
        /// The messages before this number are gone.
        before: u64,
        /// The number of the first of `messages`.
        first: u64,
        /// What was added at its end.
        messages: Vec<MessageRecord>,
    },
    /// The will of a kept session was published.
    WillGone(u64),
    /// The retained message, in place of that of its topic, with a mark.
    Retained(Box<RetainedRecord>, i64),
    /// The topic has no retained message.
    NotRetained(ByteString),
    /// Those with another mark are retained no more.
    RetainedOnly(i64),
    /// All before is as it was at this time, at which retained messages have expired.
    Time(i64),
}

/// Something that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// When the file was written last.
    Time(i64),
    /// A session; what belongs to it follows.
    Session(SessionRecord),
    /// The will of a session.
    Will(u64, WillRecord),
    /// A subscription of a session.
    Subscription(u64, SubscriptionRecord),
    /// The packet id of a message that a session received.
    Received(u64, u16),
    /// A message on the way to a session's client.
    InFlight(u64, InFlightRecord),
    /// A message that waits, and its number.
    Queued(u64, u64, MessageRecord),
    /// A retained message.
    Retained(RetainedRecord),
    /// A row that makes no sense.
    Unreadable {
        /// The session it belongs to, if it can be told.
        session: Option<u64>,
        /// Its table.
        table: &'static str,
        /// What is wrong with it.
        what: String,
    },
}

impl Write {
    /// About how much memory it takes, in octets.
    pub(super) fn size(&self) -> usize {
        let messages = |all: &[MessageRecord]| all.iter().map(MessageRecord::size).sum();
        let content: usize = match self {
            Self::Session(whole) => {
                let on_the_way = whole.in_flight.iter();
                let on_the_way = on_the_way.filter_map(|entry| entry.message.as_ref());
                let subscriptions = whole.subscriptions.iter();
                size_of::<WholeSession>()
                    + messages(&whole.queue)
                    + on_the_way.map(MessageRecord::size).sum::<usize>()
                    + subscriptions
                        .map(|one| 64 + one.filter.len())
                        .sum::<usize>()
                    + 2 * whole.received.len()
            }
            Self::Queue { messages: all, .. } => messages(all),
            Self::Retained(message, _) => {
                size_of::<RetainedRecord>()
                    + message.topic.len()
                    + message.properties.len()
                    + message.payload.len()
            }
            Self::NotRetained(topic) => topic.len(),
            Self::WillGone(_) | Self::RetainedOnly(_) | Self::Time(_) => 0,
        };
        content + size_of::<Self>()
    }
}

impl MessageRecord {
    fn size(&self) -> usize {
        size_of::<Self>() + self.topic.len() + self.properties.len() + self.payload.len()
    }
}

impl Row {
    /// The session that it belongs to or is.
    pub fn session(&self) -> Option<u64> {
        match self {
            Self::Session(session) => Some(session.key),
            Self::Will(session, _)
            | Self::Subscription(session, _)
            | Self::Received(session, _)
            | Self::InFlight(session, _)
            | Self::Queued(session, ..) => Some(*session),
            Self::Unreadable { session, .. } => *session,
            Self::Time(_) | Self::Retained(_) => None,
        }
    }
}
