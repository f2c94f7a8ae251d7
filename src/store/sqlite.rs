//! The store of a single node: one SQLite file, files for large lists, and four threads.
//!
//! The writer owns the connection through which everything is written; the reader has one of its
//! own for snapshots, so that a large one holds up no change; a third one looks up certificates of
//! devices, so that a snapshot holds up no listing. The fourth one writes and reads lists of
//! revoked certificates, which have a file each. The database file can be looked at, and
//! edited, with the `sqlite3` command while the broker runs.

mod der;
mod lists;
mod lock;
mod place;
mod rows;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, oneshot, watch};

use self::lists::{ListRequest, Lists};
use self::lock::DirectoryLock;
use self::place::Place;
use self::writer::{Answer, Commit, Request, Writer};
use super::{
    Change, CrlDer, DeviceId, DeviceRecord, Parts, Snapshot, Store, StoreError, StoreFuture, files,
    migrations,
};
use crate::ca::id::CrlDigest;

/// How long a write waits for another program that holds the database.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Octets of a page. A row is about one kilobyte: fewer, larger pages make a large snapshot a
/// third faster than SQLite's 4096, and a small commit still writes only a few of them.
const PAGE_SIZE: i64 = 8192;

/// Serial numbers are random, so that each new device touches random pages of two indexes.
const WRITER_CACHE_KIB: i64 = 32 * 1024;

/// How many commits may wait for the writer; more wait before they hold any memory of ours.
const MAX_WAITING: usize = 1024;

/// The same for those who want certificates.
const MAX_LOOKUPS: usize = 64;

/// The kept records in a SQLite file. Dropping it finishes what waits and closes the file.
pub struct SqliteStore {
    // In this order: the reader is done before the writer closes the database for good.
    reader: Worker<Reading>,
    lookups: Worker<Lookup>,
    writer: Worker<Request>,
    lists: Worker<ListRequest>,
    /// Held from the writing of a file until the rows have changed: between them no file goes.
    lists_change: Mutex<()>,
    heads: watch::Receiver<u64>,
    slots: Arc<Semaphore>,
    lookup_slots: Arc<Semaphore>,
}

impl SqliteStore {
    /// Open the database at `path`, or create it with mode 0600 (and its directory with mode
    /// 0700); bring its tables up to date; start the threads.
    ///
    /// Beside `path`, files with the suffixes `-wal` and `-shm` (SQLite's) and `.lock` (ours)
    /// appear, and a directory `crls` once there are lists of revoked certificates.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] if another broker uses it, if others may read it, if it was
    /// written by a newer version (nothing is touched then), or if it is no registry at all.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let lock = DirectoryLock::take(path)?;
        for suffix in ["-wal", "-shm"] {
            files::check_private(&files::with_suffix(path, suffix)).map_err(unusable)?;
        }
        files::ensure_private(path).map_err(unusable)?;

        let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        // Until the version is known to be ours, not even the log is folded into the file.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        let version = migrations::check(&connection).map_err(|error| not_ours(path, error))?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        // Takes effect in an empty file only.
        connection.pragma_update(None, "page_size", PAGE_SIZE)?;
        connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
        let mode: String =
            connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
        if mode != "wal" {
            return Err(StoreError::Unusable {
                what: format!(
                    "{} is on a file system that cannot share memory between programs, which \
                     SQLite's write-ahead log needs: use a local disk",
                    path.display()
                ),
            });
        }
        connection.pragma_update(None, "synchronous", "FULL")?;
        // A secret that was replaced or deleted is not to be found in free pages.
        connection.pragma_update(None, "secure_delete", true)?;
        migrations::apply(&connection, version)?;
        connection.pragma_update(None, "foreign_keys", true)?;

        let lists = Lists::beside(path, &rows::digests(&connection)?)?;

        let reading = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let looking_up = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let place = Place::of(path)?;
        let looked_up_at = place.clone();
        let (writer, heads) = Writer::new(connection, place.clone(), lock)?;
        Ok(Self {
            reader: Worker::start("store-reader", move |requests| {
                read(&reading, &place, &requests);
            })?,
            lookups: Worker::start("store-lookups", move |requests| {
                look_up(&looking_up, &looked_up_at, &requests);
            })?,
            writer: Worker::start("store-writer", move |requests| writer.run(&requests))?,
            lists: Worker::start("store-lists", move |requests| lists.run(&requests))?,
            lists_change: Mutex::new(()),
            heads,
            slots: Arc::new(Semaphore::new(MAX_WAITING)),
            lookup_slots: Arc::new(Semaphore::new(MAX_LOOKUPS)),
        })
    }
}

