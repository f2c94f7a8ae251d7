//! Brokers that are stopped, or crash, and start again on what they have written.

mod crashes;
mod history;
mod large;
mod limits;
mod rounds;
mod wills;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use rmqtt_codec::types::QoS;
use rmqtt_codec::v5;
use tempfile::TempDir;

use super::harness::*;
use crate::mqtt::persist::{Keeper, Missed, Restored};
use crate::mqtt::settings::Settings;
use crate::store::sessions::{SessionStore, SqliteSessions};

/// A broker that keeps its sessions, and the place where it does.
struct Place {
    directory: TempDir,
    /// Unix milliseconds.
    clock: Arc<AtomicI64>,
}

impl Place {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            clock: Arc::new(AtomicI64::new(1_000_000)),
        }
    }

    async fn start(&self) -> (World, Restored) {
        self.start_with(Settings::default()).await
    }

    async fn start_with(&self, settings: Settings) -> (World, Restored) {
        self.start_on(Arc::new(self.open()), settings).await
    }

    fn open(&self) -> SqliteSessions {
        SqliteSessions::open(&self.directory.path().join("sessions-x.db")).unwrap()
    }

    async fn start_on(
        &self,
        store: Arc<dyn SessionStore>,
        settings: Settings,
    ) -> (World, Restored) {
        let clock = Arc::clone(&self.clock);
        let now = move || {
            UNIX_EPOCH + Duration::from_millis(clock.load(Ordering::Acquire).try_into().unwrap())
        };
        // Rounds are made when the test says so.
        let keeper = Keeper::on(store, Arc::new(now), Duration::from_secs(1_000_000));
        World::resumed(settings, keeper).await
    }

    fn pass(&self, milliseconds: i64) {
        self.clock.fetch_add(milliseconds, Ordering::AcqRel);
    }

    /// End the broker in order, and start another one.
    async fn restart(&self, world: World) -> (World, Restored) {
        self.restart_with(world, Settings::default()).await
    }

    async fn restart_with(&self, world: World, settings: Settings) -> (World, Restored) {
        self.stop(world).await;
        self.start_with(settings).await
    }

    async fn stop(&self, world: World) {
        world.shutdown.cancel();
        world.until_all_away().await;
        let missed = world.broker.finish(PATIENCE).await;
        assert_eq!(missed, Missed::default());
        world.until_gone().await;
    }

    /// What a crash at this moment would leave.
    fn crashed(&self) -> Self {
        let copy = Self::new();
        copy.clock
            .store(self.clock.load(Ordering::Acquire), Ordering::Release);
        for file in std::fs::read_dir(self.directory.path()).unwrap() {
            let from = file.unwrap().path();
            let to = copy.directory.path().join(from.file_name().unwrap());
            std::fs::copy(from, to).unwrap();
        }
        copy
    }
}

