//! Octets that arrive at an MQTT listener, before CONNECT and after it in both versions: how they
//! are cut into reads makes no difference, no more is kept than a packet of the allowed size, and
//! what the broker writes of what it read is read as the same.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use portcullis::mqtt::frame::{Audience, Message};
use portcullis::mqtt::topics::{TopicLimits, TopicName};
use portcullis::mqtt::wire::encode::Outgoing;
use portcullis::mqtt::wire::publish::PublishOut;
use portcullis::mqtt::wire::{Ack, Decoder, Incoming, Publish, Version, WireError};
use portcullis_fuzz::{CONNECT_V5, CONNECT_V311};

/// Small, so that inputs come to it.
const MAX_PACKET: usize = 512;

/// What is read, up to the first fault; the octets come so many at a time, over and over.
fn read(start: &[u8], octets: &[u8], pieces: &[usize]) -> Vec<Result<Incoming, WireError>> {
    let mut decoder = Decoder::new(MAX_PACKET);
    let mut buffer = BytesMut::from(start);
    if !start.is_empty() {
        assert!(matches!(decoder.next(&mut buffer), Ok(Some(_))));
    }
    let (mut found, mut rest) = (Vec::new(), octets);
    let mut pieces = pieces.iter().cycle();
    while !rest.is_empty() {
        let (piece, later) = rest.split_at((*pieces.next().unwrap()).min(rest.len()));
        buffer.extend_from_slice(piece);
        rest = later;
        loop {
            match decoder.next(&mut buffer) {
                Ok(Some(packet)) => {
                    round_trip(decoder.version().expect("CONNECT was read"), &packet);
                    found.push(Ok(packet));
                }
                Ok(None) => break,
                Err(error) => {
                    assert!(error.reason() >= 0x80);
                    found.push(Err(error));
                    return found;
                }
            }
        }
        assert!(buffer.len() < MAX_PACKET, "waits for more than a packet");
    }
    found
}

fn again(version: Version, octets: BytesMut) -> Incoming {
    let mut decoder = Decoder::new(usize::MAX);
    let mut buffer = BytesMut::from(match version {
        Version::V311 => CONNECT_V311,
        Version::V5 => CONNECT_V5,
    });
    assert!(matches!(decoder.next(&mut buffer), Ok(Some(_))));
    buffer.unsplit(octets);
    let packet = decoder.next(&mut buffer).expect("good").expect("whole");
    assert!(buffer.is_empty());
    packet
}

fn round_trip(version: Version, packet: &Incoming) {
    let mut out = BytesMut::new();
    match packet {
        Incoming::Ack(Ack { kind, id, reason }) => {
            Outgoing::Ack(*kind, *id, *reason).encode(version, u32::MAX, &mut out);
            assert_eq!(again(version, out), *packet);
        }
        Incoming::Publish(publish) => {
            let text = publish.topic.clone();
            let Ok(topic) = TopicName::parse(text, &TopicLimits::default()) else {
                return;
            };
            let frame = Message {
                qos: publish.qos,
                retain: publish.retain,
                audience: Audience::Everybody,
                publisher: 1,
                expires_at: None,
                topic: &topic,
                properties: &publish.properties,
                payload: &publish.payload,
            }
            .encode();
            let packet = PublishOut {
                frame: &frame,
                qos: publish.qos,
                retain: publish.retain,
                dup: publish.dup,
                id: publish.id,
                alias: None,
                subscription_ids: &[],
                expiry: publish.expiry,
            };
            packet.encode(version, &mut out);
            assert_eq!(out.len(), packet.len(version));
            let expected = Publish {
                alias: None,
                ..(**publish).clone()
            };
            assert_eq!(again(version, out), Incoming::Publish(Box::new(expected)));
        }
        _ => {}
    }
}

fuzz_target!(|octets: &[u8]| {
    for start in [&b""[..], CONNECT_V311, CONNECT_V5] {
        let whole = read(start, octets, &[octets.len().max(1)]);
        assert_eq!(whole, read(start, octets, &[1]));
        assert_eq!(whole, read(start, octets, &[1, 7, 2, 31, 3]));
    }
});
