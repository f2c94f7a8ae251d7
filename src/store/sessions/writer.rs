//! The thread that writes. Requests that wait together go into one transaction; whoever waits is
//! answered after its flush.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{Notify, mpsc, oneshot};

use super::record::{Row, Write};
use super::rows;
use crate::store::files::FileIdentity;
use crate::store::{Durable, StoreError};

/// How often it is tried again while the disk fails.
const RETRY: Duration = Duration::from_secs(1);

/// How much is put into one transaction: octets, and requests.
const GROUP_BYTES: usize = 4 << 20;
const GROUP_REQUESTS: usize = 8 << 10;

/// How much of what forgotten sessions left is removed in one transaction: rows of each table, and
/// sessions.
const PURGE_ROWS: usize = 2_000;
const PURGE_SESSIONS: usize = 200;

/// Rows that are given at a time when everything is read.
const BATCH: usize = 1_024;

/// What the writer is asked for.
pub(super) enum Request {
    Load(
        mpsc::Sender<Vec<Row>>,
        oneshot::Sender<Result<(), StoreError>>,
    ),
    /// With its size.
    Write(Write, usize),
    Forget(u64, oneshot::Sender<Durable>),
    Flush(oneshot::Sender<Result<(), StoreError>>),
    Close(oneshot::Sender<()>),
    /// Lets a test reach the connection.
    #[cfg(test)]
    With(Box<dyn FnOnce(&Connection) + Send>),
}

/// What the thread and whoever asks it share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Octets that wait to be written.
    pub(super) backlog: AtomicUsize,
    /// Notified when it has become less.
    pub(super) drained: Notify,
    pub(super) failures: AtomicU64,
    pub(super) failing: AtomicBool,
    pub(super) abandoned: AtomicBool,
}

/// The thread's state.
pub(super) struct Writer {
    path: PathBuf,
    identity: FileIdentity,
    connection: Connection,
    shared: Arc<Shared>,
    /// Sessions that must not be there any more and may be. They are bounded by the sessions that
    /// were kept.
    owed: VecDeque<(u64, Option<oneshot::Sender<Durable>>)>,
    /// Forgotten sessions whose other rows are still there.
    leftovers: VecDeque<u64>,
    /// Whoever waits until the file is closed.
    closing: Option<oneshot::Sender<()>>,
}

