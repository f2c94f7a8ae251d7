//! The figures that administrators read.

use std::time::Duration;

use rmqtt_codec::types::QoS;
use rmqtt_codec::v5;
use serde_json::json;

use super::harness::*;
use super::sys::{has, listener, world};
use crate::mqtt::sys::SysSettings;

/// The text of a figure, by subscribing to it.
async fn figure(client: &mut Client5, name: &str) -> String {
    client.subscribe(name, QoS::AtMostOnce).await;
    let message = client.message().await;
    assert_eq!(&message.topic[..], name);
    assert!(message.retain, "{name}");
    String::from_utf8(message.payload.to_vec()).unwrap()
}

#[tokio::test]
async fn figures_are_right_when_somebody_subscribes() {
    let world = World::start().await;
    let (mut reader, _) = world.connect5(&admin(), connect5("reader")).await;
    let away = v5::Connect {
        session_expiry_interval_secs: 60,
        ..connect5("away")
    };
    let (mut away, _) = world.connect5(&device("away"), away).await;
    away.subscribe("a/+", QoS::AtLeastOnce).await;
    away.subscribe("b/#", QoS::AtLeastOnce).await;
    away.subscribe("$share/g/c", QoS::AtLeastOnce).await;
    drop(away);
    world.until_away("away").await;
    let mut client = world.simple5("d").await;
    client.publish(retained("x", "twelve octet")).await;
    for (name, value) in [
        ("clients/connected", "2"),
        ("clients/disconnected", "1"),
        ("clients/total", "3"),
        ("clients/maximum", "2"),
        ("retained messages/count", "1"),
        ("publish/messages/received", "1"),
        ("publish/bytes/received", "12"),
        ("shared_subscriptions/count", "1"),
    ] {
        for root in ["$SYS/broker", "$SYS/portcullis/broker"] {
            let name = format!("{root}/{name}");
            assert_eq!(figure(&mut reader, &name).await, value, "{name}");
        }
    }
    // The reader has sixteen by now, and takes another one each time.
    let count = figure(&mut reader, "$SYS/broker/subscriptions/count").await;
    assert_eq!(count, "19");
    let version = figure(&mut reader, "$SYS/broker/version").await;
    assert_eq!(
        version,
        format!("portcullis version {}", env!("CARGO_PKG_VERSION"))
    );
    let uptime = figure(&mut reader, "$SYS/broker/uptime").await;
    assert!(uptime.ends_with(" seconds"), "{uptime}");

    // Octets and packets of one PINGREQ and one PINGRESP lie between two readings of a client
    // that does nothing else.
    let tally = &world.broker.hub().sys.tally;
    let read = || {
        [
            tally.octets_received.get(),
            tally.octets_sent.get(),
            tally.packets_received.get(),
            tally.packets_sent.get(),
        ]
    };
    client.settle().await;
    let before = read();
    client.settle().await;
    let difference: Vec<u64> = read().iter().zip(before).map(|(a, b)| a - b).collect();
    assert_eq!(difference, [2, 2, 1, 1]);
}

#[tokio::test]
async fn figures_that_change_are_published() {
    let world = world(SysSettings {
        interval: Some(Duration::from_millis(20)),
        ..SysSettings::default()
    })
    .await;
    let mut reader = listener(&world, "$SYS/broker/clients/connected").await;
    assert_eq!(&reader.message().await.payload[..], b"1");
    let client = world.simple5("d").await;
    let said = |message: v5_publish::Publish| {
        assert!(!message.retain);
        assert_eq!(message.qos, QoS::AtMostOnce);
        String::from_utf8(message.payload.to_vec()).unwrap()
    };
    while said(reader.message().await) != "2" {}
    drop(client);
    assert_eq!(said(reader.message().await), "1");
    // Nothing changes, nothing comes; but somebody may have come who knows another value.
    reader.settle().await;
    world.broker.hub().figures_given();
    assert_eq!(said(reader.message().await), "1");
}

#[tokio::test]
async fn figures_are_sent_or_not_as_the_subscription_says() {
    let world = World::start().await;
    let (mut reader, _) = world.connect5(&admin(), connect5("reader")).await;
    let never = v5::SubscriptionOptions {
        retain_handling: v5::RetainHandling::NoAtSubscribe,
        ..options(QoS::AtMostOnce)
    };
    let filter = "$SYS/broker/version";
    reader.subscribe_with(filter, never, None).await;
    reader.settle().await;
    reader
        .subscribe("$share/g/$SYS/broker/version", QoS::AtMostOnce)
        .await;
    reader.settle().await;
    reader.subscribe("#", QoS::AtMostOnce).await;
    reader.settle().await;
    let identified = reader
        .subscribe_with(filter, options(QoS::AtMostOnce), Some(7))
        .await;
    assert_eq!(u8::from(identified), 0);
    let message = reader.message().await;
    let ids = message.properties.unwrap().subscription_ids;
    assert_eq!(ids, [7.try_into().unwrap()]);
}

#[tokio::test]
async fn without_an_interval_there_are_no_figures() {
    let world = world(SysSettings {
        interval: None,
        ..SysSettings::default()
    })
    .await;
    let mut reader = listener(&world, "$SYS/#").await;
    reader.settle().await;
    let _client = world.simple5("d").await;
    has(&reader.event().await, json!({"event": "connected"}));
}
