//! Reading a log line by line in constant memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use super::record::{Chain, MAX_LINE};
use super::{AuditError, Entry, Verified};

/// Check the whole chain of the file at `path`.
///
/// # Errors
/// [`AuditError::Broken`] names the first line that does not hold; [`AuditError::Io`] if the
/// file cannot be read.
pub fn verify(path: &Path) -> Result<Verified, AuditError> {
    read(path, |_| {})
}

/// Read the records of the file at `path`, oldest first, and check the chain on the way.
///
/// # Errors
/// As [`verify`]; the records before the first line that does not hold were given then.
pub fn read(path: &Path, mut each: impl FnMut(Entry)) -> Result<Verified, AuditError> {
    let unreadable = |source| AuditError::Io {
        path: path.display().to_string(),
        doing: "read",
        source,
    };
    let file = File::open(path).map_err(unreadable)?;
    let mut lines = Lines::new(BufReader::with_capacity(MAX_LINE, file));
    let mut chain = Chain::start();
    let mut number = 0;
    while let Some(line) = lines.next().map_err(unreadable)? {
        number += 1;
        let followed = match line {
            Line::Whole(line) => chain.follow(line),
            Line::Torn(_) => Err("it has no end: it was cut, or is being written".to_owned()),
            Line::TooLong => Err(format!("it is longer than {MAX_LINE} octets")),
        };
        let record = followed.map_err(|what| AuditError::Broken {
            path: path.display().to_string(),
            line: number,
            what,
        })?;
        each(Entry {
            seq: record.seq,
            time: record.time,
            event: record.event,
        });
    }
    Ok(Verified {
        records: chain.seq,
        head: chain.head,
    })
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
