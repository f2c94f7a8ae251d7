//! Files from which CRLs are imported whenever they change.
//!
//! They are looked at again and again rather than watched: that also works where no events come
//! from, such as network file systems, and for files that are replaced by a link. A file that
//! cannot be taken leaves the last list in force, and is told as an error: once for what is in it and
//! what is wrong with that, however often it is tried again.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;

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
    fault: Option<Told>,
}

/// What is wrong with a file, and told.
struct Told {
    text: String,
    /// What was in it, if it could be read.
    content: Option<Content>,
    /// How long to wait before it is tried again as it is, and until when that is.
    pause: Duration,
    again: Instant,
    /// The CAs that it was tried with, as a number that goes up.
    cas: u64,
}

/// SHA-256 of what is in a file.
type Content = Box<[u8]>;

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

    /// Look for the first time, before anybody is served. A file system that does not answer holds up
    /// the start: whoever is on a CRL that is there must not get in. It is told why.
    pub(super) async fn look_first(&mut self) {
        let mut every = tokio::time::interval(TELL);
        every.reset();
        let look = self.look();
        tokio::pin!(look);
        loop {
            tokio::select! {
                () = &mut look => return,
                _ = every.tick() => {
                    tracing::warn!("the files of the CRLs are being read; nobody is served before");
                }
            }
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
        // Before all else: one that is registered meanwhile has the files tried again.
        let cas = control.ca_changes(&self.instance);
        let path = self.written.path.clone();
        let found = blocking(move || files_of(&path)).await;
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                let path = self.written.path.clone();
                self.failed(path, None, None, cas, &Fault::File(error));
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
            if self.is_done(&path, stamp, cas) {
                continue;
            }
            let file = path.clone();
            let read = blocking(move || Ok(read(&file, stamp, most))).await;
            let (content, imported) = match read.map_err(Fault::File).flatten() {
                Ok((octets, content)) => {
                    let imported = self.import(control, &path, octets, &content).await;
                    (Some(content), imported)
                }
                Err(fault) => (None, Err(fault)),
            };
            match imported {
                Ok(()) => {
                    let fault = None;
                    let stamp = Some(stamp);
                    self.seen.insert(path, Seen { stamp, fault });
                }
                Err(fault) => self.failed(path, Some(stamp), content, cas, &fault),
            }
        }
    }

    /// Whether there is nothing to do about the file now.
    fn is_done(&self, path: &Path, stamp: Stamp, cas: u64) -> bool {
        self.seen.get(path).is_some_and(|seen| {
            let waits = |told: &Told| told.again > Instant::now() && told.cas == cas;
            seen.stamp == Some(stamp) && seen.fault.as_ref().is_none_or(waits)
        })
    }

    async fn import(
        &self,
        control: &Control,
        path: &Path,
        octets: Bytes,
        content: &Content,
    ) -> Result<(), Fault> {
        let told = self.told(path, Some(content));
        let new = NewCrl {
            content: octets,
            ca: self.written.ca.clone(),
            file: Some(path.to_owned()),
            told: told.map(|told| told.text.clone()),
            ..NewCrl::default()
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

    /// What was told of the file when this was in it.
    fn told(&self, path: &Path, content: Option<&Content>) -> Option<&Told> {
        let told = self.seen.get(path)?.fault.as_ref()?;
        Some(told).filter(|told| told.content.as_ref() == content)
    }

    /// Tell it once, and again when it is another fault or something else is in the file.
    fn failed(
        &mut self,
        path: PathBuf,
        stamp: Option<Stamp>,
        content: Option<Content>,
        cas: u64,
        fault: &Fault,
    ) {
        let text = fault.to_string();
        let before = self.told(&path, content.as_ref());
        let before = before.filter(|told| told.text == text);
        let known = before.is_some();
        let pause = fault.pause(before.map(|told| told.pause));
        if let Fault::Moving = fault {
            tracing::info!(instance = %self.instance, file = %path.display(), "a CRL's file is being written");
        } else if !known {
            tracing::error!(instance = %self.instance, file = %path.display(), error = text, "a CRL's file cannot be taken; the last list stays in force");
        }
        let fault = Some(Told {
            text,
            content,
            pause,
            again: Instant::now() + pause,
            cas,
        });
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
    /// How long to wait before the same file is tried again, if nothing else changes; `before` is how
    /// long that was the last time.
    fn pause(&self, before: Option<Duration>) -> Duration {
        match self {
            Self::File(_) | Self::Moving => Duration::ZERO,
            // What is in it cannot be taken, or not while things are as they are.
            Self::TooLarge(_)
            | Self::Refused(
                ControlError::CaNotFound(_)
                | ControlError::CrlRefused(
                    CrlRefusal::Crl(_)
                    | CrlRefusal::OtherIssuer { .. }
                    | CrlRefusal::NumberGoesBack { .. }
                    | CrlRefusal::DateGoesBack { .. },
                ),
            ) => before.map_or(PAUSE, |before| (before * 2).clamp(PAUSE, LONGEST_PAUSE)),
            // The time, a limit, a policy, the disk.
            Self::Refused(_) => PAUSE,
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

fn read(path: &Path, stamp: Stamp, most: usize) -> Result<(Bytes, Content), Fault> {
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
        true => {
            let digest = digest(&SHA256, &content);
            Ok((content.into(), digest.as_ref().into()))
        }
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

/// The same, when it has been tried often.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// How often it is told that the start waits.
const TELL: Duration = Duration::from_secs(10);
