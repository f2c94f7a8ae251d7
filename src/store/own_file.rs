//! A SQLite file that the broker has for itself: no other program has business in it, and it may
//! be given up without taking the registry along.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{StoreError, files};

/// Why a file gives nothing.
pub(super) enum Fault {
    /// Nothing was ever written to it.
    Empty,
    /// It cannot be read, and will not be the next time.
    Damaged(String),
    /// Somebody must do something first.
    Unusable(String),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Self::Unusable("another program has it open: end that first".to_owned())
            }
            // What the content does: pages or values that are none, tables that are not there.
            None
            | Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown) => {
                Self::Damaged(error.to_string())
            }
            // A disk that fails once says nothing about the file.
            Some(_) => Self::Unusable(error.to_string()),
        }
    }
}

/// Create the file with mode 0600 if it is missing; otherwise check that nobody else may read it
/// or what stands beside it.
pub(super) fn ensure_private(path: &Path) -> io::Result<()> {
    for suffix in SUFFIXES {
        files::check_private(&files::with_suffix(path, suffix))?;
    }
    files::ensure_private(path)
}

/// It is held as long as it is open, without a file of shared memory.
pub(super) fn connect(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update_and_check(None, "locking_mode", "exclusive", |_| Ok(()))?;
    Ok(connection)
}

/// A transaction is on disk when it is committed.
pub(super) fn prepare(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")
}

/// What tells the file apart from other databases, its version, and how many tables it has.
pub(super) fn marks(connection: &Connection) -> Result<(i64, i64, i64), rusqlite::Error> {
    let number = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get(0));
    let tables =
        connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
    Ok((number("application_id")?, number("user_version")?, tables))
}

/// Whether its pages hang together.
pub(super) fn check_pages(connection: &Connection) -> Result<(), Fault> {
    let sound: String = connection.pragma_query_value(None, "quick_check", |row| row.get(0))?;
    match sound.as_str() {
        "ok" => Ok(()),
        _ => Err(Fault::Damaged(sound)),
    }
}

/// Put the file where somebody can look at it. The database goes first: one without its log would
/// be taken for a whole one, a log without its database is removed.
pub(super) fn move_aside(path: &Path, aside: &Path) -> io::Result<()> {
    fs::rename(path, aside)?;
    for suffix in SUFFIXES {
        match fs::rename(
            files::with_suffix(path, suffix),
            files::with_suffix(aside, suffix),
        ) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Remove what stands beside the file, from a file that was there before. None of it may get into
/// a new one.
pub(super) fn remove_beside(path: &Path) -> io::Result<()> {
    for suffix in SUFFIXES {
        match fs::remove_file(files::with_suffix(path, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// An error of the file system as one of the store.
pub(super) fn failed(error: &io::Error) -> StoreError {
    StoreError::Unusable {
        what: error.to_string(),
    }
}

/// How long the start waits for another program to let go of the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// What may stand beside the database.
const SUFFIXES: [&str; 2] = ["-wal", "-shm"];

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    #[test]
    fn disk_that_does_not_answer_is_no_damage() {
        for (code, damaged) in [
            (ffi::SQLITE_CORRUPT, true),
            (ffi::SQLITE_NOTADB, true),
            (ffi::SQLITE_ERROR, true),
            (ffi::SQLITE_IOERR_READ, false),
            (ffi::SQLITE_IOERR_FSYNC, false),
            (ffi::SQLITE_CANTOPEN, false),
            (ffi::SQLITE_FULL, false),
            (ffi::SQLITE_BUSY, false),
            (ffi::SQLITE_PROTOCOL, false),
        ] {
            let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            let fault = Fault::from(error);
            assert_eq!(matches!(fault, Fault::Damaged(_)), damaged, "{code}");
        }
    }
}
