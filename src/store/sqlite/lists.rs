//! The lists of revoked certificates: one file each, beside the database.
//!
//! A file is whole and on disk before a row names it, and goes when no row names it any more. So
//! a row always has its file, whenever the process ends.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use super::writer::Answer;
use crate::ca::id::CrlDigest;
use crate::store::{CrlDer, StoreError, files};

/// What the thread of the files is asked for.
pub(super) enum ListRequest {
    Write(CrlDigest, CrlDer, Answer<()>),
    Read(CrlDigest, Answer<CrlDer>),
    /// Remove all files but these.
    Sweep(HashSet<CrlDigest>),
}

/// The directory of the files.
#[derive(Debug)]
pub(super) struct Lists(PathBuf);

impl Lists {
    /// Those beside the database; files that no row names are removed.
    pub(super) fn beside(database: &Path, named: &HashSet<CrlDigest>) -> Result<Self, StoreError> {
        let lists = Self(database.with_file_name("crls"));
        match lists.sweep(named) {
            Ok(()) => Ok(lists),
            Err(error) => Err(lists.unusable(&error)),
        }
    }

    /// Serve until nobody can ask any more.
    pub(super) fn run(&self, requests: &mpsc::Receiver<ListRequest>) {
        for request in requests {
            match request {
                ListRequest::Write(digest, der, answer) => {
                    // An answer nobody waits for any more is no fault, here and below.
                    let _ = answer.send(self.write(digest, &der));
                }
                ListRequest::Read(digest, answer) => {
                    let _ = answer.send(self.read(digest));
                }
                ListRequest::Sweep(named) => {
                    if let Err(error) = self.sweep(&named) {
                        tracing::warn!(%error, directory = %self.0.display(), "CRLs that are not kept any more could not be removed");
                    }
                }
            }
        }
    }

    fn write(&self, digest: CrlDigest, der: &CrlDer) -> Result<(), StoreError> {
        let path = self.path(digest);
        // A file has its name once it is whole; what it is named after is checked when it is read.
        let written = fs::metadata(&path).is_ok_and(|it| it.len() == der.0.len() as u64);
        if written {
            return Ok(());
        }
        if CrlDigest::of_der(&der.0) != digest {
            return Err(StoreError::Corrupt {
                table: "crl",
                row: format!("sha256 {digest}"),
                what: "is not the SHA-256 of the list".to_owned(),
            });
        }
        let unfinished = files::with_suffix(&path, ".new");
        let written = (|| {
            files::ensure_private(&unfinished)?;
            // The directory may be new.
            File::open(files::directory_of(&self.0))?.sync_all()?;
            let mut file = OpenOptions::new()
                .write(true)
                .truncate(true)
                .open(&unfinished)?;
            file.write_all(&der.0)?;
            file.sync_all()?;
            fs::rename(&unfinished, &path)?;
            File::open(&self.0)?.sync_all()
        })();
        if written.is_err() {
            // What is left of it takes the room of everything else in the data directory.
            let _ = fs::remove_file(&unfinished);
        }
        written.map_err(|error| self.unusable(&error))
    }

    fn read(&self, digest: CrlDigest) -> Result<CrlDer, StoreError> {
        let corrupt = |what: &str| StoreError::Corrupt {
            table: "crl",
            row: format!("sha256 {digest}"),
            what: format!("{} {what}", self.path(digest).display()),
        };
        let path = self.path(digest);
        if !files::check_private(&path).map_err(|error| self.unusable(&error))? {
            return Err(corrupt("is missing"));
        }
        let der = fs::read(&path).map_err(|error| self.unusable(&error))?;
        match CrlDigest::of_der(&der) == digest {
            true => Ok(CrlDer(der.into())),
            false => Err(corrupt("is not what was written there")),
        }
    }

    fn sweep(&self, named: &HashSet<CrlDigest>) -> io::Result<()> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        let named: HashSet<PathBuf> = named.iter().map(|digest| self.path(*digest)).collect();
        for entry in entries {
            let path = entry?.path();
            let ours = [".crl", ".crl.new"].iter().any(|suffix| {
                path.as_os_str()
                    .as_encoded_bytes()
                    .ends_with(suffix.as_bytes())
            });
            if ours && !named.contains(&path) {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    fn path(&self, digest: CrlDigest) -> PathBuf {
        self.0.join(format!("{digest}.crl"))
    }

    fn unusable(&self, error: &io::Error) -> StoreError {
        StoreError::Unusable {
            what: format!("the CRLs in {}: {error}", self.0.display()),
        }
    }
}
