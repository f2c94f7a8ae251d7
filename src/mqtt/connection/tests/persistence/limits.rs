//! A restart with another configuration.

use super::*;
use crate::mqtt::settings::{Administrators, IdentityPolicy, Overflow};

/// A place where `c` waits for ten messages, and others for none; retained messages too.
async fn filled() -> Place {
    let place = Place::new();
    let (world, _) = place.start().await;
    let (mut client, _) = world.connect5(&device("c"), lasting("c")).await;
    for filter in ["t/+", "x", "a/b/c/d"] {
        client.subscribe(filter, QoS::AtLeastOnce).await;
    }
    for id in ["d", "e"] {
        world.connect5(&device(id), lasting(id)).await;
    }
    drop(client);
    world.until_away("c").await;
    let mut publisher = world.simple5("p").await;
    for number in 0..10 {
        let payload: &'static str = Box::leak(number.to_string().into_boxed_str());
        publisher
            .publish(retained(&format!("t/{number}"), payload))
            .await;
    }
    let (world, restored) = place.restart(world).await;
    assert_eq!(
        (restored.sessions, restored.messages, restored.retained),
        (3, 10, 10)
    );
    world.until_gone().await;
    place
}

async fn started(settings: impl FnOnce(&mut Settings)) -> (World, Restored) {
    let place = filled().await;
    let mut with = Settings::default();
    settings(&mut with);
    let (world, restored) = place.start_with(with.clone()).await;
    // What was dropped is dropped on disk, too.
    let (world, again) = place.restart_with(world, with).await;
    assert_eq!(again.sessions, restored.sessions);
    assert_eq!(again.messages, restored.messages);
    assert_eq!(again.dropped, 0, "{again:?}");
    world.until_gone().await;
    let (world, _) = place.start().await;
    (world, restored)
}

#[tokio::test]
async fn smaller_queues_drop_by_policy() {
    for (overflow, kept) in [
        (Overflow::DropNewest, ["0", "1", "2"]),
        (Overflow::DropOldest, ["7", "8", "9"]),
    ] {
        let (world, restored) = started(|settings| {
            settings.limits.queue_messages = 3;
            settings.policy.overflow = overflow;
        })
        .await;
        assert_eq!(
            (restored.sessions, restored.messages, restored.dropped),
            (3, 3, 7)
        );
        let (mut client, connack) = world.connect5(&device("c"), lasting("c")).await;
        assert!(connack.session_present);
        assert_eq!(payloads(&mut client, 3).await, kept);
        client.settle().await;
    }
}

#[tokio::test]
async fn fewer_octets_for_all_queues_drop_by_policy() {
    let (_, restored) = started(|settings| settings.limits.total_queue_bytes = 500).await;
    assert!((1..5).contains(&restored.messages), "{restored:?}");
    assert_eq!(restored.messages + restored.dropped, 10);
}

#[tokio::test]
async fn messages_that_are_too_old_now_are_not_sent() {
    let place = filled().await;
    place.pass(100_000);
    let mut settings = Settings::default();
    settings.limits.queue_age = Some(Duration::from_secs(50));
    let (world, _) = place.start_with(settings).await;
    let (mut client, connack) = world.connect5(&device("c"), lasting("c")).await;
    assert!(connack.session_present);
    client.settle().await;
}

#[tokio::test]
async fn fewer_retained_messages_are_kept() {
    let (_, restored) = started(|settings| settings.limits.retained_messages = 4).await;
    assert_eq!((restored.retained, restored.dropped), (4, 6));
}

#[tokio::test]
async fn session_that_is_more_than_limits_allow_is_not_restored() {
    for settings in [
        (|settings: &mut Settings| settings.limits.max_subscriptions = 2) as fn(&mut Settings),
        |settings| settings.limits.topics.max_levels = 3,
    ] {
        let (world, restored) = started(settings).await;
        assert_eq!((restored.sessions, restored.over_limit), (2, 1));
        let (_, connack) = world.connect5(&device("c"), lasting("c")).await;
        assert!(!connack.session_present);
    }
    let (_, restored) = started(|settings| settings.limits.max_sessions = 1).await;
    assert_eq!((restored.sessions, restored.over_limit), (1, 2));
    let (_, restored) = started(|settings| settings.limits.max_client_id = 0).await;
    assert_eq!((restored.sessions, restored.over_limit), (0, 3));
}

#[tokio::test]
async fn session_with_nothing_on_the_way_makes_no_room_for_one_with_too_much() {
    let place = Place::new();
    let (world, _) = place.start().await;
    for id in ["d", "e"] {
        world.connect5(&device(id), lasting(id)).await;
    }
    let (mut client, _) = world.connect5(&device("c"), lasting("c")).await;
    client.subscribe("t", QoS::AtLeastOnce).await;
    let mut publisher = world.simple5("p").await;
    publisher.publish(message("t", QoS::AtLeastOnce, "1")).await;
    client.message_unacknowledged().await;
    place.stop(world).await;
    let mut settings = Settings::default();
    settings.limits.total_queue_bytes = 10;
    let (world, restored) = place.start_with(settings).await;
    assert_eq!((restored.sessions, restored.over_limit), (2, 1));
    assert!(world.broker.session("c").is_none());
}

#[tokio::test]
async fn sessions_last_no_longer_than_they_may_now() {
    let place = filled().await;
    let mut settings = Settings::default();
    settings.limits.max_session_expiry = 10;
    let (world, _) = place.start_with(settings).await;
    let hub = world.broker.hub();
    let ends = hub.registry.get("c").unwrap().session().deadline().unwrap();
    assert!(ends <= hub.now() + 10_000);
}

