//! How much may wait for a client, and what makes room when no more may.
//!
//! What is of no use goes first: what is too old, and what has expired. Then the policy decides.
//! Messages on the way to the client, sent and not acknowledged, count for the octets, and never
//! make room: the client may have them already.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Session;
use super::message::{Message, SharedBudget};
use super::outbound::Outbound;
use crate::mqtt::settings::{Limits, Overflow};

/// What became of a message, and of those that had to make room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Taken {
    /// Whether the message waits to be sent.
    pub queued: bool,
    /// What was dropped.
    pub dropped: Dropped,
}

/// Messages that were dropped, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dropped {
    /// The session may have no more.
    pub queue_full: usize,
    /// All sessions together may have no more.
    pub all_queues_full: usize,
    /// They expired while they waited.
    pub expired: usize,
    /// They waited longer than messages may.
    pub too_old: usize,
}

impl Dropped {
    /// How many there are.
    pub fn total(&self) -> usize {
        self.queue_full + self.all_queues_full + self.expired + self.too_old
    }

    /// How many somebody might still have wanted.
    pub fn for_room(&self) -> usize {
        self.queue_full + self.all_queues_full
    }
}

/// The room for one session's messages. What it uses of the budget of all is given back with it.
#[derive(Debug)]
pub(super) struct Room {
    overflow: Overflow,
    max_messages: usize,
    max_bytes: usize,
    /// Milliseconds.
    max_age: Option<i64>,
    /// Octets of the queue and of what is on the way.
    bytes: usize,
    /// Octets of the queue.
    queue_bytes: usize,
    budget: Arc<SharedBudget>,
    /// No message of the queue expires before.
    expires_from: u64,
    /// The number of the queue's first message; those that follow have the numbers that follow.
    pub(super) first: u64,
}

/// What stands against one message more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Full {
    Queue,
    AllQueues,
}

impl Session {
    /// Queue a message for the client, now being when it was queued.
    pub fn enqueue(&mut self, message: Message) -> Taken {
        self.outbound.enqueue(message)
    }

    /// Drop messages of the queue's front that the client may not read: of the first `unchecked`
    /// the last `most`, so that those that make room meanwhile were not checked yet. Gives how
    /// many are left to check, and how many were dropped.
    ///
    /// What was sent before and is not acknowledged stays: the client has been given it.
    pub fn sift(
        &mut self,
        unchecked: usize,
        most: usize,
        may_read: impl Fn(&str) -> bool,
    ) -> (usize, usize) {
        self.outbound.sift(unchecked, most, may_read)
    }

    /// Drop what waits and is of no use any more.
    pub fn drop_useless(&mut self, now: u64) -> Dropped {
        let mut dropped = Dropped::default();
        self.outbound.drop_useless(now, &mut dropped);
        dropped
    }
}

impl Room {
    pub(super) fn new(limits: &Limits, overflow: Overflow, budget: Arc<SharedBudget>) -> Self {
        Self {
            overflow,
            max_messages: limits.queue_messages,
            max_bytes: limits.queue_bytes,
            max_age: limits
                .queue_age
                .map(|age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX)),
            bytes: 0,
            queue_bytes: 0,
            budget,
            expires_from: u64::MAX,
            first: 0,
        }
    }

    /// Whether the message has waited longer than messages may.
    pub(super) fn is_too_old(&self, message: &Message, now: u64) -> bool {
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        self.max_age
            .is_some_and(|most| now.saturating_sub(message.queued_at) > most)
    }

    /// A message that was in the queue or on the way is gone.
    pub(super) fn free(&mut self, size: usize) {
        self.bytes = self.bytes.saturating_sub(size);
        self.budget.used.fetch_sub(size, Ordering::Relaxed);
    }

    pub(super) fn take(&mut self, size: usize) {
        self.bytes += size;
        self.budget.used.fetch_add(size, Ordering::Relaxed);
    }

    /// Whether there is more on the way than may be. A session with nothing on the way makes no room
    /// for those with too much.
    pub(super) fn is_over_limit(&self) -> bool {
        let on_the_way = self.bytes.saturating_sub(self.queue_bytes);
        on_the_way > 0 && (self.bytes > self.max_bytes || self.budget.used() > self.budget.max)
    }

    /// Why there is no room for so many octets more, if there is none.
    fn full(&self, messages: usize, size: usize) -> Option<Full> {
        if messages >= self.max_messages || self.bytes + size > self.max_bytes {
            Some(Full::Queue)
        } else if self.budget.used().saturating_add(size) > self.budget.max {
            Some(Full::AllQueues)
        } else {
            None
        }
    }

    /// Whether there would be room if the queue were empty.
    fn could_have(&self, size: usize) -> bool {
        let left = self.bytes - self.queue_bytes;
        let used = self.budget.used().saturating_sub(self.queue_bytes);
        self.max_messages > 0
            && left.saturating_add(size) <= self.max_bytes
            && used.saturating_add(size) <= self.budget.max
    }
}

