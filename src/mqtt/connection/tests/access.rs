//! What the access rules allow and deny, on the wire of both versions.

use rmqtt_codec::types::QoS;
use rmqtt_codec::{v3, v5};

use super::harness::*;
use crate::mqtt::access::rules::{AccessSettings, Action, Effect, Only, Rule};
use crate::mqtt::hub::Hooks;
use crate::mqtt::settings::Settings;

fn rule(effect: Effect, action: Action, topic: &str) -> Rule {
    Rule {
        effect,
        action,
        topic: topic.parse().unwrap(),
        cas: Only::Any,
        common_names: Only::Any,
    }
}

/// Own topics for publishing and reading, one to read for all; nothing else.
async fn world() -> World {
    let rules = vec![
        rule(Effect::Deny, Action::Subscribe, "own/${common_name}/secret"),
        rule(Effect::Allow, Action::Both, "own/${common_name}/#"),
        rule(Effect::Allow, Action::Subscribe, "of/${device_sn}/+"),
        rule(Effect::Allow, Action::Both, "news"),
        rule(Effect::Allow, Action::Publish, "of/#"),
    ];
    let settings = Settings {
        access: AccessSettings::new(rules, Effect::Deny).unwrap(),
        ..Settings::default()
    };
    World::with(settings, Hooks::default()).await
}

#[tokio::test]
async fn a_version_5_client_is_told_what_is_denied_and_goes_on() {
    let world = world().await;
    let mut other = world.simple5("b").await;
    for (filter, code) in [
        ("own/b/#", 0x87),
        ("own/b/+", 0x87),
        ("own/b/secret", 0x87),
        ("own/b/x", 0x01),
        ("own/a/x", 0x87),
        ("own/+/x", 0x87),
        ("#", 0x87),
        ("$share/g/own/b/y", 0x01),
        ("$share/g/own/a/y", 0x87),
        ("$share/own/b/x/#", 0x87),
        ("$share/own/news", 0x01),
        ("news", 0x01),
        ("$SYS/#", 0x87),
    ] {
        let got = u8::from(other.subscribe(filter, QoS::AtLeastOnce).await);
        assert_eq!(got, code, "{filter}");
    }
    let mut client = world.simple5("a").await;
    for (topic, allowed) in [
        ("own/a/x", true),
        ("own/a/secret", true),
        ("own/b/x", false),
        ("own/b", false),
        ("other", false),
        ("news", true),
    ] {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let code = client.publish(message(topic, qos, "m")).await;
            assert_eq!(code == 0x87, !allowed && qos != QoS::AtMostOnce, "{topic}");
        }
    }
    // What was denied went nowhere, at no QoS: there are three of `news`, and of each group's.
    for _ in 0..6 {
        let message = other.message_unacknowledged().await;
        assert_eq!(&*message.topic, "news");
    }
    other.settle().await;
}

#[tokio::test]
async fn a_message_that_is_denied_is_not_retained() {
    let world = world().await;
    let mut client = world.simple5("a").await;
    assert_eq!(client.publish(retained("own/b/x", "planted")).await, 0x87);
    let mut owner = world.simple5("b").await;
    assert_eq!(owner.publish(retained("own/b/x", "mine")).await, 0x10);
    assert_eq!(client.publish(retained("own/b/x", "")).await, 0x87);
    owner.subscribe("own/b/x", QoS::AtLeastOnce).await;
    assert_eq!(&owner.message().await.payload[..], b"mine");
    owner.settle().await;
}

