//! Files from which CRLs are imported whenever they change.
//!
//! They are looked at again and again rather than watched: that also works where no events come
//! from, such as network file systems, and for files that are replaced by a link. A file that
//! cannot be taken leaves the last list in force, and is told as an error.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::ca::crl::CrlError;
use crate::ca::id::{AccountId, InstanceId, RequestId};
use crate::config::{Config, CrlSource};
use crate::control::crl::NewCrl;
use crate::control::{Caller, Control, ControlError, CrlRefusal, Door, Grant, Principal};

/// The files that are looked at.
pub(super) struct CrlFiles {
    control: Control,
    sources: Vec<Source>,
    poll: Duration,
    /// Octets of a file that is read.
    most: usize,
}

struct Source {
    instance: InstanceId,
    account: AccountId,
    written: CrlSource,
    seen: HashMap<PathBuf, Seen>,
}

/// What became of a file.
struct Seen {
    stamp: Option<Stamp>,
    /// What is wrong with it, and when it is tried again.
    fault: Option<(String, Instant)>,
}

/// What changes when a file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Why a file gave no list.
enum Fault {
    File(io::Error),
    /// It was written to while it was read.
    Moving,
    TooLarge(usize),
    Refused(ControlError),
}

impl CrlFiles {
    pub(super) fn new(config: &Config, control: &Control) -> Self {
        let sources = config.instances.iter().flat_map(|instance| {
            instance.crls.iter().map(|written| Source {
                instance: instance.id.clone(),
                account: instance.account.clone(),
                written: written.clone(),
                seen: HashMap::new(),
            })
        });
        Self {
            control: control.clone(),
            sources: sources.collect(),
            poll: config.crl_poll,
            most: config.registry.max_crl_octets.saturating_mul(3) / 2,
        }
    }

    /// Look at the files, for ever.
    pub(super) async fn follow(mut self) {
        if self.sources.is_empty() {
            return;
        }
        let mut every = tokio::time::interval(self.poll);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            self.look().await;
        }
    }

    /// Import what is new or has changed.
    pub(super) async fn look(&mut self) {
        for source in &mut self.sources {
            source.look(&self.control, self.most).await;
        }
        let faults = self.sources.iter().flat_map(|it| it.seen.values());
        let failing = faults.filter(|seen| seen.fault.is_some()).count();
        let failing = u32::try_from(failing).unwrap_or(u32::MAX);
        metrics::gauge!("portcullis_crl_files_failing").set(f64::from(failing));
    }
}