impl Store for SqliteStore {
    fn snapshot_by_parts(&self) -> StoreFuture<'_, Parts> {
        Box::pin(async move {
            let (rest, read) = oneshot::channel();
            let (devices, devices_read) = oneshot::channel();
            self.reader.ask(Reading { rest, devices })?;
            Ok(Parts {
                rest: read.await.unwrap_or(Err(StoreError::Closed))?,
                devices: Box::pin(async { devices_read.await.unwrap_or(Err(StoreError::Closed)) }),
            })
        })
    }

    fn head(&self) -> StoreFuture<'_, u64> {
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            self.writer.ask(Request::Head(answer))?;
            answered.await.unwrap_or(Err(StoreError::Closed))
        })
    }

    fn device_certificates(&self, devices: Vec<DeviceId>) -> StoreFuture<'_, Vec<Option<Bytes>>> {
        Box::pin(async move {
            let slot = a_slot(&self.lookup_slots).await?;
            let (answer, answered) = oneshot::channel();
            self.lookups.ask(Lookup {
                devices,
                answer,
                _slot: slot,
            })?;
            answered.await.unwrap_or(Err(StoreError::Closed))
        })
    }

    fn crl(&self, digest: CrlDigest) -> StoreFuture<'_, CrlDer> {
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            self.lists.ask(ListRequest::Read(digest, answer))?;
            answered.await.unwrap_or(Err(StoreError::Closed))
        })
    }

    fn prepare_crl(&self, digest: CrlDigest, der: CrlDer) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            self.lists.ask(ListRequest::Write(digest, der, answer))?;
            answered.await.unwrap_or(Err(StoreError::Closed))
        })
    }

    fn commit(&self, expected: u64, changes: Vec<Change>) -> StoreFuture<'_, u64> {
        Box::pin(async move {
            if !changes.iter().any(Change::is_of_a_list) {
                return self.commit_rows(expected, changes).await;
            }
            let _alone = self.lists_change.lock().await;
            for change in &changes {
                if let Change::PutCrl { record, der } = change {
                    self.prepare_crl(record.digest, der.clone()).await?;
                }
            }
            let committed = self.commit_rows(expected, changes).await;
            if !matches!(committed, Ok(_) | Err(StoreError::Conflict { .. })) {
                // A crash may bring it back, and with it a row that needs its file.
                return committed;
            }
            match self.named_lists().await {
                Ok(named) => self.lists.ask(ListRequest::Sweep(named))?,
                // They go at the next start.
                Err(error) => tracing::warn!(%error, "which CRLs are kept could not be read"),
            }
            committed
        })
    }

    fn changed(&self, after: u64) -> StoreFuture<'_, u64> {
        let mut heads = self.heads.clone();
        Box::pin(async move {
            let head = heads.wait_for(|&head| head > after).await;
            head.map(|head| *head).map_err(|_| StoreError::Closed)
        })
    }
}

impl SqliteStore {
    async fn commit_rows(&self, expected: u64, changes: Vec<Change>) -> Result<u64, StoreError> {
        let slot = a_slot(&self.slots).await?;
        let (answer, answered) = oneshot::channel();
        self.writer.ask(Request::Commit(Commit {
            expected,
            changes,
            answer,
            _slot: slot,
        }))?;
        answered.await.unwrap_or(Err(StoreError::Closed))
    }

    async fn named_lists(&self) -> Result<HashSet<CrlDigest>, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.writer.ask(Request::NamedLists(answer))?;
        answered.await.unwrap_or(Err(StoreError::Closed))
    }
}

async fn a_slot(slots: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, StoreError> {
    let slot = Arc::clone(slots).acquire_owned().await;
    slot.map_err(|_| StoreError::Closed)
}

/// A thread and the way to ask it; dropping it lets the thread finish what waits, and waits for
/// that.
pub(super) struct Worker<T> {
    requests: Option<mpsc::Sender<T>>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Worker<T> {
    pub(super) fn start(
        name: &str,
        run: impl FnOnce(mpsc::Receiver<T>) + Send + 'static,
    ) -> Result<Self, StoreError> {
        let (requests, receiver) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(receiver))
            .map_err(|error| StoreError::Unusable {
                what: format!("the thread {name} cannot be started: {error}"),
            })?;
        Ok(Self {
            requests: Some(requests),
            thread: Some(thread),
        })
    }

    pub(super) fn ask(&self, request: T) -> Result<(), StoreError> {
        let requests = self.requests.as_ref().ok_or(StoreError::Closed)?;
        requests.send(request).map_err(|_| StoreError::Closed)
    }
}

impl<T> Drop for Worker<T> {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a thread of the store had panicked");
        }
    }
}

/// Where a snapshot goes.
struct Reading {
    rest: Answer<Snapshot>,
    devices: Answer<Vec<DeviceRecord>>,
}

/// The reader's thread.
fn read(connection: &Connection, place: &Place, requests: &mpsc::Receiver<Reading>) {
    for Reading { rest, devices } in requests {
        let begun = place.check().and_then(|()| {
            let one_moment = connection.unchecked_transaction()?;
            Ok((rows::all_but_devices(connection)?, one_moment))
        });
        let ((snapshot, known), _one_moment) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                let _ = rest.send(Err(error));
                continue;
            }
        };
        // Nobody waits for the devices of a snapshot that nobody waits for.
        if rest.send(Ok(snapshot)).is_ok() && !devices.is_closed() {
            let _ = devices.send(rows::devices(connection, &known));
        }
    }
}

/// Whose certificates are asked for.
struct Lookup {
    devices: Vec<DeviceId>,
    answer: Answer<Vec<Option<Bytes>>>,
    /// Given back when it is answered.
    _slot: OwnedSemaphorePermit,
}

/// The thread that looks certificates up.
fn look_up(connection: &Connection, place: &Place, requests: &mpsc::Receiver<Lookup>) {
    for request in requests {
        if !request.answer.is_closed() {
            let found = place.check();
            let found =
                found.and_then(|()| rows::device_certificates(connection, &request.devices));
            let _ = request.answer.send(found);
        }
    }
}

fn connect(path: &Path, access: OpenFlags) -> Result<Connection, StoreError> {
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

fn unusable(error: std::io::Error) -> StoreError {
    StoreError::Unusable {
        what: error.to_string(),
    }
}

/// The error with the file's name, if SQLite says that the file is none of its own.
fn not_ours(path: &Path, error: StoreError) -> StoreError {
    match error {
        StoreError::Unusable { what } => StoreError::Unusable {
            what: format!("{}: {what}", path.display()),
        },
        StoreError::Database(error) => StoreError::Unusable {
            what: format!("{} cannot be read as a database: {error}", path.display()),
        },
        other => other,
    }
}
