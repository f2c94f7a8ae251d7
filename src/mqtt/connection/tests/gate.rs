use std::time::Duration;

use rmqtt_codec::types::QoS;
use rmqtt_codec::v5;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::harness::*;
use crate::mqtt::hub::Hooks;
use crate::mqtt::settings::{SessionOnCut, Settings, WillOnCut};
use crate::mqtt::wire::encode::Outgoing;
use crate::mqtt::wire::{Connect, Version};
use crate::tls::live::Cut;

fn mortal(id: &'static str) -> v5::Connect {
    v5::Connect {
        session_expiry_interval_secs: 1_000,
        clean_start: false,
        last_will: Some(v5::LastWill {
            will_delay_interval_sec: Some(500),
            ..plain_will("will", "cut")
        }),
        ..connect5(id)
    }
}

#[tokio::test]
async fn a_cut_ends_the_connection_and_publishes_the_will_at_once() {
    let world = World::start().await;
    let mut watcher = world.simple5("w").await;
    watcher.subscribe("will", QoS::AtLeastOnce).await;
    let (mut client, _) = world.connect5(&device("c"), mortal("c")).await;
    client.subscribe("a", QoS::AtLeastOnce).await;
    client.cut.send(Some(Cut::CaInactive)).unwrap();
    assert_eq!(client.farewell().await, 0x98);
    assert_eq!(&watcher.message().await.payload[..], b"cut");
    world.until_away("c").await;
    assert_eq!(world.broker.session("c").unwrap().subscriptions, 1);
}

/// Neither session nor will, and a client that would see the will.
async fn where_a_cut_leaves_nothing() -> (World, Client5) {
    let mut settings = Settings::default();
    settings.policy.will_on_cut = WillOnCut::Suppress;
    settings.policy.session_on_cut = SessionOnCut::Discard;
    let world = World::with(settings, Hooks::default()).await;
    let mut watcher = world.simple5("w").await;
    watcher.subscribe("will", QoS::AtLeastOnce).await;
    (world, watcher)
}

#[tokio::test]
async fn a_cut_can_discard_the_session_and_its_will() {
    let (world, mut watcher) = where_a_cut_leaves_nothing().await;
    let (mut client, _) = world.connect5(&device("c"), mortal("c")).await;
    client.cut.send(Some(Cut::DeviceInactive)).unwrap();
    assert_eq!(client.farewell().await, 0x98);
    world.until("c", |session| session.is_none()).await;
    watcher.settle().await;
}

