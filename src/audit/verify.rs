//! Reading a log line by line in constant memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use super::record::{Chain, MAX_LINE};
use super::rotation::{self, Full};
use super::{AuditError, Entry, Verified};

/// Check the whole chain of the log at `path`, with the full files before it.
///
/// # Errors
/// [`AuditError::Broken`] names the first line that does not hold; [`AuditError::Io`] if a file
/// cannot be read.
pub fn verify(path: &Path) -> Result<Verified, AuditError> {
    read(path, |_| {})
}

/// Read the records of the log at `path`, oldest first, and check the chain on the way.
///
/// # Errors
/// As [`verify`]; the records before the first line that does not hold were given then.
pub fn read(path: &Path, mut each: impl FnMut(Entry)) -> Result<Verified, AuditError> {
    let (full, newest) = files_of(path)?;
    let mut found = Found {
        // Whether older ones may be missing, a later record says.
        chain: Chain::anywhere(),
        first: None,
        forgotten: 0,
    };
    let read = found.read_all(path, &full, newest, &mut each);
    let first = found.first.unwrap_or(1);
    // What says that older ones were removed may stand after the break that ended the reading; in a
    // log of one file it stands before all else.
    if first > found.forgotten.saturating_add(1) && (read.is_ok() || full.is_empty()) {
        let what =
            format!("the records before {first} are missing, and none says that they were removed");
        return Err(broken(
            full.first().map_or(path, |full| &full.path),
            1,
            what,
        ));
    }
    read?;
    Ok(Verified {
        first,
        records: (found.chain.seq + 1).saturating_sub(first),
        files: full.len() + 1,
        head: found.chain.head,
    })
}

/// The files of the log at one moment: the full ones, and the one that is written.
pub(super) fn files_of(path: &Path) -> Result<(Vec<Full>, File), AuditError> {
    let mut tries = 0;
    loop {
        let full = rotation::full_files(path).map_err(unreadable(path))?;
        let newest = match File::open(path) {
            // For a moment there is none while a full one makes room.
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries < 100 => {
                tries += 1;
                std::thread::yield_now();
                continue;
            }
            opened => opened.map_err(unreadable(path))?,
        };
        if rotation::full_files(path).map_err(unreadable(path))? == full {
            return Ok((full, newest));
        }
    }
}

/// What was read so far.
struct Found {
    chain: Chain,
    first: Option<u64>,
    /// Up to which record older ones were removed.
    forgotten: u64,
}

impl Found {
    /// Follow the chain through the full files and the newest one.
    fn read_all(
        &mut self,
        path: &Path,
        full: &[Full],
        newest: File,
        each: &mut impl FnMut(Entry),
    ) -> Result<(), AuditError> {
        for Full { path, last } in full {
            let file = File::open(path).map_err(unreadable(path))?;
            self.read(path, file, each)?;
            if self.chain.seq != *last {
                let seq = self.chain.seq;
                let what = format!("it ends with record {seq}, not {last} as its name says");
                return Err(broken(path, 1, what));
            }
        }
        self.read(path, newest, each)
    }

    /// Follow the chain through the next file.
    fn read(
        &mut self,
        path: &Path,
        file: File,
        each: &mut impl FnMut(Entry),
    ) -> Result<(), AuditError> {
        let mut lines = Lines::new(BufReader::with_capacity(MAX_LINE, file));
        let mut number = 0;
        while let Some(line) = lines.next().map_err(unreadable(path))? {
            number += 1;
            let followed = match line {
                Line::Whole(line) => self.chain.follow(line),
                Line::Torn(_) => Err("it has no end: it was cut, or is being written".to_owned()),
                Line::TooLong => Err(format!("it is longer than {MAX_LINE} octets")),
            };
            let record = followed.map_err(|what| broken(path, number, what))?;
            self.first.get_or_insert(record.seq);
            if let Some(last) = rotation::forgets(&record.event) {
                self.forgotten = self.forgotten.max(last);
            }
            each(Entry {
                seq: record.seq,
                time: record.time,
                event: record.event,
            });
        }
        Ok(())
    }
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> AuditError {
    move |source| AuditError::Io {
        path: path.display().to_string(),
        doing: "read",
        source,
    }
}

fn broken(path: &Path, line: u64, what: String) -> AuditError {
    AuditError::Broken {
        path: path.display().to_string(),
        line,
        what,
    }
}

/// A piece of a log.
pub(super) enum Line<'a> {
    /// A line, without its line feed.
    Whole(&'a [u8]),
    /// What is after the last line feed; its length in octets.
    Torn(u64),
    /// More than [`MAX_LINE`] octets without a line feed; nothing is read after it.
    TooLong,
}

/// Lines of a reader, never holding more than one.
pub(super) struct Lines<R> {
    reader: R,
    buffer: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader,
            buffer: Vec::new(),
        }
    }

    /// The next line; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.buffer.clear();
        let limit = MAX_LINE as u64 + 1;
        let read = (&mut self.reader)
            .take(limit)
            .read_until(b'\n', &mut self.buffer)?;
        Ok(match self.buffer.strip_suffix(b"\n") {
            Some(line) => Some(Line::Whole(line)),
            None if read == 0 => None,
            None if read as u64 == limit => Some(Line::TooLong),
            None => Some(Line::Torn(read as u64)),
        })
    }
}
