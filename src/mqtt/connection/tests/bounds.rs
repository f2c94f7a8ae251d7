//! What comes and goes leaves nothing behind, and a router that dies takes nobody with it.

use rmqtt_codec::types::QoS;
use rmqtt_codec::v5;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::harness::*;
use crate::mqtt::bus::Crowd;
use crate::mqtt::settings::Settings;

/// How many filters and topics come and go.
const MANY: usize = 100_000;
/// Filters of one SUBSCRIBE.
const AT_A_TIME: usize = 500;

#[tokio::test]
async fn a_hundred_thousand_filters_that_came_and_went_leave_nothing_behind() {
    let world = World::start().await;
    let bus = world.broker.hub().bus();
    let mut client = world.simple5("a").await;
    client.subscribe("kept/+", QoS::AtLeastOnce).await;
    let before = bus.size();
    for round in 0..MANY / AT_A_TIME {
        let filters: Vec<bytestring::ByteString> = (0..AT_A_TIME)
            .map(|number| format!("{round}/+/{number}/#").into())
            .collect();
        let options = options(QoS::AtLeastOnce);
        client
            .send(v5::Subscribe {
                packet_id: pid(1),
                id: None,
                user_properties: Vec::new(),
                topic_filters: filters.iter().map(|f| (f.clone(), options)).collect(),
            })
            .await;
        match client.recv().await {
            v5::Packet::SubscribeAck(ack) => assert_eq!(ack.status.len(), AT_A_TIME),
            other => panic!("{other:?}"),
        }
        assert!(bus.size().0 > before.0);
        client
            .send(v5::Unsubscribe {
                packet_id: pid(2),
                user_properties: Vec::new(),
                topic_filters: filters,
            })
            .await;
        match client.recv().await {
            v5::Packet::UnsubscribeAck(ack) => assert_eq!(ack.status.len(), AT_A_TIME),
            other => panic!("{other:?}"),
        }
        assert_eq!(bus.size(), before);
    }
    let code = client
        .publish(message("gone/by", QoS::AtLeastOnce, "x"))
        .await;
    assert_eq!(code, 0x10, "nobody listens any more");
}

#[tokio::test]
async fn clients_stay_connected_and_lose_nothing_when_the_router_dies() {
    let world = World::start().await;
    let bus = world.broker.hub().bus();
    let mut to = world.simple5("to").await;
    for filter in THROUGH_THE_ROUTER {
        to.subscribe(filter, QoS::AtLeastOnce).await;
    }
    let mut from = world.simple5("from").await;
    for number in 1..=5_u64 {
        for payload in ["before", "after"] {
            let sent = message("t/x", QoS::AtLeastOnce, payload);
            assert_eq!(from.publish(sent).await, 0);
            if payload == "before" {
                bus.kill_router_for_tests();
            }
        }
        for payload in ["before", "after"] {
            assert_eq!(to.message().await.payload, payload);
        }
        until(|| bus.routers() > number).await;
    }
}

#[tokio::test]
async fn messages_of_a_client_keep_their_order_with_the_router_and_without_it() {
    let world = World::start().await;
    let bus = world.broker.hub().bus();
    let mut to = world.simple5("to").await;
    for filter in THROUGH_THE_ROUTER {
        to.subscribe(filter, QoS::AtMostOnce).await;
    }
    let mut from = world.simple5("from").await;
    const MESSAGES: u32 = 400;
    let publishing = async {
        for number in 0..MESSAGES {
            // One filter matches the other topic.
            let topic = if number % 5 < 2 { "t/x" } else { "u" };
            let mut sent = message(topic, QoS::AtMostOnce, "");
            sent.payload = number.to_string().into();
            from.send(sent).await;
            if number % 100 == 50 {
                bus.kill_router_for_tests();
            }
            if number.is_multiple_of(7) {
                tokio::task::yield_now().await;
            }
        }
    };
    let receiving = async {
        for number in 0..MESSAGES {
            assert_eq!(to.message().await.payload, number.to_string());
        }
    };
    tokio::join!(publishing, receiving);
    assert!(bus.routers() > 1);
}

