//! What a broker has counted since it started, for the figures. The metrics count the same for all
//! instances of the process together; these are one instance's.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that any thread may change.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

/// What is counted.
#[derive(Debug, Default)]
pub struct Tally {
    /// Octets of MQTT that came from clients.
    pub octets_received: Count,
    /// Octets of MQTT that were sent to clients.
    pub octets_sent: Count,
    /// Packets of any type that came.
    pub packets_received: Count,
    /// Packets of any type that were sent.
    pub packets_sent: Count,
    /// Messages that clients published and the bus took.
    pub messages_received: Count,
    /// Messages that were sent to clients.
    pub messages_sent: Count,
    /// Messages that did not fit into a session's queue.
    pub messages_dropped: Count,
    /// Octets of the payloads of what is counted in `messages_received`.
    pub payload_received: Count,
    /// Octets of the payloads of what is counted in `messages_sent`.
    pub payload_sent: Count,
    /// Handshakes that let a client in.
    pub handshakes_accepted: Count,
    /// Handshakes that failed, for whatever reason.
    pub handshakes_refused: Count,
    /// Clients that got a session.
    pub connects_accepted: Count,
    /// Clients that were refused one; not those that went away by themselves.
    pub connects_refused: Count,
    /// Sessions that expired while their client was away.
    pub sessions_expired: Count,
    /// Events that administrators were not told one by one.
    pub events_left_out: Count,
    /// Clients that are connected now.
    pub connected: Level,
    /// Subscriptions of all sessions now, without shared ones.
    pub subscriptions: Level,
    /// Shared subscriptions of all sessions now.
    pub shared_subscriptions: Level,
}

/// A number that goes up and down, and the highest it has been.
#[derive(Debug, Default)]
pub struct Level {
    now: AtomicU64,
    highest: AtomicU64,
}

/// A client that is connected, counted while this lives.
#[derive(Debug)]
pub struct Counted<'a>(&'a Level);

impl Count {
    /// So many more.
    pub fn add(&self, more: usize) {
        self.0.fetch_add(more as u64, Ordering::Relaxed);
    }

    /// How many there have been.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Level {
    /// One more.
    pub fn rise(&self) {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.highest.fetch_max(now, Ordering::Relaxed);
    }

    /// One less.
    pub fn fall(&self) {
        self.now.fetch_sub(1, Ordering::Relaxed);
    }

    /// One more, until what is given back is dropped.
    pub fn hold(&self) -> Counted<'_> {
        self.rise();
        Counted(self)
    }

    /// How many there are.
    pub fn get(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// The most there have been at a time.
    pub fn highest(&self) -> u64 {
        self.highest.load(Ordering::Relaxed)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fall();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_remembers_its_highest() {
        let level = Level::default();
        let first = level.hold();
        let second = level.hold();
        drop(first);
        level.rise();
        drop(second);
        assert_eq!((level.get(), level.highest()), (1, 2));
        level.fall();
        assert_eq!((level.get(), level.highest()), (0, 2));
    }
}
