//! A topic that was published once is forgotten: a million of them leave no memory behind.

use std::num::NonZeroU16;

use bytes::{Bytes, BytesMut};
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{Codec, Packet, PublishProperties};
use tokio_util::codec::Encoder;

use crate::harness::mqtt::Mqtt;
use crate::harness::{Broker, Version};

/// Distinct topics, of three levels and 27 octets.
const TOPICS: usize = 1_000_000;
/// Of these, so many are to bring the process to the size that it has at work.
const FIRST: usize = 200_000;
/// Messages before an acknowledgement is waited for.
const BATCH: usize = 1_000;
/// What the process may have grown by after those: a fifth of what the topics alone would take.
const MOST_GROWTH: usize = 4 << 20;

#[test]
fn million_distinct_topics_leave_no_memory_behind() {
    let mut broker = Broker::start();
    let device = broker.identity("device-a1");
    let client = broker.client(&device, Version::V13);
    let mut hello = Mqtt::hello("reader");
    hello.topic_alias_max = 16;
    let mut reader = Mqtt::connect(client.handshake().unwrap(), hello).unwrap();
    // One in three is delivered, with an alias that another takes over.
    reader.subscribe("fleet/+/0", QoS::AtMostOnce).unwrap();
    let reader = std::thread::spawn(move || {
        let mut octets = 0;
        while let Ok(more) = reader.stream.read() {
            octets += more.len();
        }
        octets
    });
    let mut publisher = client.connect().unwrap();
    publish(&mut publisher, 0..FIRST);
    let before = broker.process().resident();
    publish(&mut publisher, FIRST..TOPICS);
    let after = broker.process().resident();
    assert!(
        after < before + MOST_GROWTH,
        "{before} octets resident after {FIRST} topics, {after} after {TOPICS}"
    );
    drop(broker);
    let octets = reader.join().unwrap();
    assert!(octets > TOPICS / 3 * 30, "{octets} octets were delivered");
}

/// Publish to the topics with these numbers, and wait until the bus has taken the last message.
fn publish(client: &mut Mqtt, numbers: std::ops::Range<usize>) {
    let mut codec = Codec::default();
    let mut octets = BytesMut::new();
    for number in numbers {
        let last = number % BATCH == BATCH - 1;
        let message = Publish {
            dup: false,
            retain: false,
            qos: if last {
                QoS::AtLeastOnce
            } else {
                QoS::AtMostOnce
            },
            topic: format!("fleet/device-{number:012}/{}", number % 3).into(),
            packet_id: last.then_some(NonZeroU16::MIN),
            payload: Bytes::from_static(b"x"),
            properties: Some(PublishProperties::default()),
        };
        codec.encode(Packet::from(message), &mut octets).unwrap();
        if last {
            client.stream.send(&octets.split()).unwrap();
            match client.next().unwrap() {
                Packet::PublishAck(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}
