//! The file, from its name to what is in it.

use std::path::Path;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::{Loaded, Missing, NonceRecord};
use crate::store::own_file::{self, Fault};
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

/// Open the file and read it; begin a new one if there is none, or none that can be read.
pub(super) fn open(
    path: &Path,
    missing: Missing,
    lost_before: Option<i64>,
) -> Result<(Connection, Loaded), StoreError> {
    let unusable = |what: String| StoreError::Unusable {
        what: format!("{}: {what}", path.display()),
    };
    own_file::ensure_private(path).map_err(|error| unusable(error.to_string()))?;
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
            let aside = files::with_suffix(path, ".damaged");
            own_file::move_aside(path, &aside).map_err(|error| unusable(error.to_string()))?;
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
    let connection = own_file::connect(path)?;
    // Until it is known to be ours and sound, nothing in it is touched.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let (application, version, tables) = own_file::marks(&connection)?;
    if tables == 0 {
        return Err(Fault::Empty);
    }
    if (application, version) != (APPLICATION, VERSION) {
        return Err(Fault::Damaged(format!(
            "it is another database, or of another version ({application:x}, {version})"
        )));
    }
    own_file::check_pages(&connection)?;
    let loaded = load(&connection)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    own_file::prepare(&connection)?;
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
    own_file::remove_beside(path).map_err(|error| own_file::failed(&error))?;
    files::ensure_private(path).map_err(|error| own_file::failed(&error))?;
    let connection = own_file::connect(path)?;
    own_file::prepare(&connection)?;
    let transaction = connection.unchecked_transaction()?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.execute_batch(SCHEMA)?;
    transaction.execute("INSERT INTO forgotten VALUES ($1)", [forgotten])?;
    transaction.commit()?;
    Ok(connection)
}
