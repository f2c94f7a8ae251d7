//! Whether the path still leads to the file that is open.

use std::path::{Path, PathBuf};

use crate::store::StoreError;
use crate::store::files::FileIdentity;

/// The file that was opened. A commit to one that was moved away or deleted since would be lost
/// at the next start, and a snapshot of it would miss what stands in the new one.
#[derive(Debug, Clone)]
pub(super) struct Place {
    path: PathBuf,
    identity: FileIdentity,
}

impl Place {
    /// The file at `path` now.
    pub(super) fn of(path: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            path: path.to_owned(),
            identity: identity_of(path)?,
        })
    }

    /// Check that it is still the same file.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] if it is not.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if identity_of(&self.path)? == self.identity {
            return Ok(());
        }
        Err(StoreError::Unusable {
            what: format!(
                "{} was replaced while the broker runs: restart the broker",
                self.path.display()
            ),
        })
    }
}

fn identity_of(path: &Path) -> Result<FileIdentity, StoreError> {
    FileIdentity::of(path).map_err(|error| StoreError::Unusable {
        what: format!("{} cannot be looked at: {error}", path.display()),
    })
}
