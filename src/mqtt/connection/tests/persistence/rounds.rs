//! Rounds of writing while clients come and go, and on disks that do not take everything.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};

use tokio::sync::{mpsc, watch};

use super::*;
use crate::store::sessions::record::{Row, Write};
use crate::store::{Durable, StoreFuture};

type Refuses = Box<dyn FnMut(&Write) -> bool + Send>;

/// A disk that does not take what it is told to refuse, as when the transaction with it fails and
/// others do not, and on which a round can be held up.
struct Faulty {
    disk: SqliteSessions,
    refuses: Mutex<Refuses>,
    failures: AtomicU64,
    /// Whether rounds may go on.
    open: watch::Sender<bool>,
    /// How many were held up.
    held_up: watch::Sender<usize>,
}

impl Faulty {
    fn new(place: &Place) -> Arc<Self> {
        Arc::new(Self {
            disk: place.open(),
            refuses: Mutex::new(Box::new(|_| false)),
            failures: AtomicU64::new(0),
            open: watch::Sender::new(true),
            held_up: watch::Sender::new(0),
        })
    }

    fn refuse(&self, refuses: impl FnMut(&Write) -> bool + Send + 'static) {
        *self.refuses.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(refuses);
    }

    async fn until_held_up(&self) {
        let mut held_up = self.held_up.subscribe();
        held_up.wait_for(|count| *count > 0).await.unwrap();
    }
}

impl SessionStore for Faulty {
    fn load(&self, to: mpsc::Sender<Vec<Row>>) -> StoreFuture<'_, ()> {
        self.disk.load(to)
    }
    fn write(&self, write: Write) {
        let mut refuses = self.refuses.lock().unwrap_or_else(PoisonError::into_inner);
        match refuses(&write) {
            true => drop(self.failures.fetch_add(1, Ordering::AcqRel)),
            false => self.disk.write(write),
        }
    }
    fn forget(&self, session: u64) -> Pin<Box<dyn Future<Output = Durable> + Send>> {
        self.disk.forget(session)
    }
    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            let mut open = self.open.subscribe();
            if !*open.borrow_and_update() {
                self.held_up.send_modify(|count| *count += 1);
                open.wait_for(|open| *open).await.unwrap();
            }
        })
    }
    fn flush(&self) -> StoreFuture<'_, ()> {
        self.disk.flush()
    }
    fn failures(&self) -> u64 {
        self.disk.failures() + self.failures.load(Ordering::Acquire)
    }
    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.disk.close()
    }
    fn abandon(&self) {
        self.disk.abandon();
    }
}

