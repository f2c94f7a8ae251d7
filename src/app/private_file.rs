//! Files that only their owner may read, written so that a reader sees the old or the new
//! content and never half of it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Mode of a private file: read and written by its owner only.
pub const FILE_MODE: u32 = 0o600;

/// Mode of a private directory.
pub const DIRECTORY_MODE: u32 = 0o700;

/// Write `content` to `path` with mode 0600: to a temporary file beside it, which is flushed
/// and renamed over it.
///
/// # Errors
/// If one of the steps fails; `path` is unchanged then, or complete.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let mut temporary_name = std::ffi::OsString::from(".");
    temporary_name.push(name);
    temporary_name.push(format!(".{}.tmp", std::process::id()));
    let temporary = directory.join(temporary_name);
    // What a killed process of the same number left behind.
    let _ = fs::remove_file(&temporary);
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
        return written;
    }
    File::open(directory)?.sync_all()
}

/// Create the directory with mode 0700, and its parents, if it does not exist.
///
/// # Errors
/// If it cannot be created, or `path` is something else.
pub fn create_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().mode(DIRECTORY_MODE).create(path)
}

/// Take away what others than the owner may do with the file or directory. Gives `true` if
/// there was something to take away.
///
/// # Errors
/// If the mode cannot be read or changed.
pub fn tighten(path: &Path) -> io::Result<bool> {
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(false);
    }
    fs::set_permissions(path, Permissions::from_mode(mode & 0o700))?;
    Ok(true)
}

/// Whether others than the owner may read or write the file.
///
/// # Errors
/// If the mode cannot be read.
pub fn is_open_to_others(path: &Path) -> io::Result<bool> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o077 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_file_is_private_complete_and_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        write(&path, b"first").unwrap();
        write(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert!(!is_open_to_others(&path).unwrap());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn tighten_takes_rights_away_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("open");
        fs::write(&path, b"").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(tighten(&path).unwrap());
        assert!(!tighten(&path).unwrap());
    }
}
