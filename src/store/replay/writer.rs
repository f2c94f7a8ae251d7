//! The thread that writes. Nonces that wait together go into one transaction, and are answered
//! after its flush.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{Durable, Health, NonceRecord};
use crate::store::StoreError;
use crate::store::files::FileIdentity;

/// How often it is tried again while the disk fails.
const RETRY: Duration = Duration::from_secs(1);

/// How many nonces share a transaction at most.
const MAX_GROUP: usize = 1024;

/// What the writer is asked for.
pub(super) enum Request {
    Keep {
        nonce: NonceRecord,
        forgotten: i64,
        answer: oneshot::Sender<Durable>,
        /// What it takes of the room for those that wait.
        slot: OwnedSemaphorePermit,
    },
    /// Lets a test reach the connection.
    #[cfg(test)]
    With(Box<dyn FnOnce(&Connection) + Send>),
}

/// The thread's state.
pub(super) struct Writer {
    path: PathBuf,
    identity: FileIdentity,
    connection: Connection,
    /// What had to be kept until a minute before this one need not be.
    forgotten: i64,
    /// The same, as the file says.
    written: i64,
    /// What is not in the file yet. Each has a slot, and of these there are only so many.
    owed: VecDeque<Owed>,
    failed_at: Option<Instant>,
    health: Arc<Health>,
}

struct Owed {
    nonce: NonceRecord,
    /// Whoever waits for it.
    answer: Option<oneshot::Sender<Durable>>,
    _slot: OwnedSemaphorePermit,
}

impl Writer {
    pub(super) fn new(
        path: &Path,
        connection: Connection,
        forgotten: i64,
        health: Arc<Health>,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            path: path.to_owned(),
            identity: FileIdentity::of(path).map_err(|error| lost(path, &error))?,
            connection,
            forgotten,
            written: forgotten,
            owed: VecDeque::new(),
            failed_at: None,
            health,
        })
    }

    /// Serve until nobody can ask any more.
    pub(super) fn run(mut self, requests: &Receiver<Request>) {
        loop {
            match requests.recv_timeout(RETRY) {
                Ok(first) => {
                    let waiting = requests.try_iter().take(MAX_GROUP - 1);
                    for request in std::iter::once(first).chain(waiting) {
                        self.take(request);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.write();
                    return;
                }
            }
            if self.failed_at.is_none_or(|at| at.elapsed() >= RETRY) {
                self.write();
            }
        }
    }

    fn take(&mut self, request: Request) {
        match request {
            Request::Keep {
                nonce,
                forgotten,
                answer,
                slot,
            } => {
                self.forgotten = self.forgotten.max(forgotten);
                self.owed.push_back(Owed {
                    nonce,
                    answer: Some(answer),
                    _slot: slot,
                });
            }
            #[cfg(test)]
            Request::With(act) => act(&self.connection),
        }
    }

    /// Write what is owed. If it fails, those who wait are told, and the rest stays owed.
    fn write(&mut self) {
        while !self.owed.is_empty() {
            let group = self.owed.len().min(MAX_GROUP);
            if let Err(error) = self.transaction(group) {
                self.roll_back();
                self.health.failed(&error);
                self.failed_at = Some(Instant::now());
                for owed in &mut self.owed {
                    answer(owed.answer.take(), Durable::NotYet);
                }
                // Memory has forgotten these, and the file need not have them any more.
                let forgotten = self.forgotten;
                self.owed.retain(|owed| owed.nonce.minute >= forgotten);
                return;
            }
            self.written = self.forgotten;
            for owed in self.owed.drain(..group) {
                answer(owed.answer, Durable::Yes);
            }
        }
        self.failed_at = None;
        // Also if it was a caller that lost patience.
        self.health.healed();
    }

    fn transaction(&self, group: usize) -> Result<(), StoreError> {
        self.check_file()?;
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        if self.written < self.forgotten {
            self.connection
                .prepare_cached("DELETE FROM nonce WHERE minute < $1")?
                .execute([self.forgotten])?;
            self.connection
                .prepare_cached("UPDATE forgotten SET before_minute = $1")?
                .execute([self.forgotten])?;
        }
        // A transaction that failed may be there all the same.
        let mut insert = self
            .connection
            .prepare_cached("INSERT OR IGNORE INTO nonce VALUES ($1, $2, $3)")?;
        for Owed { nonce, .. } in self.owed.iter().take(group) {
            if nonce.minute >= self.forgotten {
                insert.execute((nonce.minute, nonce.key.as_str(), nonce.hash.to_be_bytes()))?;
            }
        }
        self.connection.execute_batch("COMMIT")?;
        Ok(())
    }

    fn roll_back(&self) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "a failed transaction could not be rolled back");
        }
    }

    /// What is written to a file that was moved away would be lost at the next start.
    fn check_file(&self) -> Result<(), StoreError> {
        match FileIdentity::of(&self.path) {
            Ok(identity) if identity == self.identity => Ok(()),
            Ok(_) => Err(StoreError::Unusable {
                what: format!(
                    "{} was replaced while the broker runs: put it back, or restart the broker",
                    self.path.display()
                ),
            }),
            Err(error) => Err(lost(&self.path, &error)),
        }
    }
}

/// An answer nobody waits for any more is no fault.
fn answer(to: Option<oneshot::Sender<Durable>>, with: Durable) {
    if let Some(to) = to {
        let _ = to.send(with);
    }
}

fn lost(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Unusable {
        what: format!("{} cannot be looked at: {error}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;
    use crate::store::replay::{Missing, file};

    #[test]
    fn what_waits_for_a_failing_disk_is_let_go_when_its_minute_has_passed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("replay.db");
        let (connection, loaded) = file::open(&path, Missing::New, Some(0)).unwrap();
        let health = Arc::new(Health::default());
        let mut writer = Writer::new(&path, connection, loaded.forgotten, health).unwrap();
        let aside = directory.path().join("moved.db");
        let slots = Arc::new(Semaphore::new(100));
        std::fs::rename(&path, &aside).unwrap();
        for minute in 1..=100 {
            let (answer, _) = oneshot::channel();
            writer.take(Request::Keep {
                nonce: NonceRecord {
                    key: "k".parse().unwrap(),
                    hash: 7,
                    minute: minute + 30,
                },
                forgotten: minute,
                answer,
                slot: Arc::clone(&slots).try_acquire_owned().unwrap(),
            });
            writer.write();
        }
        assert_eq!(writer.owed.len(), 31, "those that are good from minute 100");
        std::fs::rename(&aside, &path).unwrap();
        writer.write();
        assert!(writer.owed.is_empty());
        assert_eq!(slots.available_permits(), 100);
        drop(writer);
        let (_, loaded) = file::open(&path, Missing::Lost, Some(0)).unwrap();
        assert_eq!((loaded.nonces.len(), loaded.forgotten), (31, 100));
    }
}
