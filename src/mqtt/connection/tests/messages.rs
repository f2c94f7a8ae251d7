use rmqtt_codec::types::QoS;
use rmqtt_codec::v5;

use super::harness::*;

#[tokio::test]
async fn a_message_arrives_with_the_lower_qos_of_the_two() {
    let world = World::start().await;
    let mut publisher = world.simple5("p").await;
    for published in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        for wanted in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let mut subscriber = world.simple5("s").await;
            subscriber.subscribe("a/+", wanted).await;
            assert_eq!(publisher.publish(message("a/b", published, "x")).await, 0);
            let got = subscriber.message().await;
            assert_eq!(
                (got.qos, &*got.topic, &got.payload[..]),
                (published.min(wanted), "a/b", &b"x"[..])
            );
            assert!(!got.retain && !got.dup);
            subscriber.settle().await;
            subscriber.send(v5::Disconnect::default()).await;
            world.until("s", |session| session.is_none()).await;
        }
    }
}

#[tokio::test]
async fn the_publisher_hears_that_nobody_listens() {
    let world = World::start().await;
    let mut publisher = world.simple5("p").await;
    assert_eq!(
        publisher.publish(message("a", QoS::AtLeastOnce, "x")).await,
        0x10
    );
    assert_eq!(
        publisher.publish(message("a", QoS::ExactlyOnce, "x")).await,
        0x10
    );
}

#[tokio::test]
async fn properties_pass_through_in_order() {
    let world = World::start().await;
    let mut publisher = world.simple5("p").await;
    let mut subscriber = world.simple5("s").await;
    subscriber.subscribe("a", QoS::AtMostOnce).await;
    let mut sent = message("a", QoS::AtLeastOnce, "text");
    let properties = v5::PublishProperties {
        message_expiry_interval: Some(100.try_into().unwrap()),
        content_type: Some("text/plain".into()),
        correlation_data: Some("c".into()),
        user_properties: vec![
            ("b".into(), "1".into()),
            ("a".into(), "2".into()),
            ("b".into(), "3".into()),
        ],
        is_utf8_payload: true,
        response_topic: Some("r".into()),
        ..Default::default()
    };
    sent.properties = Some(properties.clone());
    publisher.publish(sent).await;
    let mut got = subscriber.message().await.properties.unwrap();
    let left = got.message_expiry_interval.take().unwrap().get();
    assert!((90..=100).contains(&left), "{left}");
    got.message_expiry_interval = properties.message_expiry_interval;
    assert_eq!(got, properties);
}

#[tokio::test]
async fn overlapping_subscriptions_are_one_delivery_with_all_identifiers() {
    let world = World::start().await;
    let mut publisher = world.simple5("p").await;
    let mut subscriber = world.simple5("s").await;
    subscriber
        .subscribe_with("a/#", options(QoS::AtMostOnce), Some(3))
        .await;
    subscriber
        .subscribe_with("a/b", options(QoS::ExactlyOnce), Some(300_000))
        .await;
    subscriber
        .subscribe_with("+/b", options(QoS::AtLeastOnce), None)
        .await;
    publisher
        .publish(message("a/b", QoS::ExactlyOnce, "x"))
        .await;
    let got = subscriber.message().await;
    let mut ids: Vec<u32> = got
        .properties
        .unwrap()
        .subscription_ids
        .iter()
        .map(|id| id.get())
        .collect();
    ids.sort_unstable();
    assert_eq!((got.qos, ids), (QoS::ExactlyOnce, vec![3, 300_000]));
    subscriber.settle().await;
}

#[tokio::test]
async fn no_local_keeps_back_what_the_client_published_itself() {
    let world = World::start().await;
    let mut client = world.simple5("c").await;
    let mut other = world.simple5("o").await;
    let no_local = v5::SubscriptionOptions {
        no_local: true,
        ..options(QoS::AtLeastOnce)
    };
    client.subscribe_with("a", no_local, None).await;
    client.publish(message("a", QoS::AtLeastOnce, "own")).await;
    other.publish(message("a", QoS::AtLeastOnce, "other")).await;
    assert_eq!(&client.message().await.payload[..], b"other");
}

#[tokio::test]
async fn retained_messages_are_set_replaced_and_cleared() {
    let world = World::start().await;
    let mut publisher = world.simple5("p").await;
    let mut subscriber = world.simple5("s").await;
    publisher.publish(retained("r/1", "one")).await;
    publisher.publish(retained("r/1", "two")).await;
    publisher
        .publish(message("r/1", QoS::AtLeastOnce, ""))
        .await;
    subscriber.subscribe("r/+", QoS::AtLeastOnce).await;
    let got = subscriber.message().await;
    assert_eq!((&got.payload[..], got.retain), (&b"two"[..], true));
    publisher.publish(retained("r/1", "three")).await;
    let live = subscriber.message().await;
    assert_eq!((&live.payload[..], live.retain), (&b"three"[..], false));
    publisher.publish(retained("r/1", "")).await;
    assert!(subscriber.message().await.payload.is_empty());
    subscriber.subscribe("r/1", QoS::AtLeastOnce).await;
    subscriber.settle().await;
}

#[tokio::test]
async fn retain_handling_decides_when_retained_messages_come() {
    let world = World::start().await;
    let mut client = world.simple5("c").await;
    client.publish(retained("r", "x")).await;
    let handling = |retain_handling| v5::SubscriptionOptions {
        retain_handling,
        retain_as_published: true,
        ..options(QoS::AtMostOnce)
    };
    client
        .subscribe_with("r", handling(v5::RetainHandling::NoAtSubscribe), None)
        .await;
    client.settle().await;
    client
        .subscribe_with("r", handling(v5::RetainHandling::AtSubscribeNew), None)
        .await;
    client.settle().await;
    client
        .subscribe_with("r", handling(v5::RetainHandling::AtSubscribe), None)
        .await;
    assert!(client.message().await.retain);
    client
        .subscribe_with("#", handling(v5::RetainHandling::AtSubscribeNew), None)
        .await;
    assert!(client.message().await.retain);
}

