//! The thread that owns the connection through which everything is written.
//!
//! Requests that wait together go into one transaction: one flush to disk for all of them, each
//! with its own number, each answered only after the flush.
//!
//! A change made by hand with the `sqlite3` command has no number of its own. The writer sees
//! that another connection wrote (`PRAGMA data_version`), at the latest after [`HAND_EDIT_POLL`],
//! and always before it commits or tells the head. It then gives the edit the next number, so
//! that whoever committed against the state before it gets a conflict, and `changed` resolves.

use std::collections::HashSet;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use super::lock::DirectoryLock;
use super::place::Place;
use super::rows;
use crate::ca::id::CrlDigest;
use crate::store::{Change, StoreError};

/// How long an edit by hand may stay unnoticed while nothing else happens. A look costs about
/// 2 microseconds; on a machine that slept meanwhile, and has nothing of it in its caches, a hundred times
/// as much.
const HAND_EDIT_POLL: Duration = Duration::from_millis(500);

/// How many requests share a transaction at most.
const MAX_GROUP: usize = 256;

pub(super) type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the writer is asked for.
pub(super) enum Request {
    Commit(Commit),
    Head(Answer<u64>),
    /// Which lists of revoked certificates the rows name.
    NamedLists(Answer<HashSet<CrlDigest>>),
    /// Lets a test reach the connection.
    #[cfg(test)]
    With(Box<dyn FnOnce(&Connection) + Send>),
}

/// One commit that waits for its turn.
pub(super) struct Commit {
    pub(super) expected: u64,
    pub(super) changes: Vec<Change>,
    pub(super) answer: Answer<u64>,
    /// Given back when it is answered.
    pub(super) _slot: OwnedSemaphorePermit,
}

/// The thread's state. The order of the fields is the order in which they are let go: the
/// connection before the lock.
pub(super) struct Writer {
    connection: Connection,
    place: Place,
    /// Number of the last commit, own or by hand.
    head: u64,
    /// SQLite's count of what other connections wrote, when we last took it in.
    data_version: i64,
    heads: watch::Sender<u64>,
    /// Whether the last look at the file failed: a failure is logged once, not at each look.
    failing: bool,
    _lock: DirectoryLock,
}

/// What a transaction came to, before anybody is told.
struct Outcome {
    head: u64,
    data_version: i64,
    answers: Vec<Result<u64, StoreError>>,
}

impl Writer {
    /// Take over the connection of the database at `place`; gives the channel on which new heads
    /// are told too.
    pub(super) fn new(
        connection: Connection,
        place: Place,
        lock: DirectoryLock,
    ) -> Result<(Self, watch::Receiver<u64>), StoreError> {
        let data_version = data_version(&connection)?;
        let head = rows::head(&connection)?;
        let (heads, receiver) = watch::channel(head);
        let writer = Self {
            connection,
            place,
            head,
            data_version,
            heads,
            failing: false,
            _lock: lock,
        };
        Ok((writer, receiver))
    }

