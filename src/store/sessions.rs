//! The sessions of one instance that wait for their clients, and its retained messages.
//!
//! They are no records of the registry: they change with every message, and losing them lets
//! nobody in. So they have a file of their own, which is written a while after the changes, and
//! may fail without taking the registry along.
//!
//! One thing is always on disk before it counts: that a session is in use again
//! ([`SessionStore::forget`]). What is on disk is therefore never older than what a client knows.

mod file;
pub mod record;
mod rows;
mod sqlite;
#[cfg(test)]
mod tests;
mod writer;

use std::future::Future;
use std::path::Path;
use std::pin::Pin;

use tokio::sync::mpsc;

use self::record::{Row, Write};
use super::{Durable, StoreError, StoreFuture};

pub use self::sqlite::SqliteSessions;

/// The sessions and retained messages of one instance, behind whatever keeps them.
///
/// Requests are carried out in the order in which they are made.
pub trait SessionStore: Send + Sync + 'static {
    /// Read all that is kept, table by table, in batches, as fast as they are taken. To be called
    /// once, before anything is written.
    ///
    /// # Errors
    /// [`StoreError::Database`] if the file fails. What cannot be understood is a
    /// [`Row::Unreadable`].
    fn load(&self, to: mpsc::Sender<Vec<Row>>) -> StoreFuture<'_, ()>;

    /// Write this, a while later. It never waits: whoever writes much waits for
    /// [`room`](Self::room) in between. What could not be written shows in
    /// [`failures`](Self::failures).
    fn write(&self, write: Write);

    /// Forget a session, since its client is back or it is over. It is asked for at once, and tried
    /// until it is done, also if the answer is not waited for. The answer is not kept waiting by
    /// a disk that hangs.
    fn forget(&self, session: u64) -> Pin<Box<dyn Future<Output = Durable> + Send>>;

    /// Wait until little is waiting to be written.
    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// Wait until all that was asked for before is on disk.
    ///
    /// # Errors
    /// If the last of it could not be written.
    fn flush(&self) -> StoreFuture<'_, ()>;

    /// How often something was given up because it could not be written. If it grows, nothing of
    /// what was written may be there.
    fn failures(&self) -> u64;

    /// Finish what waits, and close the file. Nothing is written any more.
    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// Give up what waits to be written. Nothing is written any more.
    fn abandon(&self);
}

/// Remove what is kept at `path`: nothing is to be there when sessions are kept again, since their
/// clients know better then. Whether there was something.
///
/// # Errors
/// [`StoreError::Unusable`] if it cannot be removed.
pub fn remove(path: &Path) -> Result<bool, StoreError> {
    file::remove(path)
}