impl World {
    async fn until_all_away(&self) {
        let registry = &self.broker.hub().registry;
        loop {
            let cells = registry.after(None, 1_000);
            if cells.iter().all(|cell| !cell.session().is_connected()) {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Until everything of it is dropped, and the file is closed.
    async fn until_gone(self) {
        self.shutdown.cancel();
        let hub = Arc::downgrade(self.broker.hub());
        drop(self);
        while hub.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    }

    async fn write(&self) {
        self.broker.write_now().await.unwrap();
    }
}

/// The payloads of the next messages, acknowledged.
async fn payloads(client: &mut Client5, count: usize) -> Vec<String> {
    let mut got = Vec::new();
    for _ in 0..count {
        let message = client.message().await;
        got.push(String::from_utf8(message.payload.to_vec()).unwrap());
    }
    got
}

#[tokio::test]
async fn everything_of_a_session_is_there_after_a_restart() {
    let place = Place::new();
    let (world, restored) = place.start().await;
    assert_eq!(restored, Restored::default());
    let (mut client, _) = world.connect5(&device("c"), lasting("c")).await;
    let options = v5::SubscriptionOptions {
        qos: QoS::ExactlyOnce,
        retain_as_published: true,
        ..Default::default()
    };
    client.subscribe_with("a/+", options, Some(7)).await;
    client
        .subscribe_with("$share/g/b", options_of(1), Some(9))
        .await;
    let mut publisher = world.simple5("p").await;
    for payload in ["1", "2", "3"] {
        publisher
            .publish(message("a/x", QoS::ExactlyOnce, payload))
            .await;
    }
    // The first is received and not released, the second not acknowledged, the third unseen.
    let first = client.message_unacknowledged().await;
    let second = client.message_unacknowledged().await;
    client.message_unacknowledged().await;
    client
        .send(v5::Packet::PublishReceived(ack(first.packet_id.unwrap())))
        .await;
    assert!(matches!(client.recv().await, v5::Packet::PublishRelease(_)));
    // And one of its own is not released.
    client.send(message("own", QoS::ExactlyOnce, "own")).await;
    assert!(matches!(
        client.recv().await,
        v5::Packet::PublishReceived(_)
    ));
    drop(client);
    world.until_away("c").await;
    publisher.publish(retained("b", "4")).await;

    let (world, restored) = place.restart(world).await;
    assert_eq!(
        (restored.sessions, restored.messages, restored.retained),
        (1, 4, 1)
    );
    let mut publisher = world.simple5("p").await;
    publisher
        .publish(message("a/y", QoS::AtLeastOnce, "5"))
        .await;
    publisher.publish(message("b", QoS::AtLeastOnce, "6")).await;
    let (mut client, connack) = world.connect5(&device("c"), lasting("c")).await;
    assert!(connack.session_present);
    match client.recv().await {
        v5::Packet::PublishRelease(release) => {
            assert_eq!(release.packet_id, first.packet_id.unwrap());
        }
        other => panic!("{other:?}"),
    }
    client
        .send(v5::Packet::PublishComplete(ack2(first.packet_id.unwrap())))
        .await;
    let again = client.message_unacknowledged().await;
    assert_eq!((again.packet_id, again.dup), (second.packet_id, true));
    assert_eq!(&again.payload[..], b"2");
    let third = client.message_unacknowledged().await;
    assert_eq!((third.dup, &third.payload[..]), (true, &b"3"[..]));
    let ids = third.properties.unwrap().subscription_ids;
    assert_eq!(ids.iter().map(|id| id.get()).collect::<Vec<_>>(), [7]);
    // The rest of the queue comes with them.
    let mut rest = Vec::new();
    for _ in 0..3 {
        rest.push(client.message_unacknowledged().await);
    }
    let payload = |message: &v5_publish::Publish| message.payload.to_vec();
    let payloads: Vec<_> = rest.iter().map(payload).collect();
    assert_eq!(payloads, [b"4", b"5", b"6"]);
    for id in [second.packet_id.unwrap(), third.packet_id.unwrap()] {
        client.send(v5::Packet::PublishReceived(ack(id))).await;
        assert!(matches!(client.recv().await, v5::Packet::PublishRelease(_)));
        client.send(v5::Packet::PublishComplete(ack2(id))).await;
    }
    // What was received before is not taken a second time.
    let mut repeated = message("own", QoS::ExactlyOnce, "own");
    repeated.dup = true;
    client.subscribe("own", QoS::AtMostOnce).await;
    client.send(repeated).await;
    assert!(matches!(
        client.recv().await,
        v5::Packet::PublishReceived(_)
    ));
    client.settle().await;
    // The retained message is there for whoever comes now.
    let mut late = world.simple5("late").await;
    late.subscribe("b", QoS::AtLeastOnce).await;
    let kept = late.message().await;
    assert_eq!((kept.retain, &kept.payload[..]), (true, &b"4"[..]));
}

fn options_of(qos: u8) -> v5::SubscriptionOptions {
    options(QoS::try_from(qos).unwrap())
}

#[tokio::test]
async fn shared_group_goes_on_with_its_members_away() {
    let place = Place::new();
    let (world, _) = place.start().await;
    for id in ["m1", "m2"] {
        let (mut client, _) = world.connect5(&device(id), lasting(id)).await;
        client.subscribe("$share/g/t", QoS::AtLeastOnce).await;
    }
    let (world, _) = place.restart(world).await;
    let mut publisher = world.simple5("p").await;
    for payload in ["1", "2", "3", "4"] {
        publisher
            .publish(message("t", QoS::AtLeastOnce, payload))
            .await;
    }
    world
        .until("m1", |info| info.is_some_and(|info| info.waiting == 2))
        .await;
    world
        .until("m2", |info| info.is_some_and(|info| info.waiting == 2))
        .await;
    // Who is there gets them, and nobody who is away.
    let (mut client, _) = world.connect5(&device("m1"), lasting("m1")).await;
    payloads(&mut client, 2).await;
    publisher.publish(message("t", QoS::AtLeastOnce, "5")).await;
    publisher.publish(message("t", QoS::AtLeastOnce, "6")).await;
    assert_eq!(payloads(&mut client, 2).await, ["5", "6"]);
}

#[tokio::test]
async fn clock_that_was_set_back_brings_nothing_back() {
    let place = Place::new();
    let (world, _) = place.start().await;
    world.connect5(&device("c"), lasting("c")).await;
    place.stop(world).await;
    place.pass(900_000);
    let (world, _) = place.start().await;
    place.stop(world).await;
    place.pass(-900_000);
    let (world, _) = place.start().await;
    let now = world.broker.hub().now();
    let cell = world.broker.hub().registry.get("c").unwrap();
    let ends = cell.session().deadline().unwrap();
    assert!(ends <= now + 101_000, "{ends} {now}");
    // What is on disk now goes by the earlier clock, too.
    drop(cell);
    place.stop(world).await;
    place.pass(60_000);
    let (world, restored) = place.start().await;
    assert_eq!(restored.sessions, 1);
    place.stop(world).await;
    place.pass(60_000);
    let (_, restored) = place.start().await;
    assert_eq!((restored.sessions, restored.expired), (0, 1));
}

#[tokio::test]
async fn clock_that_is_set_while_the_broker_runs_brings_nothing_back_and_takes_nothing() {
    const DAY: i64 = 86_400_000;
    let place = Place::new();
    place.pass(10 * DAY);
    let (world, _) = place.start().await;
    world.connect5(&device("c"), lasting("c")).await;
    let mut publisher = world.simple5("p").await;
    let mut brief = retained("t", "brief");
    brief.properties.as_mut().unwrap().message_expiry_interval = std::num::NonZeroU32::new(500);
    publisher.publish(brief).await;
    world.until_away("c").await;
    world.write().await;
    // Forward for a while: all lasts as long as it did.
    for _ in 0..2 {
        place.pass(DAY);
        world.write().await;
        place.pass(-DAY);
        world.write().await;
    }
    let (world, restored) = place.restart(world).await;
    assert_eq!((restored.sessions, restored.retained), (1, 1));
    // Wrong when it is written, right again at the start.
    place.pass(DAY);
    place.stop(world).await;
    place.pass(-DAY);
    let (world, restored) = place.start().await;
    assert_eq!((restored.sessions, restored.retained), (1, 1));
    // Back, and for good: the time that passes then counts.
    place.pass(-DAY);
    place.stop(world).await;
    place.pass(600_000);
    let (world, restored) = place.start().await;
    assert_eq!((restored.sessions, restored.retained), (1, 0));
    place.stop(world).await;
    place.pass(600_000);
    let (_, restored) = place.start().await;
    assert_eq!((restored.sessions, restored.expired), (0, 1));
}

#[tokio::test]
async fn retained_messages_follow_what_becomes_of_them() {
    let place = Place::new();
    let (world, _) = place.start().await;
    let mut publisher = world.simple5("p").await;
    for topic in ["a", "b", "c"] {
        publisher.publish(retained(topic, "1")).await;
    }
    world.write().await;
    publisher.publish(retained("a", "2")).await;
    publisher.publish(retained("b", "")).await;
    let (world, restored) = place.restart(world).await;
    assert_eq!(restored.retained, 2);
    let mut client = world.simple5("s").await;
    client.subscribe("+", QoS::AtLeastOnce).await;
    let mut got = payloads(&mut client, 2).await;
    got.sort();
    assert_eq!(got, ["1", "2"]);
    client.settle().await;
}

#[tokio::test]
async fn client_does_not_get_its_own_retained_message_with_no_local_after_a_restart() {
    let place = Place::new();
    let (world, _) = place.start().await;
    let (mut client, _) = world.connect5(&device("c"), lasting("c")).await;
    client.publish(retained("t", "own")).await;
    let (world, _) = place.restart(world).await;
    let no_local = v5::SubscriptionOptions {
        no_local: true,
        ..options(QoS::AtLeastOnce)
    };
    // Sessions that begin now have other numbers than the one that published.
    let mut other = world.simple5("other").await;
    other.subscribe_with("t", no_local, None).await;
    assert_eq!(payloads(&mut other, 1).await, ["own"]);
    let (mut client, _) = world.connect5(&device("c"), lasting("c")).await;
    client.subscribe_with("t", no_local, None).await;
    client.settle().await;
}

#[tokio::test]
async fn broker_that_keeps_nothing_forgets() {
    let world = World::start().await;
    world.connect5(&device("c"), lasting("c")).await;
    world.until_away("c").await;
    world.shutdown.cancel();
    assert_eq!(world.broker.finish(PATIENCE).await, Missed::default());
    let world = World::start().await;
    let (_, connack) = world.connect5(&device("c"), lasting("c")).await;
    assert!(!connack.session_present);
}
