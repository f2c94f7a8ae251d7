//! The sessions of a broker by client id: who gets which, when they end, what falls due.

mod returning;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytestring::ByteString;
use tokio::sync::Notify;

use super::bus::{SessionKey, ShareId};
use super::identity::{Client, Owner};
use super::metrics;
use super::persist::{Forgetting, Keeper};
use super::session::message::SharedBudget;
use super::session::subscriptions::Place;
use super::session::{Departure, Due, Session};
use super::settings::{Limits, Overflow};
use super::shard::{Cell, Kick, Shard};
use super::shared::Presence;
use super::topics::TopicName;
use super::wire::{Connect, Will};
use crate::control::sessions::Closed;

pub use self::returning::RestoreError;

/// In the order of the client ids, so that a page of a listing sorts nothing.
type ByClient = BTreeMap<ByteString, Arc<Cell>>;

/// The sessions.
pub struct Registry {
    by_client: Mutex<ByClient>,
    shards: Vec<Arc<Shard>>,
    /// Which shard a client has: clients choose their ids, and must not choose that.
    by_name: RandomState,
    next_key: AtomicU64,
    limits: Arc<Limits>,
    overflow: Overflow,
    budget: Arc<SharedBudget>,
    keeper: Arc<Keeper>,
    timers: Mutex<BTreeMap<(u64, SessionKey), Weak<Cell>>>,
    /// Notified when the first timer may have changed.
    pub timer_changed: Notify,
}

/// A session that has been given to a connection.
#[derive(Debug)]
pub struct Attached {
    /// The session.
    pub cell: Arc<Cell>,
    /// Whether it existed before.
    pub present: bool,
    /// The will of the session that had to make way for it.
    pub will: Option<(TopicName, Will)>,
}

/// What becomes of a wish for a session.
enum Attempt {
    Attached(Attached),
    /// Another connection has it.
    Busy(Arc<Cell>),
    /// It is on disk, where it is being forgotten first.
    OnDisk(Forgetting),
}

/// Why a connection does not get a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// It belongs to another device.
    #[error("the client id belongs to a session of another certificate")]
    NotOwner,
    /// The connection that has it does not let go in time.
    #[error("the session's previous connection did not end in time")]
    Busy,
    /// There are too many sessions.
    #[error("there are too many sessions")]
    Full,
}

impl Registry {
    /// A registry without sessions, over these shards.
    pub fn new(
        shards: Vec<Arc<Shard>>,
        limits: Arc<Limits>,
        overflow: Overflow,
        keeper: Arc<Keeper>,
    ) -> Self {
        Self {
            by_client: Mutex::default(),
            shards,
            by_name: RandomState::new(),
            next_key: AtomicU64::new(1),
            budget: Arc::new(SharedBudget::new(limits.total_queue_bytes)),
            limits,
            overflow,
            keeper,
            timers: Mutex::default(),
            timer_changed: Notify::new(),
        }
    }

    /// The shards.
    pub fn shards(&self) -> &[Arc<Shard>] {
        &self.shards
    }

    /// The session with this client id.
    pub fn get(&self, client_id: &str) -> Option<Arc<Cell>> {
        self.map().get(client_id).cloned()
    }

    /// The next sessions in the order of their client ids, at most so many. The lock is held for
    /// them only, so a walk over all of them is not one picture of one moment.
    pub fn after(&self, client_id: Option<&ByteString>, most: usize) -> Vec<Arc<Cell>> {
        let from = client_id.map_or(Bound::Unbounded, Bound::Excluded);
        let map = self.map();
        let next = map.range::<ByteString, _>((from, Bound::Unbounded));
        next.take(most).map(|(_, cell)| Arc::clone(cell)).collect()
    }

