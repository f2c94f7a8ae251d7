//! A minimal MQTT 5 speaker that sees every packet.

use std::num::NonZeroU16;

use bytes::{Bytes, BytesMut};
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{
    Codec, Connect, ConnectAck, ConnectAckReason, Disconnect, DisconnectReasonCode, LastWill,
    Packet, PublishProperties, Subscribe, SubscribeAckReason, SubscriptionOptions,
};
use tokio_util::codec::{Decoder, Encoder};

use super::tls::{End, TlsStream};

/// What carries the octets of MQTT.
pub trait Channel {
    /// Send octets.
    fn send(&mut self, octets: &[u8]) -> Result<(), End>;
    /// Octets, as soon as there are some.
    fn read(&mut self) -> Result<Vec<u8>, End>;
}

/// A connection that has its CONNACK.
pub struct Mqtt<C = TlsStream> {
    pub stream: C,
    codec: Codec,
    buffer: BytesMut,
    /// The CONNACK.
    pub ack: ConnectAck,
}

/// A will of QoS 1 that waits for nothing.
pub fn will(topic: &str, message: &str) -> LastWill {
    LastWill {
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: topic.to_owned().into(),
        message: message.to_owned().into(),
        will_delay_interval_sec: None,
        correlation_data: None,
        message_expiry_interval: None,
        content_type: None,
        user_properties: Vec::new(),
        is_utf8_payload: None,
        response_topic: None,
    }
}

impl Mqtt {
    /// An ordinary CONNECT: clean start, keep alive off.
    pub fn hello(client_id: &str) -> Connect {
        Connect {
            clean_start: true,
            ..Connect::default()
        }
        .client_id(client_id)
    }

    /// Whether the handshake below was a resumption.
    pub fn kind(&self) -> rustls::HandshakeKind {
        self.stream.kind()
    }
}

impl<C: Channel> Mqtt<C> {
    /// Send CONNECT and wait for a CONNACK that says yes.
    pub fn connect(stream: C, connect: Connect) -> Result<Self, End> {
        let mut mqtt = Self {
            stream,
            codec: Codec::default(),
            buffer: BytesMut::new(),
            ack: ConnectAck::default(),
        };
        mqtt.send(Packet::from(connect))?;
        match mqtt.next()? {
            Packet::ConnectAck(ack) if ack.reason_code == ConnectAckReason::Success => {
                mqtt.ack = *ack;
                Ok(mqtt)
            }
            other => Err(End::Broken(format!("{other:?} in place of CONNACK"))),
        }
    }

    /// Send a packet.
    pub fn send(&mut self, packet: Packet) -> Result<(), End> {
        let mut bytes = BytesMut::new();
        self.codec.encode(packet, &mut bytes).unwrap();
        self.stream.send(&bytes)
    }

    /// The next packet.
    pub fn next(&mut self) -> Result<Packet, End> {
        loop {
            match self.codec.decode(&mut self.buffer) {
                Ok(Some((packet, _))) => return Ok(packet),
                Ok(None) => {
                    let more = self.stream.read()?;
                    self.buffer.extend_from_slice(&more);
                }
                Err(error) => return Err(End::Broken(error.to_string())),
            }
        }
    }

    /// Check that the broker is still there: PINGREQ, PINGRESP.
    pub fn ping(&mut self) -> Result<(), End> {
        self.send(Packet::PingRequest)?;
        match self.next()? {
            Packet::PingResponse => Ok(()),
            other => Err(End::Broken(format!("{other:?} in place of PINGRESP"))),
        }
    }

    /// Subscribe to one filter; gives the reason code.
    pub fn subscribe(&mut self, filter: &str, qos: QoS) -> Result<SubscribeAckReason, End> {
        let options = SubscriptionOptions {
            qos,
            ..SubscriptionOptions::default()
        };
        self.send(Packet::from(Subscribe {
            packet_id: NonZeroU16::MIN,
            id: None,
            user_properties: Vec::new(),
            topic_filters: vec![(filter.into(), options)],
        }))?;
        match self.next()? {
            Packet::SubscribeAck(ack) => Ok(ack.status[0]),
            other => Err(End::Broken(format!("{other:?} in place of SUBACK"))),
        }
    }

    /// Publish at QoS 1 without waiting for the acknowledgement.
    pub fn publish(
        &mut self,
        topic: &str,
        payload: &[u8],
        properties: PublishProperties,
    ) -> Result<(), End> {
        self.send(Packet::from(Publish {
            dup: false,
            retain: false,
            qos: QoS::AtLeastOnce,
            topic: topic.into(),
            packet_id: NonZeroU16::new(7),
            payload: Bytes::copy_from_slice(payload),
            properties: Some(properties),
        }))
    }

    /// The next PUBLISH from the broker; acknowledgements and pings before it are passed over,
    /// and a QoS 1 message is acknowledged.
    pub fn next_publish(&mut self) -> Result<Publish, End> {
        loop {
            match self.next()? {
                Packet::Publish(publish) => {
                    if let (QoS::AtLeastOnce, Some(packet_id)) = (publish.qos, publish.packet_id) {
                        self.send(Packet::PublishAck(rmqtt_codec::v5::PublishAck {
                            packet_id,
                            reason_code: rmqtt_codec::v5::PublishAckReason::Success,
                            properties: Vec::new(),
                            reason_string: None,
                        }))?;
                    }
                    return Ok(*publish);
                }
                Packet::PublishAck(_) | Packet::PingResponse => {}
                Packet::Disconnect(disconnect) => {
                    return Err(End::Broken(format!("{:?}", disconnect.reason_code)));
                }
                other => return Err(End::Broken(format!("{other:?} in place of PUBLISH"))),
            }
        }
    }

    /// Wait for the broker's DISCONNECT and the end of the connection; gives the reason.
    pub fn wait_disconnect(mut self) -> DisconnectReasonCode {
        let reason = loop {
            match self.next() {
                Ok(Packet::Disconnect(Disconnect { reason_code, .. })) => break reason_code,
                Ok(_) => {}
                Err(end) => panic!("no DISCONNECT before the end: {end}"),
            }
        };
        match self.next() {
            Err(End::Closed | End::Alert(_)) => reason,
            other => panic!("the connection goes on after DISCONNECT: {other:?}"),
        }
    }

    /// Wait for the end of the connection, whatever comes before it.
    pub fn wait_end(mut self) -> End {
        loop {
            if let Err(end) = self.next() {
                return end;
            }
        }
    }
}
