//! The certificates of the development mode: a complete tree under one directory, made on the
//! first start and kept afterwards.
//!
//! Never used when a configuration file is given.

mod admin_key;
mod inspect;
mod issue;
mod plan;
#[cfg(test)]
mod tests;
mod work;

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use time::OffsetDateTime;

use crate::ca::id::InstanceId;

pub use admin_key::AdminKey;
pub use plan::REGISTERED_CAS;

use super::private_file;
use plan::PIECES;
use work::Work;

/// The directory of development certificates, complete.
#[derive(Debug, Clone)]
pub struct DevPki {
    directory: PathBuf,
    notes: Vec<Note>,
    admin_key: AdminKey,
}

/// Something that was done to the directory, or that its owner should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// Files were made that were not there; the number of certificates.
    Created(usize),
    /// A certificate was made anew.
    Renewed {
        /// Name of the certificate, without the ending.
        name: &'static str,
        /// What was wrong with the old one.
        why: String,
    },
    /// A registered CA has expired and is left as it is.
    RegisteredCaExpired(&'static str),
    /// A registered CA is not signed by the CA that is there now, and is left as it is.
    RegisteredCaOrphaned {
        /// Name of the CA.
        name: &'static str,
        /// Name of the CA that should have signed it.
        issuer: &'static str,
    },
    /// Others could read the file; they no longer can.
    Tightened(PathBuf),
}

/// Why the development certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DevPkiError {
    /// A file or directory cannot be used.
    #[error("{} cannot be {doing}: {source}", path.display())]
    Io {
        /// What was to be done with it.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why it could not be done.
        source: io::Error,
    },
    /// The private key of a CA is gone.
    #[error(
        "{} is there without its key {}, which cannot be made again; put the key back, or remove the certificate too, so that a new CA is made",
        certificate.display(), key.display()
    )]
    KeyMissing {
        /// Its certificate.
        certificate: PathBuf,
        /// Where the key should be.
        key: PathBuf,
    },
    /// A CA cannot be read, or certificate and key do not belong together.
    #[error(
        "{} and {} cannot be used: {what}; put the right files back, or remove both, so that a new CA is made",
        certificate.display(), key.display()
    )]
    BrokenCa {
        /// Its certificate.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// `admin-key.json` is not what it should be.
    #[error("{} cannot be used: {what}; correct it, or remove it, so that a new key is made", path.display())]
    AdminKey {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A certificate could not be made.
    #[error("a development certificate could not be made: {0}")]
    Generate(#[from] rcgen::Error),
    /// The system gave no random numbers.
    #[error("the system's random number generator failed")]
    Random,
}

impl DevPki {
    /// Make the directory complete: make what is missing, renew what has expired (never a CA
    /// that the broker registers), leave the rest as it is. Every file has mode 0600, the
    /// directory 0700.
    ///
    /// `endpoint` and `instance` go into a new `admin-key.json`; an existing one keeps its own
    /// endpoint until [`set_endpoint`](Self::set_endpoint).
    ///
    /// # Errors
    /// If the directory cannot be written, or a CA in it cannot be used as it is.
    pub fn ensure(
        directory: &Path,
        endpoint: &str,
        instance: &InstanceId,
        now: OffsetDateTime,
    ) -> Result<Self, DevPkiError> {
        private_file::create_directory(directory)
            .map_err(|source| DevPkiError::io("created", directory, source))?;
        let mut work = Work::new(directory, now);
        work.tighten(directory)?;
        // Two processes that start at once make one tree. The lock goes with the handle.
        let handle =
            File::open(directory).map_err(|source| DevPkiError::io("opened", directory, source))?;
        handle
            .lock()
            .map_err(|source| DevPkiError::io("locked", directory, source))?;

        for piece in &PIECES {
            work.piece(piece)?;
        }
        let admin_key = work.admin_key(endpoint, instance)?;
        let notes = work.into_notes();
        Ok(Self {
            directory: directory.to_owned(),
            notes,
            admin_key,
        })
    }

    /// What was done, and what the owner should know.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The access key for the admin API.
    pub fn admin_key(&self) -> &AdminKey {
        &self.admin_key
    }

    /// Path of `NAME.pem`.
    pub fn certificate(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.pem"))
    }

    /// Path of `NAME.key`.
    pub fn key(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.key"))
    }

    /// Path of `admin-key.json`.
    pub fn admin_key_file(&self) -> PathBuf {
        self.directory.join(ADMIN_KEY_FILE)
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Write the address at which the admin API really answers into `admin-key.json`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn set_endpoint(&mut self, endpoint: &str) -> Result<(), DevPkiError> {
        if self.admin_key.endpoint == endpoint {
            return Ok(());
        }
        self.admin_key.endpoint = endpoint.to_owned();
        self.admin_key.write(&self.admin_key_file())
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created(count) => write!(f, "{count} development certificates were made"),
            Self::Renewed { name, why } => write!(f, "{name}.pem was made anew: {why}"),
            Self::RegisteredCaExpired(name) => write!(
                f,
                "{name}.pem has expired, so its devices are refused; it is registered and was left as it is. To begin anew, stop the broker and remove the certificate directory and the data directory"
            ),
            Self::RegisteredCaOrphaned { name, issuer } => write!(
                f,
                "{name}.pem is not signed by the {issuer}.pem that is there now; it is registered and was left as it is. To have it made anew, remove {name}.pem and {name}.key"
            ),
            Self::Tightened(path) => write!(
                f,
                "others could read {}; now only its owner can",
                path.display()
            ),
        }
    }
}

impl DevPkiError {
    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    }
}

const ADMIN_KEY_FILE: &str = "admin-key.json";
