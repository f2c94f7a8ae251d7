//! A shard: the sessions that share one link to the bus, and who of them wants what.
//!
//! Locks are taken in the order registry, table, session, and never across an await. The bus has
//! the lock of a source when it gives a message to a shard: that comes before the table, and no
//! message is published while the table or a session is locked.

mod bell;
mod wakes;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytestring::ByteString;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use super::access::Rights;
use super::bus::{Bus, BusError, ById, Crowd, Delivery, FilterId, SessionKey, ShareId};
use super::frame::Frame;
use super::identity::{Client, Owner};
use super::metrics;
use super::session::Session;
use super::session::room::Dropped;
use super::session::subscriptions::Place;
use super::shared::Presence;
use super::sys::tally::Tally;
use super::topics::{Subscription, TopicFilter};

use self::bell::Bell;
pub use self::bell::Listener;
pub use self::wakes::Wakes;

/// A session where tasks can reach it.
#[derive(Debug)]
pub struct Cell {
    /// Its key.
    pub key: SessionKey,
    /// Its shard.
    pub shard: usize,
    /// Its client id.
    pub client_id: ByteString,
    /// Whom it belongs to.
    pub owner: Owner,
    client: Mutex<Client>,
    session: Mutex<Session>,
    /// What its client was allowed when all that it holds was held against it.
    held_to: Mutex<Option<Arc<Rights>>>,
    woken: AtomicBool,
    bell: Bell,
    kick: AtomicU8,
    /// Notified when the connection has let the session go.
    pub released: Notify,
}

/// Why a connection has to let its session go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kick {
    /// Another connection takes the session over.
    TakenOver = 1,
    /// An administrator ends the connection.
    Administrative = 2,
}

impl Cell {
    /// The session, for a short while.
    pub fn session(&self) -> MutexGuard<'_, Session> {
        lock(&self.session)
    }

    /// Whether it holds nothing that these rights do not allow, because it was held against the
    /// same before.
    pub fn is_held_to(&self, rights: &Rights) -> bool {
        lock(&self.held_to).as_deref() == Some(rights)
    }

    /// Note that it holds nothing that these rights do not allow.
    pub fn hold_to(&self, rights: Arc<Rights>) {
        *lock(&self.held_to) = Some(rights);
    }

    /// Whether the connection has to be told that there is something to send, which whoever asks
    /// does with [`end_wake`](Self::end_wake), soon. Otherwise somebody else does.
    fn begin_wake(&self) -> bool {
        !self.woken.swap(true, Ordering::AcqRel)
    }

    /// Tell the connection that there is something to send.
    fn end_wake(&self) {
        self.bell.ring();
    }

    /// For the connection, to hear when there may be something to send, or it may have to let go.
    pub fn listen(&self) -> Listener<'_> {
        self.bell.listen()
    }

    /// What is queued from now on wakes again. To be called before the queue is looked at.
    pub fn rearm(&self) {
        self.woken.store(false, Ordering::Release);
    }

    /// Note that another connection has the session now, which is locked meanwhile. A kick that
    /// was for an earlier one is forgotten.
    pub fn connected(&self, _locked: &MutexGuard<'_, Session>, client: &Client) {
        *lock(&self.client) = client.clone();
        self.kick.store(0, Ordering::Release);
    }

    /// Whose connection has the session, or had it last.
    pub fn client(&self) -> MutexGuard<'_, Client> {
        lock(&self.client)
    }

    /// Tell the connection to let go. Whether there is one: under the session's lock, so that a
    /// kick reaches the connection that has the session now, and no other.
    pub fn kick(&self, why: Kick) -> bool {
        let session = self.session();
        if !session.is_connected() {
            return false;
        }
        let _ = self
            .kick
            .compare_exchange(0, why as u8, Ordering::AcqRel, Ordering::Acquire);
        drop(session);
        self.bell.ring();
        true
    }

    /// Why the connection has to let go, if it has. One atomic read.
    pub fn kicked(&self) -> Option<Kick> {
        let code = self.kick.load(Ordering::Acquire);
        [Kick::TakenOver, Kick::Administrative]
            .into_iter()
            .find(|kick| *kick as u8 == code)
    }

    /// Wait until the connection that was told to let go has done so.
    pub async fn until_let_go(&self) {
        loop {
            let released = self.released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            if !self.session().is_connected() || self.kicked().is_none() {
                return;
            }
            released.await;
        }
    }
}

