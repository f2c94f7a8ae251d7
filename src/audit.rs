//! The audit log: append-only JSON lines, each bound to the one before by a hash chain.
//!
//! A line is a JSON object: `seq` (from 1, without gaps), `time` (RFC 3339, UTC, milliseconds),
//! `prev` (SHA-256 of the line before, as it stands in the file; zeros in the first), `open`
//! (`seq` of the oldest intent that has no outcome after this line, or 0), the fields of
//! [`Event`], and last `hash`: SHA-256 of the same line without the member `hash`. To check a
//! line without this program:
//! `sed 's/,"hash":"[0-9a-f]*"}$/}/' LINE | tr -d '\n' | sha256sum`.
//!
//! A full file makes room for a new one ([`Rotation`]); the chain goes on in it. Records are sent
//! elsewhere as well, if that is wanted ([`Forward`]).
//!
//! The chain shows any change, removal or reordering before its last line. Whoever can write
//! the file can still cut its end off, or compute a whole new chain: against that, note the
//! [`Verified::head`] elsewhere from time to time.

mod forward;
mod record;
mod rotation;
mod tail;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, oneshot};

pub use self::forward::{BadDestination, Destination, Format, Forward, HostPort};
use self::forward::{Forwarder, Progress};
pub use self::rotation::Rotation;
pub use self::verify::{read, verify};
use self::writer::{Request, Writer};

/// Who asked, through which door.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub struct Origin {
    /// `access_key:<id>`, `certificate:<sn of its CA>/<serial>` or `host:<user>`.
    pub principal: String,
    /// `http`, `mqtt`, `host` or `system`.
    pub door: String,
    /// Address of the caller, if there is one.
    pub address: Option<String>,
    /// Id of the request.
    pub request_id: String,
}

/// Where in a change a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Before anything is changed.
    Intent,
    /// The change was made and is durable.
    Done,
    /// The change was refused before anything was changed.
    Refused,
    /// The change failed part of the way; `detail` says what holds now.
    Failed,
    /// Found at start: an intent without an outcome; `detail` says what holds now.
    Closed,
}

/// What is recorded of one step of one change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Which step.
    pub phase: Phase,
    /// Who asked.
    pub origin: Origin,
    /// The operation's name in the API, such as `InactivateCaCertificate`.
    pub action: String,
    /// The instance, where there is one.
    pub instance: Option<String>,
    /// What it was about: `ca:<sn>`, `device:<ca sn>/<serial>`, or empty.
    pub subject: String,
    /// State before, where the action changes a state.
    pub before: Option<String>,
    /// State after, where the action changes a state.
    pub after: Option<String>,
    /// The API error code of a refusal or failure.
    pub code: Option<String>,
    /// What a reader should know besides, in words; no secrets.
    pub detail: Option<String>,
}

impl Event {
    /// What the broker records of itself: done, asked for by nobody.
    pub(crate) fn of_itself(action: &str, subject: String, detail: String) -> Self {
        Self {
            phase: Phase::Done,
            origin: Origin {
                principal: "system".to_owned(),
                door: "system".to_owned(),
                address: None,
                request_id: String::new(),
            },
            action: action.to_owned(),
            instance: None,
            subject,
            before: None,
            after: None,
            code: None,
            detail: Some(detail),
        }
    }
}

/// A record as it is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its number, from 1.
    pub seq: u64,
    /// When it was written: RFC 3339, UTC, milliseconds.
    pub time: String,
    /// What it says.
    #[serde(flatten)]
    pub event: Event,
}

/// Why the audit log could not do it.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file cannot be read or written.
    #[error("the audit log {path} cannot be {doing}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What could not be done to it, as a participle.
        doing: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The chain does not hold.
    #[error("the audit log {path} is broken at line {line}: {what}")]
    Broken {
        /// The file.
        path: String,
        /// The first line that does not hold, counted from 1.
        line: u64,
        /// What is wrong with it.
        what: String,
    },
    /// The writer has stopped.
    #[error("the audit log is closed")]
    Closed,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Number of the first record that is there; more than 1 if older files were removed, as a
    /// record says.
    pub first: u64,
    /// How many records there are.
    pub records: u64,
    /// How many files they are in.
    pub files: usize,
    /// Hash of the last record, to be compared with one noted elsewhere; zeros if there is none.
    pub head: String,
}