    /// The octets of messages that wait in all sessions, with what it takes to keep them.
    pub fn queued_octets(&self) -> usize {
        self.budget.used()
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.map().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Give the session of this client id to a connection: the one there is, if it may be resumed,
    /// or a new one. A connection that has it now is told to let it go, and waited for.
    ///
    /// # Errors
    /// [`AttachError`].
    pub async fn attach(
        &self,
        connect: &Connect,
        owner: &Owner,
        client: &Client,
        will: Option<(TopicName, Will)>,
        expiry: u32,
    ) -> Result<Attached, AttachError> {
        let give_up = tokio::time::sleep(self.limits.takeover_timeout);
        tokio::pin!(give_up);
        loop {
            let busy = match self.try_attach(connect, owner, client, &will, expiry)? {
                Attempt::Attached(attached) => return Ok(attached),
                Attempt::Busy(busy) => busy,
                Attempt::OnDisk(forgetting) => {
                    // If the disk fails, the client gets its session all the same.
                    forgetting.await;
                    continue;
                }
            };
            if !busy.kick(Kick::TakenOver) {
                continue;
            }
            tokio::select! {
                () = busy.until_let_go() => {}
                () = &mut give_up => return Err(AttachError::Busy),
            }
        }
    }

    fn try_attach(
        &self,
        connect: &Connect,
        owner: &Owner,
        client: &Client,
        will: &Option<(TopicName, Will)>,
        expiry: u32,
    ) -> Result<Attempt, AttachError> {
        let mut map = self.map();
        let mut old_will = None;
        let mut old = None;
        if let Some(cell) = map.get(&connect.client_id) {
            if cell.owner != *owner {
                return Err(AttachError::NotOwner);
            }
            let mut session = cell.session();
            if session.is_connected() {
                drop(session);
                return Ok(Attempt::Busy(cell.clone()));
            }
            if let Some(forgetting) = self.keeper.forget(&mut session) {
                return Ok(Attempt::OnDisk(forgetting));
            }
            self.unschedule(cell, &session);
            if !connect.clean_start {
                session.connect(connect, will.clone(), expiry);
                cell.connected(&session, client);
                let shares = shares(&session);
                drop(session);
                let cell = cell.clone();
                self.presence(&cell, &shares, Presence::Online);
                return Ok(Attempt::Attached(Attached {
                    cell,
                    present: true,
                    will: None,
                }));
            }
            old_will = session.end();
            drop(session);
            old = map.remove(&connect.client_id);
            metrics::session_ended();
        }
        if map.len() >= self.limits.max_sessions {
            return Err(AttachError::Full);
        }
        let Some(cell) = self.create(connect, owner, client, will.clone(), expiry) else {
            return Err(AttachError::Full);
        };
        map.insert(cell.client_id.clone(), cell.clone());
        metrics::session_began();
        drop(map);
        if let Some(old) = old {
            self.forget(&old);
        }
        Ok(Attempt::Attached(Attached {
            cell,
            present: false,
            will: old_will,
        }))
    }

    /// A new session, with its connection; `None` only if there are no shards.
    fn create(
        &self,
        connect: &Connect,
        owner: &Owner,
        client: &Client,
        will: Option<(TopicName, Will)>,
        expiry: u32,
    ) -> Option<Arc<Cell>> {
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        // The id is a slice of CONNECT: copied, so that it does not keep all of it.
        let client_id = ByteString::from(&*connect.client_id);
        let mut session = Session::new(
            SessionKey(key),
            client_id,
            owner.is_administrator(),
            self.limits.clone(),
            self.overflow,
            self.budget.clone(),
        );
        session.connect(connect, will, expiry);
        let shard = self.shard_of(&connect.client_id)?;
        Some(shard.cell(session, owner.clone(), client.clone()))
    }

    /// The shard of a client, the same for all sessions that it has while the broker runs: what one of
    /// them has sent does not come after what the next one sends.
    fn shard_of(&self, client_id: &str) -> Option<&Arc<Shard>> {
        let shards = u64::try_from(self.shards.len()).ok()?;
        let index = self.by_name.hash_one(client_id).checked_rem(shards)?;
        self.shards.get(usize::try_from(index).ok()?)
    }

    /// The connection lets its session go. What is due at once is given back.
    pub fn release(&self, cell: &Arc<Cell>, departure: Departure, now: u64) -> Due {
        let departure = match departure {
            // The sessions go on, and with them the wills (3.1.2.5).
            Departure::Shutdown if self.keeper.is_on() => Departure::Lost,
            departure => departure,
        };
        let mut map = self.map();
        let mut session = cell.session();
        let due = session.disconnect(departure, now);
        let shares = shares(&session);
        self.settle(&mut map, cell, &session, &due);
        drop(session);
        // Under the lock, so that it cannot come after the presence of the next connection.
        self.presence(cell, &shares, Presence::Away);
        drop(map);
        cell.released.notify_waiters();
        if due.ended {
            self.forget(cell);
        }
        due
    }

    /// End the connection of this client id, and wait until it has let its session go: it
    /// processes nothing more then, whether or not the client still takes what it is sent.
    pub async fn close(&self, client_id: &str) -> Closed {
        let Some(cell) = self.get(client_id) else {
            return Closed::NotConnected;
        };
        if !cell.kick(Kick::Administrative) {
            return Closed::NotConnected;
        }
        match tokio::time::timeout(self.limits.takeover_timeout, cell.until_let_go()).await {
            Ok(()) => Closed::Ended,
            Err(_) => Closed::Told,
        }
    }

    /// What has fallen due, and when to ask again.
    pub fn on_time(&self, now: u64) -> (Vec<(usize, Due)>, Option<u64>) {
        let mut all = Vec::new();
        loop {
            let mut timers = lock(&self.timers);
            let Some(first) = timers.first_entry() else {
                return (all, None);
            };
            let (at, _) = *first.key();
            if at > now {
                return (all, Some(at));
            }
            let cell = first.remove().upgrade();
            drop(timers);
            let Some(cell) = cell else { continue };
            let mut map = self.map();
            let mut session = cell.session();
            let due = session.on_time(now);
            match due.ended {
                // Not waited for: after a crash it would be found to have expired.
                true => drop(self.keeper.forget(&mut session)),
                false if due.will.is_some() => self.keeper.will_gone(&session),
                false => {}
            }
            self.settle(&mut map, &cell, &session, &due);
            drop(session);
            drop(map);
            if due.ended {
                self.forget(&cell);
            }
            all.push((cell.shard, due));
        }
    }

    /// Drop the messages that wait and are of no use any more: no client may come for them, and no
    /// message may come that they would make room for. Others get their turn in between.
    pub async fn drop_useless(&self, now: u64) {
        let mut after = None;
        loop {
            let cells = self.after(after.as_ref(), AT_A_TIME);
            for cell in &cells {
                metrics::dropped_from_queue(&cell.session().drop_useless(now));
            }
            match cells.last() {
                Some(last) if cells.len() == AT_A_TIME => after = Some(last.client_id.clone()),
                _ => return,
            }
            tokio::task::yield_now().await;
        }
    }

    /// After a session lost its connection or something fell due: take it out, or note when the
    /// next thing falls due.
    fn settle(&self, map: &mut ByClient, cell: &Arc<Cell>, session: &Session, due: &Due) {
        if due.ended {
            if map
                .get(&cell.client_id)
                .is_some_and(|known| Arc::ptr_eq(known, cell))
            {
                map.remove(&cell.client_id);
                metrics::session_ended();
            }
        } else if let Some(at) = session.deadline() {
            lock(&self.timers).insert((at, cell.key), Arc::downgrade(cell));
            self.timer_changed.notify_one();
        }
    }

    fn unschedule(&self, cell: &Cell, session: &Session) {
        if let Some(at) = session.deadline() {
            lock(&self.timers).remove(&(at, cell.key));
        }
    }

    /// End the subscriptions of a session that is over.
    fn forget(&self, cell: &Cell) {
        let subscriptions = cell.session().subscriptions_mut().drain();
        if let Some(shard) = self.shards.get(cell.shard) {
            for (subscription, place) in subscriptions {
                shard.unsubscribe(cell.key, &subscription, place);
            }
        }
    }

    fn presence(&self, cell: &Cell, shares: &[ShareId], presence: Presence) {
        if let Some(shard) = self.shards.get(cell.shard) {
            shard.presence(cell.key, shares, presence);
        }
    }

    fn map(&self) -> MutexGuard<'_, ByClient> {
        lock(&self.by_client)
    }
}

/// Sessions that are looked at before others get their turn.
const AT_A_TIME: usize = 1_024;

fn shares(session: &Session) -> Vec<ShareId> {
    let places = session.subscriptions().iter().map(|(_, place)| place);
    places
        .filter_map(|place| match place {
            Place::Share(share) => Some(share),
            Place::Filter(_) => None,
        })
        .collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
