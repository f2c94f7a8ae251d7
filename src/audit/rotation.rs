//! The files of a log: the one that is written, and the full ones before it.
//!
//! A full file is renamed to the log's name with the number of its last record after it, such as
//! `audit.log.000000004711`, and the chain goes on in a new file. No name is ever reused, since no
//! number is.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::Event;
use crate::store::files;

/// When a file is full, and how many full ones are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// Octets after which the log goes on in a new file; `None`: never.
    pub max_octets: Option<u64>,
    /// How many full files are kept; `None`: all.
    pub keep: Option<usize>,
}

impl Default for Rotation {
    /// 64 MiB, which is about 100,000 records; nothing is removed.
    fn default() -> Self {
        Self {
            max_octets: Some(64 << 20),
            keep: None,
        }
    }
}

/// A full file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Full {
    /// Number of its last record.
    pub(super) last: u64,
    pub(super) path: PathBuf,
}

/// The action of the record that says that older ones were removed.
const FORGET: &str = "ForgetAuditRecords";

/// The full files of the log at `path`, oldest first.
pub(super) fn full_files(path: &Path) -> io::Result<Vec<Full>> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(files::directory_of(path))? {
        let entry = entry?;
        let other = entry.file_name();
        let digits = other
            .to_str()
            .and_then(|other| other.strip_prefix(name)?.strip_prefix('.'))
            .filter(|digits| {
                digits.len() >= DIGITS && digits.bytes().all(|it| it.is_ascii_digit())
            });
        if let Some(last) = digits.and_then(|digits| digits.parse().ok()) {
            let path = entry.path();
            found.push(Full { last, path });
        }
    }
    found.sort_by_key(|full| full.last);
    Ok(found)
}

/// Put a new, empty file in the place of the log, whose last record has this number.
///
/// After a crash at any moment, the records are all there: under the one name or the other, and an
/// empty log follows the newest full file. If it fails, the log stays as it was.
pub(super) fn renew(path: &Path, last: u64) -> io::Result<File> {
    let full = files::with_suffix(path, &format!(".{last:0DIGITS$}"));
    if full.try_exists()? {
        let text = format!("{} is there already", full.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    let new = files::with_suffix(path, ".new");
    // Left by a crash, if it is there.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    file.try_lock().map_err(io::Error::from)?;
    fs::rename(path, &full)?;
    let renamed = fs::rename(&new, path).and_then(|()| sync_directory(path));
    if let Err(error) = renamed {
        // The new one is empty: nothing is lost with it.
        fs::rename(&full, path)?;
        return Err(error);
    }
    Ok(file)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(files::directory_of(path))?.sync_all()
}

/// The full files that are too many.
pub(super) fn too_many(path: &Path, keep: Option<usize>) -> io::Result<Vec<Full>> {
    let Some(keep) = keep else {
        return Ok(Vec::new());
    };
    let mut full = full_files(path)?;
    full.truncate(full.len().saturating_sub(keep));
    Ok(full)
}

/// Remove files that a record says are removed, the oldest first.
pub(super) fn remove(full: &[Full]) {
    for Full { path, .. } in full {
        if let Err(error) = fs::remove_file(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            // It is tried again with the next full file. A younger one that went before it would
            // leave a gap in the chain.
            tracing::error!(path = %path.display(), %error, "an old file of the audit log cannot be removed; it stays, and so do younger ones");
            return;
        }
    }
}

/// What is recorded first in a new file.
pub(super) fn renewed(last: u64) -> Event {
    let detail = format!("the records up to {last} are in the file before this one");
    Event::of_itself("RotateAuditLog", String::new(), detail)
}

/// What is recorded before files are removed.
pub(super) fn forgotten(last: u64) -> Event {
    let detail = "their files are removed: more are full than are to be kept".to_owned();
    Event::of_itself(FORGET, format!("records:1-{last}"), detail)
}

/// Up to which record older ones were removed, if this says so.
pub(super) fn forgets(event: &Event) -> Option<u64> {
    let says_so = event.action == FORGET && event.origin.door == "system";
    let numbers = event.subject.strip_prefix("records:1-");
    numbers.filter(|_| says_so)?.parse().ok()
}

/// How long the numbers in names are at least: names sort like numbers for the first trillion.
const DIGITS: usize = 12;
