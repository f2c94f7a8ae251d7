//! What administrators are told on `$SYS`, and that nobody else is.

use std::time::Duration;

use rmqtt_codec::types::QoS;
use rmqtt_codec::{v3, v5};
use serde_json::{Value, json};

use super::harness::*;
use crate::control::observe::{Durability, Happened, Subject, TrustChange};
use crate::mqtt::hub::Hooks;
use crate::mqtt::settings::Settings;
use crate::mqtt::shared::Presence;
use crate::mqtt::sys::SysSettings;
use crate::mqtt::topics::{Subscription, TopicLimits};
use crate::mqtt::wire::packets::{Options, RetainHandling};
use crate::mqtt::wire::reason;
use crate::tls::acceptor::AcceptError;
use crate::tls::live::Cut;

const EVENTS: &str = "$SYS/portcullis/events/#";
const SESSION: &str = "$SYS/portcullis/events/session";

pub(super) async fn world(sys: SysSettings) -> World {
    let settings = Settings {
        sys,
        ..Settings::default()
    };
    World::with(settings, Hooks::default()).await
}

/// An administrator with this subscription.
pub(super) async fn listener(world: &World, filter: &str) -> Client5 {
    let (mut client, _) = world.connect5(&admin(), connect5("listener")).await;
    let granted = client.subscribe(filter, QoS::AtLeastOnce).await;
    assert_eq!(u8::from(granted), 1);
    client
}

impl Client5 {
    pub(super) async fn event(&mut self) -> Value {
        let message = self.message().await;
        assert_eq!(message.qos, QoS::AtLeastOnce);
        assert!(!message.retain);
        let properties = message.properties.unwrap();
        assert_eq!(properties.content_type.unwrap(), "application/json");
        serde_json::from_slice(&message.payload).unwrap()
    }
}

#[track_caller]
pub(super) fn has(event: &Value, members: Value) {
    for (name, value) in members.as_object().unwrap() {
        assert_eq!(&event[name], value, "{name} in {event}");
    }
}

#[tokio::test]
async fn the_beginning_and_the_end_of_a_connection_are_told() {
    let world = World::start().await;
    let mut listener = listener(&world, SESSION).await;

    let connect = v5::Connect {
        keep_alive: 60,
        session_expiry_interval_secs: 30,
        ..connect5("a/+/#")
    };
    let (mut client, _) = world.connect5(&device("name"), connect).await;
    let began = listener.event().await;
    has(
        &began,
        json!({"event": "connected", "client_id": "a/+/#", "address": "127.0.0.1:1",
               "ca_sn": "01", "device_sn": "01", "common_name": "name", "protocol": "5.0",
               "clean_start": true, "session_present": false, "keep_alive_seconds": 60,
               "session_expiry_seconds": 30, "seq": 1}),
    );
    client
        .send(v5::Disconnect {
            reason_code: v5::DisconnectReasonCode::DisconnectWithWillMessage,
            ..Default::default()
        })
        .await;
    let ended = listener.event().await;
    has(
        &ended,
        json!({"event": "disconnected", "client_id": "a/+/#", "reason": "client_left",
               "reason_code": 4, "detail": null, "common_name": "name", "seq": 2}),
    );
    assert_eq!(began["connection"], ended["connection"]);

    let (client, present) = world
        .connect3(
            &device("name"),
            v3::Connect {
                clean_session: false,
                ..connect3("a/+/#")
            },
        )
        .await;
    assert!(present);
    let terms = json!({"protocol": "3.1.1", "clean_start": false, "session_present": true});
    has(&listener.event().await, terms);
    drop(client);
    has(
        &listener.event().await,
        json!({"protocol": "3.1.1", "reason": "connection_lost", "reason_code": null}),
    );
}

#[tokio::test]
async fn who_ended_a_connection_is_told() {
    let world = World::start().await;
    let mut listener = listener(&world, SESSION).await;
    let client = world.simple5("d").await;
    listener.event().await;
    client.cut.send(Some(Cut::CaInactive)).unwrap();
    has(
        &listener.event().await,
        json!({"event": "disconnected", "reason": "cut", "reason_code": 0x98,
               "detail": "in all detail: the CA is inactive"}),
    );

    let mut client = world.simple5("d").await;
    listener.event().await;
    world.broker.close("d").await;
    assert_eq!(client.farewell().await, 0x98);
    let administrative = json!({"reason": "administrative", "reason_code": 0x98});
    has(&listener.event().await, administrative);

    let mut client = world.simple5("d").await;
    listener.event().await;
    client.send_raw(&[0xF0, 0x00, 0x00]).await;
    has(&listener.event().await, json!({"reason": "protocol_error"}));
}