/// A shard.
#[derive(Debug)]
pub struct Shard {
    index: usize,
    bus: Bus,
    tally: Arc<Tally>,
    /// The broker's: messages that are passed on.
    tasks: TaskTracker,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    ids: HashMap<TopicFilter, FilterId>,
    subscribers: ById<FilterId, Subscribers>,
    /// Members of shared groups.
    members: ById<SessionKey, Member>,
}

/// The sessions that have one filter.
#[derive(Debug, Default)]
struct Subscribers {
    cells: ById<SessionKey, Arc<Cell>>,
    /// What the bus has been told.
    crowd: Crowd,
}

#[derive(Debug)]
struct Member {
    cell: Arc<Cell>,
    groups: usize,
}

impl Shard {
    /// A shard without sessions.
    pub fn new(index: usize, bus: Bus, tally: Arc<Tally>, tasks: TaskTracker) -> Self {
        Self {
            index,
            bus,
            tally,
            tasks,
            table: Mutex::default(),
        }
    }

    /// A cell for a session of this shard.
    pub fn cell(&self, session: Session, owner: Owner, client: Client) -> Arc<Cell> {
        Arc::new(Cell {
            key: session.key(),
            shard: self.index,
            client_id: session.client_id().clone(),
            owner,
            client: Mutex::new(client),
            session: Mutex::new(session),
            held_to: Mutex::new(None),
            woken: AtomicBool::new(false),
            bell: Bell::default(),
            kick: AtomicU8::new(0),
            released: Notify::new(),
        })
    }

    /// Subscribe a session that has not got this subscription yet.
    ///
    /// # Errors
    /// As [`Bus::subscribe`].
    pub fn subscribe(
        &self,
        cell: &Arc<Cell>,
        wanted: &Subscription,
        presence: Presence,
    ) -> Result<Place, BusError> {
        let mut table = lock(&self.table);
        match wanted {
            Subscription::Plain(filter) => {
                let id = match table.ids.get(filter) {
                    Some(&id) => id,
                    None => {
                        let id = self.bus.subscribe(self.index, filter)?;
                        table.ids.insert(filter.clone(), id);
                        id
                    }
                };
                let subscribers = table.subscribers.entry(id).or_default();
                if subscribers.cells.insert(cell.key, cell.clone()).is_none() {
                    self.tally.subscriptions.rise();
                }
                if let Some(crowd) = subscribers.change() {
                    self.bus.note_crowd(self.index, id, crowd);
                }
                Ok(Place::Filter(id))
            }
            Subscription::Shared(group) => {
                let share = self.bus.share_join(self.index, group, cell.key, presence)?;
                let member = table.members.entry(cell.key).or_insert_with(|| Member {
                    cell: cell.clone(),
                    groups: 0,
                });
                member.groups += 1;
                self.tally.shared_subscriptions.rise();
                Ok(Place::Share(share))
            }
        }
    }

    /// End a subscription of a session.
    pub fn unsubscribe(&self, key: SessionKey, had: &Subscription, place: Place) {
        let mut table = lock(&self.table);
        match place {
            Place::Filter(id) => {
                let Some(subscribers) = table.subscribers.get_mut(&id) else {
                    return;
                };
                if subscribers.cells.remove(&key).is_some() {
                    self.tally.subscriptions.fall();
                }
                if let Some(crowd) = subscribers.change() {
                    self.bus.note_crowd(self.index, id, crowd);
                }
                if subscribers.cells.is_empty() {
                    table.subscribers.remove(&id);
                    table.ids.remove(had.filter());
                    self.bus.unsubscribe(self.index, id);
                }
            }
            Place::Share(share) => {
                self.bus.share_leave(share, key);
                if let Some(member) = table.members.get_mut(&key) {
                    member.groups -= 1;
                    self.tally.shared_subscriptions.fall();
                    if member.groups == 0 {
                        table.members.remove(&key);
                    }
                }
            }
        }
    }

    /// Note that a session got or lost its connection.
    pub fn presence(&self, key: SessionKey, shares: &[ShareId], presence: Presence) {
        for &share in shares {
            self.bus.share_presence(share, key, presence);
        }
    }

