//! What a connection waits for, all at once.
//!
//! One look takes all that can be taken: a message that is to be sent is written and flushed, and what the
//! client has sent is read, before the task gives up its turn. For a single message the looks are most of
//! the work.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::futures::Notified;
use tokio::task::coop::has_budget_remaining;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFuture;

use super::Connection;
use crate::mqtt::bus::{BusError, Routed};
use crate::mqtt::identity::Peer;
use crate::mqtt::shard::Cell;
use crate::tls::live::Cut;

/// What has happened.
pub(super) enum Event {
    /// The peer's trust has ended.
    Cut(Cut),
    /// The broker stops.
    Shutdown,
    /// What has come of the message that had to wait.
    Published(Result<Routed, BusError>),
    /// The client has taken something, and there is more to do now.
    Written,
    /// The client has sent something.
    Read,
    /// The client has gone, or cannot be reached.
    Lost,
    /// There may be something to send, or the session is to be let go.
    Woken,
    /// The time is up.
    Time,
}

/// What is told to the connection, and the time. Kept from wait to wait.
pub(super) struct Signals<'p, 'a, C> {
    pub(super) cut: Pin<&'p mut C>,
    pub(super) cell: &'a Cell,
    pub(super) woken: Pin<&'p mut Notified<'a>>,
    pub(super) shutdown: Pin<&'p mut WaitForCancellationFuture<'a>>,
    pub(super) timer: Pin<&'p mut Sleep>,
    /// The last wait ended without a look at the client.
    pub(super) hurried: bool,
    /// Waits since the last one in which everything was looked at.
    pub(super) in_a_row: u32,
}

impl<C: Future<Output = Cut>> Signals<'_, '_, C> {
    /// What comes before anything is done for the client.
    fn poll_first(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        // First of all: whoever has to go gets nothing more.
        if let Poll::Ready(why) = self.cut.as_mut().poll(context) {
            return Poll::Ready(Event::Cut(why));
        }
        if self.in_a_row < MOST_IN_A_ROW {
            return Poll::Pending;
        }
        // The client has always something to do. The timer itself would say nothing while the task has had
        // its share of the time.
        self.in_a_row = 0;
        match self.timer.deadline() <= Instant::now() {
            true => Poll::Ready(Event::Time),
            false => self.poll_shutdown(context),
        }
    }

    fn poll_woken(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let woken = self.woken.as_mut().poll(context);
        if woken.is_ready() {
            self.woken.set(self.cell.woken());
        }
        woken
    }

    /// What may wait until nothing else is to be done. All connections share the first.
    fn poll_last(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        if has_budget_remaining() {
            self.in_a_row = 0;
        }
        if let Poll::Ready(event) = self.poll_shutdown(context) {
            return Poll::Ready(event);
        }
        let up = self.timer.as_mut().poll(context);
        up.map(|()| Event::Time)
    }

    fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        let stops = self.shutdown.as_mut().poll(context);
        stops.map(|()| Event::Shutdown)
    }
}

impl<S, P> Connection<'_, S, P>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    P: Peer,
{
    /// Write what there is to write, until something else happens. Cancel safe.
    pub(super) async fn wait<C: Future<Output = Cut>>(
        &mut self,
        signals: &mut Signals<'_, '_, C>,
        may_read: bool,
    ) -> Event {
        if may_read {
            self.input.reserve(self.chunk);
        }
        signals.in_a_row += 1;
        std::future::poll_fn(|context| {
            if let Poll::Ready(event) = signals.poll_first(context) {
                return Poll::Ready(event);
            }
            let woken = signals.poll_woken(context).is_ready();
            // What there is to send is collected before the client is looked at, but not twice in a row:
            // it shall be heard, too, however much there is for it.
            signals.hurried = woken && !signals.hurried;
            if signals.hurried {
                return Poll::Ready(Event::Woken);
            }
            if let Poll::Ready(event) = self.poll_client(context, may_read) {
                return Poll::Ready(event);
            }
            if woken {
                return Poll::Ready(Event::Woken);
            }
            signals.poll_last(context)
        })
        .await
    }

    fn poll_client(&mut self, context: &mut Context<'_>, may_read: bool) -> Poll<Event> {
        // Nothing comes of the message that waits once its publisher has to go: the cut that ends the
        // connection is there at the same time.
        if let Some(publishing) = &mut self.publishing
            && self.peer.cut().is_none()
            && let Poll::Ready(result) = publishing.result.as_mut().poll(context)
        {
            return Poll::Ready(Event::Published(result));
        }
        let written = self.write_now(context);
        if !may_read {
            return match written {
                // There is room for what was not collected, and so not read, for want of it.
                true => Poll::Ready(Event::Written),
                false => Poll::Pending,
            };
        }
        match pin!(self.stream.read_buf(&mut self.input)).poll(context) {
            Poll::Ready(Ok(octets)) if octets > 0 => {
                self.hub.sys.tally.octets_received.add(octets);
                self.adapt(octets);
                Poll::Ready(Event::Read)
            }
            Poll::Pending if !self.is_deaf || !has_budget_remaining() => Poll::Pending,
            Poll::Ready(_) | Poll::Pending => Poll::Ready(Event::Lost),
        }
    }

    /// Write, and flush if that is all, as far as the client takes it now. Whether there is more room than
    /// before.
    fn write_now(&mut self, context: &mut Context<'_>) -> bool {
        if !self.is_deaf {
            match self.try_write(context) {
                Ok(octets) => return octets > 0,
                // What it has sent before is read all the same: its DISCONNECT may be there.
                Err(_) => self.is_deaf = true,
            }
        }
        let had_something = !self.output.is_empty();
        self.output.clear();
        self.unflushed = false;
        self.stalled = None;
        had_something
    }

    /// Gives how many octets the client has taken.
    fn try_write(&mut self, context: &mut Context<'_>) -> io::Result<usize> {
        let mut octets = 0;
        while !self.output.is_empty()
            && let Poll::Ready(written) =
                pin!(self.stream.write_buf(&mut self.output)).poll(context)
        {
            match written? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                some => octets += some,
            }
        }
        if octets > 0 {
            self.hub.sys.tally.octets_sent.add(octets);
            self.unflushed = true;
            self.stalled = None;
            self.shrink_output();
        }
        if self.unflushed && self.output.is_empty() {
            self.unflushed = Pin::new(&mut self.stream).poll_flush(context)?.is_pending();
        }
        match self.unflushed || !self.output.is_empty() {
            true => _ = self.stalled.get_or_insert_with(Instant::now),
            false => self.stalled = None,
        }
        Ok(octets)
    }
}

/// Waits that may end before everything is looked at.
const MOST_IN_A_ROW: u32 = 64;
