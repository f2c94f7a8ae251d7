//! Reading a log that is being written, from any record on and across its files.

use std::fs::File;
use std::io::{self, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::position::Position;
use crate::audit::AuditError;
use crate::audit::record::{Chain, MAX_LINE, NO_HASH, Record};
use crate::audit::rotation::Full;
use crate::audit::verify::{self, Line, Lines};
use crate::store::files::FileIdentity;

/// Where in a log reading is.
pub(super) struct Follower {
    log: PathBuf,
    /// The last record that is done with; number 0 before the first.
    done: Position,
    /// `done` is from another run, and the log has yet to show that it is the same one.
    unproved: bool,
    /// The last record that was taken, if it is not done with yet.
    taken: Option<Position>,
    reading: Option<Reading>,
}

/// A file that is being read.
struct Reading {
    path: PathBuf,
    identity: FileIdentity,
    file: File,
    /// Octets of the lines that were taken.
    taken: u64,
    /// Octets of the lines that are done with.
    done: u64,
}

/// Some records, of one file.
#[derive(Default)]
pub(super) struct Taken {
    /// Oldest first; none if there are no more.
    pub(super) records: Vec<Written>,
    /// How many should be before or among them and are not there.
    pub(super) missing: u64,
}

/// A record as it was written.
pub(super) struct Written {
    pub(super) record: Record,
    /// Its line, without the line feed.
    pub(super) line: Vec<u8>,
}

/// What became of reading in one file.
enum Read {
    Some(Taken),
    /// There is no more in this file.
    Ended,
    /// This is not the log in which `done` is.
    Foreign,
}

impl Follower {
    /// Before the oldest record of the log.
    pub(super) fn new(log: &Path) -> Self {
        Self {
            log: log.to_owned(),
            done: Position {
                seq: 0,
                hash: NO_HASH.to_owned(),
            },
            unproved: false,
            taken: None,
            reading: None,
        }
    }

    /// Go on after this record.
    pub(super) fn resume(&mut self, position: Position) {
        (self.done, self.unproved) = (position, true);
    }

    /// Number of the last record that is done with; 0 while that is not certain.
    pub(super) fn sent(&self) -> u64 {
        if self.unproved { 0 } else { self.done.seq }
    }

    /// The last record that is done with.
    pub(super) fn position(&self) -> &Position {
        &self.done
    }

    /// What was taken is done with.
    pub(super) fn advance(&mut self) {
        if let Some(taken) = self.taken.take() {
            self.done = taken;
        }
        if let Some(reading) = &mut self.reading {
            reading.done = reading.taken;
        }
    }

    /// What was taken is to be taken again.
    pub(super) fn rewind(&mut self) {
        self.taken = None;
        if let Some(reading) = &mut self.reading {
            reading.taken = reading.done;
        }
    }

    /// The next records, up to number `flushed`. What is after it may be half written, or taken back.
    ///
    /// # Errors
    /// If a file cannot be read, or a record that must be there is not.
    pub(super) fn take(&mut self, flushed: u64) -> Result<Taken, AuditError> {
        if self.unproved && self.done.seq > flushed {
            self.start_over();
        }
        while self.sent() < flushed {
            let mut reading = match self.reading.take() {
                Some(reading) => reading,
                None => self.open()?,
            };
            match self.read(&mut reading, flushed)? {
                Read::Some(taken) => {
                    self.reading = Some(reading);
                    return Ok(taken);
                }
                Read::Ended if self.sent() >= flushed => self.reading = Some(reading),
                Read::Ended => {
                    let next = self.open()?;
                    match next.identity == reading.identity {
                        false => self.reading = Some(next),
                        true if self.unproved => self.start_over(),
                        true => return Err(self.lacks(&next.path)),
                    }
                }
                Read::Foreign => self.start_over(),
            }
        }
        Ok(Taken::default())
    }

    fn start_over(&mut self) {
        tracing::warn!(
            record = self.done.seq,
            "the audit log is not the one that was forwarded before; its records are forwarded from the first on"
        );
        *self = Self::new(&self.log);
    }

    /// The file in which the next record is: the one that `done` is in, if that must be looked at.
    fn open(&self) -> Result<Reading, AuditError> {
        let wanted = self.done.seq + u64::from(!self.unproved);
        let unreadable = |source| AuditError::Io {
            path: self.log.display().to_string(),
            doing: "read",
            source,
        };
        let (full, newest) = verify::files_of(&self.log)?;
        let (path, file) = match full.into_iter().find(|full| full.last >= wanted) {
            Some(Full { path, .. }) => {
                let file = File::open(&path).map_err(unreadable)?;
                (path, file)
            }
            None => (self.log.clone(), newest),
        };
        Ok(Reading {
            identity: FileIdentity::of_open(&file).map_err(unreadable)?,
            path,
            file,
            taken: 0,
            done: 0,
        })
    }

    fn read(&mut self, reading: &mut Reading, flushed: u64) -> Result<Read, AuditError> {
        let path = reading.path.clone();
        let unreadable = |source: io::Error| AuditError::Io {
            path: path.display().to_string(),
            doing: "read",
            source,
        };
        // Begin anew each time: what was read ahead may have been taken back since.
        let start = SeekFrom::Start(reading.taken);
        reading.file.seek(start).map_err(unreadable)?;
        let mut lines = Lines::new(BufReader::with_capacity(MAX_LINE, &reading.file));
        let mut taken = Taken::default();
        let mut octets = 0;
        while octets < MAX_OCTETS {
            let Some(Line::Whole(line)) = lines.next().map_err(unreadable)? else {
                break;
            };
            let length = line.len() as u64 + 1;
            let mut chain = Chain::anywhere();
            // One that makes no sense counts as missing when the next is there.
            if let Ok(record) = chain.follow(line) {
                if record.seq > flushed {
                    break;
                }
                let here = Position {
                    seq: record.seq,
                    hash: chain.head,
                };
                if self.unproved && here.seq >= self.done.seq {
                    if here.seq == self.done.seq && here.hash != self.done.hash {
                        return Ok(Read::Foreign);
                    }
                    self.unproved = false;
                }
                let last = self.taken.as_ref().unwrap_or(&self.done).seq;
                if here.seq > last {
                    taken.missing += here.seq - last - 1;
                    octets += length;
                    let line = line.to_vec();
                    taken.records.push(Written { record, line });
                    self.taken = Some(here);
                }
            }
            reading.taken += length;
            if taken.records.is_empty() {
                reading.done = reading.taken;
            }
        }
        Ok(match taken.records.is_empty() {
            true => Read::Ended,
            false => Read::Some(taken),
        })
    }

    fn lacks(&self, path: &Path) -> AuditError {
        AuditError::Broken {
            path: path.display().to_string(),
            line: 1,
            what: format!("record {} is not in it", self.done.seq + 1),
        }
    }
}

/// How much is taken at a time, in octets; a record more at most.
const MAX_OCTETS: u64 = 1 << 20;