#[tokio::test]
async fn a_crowd_is_told_to_the_bus_and_gets_every_message_all_the_same() {
    let world = World::start().await;
    let bus = world.broker.hub().bus();
    let mut clients = Vec::new();
    while !bus.crowds("t").contains(&Crowd::Large) {
        assert!(clients.len() < 600, "no shard has so many");
        let mut client = world.simple5(format!("to-{}", clients.len()).leak()).await;
        client.subscribe("t", QoS::AtMostOnce).await;
        clients.push(client);
    }
    let mut from = world.simple5("from").await;
    for payload in ["1", "2"] {
        let sent = message("t", QoS::AtLeastOnce, payload);
        assert_eq!(from.publish(sent).await, 0);
    }
    for client in &mut clients {
        for payload in ["1", "2"] {
            assert_eq!(client.message().await.payload, payload);
        }
    }
}

#[tokio::test]
async fn who_sends_very_many_packets_at_once_lets_others_run_in_between() {
    let world = World::start().await;
    let hub = world.broker.hub().clone();
    let mut client = world.simple5("c").await;
    client.settle().await;
    let mut seen = hub.sys.tally.packets_received.get();
    let all = seen + PINGS;
    client.flood().await;
    while seen < all {
        tokio::task::yield_now().await;
        let now = hub.sys.tally.packets_received.get();
        assert!(now - seen <= 256, "{} at once", now - seen);
        seen = now;
    }
}

#[tokio::test]
async fn all_that_came_at_once_is_answered_without_a_further_word_of_the_client() {
    let world = World::start().await;
    let mut client = world.simple5("c").await;
    client.settle().await;
    // Some reads later there are more in one of them than may wait for their answers.
    let pings = 8 * PINGS;
    client.send_raw(&PING.repeat(pings as usize)).await;
    for _ in 0..pings {
        assert!(matches!(client.recv().await, v5::Packet::PingResponse));
    }
}

#[tokio::test]
async fn no_more_is_read_from_a_client_than_is_processed() {
    let world = World::start().await;
    let tally = world.broker.hub().sys.tally.clone();
    let client = world.simple5("c").await;
    let (before, octets) = (tally.packets_received.get(), tally.octets_received.get());
    let (mut reader, mut writer) = tokio::io::split(client.stream);
    let flood = async {
        for _ in 0..512 {
            writer.write_all(&PING.repeat(4_096)).await.unwrap();
        }
    };
    let answers = async {
        let (mut room, mut left) = (vec![0; 64 << 10], 512 * 4_096 * PING.len());
        while left > 0 {
            let reading = tokio::time::timeout(PATIENCE, reader.read(&mut room));
            left -= reading.await.expect("there is more").unwrap();
            let read = tally.octets_received.get() - octets;
            let processed = (tally.packets_received.get() - before) * PING.len() as u64;
            assert!(
                read - processed <= 128 << 10,
                "{read} read, {processed} processed"
            );
        }
    };
    tokio::join!(flood, answers);
}

#[tokio::test]
async fn a_client_that_never_stops_does_not_hold_up_the_end() {
    end_of_the_broker(false).await;
}

#[tokio::test]
async fn a_client_that_never_stops_does_not_hold_up_the_end_either_if_its_time_is_to_be_judged() {
    end_of_the_broker(true).await;
}

async fn end_of_the_broker(is_due: bool) {
    let world = World::start().await;
    let client = world.simple5("c").await;
    let packet = b"\x30\x04\x00\x01t\x00";
    let (mut reader, mut writer) = tokio::io::split(client.stream);
    let flood =
        tokio::spawn(async move { while writer.write_all(&packet.repeat(8_192)).await.is_ok() {} });
    // It is well on its way.
    let received = &world.broker.hub().sys.tally.messages_received;
    until(|| received.get() >= 10_000).await;
    if is_due {
        let timer = Settings::default().limits.write_timeout;
        tokio::time::pause();
        tokio::time::advance(timer).await;
        tokio::time::resume();
    }
    world.shutdown.cancel();
    let before = received.get();
    let mut farewell = Vec::new();
    tokio::time::timeout(PATIENCE, reader.read_to_end(&mut farewell))
        .await
        .expect("the connection ends")
        .unwrap();
    assert_eq!(farewell.get(2), Some(&0x8B));
    // What was read already, and what a few more looks bring.
    let after = received.get() - before;
    assert!(after <= (1 << 20) / packet.len() as u64, "{after}");
    flood.await.unwrap();
    drop(client.cut);
}
