//! Frames as they come from a client (RFC 6455, section 5): what stands where, and what may not.
//!
//! No frame is ever held. MQTT packets need not begin or end where frames do [MQTT-6.0.0-2], so
//! the octets of a frame are passed on as they come, however many it announces.

use std::io::Cursor;

use bytes::{Buf, BytesMut};
use tungstenite::error::{Error, ProtocolError};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

/// What a client did that fails the WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// MQTT is in binary frames only [MQTT-6.0.0-1].
    #[error("a text frame came; MQTT is in binary frames only")]
    Text,
    #[error("a frame came that has no mask")]
    NotMasked,
    #[error("a frame came that needs an extension, and there is none")]
    Reserved,
    #[error("a frame of a kind came that does not exist")]
    UnknownKind,
    #[error("a frame came that announces more octets than there can be")]
    Length,
    #[error("a message was begun within another, or continued without one")]
    Fragments,
    #[error("a control frame came in parts or with more than 125 octets")]
    Control,
    #[error("a Close frame came whose code or reason is none")]
    Close,
}

impl Fault {
    /// The code that tells the client (RFC 6455, section 7.4.1).
    pub(super) fn code(self) -> CloseCode {
        match self {
            Self::Text => CloseCode::Unsupported,
            Self::NotMasked
            | Self::Reserved
            | Self::UnknownKind
            | Self::Length
            | Self::Fragments
            | Self::Control
            | Self::Close => CloseCode::Protocol,
        }
    }

    /// The name in metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::NotMasked => "not_masked",
            Self::Reserved => "reserved_bits",
            Self::UnknownKind => "unknown_kind",
            Self::Length => "length",
            Self::Fragments => "fragments",
            Self::Control => "control",
            Self::Close => "close",
        }
    }
}

/// What follows the head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Payload {
    /// Octets of MQTT.
    Data { left: u64, mask: Mask },
    /// What a control frame says; at most 125 octets.
    Control {
        kind: Control,
        left: usize,
        mask: Mask,
    },
}

/// Whether a message is under way whose next frame continues it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Message {
    #[default]
    None,
    Begun,
}

impl Message {
    /// Take the head of a frame out of `octets`, if it is whole; it never is longer than
    /// [`HEAD_MAX`].
    pub(super) fn head(&mut self, octets: &mut BytesMut) -> Result<Option<Payload>, Fault> {
        let mut cursor = Cursor::new(&*octets);
        let parsed = FrameHeader::parse(&mut cursor);
        let used = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
        let (head, length) = match parsed {
            Ok(Some(parsed)) => parsed,
            Ok(None) => return Ok(None),
            Err(Error::Protocol(ProtocolError::InvalidOpcode(_))) => {
                return Err(Fault::UnknownKind);
            }
            Err(_) => return Err(Fault::Reserved),
        };
        octets.advance(used.min(octets.len()));
        self.payload(&head, length).map(Some)
    }

    fn payload(&mut self, head: &FrameHeader, length: u64) -> Result<Payload, Fault> {
        if head.rsv1 || head.rsv2 || head.rsv3 {
            return Err(Fault::Reserved);
        }
        let mask = Mask(head.mask.ok_or(Fault::NotMasked)?);
        if i64::try_from(length).is_err() {
            return Err(Fault::Length);
        }
        let data = Payload::Data { left: length, mask };
        match (head.opcode, *self) {
            (OpCode::Data(Data::Text), _) => return Err(Fault::Text),
            (OpCode::Data(Data::Binary), Message::None)
            | (OpCode::Data(Data::Continue), Message::Begun) => {}
            (OpCode::Data(Data::Binary), Message::Begun)
            | (OpCode::Data(Data::Continue), Message::None) => return Err(Fault::Fragments),
            (OpCode::Control(kind), _) => {
                return match usize::try_from(length) {
                    Ok(left) if left <= CONTROL_MAX && head.is_final => {
                        Ok(Payload::Control { kind, left, mask })
                    }
                    _ => Err(Fault::Control),
                };
            }
            (OpCode::Data(Data::Reserved(_)), _) => return Err(Fault::UnknownKind),
        }
        *self = match head.is_final {
            true => Self::None,
            false => Self::Begun,
        };
        Ok(data)
    }
}

/// What a client mixes its octets with, beginning with the one that the next octet needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mask([u8; 4]);

