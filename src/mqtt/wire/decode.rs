//! From octets to packets.

use bytes::{Buf, Bytes, BytesMut};
use rmqtt_codec::{v3, v5};
use tokio_util::codec::Decoder as _;

use super::connect::connect;
use super::packets::{Ack, AckKind, Disconnect, Incoming, Options, RetainHandling, Subscribe};
use super::publish::{self, packet_id, take_id, take_text, take_u8};
use super::{Version, WireError, read_varint};

/// Takes packets from a stream, one at a time.
#[derive(Debug)]
pub struct Decoder {
    version: Option<Version>,
    max_packet: usize,
}

impl Decoder {
    /// A decoder that waits for CONNECT, and takes packets of up to `max_packet` octets.
    pub fn new(max_packet: usize) -> Self {
        Self {
            version: None,
            max_packet,
        }
    }

    /// The version CONNECT was written in.
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// Take packets of up to this many octets from now on.
    pub fn set_max_packet(&mut self, octets: usize) {
        self.max_packet = octets;
    }

    /// The next packet, or `None` if octets are missing. Never waits for more octets than a packet
    /// of the allowed size has.
    ///
    /// # Errors
    /// If the octets break a rule; the stream is then of no use any more.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Incoming>, WireError> {
        let Some(&first) = buffer.first() else {
            return Ok(None);
        };
        check_header(first, self.version)?;
        let Some((length, octets)) = read_varint(buffer.get(1..).unwrap_or_default())? else {
            return Ok(None);
        };
        let size = 1 + octets + length;
        if size > self.max_packet {
            return Err(WireError::TooLarge {
                size,
                max: self.max_packet,
            });
        }
        if buffer.len() < size {
            return Ok(None);
        }
        let packet = buffer.split_to(size);
        match self.version {
            Some(version) => decode(version, first, 1 + octets, packet).map(Some),
            None => {
                let connect = connect(packet, 1 + octets, &mut self.version)?;
                Ok(Some(Incoming::Connect(Box::new(connect))))
            }
        }
    }
}

/// The types a client may send, with the flags they must have (2.1.3), in the order that the
/// connection allows.
fn check_header(first: u8, version: Option<Version>) -> Result<(), WireError> {
    let (kind, flags) = (first >> 4, first & 0x0F);
    match (kind, version) {
        (1, None) if flags == 0 => return Ok(()),
        (_, None) => return Err(WireError::Protocol("the first packet is not CONNECT")),
        (1, Some(_)) => return Err(WireError::Protocol("a second CONNECT")),
        (15, Some(Version::V5)) => {
            return Err(WireError::Protocol("AUTH without a method in CONNECT"));
        }
        (0 | 15, _) => return Err(WireError::Malformed("a reserved packet type")),
        (2 | 9 | 11 | 13, _) => return Err(WireError::Protocol("a packet that servers send")),
        (3, _) => return Ok(()),
        _ => {}
    }
    let wanted = match kind {
        6 | 8 | 10 => 0x02,
        _ => 0x00,
    };
    match flags == wanted {
        true => Ok(()),
        false => Err(WireError::Malformed("reserved header flags")),
    }
}

fn decode(
    version: Version,
    first: u8,
    header: usize,
    packet: BytesMut,
) -> Result<Incoming, WireError> {
    match first >> 4 {
        3 => {
            let mut body = packet.freeze();
            body.advance(header);
            let packet = publish::decode(version, first & 0x0F, body)?;
            Ok(Incoming::Publish(Box::new(packet)))
        }
        4 => ack(version, AckKind::PubAck, header, packet),
        5 => ack(version, AckKind::PubRec, header, packet),
        6 => ack(version, AckKind::PubRel, header, packet),
        7 => ack(version, AckKind::PubComp, header, packet),
        12 => match packet.len() == header {
            true => Ok(Incoming::Ping),
            false => Err(WireError::Malformed("PINGREQ has a body")),
        },
        8 => subscribe(version, header, packet),
        10 => unsubscribe(version, packet),
        _ => disconnect(version, header, packet),
    }
}

fn ack(
    version: Version,
    kind: AckKind,
    header: usize,
    packet: BytesMut,
) -> Result<Incoming, WireError> {
    let body = packet.get(header..).unwrap_or_default();
    let (id, reason) = match (version, body) {
        (_, &[high, low]) => (packet_id(u16::from_be_bytes([high, low]))?, 0),
        (Version::V311, _) => return Err(WireError::Malformed("an acknowledgement's length")),
        (Version::V5, _) => match codec_v5(packet)? {
            v5::Packet::PublishAck(ack) | v5::Packet::PublishReceived(ack) => {
                (ack.packet_id, ack.reason_code.into())
            }
            v5::Packet::PublishRelease(ack) | v5::Packet::PublishComplete(ack) => {
                (ack.packet_id, ack.reason_code.into())
            }
            _ => return Err(WireError::Malformed("an acknowledgement")),
        },
    };
    Ok(Incoming::Ack(Ack { kind, id, reason }))
}