    /// Give a delivery of the bus to the sessions it is for, at this time of the broker's clock.
    pub fn deliver(self: &Arc<Self>, delivery: &Delivery, now: u64, wakes: &mut Wakes) {
        match Frame::parse(delivery.frame.clone()) {
            Some(frame) => self.give_to(&frame, delivery.filters(), delivery.shared(), now, wakes),
            None => {
                tracing::error!(shard = self.index, "the bus delivered what is no frame");
            }
        }
    }

    /// Give a message to the sessions that have these filters, and to these members of shared
    /// groups, at this time of the broker's clock.
    pub fn give_to(
        self: &Arc<Self>,
        frame: &Frame,
        mut filters: impl Iterator<Item = FilterId>,
        shared: impl Iterator<Item = (SessionKey, ShareId)>,
        now: u64,
        wakes: &mut Wakes,
    ) {
        let table = lock(&self.table);
        match (filters.next(), filters.next()) {
            (None, _) => {}
            (Some(id), None) => {
                for cell in table.subscribers_of(id) {
                    self.give(cell, frame, [Place::Filter(id)], now, wakes);
                }
            }
            (Some(first), Some(second)) => {
                let mut wanted: ById<SessionKey, (&Arc<Cell>, Vec<Place>)> = ById::default();
                for id in [first, second].into_iter().chain(filters) {
                    for cell in table.subscribers_of(id) {
                        let (_, places) = wanted.entry(cell.key).or_insert((cell, Vec::new()));
                        places.push(Place::Filter(id));
                    }
                }
                for (cell, places) in wanted.into_values() {
                    self.give(cell, frame, places, now, wakes);
                }
            }
        }
        for (key, share) in shared {
            match table.members.get(&key) {
                Some(member) => self.give(&member.cell, frame, [Place::Share(share)], now, wakes),
                None => self.pass_on(share, frame),
            }
        }
    }

    fn give(
        &self,
        cell: &Arc<Cell>,
        frame: &Frame,
        places: impl IntoIterator<Item = Place>,
        now: u64,
        wakes: &mut Wakes,
    ) {
        let taken = cell.session().deliver(frame, places, now);
        if taken.dropped != Dropped::default() {
            metrics::dropped_from_queue(&taken.dropped);
            self.tally.messages_dropped.add(taken.dropped.for_room());
        }
        wakes.given();
        if taken.queued {
            wakes.add(cell);
        }
    }

    /// The chosen member of a group has gone: another one gets the message.
    fn pass_on(self: &Arc<Self>, share: ShareId, frame: &Frame) {
        let (shard, octets) = (self.clone(), frame.octets().clone());
        self.tasks.spawn(async move {
            let again = shard.bus.publish_to_share(shard.index, share, octets).await;
            if let Err(error) = again {
                tracing::error!(%error, "a message of a shared group found no member");
            }
        });
    }
}

impl Table {
    fn subscribers_of(&self, id: FilterId) -> impl Iterator<Item = &Arc<Cell>> {
        let subscribers = self.subscribers.get(&id).into_iter();
        subscribers.flat_map(|subscribers| subscribers.cells.values())
    }
}

impl Subscribers {
    /// What they are now, if they were not before. What comes and goes at the border changes
    /// nothing.
    fn change(&mut self) -> Option<Crowd> {
        let crowd = crowd_after(self.crowd, self.cells.len());
        let before = std::mem::replace(&mut self.crowd, crowd);
        (crowd != before).then_some(crowd)
    }
}

fn crowd_after(before: Crowd, count: usize) -> Crowd {
    match before {
        Crowd::Small if count > CROWD => Crowd::Large,
        Crowd::Large if count <= CROWD / 2 => Crowd::Small,
        _ => before,
    }
}

/// More sessions of a filter than this are not served by the publisher itself.
const CROWD: usize = 64;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_that_shrinks_a_little_is_still_one() {
        let (mut crowd, mut changes) = (Crowd::Small, Vec::new());
        for count in (0..=CROWD + 9).chain((0..CROWD).rev()).chain(0..=CROWD) {
            let after = crowd_after(crowd, count);
            if after != crowd {
                changes.push(count);
            }
            crowd = after;
        }
        assert_eq!(changes, [CROWD + 1, CROWD / 2]);
    }
}