impl Mask {
    /// Take the mask off the next octets.
    pub(super) fn unmask(&mut self, octets: &mut [u8]) {
        let mut fours = octets.chunks_exact_mut(4);
        for four in &mut fours {
            for (octet, key) in four.iter_mut().zip(self.0) {
                *octet ^= key;
            }
        }
        let rest = fours.into_remainder();
        for (octet, key) in rest.iter_mut().zip(self.0) {
            *octet ^= key;
        }
        self.0.rotate_left(rest.len());
    }
}

/// The code with which a Close frame is to be answered, which is its own.
pub(super) fn read_close(payload: &[u8]) -> Result<Option<CloseCode>, Fault> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return match payload.is_empty() {
            true => Ok(None),
            false => Err(Fault::Close),
        };
    };
    let code = CloseCode::from(u16::from_be_bytes(*code));
    match code.is_allowed() && std::str::from_utf8(reason).is_ok() {
        true => Ok(Some(code)),
        false => Err(Fault::Close),
    }
}

/// The longest head of a frame.
pub(super) const HEAD_MAX: usize = 14;

/// The longest payload of a control frame.
pub(super) const CONTROL_MAX: usize = 125;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn heads(octets: &[u8]) -> Result<Vec<Payload>, Fault> {
        let (mut message, mut octets) = (Message::None, BytesMut::from(octets));
        let mut found = Vec::new();
        while let Some(payload) = message.head(&mut octets)? {
            found.push(payload);
        }
        Ok(found)
    }

    #[test]
    fn heads_that_break_a_rule_are_faults() {
        for (octets, fault) in [
            (&[0x81, 0x80, 0, 0, 0, 0][..], Fault::Text),
            (&[0x01, 0x80, 0, 0, 0, 0], Fault::Text),
            (&[0x82, 0x01], Fault::NotMasked),
            (&[0xc2, 0x80, 0, 0, 0, 0], Fault::Reserved),
            (&[0x92, 0x80, 0, 0, 0, 0], Fault::Reserved),
            (&[0x83, 0x80, 0, 0, 0, 0], Fault::UnknownKind),
            (&[0x8b, 0x80, 0, 0, 0, 0], Fault::UnknownKind),
            (&[0x80, 0x80, 0, 0, 0, 0], Fault::Fragments),
            (
                &[0x02, 0x80, 0, 0, 0, 0, 0x82, 0x80, 0, 0, 0, 0],
                Fault::Fragments,
            ),
            (&[0x09, 0x80, 0, 0, 0, 0], Fault::Control),
            (&[0x89, 0xfe, 0, 126, 0, 0, 0, 0], Fault::Control),
            (
                &[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                Fault::Length,
            ),
        ] {
            assert_eq!(heads(octets), Err(fault), "{octets:x?}");
        }
    }

    #[test]
    fn control_frames_may_stand_within_a_message() {
        let octets = [
            [0x02, 0x80, 0, 0, 0, 0],
            [0x89, 0x80, 0, 0, 0, 0],
            [0x00, 0x80, 0, 0, 0, 0],
            [0x80, 0x80, 0, 0, 0, 0],
            [0x82, 0x80, 0, 0, 0, 0],
        ];
        assert_eq!(heads(octets.as_flattened()).unwrap().len(), 5);
    }

    #[test]
    fn close_codes_are_those_that_may_be_sent() {
        assert_eq!(read_close(&[]), Ok(None));
        assert_eq!(read_close(&[0x03, 0xe8, b'x']), Ok(Some(CloseCode::Normal)));
        for payload in [
            &[0x03][..],
            &[0x03, 0xed],
            &[0x03, 0xee],
            &[0, 0],
            &[0x03, 0xe8, 0xff],
        ] {
            assert_eq!(read_close(payload), Err(Fault::Close), "{payload:x?}");
        }
    }

    proptest! {
        #[test]
        fn mask_taken_off_in_pieces_is_the_mask(key: [u8; 4], octets: Vec<u8>, cut in 0usize..64) {
            let mut pieces = octets.clone();
            let (one, two) = pieces.split_at_mut(cut.min(octets.len()));
            let mut mask = Mask(key);
            mask.unmask(one);
            mask.unmask(two);
            let whole = octets.iter().zip(key.iter().cycle()).map(|(octet, key)| octet ^ key);
            prop_assert_eq!(pieces, whole.collect::<Vec<u8>>());
        }

        #[test]
        fn any_octets_are_heads_or_faults(octets: Vec<u8>) {
            let (mut message, mut rest) = (Message::None, BytesMut::from(&octets[..]));
            while let Ok(Some(_)) = message.head(&mut rest) {}
            // More is waited for only where a head can be longer.
            if message.head(&mut rest.clone()) == Ok(None) {
                prop_assert!(rest.len() < HEAD_MAX);
            }
        }
    }
}
