use rmqtt_codec::types::QoS;
use rmqtt_codec::v5;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::harness::*;
use crate::mqtt::hub::Hooks;
use crate::mqtt::settings::Settings;

/// What the server says to these octets, sent first.
async fn first_answer(world: &World, octets: &[u8]) -> Vec<u8> {
    let (mut stream, _cut) = world.dial(&device("c"));
    stream.write_all(octets).await.unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    rest
}

#[tokio::test]
async fn connects_that_are_refused_get_the_right_code() {
    let world = World::start().await;
    // Level 3 and level 6.
    assert_eq!(
        first_answer(&world, b"\x10\x0e\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x00").await,
        b"\x20\x02\x00\x01"
    );
    let answer = first_answer(&world, b"\x10\x0d\x00\x04MQTT\x06\x02\x00\x3c\x00\x00\x00").await;
    assert_eq!((answer[0], answer[3]), (0x20, 0x84));
    // An empty client id without clean session.
    assert_eq!(
        first_answer(&world, b"\x10\x0c\x00\x04MQTT\x04\x00\x00\x3c\x00\x00").await,
        b"\x20\x02\x00\x02"
    );
    // A password without a user name; octets after the end; a reserved flag; a will of QoS 3.
    for octets in [
        &b"\x10\x0f\x00\x04MQTT\x04\x42\x00\x3c\x00\x00\x00\x01p"[..],
        b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x00xx",
        b"\x10\x0c\x00\x04MQTT\x04\x03\x00\x3c\x00\x00",
        b"\x10\x12\x00\x04MQTT\x04\x1e\x00\x3c\x00\x00\x00\x01t\x00\x01m",
        b"\x10\x0c\x00\x04MQXX\x04\x02\x00\x3c\x00\x00",
        b"\x30\x03\x00\x01a",
        b"\x11\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00",
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        assert_eq!(first_answer(&world, octets).await, b"", "{octets:?}");
    }
    // MQTT 5: will flags without a will, authentication.
    let answer = first_answer(&world, b"\x10\x0d\x00\x04MQTT\x05\x22\x00\x3c\x00\x00\x00").await;
    assert_eq!((answer[0], answer[3]), (0x20, 0x81));
    let answer = first_answer(
        &world,
        b"\x10\x11\x00\x04MQTT\x05\x02\x00\x3c\x04\x15\x00\x01x\x00\x00",
    )
    .await;
    assert_eq!((answer[0], answer[3]), (0x20, 0x8C));
}

#[tokio::test]
async fn packets_that_break_a_rule_end_the_connection_with_the_right_code() {
    let world = World::start().await;
    let cases: &[(&str, &[u8], u8)] = &[
        (
            "a second CONNECT",
            b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x00",
            0x82,
        ),
        ("QoS 3", b"\x36\x06\x00\x01a\x00\x01\x00", 0x81),
        ("QoS 0 with DUP", b"\x38\x04\x00\x01a\x00", 0x81),
        ("packet id 0", b"\x32\x06\x00\x01a\x00\x00\x00", 0x81),
        ("a wildcard in a topic", b"\x30\x06\x00\x03a/#\x00", 0x90),
        ("U+0000 in a topic", b"\x30\x06\x00\x03a\0b\x00", 0x81),
        ("neither topic nor alias", b"\x30\x03\x00\x00\x00", 0x82),
        ("alias 0", b"\x30\x07\x00\x01a\x03\x23\x00\x00", 0x94),
        (
            "a subscription identifier",
            b"\x30\x06\x00\x01a\x02\x0b\x01",
            0x82,
        ),
        (
            "a property twice",
            b"\x30\x0e\x00\x01a\x0a\x02\0\0\0\x01\x02\0\0\0\x01",
            0x82,
        ),
        (
            "an unknown property",
            b"\x30\x06\x00\x01a\x02\x7f\x01",
            0x81,
        ),
        (
            "properties beyond the packet",
            b"\x30\x05\x00\x01a\x09\x00",
            0x81,
        ),
        ("a length that is not minimal", b"\xc0\x80\x00", 0x81),
        ("PINGREQ with a body", b"\xc0\x01\x00", 0x81),
        (
            "reserved flags of SUBSCRIBE",
            b"\x80\x07\x00\x01\x00\x00\x01a\x00",
            0x81,
        ),
        (
            "reserved bits of options",
            b"\x82\x07\x00\x01\x00\x00\x01a\xc0",
            0x81,
        ),
        ("SUBSCRIBE without filters", b"\x82\x03\x00\x01\x00", 0x82),
        (
            "no local with a shared one",
            b"\x82\x10\x00\x01\x00\x00\x0a$share/g/a\x04",
            0x82,
        ),
        ("a server's packet", b"\xd0\x00", 0x82),
        ("AUTH", b"\xf0\x00", 0x82),
        ("type 0", b"\x00\x00", 0x81),
        (
            "text that is none",
            b"\x30\x07\x00\x01a\x02\x01\x01\xff",
            0x99,
        ),
        (
            "a response topic with a wildcard",
            b"\x30\x08\x00\x01a\x04\x08\x00\x01#",
            0x82,
        ),
        (
            "a session expiry anew",
            b"\xe0\x07\x00\x05\x11\0\0\0\x01",
            0x82,
        ),
    ];
    for (what, octets, code) in cases {
        let mut client = world.simple5("c").await;
        client.send_raw(octets).await;
        assert_eq!(client.farewell().await, *code, "{what}");
        world.until("c", |session| session.is_none()).await;
    }
}

