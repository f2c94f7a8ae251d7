//! The file, from its name to what is in it.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{Loaded, Missing, NonceRecord};
use crate::store::{StoreError, files};

/// `PCRN`, in the file's header: ours, and no other database.
const APPLICATION: i64 = 0x5043_524e;

/// A file of another version is given up like a damaged one: what is in it matters for half an
/// hour.
const VERSION: i64 = 1;

/// By minute first, so that what comes lands in one place, and what expires goes from one.
const SCHEMA: &str = "
    CREATE TABLE nonce (
        minute     INTEGER NOT NULL,
        access_key TEXT NOT NULL,
        hash       BLOB NOT NULL CHECK (length(hash) = 16),
        PRIMARY KEY (minute, access_key, hash)
    ) STRICT, WITHOUT ROWID;
    -- One row: what had to be kept until a minute before this one is gone.
    CREATE TABLE forgotten (before_minute INTEGER NOT NULL) STRICT;
";

/// Why a file gives nothing.
enum Fault {
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
            Some(
                ErrorCode::CannotOpen
                | ErrorCode::PermissionDenied
                | ErrorCode::ReadOnly
                | ErrorCode::DiskFull
                | ErrorCode::OutOfMemory,
            ) => Self::Unusable(error.to_string()),
            _ => Self::Damaged(error.to_string()),
        }
    }
}

/// Open the file and read it; begin a new one if there is none, or none that can be read.
pub(super) fn open(
    path: &Path,
    missing: Missing,
    lost_before: Option<i64>,
) -> Result<(Connection, Loaded), StoreError> {
    let unusable = |what: String| StoreError::Unusable {
        what: format!("{}: {what}", path.display()),
    };
    for suffix in SUFFIXES {
        let path = files::with_suffix(path, suffix);
        files::check_private(&path).map_err(|error| unusable(error.to_string()))?;
    }
    files::ensure_private(path).map_err(|error| unusable(error.to_string()))?;
    let fault = match read(path) {
        Ok(opened) => return Ok(opened),
        Err(fault) => fault,
    };
    let lost =
        || lost_before.ok_or_else(|| unusable("it was lost, and the clock is not set".to_owned()));
    let forgotten = match (fault, missing) {
        (Fault::Unusable(what), _) => return Err(unusable(what)),
        (Fault::Empty, Missing::New) => 0,
        (Fault::Empty, Missing::Lost) => {
            tracing::error!(
                path = %path.display(),
                "the record of the requests before this start is gone; for a quarter of an hour, calls of the admin API may only read and deny"
            );
            lost()?
        }
        (Fault::Damaged(what), _) => {
            let forgotten = lost()?;
            move_aside(path).map_err(|error| unusable(error.to_string()))?;
            tracing::error!(
                path = %path.display(),
                reason = what,
                "the record of the requests before this start cannot be read, and was moved aside; for a quarter of an hour, calls of the admin API may only read and deny"
            );
            forgotten
        }
    };
    let connection = create(path, forgotten).map_err(|error| unusable(error.to_string()))?;
    let loaded = Loaded {
        nonces: Vec::new(),
        forgotten,
    };
    Ok((connection, loaded))
}

fn read(path: &Path) -> Result<(Connection, Loaded), Fault> {
    let connection = connect(path)?;
    // Until it is known to be ours and sound, nothing in it is touched.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let number = |pragma: &str| -> Result<i64, rusqlite::Error> {
        connection.pragma_query_value(None, pragma, |row| row.get(0))
    };
    let (application, version) = (number("application_id")?, number("user_version")?);
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
    if tables == 0 {
        return Err(Fault::Empty);
    }
    if (application, version) != (APPLICATION, VERSION) {
        return Err(Fault::Damaged(format!(
            "it is another database, or of another version ({application:x}, {version})"
        )));
    }
    let sound: String = connection.pragma_query_value(None, "quick_check", |row| row.get(0))?;
    if sound != "ok" {
        return Err(Fault::Damaged(sound));
    }
    let loaded = load(&connection)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    prepare(&connection)?;
    Ok((connection, loaded))
}

fn load(connection: &Connection) -> Result<Loaded, Fault> {
    let forgotten =
        connection.query_row("SELECT before_minute FROM forgotten", [], |row| row.get(0))?;
    let mut statement = connection.prepare("SELECT minute, access_key, hash FROM nonce")?;
    let mut rows = statement.query([])?;
    let mut nonces = Vec::new();
    while let Some(row) = rows.next()? {
        let key: String = row.get(1)?;
        let hash: [u8; 16] = row.get(2)?;
        nonces.push(NonceRecord {
            key: key
                .parse()
                .map_err(|_| Fault::Damaged("a row has no access key id".to_owned()))?,
            hash: u128::from_be_bytes(hash),
            minute: row.get(0)?,
        });
    }
    Ok(Loaded { nonces, forgotten })
}

/// Begin a new file. One that a crash left without tables is begun again.
fn create(path: &Path, forgotten: i64) -> Result<Connection, StoreError> {
    for suffix in SUFFIXES {
        // Of a file that was here before. None of it may get into the new one.
        match fs::remove_file(files::with_suffix(path, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&error)),
            _ => {}
        }
    }
    files::ensure_private(path).map_err(|error| failed(&error))?;
    let connection = connect(path)?;
    prepare(&connection)?;
    let transaction = connection.unchecked_transaction()?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.execute_batch(SCHEMA)?;
    transaction.execute("INSERT INTO forgotten VALUES ($1)", [forgotten])?;
    transaction.commit()?;
    Ok(connection)
}

/// No other program has business in it, so it is held as long as it is open, without a file of
/// shared memory.
fn connect(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update_and_check(None, "locking_mode", "exclusive", |_| Ok(()))?;
    Ok(connection)
}

fn prepare(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")
}

/// Put the file where somebody can look at it. The database goes first: one without its log would
/// be taken for a whole one, a log without its database is removed.
fn move_aside(path: &Path) -> io::Result<()> {
    let aside = files::with_suffix(path, ".damaged");
    fs::rename(path, &aside)?;
    for suffix in SUFFIXES {
        match fs::rename(
            files::with_suffix(path, suffix),
            files::with_suffix(&aside, suffix),
        ) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn failed(error: &io::Error) -> StoreError {
    StoreError::Unusable {
        what: error.to_string(),
    }
}

/// How long the start waits for another program to let go of the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// What may stand beside the database.
const SUFFIXES: [&str; 2] = ["-wal", "-shm"];
