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