#[tokio::test]
async fn a_version_3_client_is_told_by_code_128_or_by_the_end_of_its_connection() {
    let world = world().await;
    let (mut client, _) = world.connect3(&device("a"), connect3("a")).await;
    client
        .send(v3::Packet::Subscribe {
            packet_id: pid(2),
            topic_filters: ["own/a/#", "own/a/x", "own/b/x", "news"]
                .map(|filter| (filter.into(), QoS::AtLeastOnce))
                .to_vec(),
        })
        .await;
    let granted = v3::SubscribeReturnCode::Success(QoS::AtLeastOnce);
    let refused = v3::SubscribeReturnCode::Failure;
    assert_eq!(
        client.recv().await,
        v3::Packet::SubscribeAck {
            packet_id: pid(2),
            status: vec![refused, granted, refused, granted],
        }
    );
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let (mut client, _) = world.connect3(&device("c"), connect3("c")).await;
        let mut denied = message("own/a/x", qos, "m");
        denied.properties = None;
        client.send(denied).await;
        assert!(client.next().await.is_none(), "{qos:?}");
    }
    client.settle().await;
}

#[tokio::test]
async fn a_will_that_may_not_be_published_is_refused_with_connect() {
    let world = world().await;
    let with_will = |topic| v5::Connect {
        last_will: Some(plain_will(topic, "gone")),
        ..connect5("a")
    };
    let mut client = world.client5(&device("a"), with_will("own/b/x")).await;
    match client.recv().await {
        v5::Packet::ConnectAck(ack) => {
            assert_eq!(ack.reason_code, v5::ConnectAckReason::NotAuthorized)
        }
        other => panic!("{other:?}"),
    }
    let connect = v3::Connect {
        last_will: Some(v3::LastWill {
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: "own/b/x".into(),
            message: "gone".into(),
        }),
        ..connect3("a")
    };
    let (stream, cut) = world.dial(&device("a"));
    let mut client = Client3::new(stream, cut);
    client.send(connect).await;
    match client.recv().await {
        v3::Packet::ConnectAck(ack) => {
            assert_eq!(ack.return_code, v3::ConnectAckReason::NotAuthorized)
        }
        other => panic!("{other:?}"),
    }
    world.connect5(&device("a"), with_will("own/a/x")).await;
}

#[tokio::test]
async fn a_session_that_is_resumed_keeps_what_its_client_may_still_read() {
    let lasting = v5::Connect {
        clean_start: false,
        session_expiry_interval_secs: 1_000,
        ..connect5("s")
    };
    let world = world().await;
    let (mut client, _) = world.connect5(&device("s"), lasting.clone()).await;
    for filter in ["of/01/+", "$share/g/of/01/x", "own/s/x"] {
        let code = client.subscribe(filter, QoS::AtLeastOnce).await;
        assert_eq!(u8::from(code), 1, "{filter}");
    }
    drop(client);
    world.until_away("s").await;

    // The same certificate again: all is as it was.
    let (client, ack) = world.connect5(&device("s"), lasting.clone()).await;
    assert!(ack.session_present);
    assert_eq!(world.broker.session("s").unwrap().subscriptions, 3);
    drop(client);
    world.until_away("s").await;

    let mut publisher = world.simple5("p").await;
    for topic in ["of/01/a", "of/01/b"] {
        let sent = message(topic, QoS::AtLeastOnce, "old");
        assert_eq!(publisher.publish(sent).await, 0);
    }
    world
        .until("s", |session| session.is_some_and(|s| s.waiting == 2))
        .await;
    // A renewed one: the session is the device's, and the topics of the old one are not.
    let renewed = Who {
        serial: 2,
        ..device("s")
    };
    let (mut client, ack) = world.connect5(&renewed, lasting.clone()).await;
    assert!(ack.session_present);
    assert_eq!(world.broker.session("s").unwrap().subscriptions, 1);
    client.settle().await;
    let sent = message("of/01/c", QoS::AtLeastOnce, "new");
    assert_eq!(publisher.publish(sent).await, 0x10);
    let code = client.subscribe("of/02/+", QoS::AtLeastOnce).await;
    assert_eq!(u8::from(code), 1);
    let sent = message("of/02/c", QoS::AtLeastOnce, "mine");
    publisher.publish(sent).await;
    assert_eq!(&client.message().await.payload[..], b"mine");
    client.settle().await;
}
