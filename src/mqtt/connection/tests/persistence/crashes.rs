//! What a crash finds on disk, and disks that do not take everything.

use std::future::Future;
use std::pin::Pin;

use tokio::sync::mpsc;

use super::*;
use crate::store::sessions::SessionStore;
use crate::store::sessions::record::{Row, Write};
use crate::store::{Durable, StoreFuture};

#[tokio::test]
async fn crash_loses_who_is_connected_and_what_was_not_written_and_nothing_else() {
    let place = Place::new();
    let (world, _) = place.start().await;
    let mut publisher = world.simple5("p").await;
    for id in ["away", "here", "late"] {
        let (mut client, _) = world.connect5(&device(id), lasting(id)).await;
        client.subscribe("t", QoS::ExactlyOnce).await;
    }
    world.until_all_away_but("p").await;
    publisher.publish(message("t", QoS::ExactlyOnce, "1")).await;
    world
        .until("away", |info| info.is_some_and(|info| info.waiting == 1))
        .await;
    publisher.publish(retained("r", "old")).await;
    world.write().await;
    let (mut here, _) = world.connect5(&device("here"), lasting("here")).await;
    assert_eq!(payloads(&mut here, 1).await, ["1"]);
    let (mut late, _) = world.connect5(&device("late"), lasting("late")).await;
    assert_eq!(payloads(&mut late, 1).await, ["1"]);
    drop(late);
    world.until_away("late").await;
    publisher.publish(message("t", QoS::ExactlyOnce, "2")).await;
    publisher.publish(retained("r", "new")).await;

    let crashed = place.crashed();
    let (world, restored) = crashed.start().await;
    assert_eq!(
        (restored.sessions, restored.messages, restored.retained),
        (1, 1, 1)
    );
    for id in ["here", "late"] {
        let (_, connack) = world.connect5(&device(id), lasting(id)).await;
        assert!(!connack.session_present, "{id}");
    }
    let (mut away, connack) = world.connect5(&device("away"), lasting("away")).await;
    assert!(connack.session_present);
    assert_eq!(payloads(&mut away, 1).await, ["1"]);
    away.settle().await;
    // Having been used, it is not there for another crash.
    let (world, restored) = crashed.crashed().start().await;
    assert_eq!((restored.sessions, restored.retained), (0, 1));
    drop(world);
}

impl World {
    async fn until_all_away_but(&self, client_id: &str) {
        for cell in self.broker.hub().registry.after(None, 1_000) {
            if cell.client_id != client_id {
                self.until_away(&cell.client_id).await;
            }
        }
    }
}

#[tokio::test]
async fn session_of_a_stranger_is_neither_given_nor_forgotten() {
    let place = Place::new();
    let (world, _) = place.start().await;
    world.connect5(&device("c"), lasting("c")).await;
    let (world, _) = place.restart(world).await;
    let stranger = Who {
        issuer: 2,
        ..device("c")
    };
    for clean_start in [false, true] {
        let connect = v5::Connect {
            clean_start,
            ..lasting("c")
        };
        let mut refused = world.client5(&stranger, connect).await;
        match refused.recv().await {
            v5::Packet::ConnectAck(ack) => {
                assert_eq!(ack.reason_code, v5::ConnectAckReason::NotAuthorized);
            }
            other => panic!("{other:?}"),
        }
    }
    let (_, restored) = place.crashed().start().await;
    assert_eq!(restored.sessions, 1);
    let (_, connack) = world.connect5(&device("c"), lasting("c")).await;
    assert!(connack.session_present);
}

#[tokio::test]
async fn session_that_is_begun_anew_or_cut_does_not_come_back() {
    use crate::mqtt::settings::SessionOnCut;
    let place = Place::new();
    let mut settings = Settings::default();
    settings.policy.session_on_cut = SessionOnCut::Discard;
    let (world, _) = place.start_with(settings.clone()).await;
    for id in ["anew", "cut", "kept"] {
        world.connect5(&device(id), lasting(id)).await;
    }
    let (world, restored) = place.restart_with(world, settings.clone()).await;
    assert_eq!(restored.sessions, 3);
    world.connect5(&device("anew"), connect5("anew")).await;
    let (client, connack) = world.connect5(&device("cut"), lasting("cut")).await;
    assert!(connack.session_present);
    client
        .cut
        .send(Some(crate::tls::live::Cut::CaInactive))
        .unwrap();
    world.until("cut", |info| info.is_none()).await;
    let (_, restored) = place.crashed().start().await;
    assert_eq!(restored.sessions, 1);
    let (_, restored) = place.restart_with(world, settings).await;
    assert_eq!(restored.sessions, 1);
}

/// A disk that takes everything and never says that it has it.
struct Hanging;

impl SessionStore for Hanging {
    fn load(&self, _: mpsc::Sender<Vec<Row>>) -> StoreFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }
    fn write(&self, _: Write) {}
    fn forget(&self, _: u64) -> Pin<Box<dyn Future<Output = Durable> + Send>> {
        Box::pin(async { Durable::NotYet })
    }
    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {})
    }
    fn flush(&self) -> StoreFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
    fn failures(&self) -> u64 {
        0
    }
    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {})
    }
    fn abandon(&self) {}
}

#[tokio::test]
async fn what_cannot_be_written_in_time_is_said() {
    let clock = Arc::new(|| UNIX_EPOCH);
    let keeper = Keeper::on(Arc::new(Hanging), clock, Duration::from_secs(1_000_000));
    let (world, _) = World::resumed(Settings::default(), keeper).await;
    let (mut client, _) = world.connect5(&device("a"), lasting("a")).await;
    client.subscribe("a", QoS::AtLeastOnce).await;
    drop(client);
    world.until_away("a").await;
    let (mut connected, _) = world.connect5(&device("b"), lasting("b")).await;
    connected.publish(message("a", QoS::AtLeastOnce, "1")).await;
    let missed = world.broker.finish(Duration::from_millis(50)).await;
    assert_eq!((missed.sessions, missed.messages), (2, 1));
    // A client whose session is on disk is not locked out.
    let (_, connack) = world.connect5(&device("a"), lasting("a")).await;
    assert!(connack.session_present);
}

#[tokio::test]
async fn client_that_does_not_let_go_is_said_not_to_be_kept() {
    let place = Place::new();
    let (world, _) = place.start().await;
    let _connected = world.connect5(&device("b"), lasting("b")).await;
    assert_eq!(world.broker.finish(PATIENCE).await.sessions, 1);
}
