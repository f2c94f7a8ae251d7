//! Connections that are to be woken, once for many messages.

use std::sync::Arc;

use super::Cell;

/// The connections of sessions that got messages and have not been told. All are told when this is
/// dropped, at the latest, so it is not kept across a wait.
///
/// Who gives sessions many messages in a row tells each connection of all of them at once: it then
/// writes them at once.
#[derive(Debug, Default)]
pub struct Wakes {
    cells: Vec<Arc<Cell>>,
    given: usize,
}

impl Wakes {
    /// A session was given a message; with or without something to send.
    pub(super) fn given(&mut self) {
        self.given += 1;
    }

    /// The connection has something to send.
    pub(super) fn add(&mut self, cell: &Arc<Cell>) {
        if cell.begin_wake() {
            self.cells.push(cell.clone());
            if self.cells.len() >= MOST {
                self.wake();
            }
        }
    }

    /// How often sessions were given a message since the last [`flush`](Self::flush): what the
    /// work was.
    pub fn work(&self) -> usize {
        self.given
    }

    /// Tell the connections.
    pub fn flush(&mut self) {
        self.given = 0;
        self.wake();
    }

    fn wake(&mut self) {
        for cell in self.cells.drain(..) {
            cell.end_wake();
        }
        if self.cells.capacity() > KEPT {
            self.cells = Vec::new();
        }
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        self.wake();
    }
}

/// Connections that may wait to be told.
const MOST: usize = 512;
/// For how many of them memory is kept.
const KEPT: usize = 64;
