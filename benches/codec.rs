//! Packets from and to octets: our layer beside `rmqtt-codec` alone, on which it stands for CONNECT.
//! Read the figures as ratios within one run.
//!
//! Decoded is what a client that sends much fills a buffer with, packet after packet. The time of
//! a packet includes letting it go again. Encoded are PUBLISH, from a message of the bus, and the
//! small answers.
//!
//! `cargo bench --bench codec`

// The lint configuration allows these in tests; a benchmark is none.
#![allow(clippy::unwrap_used)]

#[path = "common/packets.rs"]
mod packets;

use std::hint::black_box;
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use criterion::measurement::WallTime;
use criterion::{
    BatchSize, BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main,
};
use portcullis::mqtt::frame::{Audience, Frame, Message};
use portcullis::mqtt::topics::{TopicLimits, TopicName};
use portcullis::mqtt::wire::encode::{ConnAck, Outgoing};
use portcullis::mqtt::wire::publish::PublishOut;
use portcullis::mqtt::wire::{AckKind, Decoder, QoS, Version};
use rmqtt_codec::{v3, v5};
use tokio_util::codec::{Decoder as _, Encoder};

use packets::{TOPIC, connect, message, publish};

const VERSIONS: [Version; 2] = [Version::V311, Version::V5];
/// Octets of a payload.
const PAYLOADS: [usize; 2] = [64, 1_024];
/// Packets of one buffer.
const AT_ONCE: u64 = 64;
const MAX_PACKET: usize = 1 << 20;

/// The kinds of messages, each with its name.
fn kinds() -> impl Iterator<Item = (Version, QoS, usize, String)> {
    let qualities = [QoS::AtMostOnce, QoS::AtLeastOnce];
    let all = VERSIONS.into_iter().flat_map(move |version| {
        let of_version = qualities.into_iter().map(move |qos| (version, qos));
        of_version.flat_map(|(version, qos)| PAYLOADS.map(|payload| (version, qos, payload)))
    });
    all.map(|(version, qos, payload)| {
        let name = format!("{}/QoS {}/{payload} B", number(version), qos.value());
        (version, qos, payload, name)
    })
}

fn number(version: Version) -> &'static str {
    match version {
        Version::V311 => "3.1.1",
        Version::V5 => "5.0",
    }
}

/// The time that it takes to decode so many packets.
fn decoding(count: u64, packet: &[u8], mut decode: impl FnMut(&mut BytesMut)) -> Duration {
    let buffer = BytesMut::from(&*packet.repeat(AT_ONCE as usize));
    let (mut left, mut spent) = (count, Duration::ZERO);
    while left > 0 {
        let packets = left.min(AT_ONCE);
        let mut buffer = buffer.clone();
        let began = Instant::now();
        for _ in 0..packets {
            decode(&mut buffer);
        }
        spent += began.elapsed();
        left -= packets;
    }
    spent
}

fn bench_decoding(
    group: &mut BenchmarkGroup<'_, WallTime>,
    who: &str,
    name: &str,
    packet: &[u8],
    mut decode: impl FnMut(&mut BytesMut),
) {
    group.bench_function(BenchmarkId::new(who, name), |bencher| {
        bencher.iter_custom(|count| decoding(count, packet, &mut decode));
    });
}

/// A decoder that has had its CONNECT.
fn connected(version: Version) -> Decoder {
    let mut decoder = Decoder::new(MAX_PACKET);
    let mut buffer = BytesMut::from(connect(version));
    assert!(decoder.next(&mut buffer).unwrap().is_some());
    decoder
}

fn decode_publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode PUBLISH");
    for (version, qos, payload, name) in kinds() {
        let packet = publish(version, qos, payload);
        let mut ours = connected(version);
        bench_decoding(&mut group, "portcullis", &name, &packet, |buffer| {
            black_box(ours.next(buffer).unwrap().unwrap());
        });
        let (mut v3, mut v5) = (v3::Codec::new(0), v5::Codec::new(0, 0));
        match version {
            Version::V311 => bench_decoding(&mut group, "rmqtt-codec", &name, &packet, |buffer| {
                black_box(v3.decode(buffer).unwrap().unwrap());
            }),
            Version::V5 => bench_decoding(&mut group, "rmqtt-codec", &name, &packet, |buffer| {
                black_box(v5.decode(buffer).unwrap().unwrap());
            }),
        }
    }
    group.finish();
}

