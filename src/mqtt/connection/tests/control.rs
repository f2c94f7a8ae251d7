use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use rmqtt_codec::types::QoS;
use rmqtt_codec::v5;

use super::harness::*;
use crate::mqtt::control_channel::{COMMAND_TOPIC, CommandHandler, DEFAULT_RESPONSE_TOPIC};
use crate::mqtt::hub::Hooks;
use crate::mqtt::settings::Settings;
use crate::tls::peer::VerifiedPeer;

struct Echo;

impl CommandHandler for Echo {
    fn handle(
        &self,
        peer: &VerifiedPeer,
        _: SocketAddr,
        command: Bytes,
    ) -> Pin<Box<dyn Future<Output = Bytes> + Send + '_>> {
        let name = peer.common_name().unwrap_or_default().to_owned();
        Box::pin(async move { [name.as_bytes(), b":", &command].concat().into() })
    }
}

async fn world() -> World {
    let hooks = Hooks {
        commands: Some(Arc::new(Echo)),
        ..Hooks::default()
    };
    World::with(Settings::default(), hooks).await
}

fn command(response_topic: Option<&'static str>) -> v5_publish::Publish {
    let mut packet = message(COMMAND_TOPIC, QoS::AtLeastOnce, "{}");
    packet.properties = Some(v5::PublishProperties {
        response_topic: response_topic.map(Into::into),
        correlation_data: response_topic.map(|_| "id".into()),
        ..Default::default()
    });
    packet
}

#[tokio::test]
async fn an_administrator_gets_an_answer_on_the_response_topic() {
    let world = world().await;
    let (mut client, _) = world.connect5(&admin(), connect5("admin")).await;
    let mut snoop = world.simple5("snoop").await;
    snoop.subscribe("#", QoS::AtLeastOnce).await;
    client.subscribe("answers/me", QoS::AtLeastOnce).await;
    client.send(command(Some("answers/me"))).await;
    let mut answer = None;
    for _ in 0..2 {
        match client.recv().await {
            v5::Packet::PublishAck(ack) => assert_eq!(u8::from(ack.reason_code), 0),
            v5::Packet::Publish(packet) => answer = Some(packet),
            other => panic!("{other:?}"),
        }
    }
    let answer = answer.unwrap();
    assert_eq!(&answer.payload[..], b"admin:{}");
    assert_eq!(answer.properties.unwrap().correlation_data.unwrap(), "id");
    // The answer is for administrators, whatever the topic.
    snoop.settle().await;
}

#[tokio::test]
async fn an_answer_without_a_response_topic_goes_to_the_default_one() {
    let world = world().await;
    let (mut client, _) = world.connect5(&admin(), connect5("admin")).await;
    assert_eq!(
        u8::from(
            client
                .subscribe(DEFAULT_RESPONSE_TOPIC, QoS::AtMostOnce)
                .await
        ),
        0
    );
    client.send(command(None)).await;
    let mut topics = Vec::new();
    for _ in 0..2 {
        if let v5::Packet::Publish(packet) = client.recv().await {
            topics.push(packet.topic.to_string());
        }
    }
    assert_eq!(topics, [DEFAULT_RESPONSE_TOPIC]);
}

#[tokio::test]
async fn a_device_is_refused() {
    let world = world().await;
    let mut client = world.simple5("d").await;
    assert_eq!(client.publish(command(None)).await, 0x87);
    let command2 = v5_publish::Publish {
        qos: QoS::ExactlyOnce,
        ..command(None)
    };
    assert_eq!(client.publish(command2).await, 0x87);
    for filter in [
        COMMAND_TOPIC,
        DEFAULT_RESPONSE_TOPIC,
        "$CONTROL/#",
        "$share/g/$CONTROL/#",
        "$SYS/#",
    ] {
        assert_eq!(
            u8::from(client.subscribe(filter, QoS::AtMostOnce).await),
            0x87,
            "{filter}"
        );
    }
    let willful = v5::Connect {
        last_will: Some(v5::LastWill {
            qos: QoS::AtMostOnce,
            ..plain_will(COMMAND_TOPIC, "{}")
        }),
        ..connect5("w")
    };
    let mut client = world.client5(&device("w"), willful).await;
    match client.recv().await {
        v5::Packet::ConnectAck(ack) => {
            assert_eq!(ack.reason_code, v5::ConnectAckReason::NotAuthorized)
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_answer_does_not_go_where_the_broker_speaks() {
    let world = world().await;
    let (mut client, _) = world.connect5(&admin(), connect5("admin")).await;
    for topic in ["$SYS/x", COMMAND_TOPIC] {
        assert_eq!(client.publish(command(Some(topic))).await, 0x97, "{topic}");
    }
}
