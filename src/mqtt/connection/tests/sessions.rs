use rmqtt_codec::types::QoS;
use rmqtt_codec::v5;

use super::harness::*;
use crate::mqtt::hub::Hooks;
use crate::mqtt::settings::{IdentityPolicy, Settings};

#[tokio::test]
async fn what_was_not_acknowledged_comes_again_with_its_id() {
    let world = World::start().await;
    let mut publisher = world.simple5("p").await;
    let (mut first, ack) = world.connect5(&device("s"), lasting("s")).await;
    assert!(!ack.session_present);
    first.subscribe("a", QoS::ExactlyOnce).await;
    for payload in ["1", "2"] {
        publisher
            .publish(message("a", QoS::ExactlyOnce, payload))
            .await;
    }
    let one = first.message_unacknowledged().await;
    let two = first.message_unacknowledged().await;
    first
        .send(v5::Packet::PublishReceived(super::harness::ack(
            one.packet_id.unwrap(),
        )))
        .await;
    assert!(matches!(first.recv().await, v5::Packet::PublishRelease(_)));
    drop(first);
    world.until_away("s").await;
    // Enough clients to have one in each shard: when all have the last message, so has the session.
    let mut observers = Vec::new();
    for name in ["o1", "o2", "o3", "o4", "o5", "o6", "o7", "o8"] {
        let mut observer = world.simple5(name).await;
        observer.subscribe("a", QoS::AtMostOnce).await;
        observers.push(observer);
    }
    publisher.publish(message("a", QoS::AtLeastOnce, "3")).await;
    publisher
        .publish(message("a", QoS::AtMostOnce, "lost"))
        .await;
    for observer in &mut observers {
        for payload in ["3", "lost"] {
            assert_eq!(observer.message().await.payload, payload);
        }
    }
    let (mut second, ack) = world.connect5(&device("s"), lasting("s")).await;
    assert!(ack.session_present);
    match second.recv().await {
        v5::Packet::PublishRelease(release) => assert_eq!(Some(release.packet_id), one.packet_id),
        other => panic!("{other:?}"),
    }
    second
        .send(v5::Packet::PublishComplete(ack2(one.packet_id.unwrap())))
        .await;
    let again = second.message_unacknowledged().await;
    assert_eq!(
        (again.dup, again.packet_id, &again.payload[..]),
        (true, two.packet_id, &b"2"[..])
    );
    let three = second.message_unacknowledged().await;
    assert_eq!((three.dup, &three.payload[..]), (false, &b"3"[..]));
    second.settle().await;
}

#[tokio::test]
async fn a_qos_2_message_sent_twice_is_published_once() {
    let world = World::start().await;
    let mut subscriber = world.simple5("s").await;
    subscriber.subscribe("a", QoS::AtMostOnce).await;
    let (mut first, _) = world.connect5(&device("p"), lasting("p")).await;
    first.send(message("a", QoS::ExactlyOnce, "x")).await;
    assert!(matches!(first.recv().await, v5::Packet::PublishReceived(_)));
    drop(first);
    world.until_away("p").await;
    let (mut second, _) = world.connect5(&device("p"), lasting("p")).await;
    let again = v5_publish::Publish {
        dup: true,
        ..message("a", QoS::ExactlyOnce, "x")
    };
    assert_eq!(second.publish(again).await, 0);
    second.publish(message("a", QoS::ExactlyOnce, "y")).await;
    assert_eq!(&subscriber.message().await.payload[..], b"x");
    assert_eq!(&subscriber.message().await.payload[..], b"y");
}

#[tokio::test]
async fn a_second_connection_takes_the_session_over() {
    let world = World::start().await;
    let (mut first, _) = world.connect5(&device("c"), lasting("c")).await;
    first.subscribe("a", QoS::AtLeastOnce).await;
    let (mut second, ack) = world.connect5(&device("c"), lasting("c")).await;
    assert!(ack.session_present);
    assert_eq!(first.farewell().await, 0x8E);
    second.publish(message("a", QoS::AtMostOnce, "x")).await;
}

#[tokio::test]
async fn a_clean_start_ends_the_old_session() {
    let world = World::start().await;
    let (mut first, _) = world.connect5(&device("c"), lasting("c")).await;
    first.subscribe("a", QoS::AtLeastOnce).await;
    let clean = v5::Connect {
        clean_start: true,
        ..lasting("c")
    };
    let (_second, ack) = world.connect5(&device("c"), clean).await;
    assert!(!ack.session_present);
    assert_eq!(first.farewell().await, 0x8E);
    assert_eq!(world.broker.session("c").unwrap().subscriptions, 0);
    let mut publisher = world.simple5("p").await;
    assert_eq!(
        publisher.publish(message("a", QoS::AtLeastOnce, "x")).await,
        0x10
    );
}