#[tokio::test]
async fn a_takeover_is_told_as_an_end_and_then_a_beginning() {
    let world = World::start().await;
    let mut listener = listener(&world, SESSION).await;
    let mut connections = vec![world.simple5("d").await];
    let mut last = listener.event().await["connection"].clone();
    for _ in 0..20 {
        connections.push(world.simple5("d").await);
        let ended = listener.event().await;
        has(
            &ended,
            json!({"event": "disconnected", "reason": "taken_over", "reason_code": 0x8E,
                   "connection": last}),
        );
        let began = listener.event().await;
        has(&began, json!({"event": "connected", "client_id": "d"}));
        last = began["connection"].clone();
    }
}

#[tokio::test]
async fn refused_clients_are_told() {
    let world = World::start().await;
    let mut listener = listener(&world, "$SYS/portcullis/events/refused").await;
    let _owner = world.simple5("d").await;
    let thief = Who {
        serial: 2,
        ..device("thief")
    };
    let mut client = world.client5(&thief, connect5("d")).await;
    client.recv().await;
    has(
        &listener.event().await,
        json!({"event": "connect_refused", "client_id": "d", "common_name": "thief",
               "reason": "refused", "reason_code": 0x87,
               "detail": "the client id belongs to a session of another certificate"}),
    );

    let long: &'static str = "i".repeat(5_000).leak();
    let mut client = world.client5(&device("d"), connect5(long)).await;
    client.recv().await;
    let event = listener.event().await;
    has(&event, json!({"reason": "refused", "reason_code": 0x85}));
    let shown = event["client_id"].as_str().unwrap();
    assert!(shown.len() < 600 && shown.ends_with(" [cut]"), "{shown}");

    let (mut stream, _cut) = world.dial(&device("d"));
    tokio::io::AsyncWriteExt::write_all(&mut stream, &[0xC0, 0x00])
        .await
        .unwrap();
    let no_connect = json!({"event": "connect_refused", "client_id": null,
                            "reason": "protocol_error", "reason_code": null});
    has(&listener.event().await, no_connect);

    let failed = AcceptError::Timeout;
    let remote = "127.0.0.1:9".parse().unwrap();
    world.broker.hub().sys.handshake(remote, Err(&failed));
    has(
        &listener.event().await,
        json!({"event": "handshake_failed", "reason": "timeout", "address": "127.0.0.1:9",
               "ca_sn": null}),
    );
}

