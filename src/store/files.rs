//! Files that only the broker's own user may read: created so, and refused if they are not.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Which file a path led to, to notice when it leads to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    /// The file at `path` now.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        Ok(Self::from(&fs::metadata(path)?))
    }

    /// The file that is open.
    pub(crate) fn of_open(file: &File) -> io::Result<Self> {
        Ok(Self::from(&file.metadata()?))
    }

    fn from(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// Create the file at `path` with mode 0600, and its directory with mode 0700, if they are
/// missing; otherwise check that nobody else may read the file or replace it.
///
/// # Errors
/// The text of the error names the path and the command that puts it right.
pub(crate) fn ensure_private(path: &Path) -> io::Result<()> {
    ensure_private_directory(path)?;
    if check_private(path)? {
        return Ok(());
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| named(path, "cannot be created", &error))?;
    // So that the file's name survives a power cut as well as what is written to it.
    File::open(directory_of(path))?.sync_all()
}

/// Check that the file at `path` is a plain file that only its owner may read and write; says
/// whether it exists.
///
/// It is not opened: closing a second handle on a database file would drop the locks that
/// SQLite holds on it in this process.
pub(crate) fn check_private(path: &Path) -> io::Result<bool> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(named(path, "cannot be looked at", &error)),
    };
    if !metadata.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} is not a plain file", path.display()),
        ));
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(denied(format!(
            "{path} is open to its group or to others (mode {mode:04o}): run `chmod 600 {path}`",
            path = path.display()
        )));
    }
    Ok(true)
}

/// The path with `suffix` appended to its last component.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn ensure_private_directory(path: &Path) -> io::Result<()> {
    let directory = directory_of(path);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| named(directory, "cannot be created", &error))?;
    let mode = fs::metadata(directory)?.permissions().mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(denied(format!(
            "{directory} can be written by its group or by others (mode {mode:04o}): run \
             `chmod go-w {directory}`",
            directory = directory.display()
        )));
    }
    Ok(())
}

/// The directory that the file at `path` is in.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn denied(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, text)
}

fn named(path: &Path, what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{} {what}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_file_and_directory_are_created_for_the_owner_only() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("data/deep/file");
        ensure_private(&path).unwrap();
        ensure_private(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let directory = path.parent().unwrap();
        assert_eq!(fs::metadata(directory).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn an_open_file_or_directory_is_refused_with_the_command_that_helps() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        ensure_private(&path).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o644, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = ensure_private(&path).unwrap_err().to_string();
            let command = format!("chmod 600 {}", path.display());
            assert!(error.contains(&command), "{error}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        ensure_private(&path).unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o775)).unwrap();
        let error = ensure_private(&path).unwrap_err().to_string();
        let command = format!("chmod go-w {}", root.path().display());
        assert!(error.contains(&command), "{error}");
    }

    #[test]
    fn what_is_no_plain_file_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("directory");
        fs::create_dir(&inner).unwrap();
        let error = ensure_private(&inner).unwrap_err().to_string();
        assert!(error.contains("not a plain file"), "{error}");
        let below_a_file = root.path().join("file/below");
        ensure_private(&root.path().join("file")).unwrap();
        assert!(ensure_private(&below_a_file).is_err());
    }
}
