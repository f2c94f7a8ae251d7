//! PUBLISH, and the properties that a message carries through the broker.

use std::num::NonZeroU16;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use bytestring::ByteString;

use super::packets::Publish;
use super::{QoS, Version, WireError, property, put_varint, read_varint, varint_len};
use crate::mqtt::frame::Frame;

/// Decode the body of a PUBLISH whose header has these flags.
///
/// # Errors
/// If it is malformed, or has what only a server may send.
pub fn decode(version: Version, flags: u8, mut body: Bytes) -> Result<Publish, WireError> {
    let qos = QoS::try_from((flags >> 1) & 0x03)
        .map_err(|_| WireError::Malformed("PUBLISH has QoS 3"))?;
    let dup = flags & 0x08 != 0;
    if dup && qos == QoS::AtMostOnce {
        return Err(WireError::Malformed("PUBLISH of QoS 0 has DUP"));
    }
    let topic = take_text(&mut body)?;
    let id = match qos {
        QoS::AtMostOnce => None,
        QoS::AtLeastOnce | QoS::ExactlyOnce => Some(take_id(&mut body)?),
    };
    let properties = match version {
        Version::V311 => Properties::default(),
        Version::V5 => Properties::take(&mut body)?,
    };
    if topic.is_empty() && properties.alias.is_none() {
        return Err(match version {
            Version::V311 => WireError::Malformed("PUBLISH without a topic"),
            Version::V5 => WireError::Protocol("PUBLISH with neither topic nor alias"),
        });
    }
    Ok(Publish {
        dup,
        retain: flags & 0x01 != 0,
        qos,
        topic,
        id,
        alias: properties.alias,
        expiry: properties.expiry,
        response_topic: properties.response_topic,
        correlation_data: properties.correlation_data,
        declared_text: properties.declared_text,
        properties: properties.forwarded,
        payload: body,
    })
}

#[derive(Default)]
struct Properties {
    alias: Option<u16>,
    expiry: Option<u32>,
    response_topic: Option<ByteString>,
    correlation_data: Option<Bytes>,
    declared_text: bool,
    forwarded: Bytes,
}

impl Properties {
    fn take(body: &mut Bytes) -> Result<Self, WireError> {
        let (length, octets) =
            read_varint(body)?.ok_or(WireError::Malformed("properties are cut off"))?;
        body.advance(octets);
        let whole = take(body, length)?;
        let mut found = Self::default();
        let mut rest = whole.clone();
        let (mut format, mut content_type, mut dropped) = (None, None, false);
        let mut kept = Vec::new();
        while rest.has_remaining() {
            let start = whole.len() - rest.len();
            let mut passed_on = true;
            match rest.get_u8() {
                property::PAYLOAD_FORMAT => once(&mut format, take_u8(&mut rest)?)?,
                property::CONTENT_TYPE => once(&mut content_type, take_text(&mut rest)?)?,
                property::RESPONSE_TOPIC => {
                    once(&mut found.response_topic, take_text(&mut rest)?)?;
                }
                property::CORRELATION_DATA => {
                    once(&mut found.correlation_data, take_binary(&mut rest)?)?;
                }
                property::USER => {
                    take_text(&mut rest)?;
                    take_text(&mut rest)?;
                }
                property::MESSAGE_EXPIRY => {
                    once(&mut found.expiry, take_u32(&mut rest)?)?;
                    passed_on = false;
                }
                property::TOPIC_ALIAS => {
                    once(&mut found.alias, take_u16(&mut rest)?)?;
                    passed_on = false;
                }
                property::SUBSCRIPTION_ID => {
                    return Err(WireError::Protocol(
                        "PUBLISH of a client has a subscription id",
                    ));
                }
                _ => return Err(WireError::Malformed("PUBLISH has an unknown property")),
            }
            match passed_on {
                true => kept.push(start..whole.len() - rest.len()),
                false => dropped = true,
            }
        }
        found.declared_text = match format {
            None | Some(0) => false,
            Some(1) => true,
            Some(_) => return Err(WireError::Protocol("payload format is neither 0 nor 1")),
        };
        found.forwarded = match dropped {
            false => whole,
            true => kept
                .into_iter()
                .flat_map(|range| whole.get(range).unwrap_or_default())
                .copied()
                .collect(),
        };
        Ok(found)
    }
}

/// Write the properties of a message that the broker passes on, in the form they have in a frame.
#[derive(Default)]
pub struct PropertyWriter(BytesMut);

impl PropertyWriter {
    /// The payload is text.
    pub fn text_payload(&mut self) {
        self.0.put_slice(&[property::PAYLOAD_FORMAT, 1]);
    }
    /// The content type.
    pub fn content_type(&mut self, text: &str) {
        self.0.put_u8(property::CONTENT_TYPE);
        put_binary(&mut self.0, text.as_bytes());
    }
    /// Where an answer goes.
    pub fn response_topic(&mut self, text: &str) {
        self.0.put_u8(property::RESPONSE_TOPIC);
        put_binary(&mut self.0, text.as_bytes());
    }
    /// What an answer repeats.
    pub fn correlation_data(&mut self, octets: &[u8]) {
        self.0.put_u8(property::CORRELATION_DATA);
        put_binary(&mut self.0, octets);
    }
    /// A user property.
    pub fn user(&mut self, key: &str, value: &str) {
        self.0.put_u8(property::USER);
        put_binary(&mut self.0, key.as_bytes());
        put_binary(&mut self.0, value.as_bytes());
    }
    /// The octets.
    pub fn finish(self) -> Bytes {
        self.0.freeze()
    }
}