fn subscribe(version: Version, header: usize, packet: BytesMut) -> Result<Incoming, WireError> {
    if version == Version::V311 {
        let mut body = Bytes::copy_from_slice(packet.get(header..).unwrap_or_default());
        take_id(&mut body)?;
        while body.has_remaining() {
            take_text(&mut body)?;
            if take_u8(&mut body)? & 0xFC != 0 {
                return Err(WireError::Malformed("reserved bits of a subscription"));
            }
        }
        let v3::Packet::Subscribe {
            packet_id,
            topic_filters,
        } = codec_v3(packet)?
        else {
            return Err(WireError::Malformed("SUBSCRIBE"));
        };
        let options = |qos| Options {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Always,
        };
        return Ok(Incoming::Subscribe(Subscribe {
            id: packet_id,
            subscription_id: None,
            filters: topic_filters
                .into_iter()
                .map(|(filter, qos)| (filter, options(qos)))
                .collect(),
        }));
    }
    let v5::Packet::Subscribe(packet) = codec_v5(packet)? else {
        return Err(WireError::Malformed("SUBSCRIBE"));
    };
    let options = |options: v5::SubscriptionOptions| Options {
        qos: options.qos,
        no_local: options.no_local,
        retain_as_published: options.retain_as_published,
        retain_handling: match options.retain_handling {
            v5::RetainHandling::AtSubscribe => RetainHandling::Always,
            v5::RetainHandling::AtSubscribeNew => RetainHandling::IfNew,
            v5::RetainHandling::NoAtSubscribe => RetainHandling::Never,
        },
    };
    Ok(Incoming::Subscribe(Subscribe {
        id: packet.packet_id,
        subscription_id: packet.id.map(|id| id.get()),
        filters: packet
            .topic_filters
            .into_iter()
            .map(|(filter, given)| (filter, options(given)))
            .collect(),
    }))
}

fn unsubscribe(version: Version, packet: BytesMut) -> Result<Incoming, WireError> {
    match version {
        Version::V311 => match codec_v3(packet)? {
            v3::Packet::Unsubscribe {
                packet_id,
                topic_filters,
            } => Ok(Incoming::Unsubscribe(packet_id, topic_filters)),
            _ => Err(WireError::Malformed("UNSUBSCRIBE")),
        },
        Version::V5 => match codec_v5(packet)? {
            v5::Packet::Unsubscribe(packet) => Ok(Incoming::Unsubscribe(
                packet.packet_id,
                packet.topic_filters,
            )),
            _ => Err(WireError::Malformed("UNSUBSCRIBE")),
        },
    }
}

fn disconnect(version: Version, header: usize, packet: BytesMut) -> Result<Incoming, WireError> {
    let (reason, session_expiry) = match version {
        Version::V311 if packet.len() == header => (0, None),
        Version::V311 => return Err(WireError::Malformed("DISCONNECT has a body")),
        Version::V5 => match codec_v5(packet)? {
            v5::Packet::Disconnect(packet) => (
                packet.reason_code.into(),
                packet.session_expiry_interval_secs,
            ),
            _ => return Err(WireError::Malformed("DISCONNECT")),
        },
    };
    Ok(Incoming::Disconnect(Disconnect {
        reason,
        session_expiry,
    }))
}

pub(super) fn codec_v3(mut packet: BytesMut) -> Result<v3::Packet, WireError> {
    match v3::Codec::new(0).decode(&mut packet) {
        Ok(Some((decoded, _))) => Ok(decoded),
        Ok(None) => Err(WireError::Malformed("the packet is too short")),
        Err(error) => Err(refusal(&error)),
    }
}

pub(super) fn codec_v5(mut packet: BytesMut) -> Result<v5::Packet, WireError> {
    match v5::Codec::new(0, 0).decode(&mut packet) {
        Ok(Some((decoded, _))) => Ok(decoded),
        Ok(None) => Err(WireError::Malformed("the packet is too short")),
        Err(error) => Err(refusal(&error)),
    }
}

fn refusal(error: &rmqtt_codec::error::DecodeError) -> WireError {
    use rmqtt_codec::error::DecodeError;
    match error {
        DecodeError::InvalidClientId => WireError::ClientId,
        DecodeError::Utf8Error => WireError::Malformed("text is not UTF-8"),
        DecodeError::InvalidTopicFilter => {
            WireError::Protocol("a list of filters is empty, or has an empty one")
        }
        _ => WireError::Malformed("the packet does not have the form the standard gives it"),
    }
}

#[cfg(test)]
mod tests;
