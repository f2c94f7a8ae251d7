//! The thread that appends. Records that wait together are written and flushed together; each is
//! answered after the flush.
//!
//! [`Writer::append`] is the one place that writes the file: rotation, when it comes, is a check
//! at its start that hands the chain over to a new file.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::record::{Chain, OpenIntents, bounded};
use super::tail;
use super::{AuditError, Event, Origin, Phase};
use crate::store::files::{self, FileIdentity};

/// How many records share a flush at most.
const MAX_GROUP: usize = 256;

/// What the writer is asked for.
pub(super) enum Request {
    Record {
        now_ms: i64,
        event: Box<Event>,
        answer: oneshot::Sender<Result<(), AuditError>>,
        /// Given back when it is answered.
        _slot: OwnedSemaphorePermit,
    },
    /// Lets a test put another file in the place of the log.
    #[cfg(test)]
    With(Box<dyn FnOnce(&mut File) + Send>),
}

/// The thread's state.
pub(super) struct Writer {
    path: PathBuf,
    file: File,
    identity: FileIdentity,
    /// Octets of whole, flushed records.
    length: u64,
    chain: Chain,
    open: OpenIntents,
    /// The file may have something after `length`, from a write that failed.
    dirty: bool,
}

impl Writer {
    /// Open or create the log at `path`, cut off a torn last line, and give the open intents.
    pub(super) fn open(path: &Path, now_ms: i64) -> Result<(Self, Vec<Event>), AuditError> {
        let failed = |doing: &'static str| {
            move |source| AuditError::Io {
                path: path.display().to_string(),
                doing,
                source,
            }
        };
        files::ensure_private(path).map_err(failed("used"))?;
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .open(path)
            .map_err(failed("opened"))?;
        file.try_lock()
            .map_err(io::Error::from)
            .map_err(failed("locked (is another broker using it?)"))?;
        let identity = FileIdentity::of(path).map_err(failed("looked at"))?;
        let length = file.metadata().map_err(failed("looked at"))?.len();
        let end = tail::find(path, &mut file, length)?;
        let mut writer = Self {
            path: path.to_owned(),
            file,
            identity,
            length: end.whole,
            chain: end.chain,
            open: end.open,
            dirty: end.torn > 0,
        };
        if end.torn > 0 {
            tracing::error!(
                octets = end.torn,
                "the audit log's last line was incomplete"
            );
            writer.append(vec![(now_ms, cut_off(end.torn))])?;
        }
        let open = writer.open.events();
        Ok((writer, open))
    }

    /// Serve until nobody can ask any more.
    pub(super) fn run(mut self, requests: &Receiver<Request>) {
        while let Ok(first) = requests.recv() {
            let waiting = requests.try_iter().take(MAX_GROUP - 1);
            let mut records = Vec::new();
            let mut answers = Vec::new();
            for request in std::iter::once(first).chain(waiting) {
                match request {
                    Request::Record {
                        now_ms,
                        event,
                        answer,
                        _slot,
                    } => {
                        records.push((now_ms, *event));
                        answers.push((answer, _slot));
                    }
                    #[cfg(test)]
                    Request::With(act) => act(&mut self.file),
                }
            }
            if records.is_empty() {
                continue;
            }
            let appended = self.append(records);
            if let Err(error) = &appended {
                tracing::error!(%error, records = answers.len(), "the audit log could not be written");
            }
            for (answer, _slot) in answers {
                let result = match &appended {
                    Ok(()) => Ok(()),
                    Err(error) => Err(repeated(error)),
                };
                // An answer nobody waits for any more is no fault.
                let _ = answer.send(result);
            }
        }
    }

    /// Write and flush the events, all or none.
    fn append(&mut self, events: Vec<(i64, Event)>) -> Result<(), AuditError> {
        self.check_file()?;
        self.cut_back()?;
        let mut chain = self.chain.clone();
        let mut open = self.open.clone();
        let mut lines = Vec::new();
        for (now_ms, event) in events {
            let event = bounded(event);
            open.note(chain.seq + 1, &event);
            let line = chain
                .append(now_ms, open.oldest(), event)
                .map_err(|error| self.failed("written", error.into()))?;
            lines.extend_from_slice(&line);
            lines.push(b'\n');
        }
        self.dirty = true;
        let written = self
            .file
            .write_all(&lines)
            .and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // If this fails too, it is tried again before the next record.
            let _ = self.cut_back();
            return Err(self.failed("written", error));
        }
        self.dirty = false;
        self.length += lines.len() as u64;
        self.chain = chain;
        self.open = open;
        Ok(())
    }

    /// Remove what a failed write left after the last whole record.
    fn cut_back(&mut self) -> Result<(), AuditError> {
        if self.dirty {
            self.file
                .set_len(self.length)
                .and_then(|()| self.file.sync_all())
                .map_err(|error| self.failed("cut back to its last whole record", error))?;
            self.dirty = false;
        }
        Ok(())
    }

    /// Records in a file that was moved away or deleted would be lost.
    fn check_file(&self) -> Result<(), AuditError> {
        match FileIdentity::of(&self.path) {
            Ok(identity) if identity == self.identity => Ok(()),
            Ok(_) => Err(self.failed(
                "written",
                io::Error::other(
                    "another file has taken its place: put it back, or restart the broker",
                ),
            )),
            Err(error) => Err(self.failed("found any more", error)),
        }
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> AuditError {
        AuditError::Io {
            path: self.path.display().to_string(),
            doing,
            source,
        }
    }
}

/// What is recorded after a torn line was removed.
fn cut_off(octets: u64) -> Event {
    Event {
        phase: Phase::Done,
        origin: Origin {
            principal: "system".to_owned(),
            door: "system".to_owned(),
            address: None,
            request_id: String::new(),
        },
        action: "RepairAuditLog".to_owned(),
        instance: None,
        subject: String::new(),
        before: None,
        after: None,
        code: None,
        detail: Some(format!(
            "the last line was incomplete, {octets} octets; it was cut off at start"
        )),
    }
}

/// The error once more, for the next caller it concerns.
fn repeated(error: &AuditError) -> AuditError {
    match error {
        AuditError::Io {
            path,
            doing,
            source,
        } => AuditError::Io {
            path: path.clone(),
            doing,
            source: match source.raw_os_error() {
                Some(code) => io::Error::from_raw_os_error(code),
                None => io::Error::new(source.kind(), source.to_string()),
            },
        },
        AuditError::Broken { path, line, what } => AuditError::Broken {
            path: path.clone(),
            line: *line,
            what: what.clone(),
        },
        AuditError::Closed => AuditError::Closed,
    }
}
