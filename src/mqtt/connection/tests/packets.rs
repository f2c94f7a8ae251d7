//! Packets that clients send.

use std::num::NonZeroU16;

use bytes::Bytes;
use rmqtt_codec::types::QoS;
use rmqtt_codec::{v3, v5};

/// The name of the type of PUBLISH, which the codec has in another module.
pub(super) mod v5_publish {
    pub(in crate::mqtt::connection::tests) use rmqtt_codec::types::Publish;
}

pub(super) fn pid(id: u16) -> NonZeroU16 {
    NonZeroU16::new(id).unwrap()
}

pub(super) fn ack(packet_id: NonZeroU16) -> v5::PublishAck {
    v5::PublishAck {
        packet_id,
        ..Default::default()
    }
}

pub(super) fn ack2(packet_id: NonZeroU16) -> v5::PublishAck2 {
    v5::PublishAck2 {
        packet_id,
        ..Default::default()
    }
}

pub(super) fn connect5(id: &'static str) -> v5::Connect {
    v5::Connect {
        client_id: id.into(),
        clean_start: true,
        ..Default::default()
    }
}

/// Of a session that lasts longer than its connection.
pub(super) fn lasting(id: &'static str) -> v5::Connect {
    v5::Connect {
        clean_start: false,
        session_expiry_interval_secs: 1_000,
        ..connect5(id)
    }
}

pub(super) fn connect3(id: &'static str) -> v3::Connect {
    v3::Connect {
        client_id: id.into(),
        clean_session: true,
        ..Default::default()
    }
}

pub(super) fn options(qos: QoS) -> v5::SubscriptionOptions {
    v5::SubscriptionOptions {
        qos,
        ..Default::default()
    }
}

/// A will of QoS 1 that waits for nothing and has no properties.
pub(super) fn plain_will(topic: &str, message: &'static str) -> v5::LastWill {
    v5::LastWill {
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: topic.to_owned().into(),
        message: message.into(),
        will_delay_interval_sec: None,
        correlation_data: None,
        message_expiry_interval: None,
        content_type: None,
        user_properties: Vec::new(),
        is_utf8_payload: None,
        response_topic: None,
    }
}

/// A will for topic `will`, delayed by so many seconds.
pub(super) fn will(delay: u32) -> Option<v5::LastWill> {
    Some(v5::LastWill {
        will_delay_interval_sec: Some(delay),
        content_type: Some("text/plain".into()),
        user_properties: vec![("k".into(), "v".into())],
        ..plain_will("will", "gone")
    })
}

/// Of client `c`, whose will is for topic `will`.
pub(super) fn with_will(keep_alive: u16) -> v5::Connect {
    v5::Connect {
        last_will: will(0),
        keep_alive,
        ..connect5("c")
    }
}

/// A message for `t` that is sent in one go, and no other with it.
pub(super) fn large() -> v5_publish::Publish {
    v5_publish::Publish {
        payload: vec![b'x'; 100_000].into(),
        ..message("t", QoS::AtMostOnce, "")
    }
}

pub(super) fn message(topic: &str, qos: QoS, payload: &'static str) -> v5_publish::Publish {
    v5_publish::Publish {
        dup: false,
        retain: false,
        qos,
        topic: topic.to_owned().into(),
        packet_id: (qos != QoS::AtMostOnce).then(|| pid(5)),
        payload: Bytes::from_static(payload.as_bytes()),
        properties: Some(v5::PublishProperties::default()),
    }
}

pub(super) fn retained(topic: &str, payload: &'static str) -> v5_publish::Publish {
    v5_publish::Publish {
        retain: true,
        ..message(topic, QoS::AtLeastOnce, payload)
    }
}
