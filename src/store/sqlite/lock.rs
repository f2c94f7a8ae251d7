//! One broker per data directory.
//!
//! The lock is on a file of its own: the database's own locks stay free, so that the `sqlite3`
//! command can read and edit the live file.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use crate::store::{StoreError, files};

/// Held as long as it lives; the system lets go of it when the process ends, however it ends.
pub(super) struct DirectoryLock(#[allow(dead_code, reason = "held, not used")] File);

impl DirectoryLock {
    /// Take the lock that belongs to the database at `database`.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] if another broker holds it, or the file cannot be made.
    pub(super) fn take(database: &Path) -> Result<Self, StoreError> {
        let path = files::with_suffix(database, ".lock");
        files::ensure_private(&path).map_err(|error| unusable(error.to_string()))?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|error| unusable(format!("{} cannot be opened: {error}", path.display())))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = (&mut file).take(20).read_to_string(&mut holder);
                return Err(unusable(format!(
                    "another broker uses {} already (process {}): stop it first, or start this \
                     one with another data directory",
                    database.display(),
                    if holder.trim().is_empty() {
                        "unknown"
                    } else {
                        holder.trim()
                    },
                )));
            }
            Err(TryLockError::Error(error)) => {
                return Err(unusable(format!(
                    "{} cannot be locked: {error}",
                    path.display()
                )));
            }
        }
        // Only for the message above: a failure here harms nothing.
        let _ = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self(file))
    }
}

fn unusable(what: String) -> StoreError {
    StoreError::Unusable { what }
}
