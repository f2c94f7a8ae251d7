//! The packets of a client, the same for both versions.

use std::num::NonZeroU16;

use bytes::Bytes;
use bytestring::ByteString;

use super::{QoS, Version};

/// What a client can send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// CONNECT, first and once.
    Connect(Box<Connect>),
    /// PUBLISH; apart, since it is large and others are small.
    Publish(Box<Publish>),
    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    Ack(Ack),
    /// SUBSCRIBE.
    Subscribe(Subscribe),
    /// UNSUBSCRIBE: packet id and filters.
    Unsubscribe(NonZeroU16, Vec<ByteString>),
    /// PINGREQ.
    Ping,
    /// DISCONNECT.
    Disconnect(Disconnect),
}

/// CONNECT (3.1). What 3.1.1 does not have stands at the value that means the same in 5.0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    /// The version it was written in.
    pub version: Version,
    /// Whether an existing session is thrown away.
    pub clean_start: bool,
    /// Seconds; 0 is none.
    pub keep_alive: u16,
    /// Empty if the server shall choose one.
    pub client_id: ByteString,
    /// Seconds the session outlives the connection; `u32::MAX` is for ever.
    pub session_expiry: u32,
    /// QoS 1 and 2 messages the client takes at the same time.
    pub receive_maximum: u16,
    /// Largest packet the client takes, in octets.
    pub max_packet: u32,
    /// Highest topic alias the client takes; 0 is none.
    pub alias_maximum: u16,
    /// Whether an authentication method is demanded.
    pub wants_auth: bool,
    /// What is published if the connection ends without DISCONNECT.
    pub will: Option<Will>,
}

/// A will (3.1.2.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    /// Its QoS.
    pub qos: QoS,
    /// Whether it is retained.
    pub retain: bool,
    /// Where it goes; not checked yet.
    pub topic: ByteString,
    /// What it says.
    pub payload: Bytes,
    /// Seconds after the end of the connection.
    pub delay: u32,
    /// Seconds it is of use after it is published.
    pub expiry: Option<u32>,
    /// The properties that are passed on, as on the wire.
    pub properties: Bytes,
    /// Whether the payload was declared to be text.
    pub declared_text: bool,
}

/// PUBLISH (3.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// Sent before.
    pub dup: bool,
    /// Keep it as the topic's retained message.
    pub retain: bool,
    /// Its QoS.
    pub qos: QoS,
    /// Where it goes; not checked yet; empty if the alias says it.
    pub topic: ByteString,
    /// Its packet id, unless QoS is 0.
    pub id: Option<NonZeroU16>,
    /// The topic alias.
    pub alias: Option<u16>,
    /// Seconds it is of use.
    pub expiry: Option<u32>,
    /// Where an answer goes.
    pub response_topic: Option<ByteString>,
    /// What the answer repeats.
    pub correlation_data: Option<Bytes>,
    /// Whether the payload was declared to be text.
    pub declared_text: bool,
    /// The properties that are passed on, as on the wire.
    pub properties: Bytes,
    /// What it says.
    pub payload: Bytes,
}

/// Which acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckKind {
    /// PUBACK, the end of QoS 1.
    PubAck,
    /// PUBREC, the first answer of QoS 2.
    PubRec,
    /// PUBREL, the sender's second step of QoS 2.
    PubRel,
    /// PUBCOMP, the end of QoS 2.
    PubComp,
}

/// An acknowledgement (3.4 to 3.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// Which one.
    pub kind: AckKind,
    /// The packet id.
    pub id: NonZeroU16,
    /// The reason code; success in 3.1.1.
    pub reason: u8,
}

/// SUBSCRIBE (3.8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// The packet id.
    pub id: NonZeroU16,
    /// The subscription identifier.
    pub subscription_id: Option<u32>,
    /// The filters, not checked yet, and their options.
    pub filters: Vec<(ByteString, Options)>,
}

/// The options of a subscription (3.8.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// The highest QoS the client wants.
    pub qos: QoS,
    /// Not what it publishes itself.
    pub no_local: bool,
    /// Keep the retain flag as it was published.
    pub retain_as_published: bool,
    /// When retained messages are sent.
    pub retain_handling: RetainHandling,
}

/// When a subscription sends the retained messages (3.8.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetainHandling {
    /// At each SUBSCRIBE.
    Always,
    /// If the subscription is new.
    IfNew,
    /// Never.
    Never,
}

/// DISCONNECT (3.14).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disconnect {
    /// The reason code.
    pub reason: u8,
    /// A new session expiry, in seconds.
    pub session_expiry: Option<u32>,
}