/// The open audit log. Dropping it finishes what waits and closes the file.
pub struct AuditLog {
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
    slots: Arc<Semaphore>,
    path: PathBuf,
    progress: Arc<Progress>,
    /// After the writer in this order: what it writes last is forwarded, too.
    forwarder: Option<Forwarder>,
}

impl AuditLog {
    /// Open or create the log (mode 0600) and give the intents that have no outcome yet, oldest
    /// first. An outcome is the next record with another phase of the same request id, action
    /// and subject.
    ///
    /// Reads from the end of the file only: back to the oldest open intent, and at least 256 KiB.
    ///
    /// # Errors
    /// If the file cannot be used or its last records do not hold together. A last line that
    /// a power cut left incomplete is cut off, and a record says so.
    pub fn open(
        path: &Path,
        rotation: Rotation,
        now_ms: i64,
    ) -> Result<(Self, Vec<Event>), AuditError> {
        let progress = Arc::new(Progress::default());
        let (writer, open_intents) = Writer::open(path, rotation, Arc::clone(&progress), now_ms)?;
        let (requests, receiver) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("audit-writer".to_owned())
            .spawn(move || writer.run(&receiver))
            .map_err(|source| AuditError::Io {
                path: path.display().to_string(),
                doing: "given a thread",
                source,
            })?;
        let log = Self {
            requests: Some(requests),
            thread: Some(thread),
            slots: Arc::new(Semaphore::new(MAX_WAITING)),
            path: path.to_owned(),
            progress,
            forwarder: None,
        };
        Ok((log, open_intents))
    }

    /// Send every record elsewhere as well, from now on and from where it ended before: all that
    /// are kept, the first time. It happens in a thread of its own; nothing waits for it.
    ///
    /// # Errors
    /// If there is no thread for it.
    pub fn forward(&mut self, forward: Forward) -> Result<(), AuditError> {
        let progress = Arc::clone(&self.progress);
        let forwarder = Forwarder::start(&self.path, forward, progress);
        self.forwarder = Some(forwarder.map_err(|source| AuditError::Io {
            path: self.path.display().to_string(),
            doing: "forwarded",
            source,
        })?);
        Ok(())
    }

    /// Have the writer do nothing until what this gives is dropped.
    #[cfg(test)]
    pub(crate) fn hold(&self) -> mpsc::Sender<()> {
        let (holding, held) = mpsc::channel::<()>();
        // It gets nothing; it ends when the other half is dropped.
        let wait = move |_: &mut std::fs::File| assert!(held.recv().is_err());
        let requests = self.requests.as_ref().unwrap();
        requests.send(Request::With(Box::new(wait))).unwrap();
        holding
    }

    /// Append the event; durable when it returns. Once the future was polled, the record is
    /// written even if the future is dropped.
    ///
    /// A field longer than 1,024 octets is cut, and says so.
    ///
    /// # Errors
    /// If it could not be made durable; the log goes on when the cause is gone.
    pub async fn record(&self, now_ms: i64, event: Event) -> Result<(), AuditError> {
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        let slot = slot.map_err(|_| AuditError::Closed)?;
        let (answer, answered) = oneshot::channel();
        let request = Request::Record {
            now_ms,
            event: Box::new(event),
            answer,
            _slot: slot,
        };
        let requests = self.requests.as_ref().ok_or(AuditError::Closed)?;
        requests.send(request).map_err(|_| AuditError::Closed)?;
        answered.await.unwrap_or(Err(AuditError::Closed))
    }
}

impl Drop for AuditLog {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the audit log's thread had panicked");
        }
    }
}

/// How many records may wait for the writer.
const MAX_WAITING: usize = 1024;
