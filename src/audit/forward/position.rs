//! The file that says how far the records were forwarded: `4711 <hash of that record>`.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::store::files;

/// The last record that was forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) seq: u64,
    /// Tells whether the log is still the same.
    pub(super) hash: String,
}

/// What was written for the log at this path; `None` if nothing was forwarded yet.
pub(super) fn read(log: &Path) -> io::Result<Option<Position>> {
    let path = place(log);
    let named =
        |what: &dyn std::fmt::Display| io::Error::other(format!("{}: {what}", path.display()));
    if !files::check_private(&path)? {
        return Ok(None);
    }
    let mut text = String::new();
    let file = fs::File::open(&path).map_err(|error| named(&error))?;
    file.take(LONGEST)
        .read_to_string(&mut text)
        .map_err(|error| named(&error))?;
    let position = text.trim_end().split_once(' ').and_then(|(seq, hash)| {
        Some(Position {
            seq: seq.parse().ok()?,
            hash: hash.to_owned(),
        })
    });
    match position {
        Some(position) => Ok(Some(position)),
        None => Err(named(&"it holds no number and hash of a record")),
    }
}

/// Keep it. After a power cut it may be an older one: records are sent twice then.
pub(super) fn write(log: &Path, position: &Position) -> io::Result<()> {
    let path = place(log);
    let new = files::with_suffix(&path, ".new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    writeln!(file, "{} {}", position.seq, position.hash)?;
    drop(file);
    fs::rename(&new, &path)
}

fn place(log: &Path) -> PathBuf {
    files::with_suffix(log, ".forwarded")
}

/// More octets than a number and a hash have.
const LONGEST: u64 = 256;