impl Outbound {
    fn enqueue(&mut self, message: Message) -> Taken {
        let now = u64::try_from(message.queued_at).unwrap_or(0);
        self.enqueue_at(message, now)
    }

    pub(super) fn enqueue_at(&mut self, message: Message, now: u64) -> Taken {
        if self.room.full(self.queue.len(), message.size()).is_some() {
            return self.enqueue_into_full(message, now);
        }
        self.push(message);
        Taken {
            queued: true,
            dropped: Dropped::default(),
        }
    }

    fn enqueue_into_full(&mut self, message: Message, now: u64) -> Taken {
        let size = message.size();
        let mut taken = Taken::default();
        self.drop_useless(now, &mut taken.dropped);
        while let Some(full) = self.room.full(self.queue.len(), size) {
            // A message that never fits drives no other out.
            let oldest = match self.room.overflow {
                Overflow::DropOldest if self.room.could_have(size) => self.pop(),
                Overflow::DropNewest | Overflow::DropOldest => None,
            };
            match full {
                Full::Queue => taken.dropped.queue_full += 1,
                Full::AllQueues => taken.dropped.all_queues_full += 1,
            }
            match oldest {
                None => return taken,
                Some(oldest) => self.room.free(oldest.size()),
            }
        }
        self.push(message);
        taken.queued = true;
        taken
    }

    /// Put a message at the end of the queue, whether or not there is room.
    pub(super) fn push(&mut self, message: Message) {
        let size = message.size();
        self.room.take(size);
        self.room.queue_bytes += size;
        if let Some(at) = message.frame.expires_at() {
            self.room.expires_from = self.room.expires_from.min(at);
        }
        self.queue.push_back(message);
    }

    /// Take the first message out of the queue. Its octets go on counting until
    /// [`free`](Room::free).
    pub(super) fn pop(&mut self) -> Option<Message> {
        let message = self.queue.pop_front()?;
        if self.queue.is_empty() {
            // What comes next goes to the beginning again: a queue that is emptied again and again
            // uses the little memory that is at hand, not all that it once needed.
            self.queue.clear();
        }
        self.room.first += 1;
        self.room.queue_bytes = self.room.queue_bytes.saturating_sub(message.size());
        Some(message)
    }

    /// Drop what is too old or has expired.
    fn drop_useless(&mut self, now: u64, dropped: &mut Dropped) {
        // The queue is in the order of age.
        while self
            .queue
            .front()
            .is_some_and(|oldest| self.room.is_too_old(oldest, now))
        {
            if let Some(oldest) = self.pop() {
                self.room.free(oldest.size());
                dropped.too_old += 1;
            }
        }
        if self.room.expires_from <= now {
            dropped.expired += self.drop_from_queue(|message| message.has_expired(now));
            let expiries = self.queue.iter().filter_map(|m| m.frame.expires_at());
            self.room.expires_from = expiries.min().unwrap_or(u64::MAX);
        }
    }

    fn sift(
        &mut self,
        unchecked: usize,
        most: usize,
        may_read: impl Fn(&str) -> bool,
    ) -> (usize, usize) {
        let unchecked = unchecked.min(self.queue.len());
        let left = unchecked.saturating_sub(most);
        let mut checked = self.queue.range(left..unchecked);
        if checked.all(|message| may_read(message.frame.topic())) {
            return (left, 0);
        }
        let mut place = 0;
        let dropped = self.drop_from_queue(|message| {
            let checked = (left..unchecked).contains(&place);
            place += 1;
            checked && !may_read(message.frame.topic())
        });
        (left, dropped)
    }

    /// Drop the messages of the queue for which this holds; how many those are.
    pub(super) fn drop_from_queue(&mut self, mut useless: impl FnMut(&Message) -> bool) -> usize {
        let before = self.queue.len();
        let mut freed = 0;
        self.queue.retain(|message| {
            let drop = useless(message);
            if drop {
                freed += message.size();
            }
            !drop
        });
        self.room.queue_bytes = self.room.queue_bytes.saturating_sub(freed);
        self.room.free(freed);
        let dropped = before - self.queue.len();
        if dropped > 0 {
            // Those that follow have other numbers now.
            self.outdate();
        }
        dropped
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
