//! The thread that appends. Records that wait together are written and flushed together; each is
//! answered after the flush.
//!
//! [`Writer::append`] is the one place that writes the file. At its start a full file makes room for
//! a new one, unless a change is under way: so its intent and its outcome are in one file, but where
//! there is always one under way.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::forward::Progress;
use super::record::{Chain, OpenIntents, bounded};
use super::rotation::{self, Full, Rotation};
use super::tail;
use super::{AuditError, Event};
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
    rotation: Rotation,
    /// Whoever reads behind the writer is told here.
    progress: Arc<Progress>,
    /// How long the file may become before it is tried again to go on in a new one.
    not_before: u64,
    /// The file may have something after `length`, from a write that failed.
    dirty: bool,
}

impl Writer {
    /// Open or create the log at `path`, cut off a torn last line, and give the open intents.
    pub(super) fn open(
        path: &Path,
        rotation: Rotation,
        progress: Arc<Progress>,
        now_ms: i64,
    ) -> Result<(Self, Vec<Event>), AuditError> {
        let failed = |doing: &'static str| {
            move |source| AuditError::Io {
                path: path.display().to_string(),
                doing,
                source,
            }
        };
        files::ensure_private(path).map_err(failed("used"))?;
        for full in rotation::full_files(path).map_err(failed("read"))? {
            files::check_private(&full.path).map_err(failed("used"))?;
        }
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
        let end = tail::find(path, &mut file, length, &before(path)?)?;
        let mut writer = Self {
            path: path.to_owned(),
            file,
            identity,
            length: end.whole,
            chain: end.chain,
            open: end.open,
            rotation,
            progress,
            not_before: 0,
            dirty: end.torn > 0,
        };
        if end.torn > 0 {
            tracing::error!(
                octets = end.torn,
                "the audit log's last line was incomplete"
            );
            writer.append(vec![(now_ms, cut_off(end.torn))])?;
        }
        writer.progress.flushed(writer.chain.seq);
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
    fn append(&mut self, mut events: Vec<(i64, Event)>) -> Result<(), AuditError> {
        self.check_file()?;
        self.cut_back()?;
        let old = self.make_room(&mut events);
        // If that failed half-way, the file may have its full name already, and must not grow.
        self.check_file()?;
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
        self.progress.flushed(self.chain.seq);
        // Only when a record says so.
        rotation::remove(&old);
        Ok(())
    }

    /// Go on in a new file, if this one is full. What is to be recorded of that goes before the
    /// events; gives the old files that are to be removed when it is. If it fails, the file that is
    /// there serves on.
    fn make_room(&mut self, events: &mut Vec<(i64, Event)>) -> Vec<Full> {
        let Some(most) = self.rotation.max_octets else {
            return Vec::new();
        };
        let now_ms = events.first().map_or(0, |(now_ms, _)| *now_ms);
        let full = self.length >= most.max(self.not_before) && self.length > 0;
        // Where changes follow each other without a break, not for ever.
        let at_rest = self.open.oldest() == 0 || self.length / 2 >= most;
        if !full || !at_rest {
            return Vec::new();
        }
        let last = self.chain.seq;
        let renewed = rotation::renew(&self.path, last)
            .and_then(|file| FileIdentity::of_open(&file).map(|identity| (file, identity)));
        match renewed {
            Ok((file, identity)) => {
                (self.file, self.identity, self.length) = (file, identity, 0);
                self.not_before = 0;
            }
            Err(error) => {
                tracing::error!(
                    path = %self.path.display(),
                    %error,
                    "the audit log is full and cannot go on in a new file; it goes on in the old one"
                );
                self.not_before = self.length.saturating_add(most / 16).saturating_add(1);
                return Vec::new();
            }
        }
        let old = rotation::too_many(&self.path, self.rotation.keep).unwrap_or_else(|error| {
            tracing::error!(path = %self.path.display(), %error, "old files of the audit log cannot be found");
            Vec::new()
        });
        let forgotten = old.last().map(|full| rotation::forgotten(full.last));
        let of_itself = std::iter::once(rotation::renewed(last)).chain(forgotten);
        events.splice(0..0, of_itself.map(|event| (now_ms, event)));
        old
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
            Ok(identity) if identity == self.identity => self.check_length(),
            Ok(_) => Err(self.failed(
                "written",
                io::Error::other(
                    "another file has taken its place: put it back, or restart the broker",
                ),
            )),
            Err(error) => Err(self.failed("found any more", error)),
        }
    }

    /// Nor may it be shorter than it was: what is put after a hole cannot be read.
    fn check_length(&self) -> Result<(), AuditError> {
        let metadata = (self.file.metadata()).map_err(|error| self.failed("looked at", error))?;
        let (expected, length) = (self.length, metadata.len());
        if length >= expected || !metadata.is_file() {
            return Ok(());
        }
        Err(self.failed(
            "written",
            io::Error::other(format!(
                "another hand cut it from {expected} to {length} octets: put it back, or move it \
                 away and restart the broker"
            )),
        ))
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> AuditError {
        AuditError::Io {
            path: self.path.display().to_string(),
            doing,
            source,
        }
    }
}

/// What the first line of the file at `path` must follow: the last of the newest full file. Older
/// files may have been moved away; without any, nothing is known.
fn before(path: &Path) -> Result<Chain, AuditError> {
    let unreadable = |path: &Path| {
        let path = path.display().to_string();
        move |source| AuditError::Io {
            path,
            doing: "read",
            source,
        }
    };
    let full = rotation::full_files(path).map_err(unreadable(path))?;
    let Some(Full { last, path: newest }) = full.last() else {
        return Ok(Chain::anywhere());
    };
    let mut file = File::open(newest).map_err(unreadable(newest))?;
    let length = file.metadata().map_err(unreadable(newest))?.len();
    let end = tail::find(newest, &mut file, length, &Chain::anywhere())?;
    match end.torn == 0 && end.chain.seq == *last {
        true => Ok(end.chain),
        false => Err(AuditError::Broken {
            path: newest.display().to_string(),
            line: 1,
            what: format!("it does not end with record {last}, as its name says"),
        }),
    }
}

/// What is recorded after a torn line was removed.
fn cut_off(octets: u64) -> Event {
    let detail = format!("the last line was incomplete, {octets} octets; it was cut off at start");
    Event::of_itself("RepairAuditLog", String::new(), detail)
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
