//! One connection: octets in, octets out, and the ways it ends.
//!
//! One task for each connection. It reads only what it can process: while the bus makes it wait,
//! or much is there that the client does not take, nothing is read; unless nothing can reach it any more.
//! What is to be sent is collected and written in one go. A cut or kick is looked for before each
//! packet, and interrupts every wait.

mod admission;
mod cut;
mod end;
mod patience;
mod rights;
mod steps;
mod told;
mod wait;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use self::admission::Admitted;
use self::end::End;
use self::patience::Patience;
use self::wait::{Event, Signals};
use super::access::Rights;
use super::bus::{BusError, Routed};
use super::hub::Hub;
use super::identity::Peer;
use super::metrics::{self, Ending};
use super::session::Departure;
use super::settings::{SessionOnCut, WillOnCut};
use super::shard::{Cell, Wakes};
use super::sys::Refused;
use super::wire::encode::Outgoing;
use super::wire::{Decoder, Incoming, QoS, Version, reason};

/// Serve a client whose handshake is over, until the connection ends.
pub async fn run<S, P>(
    hub: &Arc<Hub>,
    stream: S,
    peer: P,
    remote: SocketAddr,
    shutdown: &CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    P: Peer,
{
    let number = hub.next_connection();
    let span = tracing::info_span!(
        "conn",
        conn.id = number,
        instance = %peer.verified().instance(),
        client.addr = %remote,
        ca.sn = %peer.verified().ca_sn(),
        device.sn = %peer.verified().serial(),
        mqtt.client_id = tracing::field::Empty,
    );
    let _counted = metrics::Connected::new();
    let mut connection = Connection {
        hub,
        peer: &peer,
        remote,
        number,
        span,
        stream,
        decoder: Decoder::new(hub.limits.max_packet.min(CONNECT_MAX_BYTES)),
        input: BytesMut::new(),
        chunk: CHUNK_MIN,
        output: BytesMut::new(),
        unflushed: false,
        stalled: None,
        patience: Patience::new(None, hub.limits.write_timeout),
        deaf_since: None,
        publishing: None,
        wakes: Wakes::default(),
        came: Came::default(),
        rights: None,
        denials_told: 0,
        refusal: None,
        left_with: None,
    };
    let ending = connection.serve(shutdown).await;
    metrics::connection_ended(ending);
}

struct Connection<'a, S, P> {
    hub: &'a Arc<Hub>,
    peer: &'a P,
    remote: SocketAddr,
    number: u64,
    /// What is logged of it belongs here.
    span: Span,
    stream: S,
    decoder: Decoder,
    input: BytesMut,
    chunk: usize,
    output: BytesMut,
    unflushed: bool,
    /// Since when the client has taken nothing of what is written, or not all of it.
    stalled: Option<Instant>,
    /// From CONNACK on.
    patience: Patience,
    /// Since when the client takes nothing any more. What it sends is read all the same for a while: its
    /// DISCONNECT may be among it.
    deaf_since: Option<Instant>,
    publishing: Option<Publishing>,
    /// Whom this connection has given messages, and not told yet.
    wakes: Wakes,
    /// What has come and is not in the figures yet.
    came: Came,
    /// What the client may do; nothing before its CONNECT is accepted.
    rights: Option<Arc<Rights>>,
    denials_told: u8,
    /// Why CONNECT was refused.
    refusal: Option<Refused>,
    /// The reason code of the client's DISCONNECT.
    left_with: Option<u8>,
}

/// What a client has sent, counted together for many packets.
#[derive(Default)]
struct Came {
    packets: usize,
    /// Messages that the bus took.
    messages: usize,
    /// Octets of their payloads.
    payload: usize,
}

/// What is to be said about a message when it is published.
struct Published {
    id: Option<std::num::NonZeroU16>,
    qos: QoS,
    /// Octets of its payload.
    payload: usize,
}

/// A message the bus has not taken yet. Dropping it takes the message back.
struct Publishing {
    message: Published,
    result: Pin<Box<dyn Future<Output = Result<Routed, BusError>> + Send>>,
}

impl<S, P> Connection<'_, S, P>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    P: Peer,
{
    async fn serve(&mut self, shutdown: &CancellationToken) -> Ending {
        let span = self.span.clone();
        let admitted = match self.begin(shutdown).instrument(span.clone()).await {
            Ok(admitted) => admitted,
            Err(ending) => return ending,
        };
        let connected = self.hub.sys.tally.connected.hold();
        // Without the span: to enter it at every look costs more than many a part of a message. Whoever
        // has something to log enters it.
        let end = self.converse(&admitted, shutdown).await;
        drop(connected);
        self.leave(&admitted, end).instrument(span).await
    }

