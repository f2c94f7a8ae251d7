//! The tables, version by version.
//!
//! To change them, append a [`Migration`] with a new file; one that has been released is never
//! edited. Each runs in a transaction of its own together with its row in `schema_version`, so
//! that a crash leaves the database at one version or the next.

use rusqlite::{Connection, OptionalExtension};

use crate::store::StoreError;

struct Migration {
    /// Shown to an operator who looks into `schema_version`.
    name: &'static str,
    sql: &'static str,
}

/// Version 1 is the first entry.
const MIGRATIONS: &[Migration] = &[
    Migration {
        name: "registry",
        sql: include_str!("migrations/0001_registry.sql"),
    },
    Migration {
        name: "access_key",
        sql: include_str!("migrations/0002_access_key.sql"),
    },
    Migration {
        name: "crl",
        sql: include_str!("migrations/0003_crl.sql"),
    },
    Migration {
        name: "schedule",
        sql: include_str!("migrations/0004_schedule.sql"),
    },
    Migration {
        name: "schedule_ends",
        sql: include_str!("migrations/0005_schedule_ends.sql"),
    },
];

/// The newest version this program knows.
pub(super) fn newest() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// The version of the database; 0 if it is empty. Reads only.
///
/// # Errors
/// [`StoreError::Unusable`] if the version is newer than this program, or the file holds
/// something else than a registry.
pub(super) fn check(connection: &Connection) -> Result<i64, StoreError> {
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
    if tables == 0 {
        return Ok(0);
    }
    let named = connection
        .query_row(
            "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'schema_version'",
            [],
            |_| Ok(()),
        )
        .optional()?;
    if named.is_none() {
        return Err(StoreError::Unusable {
            what: "the database file is not a Portcullis registry: it has tables, but no \
                   schema_version among them"
                .to_owned(),
        });
    }
    let version: i64 = connection.query_row(
        "SELECT coalesce(max(version), 0) FROM schema_version",
        [],
        |row| row.get(0),
    )?;
    let known = newest();
    if version > known {
        return Err(StoreError::Unusable {
            what: format!(
                "the database has schema version {version}, this program knows versions up to \
                 {known}: start the newer Portcullis that wrote it"
            ),
        });
    }
    Ok(version)
}

/// Bring the tables from `version` to the newest one.
///
/// # Errors
/// If the database fails; it is left at the last version that was completed.
pub(super) fn apply(connection: &Connection, version: i64) -> Result<(), StoreError> {
    for (migration, number) in MIGRATIONS.iter().zip(1_i64..) {
        if number <= version {
            continue;
        }
        let transaction = connection.unchecked_transaction()?;
        transaction.execute_batch(
            "CREATE TABLE IF NOT EXISTS schema_version (
                 version    INTEGER PRIMARY KEY,
                 name       TEXT NOT NULL,
                 applied_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
             )",
        )?;
        transaction.execute_batch(migration.sql)?;
        transaction.execute(
            "INSERT INTO schema_version (version, name) VALUES ($1, $2)",
            (number, migration.name),
        )?;
        transaction.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_database_gets_every_version_once() {
        let connection = Connection::open_in_memory().unwrap();
        assert_eq!(check(&connection).unwrap(), 0);
        apply(&connection, 0).unwrap();
        assert_eq!(check(&connection).unwrap(), newest());
        apply(&connection, newest()).unwrap();
        let rows: i64 = connection
            .query_row("SELECT count(*) FROM schema_version", [], |row| row.get(0))
            .unwrap();
        assert_eq!(rows, newest());
    }

    #[test]
    fn a_foreign_database_is_refused() {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch("CREATE TABLE recipes (x)")
            .unwrap();
        let error = check(&connection).unwrap_err().to_string();
        assert!(error.contains("not a Portcullis registry"), "{error}");
    }
}
