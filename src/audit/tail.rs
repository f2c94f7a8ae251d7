//! Finding where an existing log ends, without reading all of it.
//!
//! Every line carries the number of the oldest intent that was open after it. So the last line
//! says how far back the open intents reach, and that is how far this reads.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::AuditError;
use super::record::{Chain, MAX_LINE, OpenIntents};
use super::verify::{Line, Lines};

/// Where a log ends.
pub(super) struct End {
    pub(super) chain: Chain,
    pub(super) open: OpenIntents,
    /// Octets up to and with the last line feed.
    pub(super) whole: u64,
    /// Octets after it.
    pub(super) torn: u64,
}

/// How much is checked at least, in octets.
const WINDOW: u64 = 256 * 1024;

/// Read the end of the log `file`, which is `length` octets long and goes on after `before`.
///
/// # Errors
/// [`AuditError::Broken`] if what was read does not hold together.
pub(super) fn find(
    path: &Path,
    file: &mut File,
    length: u64,
    before: &Chain,
) -> Result<End, AuditError> {
    let mut window = WINDOW;
    loop {
        let start = length.saturating_sub(window);
        if let Some(end) = scan(path, file, start, before)? {
            return Ok(end);
        }
        window = window.saturating_mul(4);
    }
}

/// Read from the first line that begins at or after `start` to the end; `None` if there is too
/// little to tell.
fn scan(
    path: &Path,
    file: &mut File,
    start: u64,
    before: &Chain,
) -> Result<Option<End>, AuditError> {
    let unreadable = |source| AuditError::Io {
        path: path.display().to_string(),
        doing: "read",
        source,
    };
    // One octet earlier, so that a line that begins exactly at `start` is not skipped.
    let begin = start.saturating_sub(1);
    file.seek(SeekFrom::Start(begin)).map_err(unreadable)?;
    let mut lines = Lines::new(BufReader::with_capacity(MAX_LINE, &mut *file));
    let mut whole = begin;
    let mut chain = before.clone();
    if start > 0 {
        match lines.next().map_err(unreadable)? {
            Some(Line::Whole(rest)) => whole += rest.len() as u64 + 1,
            // No line feed at all in here: look further back, or give up below.
            _ => return Ok(None),
        }
        chain = Chain::anywhere();
    }
    let mut open = OpenIntents::default();
    let mut first = None;
    let mut oldest = 0;
    let mut torn = 0;
    let broken = loop {
        let line = match lines.next().map_err(unreadable)? {
            None => break None,
            Some(Line::Torn(octets)) => {
                torn = octets;
                break None;
            }
            Some(Line::TooLong) => break Some(format!("it is longer than {MAX_LINE} octets")),
            Some(Line::Whole(line)) => line,
        };
        let octets = line.len() as u64 + 1;
        match chain.follow(line) {
            Ok(record) => {
                open.note(record.seq, &record.event);
                first.get_or_insert(record.seq);
                oldest = record.open;
                whole += octets;
            }
            Err(what) => break Some(what),
        }
    };
    if let Some(what) = broken {
        drop(lines);
        return Err(AuditError::Broken {
            path: path.display().to_string(),
            line: line_feeds(file, whole).map_err(unreadable)? + 1,
            what: format!(
                "{what}; to go on with a new log, move this one away and keep it for the inquiry"
            ),
        });
    }
    let reaches = start == 0 || first.is_some_and(|first| oldest == 0 || first <= oldest);
    Ok(reaches.then_some(End {
        chain,
        open,
        whole,
        torn,
    }))
}

/// How many lines end within the first `length` octets.
fn line_feeds(file: &mut File, length: u64) -> io::Result<u64> {
    file.seek(SeekFrom::Start(0))?;
    let mut rest = file.take(length);
    let mut buffer = vec![0; MAX_LINE];
    let mut count = 0;
    loop {
        let read = rest.read(&mut buffer)?;
        if read == 0 {
            return Ok(count);
        }
        let octets = buffer.iter().take(read);
        count += octets.filter(|&&octet| octet == b'\n').count() as u64;
    }
}
