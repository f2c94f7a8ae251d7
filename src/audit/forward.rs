//! Sending the records elsewhere as well: to a syslog collector, or as JSON lines.
//!
//! What is sent is read from the log's own files, after it was flushed. So a collector that is away
//! costs no memory and holds nobody up, and when it is back, it gets what it has missed: also after
//! a restart, since the number of the last record that was sent is kept beside the log. A record
//! can arrive twice; its `seq` and `hash` tell. With datagrams, or in the moment a connection
//! breaks, one can be lost on the way: a gap in `seq` tells that, too.

mod destination;
mod follow;
mod format;
mod position;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use metrics::{counter, gauge};

pub use self::destination::{BadDestination, Destination, HostPort};
pub use self::format::Format;

use self::destination::{Connection, NotSent};
use self::follow::{Follower, Taken};
use self::format::Frames;
use super::AuditError;

/// Where records are sent, and how they are written there.
#[derive(Debug, Clone)]
pub struct Forward {
    /// Where to.
    pub to: Destination,
    /// How.
    pub format: Format,
}

/// The thread that sends. Dropping it tries once more to send what is left, for
/// [`AT_THE_END`] at most.
pub(super) struct Forwarder {
    progress: Arc<Progress>,
    thread: Option<JoinHandle<()>>,
}

impl Forwarder {
    /// Begin to send what `progress` says is on disk, after what was sent before.
    pub(super) fn start(log: &Path, forward: Forward, progress: Arc<Progress>) -> io::Result<Self> {
        let sender = Sender {
            log: log.to_owned(),
            follower: Follower::new(log),
            frames: Frames::new(forward.format, forward.to.is_stream()),
            to: forward.to,
            connection: None,
            progress: Arc::clone(&progress),
            failing: false,
        };
        let thread = std::thread::Builder::new()
            .name("audit-forwarder".to_owned())
            .spawn(move || {
                let _ended = Ended(Arc::clone(&sender.progress));
                sender.run();
            })?;
        Ok(Self {
            progress,
            thread: Some(thread),
        })
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        if !self.progress.stop(AT_THE_END) {
            tracing::warn!(
                "the last audit records are not forwarded yet; they are at the next start"
            );
            return;
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that forwards audit records had panicked");
        }
    }
}

/// Says that the thread is at its end, in whatever way it got there.
struct Ended(Arc<Progress>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.change(|state| state.ended = true);
    }
}

/// Up to which record the log is on disk, for whoever waits to read it.
#[derive(Debug, Default)]
pub(super) struct Progress {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default, Clone, Copy)]
struct State {
    flushed: u64,
    stopping: bool,
    ended: bool,
}

impl Progress {
    /// The records up to this one are on disk.
    pub(super) fn flushed(&self, seq: u64) {
        self.change(|state| state.flushed = seq);
    }

    /// Have the reader stop, and wait until it has; `false` if that takes longer.
    fn stop(&self, limit: Duration) -> bool {
        self.change(|state| state.stopping = true);
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .changed
            .wait_timeout_while(state, limit, |it| !it.ended);
        waited.unwrap_or_else(PoisonError::into_inner).0.ended
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    /// How it is as soon as there is something after `seq`, or it is to stop.
    fn after(&self, seq: u64) -> State {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .changed
            .wait_while(state, |it| it.flushed <= seq && !it.stopping);
        *waited.unwrap_or_else(PoisonError::into_inner)
    }

    /// Wait; less if it is to stop.
    fn pause(&self, time: Duration) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // How it ended does not matter.
        let _ = self
            .changed
            .wait_timeout_while(state, time, |it| !it.stopping);
    }
}

struct Sender {
    log: PathBuf,
    follower: Follower,
    frames: Frames,
    to: Destination,
    connection: Option<Connection>,
    progress: Arc<Progress>,
    /// Told already, so not again until it works.
    failing: bool,
}

/// Why a round of sending ended early.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Unreadable(#[from] AuditError),
    #[error("{0}")]
    Unreachable(#[from] io::Error),
}

impl Sender {
    fn run(mut self) {
        match position::read(&self.log) {
            Ok(Some(position)) => self.follower.resume(position),
            Ok(None) => {}
            Err(error) => tracing::warn!(
                %error,
                "where forwarding of audit records ended is not known; it begins with the oldest"
            ),
        }
        let mut pause = FIRST_PAUSE;
        loop {
            let state = self.progress.after(self.follower.sent());
            match self.send_up_to(state.flushed) {
                Ok(()) => {
                    pause = FIRST_PAUSE;
                    if std::mem::take(&mut self.failing) {
                        tracing::info!(to = %self.to, "audit records are forwarded again");
                    }
                }
                Err(error) => {
                    self.connection = None;
                    self.follower.rewind();
                    if !std::mem::replace(&mut self.failing, true) {
                        tracing::error!(
                            to = %self.to,
                            %error,
                            "audit records cannot be forwarded; they wait in the log, and this is tried again"
                        );
                    }
                    if !state.stopping {
                        self.progress.pause(pause);
                        pause = (pause * 2).min(LAST_PAUSE);
                    }
                }
            }
            if state.stopping {
                return;
            }
        }
    }

    /// Send the records up to this one, some at a time.
    fn send_up_to(&mut self, flushed: u64) -> Result<(), Fault> {
        loop {
            gauge!(WAITING).set(flushed.saturating_sub(self.follower.sent()) as f64);
            let taken = self.follower.take(flushed)?;
            if taken.records.is_empty() {
                return Ok(());
            }
            self.send(&taken)?;
            self.follower.advance();
            if taken.missing > 0 {
                counter!(SKIPPED, "reason" => "missing").increment(taken.missing);
                tracing::error!(
                    records = taken.missing,
                    "audit records are not in the log any more, and were not forwarded"
                );
            }
            if let Err(error) = position::write(&self.log, self.follower.position()) {
                tracing::warn!(%error, "after a restart, audit records will be forwarded twice");
            }
        }
    }

    fn send(&mut self, taken: &Taken) -> Result<(), Fault> {
        if !self.connection.as_mut().is_some_and(Connection::is_open) {
            self.connection = None;
        }
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(self.to.connect()?),
        };
        for frame in self.frames.of(&taken.records)? {
            match connection.send(&frame.octets) {
                Ok(()) => counter!(SENT).increment(frame.records),
                Err(NotSent::TooLong) => {
                    counter!(SKIPPED, "reason" => "too_long").increment(frame.records);
                    tracing::error!(
                        octets = frame.octets.len(),
                        "an audit record is too long for a datagram, and was not forwarded"
                    );
                }
                Err(NotSent::Failed(error)) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

const SENT: &str = "portcullis_audit_forwarded_total";
const SKIPPED: &str = "portcullis_audit_forward_skipped_total";
const WAITING: &str = "portcullis_audit_forward_waiting";

/// After a failure, until it is tried again: twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(30);

/// How long the end of the program waits for what is left.
const AT_THE_END: Duration = Duration::from_secs(2);
