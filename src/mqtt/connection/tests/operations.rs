//! What an operator sees of sessions, and how connections are closed.

use std::sync::Arc;

use rmqtt_codec::types::QoS;
use rmqtt_codec::{v3, v5};
use tokio::io::AsyncReadExt;

use super::harness::*;
use crate::control::PageRequest;
use crate::control::sessions::{Closed, Presence, SessionView, Sessions, Wanted};
use crate::mqtt::hub::Hooks;
use crate::mqtt::settings::Settings;
use crate::mqtt::shard::Kick;
use crate::mqtt::wire::{Connect, Version};

impl World {
    fn operations(&self) -> Arc<dyn Sessions> {
        self.broker.operations()
    }

    async fn page(&self, wanted: Wanted, number: usize, size: usize) -> (Vec<String>, usize) {
        let page = PageRequest { number, size };
        let page = self.operations().list(wanted, page).await;
        let ids = page.items.into_iter().map(|session| session.client_id);
        (ids.collect(), page.total)
    }
}

#[tokio::test]
async fn close_ends_the_connection_before_it_answers_and_the_client_may_come_back() {
    let world = World::start().await;
    let mut watcher = world.simple5("w").await;
    watcher.subscribe("a", QoS::AtLeastOnce).await;
    let (mut client, _) = world.connect5(&device("c"), lasting("c")).await;
    assert_eq!(world.broker.close("c").await, Closed::Ended);
    // At once, without waiting for anything more.
    assert!(!world.broker.session("c").unwrap().connected);
    assert_eq!(client.farewell().await, 0x98);
    assert_eq!(world.broker.close("c").await, Closed::NotConnected);
    assert_eq!(world.broker.close("nobody").await, Closed::NotConnected);

    let (mut again, ack) = world.connect5(&device("c"), lasting("c")).await;
    assert!(ack.session_present);
    again.settle().await;
    watcher.settle().await;
}

#[tokio::test]
async fn a_client_of_version_3_is_closed_without_a_word() {
    let world = World::start().await;
    let (mut client, _) = world.connect3(&device("c"), connect3("c")).await;
    assert_eq!(world.broker.close("c").await, Closed::Ended);
    assert!(client.next().await.is_none());
}

#[tokio::test]
async fn nothing_is_processed_after_a_close() {
    let world = World::start().await;
    let mut watcher = world.simple5("w").await;
    watcher.subscribe("a", QoS::AtLeastOnce).await;
    // Whether the kick or the packet is seen first is left to chance.
    for _ in 0..32 {
        let mut client = world.simple5("c").await;
        let cell = world.broker.hub().registry.get("c").unwrap();
        assert!(cell.kick(Kick::Administrative));
        client.send(message("a", QoS::AtLeastOnce, "late")).await;
        client.send(message("a", QoS::AtMostOnce, "later")).await;
        match client.next().await {
            Some(v5::Packet::Disconnect(packet)) => assert_eq!(u8::from(packet.reason_code), 0x98),
            other => panic!("{other:?}"),
        }
        world.until_away("c").await;
    }
    watcher.settle().await;
}

