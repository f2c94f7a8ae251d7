//! Packets on the wire, in both versions, checked to the letter before anybody sees them.
//!
//! `rmqtt-codec` decodes the rare packets (CONNECT, SUBSCRIBE, UNSUBSCRIBE, DISCONNECT). It is
//! lenient, so this module frames the stream itself and checks what the codec lets through:
//! header flags, lengths that are not minimal, octets after the end of a packet, a password
//! without a user name (3.1.1), will flags without a will (5.0), reserved bits of a subscription
//! (3.1.1), a subscription identifier from a client, U+0000 in text. PUBLISH and the
//! acknowledgements, which are most of the traffic, are decoded and encoded here, without copies
//! of what is passed on, and without the codec's refusal of a message expiry of 0.

mod connect;
pub mod decode;
pub mod encode;
pub mod packets;
pub mod publish;

pub use decode::Decoder;
pub use packets::{Ack, AckKind, Connect, Disconnect, Incoming, Publish, Subscribe, Will};
pub use rmqtt_codec::types::QoS;

/// The version of the protocol that a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1, protocol level 4.
    V311,
    /// MQTT 5.0, protocol level 5.
    V5,
}

/// What is wrong with the octets a client sent. None of them can be answered otherwise than by
/// ending the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The packet cannot be parsed.
    #[error("malformed packet: {0}")]
    Malformed(&'static str),
    /// The packet can be parsed and is not allowed here.
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    /// The packet is larger than allowed, in octets.
    #[error("packet of {size} octets, at most {max} are allowed")]
    TooLarge {
        /// What the header says.
        size: usize,
        /// The limit.
        max: usize,
    },
    /// CONNECT names a protocol level this server does not speak.
    #[error("protocol level {0} is not supported")]
    Version(u8),
    /// CONNECT has an empty client id where it may not be empty (3.1.1 without clean session).
    #[error("the client id must not be empty")]
    ClientId,
}

impl WireError {
    /// The reason code of MQTT 5 (2.4).
    pub fn reason(&self) -> u8 {
        match self {
            Self::Malformed(_) => reason::MALFORMED,
            Self::Protocol(_) => reason::PROTOCOL_ERROR,
            Self::TooLarge { .. } => reason::PACKET_TOO_LARGE,
            Self::Version(_) => reason::UNSUPPORTED_VERSION,
            Self::ClientId => reason::CLIENT_ID_NOT_VALID,
        }
    }
}

/// Reason codes (MQTT 5, 2.4).
#[allow(missing_docs)]
pub mod reason {
    pub const SUCCESS: u8 = 0x00;
    pub const DISCONNECT_WITH_WILL: u8 = 0x04;
    pub const NO_MATCHING_SUBSCRIBERS: u8 = 0x10;
    pub const NO_SUBSCRIPTION: u8 = 0x11;
    pub const UNSPECIFIED: u8 = 0x80;
    pub const MALFORMED: u8 = 0x81;
    pub const PROTOCOL_ERROR: u8 = 0x82;
    pub const IMPLEMENTATION: u8 = 0x83;
    pub const UNSUPPORTED_VERSION: u8 = 0x84;
    pub const CLIENT_ID_NOT_VALID: u8 = 0x85;
    pub const NOT_AUTHORIZED: u8 = 0x87;
    pub const SERVER_UNAVAILABLE: u8 = 0x88;
    pub const SERVER_BUSY: u8 = 0x89;
    pub const SHUTTING_DOWN: u8 = 0x8B;
    pub const BAD_AUTH_METHOD: u8 = 0x8C;
    pub const KEEP_ALIVE_TIMEOUT: u8 = 0x8D;
    pub const SESSION_TAKEN_OVER: u8 = 0x8E;
    pub const FILTER_INVALID: u8 = 0x8F;
    pub const TOPIC_INVALID: u8 = 0x90;
    pub const PACKET_ID_NOT_FOUND: u8 = 0x92;
    pub const RECEIVE_MAXIMUM_EXCEEDED: u8 = 0x93;
    pub const ALIAS_INVALID: u8 = 0x94;
    pub const PACKET_TOO_LARGE: u8 = 0x95;
    pub const QUOTA_EXCEEDED: u8 = 0x97;
    pub const ADMINISTRATIVE_ACTION: u8 = 0x98;
    pub const PAYLOAD_FORMAT: u8 = 0x99;
}

/// Property identifiers (MQTT 5, 2.2.2.2) that appear in PUBLISH, CONNACK and DISCONNECT.
mod property {
    pub(super) const PAYLOAD_FORMAT: u8 = 0x01;
    pub(super) const MESSAGE_EXPIRY: u8 = 0x02;
    pub(super) const CONTENT_TYPE: u8 = 0x03;
    pub(super) const RESPONSE_TOPIC: u8 = 0x08;
    pub(super) const CORRELATION_DATA: u8 = 0x09;
    pub(super) const SUBSCRIPTION_ID: u8 = 0x0B;
    pub(super) const SESSION_EXPIRY: u8 = 0x11;
    pub(super) const ASSIGNED_CLIENT_ID: u8 = 0x12;
    pub(super) const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub(super) const REASON_STRING: u8 = 0x1F;
    pub(super) const RECEIVE_MAXIMUM: u8 = 0x21;
    pub(super) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub(super) const TOPIC_ALIAS: u8 = 0x23;
    pub(super) const USER: u8 = 0x26;
    pub(super) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
}

/// A variable byte integer (1.5.5): its value and its length, `None` if octets are missing.
///
/// # Errors
/// If it has more than four octets or more than it needs.
fn read_varint(octets: &[u8]) -> Result<Option<(usize, usize)>, WireError> {
    let mut value = 0;
    for (place, &octet) in octets.iter().take(4).enumerate() {
        value |= usize::from(octet & 0x7F) << (7 * place);
        if octet & 0x80 == 0 {
            if octet == 0 && place > 0 {
                return Err(WireError::Malformed("a length is not written minimally"));
            }
            return Ok(Some((value, place + 1)));
        }
    }
    match octets.len() {
        0..=3 => Ok(None),
        _ => Err(WireError::Malformed("a length has more than four octets")),
    }
}

/// How many octets a variable byte integer takes.
fn varint_len(value: usize) -> usize {
    match value {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        _ => 4,
    }
}

/// Write a variable byte integer; `value` is below 2^28.
fn put_varint(out: &mut impl bytes::BufMut, mut value: usize) {
    loop {
        let octet = (value & 0x7F) as u8;
        value >>= 7;
        if value == 0 {
            out.put_u8(octet);
            return;
        }
        out.put_u8(octet | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lengths_round_trip(value in 0usize..(1 << 28)) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_len(value));
            prop_assert_eq!(read_varint(&out).unwrap(), Some((value, out.len())));
        }
    }

    #[test]
    fn lengths_must_be_minimal_and_short() {
        assert!(read_varint(&[0x80, 0x00]).is_err());
        assert!(read_varint(&[0xFF, 0xFF, 0xFF, 0xFF]).is_err());
        assert_eq!(read_varint(&[0xFF, 0xFF, 0xFF]).unwrap(), None);
    }
}
