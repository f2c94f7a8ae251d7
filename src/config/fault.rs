//! What is wrong with a configuration, all of it at once.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One thing that is wrong, at one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Path of the key, such as `instance[0].tls_key`.
    pub key: String,
    /// What was written there; `None` if nothing was.
    pub value: Option<String>,
    /// What is wrong with it, and what it may be.
    pub what: String,
}

/// Why there is no configuration to run on.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration file {} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML, has a key that does not exist, or a value of the wrong type.
    #[error("{origin} cannot be used:\n{what}")]
    Syntax {
        /// The file, or what stands for it.
        origin: String,
        /// Where, and what is wrong.
        what: String,
    },
    /// Values are wrong.
    #[error("{origin} cannot be used:{}", list(faults))]
    Faults {
        /// The file, or what stands for it.
        origin: String,
        /// Everything that is wrong with it.
        faults: Vec<Fault>,
    },
}

fn list(faults: &[Fault]) -> String {
    faults.iter().map(|fault| format!("\n  {fault}")).collect()
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{} = {value:?}: {}", self.key, self.what),
            None => write!(f, "{}: {}", self.key, self.what),
        }
    }
}

/// Collects faults while values are converted. A value that cannot be converted is noted and
/// replaced by `None`, so that the others are still looked at.
#[derive(Debug, Default)]
pub(super) struct Faults(pub(super) Vec<Fault>);

impl Faults {
    /// Note that `value` at `key` is wrong.
    pub(super) fn add(&mut self, key: &str, value: impl fmt::Display, what: impl Into<String>) {
        self.0.push(Fault {
            key: key.to_owned(),
            value: Some(value.to_string()),
            what: what.into(),
        });
    }

    /// Note that `key` is missing.
    pub(super) fn missing(&mut self, key: &str, what: &str) {
        self.0.push(Fault {
            key: key.to_owned(),
            value: None,
            what: what.to_owned(),
        });
    }

    /// The value, if it is there.
    pub(super) fn required<'a, T>(&mut self, key: &str, value: Option<&'a T>) -> Option<&'a T> {
        if value.is_none() {
            self.missing(key, "this key is required");
        }
        value
    }

    /// The value as read from its text.
    pub(super) fn parse<T>(&mut self, key: &str, text: &str) -> Option<T>
    where
        T: std::str::FromStr<Err: fmt::Display>,
    {
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.add(key, text, error.to_string());
                None
            }
        }
    }

    /// The meaning of one of a few words.
    pub(super) fn word<T: Copy>(
        &mut self,
        key: &str,
        text: &str,
        words: &[(&str, T)],
    ) -> Option<T> {
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let names: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            self.add(key, text, format!("must be one of {}", names.join(", ")));
        }
        found.map(|&(_, meaning)| meaning)
    }

    /// The number, if it is within the range.
    pub(super) fn number<T>(&mut self, key: &str, value: T, least: T, most: T) -> Option<T>
    where
        T: PartialOrd + fmt::Display,
    {
        if least <= value && value <= most {
            return Some(value);
        }
        self.add(key, value, format!("must be between {least} and {most}"));
        None
    }

    /// The time, if its seconds are within the range.
    pub(super) fn seconds(
        &mut self,
        key: &str,
        value: u64,
        least: u64,
        most: u64,
    ) -> Option<Duration> {
        self.number(key, value, least, most)
            .map(Duration::from_secs)
    }

    /// The text of a file that others must not be able to read or change.
    pub(super) fn secret_file(&mut self, key: &str, path: &Path) -> Option<super::Secret> {
        let shown = path.display();
        if self.is_exposed(key, path)? {
            return None;
        }
        match std::fs::read_to_string(path) {
            Ok(text) => Some(super::Secret::new(text)),
            Err(error) => {
                self.add(key, shown, format!("the file cannot be read: {error}"));
                None
            }
        }
    }

    /// Whether others can read or change the file with a secret; `None` if it cannot be said.
    /// Both are noted.
    pub(super) fn is_exposed(&mut self, key: &str, path: &Path) -> Option<bool> {
        use std::os::unix::fs::PermissionsExt;
        match std::fs::metadata(path) {
            Ok(metadata) => {
                // A group that may read it is a common arrangement for service accounts.
                let exposed = metadata.permissions().mode() & 0o027 != 0;
                if exposed {
                    let what = format!(
                        "the file holds a secret and is open to others (mode {:o}); run: chmod 600 {}",
                        metadata.permissions().mode() & 0o777,
                        path.display()
                    );
                    self.add(key, path.display(), what);
                }
                Some(exposed)
            }
            Err(error) => {
                let what = format!("the file cannot be read: {error}");
                self.add(key, path.display(), what);
                None
            }
        }
    }
}
