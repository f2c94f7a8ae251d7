//! The audit log: append-only JSON lines, each bound to the one before by a hash chain.

use std::path::Path;

use serde::{Deserialize, Serialize};

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
    pub phase: Phase,
    pub origin: Origin,
    /// The operation's name in the API, such as `InactivateCaCertificate`.
    pub action: String,
    pub instance: Option<String>,
    /// What it was about: `ca:<sn>`, `device:<ca sn>/<serial>`, or empty.
    pub subject: String,
    /// State before and after, where the action changes a state.
    pub before: Option<String>,
    pub after: Option<String>,
    /// The API error code of a refusal or failure.
    pub code: Option<String>,
    /// What a reader should know besides, in words; no secrets.
    pub detail: Option<String>,
}

/// Why the audit log could not do it.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file cannot be read or written.
    #[error("the audit log {path} cannot be {doing}: {source}")]
    Io {
        path: String,
        doing: &'static str,
        source: std::io::Error,
    },
    /// The chain does not hold.
    #[error("the audit log {path} is broken at line {line}: {what}")]
    Broken {
        path: String,
        line: u64,
        what: String,
    },
    /// The writer has stopped.
    #[error("the audit log is closed")]
    Closed,
}

/// The open audit log.
pub struct AuditLog {}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    pub records: u64,
    /// Hash of the last record, to be compared with one noted elsewhere.
    pub head: String,
}

impl AuditLog {
    /// Open or create the log (mode 0600) and give the intents that have no outcome yet.
    ///
    /// # Errors
    /// If the file cannot be used or its last records do not hold together. A last line that
    /// a power cut left incomplete is cut off, and a record says so.
    pub fn open(_path: &Path, _now_ms: i64) -> Result<(Self, Vec<Event>), AuditError> {
        todo!()
    }

    /// Append the event; durable when it returns.
    ///
    /// # Errors
    /// If it could not be made durable.
    pub async fn record(&self, _now_ms: i64, _event: Event) -> Result<(), AuditError> {
        todo!()
    }
}

/// Check the whole chain of the file at `path`.
///
/// # Errors
/// [`AuditError::Broken`] names the first line that does not hold.
pub fn verify(_path: &Path) -> Result<Verified, AuditError> {
    todo!()
}
