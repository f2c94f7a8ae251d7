//! From packets of the server to octets. PUBLISH is in [`publish`](super::publish).

use std::borrow::Cow;
use std::num::NonZeroU16;

use bytes::{BufMut, BytesMut};
use bytestring::ByteString;

use super::publish::put_binary;
use super::{AckKind, Version, property, put_varint, reason};

/// What a server sends besides PUBLISH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outgoing {
    /// CONNACK.
    ConnAck(Box<ConnAck>),
    /// PUBACK, PUBREC, PUBREL or PUBCOMP with its reason code.
    Ack(AckKind, NonZeroU16, u8),
    /// SUBACK with a reason code for each filter.
    SubAck(NonZeroU16, Vec<u8>),
    /// UNSUBACK with a reason code for each filter.
    UnsubAck(NonZeroU16, Vec<u8>),
    /// PINGRESP.
    Pong,
    /// DISCONNECT, in MQTT 5 only: reason code and reason string.
    Disconnect(u8, Cow<'static, str>),
}

/// CONNACK (3.2).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConnAck {
    /// Whether the session existed.
    pub session_present: bool,
    /// The reason code of MQTT 5; translated for 3.1.1.
    pub reason: u8,
    /// The session expiry that holds, if it is not the one asked for; seconds.
    pub session_expiry: Option<u32>,
    /// QoS 1 and 2 messages the server takes at the same time.
    pub receive_maximum: Option<u16>,
    /// Largest packet the server takes, in octets.
    pub max_packet: Option<u32>,
    /// The client id that the server chose.
    pub assigned_client_id: Option<ByteString>,
    /// Highest topic alias the server takes.
    pub alias_maximum: Option<u16>,
    /// The keep alive that holds, if it is not the one asked for; seconds.
    pub server_keep_alive: Option<u16>,
    /// Why, in words.
    pub reason_string: Option<Cow<'static, str>>,
}

impl ConnAck {
    /// A refusal.
    pub fn refusal(reason: u8, words: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason,
            reason_string: Some(words.into()),
            ..Self::default()
        }
    }
}

impl Outgoing {
    /// Write the packet for this version. A reason string that would make it larger than
    /// `max_packet` octets is left out (3.2.2.3.9).
    pub fn encode(&self, version: Version, max_packet: u32, out: &mut BytesMut) {
        match self {
            Self::ConnAck(packet) => packet.encode(version, max_packet, out),
            Self::Ack(kind, id, code) => encode_ack(version, *kind, *id, *code, out),
            Self::SubAck(id, codes) => encode_codes(version, 0x90, *id, codes, out),
            Self::UnsubAck(id, codes) => match version {
                Version::V311 => put_packet(out, 0xB0, &id.get().to_be_bytes()),
                Version::V5 => encode_codes(version, 0xB0, *id, codes, out),
            },
            Self::Pong => out.put_slice(&[0xD0, 0x00]),
            Self::Disconnect(code, words) => {
                if version == Version::V5 {
                    let mut body = BytesMut::new();
                    body.put_u8(*code);
                    let mut properties = BytesMut::new();
                    put_reason_string(&mut properties, Some(words), 10, max_packet);
                    put_varint(&mut body, properties.len());
                    body.put_slice(&properties);
                    put_packet(out, 0xE0, &body);
                }
            }
        }
    }
}

impl ConnAck {
    fn encode(&self, version: Version, max_packet: u32, out: &mut BytesMut) {
        if version == Version::V311 {
            let session = u8::from(self.session_present);
            return put_packet(out, 0x20, &[session, return_code(self.reason)]);
        }
        let mut properties = BytesMut::new();
        if let Some(seconds) = self.session_expiry {
            properties.put_u8(property::SESSION_EXPIRY);
            properties.put_u32(seconds);
        }
        if let Some(messages) = self.receive_maximum {
            properties.put_u8(property::RECEIVE_MAXIMUM);
            properties.put_u16(messages);
        }
        if let Some(octets) = self.max_packet {
            properties.put_u8(property::MAXIMUM_PACKET_SIZE);
            properties.put_u32(octets);
        }
        if let Some(id) = &self.assigned_client_id {
            properties.put_u8(property::ASSIGNED_CLIENT_ID);
            put_binary(&mut properties, id.as_bytes());
        }
        if let Some(alias) = self.alias_maximum {
            properties.put_u8(property::TOPIC_ALIAS_MAXIMUM);
            properties.put_u16(alias);
        }
        if let Some(seconds) = self.server_keep_alive {
            properties.put_u8(property::SERVER_KEEP_ALIVE);
            properties.put_u16(seconds);
        }
        let so_far = properties.len() + 12;
        let words = self.reason_string.as_deref();
        put_reason_string(&mut properties, words, so_far, max_packet);
        let mut body = BytesMut::new();
        body.put_u8(u8::from(self.session_present));
        body.put_u8(self.reason);
        put_varint(&mut body, properties.len());
        body.put_slice(&properties);
        put_packet(out, 0x20, &body);
    }
}

/// The return code of 3.1.1 (3.2.2.3) that is nearest to a reason code.
fn return_code(code: u8) -> u8 {
    match code {
        reason::SUCCESS => 0,
        reason::UNSUPPORTED_VERSION => 1,
        reason::CLIENT_ID_NOT_VALID => 2,
        reason::NOT_AUTHORIZED => 5,
        _ => 3,
    }
}

fn encode_ack(version: Version, kind: AckKind, id: NonZeroU16, code: u8, out: &mut BytesMut) {
    let first = match kind {
        AckKind::PubAck => 0x40,
        AckKind::PubRec => 0x50,
        AckKind::PubRel => 0x62,
        AckKind::PubComp => 0x70,
    };
    let [high, low] = id.get().to_be_bytes();
    match (version, code) {
        (Version::V311, _) | (Version::V5, reason::SUCCESS) => {
            out.put_slice(&[first, 2, high, low]);
        }
        (Version::V5, code) => out.put_slice(&[first, 3, high, low, code]),
    }
}

fn encode_codes(version: Version, first: u8, id: NonZeroU16, codes: &[u8], out: &mut BytesMut) {
    let mut body = BytesMut::with_capacity(3 + codes.len());
    body.put_u16(id.get());
    match version {
        Version::V311 => body.extend(codes.iter().map(|&code| code.min(reason::UNSPECIFIED))),
        Version::V5 => {
            body.put_u8(0);
            body.put_slice(codes);
        }
    }
    put_packet(out, first, &body);
}

fn put_reason_string(
    properties: &mut BytesMut,
    words: Option<&str>,
    so_far: usize,
    max_packet: u32,
) {
    let Some(words) = words.filter(|words| !words.is_empty()) else {
        return;
    };
    if so_far + 3 + words.len() <= max_packet as usize {
        properties.put_u8(property::REASON_STRING);
        put_binary(properties, words.as_bytes());
    }
}

fn put_packet(out: &mut BytesMut, first: u8, body: &[u8]) {
    out.reserve(5 + body.len());
    out.put_u8(first);
    put_varint(out, body.len());
    out.put_slice(body);
}
