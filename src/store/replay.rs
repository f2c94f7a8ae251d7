//! The nonces that were used, kept so that a request cannot be repeated after a restart.
//!
//! They are no records of the registry: they come with every call and are worthless half an hour
//! later. So they have a file of their own, and it may fail without taking the registry along.
//! What is in it when it cannot be read is given up, and [`Loaded::forgotten`] says so.

mod file;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use tokio::sync::{Semaphore, oneshot};

use self::writer::{Request, Writer};
pub use super::Durable;
use super::sqlite::Worker;
use super::{PATIENCE, StoreError};
use crate::ca::id::AccessKeyId;

/// A used nonce as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NonceRecord {
    /// The access key that signed with it.
    pub key: AccessKeyId,
    /// What tells it apart from others of the key.
    pub hash: u128,
    /// The last minute, since 1970, in which it must be there.
    pub minute: i64,
}

/// What was kept before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    /// All that is there, expired ones too.
    pub nonces: Vec<NonceRecord>,
    /// What had to be there until a minute before this one may be missing.
    pub forgotten: i64,
}

/// What it means that the file is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// It was lost.
    Lost,
    /// There was none yet.
    New,
}

/// The used nonces in a file of their own, and the thread that writes it. Those that wait together
/// share one flush. Dropping it finishes what waits, if the disk lets it.
pub struct ReplayStore {
    writer: Worker<Request>,
    health: Arc<Health>,
    /// One for each nonce that waits for the disk.
    slots: Arc<Semaphore>,
    /// What had to be kept until a minute before this one may be missing: there was no room for it.
    turned_away: AtomicI64,
}

/// How many nonces may wait for a disk that fails or hangs, each with about 150 octets.
const MOST_WAITING: usize = if cfg!(test) { 300 } else { 250_000 };

impl ReplayStore {
    /// Open the file at `path`, or create it with mode 0600, and read what is in it. A file that
    /// cannot be read is moved aside, to the same name with `.damaged` after it, and a new one is
    /// begun.
    ///
    /// `lost_before` is what [`Loaded::forgotten`] is when the file was lost; `None` if the clock
    /// does not tell. The caller holds the lock of the data directory
    /// ([`SqliteStore`](super::sqlite::SqliteStore)).
    ///
    /// # Errors
    /// [`StoreError::Unusable`] if another program uses the file, if others may read it, or if it
    /// can be neither opened nor moved aside.
    pub fn open(
        path: &Path,
        missing: Missing,
        lost_before: Option<i64>,
    ) -> Result<(Self, Loaded), StoreError> {
        let (connection, loaded) = file::open(path, missing, lost_before)?;
        let health = Arc::new(Health::default());
        let writer = Writer::new(path, connection, loaded.forgotten, Arc::clone(&health))?;
        let writer = Worker::start("replay-writer", move |requests| writer.run(&requests))?;
        let store = Self {
            writer,
            health,
            slots: Arc::new(Semaphore::new(MOST_WAITING)),
            turned_away: AtomicI64::new(i64::MIN),
        };
        Ok((store, loaded))
    }

    /// Keep the nonce, and drop those whose last minute is before `forgotten`. It is tried until
    /// it is done, also if the future is dropped once it was polled; but if too many wait already,
    /// this one is given up, and the file will say that those of its time may be missing.
    pub async fn keep(&self, nonce: NonceRecord, forgotten: i64) -> Durable {
        let waits = !self.health.is_failing();
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            let after = nonce.minute.saturating_add(1);
            self.turned_away.fetch_max(after, Ordering::AcqRel);
            self.health.failed(&"too many wait for the disk");
            return Durable::NotYet;
        };
        let (answer, answered) = oneshot::channel();
        let request = Request::Keep {
            nonce,
            forgotten: forgotten.max(self.turned_away.load(Ordering::Acquire)),
            answer,
            slot,
        };
        if self.writer.ask(request).is_err() {
            self.health.failed(&StoreError::Closed);
            return Durable::NotYet;
        }
        if !waits {
            return Durable::NotYet;
        }
        match tokio::time::timeout(PATIENCE, answered).await {
            Ok(answer) => answer.unwrap_or(Durable::NotYet),
            Err(_) => {
                self.health.failed(&"the disk does not answer");
                Durable::NotYet
            }
        }
    }

    /// Whether something waits for a disk that fails.
    pub fn is_failing(&self) -> bool {
        self.health.is_failing()
    }
}

/// Whether the disk takes what it is given. Each change is logged once.
#[derive(Debug, Default)]
struct Health(AtomicBool);

impl Health {
    fn is_failing(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn failed(&self, why: &dyn std::fmt::Display) {
        if !self.0.swap(true, Ordering::AcqRel) {
            tracing::error!(
                reason = %why,
                "used nonces cannot be written to disk; until they can, calls of the admin API may only read and deny"
            );
        }
    }

    fn healed(&self) {
        if self.0.swap(false, Ordering::AcqRel) {
            tracing::info!("used nonces are on disk again");
        }
    }
}
