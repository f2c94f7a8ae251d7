//! The file, from its name to its tables.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use crate::store::own_file::{self, Fault};
use crate::store::{StoreError, files};

/// `PCSE`, in the file's header: ours, and no other database.
const APPLICATION: i64 = 0x5043_5345;

/// The tables, version by version. To change them, append a new file; one that has been released
/// is never edited.
const MIGRATIONS: &[&str] = &[include_str!("0001_sessions.sql")];

/// Octets of a page: with fewer and larger pages than SQLite's 4096, more messages of usual size
/// fit into one.
const PAGE_SIZE: i64 = 8192;

/// How much of the file is held in memory.
const CACHE_KIB: i64 = 32 * 1024;

/// Open the file; begin a new one if there is none, or none that can be read.
pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    let unusable = |what: String| StoreError::Unusable {
        what: format!("{}: {what}", path.display()),
    };
    own_file::ensure_private(path).map_err(|error| unusable(error.to_string()))?;
    match open_sound(path) {
        Ok(connection) => return Ok(connection),
        Err(Fault::Empty) => {}
        Err(Fault::Unusable(what)) => return Err(unusable(what)),
        Err(Fault::Damaged(what)) => {
            let aside = aside(path);
            own_file::move_aside(path, &aside).map_err(|error| unusable(error.to_string()))?;
            tracing::error!(
                path = %path.display(),
                moved_to = %aside.display(),
                reason = what,
                "the kept sessions and retained messages cannot be read and were moved aside; all of them are lost to this start"
            );
        }
    }
    create(path).map_err(|error| unusable(error.to_string()))
}

/// Remove the file. Whether it was there.
pub(super) fn remove(path: &Path) -> Result<bool, StoreError> {
    let removed = match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        result => result.map(|()| true),
    };
    removed
        .and_then(|removed| own_file::remove_beside(path).map(|()| removed))
        .map_err(|error| StoreError::Unusable {
            what: format!("{} cannot be removed: {error}", path.display()),
        })
}

fn open_sound(path: &Path) -> Result<Connection, Fault> {
    let connection = own_file::connect(path)?;
    // Until it is known to be ours and sound, nothing in it is touched.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let (application, version, tables) = own_file::marks(&connection)?;
    if tables == 0 {
        return Err(Fault::Empty);
    }
    if application != APPLICATION || version < 1 {
        return Err(Fault::Damaged("it is another database".to_owned()));
    }
    if version > newest() {
        return Err(Fault::Unusable(format!(
            "it has version {version}, this program knows versions up to {}: start the newer \
             Portcullis that wrote it",
            newest()
        )));
    }
    own_file::check_pages(&connection)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    prepare(&connection)?;
    migrate(&connection, version)?;
    Ok(connection)
}

fn create(path: &Path) -> Result<Connection, StoreError> {
    own_file::remove_beside(path).map_err(|error| own_file::failed(&error))?;
    files::ensure_private(path).map_err(|error| own_file::failed(&error))?;
    let connection = own_file::connect(path)?;
    connection.pragma_update(None, "page_size", PAGE_SIZE)?;
    prepare(&connection)?;
    migrate(&connection, 0)?;
    Ok(connection)
}

fn prepare(connection: &Connection) -> Result<(), rusqlite::Error> {
    own_file::prepare(connection)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.pragma_update(None, "cache_size", -CACHE_KIB)
}

/// Bring the tables from `version` to the newest one.
fn migrate(connection: &Connection, version: i64) -> Result<(), rusqlite::Error> {
    for (migration, number) in MIGRATIONS.iter().zip(1_i64..) {
        if number > version {
            let transaction = connection.unchecked_transaction()?;
            transaction.execute_batch(migration)?;
            transaction.pragma_update(None, "application_id", APPLICATION)?;
            transaction.pragma_update(None, "user_version", number)?;
            transaction.commit()?;
        }
    }
    Ok(())
}

fn newest() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// A name that tells when, so that what was put aside before stays.
fn aside(path: &Path) -> std::path::PathBuf {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = now.unwrap_or_default().as_secs();
    files::with_suffix(path, &format!(".damaged-{seconds}"))
}