    /// Until its CONNECT is answered.
    async fn begin(&mut self, shutdown: &CancellationToken) -> Result<Admitted, Ending> {
        let (hub, peer) = (self.hub, self.peer);
        let admitted = tokio::select! {
            biased;
            _ = peer.until_cut() => Err(Ending::Cut),
            () = shutdown.cancelled() => Err(Ending::Shutdown),
            admitted = tokio::time::timeout(hub.limits.connect_timeout, self.admit()) => {
                admitted.unwrap_or(Err(Ending::ConnectTimeout))
            }
        };
        match &admitted {
            Ok(admitted) => self.hold_to_rights(&admitted.cell).await,
            Err(ending) => {
                tracing::info!(
                    reason = ending.as_str(),
                    detail = self.cut_words(*ending),
                    "connection ended before CONNECT was accepted"
                );
                self.refuse_cut(*ending);
                self.tell_refused(*ending);
                self.write_out(FAREWELL_LIMIT).await;
            }
        }
        admitted
    }

    /// Let the session go, and say so.
    async fn leave(&mut self, admitted: &Admitted, end: End) -> Ending {
        let (hub, cell) = (self.hub, &admitted.cell);
        self.count_came();
        // Whoever was told and ended otherwise before it was woken has no more of it.
        let end = match (self.peer.cut(), end.departure) {
            (Some(why), Departure::Lost | Departure::Shutdown) => self.cut_off(why),
            _ => end,
        };
        if let Some(publishing) = self.publishing.take() {
            let Published { id, qos, .. } = publishing.message;
            cell.session().not_published(id, qos);
        }
        let words = self.words(&end);
        self.tell_disconnected(cell, admitted, &end, words.as_deref());
        let due = hub.registry.release(cell, end.departure, hub.now());
        if let Some((topic, will)) = due.will {
            hub.publish_will(cell.shard, cell.key.0, topic, &will);
        }
        let words = words.unwrap_or_default();
        tracing::info!(
            reason = end.ending.as_str(),
            detail = &*words,
            "client disconnected"
        );
        if let Some((code, _)) = end.farewell {
            let version = self.decoder.version().unwrap_or(Version::V311);
            if version == Version::V5 {
                hub.sys.tally.packets_sent.add(1);
            }
            Outgoing::Disconnect(code, words).encode(
                version,
                admitted.max_packet,
                &mut self.output,
            );
        }
        self.write_out(FAREWELL_LIMIT).await;
        end.ending
    }

    /// From CONNACK to the end.
    async fn converse(&mut self, admitted: &Admitted, shutdown: &CancellationToken) -> End {
        let (peer, cell) = (self.peer, &admitted.cell);
        self.patience = Patience::new(admitted.keep_alive, self.hub.limits.write_timeout);
        let mut signals = Signals::new(peer, shutdown, cell);
        signals.set_timer(self.patience.longest());
        loop {
            // Also while the client's packets have to wait: whoever has to go gets no message.
            if let Some(end) = self.must_end(cell) {
                return end;
            }
            let all = match self.process(cell).await {
                Ok(all) => all,
                Err(end) => {
                    // Answers that come before the fault still go out.
                    if !end.is_ordered() {
                        self.collect(cell, usize::MAX);
                    }
                    return end;
                }
            };
            // Others may have had their turn meanwhile.
            if let Some(end) = self.must_end(cell) {
                return end;
            }
            self.collect(cell, WRITE_TARGET);
            let has_room = self.output.len() < WRITE_TARGET;
            if !all && has_room && self.publishing.is_none() {
                // It was the answers, which are out of the way now.
                continue;
            }
            // Not before all is processed that was read: whoever sends faster would fill the memory.
            match self.wait(&mut signals, all).await {
                Event::Cut(why) => return self.cut_off(why),
                Event::Shutdown => return End::shutdown(),
                Event::Published(result) => {
                    if let Err(end) = self.finish_publish(cell, result) {
                        return end;
                    }
                }
                Event::Lost => return End::lost(),
                Event::Read | Event::Written | Event::Woken => {}
                Event::Deaf => {
                    self.go_deaf();
                    signals.set_timer(FAREWELL_LIMIT);
                }
                Event::Time(due) => match self.judge(due, all) {
                    Ok(next) => signals.set_timer(next),
                    Err(end) => return end,
                },
            }
        }
    }

    /// Process what has been read, as far as it may be processed now. Whether that is all.
    async fn process(&mut self, cell: &Arc<Cell>) -> Result<bool, End> {
        let processed = self.process_packets(cell).await;
        self.wakes.flush();
        self.count_came();
        processed
    }

    async fn process_packets(&mut self, cell: &Arc<Cell>) -> Result<bool, End> {
        let mut waiting = cell.session().answers_waiting();
        let (mut packets, mut clock) = (0, None);
        while self.publishing.is_none() && waiting < MAX_ANSWERS {
            if let Some(end) = self.must_end(cell) {
                return Err(end);
            }
            let Some(packet) = self.decoder.next(&mut self.input)? else {
                if self.input.is_empty() && self.input.capacity() > CHUNK_MAX {
                    self.input = BytesMut::new();
                }
                return Ok(true);
            };
            // One look at the clock for all that came at once.
            let now = *clock.get_or_insert_with(|| {
                self.patience.hear();
                self.hub.now()
            });
            self.came.packets += 1;
            if let Incoming::Subscribe(_) = &packet {
                // It may take a while.
                clock = None;
            }
            self.on_packet(cell, packet, now).await?;
            packets += 1;
            if usize::is_multiple_of(packets, PACKETS_AT_ONCE) || self.wakes.work() >= WORK_AT_ONCE
            {
                // Others get their turn; those that have got messages first of all.
                self.wakes.flush();
                self.count_came();
                tokio::task::yield_now().await;
                clock = None;
            }
            waiting = cell.session().answers_waiting();
        }
        Ok(false)
    }