impl Source {
    async fn look(&mut self, control: &Control, most: usize) {
        let path = self.written.path.clone();
        let found = blocking(move || files_of(&path)).await;
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                let path = self.written.path.clone();
                self.failed(path, None, &Fault::File(error));
                return;
            }
        };
        let there: HashSet<&PathBuf> = found.iter().map(|(path, _)| path).collect();
        self.seen.retain(|path, _| {
            let stays = there.contains(path);
            if !stays && *path != self.written.path {
                tracing::warn!(file = %path.display(), "a CRL's file is gone; its list stays in force");
            }
            stays
        });
        for (path, stamp) in found {
            if self.is_done(&path, stamp) {
                continue;
            }
            match self.import(control, &path, stamp, most).await {
                Ok(()) => {
                    let fault = None;
                    let stamp = Some(stamp);
                    self.seen.insert(path, Seen { stamp, fault });
                }
                Err(fault) => self.failed(path, Some(stamp), &fault),
            }
        }
    }

    /// Whether there is nothing to do about the file now.
    fn is_done(&self, path: &Path, stamp: Stamp) -> bool {
        self.seen.get(path).is_some_and(|seen| {
            let waits = |(_, again): &(String, Instant)| *again > Instant::now();
            seen.stamp == Some(stamp) && seen.fault.as_ref().is_none_or(waits)
        })
    }

    async fn import(
        &self,
        control: &Control,
        path: &Path,
        stamp: Stamp,
        most: usize,
    ) -> Result<(), Fault> {
        let file = path.to_owned();
        let content = blocking(move || Ok(read(&file, stamp, most))).await;
        let content = content.map_err(Fault::File)??;
        let new = NewCrl {
            content,
            ca: self.written.ca.clone(),
            file: Some(path.to_owned()),
        };
        let imported = control
            .import_crl(&self.caller(), self.instance.as_str(), new)
            .await
            .map_err(Fault::Refused)?;
        if imported.changed {
            let crl = imported.crl;
            tracing::info!(
                instance = %self.instance,
                file = %path.display(),
                ca.sn = crl.ca_sn.map(tracing::field::display),
                crl.number = %crl.number,
                entries = crl.entries,
                sessions = imported.sessions_ended,
                "CRL imported from its file"
            );
        }
        Ok(())
    }

    /// Tell it once, and again when it is another fault.
    fn failed(&mut self, path: PathBuf, stamp: Option<Stamp>, fault: &Fault) {
        let text = fault.to_string();
        let known = self.seen.get(&path).is_some_and(|seen| {
            let same = seen.fault.as_ref().is_some_and(|(known, _)| *known == text);
            same && seen.stamp == stamp
        });
        if let Fault::Moving = fault {
            tracing::info!(instance = %self.instance, file = %path.display(), "a CRL's file is being written");
        } else if !known {
            tracing::error!(instance = %self.instance, file = %path.display(), error = text, "a CRL's file cannot be taken; the last list stays in force");
        }
        let fault = Some((text, Instant::now() + fault.pause()));
        self.seen.insert(path, Seen { stamp, fault });
    }

    fn caller(&self) -> Caller {
        Caller {
            principal: Principal::System,
            account: self.account.clone(),
            grant: Grant::Everything,
            door: Door::System,
            address: None,
            request_id: RequestId::from_random(uuid::Uuid::new_v4().into_bytes()),
        }
    }
}

impl Fault {
    /// How long to wait before the same file is tried again.
    fn pause(&self) -> Duration {
        match self {
            // Tried at the next look: nothing of the list is read before its CA is there.
            Self::File(_)
            | Self::Moving
            | Self::Refused(
                ControlError::CaNotFound(_)
                | ControlError::CrlRefused(CrlRefusal::Crl(CrlError::NotSigned { .. })),
            ) => Duration::ZERO,
            Self::TooLarge(_) | Self::Refused(_) => PAUSE,
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Moving => f.write_str("it is being written"),
            Self::TooLarge(most) => write!(f, "it has more than {most} octets"),
            Self::Refused(error) => error.fmt(f),
        }
    }
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// The file, or the files in the directory, in the order of their names.
fn files_of(path: &Path) -> io::Result<Vec<(PathBuf, Stamp)>> {
    let metadata = fs::metadata(path)?;
    if metadata.is_file() {
        return Ok(vec![(path.to_owned(), Stamp::of(&metadata))]);
    }
    if !metadata.is_dir() {
        // To open a pipe would wait for whoever writes to it.
        return Err(io::Error::other(
            "it is neither a plain file nor a directory",
        ));
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        let hidden = path
            .file_name()
            .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        // What is gone by now will not be there the next time.
        if let (false, Ok(metadata)) = (hidden, fs::metadata(&path))
            && metadata.is_file()
        {
            found.push((path, Stamp::of(&metadata)));
        }
        if found.len() > MOST_FILES {
            return Err(io::Error::other(format!(
                "there are more than {MOST_FILES} files in it"
            )));
        }
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(found)
}

fn read(path: &Path, stamp: Stamp, most: usize) -> Result<Bytes, Fault> {
    let file = File::open(path).map_err(Fault::File)?;
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    let mut content = Vec::new();
    (&file)
        .take(limit)
        .read_to_end(&mut content)
        .map_err(Fault::File)?;
    if content.len() > most {
        return Err(Fault::TooLarge(most));
    }
    match Stamp::of(&file.metadata().map_err(Fault::File)?) == stamp {
        true => Ok(content.into()),
        false => Err(Fault::Moving),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(io::Error::other)?
}

/// Files of one directory.
const MOST_FILES: usize = 10_000;

/// How long to wait before a file that was refused is tried again as it is.
const PAUSE: Duration = Duration::from_secs(60);