#[tokio::test]
async fn a_client_that_is_gone_without_a_word_is_closed_all_the_same() {
    let world = World::start().await;
    let mut client = world.stuck5().await;
    assert_eq!(world.broker.close("c").await, Closed::Ended);
    assert!(world.broker.session("c").is_none());
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, client.stream.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closes_that_race_takeovers_reach_one_connection_each_and_never_wait_in_vain() {
    let world = Arc::new(World::start().await);
    let (come, closing) = (world.clone(), world.clone());
    let connects = tokio::spawn(async move {
        let mut clients = Vec::new();
        for _ in 0..200 {
            clients.push(come.client5(&device("c"), lasting("c")).await);
            tokio::task::yield_now().await;
        }
        clients
    });
    let closes = tokio::spawn(async move {
        let mut ended = 0;
        // However the two tasks get their turns, one close comes when all have connected.
        loop {
            let last = connects.is_finished();
            match closing.broker.close("c").await {
                Closed::Ended => ended += 1,
                Closed::NotConnected => tokio::task::yield_now().await,
                Closed::Told => panic!("a close was not heard"),
            }
            if last && ended > 0 {
                return (connects.await.unwrap(), ended);
            }
        }
    });
    let (clients, ended) = closes.await.unwrap();
    assert!(ended <= 200, "{ended}");
    drop(clients);
    world.until_away("c").await;
    let (mut client, _) = world.connect5(&device("c"), lasting("c")).await;
    client.settle().await;
}

#[tokio::test]
async fn a_connection_that_does_not_let_go_in_time_is_said_to_be_told() {
    let mut settings = Settings::default();
    settings.limits.takeover_timeout = std::time::Duration::from_millis(20);
    let world = World::with(settings, Hooks::default()).await;
    let (_client, _) = world.connect5(&device("c"), lasting("c")).await;
    let cell = world.broker.hub().registry.get("c").unwrap();
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
    // A session whose connection never hears of anything: there is no task behind it.
    let (owner, client) = (cell.owner.clone(), cell.client().clone());
    let registry = &world.broker.hub().registry;
    let stuck = registry.attach(&connect, &owner, &client, None, 0);
    assert!(!stuck.await.unwrap().present);
    assert_eq!(world.broker.close("stuck").await, Closed::Told);
}

#[tokio::test]
async fn the_will_of_a_closed_connection_is_published() {
    let world = World::start().await;
    let mut watcher = world.simple5("w").await;
    watcher.subscribe("will", QoS::AtLeastOnce).await;
    let connect = v3::Connect {
        last_will: Some(v3::LastWill {
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: "will".into(),
            message: "closed".into(),
        }),
        ..connect3("c")
    };
    let (_client, _) = world.connect3(&device("c"), connect).await;
    assert_eq!(world.broker.close("c").await, Closed::Ended);
    assert_eq!(&watcher.message().await.payload[..], b"closed");
}

#[tokio::test]
async fn session_shows_who_has_it_from_where_and_what_waits() {
    let world = World::start().await;
    let operations = world.operations();
    let who = Who {
        serial: 0xf2,
        issuer: 5,
        ..device("thermometer")
    };
    let (mut client, _) = world.connect5(&who, lasting("c")).await;
    client.subscribe("a", QoS::AtLeastOnce).await;
    client.subscribe("b/#", QoS::AtLeastOnce).await;
    let shown = operations.get("c").unwrap();
    assert!(shown.connected_since_ms.unwrap() > 1_700_000_000_000);
    let expected = SessionView {
        client_id: "c".to_owned(),
        presence: Presence::Online,
        ca_sn: "05".parse().unwrap(),
        device_sn: "f2".parse().unwrap(),
        common_name: "thermometer".to_owned(),
        address: "127.0.0.1:1".parse().unwrap(),
        connected_since_ms: shown.connected_since_ms,
        subscriptions: 2,
        queued: 0,
    };
    assert_eq!(shown, expected);
    assert!(operations.is_online("c"));

    assert_eq!(operations.close("c").await, Closed::Ended);
    let mut publisher = world.simple5("p").await;
    publisher.publish(message("a", QoS::AtLeastOnce, "1")).await;
    publisher.publish(message("a", QoS::AtMostOnce, "2")).await;
    world
        .until("c", |session| session.is_some_and(|it| it.waiting == 1))
        .await;
    let away = SessionView {
        presence: Presence::Away,
        connected_since_ms: None,
        queued: 1,
        ..expected
    };
    assert_eq!(operations.get("c").unwrap(), away);
    assert!(!operations.is_online("c"));

    // A renewed certificate: the session is the device's, and shows what it has now.
    let renewed = Who { serial: 9, ..who };
    let (_client, ack) = world.connect5(&renewed, lasting("c")).await;
    assert!(ack.session_present);
    let shown = operations.get("c").unwrap();
    assert_eq!(shown.device_sn.to_string(), "09");
    assert_eq!(shown.presence, Presence::Online);
    assert!(operations.get("nobody").is_none());
    assert_eq!(operations.count(), 2);
}

#[tokio::test]
async fn sessions_are_listed_by_client_id_in_pages() {
    let world = World::start().await;
    let mut clients = Vec::new();
    for id in ["d", "b", "e", "a", "c"] {
        let who = Who {
            issuer: if id < "c" { 1 } else { 2 },
            ..device(id)
        };
        clients.push(world.connect5(&who, lasting(id)).await.0);
    }
    for id in ["b", "d"] {
        assert_eq!(world.broker.close(id).await, Closed::Ended);
    }
    let all = Wanted::default;
    let ids = |ids: &[&str], total| (ids.iter().map(|id| (*id).to_owned()).collect(), total);
    assert_eq!(world.page(all(), 1, 2).await, ids(&["a", "b"], 5));
    assert_eq!(world.page(all(), 2, 2).await, ids(&["c", "d"], 5));
    assert_eq!(world.page(all(), 3, 2).await, ids(&["e"], 5));
    assert_eq!(world.page(all(), 4, 2).await, ids(&[], 5));
    assert_eq!(world.page(all(), usize::MAX, 100).await, ids(&[], 5));
    let of_ca = Wanted {
        ca_sn: Some("02".parse().unwrap()),
        ..all()
    };
    assert_eq!(world.page(of_ca.clone(), 1, 2).await, ids(&["c", "d"], 3));
    assert_eq!(world.page(of_ca.clone(), 2, 2).await, ids(&["e"], 3));
    let online = Wanted {
        presence: Some(Presence::Online),
        ..of_ca
    };
    assert_eq!(world.page(online, 1, 9).await, ids(&["c", "e"], 2));
    let away = Wanted {
        presence: Some(Presence::Away),
        ..all()
    };
    assert_eq!(world.page(away, 1, 9).await, ids(&["b", "d"], 2));
}

#[tokio::test]
async fn listing_goes_on_where_it_gave_others_their_turn() {
    let world = World::start().await;
    let mut clients = Vec::new();
    // More than are looked at in one go.
    for number in 0..1_030 {
        let id: &'static str = Box::leak(format!("c{number:04}").into_boxed_str());
        clients.push(world.connect5(&device(id), lasting(id)).await.0);
    }
    let (page, total) = world.page(Wanted::default(), 11, 100).await;
    assert_eq!((page.len(), total), (30, 1_030));
    assert_eq!((page[0].as_str(), page[29].as_str()), ("c1000", "c1029"));
    let online = Wanted {
        presence: Some(Presence::Online),
        ..Wanted::default()
    };
    assert_eq!(world.page(online, 11, 100).await, (page, 1_030));
}

#[tokio::test]
async fn a_broker_that_is_gone_has_no_sessions() {
    let world = World::start().await;
    let operations = world.operations();
    let client = world.simple5("c").await;
    assert!(operations.is_online("c"));
    world.shutdown.cancel();
    drop((world, client));
    until(|| operations.count() == 0).await;
    assert_eq!(operations.close("c").await, Closed::NotConnected);
}