#[tokio::test]
async fn a_packet_that_is_too_large_is_refused_by_its_header() {
    let mut settings = Settings::default();
    settings.limits.max_packet = 1_000;
    let world = World::with(settings, Hooks::default()).await;
    let (mut client, ack) = world.connect5(&device("c"), connect5("c")).await;
    assert_eq!(ack.max_packet_size, Some(1_000));
    client.send_raw(b"\x30\xff\xff\x7f").await;
    assert_eq!(client.farewell().await, 0x95);
}

#[tokio::test]
async fn subscribing_answers_for_each_filter() {
    let mut settings = Settings::default();
    settings.limits.max_subscriptions = 2;
    let world = World::with(settings, Hooks::default()).await;
    let mut client = world.simple5("c").await;
    let filters = ["a", "b/#/c", "$x", "$share//a", "b", "c", "a"];
    client
        .send(v5::Subscribe {
            packet_id: pid(3),
            id: None,
            user_properties: Vec::new(),
            topic_filters: filters
                .map(|filter| (filter.into(), options(QoS::AtLeastOnce)))
                .to_vec(),
        })
        .await;
    match client.recv().await {
        v5::Packet::SubscribeAck(ack) => {
            let codes: Vec<u8> = ack.status.iter().map(|&code| code.into()).collect();
            assert_eq!(codes, [1, 0x8F, 0x87, 0x8F, 1, 0x97, 1]);
        }
        other => panic!("{other:?}"),
    }
    client
        .send(v5::Packet::Unsubscribe(v5::Unsubscribe {
            packet_id: pid(4),
            user_properties: Vec::new(),
            topic_filters: vec!["a".into(), "none".into(), "a".into()],
        }))
        .await;
    match client.recv().await {
        v5::Packet::UnsubscribeAck(ack) => {
            let codes: Vec<u8> = ack.status.iter().map(|&code| code.into()).collect();
            assert_eq!(codes, [0, 0x11, 0x11]);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn more_unacknowledged_messages_than_agreed_are_refused() {
    let mut settings = Settings::default();
    settings.limits.receive_maximum = 2;
    let world = World::with(settings, Hooks::default()).await;
    let (mut client, ack) = world.connect5(&device("c"), connect5("c")).await;
    assert_eq!(ack.receive_max, pid(2));
    for id in 1..=3 {
        client
            .send(v5_publish::Publish {
                packet_id: Some(pid(id)),
                ..message("a", QoS::ExactlyOnce, "x")
            })
            .await;
    }
    assert_eq!(client.farewell().await, 0x93);
}

#[tokio::test]
async fn acknowledgements_of_nothing_change_nothing() {
    let world = World::start().await;
    let mut client = world.simple5("c").await;
    client.send(ack(pid(9))).await;
    client.send(v5::Packet::PublishComplete(ack2(pid(9)))).await;
    client.settle().await;
    client.send(v5::Packet::PublishReceived(ack(pid(9)))).await;
    match client.recv().await {
        v5::Packet::PublishRelease(release) => assert_eq!(u8::from(release.reason_code), 0x92),
        other => panic!("{other:?}"),
    }
    client.send(v5::Packet::PublishRelease(ack2(pid(9)))).await;
    match client.recv().await {
        v5::Packet::PublishComplete(complete) => assert_eq!(u8::from(complete.reason_code), 0x92),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn octets_may_come_one_at_a_time() {
    let world = World::start().await;
    let (mut stream, _cut) = world.dial(&device("c"));
    for octet in b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c\xc0\x00\xe0\x00" {
        stream.write_all(&[*octet]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(rest, b"\x20\x02\x00\x00\xd0\x00");
}