    /// Serve until nobody can ask any more.
    pub(super) fn run(mut self, requests: &Receiver<Request>) {
        loop {
            match requests.recv_timeout(HAND_EDIT_POLL) {
                Ok(first) => {
                    let waiting = requests.try_iter().take(MAX_GROUP - 1);
                    let group = std::iter::once(first).chain(waiting).collect();
                    self.serve(group);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.look_for_hand_edits();
        }
    }

    fn serve(&mut self, group: Vec<Request>) {
        let mut commits = Vec::new();
        let mut heads = Vec::new();
        let mut lists = Vec::new();
        for request in group {
            match request {
                Request::Commit(commit) => commits.push(commit),
                Request::Head(answer) => heads.push(answer),
                Request::NamedLists(answer) => lists.push(answer),
                #[cfg(test)]
                Request::With(act) => act(&self.connection),
            }
        }
        if !commits.is_empty() {
            self.commit(commits);
        }
        for answer in lists {
            let _ = answer.send(rows::digests(&self.connection));
        }
        if heads.is_empty() {
            return;
        }
        let taken_in = self.take_in_hand_edits();
        for answer in heads {
            let head = match &taken_in {
                Ok(()) => Ok(self.head),
                Err(error) => Err(repeated(error)),
            };
            // An answer nobody waits for any more is no fault, here and below.
            let _ = answer.send(head);
        }
    }

    fn commit(&mut self, commits: Vec<Commit>) {
        match self.transaction(&commits) {
            Ok(outcome) => {
                self.publish(outcome.head, outcome.data_version);
                for (commit, answer) in commits.into_iter().zip(outcome.answers) {
                    let _ = commit.answer.send(answer);
                }
            }
            Err(error) => {
                self.roll_back();
                tracing::error!(%error, commits = commits.len(), "the registry could not be written");
                for commit in commits {
                    let _ = commit.answer.send(Err(repeated(&error)));
                }
            }
        }
    }

    /// Everything between `BEGIN` and a durable `COMMIT`. On an error, whoever is in it gets the
    /// error, a conflict too: what it conflicted with may be gone with the transaction.
    fn transaction(&self, commits: &[Commit]) -> Result<Outcome, StoreError> {
        let data_version = self.begin()?;
        let mut head = self.next_base(data_version)?;
        let mut answers = Vec::with_capacity(commits.len());
        for commit in commits {
            if commit.expected != head {
                answers.push(Err(StoreError::Conflict {
                    expected: commit.expected,
                    head,
                }));
                continue;
            }
            match self.apply(&commit.changes)? {
                Ok(()) => {
                    head += 1;
                    answers.push(Ok(head));
                }
                Err(refusal) => answers.push(Err(refusal)),
            }
        }
        self.finish(head)?;
        Ok(Outcome {
            head,
            data_version,
            answers,
        })
    }

    /// Apply one commit's changes, all or none of them. The inner error is this commit's own
    /// fault; the outer one ends the whole transaction.
    fn apply(&self, changes: &[Change]) -> Result<Result<(), StoreError>, StoreError> {
        self.connection.execute_batch("SAVEPOINT one")?;
        let applied = changes
            .iter()
            .try_for_each(|change| rows::apply(&self.connection, change));
        match applied {
            Ok(()) => {
                self.connection.execute_batch("RELEASE one")?;
                Ok(Ok(()))
            }
            Err(error) if is_own_fault(&error) => {
                self.connection
                    .execute_batch("ROLLBACK TO one; RELEASE one")?;
                Ok(Err(error))
            }
            Err(error) => Err(error),
        }
    }

    fn look_for_hand_edits(&mut self) {
        match self.take_in_hand_edits() {
            Ok(()) => self.failing = false,
            Err(error) => {
                if !self.failing {
                    tracing::error!(%error, "the registry could not be looked at");
                    if matches!(error, StoreError::Unusable { .. }) {
                        // For good: whoever waits for changes shall look, and find the error.
                        self.heads.send_modify(|head| *head += 1);
                    }
                }
                self.failing = true;
            }
        }
    }

    /// Give a hand edit that happened since the last look the next number.
    fn take_in_hand_edits(&mut self) -> Result<(), StoreError> {
        self.place.check()?;
        if data_version(&self.connection)? == self.data_version {
            return Ok(());
        }
        let taken_in = (|| {
            let data_version = self.begin()?;
            let head = self.next_base(data_version)?;
            self.finish(head)?;
            Ok((head, data_version))
        })();
        match taken_in {
            Ok((head, data_version)) => {
                tracing::info!(head, "the registry was edited by hand");
                self.publish(head, data_version);
                Ok(())
            }
            Err(error) => {
                self.roll_back();
                Err(error)
            }
        }
    }

    /// Begin to write; gives what `data_version` is for this transaction.
    fn begin(&self) -> Result<i64, StoreError> {
        self.place.check()?;
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        data_version(&self.connection)
    }

    /// The head that commits of this transaction build on: one more than ours if somebody else
    /// wrote, whatever they did to the number itself.
    fn next_base(&self, data_version: i64) -> Result<u64, StoreError> {
        if data_version == self.data_version {
            return Ok(self.head);
        }
        Ok(self.head.max(rows::head(&self.connection)?) + 1)
    }

    fn finish(&self, head: u64) -> Result<(), StoreError> {
        if head == self.head {
            self.connection.execute_batch("ROLLBACK")?;
            return Ok(());
        }
        rows::set_head(&self.connection, head)?;
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

    fn publish(&mut self, head: u64, data_version: i64) {
        self.data_version = data_version;
        if head != self.head {
            self.head = head;
            self.heads.send_replace(head);
        }
    }
}

fn data_version(connection: &Connection) -> Result<i64, StoreError> {
    let mut statement = connection.prepare_cached("PRAGMA data_version")?;
    let mut rows = statement.query([])?;
    let mut version = 0;
    // To the end: a statement stopped half-way would hold on to an old view of the file.
    while let Some(row) = rows.next()? {
        version = row.get(0)?;
    }
    Ok(version)
}

/// Whether the error is the fault of one commit, and the others of the transaction can go on.
fn is_own_fault(error: &StoreError) -> bool {
    match error {
        StoreError::Corrupt { .. } => true,
        StoreError::Database(error) => {
            error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation)
        }
        StoreError::Conflict { .. }
        | StoreError::Unusable { .. }
        | StoreError::Silent(_)
        | StoreError::NotAsked
        | StoreError::Closed => false,
    }
}

/// The error once more, for the next caller it concerns.
fn repeated(error: &StoreError) -> StoreError {
    match error {
        &StoreError::Conflict { expected, head } => StoreError::Conflict { expected, head },
        StoreError::Unusable { what } => StoreError::Unusable { what: what.clone() },
        StoreError::Corrupt { table, row, what } => StoreError::Corrupt {
            table,
            row: row.clone(),
            what: what.clone(),
        },
        StoreError::Database(rusqlite::Error::SqliteFailure(code, text)) => {
            StoreError::Database(rusqlite::Error::SqliteFailure(*code, text.clone()))
        }
        StoreError::Database(other) => StoreError::Unusable {
            what: format!("the database failed: {other}"),
        },
        &StoreError::Silent(limit) => StoreError::Silent(limit),
        StoreError::NotAsked => StoreError::NotAsked,
        StoreError::Closed => StoreError::Closed,
    }
}
