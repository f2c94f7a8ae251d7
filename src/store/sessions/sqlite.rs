//! The sessions of an instance in a SQLite file.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{mpsc, oneshot};

use super::record::{Row, Write};
use super::writer::{Request, Shared, Writer};
use super::{SessionStore, file};
use crate::store::sqlite::Worker;
use crate::store::{Durable, PATIENCE, StoreError, StoreFuture};

/// How much may wait to be written before [`SessionStore::room`] waits, in octets.
const ROOM: usize = 8 << 20;

/// The sessions of an instance in a SQLite file, and the thread that writes it. Dropping it
/// finishes what waits and closes the file.
pub struct SqliteSessions {
    worker: Worker<Request>,
    shared: Arc<Shared>,
}

impl SqliteSessions {
    /// Open the file at `path`, or create it with mode 0600. A file that cannot be read is moved
    /// aside, to the same name with `.damaged-` and the time after it, and a new one is begun.
    ///
    /// The caller holds the lock of the data directory
    /// ([`SqliteStore`](crate::store::sqlite::SqliteStore)).
    ///
    /// # Errors
    /// [`StoreError::Unusable`] if another program uses the file, if others may read it, if a newer
    /// version wrote it, or if it can be neither opened nor moved aside.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let connection = file::open(path)?;
        let shared = Arc::new(Shared::new(path));
        let writer = Writer::new(path, connection, Arc::clone(&shared))?;
        Ok(Self {
            worker: Worker::start("session-writer", move |requests| writer.run(&requests))?,
            shared,
        })
    }

    #[cfg(test)]
    pub(super) fn ask(&self, request: Request) -> Result<(), StoreError> {
        self.worker.ask(request)
    }

    #[cfg(test)]
    pub(super) fn is_in_trouble(&self) -> bool {
        self.shared.is_in_trouble()
    }
}

impl SessionStore for SqliteSessions {
    fn load(&self, to: mpsc::Sender<Vec<Row>>) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            self.worker.ask(Request::Load(to, answer))?;
            answered.await.unwrap_or(Err(StoreError::Closed))
        })
    }

    fn write(&self, write: Write) {
        let size = write.size();
        self.shared.backlog.fetch_add(size, Ordering::AcqRel);
        if self.worker.ask(Request::Write(write, size)).is_err() {
            self.shared.backlog.fetch_sub(size, Ordering::AcqRel);
            self.shared.failures.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn forget(&self, session: u64) -> Pin<Box<dyn Future<Output = Durable> + Send>> {
        let (answer, answered) = oneshot::channel();
        let asked = self.worker.ask(Request::Forget(session, answer)).is_ok();
        let shared = Arc::clone(&self.shared);
        let waits = asked && !shared.is_in_trouble();
        Box::pin(async move {
            if !waits {
                return Durable::NotYet;
            }
            match tokio::time::timeout(PATIENCE, answered).await {
                Ok(answer) => answer.unwrap_or(Durable::NotYet),
                Err(_) => {
                    shared.waited_in_vain();
                    Durable::NotYet
                }
            }
        })
    }

    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            loop {
                let drained = self.shared.drained.notified();
                tokio::pin!(drained);
                drained.as_mut().enable();
                if self.shared.backlog.load(Ordering::Acquire) < ROOM {
                    return;
                }
                drained.await;
            }
        })
    }

    fn flush(&self) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            self.worker.ask(Request::Flush(answer))?;
            answered.await.unwrap_or(Err(StoreError::Closed))
        })
    }

    fn failures(&self) -> u64 {
        self.shared.failures.load(Ordering::Acquire)
    }

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            if self.worker.ask(Request::Close(answer)).is_ok() {
                // It is closed, or the thread has ended, which is the same.
                let _ = answered.await;
            }
        })
    }

    fn abandon(&self) {
        self.shared.abandoned.store(true, Ordering::Release);
    }
}