#[tokio::test]
async fn more_or_fewer_shards_make_no_difference() {
    let place = filled().await;
    let path = place.directory.path().join("sessions-x.db");
    let store = Arc::new(SqliteSessions::open(&path).unwrap());
    let clock = Arc::new(|| UNIX_EPOCH + Duration::from_secs(1_000));
    let mut settings = Settings::default();
    settings.bus.shards = 5;
    let keeper = Keeper::on(store, clock, PATIENCE * 100);
    let resumed = crate::mqtt::Broker::resume(settings, Default::default(), keeper).await;
    let (broker, restored) = resumed.unwrap();
    assert_eq!((restored.sessions, restored.messages), (3, 10));
    assert_eq!(broker.session("c").unwrap().subscriptions, 3);
}

#[tokio::test]
async fn session_belongs_to_whom_the_policy_of_now_says() {
    let place = filled().await;
    let mut settings = Settings::default();
    settings.policy.identity = IdentityPolicy::Certificate;
    let (world, restored) = place.start_with(settings).await;
    assert_eq!(restored.sessions, 3);
    let renewed = Who {
        serial: 2,
        ..device("c")
    };
    let mut refused = world.client5(&renewed, lasting("c")).await;
    match refused.recv().await {
        v5::Packet::ConnectAck(ack) => {
            assert_eq!(ack.reason_code, v5::ConnectAckReason::NotAuthorized);
        }
        other => panic!("{other:?}"),
    }
    let (_, connack) = world.connect5(&device("c"), lasting("c")).await;
    assert!(connack.session_present);
}

#[tokio::test]
async fn session_of_an_administrator_that_is_none_any_more_does_not_come_back() {
    let place = Place::new();
    let (world, _) = place.start().await;
    let (mut client, _) = world.connect5(&admin(), lasting("admin")).await;
    client.subscribe("$SYS/#", QoS::AtLeastOnce).await;
    let mut settings = Settings::default();
    settings.policy.administrators = Administrators::Named(vec!["other".to_owned()]);
    let (world, restored) = place.restart_with(world, settings).await;
    assert_eq!((restored.sessions, restored.owner_changed), (0, 1));
    let (_, connack) = world.connect5(&admin(), lasting("admin")).await;
    assert!(!connack.session_present);
}

#[tokio::test]
async fn session_with_a_row_that_makes_no_sense_is_not_restored_and_others_are() {
    for (sql, sessions, unreadable, dropped) in [
        (
            "UPDATE subscription SET options = 3 WHERE filter = 'x'",
            2,
            1,
            0,
        ),
        (
            "UPDATE subscription SET identifier = 0 WHERE filter = 'x'",
            2,
            1,
            0,
        ),
        (
            "UPDATE queued SET subscription_ids = x'10000000' WHERE topic = 't/3'",
            3,
            0,
            1,
        ),
        (
            "UPDATE session SET issuer = '' WHERE client_id = 'c'",
            2,
            1,
            0,
        ),
        (
            "INSERT INTO received VALUES ((SELECT key FROM session WHERE client_id = 'c'), 0)",
            2,
            1,
            0,
        ),
        ("UPDATE queued SET qos = 9 WHERE topic = 't/3'", 3, 0, 1),
        ("UPDATE queued SET topic = '+' WHERE topic = 't/3'", 3, 0, 1),
        ("UPDATE queued SET payload = 1 WHERE topic = 't/3'", 3, 0, 1),
        (
            "UPDATE retained SET topic = '#' WHERE topic = 't/3'",
            3,
            0,
            1,
        ),
        (
            "UPDATE retained SET payload = 1 WHERE topic = 't/3'",
            3,
            1,
            0,
        ),
    ] {
        let place = filled().await;
        let path = place.directory.path().join("sessions-x.db");
        rusqlite::Connection::open(&path)
            .unwrap()
            .execute_batch(sql)
            .unwrap();
        let (world, restored) = place.start().await;
        let told = (restored.sessions, restored.unreadable, restored.dropped);
        assert_eq!(told, (sessions, unreadable, dropped), "{sql}");
        let (_, again) = place.restart(world).await;
        assert_eq!((again.sessions, again.dropped), (sessions, 0), "{sql}");
    }
}

#[tokio::test]
async fn session_is_held_to_the_access_rules_of_now_before_anything_is_sent() {
    use crate::mqtt::access::rules::{AccessSettings, Action, Effect, Only, Rule};
    let place = filled().await;
    let denied = Rule {
        effect: Effect::Deny,
        action: Action::Subscribe,
        topic: "t/#".parse().unwrap(),
        cas: Only::Any,
        common_names: Only::Any,
    };
    let settings = Settings {
        access: AccessSettings::new(vec![denied], Effect::Allow).unwrap(),
        ..Settings::default()
    };
    let (world, restored) = place.start_with(settings).await;
    assert_eq!((restored.sessions, restored.messages), (3, 10));
    let mut publisher = world.simple5("p").await;
    publisher
        .publish(message("t/x", QoS::AtLeastOnce, "denied"))
        .await;
    publisher
        .publish(message("x", QoS::AtLeastOnce, "11"))
        .await;
    let (mut client, connack) = world.connect5(&device("c"), lasting("c")).await;
    assert!(connack.session_present);
    assert_eq!(payloads(&mut client, 1).await, ["11"]);
    client.settle().await;
    assert_eq!(world.broker.session("c").unwrap().subscriptions, 2);
}
