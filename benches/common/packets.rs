//! The packets of clients, as `rmqtt-codec` writes them.

use std::num::NonZeroU16;

use bytes::{Bytes, BytesMut};
use portcullis::mqtt::wire::{QoS, Version};
use rmqtt_codec::types::Publish;
use rmqtt_codec::{v3, v5};
use tokio_util::codec::Encoder;

pub const TOPIC: &str = "sites/berlin/meters/4711/power";

/// A message of so many octets.
pub fn message(version: Version, qos: QoS, payload: usize) -> Publish {
    Publish {
        dup: false,
        retain: false,
        qos,
        topic: TOPIC.into(),
        packet_id: (qos != QoS::AtMostOnce).then_some(NonZeroU16::MIN),
        payload: Bytes::from(vec![b'x'; payload]),
        properties: (version == Version::V5).then(Default::default),
    }
}

pub fn publish(version: Version, qos: QoS, payload: usize) -> Bytes {
    let message = message(version, qos, payload);
    match version {
        Version::V311 => written(&mut v3::Codec::new(0), message.into()),
        Version::V5 => written(&mut v5::Codec::new(0, 0), message.into()),
    }
}

/// CONNECT of a client without a will.
pub fn connect(version: Version) -> Bytes {
    let (client_id, keep_alive) = ("meter-4711".into(), 60);
    match version {
        Version::V311 => {
            let packet = v3::Connect {
                clean_session: true,
                keep_alive,
                client_id,
                ..v3::Connect::default()
            };
            written(&mut v3::Codec::new(0), packet.into())
        }
        Version::V5 => {
            let packet = v5::Connect {
                clean_start: true,
                keep_alive,
                client_id,
                session_expiry_interval_secs: 3_600,
                receive_max: NonZeroU16::new(100),
                ..v5::Connect::default()
            };
            written(&mut v5::Codec::new(0, 0), packet.into())
        }
    }
}

fn written<P, C: Encoder<P>>(codec: &mut C, packet: P) -> Bytes {
    let mut out = BytesMut::new();
    assert!(codec.encode(packet, &mut out).is_ok());
    out.freeze()
}