#[tokio::test]
async fn nothing_is_processed_after_a_cut() {
    let world = World::start().await;
    let mut watcher = world.simple5("w").await;
    watcher.subscribe("a", QoS::AtLeastOnce).await;
    let mut client = world.simple5("c").await;
    client.cut.send(Some(Cut::CaDeleted)).unwrap();
    client.send(message("a", QoS::AtLeastOnce, "late")).await;
    client.send(message("a", QoS::AtLeastOnce, "later")).await;
    assert_eq!(client.farewell().await, 0x98);
    watcher.settle().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_all_the_same() {
    let world = World::start().await;
    let mut client = world.stuck5().await;
    client.cut.send(Some(Cut::CaInactive)).unwrap();
    world.until("c", |session| session.is_none()).await;
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, client.stream.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_peer_that_is_cut_before_connect_gets_no_session() {
    let world = World::start().await;
    let (mut stream, cut) = world.dial(&device("c"));
    cut.send(Some(Cut::CaInactive)).unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert!(rest.is_empty());
    assert_eq!(world.broker.sessions(), 0);
}

#[tokio::test]
async fn a_client_that_is_cut_is_told_why() {
    let world = World::start().await;
    let mut client = world.simple5("c").await;
    client.cut.send(Some(Cut::CaInactive)).unwrap();
    match client.next().await {
        Some(v5::Packet::Disconnect(packet)) => assert_eq!(
            packet.reason_string.as_deref(),
            Some("in all detail: the CA is inactive")
        ),
        other => panic!("{other:?}"),
    }
    // A client that takes no packets of that size is not told in words (3.14.2.2.3).
    let small = v5::Connect {
        max_packet_size: std::num::NonZeroU32::new(20),
        ..connect5("d")
    };
    let (mut client, _) = world.connect5(&device("d"), small).await;
    client.cut.send(Some(Cut::CaInactive)).unwrap();
    match client.next().await {
        Some(v5::Packet::Disconnect(packet)) => assert_eq!(packet.reason_string, None),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_client_that_is_cut_while_it_waits_for_its_session_is_refused_and_told_why() {
    let world = World::start().await;
    let (_client, _) = world.connect5(&device("c"), mortal("c")).await;
    let cell = world.broker.hub().registry.get("c").unwrap();
    // A session whose connection never hears of anything: there is no task behind it.
    let (owner, client) = (cell.owner.clone(), cell.client().clone());
    let connect = Connect {
        version: Version::V5,
        clean_start: true,
        keep_alive: 0,
        client_id: "stuck".into(),
        session_expiry: 0,
        receive_maximum: 1,
        max_packet: u32::MAX,
        alias_maximum: 0,
        wants_auth: false,
        will: None,
    };
    let registry = &world.broker.hub().registry;
    let stuck = registry.attach(&connect, &owner, &client, None, 0).await;
    let cell = stuck.unwrap().cell;
    let mut five = world.client5(&device("c"), connect5("stuck")).await;
    // It waits for the session now.
    let listener = cell.listen();
    while cell.kicked().is_none() {
        std::future::poll_fn(|context| listener.poll_rung(context)).await;
    }
    five.cut.send(Some(Cut::DeviceInactive)).unwrap();
    match five.next().await {
        Some(v5::Packet::ConnectAck(ack)) => {
            assert_eq!(ack.reason_code, v5::ConnectAckReason::NotAuthorized);
            assert_eq!(
                ack.reason_string.as_deref(),
                Some("in all detail: the device certificate is inactive")
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(five.next().await.is_none());
}

#[tokio::test]
async fn shutdown_says_so() {
    let world = World::start().await;
    let mut client = world.simple5("c").await;
    world.shutdown.cancel();
    assert_eq!(client.farewell().await, 0x8B);
}

/// A client sends 100 kB and leaves, and the broker stops before it has read that.
async fn leaves_at_the_shutdown(is_time_up: bool) {
    let world = World::start().await;
    let connect = v5::Connect {
        keep_alive: 4,
        ..connect5("c")
    };
    let (mut client, _) = world.connect5(&device("c"), connect).await;
    client.settle().await;
    if is_time_up {
        tokio::time::pause();
        // A little more, since the timer was set in a part of a millisecond, but not so much that it is late.
        tokio::time::advance(Duration::from_millis(6_005)).await;
    }
    client.send(large()).await;
    client.send_raw(&[0xE0, 0]).await;
    world.shutdown.cancel();
    let mut rest = Vec::new();
    let reading = tokio::time::timeout(PATIENCE, client.stream.read_to_end(&mut rest));
    reading.await.unwrap().unwrap();
    assert!(rest.is_empty(), "it has left: {rest:?}");
}

#[tokio::test]
async fn what_a_client_has_said_before_the_shutdown_counts() {
    leaves_at_the_shutdown(false).await;
}

#[tokio::test]
async fn what_a_client_has_said_before_the_shutdown_counts_also_if_its_time_is_to_be_judged() {
    leaves_at_the_shutdown(true).await;
}

#[tokio::test]
async fn connect_must_come_in_time() {
    let mut settings = Settings::default();
    settings.limits.connect_timeout = Duration::from_millis(20);
    let world = World::with(settings, Hooks::default()).await;
    let (mut stream, _cut) = world.dial(&device("c"));
    stream.write_all(&[0x10]).await.unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert!(rest.is_empty());
}

#[tokio::test]
async fn what_waits_in_the_session_is_not_sent_after_a_cut() {
    let world = World::start().await;
    // Whether the cut or the packet is seen first is left to chance.
    for _ in 0..32 {
        let mut client = world.simple5("c").await;
        let cell = world.broker.hub().registry.get("c").unwrap();
        cell.session().send(Outgoing::Pong);
        client.send(v5::Packet::PingRequest).await;
        client.cut.send(Some(Cut::CaInactive)).unwrap();
        match client.next().await {
            Some(v5::Packet::Disconnect(packet)) => assert_eq!(u8::from(packet.reason_code), 0x98),
            other => panic!("{other:?}"),
        }
        world.until_away("c").await;
    }
}

/// Told, as one of thousands: nobody has woken it yet.
fn tell_without_waking(cut: &tokio::sync::watch::Sender<Option<Cut>>) {
    cut.send_if_modified(|told| {
        *told = Some(Cut::CaInactive);
        false
    });
}

#[tokio::test]
async fn who_is_told_while_others_have_their_turn_is_sent_nothing_more() {
    let world = World::start().await;
    let hub = world.broker.hub().clone();
    let mut client = world.simple5("c").await;
    client.settle().await;
    let cell = hub.registry.get("c").unwrap();
    // After the last packet of the last piece there are as many answers as may wait, and it is others'
    // turn.
    let all = hub.sys.tally.packets_received.get() + PINGS;
    client.flood().await;
    until(|| hub.sys.tally.packets_received.get() >= all).await;
    assert_eq!(cell.session().answers_waiting(), 1_024);
    client.cut.send(Some(Cut::CaInactive)).unwrap();
    let mut answers = 0;
    loop {
        match client.recv().await {
            v5::Packet::PingResponse => answers += 1,
            v5::Packet::Disconnect(packet) => break assert_eq!(u8::from(packet.reason_code), 0x98),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(answers, 256 + 512);
}

#[tokio::test]
async fn connect_of_a_peer_that_was_told_begins_no_session() {
    let world = World::start().await;
    let mut watcher = world.simple5("w").await;
    watcher.subscribe("will", QoS::AtLeastOnce).await;
    let (stream, cut) = world.dial(&device("c"));
    let mut client = Client5::new(stream, cut);
    // The broker waits for CONNECT.
    tokio::task::yield_now().await;
    tell_without_waking(&client.cut);
    client.send(mortal("c")).await;
    match client.recv().await {
        v5::Packet::ConnectAck(ack) => {
            assert_eq!(ack.reason_code, v5::ConnectAckReason::NotAuthorized);
        }
        other => panic!("{other:?}"),
    }
    assert!(world.broker.session("c").is_none());
    watcher.settle().await;
}

#[tokio::test]
async fn peer_that_was_told_and_goes_by_itself_leaves_what_a_cut_leaves() {
    let (world, mut watcher) = where_a_cut_leaves_nothing().await;
    let (client, _) = world.connect5(&device("c"), mortal("c")).await;
    tell_without_waking(&client.cut);
    drop(client);
    world.until("c", |session| session.is_none()).await;
    watcher.settle().await;
}