/// A broker on such a disk, with a session for each of these, which waits for topic `t`.
async fn started(place: &Place, sessions: &[&'static str]) -> (World, Arc<Faulty>) {
    let store = Faulty::new(place);
    let (world, _) = place.start_on(store.clone(), Settings::default()).await;
    for id in sessions.iter().copied() {
        let (mut client, _) = world.connect5(&device(id), lasting(id)).await;
        client.subscribe("t", QoS::AtLeastOnce).await;
        drop(client);
        world.until_away(id).await;
    }
    (world, store)
}

impl World {
    async fn until_waiting(&self, id: &str, count: usize) {
        self.until(id, |info| info.is_some_and(|info| info.waiting == count))
            .await;
    }

    /// When something of the session falls due next.
    fn deadline(&self, id: &str) -> Option<u64> {
        let cell = self.broker.hub().registry.get(id).unwrap();
        cell.session().deadline()
    }
}

#[tokio::test]
async fn round_that_is_under_way_does_not_bring_back_a_session_that_was_begun_anew() {
    let place = Place::new();
    let (world, store) = started(&place, &["a", "c"]).await;
    store.open.send_replace(false);
    let meanwhile = async {
        store.until_held_up().await;
        // The usual way to delete a session.
        world.connect5(&device("c"), connect5("c")).await;
        world.until("c", |info| info.is_none()).await;
        store.open.send_replace(true);
    };
    tokio::join!(world.write(), meanwhile);
    let (after_crash, restored) = place.crashed().start().await;
    assert_eq!(restored.sessions, 1);
    let (_, connack) = after_crash.connect5(&device("c"), lasting("c")).await;
    assert!(!connack.session_present);
    let (_, restored) = place.restart(world).await;
    assert_eq!(restored.sessions, 1);
}

#[tokio::test]
async fn what_one_transaction_did_not_take_is_written_before_the_end() {
    let place = Place::new();
    let (world, store) = started(&place, &["a", "b"]).await;
    let mut publisher = world.simple5("p").await;
    publisher.publish(retained("t", "1")).await;
    for id in ["a", "b"] {
        world.until_waiting(id, 1).await;
    }
    let mut refused = 0;
    store.refuse(move |write| {
        refused += 1;
        refused <= 2 && matches!(write, Write::Session(_))
    });
    let (_, restored) = place.restart(world).await;
    let told = (restored.sessions, restored.messages, restored.retained);
    assert_eq!(told, (2, 2, 1));
}

#[tokio::test]
async fn what_the_disk_does_not_take_at_the_end_is_said() {
    let place = Place::new();
    let (world, store) = started(&place, &["a", "b"]).await;
    let mut publisher = world.simple5("p").await;
    publisher.publish(message("t", QoS::AtLeastOnce, "1")).await;
    for id in ["a", "b"] {
        world.until_waiting(id, 1).await;
    }
    drop(publisher);
    world.until_all_away().await;
    store.refuse(|write| matches!(write, Write::Session(_)));
    let missed = world.broker.finish(PATIENCE).await;
    assert_eq!((missed.sessions, missed.messages), (2, 2));
}

#[tokio::test]
async fn retained_messages_that_cannot_be_written_anew_stay_on_disk() {
    let place = Place::new();
    let (world, store) = started(&place, &[]).await;
    let mut publisher = world.simple5("p").await;
    for topic in ["a", "b"] {
        publisher.publish(retained(topic, "1")).await;
    }
    world.write().await;
    // Something failed, so that all is written anew, and the disk does not take all of that.
    store.failures.fetch_add(1, Ordering::AcqRel);
    store.refuse(|write| matches!(write, Write::Retained(message, _) if message.topic == "a"));
    for _ in 0..2 {
        assert!(world.broker.write_now().await.is_err());
        assert_eq!(place.crashed().start().await.1.retained, 2);
    }
    publisher.publish(retained("b", "")).await;
    assert!(world.broker.write_now().await.is_err());
    store.refuse(|_| false);
    world.write().await;
    assert_eq!(place.crashed().start().await.1.retained, 1);
}

#[tokio::test]
async fn will_that_falls_due_while_the_last_sessions_are_written_goes_out_at_the_next_start() {
    let place = Place::new();
    let (world, store) = started(&place, &["a"]).await;
    let connect = v5::Connect {
        last_will: Some(v5::LastWill {
            topic: "t".into(),
            ..will(100).unwrap()
        }),
        ..lasting("b")
    };
    let connected = world.connect5(&device("b"), connect).await;
    world.shutdown.cancel();
    world.until_all_away().await;
    drop(connected);
    let due = world.deadline("b");
    store.open.send_replace(false);
    let meanwhile = async {
        // The session that waits for the will is written, the one with the will is not.
        store.until_held_up().await;
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(200)).await;
        place.pass(200_000);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        tokio::time::resume();
        assert_eq!(world.deadline("b"), due);
        store.open.send_replace(true);
    };
    let (missed, ()) = tokio::join!(world.broker.finish(PATIENCE * 100), meanwhile);
    assert_eq!(missed, Missed::default());
    world.until_gone().await;
    drop(store);
    let (world, _) = place.start().await;
    let (mut client, connack) = world.connect5(&device("a"), lasting("a")).await;
    assert!(connack.session_present);
    assert_eq!(payloads(&mut client, 1).await, ["gone"]);
    client.settle().await;
}