#[tokio::test]
async fn retain_as_published_keeps_the_flag() {
    let world = World::start().await;
    let mut publisher = world.simple5("p").await;
    let mut subscriber = world.simple5("s").await;
    let keep = v5::SubscriptionOptions {
        retain_as_published: true,
        ..options(QoS::AtMostOnce)
    };
    subscriber.subscribe_with("r", keep, None).await;
    publisher.publish(retained("r", "x")).await;
    assert!(subscriber.message().await.retain);
    publisher.publish(message("r", QoS::AtMostOnce, "y")).await;
    assert!(!subscriber.message().await.retain);
}

#[tokio::test]
async fn a_shared_group_balances_and_survives_a_member_that_leaves() {
    let world = World::start().await;
    let mut publisher = world.simple5("p").await;
    let mut one = world.simple5("one").await;
    let mut two = world.simple5("two").await;
    one.subscribe("$share/g/a/#", QoS::AtLeastOnce).await;
    two.subscribe("$share/g/a/#", QoS::AtLeastOnce).await;
    for _ in 0..4 {
        publisher
            .publish(message("a/b", QoS::AtLeastOnce, "x"))
            .await;
    }
    for _ in 0..2 {
        one.message().await;
        two.message().await;
    }
    one.send(v5::Disconnect::default()).await;
    world.until("one", |session| session.is_none()).await;
    for _ in 0..3 {
        publisher
            .publish(message("a/b", QoS::AtLeastOnce, "x"))
            .await;
        two.message().await;
    }
}

#[tokio::test]
async fn the_client_s_receive_maximum_is_kept() {
    let world = World::start().await;
    let connect = v5::Connect {
        receive_max: Some(pid(2)),
        ..connect5("s")
    };
    let (mut subscriber, _) = world.connect5(&device("s"), connect).await;
    subscriber.subscribe("a", QoS::AtLeastOnce).await;
    let mut publisher = world.simple5("p").await;
    for _ in 0..3 {
        publisher.publish(message("a", QoS::AtLeastOnce, "x")).await;
    }
    world
        .until("s", |session| {
            session.is_some_and(|session| session.waiting == 3)
        })
        .await;
    let first = subscriber.message_unacknowledged().await;
    let second = subscriber.message_unacknowledged().await;
    subscriber.settle().await;
    subscriber.send(ack(second.packet_id.unwrap())).await;
    let third = subscriber.message_unacknowledged().await;
    assert_ne!(third.packet_id, first.packet_id);
}

#[tokio::test]
async fn topic_aliases_work_both_ways() {
    let world = World::start().await;
    let connect = v5::Connect {
        topic_alias_max: 1,
        ..connect5("s")
    };
    let (mut subscriber, ack) = world.connect5(&device("s"), connect).await;
    assert!(ack.topic_alias_max > 0);
    subscriber.subscribe("long/#", QoS::AtMostOnce).await;
    let alias = |topic: &str, alias: u16| {
        let mut packet = message(topic, QoS::AtLeastOnce, "x");
        packet.properties.as_mut().unwrap().topic_alias = Some(pid(alias));
        packet
    };
    for topic in ["long/topic", "", "long/other", "long/topic"] {
        match topic {
            "" => subscriber.publish_alias(alias("", 4)).await,
            "long/topic" => subscriber.publish_alias(alias(topic, 4)).await,
            _ => {
                subscriber
                    .publish_alias(message(topic, QoS::AtLeastOnce, "x"))
                    .await
            }
        }
    }
    let mut got = Vec::new();
    for _ in 0..4 {
        let packet = subscriber.message().await;
        got.push((
            packet.topic.to_string(),
            packet.properties.unwrap().topic_alias.map(|a| a.get()),
        ));
    }
    let expect = [
        ("long/topic", Some(1)),
        ("", Some(1)),
        ("long/other", None),
        ("", Some(1)),
    ];
    assert_eq!(got, expect.map(|(topic, alias)| (topic.to_owned(), alias)));
    subscriber.publish_alias(alias("", 5)).await;
    assert_eq!(subscriber.farewell().await, 0x94);
}

#[tokio::test]
async fn what_is_larger_than_the_client_takes_is_left_out() {
    let world = World::start().await;
    let connect = v5::Connect {
        max_packet_size: Some(40.try_into().unwrap()),
        ..connect5("s")
    };
    let (mut subscriber, _) = world.connect5(&device("s"), connect).await;
    subscriber.subscribe("a", QoS::AtLeastOnce).await;
    let mut publisher = world.simple5("p").await;
    publisher
        .publish(message(
            "a",
            QoS::AtLeastOnce,
            "0123456789012345678901234567890123456789",
        ))
        .await;
    publisher
        .publish(message("a", QoS::AtLeastOnce, "short"))
        .await;
    assert_eq!(&subscriber.message().await.payload[..], b"short");
}

impl Client5 {
    /// Publish without looking at the answer, which is mixed with deliveries.
    async fn publish_alias(&mut self, packet: v5_publish::Publish) {
        let mut packet = packet;
        packet.qos = QoS::AtMostOnce;
        packet.packet_id = None;
        self.send(packet).await;
    }
}
