//! The thread that writes. Requests that wait together go into one transaction; whoever waits is
//! answered after its flush.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
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
    /// The file, for the log.
    path: PathBuf,
    /// Octets that wait to be written.
    pub(super) backlog: AtomicUsize,
    /// Notified when it has become less.
    pub(super) drained: Notify,
    pub(super) failures: AtomicU64,
    /// The bits of what is wrong with the disk.
    trouble: AtomicU8,
    pub(super) abandoned: AtomicBool,
}

/// What can be wrong with the disk; both can be.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    /// It takes nothing.
    Failing = 1,
    /// It does not answer in time.
    Slow = 2,
}

impl Shared {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            ..Self::default()
        }
    }

    /// Whether nobody should wait for the disk.
    pub(super) fn is_in_trouble(&self) -> bool {
        self.trouble.load(Ordering::Acquire) != 0
    }

    /// Somebody waited as long as anybody may.
    pub(super) fn waited_in_vain(&self) {
        if self.begin(Trouble::Slow) {
            tracing::error!(
                path = %self.path.display(),
                "the disk does not answer in time; clients get their sessions without waiting for it, and if the broker ends before it answers, what they already have may be sent again"
            );
        }
    }

    fn is_failing(&self) -> bool {
        self.trouble.load(Ordering::Acquire) & Trouble::Failing as u8 != 0
    }

    /// Whether it is news.
    fn begin(&self, trouble: Trouble) -> bool {
        let before = self.trouble.fetch_or(trouble as u8, Ordering::AcqRel);
        if before == 0 {
            metrics::gauge!("portcullis_persistence_failing").increment(1.0);
        }
        before & trouble as u8 == 0
    }

    /// Whether it is news.
    fn end(&self, trouble: Trouble) -> bool {
        let before = self.trouble.fetch_and(!(trouble as u8), Ordering::AcqRel);
        if before == trouble as u8 {
            metrics::gauge!("portcullis_persistence_failing").decrement(1.0);
        }
        before & trouble as u8 != 0
    }
}

/// The thread's state.
pub(super) struct Writer {
    path: PathBuf,
    identity: FileIdentity,
    connection: Connection,
    shared: Arc<Shared>,
    /// Sessions that must not be there any more and may be: at most those that are on disk.
    owed: BTreeSet<u64>,
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
            owed: BTreeSet::new(),
            leftovers: VecDeque::new(),
            closing: None,
        })
    }

    /// Serve until nobody can ask any more, or it is to be closed.
    pub(super) fn run(mut self, requests: &Receiver<Request>) {
        while self.closing.is_none() {
            let idle = match self.leftovers.is_empty() || self.shared.is_failing() {
                true => RETRY,
                false => Duration::ZERO,
            };
            match requests.recv_timeout(idle) {
                Ok(first) => self.serve(first, requests),
                Err(RecvTimeoutError::Timeout) => {
                    self.group(Vec::new());
                    self.answers();
                }
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
        if self.shared.backlog.fetch_sub(bytes, Ordering::AcqRel) == bytes {
            self.answers();
        }
        self.shared.drained.notify_waiters();
        let failed = self.shared.failures.load(Ordering::Acquire) != failures;
        for answer in flushes {
            let _ = answer.send(match failed || self.shared.is_failing() {
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
        if steps.is_empty() && self.owed.is_empty() && self.leftovers.is_empty() {
            return;
        }
        match self.transaction(&steps) {
            Ok(purged) => {
                self.leftovers.drain(..purged);
                self.leftovers.extend(std::mem::take(&mut self.owed));
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
                    // Reading works on most disks that take nothing. What is not there is not owed,
                    // or clients that come and go while the disk fails would be remembered.
                    if !matches!(rows::has(&self.connection, session), Ok(false)) {
                        self.owed.insert(session);
                    }
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
        for &session in &self.owed {
            rows::forget(&self.connection, session)?;
        }
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

    fn failed(&self, error: &StoreError) {
        if self.shared.begin(Trouble::Failing) {
            tracing::error!(
                path = %self.path.display(),
                %error,
                "sessions and retained messages cannot be written to disk; if the broker ends before they can, what changed since is lost, and what clients already have may be sent again"
            );
        }
    }

    fn healed(&self) {
        if self.shared.end(Trouble::Failing) {
            tracing::info!(path = %self.path.display(), "sessions and retained messages can be written again");
        }
    }

    /// Nothing waits for the disk any more.
    fn answers(&self) {
        if self.shared.end(Trouble::Slow) {
            tracing::info!(path = %self.path.display(), "the disk answers again");
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

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::super::tests::example;
    use super::*;

    #[test]
    fn what_is_owed_is_what_is_on_disk_and_each_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sessions-x.db");
        let connection = file::open(&path).unwrap();
        let mut writer = Writer::new(&path, connection, Arc::default()).unwrap();
        let put = |key| Step::Write(Write::Session(Box::new(example(key, 1))));
        writer.group(vec![put(1), put(2), put(3)]);
        let takes_nothing = |writer: &Writer, nothing: bool| {
            let connection = &writer.connection;
            connection
                .pragma_update(None, "query_only", nothing)
                .unwrap();
        };
        takes_nothing(&writer, true);
        // Clients that come and go.
        for round in 0..10 {
            writer.group(vec![Step::Forget(1, None), Step::Forget(2, None)]);
            let new = 100 + round;
            writer.group(vec![put(new)]);
            writer.group(vec![Step::Forget(new, None)]);
        }
        assert_eq!(writer.owed, BTreeSet::from([1, 2]));
        takes_nothing(&writer, false);
        writer.group(Vec::new());
        assert!(writer.owed.is_empty());
        for (key, there) in [(1, false), (2, false), (3, true)] {
            assert_eq!(rows::has(&writer.connection, key).unwrap(), there);
        }
    }
}
