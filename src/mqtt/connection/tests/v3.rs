use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v3;

use super::harness::*;
use crate::mqtt::control_channel::COMMAND_TOPIC;
use crate::tls::live::Cut;

fn lasting(id: &'static str) -> v3::Connect {
    v3::Connect {
        clean_session: false,
        ..connect3(id)
    }
}

fn publish(topic: &str, qos: QoS, payload: &'static str) -> Publish {
    Publish {
        properties: None,
        ..message(topic, qos, payload)
    }
}

async fn subscribe(
    client: &mut Client3,
    filters: &[(&'static str, QoS)],
) -> Vec<v3::SubscribeReturnCode> {
    client
        .send(v3::Packet::Subscribe {
            packet_id: pid(2),
            topic_filters: filters
                .iter()
                .map(|&(filter, qos)| (filter.into(), qos))
                .collect(),
        })
        .await;
    match client.recv().await {
        v3::Packet::SubscribeAck { packet_id, status } => {
            assert_eq!(packet_id, pid(2));
            status
        }
        other => panic!("{other:?}"),
    }
}

async fn next_message(client: &mut Client3) -> Publish {
    match client.recv().await {
        v3::Packet::Publish(packet) => *packet,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn both_versions_talk_to_each_other() {
    let world = World::start().await;
    let (mut old, present) = world.connect3(&device("old"), connect3("old")).await;
    assert!(!present);
    let mut new = world.simple5("new").await;
    subscribe(&mut old, &[("a/#", QoS::ExactlyOnce)]).await;
    new.subscribe("b/#", QoS::ExactlyOnce).await;
    let mut rich = message("a/1", QoS::ExactlyOnce, "x");
    rich.properties.as_mut().unwrap().user_properties = vec![("k".into(), "v".into())];
    new.publish(rich).await;
    let got = next_message(&mut old).await;
    assert_eq!(
        (got.qos, &*got.topic, &got.payload[..]),
        (QoS::ExactlyOnce, "a/1", &b"x"[..])
    );
    let packet_id = got.packet_id.unwrap();
    old.send(v3::Packet::PublishReceived { packet_id }).await;
    assert_eq!(old.recv().await, v3::Packet::PublishRelease { packet_id });
    old.send(v3::Packet::PublishComplete { packet_id }).await;
    old.send(publish("b/1", QoS::ExactlyOnce, "y")).await;
    assert_eq!(
        old.recv().await,
        v3::Packet::PublishReceived { packet_id: pid(5) }
    );
    old.send(v3::Packet::PublishRelease { packet_id: pid(5) })
        .await;
    assert_eq!(
        old.recv().await,
        v3::Packet::PublishComplete { packet_id: pid(5) }
    );
    assert_eq!(&new.message().await.payload[..], b"y");
}

#[tokio::test]
async fn a_session_that_is_not_clean_is_resumed() {
    let world = World::start().await;
    let mut publisher = world.simple5("p").await;
    let (mut first, _) = world.connect3(&device("c"), lasting("c")).await;
    subscribe(&mut first, &[("a", QoS::AtLeastOnce)]).await;
    publisher.publish(message("a", QoS::AtLeastOnce, "1")).await;
    let one = next_message(&mut first).await;
    first.send(v3::Packet::Disconnect).await;
    world.until_away("c").await;
    publisher.publish(message("a", QoS::AtLeastOnce, "2")).await;
    let (mut second, present) = world.connect3(&device("c"), lasting("c")).await;
    assert!(present);
    let again = next_message(&mut second).await;
    assert_eq!(
        (again.dup, again.packet_id, &again.payload[..]),
        (true, one.packet_id, &b"1"[..])
    );
    assert_eq!(&next_message(&mut second).await.payload[..], b"2");
    drop(second);
    world.until_away("c").await;
    let (_clean, present) = world.connect3(&device("c"), connect3("c")).await;
    assert!(!present);
}

#[tokio::test]
async fn denials_are_0x80_for_a_subscription_and_the_end_for_a_publish() {
    let world = World::start().await;
    let mut watcher = world.simple5("w").await;
    watcher.subscribe("will", QoS::AtMostOnce).await;
    let connect = v3::Connect {
        last_will: Some(v3::LastWill {
            qos: QoS::AtMostOnce,
            retain: false,
            topic: "will".into(),
            message: "bye".into(),
        }),
        ..connect3("c")
    };
    let (mut client, _) = world.connect3(&device("c"), connect).await;
    let codes = subscribe(
        &mut client,
        &[
            ("$CONTROL/portcullis/v1/response", QoS::AtMostOnce),
            ("a/#b", QoS::AtMostOnce),
            ("a", QoS::ExactlyOnce),
        ],
    )
    .await;
    use v3::SubscribeReturnCode::{Failure, Success};
    assert_eq!(codes, [Failure, Failure, Success(QoS::ExactlyOnce)]);
    client
        .send(publish(COMMAND_TOPIC, QoS::AtMostOnce, "{}"))
        .await;
    assert!(client.next().await.is_none());
    assert_eq!(&watcher.message().await.payload[..], b"bye");
}

#[tokio::test]
async fn a_cut_ends_the_connection_without_a_word() {
    let world = World::start().await;
    let (mut client, _) = world.connect3(&device("c"), connect3("c")).await;
    client.cut.send(Some(Cut::CaInactive)).unwrap();
    assert!(client.next().await.is_none());
}

#[tokio::test]
async fn unsubscribing_is_answered_once() {
    let world = World::start().await;
    let (mut client, _) = world.connect3(&device("c"), connect3("c")).await;
    subscribe(&mut client, &[("a", QoS::AtMostOnce)]).await;
    client
        .send(v3::Packet::Unsubscribe {
            packet_id: pid(8),
            topic_filters: vec!["a".into(), "b".into()],
        })
        .await;
    assert_eq!(
        client.recv().await,
        v3::Packet::UnsubscribeAck { packet_id: pid(8) }
    );
    client.send(publish("a", QoS::AtMostOnce, "x")).await;
    client.settle().await;
}

#[tokio::test]
async fn reserved_bits_and_bad_packets_end_the_connection() {
    let world = World::start().await;
    for octets in [
        &b"\x82\x06\x00\x01\x00\x01a\x04"[..],
        b"\xe0\x01\x00",
        b"\x30\x02\x00\x00",
        b"\x30\x05\x00\x03a/+",
        b"\x60\x02\x00\x01",
        b"\x40\x02\x00\x00",
        b"\xf0\x00",
    ] {
        let (mut client, _) = world.connect3(&device("c"), connect3("c")).await;
        client.send_raw(octets).await;
        assert!(client.next().await.is_none(), "{octets:?}");
        world.until("c", |session| session.is_none()).await;
    }
}