#[tokio::test]
async fn another_device_cannot_have_the_session() {
    let world = World::start().await;
    let (mut owner, _) = world.connect5(&device("owner"), lasting("c")).await;
    let others = [
        device("other"),
        Who {
            issuer: 2,
            ..device("owner")
        },
        admin(),
    ];
    for connected in [true, false] {
        for other in &others {
            let mut client = world
                .client5(
                    other,
                    v5::Connect {
                        clean_start: true,
                        ..lasting("c")
                    },
                )
                .await;
            match client.recv().await {
                v5::Packet::ConnectAck(ack) => {
                    assert_eq!(ack.reason_code, v5::ConnectAckReason::NotAuthorized)
                }
                other => panic!("{other:?}"),
            }
            assert!(client.next().await.is_none());
        }
        if connected {
            owner.settle().await;
            owner.send(v5::Disconnect::default()).await;
            world.until_away("c").await;
        }
    }
    let renewed = Who {
        serial: 2,
        ..device("owner")
    };
    assert!(
        world
            .connect5(&renewed, lasting("c"))
            .await
            .1
            .session_present
    );
}

#[tokio::test]
async fn a_session_can_be_bound_to_the_certificate() {
    let mut settings = Settings::default();
    settings.policy.identity = IdentityPolicy::Certificate;
    let world = World::with(settings, Hooks::default()).await;
    let (_owner, _) = world.connect5(&device("owner"), lasting("c")).await;
    let renewed = Who {
        serial: 2,
        ..device("owner")
    };
    let mut client = world.client5(&renewed, lasting("c")).await;
    match client.recv().await {
        v5::Packet::ConnectAck(ack) => {
            assert_eq!(ack.reason_code, v5::ConnectAckReason::NotAuthorized)
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_will_is_published_when_the_connection_is_lost_and_not_when_the_client_leaves() {
    let world = World::start().await;
    let mut watcher = world.simple5("w").await;
    watcher.subscribe("will", QoS::AtLeastOnce).await;
    let mortal = |delay| v5::Connect {
        last_will: will(delay),
        ..connect5("m")
    };

    let (mut leaving, _) = world.connect5(&device("m"), mortal(0)).await;
    leaving.send(v5::Disconnect::default()).await;
    world.until("m", |session| session.is_none()).await;
    watcher.settle().await;

    // The session ends with the connection, and so does the delay.
    let (lost, _) = world.connect5(&device("m"), mortal(1_000)).await;
    drop(lost);
    let got = watcher.message().await;
    assert_eq!(
        (
            &got.payload[..],
            got.properties.unwrap().user_properties.len()
        ),
        (&b"gone"[..], 1)
    );

    let (mut with_will, _) = world.connect5(&device("m"), mortal(0)).await;
    let reason = v5::DisconnectReasonCode::DisconnectWithWillMessage;
    with_will.send(v5::Disconnect::new(reason)).await;
    watcher.message().await;
}

#[tokio::test]
async fn a_client_that_is_back_in_time_leaves_no_will() {
    let world = World::start().await;
    let mut watcher = world.simple5("w").await;
    watcher.subscribe("will", QoS::AtLeastOnce).await;
    let mortal = v5::Connect {
        last_will: will(1_000),
        ..lasting("m")
    };
    let (lost, _) = world.connect5(&device("m"), mortal).await;
    drop(lost);
    world.until_away("m").await;
    let (back, ack) = world.connect5(&device("m"), lasting("m")).await;
    assert!(ack.session_present);
    drop(back);
    world.until_away("m").await;
    watcher.settle().await;
    // A clean start ends the session at once, and the delay of its will with it.
    let mortal = v5::Connect {
        last_will: will(1_000),
        ..lasting("m")
    };
    drop(world.connect5(&device("m"), mortal).await);
    world.until_away("m").await;
    let (_new, _) = world
        .connect5(
            &device("m"),
            v5::Connect {
                clean_start: true,
                ..lasting("m")
            },
        )
        .await;
    assert_eq!(&watcher.message().await.payload[..], b"gone");
}

#[tokio::test]
async fn a_delayed_will_and_the_end_of_a_session_come_by_themselves() {
    let world = World::start().await;
    let mut watcher = world.simple5("w").await;
    watcher.subscribe("will", QoS::AtLeastOnce).await;
    let short = v5::Connect {
        session_expiry_interval_secs: 1,
        last_will: will(1_000),
        ..lasting("m")
    };
    drop(world.connect5(&device("m"), short).await);
    assert_eq!(&watcher.message().await.payload[..], b"gone");
    world.until("m", |session| session.is_none()).await;
}

#[tokio::test]
async fn a_client_without_an_id_is_given_one() {
    let world = World::start().await;
    let connect = v5::Connect {
        clean_start: false,
        ..connect5("")
    };
    let (_client, ack) = world.connect5(&device("d"), connect).await;
    let id = ack.assigned_client_id.unwrap();
    assert!(world.broker.session(&id).unwrap().connected);
}
