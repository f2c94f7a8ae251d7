//! What a connection waits for, all at once.
//!
//! One look takes all that can be taken: a message that is to be sent is written and flushed, and what the
//! client has sent is read, before the task gives up its turn. For a single message the looks are most of
//! the work.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Connection, FAREWELL_LIMIT, WRITE_TARGET};
use crate::mqtt::bus::{BusError, Routed};
use crate::mqtt::identity::Peer;
use crate::mqtt::shard::{Cell, Listener};
use crate::tls::live::Cut;

/// What has happened.
pub(super) enum Event {
    /// The peer's trust has ended.
    Cut(Cut),
    /// The broker stops.
    Shutdown,
    /// What has come of the message that had to wait.
    Published(Result<Routed, BusError>),
    /// The client has taken enough for more to be collected.
    Written,
    /// The client takes nothing any more.
    Deaf,
    /// The client has sent something.
    Read,
    /// The client has gone.
    Lost,
    /// There may be something to send, or the session is to be let go.
    Woken,
    /// It is this time, or later.
    Time(Instant),
}

/// What is told to the connection, and the time. Kept from wait to wait.
pub(super) struct Signals<'a> {
    /// What is rare. Each is looked at only when it has woken the task: most looks find nothing here.
    rare: FuturesUnordered<Pin<Box<dyn Future<Output = Event> + Send + 'a>>>,
    /// What has happened of that.
    due: Option<Event>,
    looks_left: u32,
    /// When the end of the broker waits no more for what the client has said before.
    ends_at: Instant,
    shutdown: &'a CancellationToken,
    bell: Listener<'a>,
    /// The last wait ended without a look at the client.
    hurried: bool,
}

impl<'a> Signals<'a> {
    pub(super) fn new(
        peer: &'a impl Peer,
        shutdown: &'a CancellationToken,
        cell: &'a Cell,
    ) -> Self {
        let signals = Self {
            rare: FuturesUnordered::new(),
            due: None,
            looks_left: 0,
            ends_at: Instant::now(),
            shutdown,
            bell: cell.listen(),
            hurried: false,
        };
        signals.tell(async {
            tokio::select! {
                biased;
                why = peer.until_cut() => Event::Cut(why),
                () = shutdown.cancelled() => Event::Shutdown,
            }
        });
        signals
    }

    /// Tell the connection when this long has passed.
    pub(super) fn set_timer(&self, after: Duration) {
        let due = Instant::now() + after;
        self.tell(async move {
            tokio::time::sleep_until(due).await;
            Event::Time(due)
        });
    }

    fn poll_rare(&mut self, context: &mut Context<'_>) {
        if self.due.is_none()
            && let Poll::Ready(event) = self.rare.poll_next_unpin(context)
        {
            self.set_due(event);
        }
        // The end does not wait for the time to be judged.
        if matches!(self.due, Some(Event::Time(_))) && self.shutdown.is_cancelled() {
            self.set_due(Some(Event::Shutdown));
        }
    }

    fn set_due(&mut self, event: Option<Event>) {
        self.looks_left = match event {
            Some(Event::Time(_)) => MOST_LOOKS,
            Some(Event::Shutdown) => LAST_LOOKS,
            _ => 0,
        };
        if let Some(Event::Shutdown) = event {
            self.ends_at = Instant::now() + FAREWELL_LIMIT;
        }
        self.due = event;
    }

    /// Whether the client is looked at before what is due: what it has said by then counts, as far as it
    /// is there.
    fn may_look(&mut self) -> bool {
        let Some(due) = &self.due else {
            return true;
        };
        let is_over = matches!(due, Event::Shutdown) && self.ends_at <= Instant::now();
        match self.looks_left.checked_sub(1) {
            Some(left) if !is_over => {
                self.looks_left = left;
                true
            }
            _ => false,
        }
    }

    fn tell(&self, event: impl Future<Output = Event> + Send + 'a) {
        self.rare.push(Box::pin(event));
    }
}

impl<S, P> Connection<'_, S, P>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    P: Peer,
{
    /// Write what there is to write, until something else happens. Cancel safe.
    /// `may_read`: what was read before is processed. Even then nothing is read if there is no room for
    /// answers.
    pub(super) async fn wait(&mut self, signals: &mut Signals<'_>, may_read: bool) -> Event {
        if may_read {
            self.input.reserve(self.chunk);
        }
        std::future::poll_fn(|context| {
            signals.poll_rare(context);
            // First of all: whoever has to go gets nothing more.
            if let Some(why) = self.peer.cut() {
                return Poll::Ready(Event::Cut(why));
            }
            let woken = signals.bell.poll_rung(context).is_ready();
            // What there is to send is collected before the client is looked at, but not twice in a row:
            // it shall be heard, too, however much there is for it.
            signals.hurried = woken && !signals.hurried;
            if signals.hurried {
                return Poll::Ready(Event::Woken);
            }
            if signals.may_look()
                && let Poll::Ready(event) = self.poll_client(context, may_read)
            {
                return Poll::Ready(event);
            }
            match signals.due.take() {
                Some(event) => Poll::Ready(event),
                None if woken => Poll::Ready(Event::Woken),
                None => Poll::Pending,
            }
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
        let was_full = self.output.len() >= WRITE_TARGET;
        if self.write_now(context).is_err() {
            return Poll::Ready(Event::Deaf);
        }
        let has_room = self.output.len() < WRITE_TARGET;
        let (is_read, was_unread) = (may_read && has_room, self.patience.is_unread());
        match is_read {
            true => self.patience.note_read(),
            false => self.patience.note_unread(may_read),
        }
        if is_read
            && let Poll::Ready(read) = pin!(self.stream.read_buf(&mut self.input)).poll(context)
        {
            if !self.has_read(read) {
                return Poll::Ready(Event::Lost);
            }
            if was_unread || self.deaf_since.is_some() {
                self.patience.hear();
            }
            return Poll::Ready(Event::Read);
        }
        match was_full && has_room {
            // For what was not collected for want of it.
            true => Poll::Ready(Event::Written),
            false => Poll::Pending,
        }
    }

    /// Write, and flush if that is all, as far as the client takes it now.
    fn write_now(&mut self, context: &mut Context<'_>) -> io::Result<()> {
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
        Ok(())
    }
}

/// Looks at a client that always has something to do, before its time is judged.
const MOST_LOOKS: u32 = 64;
/// Looks at a client at the end of the broker: it may have said its DISCONNECT. From one that was idle they
/// read 127 KiB at most, each twice as much as the one before; of TLS one look gives a record or its rest.
const LAST_LOOKS: u32 = 8;