/// A PUBLISH of the server, made of a frame without copying it first.
pub struct PublishOut<'a> {
    /// The message.
    pub frame: &'a Frame,
    /// The QoS it is delivered with.
    pub qos: QoS,
    /// The retain flag it is delivered with.
    pub retain: bool,
    /// Sent before.
    pub dup: bool,
    /// The packet id, unless QoS is 0.
    pub id: Option<NonZeroU16>,
    /// The topic alias, and whether it still has to be introduced.
    pub alias: Option<(u16, bool)>,
    /// The identifiers of the subscriptions it is delivered for.
    pub subscription_ids: &'a [u32],
    /// Seconds it is still of use.
    pub expiry: Option<u32>,
}

impl PublishOut<'_> {
    /// Octets of the whole packet.
    pub fn len(&self, version: Version) -> usize {
        let body = self.body_len(version);
        1 + varint_len(body) + body
    }

    /// Write it.
    pub fn encode(&self, version: Version, out: &mut BytesMut) {
        let body = self.body_len(version);
        out.reserve(5 + body);
        let flags = (u8::from(self.dup) << 3) | (self.qos.value() << 1) | u8::from(self.retain);
        out.put_u8(0x30 | flags);
        put_varint(out, body);
        put_binary(out, self.topic());
        if let Some(id) = self.id {
            out.put_u16(id.get());
        }
        if version == Version::V5 {
            put_varint(out, self.properties_len());
            if let Some((alias, _)) = self.alias {
                out.put_u8(property::TOPIC_ALIAS);
                out.put_u16(alias);
            }
            if let Some(expiry) = self.expiry {
                out.put_u8(property::MESSAGE_EXPIRY);
                out.put_u32(expiry);
            }
            for &id in self.subscription_ids {
                out.put_u8(property::SUBSCRIPTION_ID);
                put_varint(out, id as usize);
            }
            out.put_slice(self.frame.properties());
        }
        out.put_slice(self.frame.payload());
    }

    fn topic(&self) -> &[u8] {
        match self.alias {
            Some((_, false)) => &[],
            _ => self.frame.topic_octets(),
        }
    }

    fn body_len(&self, version: Version) -> usize {
        let properties = match version {
            Version::V311 => 0,
            Version::V5 => {
                let length = self.properties_len();
                varint_len(length) + length
            }
        };
        2 + self.topic().len() + self.id.map_or(0, |_| 2) + properties + self.frame.payload().len()
    }

    fn properties_len(&self) -> usize {
        self.frame.properties().len()
            + self.alias.map_or(0, |_| 3)
            + self.expiry.map_or(0, |_| 5)
            + self
                .subscription_ids
                .iter()
                .map(|&id| 1 + varint_len(id as usize))
                .sum::<usize>()
    }
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), WireError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(WireError::Protocol("a property is there twice")),
    }
}

pub(super) fn take(body: &mut Bytes, length: usize) -> Result<Bytes, WireError> {
    if body.len() < length {
        return Err(WireError::Malformed("the packet is too short"));
    }
    Ok(body.split_to(length))
}

pub(super) fn take_u8(body: &mut Bytes) -> Result<u8, WireError> {
    body.try_get_u8()
        .map_err(|_| WireError::Malformed("the packet is too short"))
}

pub(super) fn take_u16(body: &mut Bytes) -> Result<u16, WireError> {
    body.try_get_u16()
        .map_err(|_| WireError::Malformed("the packet is too short"))
}

fn take_u32(body: &mut Bytes) -> Result<u32, WireError> {
    body.try_get_u32()
        .map_err(|_| WireError::Malformed("the packet is too short"))
}

pub(super) fn take_id(body: &mut Bytes) -> Result<NonZeroU16, WireError> {
    packet_id(take_u16(body)?)
}

pub(super) fn packet_id(number: u16) -> Result<NonZeroU16, WireError> {
    NonZeroU16::new(number).ok_or(WireError::Malformed("the packet id is 0"))
}

pub(super) fn take_binary(body: &mut Bytes) -> Result<Bytes, WireError> {
    let length = take_u16(body)?;
    take(body, usize::from(length))
}

pub(super) fn take_text(body: &mut Bytes) -> Result<ByteString, WireError> {
    let text = ByteString::try_from(take_binary(body)?)
        .map_err(|_| WireError::Malformed("text is not UTF-8"))?;
    match text.as_bytes().contains(&0) {
        true => Err(WireError::Malformed("text has U+0000")),
        false => Ok(text),
    }
}

pub(super) fn put_binary(out: &mut BytesMut, octets: &[u8]) {
    // Everything put here came from, or is bounded to, a field of that size.
    let length = u16::try_from(octets.len()).unwrap_or(u16::MAX);
    out.put_u16(length);
    out.put_slice(octets.get(..usize::from(length)).unwrap_or_default());
}