impl Writer {
    pub(super) fn new(
        path: &Path,
        connection: Connection,
        shared: Arc<Shared>,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            path: path.to_owned(),
            identity: FileIdentity::of(path).map_err(|error| lost(path, &error))?,
            connection,
            shared,
            owed: VecDeque::new(),
            leftovers: VecDeque::new(),
            closing: None,
        })
    }

    /// Serve until nobody can ask any more, or it is to be closed.
    pub(super) fn run(mut self, requests: &Receiver<Request>) {
        while self.closing.is_none() {
            let idle = match self.leftovers.is_empty() || self.is_failing() {
                true => RETRY,
                false => Duration::ZERO,
            };
            match requests.recv_timeout(idle) {
                Ok(first) => self.serve(first, requests),
                Err(RecvTimeoutError::Timeout) => self.group(Vec::new()),
                Err(RecvTimeoutError::Disconnected) => {
                    self.group(Vec::new());
                    return;
                }
            }
        }
        drop(self.connection);
        if let Some(closed) = self.closing {
            let _ = closed.send(());
        }
    }

    /// Take what waits, up to one transaction.
    fn serve(&mut self, first: Request, requests: &Receiver<Request>) {
        let mut writes = Vec::new();
        let mut flushes = Vec::new();
        let (mut count, mut bytes) = (0, 0);
        let mut next = Some(first);
        while let Some(request) = next {
            count += 1;
            match request {
                Request::Write(write, size) => {
                    bytes += size;
                    writes.push(Step::Write(write));
                }
                Request::Forget(session, answer) => {
                    writes.push(Step::Forget(session, Some(answer)));
                }
                Request::Flush(answer) => flushes.push(answer),
                Request::Close(answer) => self.closing = Some(answer),
                Request::Load(to, answer) => {
                    let _ = answer.send(self.load(&to));
                }
                #[cfg(test)]
                Request::With(act) => act(&self.connection),
            }
            let full = bytes >= GROUP_BYTES || count >= GROUP_REQUESTS;
            next = match full || !flushes.is_empty() || self.closing.is_some() {
                true => None,
                false => requests.try_recv().ok(),
            };
        }
        let failures = self.shared.failures.load(Ordering::Acquire);
        self.group(writes);
        self.shared.backlog.fetch_sub(bytes, Ordering::AcqRel);
        self.shared.drained.notify_waiters();
        let failed = self.shared.failures.load(Ordering::Acquire) != failures;
        for answer in flushes {
            let _ = answer.send(match failed || self.is_failing() {
                true => Err(StoreError::Unusable {
                    what: format!("{} cannot be written", self.path.display()),
                }),
                false => Ok(()),
            });
        }
    }

    fn load(&mut self, to: &mpsc::Sender<Vec<Row>>) -> Result<(), StoreError> {
        let mut batch = Vec::with_capacity(BATCH);
        let mut sessions = HashSet::new();
        let mut leftovers = BTreeSet::new();
        rows::read(&self.connection, &mut |row| {
            match (&row, row.session()) {
                (Row::Session(session), _) => {
                    sessions.insert(session.key);
                }
                (_, Some(session)) if !sessions.contains(&session) => {
                    leftovers.insert(session);
                }
                _ => {}
            }
            batch.push(row);
            if batch.len() == BATCH {
                // Nobody takes it any more if the start was given up.
                let _ = to.blocking_send(std::mem::take(&mut batch));
            }
        })?;
        let _ = to.blocking_send(batch);
        self.leftovers.extend(leftovers);
        Ok(())
    }

    /// Carry these out in one transaction, after what is owed.
    fn group(&mut self, steps: Vec<Step>) {
        if self.shared.abandoned.load(Ordering::Acquire) {
            self.shared.failures.fetch_add(1, Ordering::AcqRel);
            return;
        }
        let owed = self.owed.drain(..);
        let owed = owed.map(|(session, answer)| Step::Forget(session, answer));
        let steps: Vec<Step> = owed.chain(steps).collect();
        if steps.is_empty() && self.leftovers.is_empty() {
            return;
        }
        match self.transaction(&steps) {
            Ok(purged) => {
                self.leftovers.drain(..purged);
                self.healed();
                for step in steps {
                    if let Step::Forget(session, answer) = step {
                        self.leftovers.push_back(session);
                        told(answer, Durable::Yes);
                    }
                }
            }
            Err(error) => {
                self.roll_back();
                self.failed(&error);
                self.give_up(steps);
            }
        }
    }

    /// The transaction was not. Sessions must be forgotten all the same; the rest is for whoever
    /// asked to write anew.
    fn give_up(&mut self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Forget(session, answer) => {
                    told(answer, Durable::NotYet);
                    self.owed.push_back((session, None));
                }
                Step::Write(_) => {
                    self.shared.failures.fetch_add(1, Ordering::AcqRel);
                }
            }
        }
    }

    /// Gives how many of the leftovers are gone.
    fn transaction(&self, steps: &[Step]) -> Result<usize, StoreError> {
        self.check_file()?;
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        for step in steps {
            match step {
                Step::Write(write) => rows::apply(&self.connection, write)?,
                Step::Forget(session, _) => rows::forget(&self.connection, *session)?,
            }
        }
        let (mut purged, mut left) = (0, PURGE_ROWS);
        for &session in self.leftovers.iter().take(PURGE_SESSIONS) {
            let removed = rows::purge(&self.connection, session, left)?;
            left -= removed.min(left);
            if left == 0 {
                break;
            }
            purged += 1;
        }
        self.connection.execute_batch("COMMIT")?;
        Ok(purged)
    }

    fn roll_back(&self) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "a failed transaction could not be rolled back");
        }
    }

    fn is_failing(&self) -> bool {
        self.shared.failing.load(Ordering::Acquire)
    }

    fn failed(&self, error: &StoreError) {
        if !self.shared.failing.swap(true, Ordering::AcqRel) {
            metrics::gauge!("portcullis_persistence_failing").increment(1.0);
            tracing::error!(
                path = %self.path.display(),
                %error,
                "sessions and retained messages cannot be written to disk; if the broker ends before they can, what changed since is lost, and what clients already have may be sent again"
            );
        }
    }

    fn healed(&self) {
        if self.shared.failing.swap(false, Ordering::AcqRel) {
            metrics::gauge!("portcullis_persistence_failing").decrement(1.0);
            tracing::info!(path = %self.path.display(), "sessions and retained messages can be written again");
        }
    }

    /// What is written to a file that was moved away would be lost at the next start.
    fn check_file(&self) -> Result<(), StoreError> {
        match FileIdentity::of(&self.path) {
            Ok(identity) if identity == self.identity => Ok(()),
            Ok(_) => Err(StoreError::Unusable {
                what: "the file was replaced while the broker runs: put it back, or restart the broker"
                    .to_owned(),
            }),
            Err(error) => Err(lost(&self.path, &error)),
        }
    }
}

/// A part of a transaction.
enum Step {
    Write(Write),
    /// With whoever waits for it.
    Forget(u64, Option<oneshot::Sender<Durable>>),
}

/// An answer nobody waits for any more is no fault.
fn told(answer: Option<oneshot::Sender<Durable>>, with: Durable) {
    if let Some(answer) = answer {
        let _ = answer.send(with);
    }
}

fn lost(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Unusable {
        what: format!("{} cannot be looked at: {error}", path.display()),
    }
}