fn decode_connect(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode CONNECT");
    for version in VERSIONS {
        let (name, packet) = (number(version), connect(version));
        bench_decoding(&mut group, "portcullis", name, &packet, |buffer| {
            let mut decoder = Decoder::new(MAX_PACKET);
            black_box(decoder.next(buffer).unwrap().unwrap());
        });
        match version {
            Version::V311 => bench_decoding(&mut group, "rmqtt-codec", name, &packet, |buffer| {
                black_box(v3::Codec::new(0).decode(buffer).unwrap().unwrap());
            }),
            Version::V5 => bench_decoding(&mut group, "rmqtt-codec", name, &packet, |buffer| {
                black_box(v5::Codec::new(0, 0).decode(buffer).unwrap().unwrap());
            }),
        }
    }
    group.finish();
}

/// The message as it comes out of the bus.
fn frame(qos: QoS, payload: usize) -> Frame {
    Message {
        qos,
        retain: false,
        audience: Audience::Everybody,
        publisher: 1,
        expires_at: None,
        topic: &TopicName::parse(TOPIC, &TopicLimits::default()).unwrap(),
        properties: &[],
        payload: &vec![b'x'; payload],
    }
    .encode()
}

/// The codec takes its packet, so it is given a new one each time, made outside of what is measured.
fn bench_encoding<P: Clone, C: Encoder<P>>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    codec: &mut C,
    packet: P,
) {
    let mut out = BytesMut::new();
    group.bench_function(BenchmarkId::new("rmqtt-codec", name), |bencher| {
        bencher.iter_batched(
            || packet.clone(),
            |packet| {
                out.clear();
                assert!(codec.encode(packet, &mut out).is_ok());
                black_box(&out);
            },
            BatchSize::SmallInput,
        );
    });
}

fn encode_publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode PUBLISH");
    for (version, qos, payload, name) in kinds() {
        let frame = frame(qos, payload);
        let message = message(version, qos, payload);
        let (mut out, expected) = (BytesMut::new(), publish(version, qos, payload));
        group.bench_function(BenchmarkId::new("portcullis", &name), |bencher| {
            bencher.iter(|| {
                out.clear();
                let packet = PublishOut {
                    frame: black_box(&frame),
                    qos,
                    retain: false,
                    dup: false,
                    id: message.packet_id,
                    alias: None,
                    subscription_ids: &[],
                    expiry: None,
                };
                packet.encode(version, &mut out);
                black_box(&out);
            });
            assert_eq!(out, expected);
        });
        match version {
            Version::V311 => {
                let packet = v3::Packet::from(message);
                bench_encoding(&mut group, &name, &mut v3::Codec::new(0), packet);
            }
            Version::V5 => {
                let packet = v5::Packet::from(message);
                bench_encoding(&mut group, &name, &mut v5::Codec::new(0, 0), packet);
            }
        }
    }
    group.finish();
}

fn encode_answers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode answer");
    let accepted = ConnAck {
        receive_maximum: Some(1_024),
        max_packet: Some(MAX_PACKET as u32),
        alias_maximum: Some(32),
        ..ConnAck::default()
    };
    let answers = [
        ("CONNACK", Outgoing::ConnAck(Box::new(accepted))),
        ("PUBACK", Outgoing::Ack(AckKind::PubAck, NonZeroU16::MIN, 0)),
    ];
    for (name, answer) in answers {
        for version in VERSIONS {
            let mut out = BytesMut::new();
            group.bench_function(BenchmarkId::new(name, number(version)), |bencher| {
                bencher.iter(|| {
                    out.clear();
                    black_box(&answer).encode(version, u32::MAX, &mut out);
                    black_box(&out);
                });
            });
        }
    }
    group.finish();
}

criterion_group!(
    benches,
    decode_publish,
    decode_connect,
    encode_publish,
    encode_answers
);
criterion_main!(benches);