    /// Take from the session what may be sent.
    fn collect(&mut self, cell: &Cell, target: usize) {
        if self.deaf_since.is_some() {
            // Out of the way of what it has said besides.
            cell.session().drop_answers();
            return;
        }
        if self.output.len() >= target {
            return;
        }
        cell.rearm();
        let sent =
            cell.session()
                .transmit(self.hub.now(), &mut self.output, target.min(WRITE_TARGET));
        if sent.messages > 0 {
            self.hub.counters.sent.increment(sent.messages as u64);
        }
        self.count_sent(&sent);
        metrics::dropped(metrics::Drop::Expired, sent.expired);
        metrics::dropped(metrics::Drop::TooOld, sent.too_old);
        metrics::dropped(metrics::Drop::TooLarge, sent.too_large);
    }

    fn go_deaf(&mut self) {
        self.deaf_since = Some(Instant::now());
        self.output.clear();
        self.unflushed = false;
        self.stalled = None;
    }

    /// Why the connection must end before it does anything more: looked at before each packet.
    fn must_end(&self, cell: &Cell) -> Option<End> {
        let cut = self.peer.cut().map(|why| self.cut_off(why));
        cut.or_else(|| cell.kicked().map(End::kicked))
    }

    fn cut_off(&self, why: crate::tls::live::Cut) -> End {
        use crate::tls::live::Cut;
        let policy = &self.hub.settings.policy;
        End {
            departure: Departure::Cut {
                publish_will: policy.will_on_cut == WillOnCut::Publish,
                discard: policy.session_on_cut == SessionOnCut::Discard,
            },
            ..End::saying(
                Ending::Cut,
                reason::ADMINISTRATIVE_ACTION,
                match why {
                    Cut::CaInactive => "a CA of the certificate is inactive",
                    Cut::CaDeleted => "a CA of the certificate was deleted",
                    Cut::DeviceInactive => "the device certificate is inactive",
                    Cut::Revoked => "a certificate of the path is revoked",
                    Cut::NoCrl => "no CRL in date covers the certificate",
                    Cut::Expired => "a certificate of the path has expired",
                },
            )
        }
    }

    /// Write what is left and close, as far as the client takes it within the limit.
    async fn write_out(&mut self, limit: Duration) {
        let closing = async {
            while !self.output.is_empty() {
                match self.stream.write_buf(&mut self.output).await {
                    Ok(octets) if octets > 0 => self.hub.sys.tally.octets_sent.add(octets),
                    _ => return,
                }
            }
            let _ = self.stream.shutdown().await;
        };
        // What a client does not take in time it does not get: the connection ends all the same.
        let _ = tokio::time::timeout(limit, closing).await;
    }

    /// Account for what was read. Whether there may be more.
    fn has_read(&mut self, read: io::Result<usize>) -> bool {
        match read {
            Ok(0) => false,
            Ok(octets) => {
                self.hub.sys.tally.octets_received.add(octets);
                self.adapt(octets);
                true
            }
            Err(error) => {
                self.tell_unreadable(&error);
                false
            }
        }
    }

    /// Read as much at a time as the client sends at a time, so that idle ones cost little.
    fn adapt(&mut self, octets: usize) {
        if octets >= self.chunk {
            self.chunk = (self.chunk * 2).min(CHUNK_MAX);
        } else if octets < self.chunk / 4 {
            self.chunk = (self.chunk / 2).max(CHUNK_MIN);
        }
    }

    fn shrink_output(&mut self) {
        if self.output.is_empty() && self.output.capacity() > 2 * CHUNK_MIN {
            self.output = BytesMut::new();
        }
    }
}

/// CONNECT may not be larger: the client id, the will and the credentials have 65,535 octets each.
const CONNECT_MAX_BYTES: usize = 512 << 10;
/// What is read at a time.
const CHUNK_MIN: usize = 512;
const CHUNK_MAX: usize = 64 << 10;
/// What is collected before it is written.
const WRITE_TARGET: usize = 64 << 10;
/// Answers a client may leave untaken before nothing more is read from it.
const MAX_ANSWERS: usize = 1_024;
/// Packets that are processed before others get their turn.
const PACKETS_AT_ONCE: usize = 256;
/// How often sessions are given a message before others get their turn.
const WORK_AT_ONCE: usize = 4_096;
/// How long a client may take to take its farewell, and may be silent when it takes nothing any more; and how
/// long the end of the broker looks at what it has said before.
const FAREWELL_LIMIT: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests;