#[tokio::test]
async fn a_flood_of_refusals_is_told_as_a_number() {
    let world = world(SysSettings {
        refusals_per_second: 2,
        ..SysSettings::default()
    })
    .await;
    let mut listener = listener(&world, EVENTS).await;
    let remote = "127.0.0.1:9".parse().unwrap();
    for _ in 0..100_000 {
        let sys = &world.broker.hub().sys;
        sys.handshake(remote, Err(&AcceptError::Timeout));
    }
    let (mut told, mut left_out) = (0, 0);
    while told + left_out < 100_000 {
        let event = listener.event().await;
        match event["event"].as_str().unwrap() {
            "handshake_failed" => told += 1,
            "left_out" => {
                assert_eq!(event["lost"], 0);
                left_out += event["refusals"].as_u64().unwrap();
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!(told + left_out, 100_000);
    assert!((2..100).contains(&told), "{told}");
}

#[tokio::test]
async fn what_finds_no_room_is_counted_and_stops_nobody() {
    let world = world(SysSettings {
        waiting: 4,
        ..SysSettings::default()
    })
    .await;
    let mut listener = listener(&world, EVENTS).await;
    // Nothing else runs on this thread meanwhile: the queue is not emptied.
    let hub = world.broker.hub().clone();
    let remote = "127.0.0.1:9".parse().unwrap();
    for _ in 0..9 {
        hub.sys.handshake(remote, Err(&AcceptError::Timeout));
    }
    let observer = world.broker.observer();
    observer.changed(&change(Happened::Inactivated));
    let (mut told, mut changes) = (0, 0);
    loop {
        let event = listener.event().await;
        match event["event"].as_str().unwrap() {
            "left_out" => {
                has(&event, json!({"refusals": 0, "lost": 5}));
                break;
            }
            "inactivated" => changes += 1,
            _ => told += 1,
        }
    }
    assert_eq!((told, changes), (4, 1));
    assert_eq!(hub.sys.tally.events_left_out.get(), 5);
}

#[tokio::test]
async fn what_nobody_is_subscribed_to_is_not_queued() {
    let world = world(SysSettings {
        waiting: 1,
        ..SysSettings::default()
    })
    .await;
    let hub = world.broker.hub().clone();
    let mut everything = world.simple5("everything").await;
    everything.subscribe("#", QoS::AtMostOnce).await;
    let remote = "127.0.0.1:9".parse().unwrap();
    for _ in 0..100 {
        hub.sys.handshake(remote, Err(&AcceptError::Timeout));
    }
    assert_eq!(hub.sys.tally.events_left_out.get(), 0);
    assert_eq!(hub.sys.tally.handshakes_refused.get(), 100);
    everything.settle().await;
}

fn change(happened: Happened) -> TrustChange {
    TrustChange {
        at_ms: 1_790_000_000_123,
        subject: Subject::Device {
            ca_sn: "0a".to_owned(),
            serial: "0b".to_owned(),
        },
        happened,
        before: Some("active"),
        after: Some("inactive"),
        durability: Durability::InMemory,
        connections_ended: Some(3),
        action: "InactivateDeviceCertificate",
        principal: "access_key:k".to_owned(),
        door: "http",
        address: Some("10.0.0.1:5".parse().unwrap()),
        request_id: Some("R".to_owned()),
    }
}

#[tokio::test]
async fn a_change_of_trust_is_told_with_who_made_it() {
    let world = world(SysSettings {
        instance: Some("post-cn-test".parse().unwrap()),
        ..SysSettings::default()
    })
    .await;
    let mut listener = listener(&world, "$SYS/portcullis/events/device").await;
    let observer = world.broker.observer();
    observer.changed(&TrustChange {
        subject: Subject::Ca {
            sn: "0a".to_owned(),
        },
        ..change(Happened::Deleted)
    });
    observer.changed(&change(Happened::Inactivated));
    let event = listener.event().await;
    assert_eq!(
        event,
        json!({"event": "inactivated", "time": "2026-09-21T14:13:20.123Z",
               "instance": "post-cn-test", "ca_sn": "0a", "device_sn": "0b",
               "before": "active", "after": "inactive", "durable": false,
               "connections_ended": 3, "action": "InactivateDeviceCertificate",
               "principal": "access_key:k", "door": "http", "address": "10.0.0.1:5",
               "request_id": "R", "seq": 1})
    );
}

/// Whatever a mistake in a rule or in the matching of filters would let it subscribe to.
#[tokio::test]
async fn a_session_of_a_device_takes_nothing_of_it_whatever_it_is_subscribed_to() {
    let world = world(SysSettings {
        interval: Some(Duration::from_millis(20)),
        ..SysSettings::default()
    })
    .await;
    let mut snoop = world.simple5("snoop").await;
    for filter in [
        "$SYS/#",
        "$SYS/portcullis/#",
        "$share/g/$SYS/#",
        "$SYS/+/events/+",
    ] {
        let refused = snoop.subscribe(filter, QoS::AtLeastOnce).await;
        assert_eq!(u8::from(refused), reason::NOT_AUTHORIZED, "{filter}");
    }
    for filter in ["#", "+/portcullis/#", "+/broker/+", "$share/g/#", "+/#"] {
        assert_eq!(u8::from(snoop.subscribe(filter, QoS::AtLeastOnce).await), 1);
    }
    // Past the rule that has refused them.
    let hub = world.broker.hub().clone();
    let cell = hub.registry.get("snoop").unwrap();
    let shard = &hub.registry.shards()[cell.shard];
    for filter in ["$SYS/#", "$share/g/$SYS/portcullis/events/+"] {
        let subscription = Subscription::parse(filter, &TopicLimits::default()).unwrap();
        let place = shard
            .subscribe(&cell, &subscription, Presence::Online)
            .unwrap();
        let options = Options {
            qos: crate::mqtt::wire::QoS::AtLeastOnce,
            no_local: false,
            retain_as_published: true,
            retain_handling: RetainHandling::Always,
        };
        let mut session = cell.session();
        for figure in hub.figures(subscription.filter()) {
            assert!(!session.deliver_retained(&figure, place, 0).queued);
        }
        let subscriptions = session.subscriptions_mut();
        subscriptions.insert(subscription, place, options, None);
    }
    let mut listener = listener(&world, "$SYS/#").await;
    let events = async |listener: &mut Client5| {
        loop {
            let message = listener.message().await;
            if &message.topic[..] == SESSION && message.payload.starts_with(b"{\"event\":\"conn") {
                break;
            }
        }
    };
    let mut other = world.simple5("other").await;
    events(&mut listener).await;
    hub.figures_given();
    loop {
        let message = listener.message().await;
        if !message.retain && &message.topic[..] == "$SYS/broker/version" {
            break;
        }
    }
    other.publish(message("mark", QoS::AtLeastOnce, "m")).await;
    // One of the plain filters, one of the shared one: nothing else has come before.
    for _ in 0..2 {
        assert_eq!(&snoop.message().await.topic[..], "mark");
    }
    snoop.settle().await;
}
