//! CONNECT, in both versions.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use rmqtt_codec::{v3, v5};

use super::decode::{codec_v3, codec_v5};
use super::packets::{Connect, Will};
use super::publish::{self, PropertyWriter, take, take_text, take_u8};
use super::{Version, WireError, read_varint};

/// Decode CONNECT, and note the version it is written in.
///
/// # Errors
/// If it is malformed, or its version is none of ours.
pub(super) fn connect(
    packet: BytesMut,
    header: usize,
    version: &mut Option<Version>,
) -> Result<Connect, WireError> {
    let mut body = Bytes::copy_from_slice(packet.get(header..).unwrap_or_default());
    let name = take_text(&mut body)?;
    let level = take_u8(&mut body)?;
    let found = match (&*name, level) {
        ("MQTT", 4) => Version::V311,
        ("MQTT", 5) => Version::V5,
        ("MQTT" | "MQIsdp", level) => return Err(WireError::Version(level)),
        _ => return Err(WireError::Protocol("the protocol name is not MQTT")),
    };
    *version = Some(found);
    let flags = check_connect(found, body)?;
    match found {
        Version::V311 => connect_v3(packet),
        Version::V5 => connect_v5(packet, header, flags),
    }
}

/// Walks CONNECT after the level, and gives its flags.
fn check_connect(version: Version, mut body: Bytes) -> Result<u8, WireError> {
    let flags = take_u8(&mut body)?;
    let (user, password, will) = (flags & 0x80 != 0, flags & 0x40 != 0, flags & 0x04 != 0);
    if flags & 0x01 != 0 {
        return Err(WireError::Malformed("a reserved flag of CONNECT"));
    }
    if !will && flags & 0x38 != 0 {
        return Err(WireError::Malformed("will flags without a will"));
    }
    if version == Version::V311 && password && !user {
        return Err(WireError::Malformed("a password without a user name"));
    }
    let skip_properties = |body: &mut Bytes| -> Result<(), WireError> {
        if version == Version::V5 {
            let (length, octets) =
                read_varint(body)?.ok_or(WireError::Malformed("properties are cut off"))?;
            take(body, octets + length)?;
        }
        Ok(())
    };
    take(&mut body, 2)?;
    skip_properties(&mut body)?;
    take_text(&mut body)?;
    if will {
        skip_properties(&mut body)?;
        take_text(&mut body)?;
        publish::take_binary(&mut body)?;
    }
    if user {
        take_text(&mut body)?;
    }
    if password {
        publish::take_binary(&mut body)?;
    }
    match body.is_empty() {
        true => Ok(flags),
        false => Err(WireError::Malformed("octets after the end of CONNECT")),
    }
}

fn connect_v3(packet: BytesMut) -> Result<Connect, WireError> {
    let v3::Packet::Connect(packet) = codec_v3(packet)? else {
        return Err(WireError::Malformed("CONNECT"));
    };
    Ok(Connect {
        version: Version::V311,
        clean_start: packet.clean_session,
        keep_alive: packet.keep_alive,
        client_id: packet.client_id,
        session_expiry: match packet.clean_session {
            true => 0,
            false => u32::MAX,
        },
        receive_maximum: u16::MAX,
        max_packet: u32::MAX,
        alias_maximum: 0,
        wants_auth: false,
        will: packet.last_will.map(|will| Will {
            qos: will.qos,
            retain: will.retain,
            topic: will.topic,
            payload: will.message,
            delay: 0,
            expiry: None,
            properties: Bytes::new(),
            declared_text: false,
        }),
    })
}

fn connect_v5(mut packet: BytesMut, header: usize, flags: u8) -> Result<Connect, WireError> {
    // The codec refuses an empty client id without clean start, which MQTT 5 allows (3.1.3.1).
    // The flag makes no difference to the codec otherwise, and the true one is kept here.
    if let Some(octet) = packet.get_mut(header + 7) {
        *octet |= 0x02;
    }
    let v5::Packet::Connect(packet) = codec_v5(packet)? else {
        return Err(WireError::Malformed("CONNECT"));
    };
    if packet.auth_data.is_some() && packet.auth_method.is_none() {
        return Err(WireError::Protocol("authentication data without a method"));
    }
    Ok(Connect {
        version: Version::V5,
        clean_start: flags & 0x02 != 0,
        keep_alive: packet.keep_alive,
        client_id: packet.client_id,
        session_expiry: packet.session_expiry_interval_secs,
        receive_maximum: packet.receive_max.map_or(u16::MAX, |max| max.get()),
        max_packet: packet.max_packet_size.map_or(u32::MAX, |max| max.get()),
        alias_maximum: packet.topic_alias_max,
        wants_auth: packet.auth_method.is_some(),
        will: packet.last_will.map(will_v5),
    })
}

fn will_v5(will: v5::LastWill) -> Will {
    let mut properties = PropertyWriter::default();
    let declared_text = will.is_utf8_payload == Some(true);
    if declared_text {
        properties.text_payload();
    }
    if let Some(content_type) = &will.content_type {
        properties.content_type(content_type);
    }
    if let Some(topic) = &will.response_topic {
        properties.response_topic(topic);
    }
    if let Some(data) = &will.correlation_data {
        properties.correlation_data(data);
    }
    for (key, value) in &will.user_properties {
        properties.user(key, value);
    }
    Will {
        qos: will.qos,
        retain: will.retain,
        topic: ByteString::from(&*will.topic),
        payload: will.message,
        delay: will.will_delay_interval_sec.unwrap_or(0),
        expiry: will.message_expiry_interval.map(|expiry| expiry.get()),
        properties: properties.finish(),
        declared_text,
    }
}
