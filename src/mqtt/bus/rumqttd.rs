//! The one file that names `rumqttd`: a router with a channel per shard.
//!
//! What is used of it is what it does well: a log per channel, read in order. The rules for its
//! links, each learned from a defect:
//!
//! - `LinkBuilder::build` blocks, and for ever if the router dies meanwhile: [`open`] runs on a
//!   thread of its own, and whoever waits for it has a time limit.
//! - Sending through a link can block, so packets go into its buffer, which the router empties as
//!   a whole, and only a push into the empty buffer wakes the router. So at most one wake per
//!   link is in the router's queue, and that queue never fills.
//! - After `Unschedule` the router sends nothing until it is woken; but waking it for a link that
//!   it has dropped makes it panic. A link that is told to disconnect is not touched again.
//! - The router's thread never ends by itself. One that must go is made to panic, by the defect
//!   that the rest of the design hides: a topic that begins with a multi-byte character.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rumqttd::local::{LinkBuilder, LinkRx, LinkTx};
use rumqttd::protocol::{Packet, PingReq, Publish};
use rumqttd::{Notification, Router, RouterConfig};

use super::StartError;

/// The router's thread has ended, or has dropped the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the router is gone")]
pub(super) struct RouterGone;

/// The links of all shards to a running router.
#[derive(Debug)]
pub(super) struct Links {
    /// By source shard.
    pub(super) outlets: Vec<Outlet>,
    /// By destination shard; subscribed.
    pub(super) inlets: Vec<Inlet>,
}

/// Where one shard hands its messages to the router.
pub(super) struct Outlet {
    link: LinkTx,
    channels: Arc<[Bytes]>,
}

/// Where one shard gets its messages from the router.
pub(super) struct Inlet {
    link: LinkRx,
    /// The router waits to be woken; kept here so that a cancelled wait does not forget it.
    owes_wake: bool,
}

/// A link that only asks whether the router lives.
pub(super) struct Heart {
    outlet: Outlet,
    link: LinkRx,
}

/// Start a router whose log for each channel keeps at least `log_bytes` of what was published
/// last. Blocks, at worst for ever.
pub(super) fn open(
    shards: usize,
    log_bytes: usize,
    limit: Duration,
) -> Result<(Links, Heart), StartError> {
    let router = Router::new(
        0,
        RouterConfig {
            max_connections: shards + 1,
            max_outgoing_packet_count: READ_AT_ONCE,
            max_segment_size: log_bytes.div_ceil(FULL_SEGMENTS).max(MIN_SEGMENT_BYTES),
            max_segment_count: FULL_SEGMENTS + 1,
            ..RouterConfig::default()
        },
    );
    let sender = router.spawn();
    let link = |name: &str| {
        LinkBuilder::new(name, sender.clone())
            .build()
            .map_err(|_| StartError::Died)
    };
    let channels: Arc<[Bytes]> = (0..shards).map(|shard| channel(shard).into()).collect();

    let (link_tx, link_rx, _) = link("heart")?;
    let heart = Heart {
        outlet: Outlet {
            link: link_tx,
            channels: Arc::clone(&channels),
        },
        link: link_rx,
    };
    let mut outlets = Vec::with_capacity(shards);
    let mut inlets = Vec::with_capacity(shards);
    for shard in 0..shards {
        let (mut link_tx, mut link_rx, _) = link(&format!("shard-{shard}"))?;
        link_tx
            .try_subscribe(channel(shard))
            .map_err(|_| StartError::Died)?;
        // A publish to a channel that nobody is subscribed to yet would vanish.
        let deadline = Instant::now() + limit;
        loop {
            match link_rx.recv_deadline(deadline) {
                Ok(Some(Notification::DeviceAck(_))) => break,
                Ok(_) => {}
                Err(_) => {
                    return Err(StartError::Silent {
                        waited_ms: limit.as_millis(),
                    });
                }
            }
        }
        outlets.push(Outlet {
            link: link_tx,
            channels: Arc::clone(&channels),
        });
        inlets.push(Inlet {
            link: link_rx,
            owes_wake: false,
        });
    }
    Ok((Links { outlets, inlets }, heart))
}

impl Outlet {
    /// Publish to the channel of a shard. Never blocks.
    pub(super) fn push(&mut self, destination: usize, payload: Bytes) -> Result<(), RouterGone> {
        let channel = self.channels.get(destination).ok_or(RouterGone)?.clone();
        self.push_packet(Packet::Publish(Publish::new(channel, payload, false), None))
    }

    /// Wake the router again if it has not taken everything.
    pub(super) fn nudge(&mut self) -> Result<(), RouterGone> {
        let waiting = !self.link.buffer().is_empty();
        match waiting {
            true => self.wake(),
            false => Ok(()),
        }
    }

    /// End the router's thread.
    pub(super) fn poison(&mut self) {
        let topic = Bytes::from_static("é".as_bytes());
        let publish = Publish::new(topic, Bytes::from_static(b"-"), false);
        // An error means that it has ended already.
        let _ = self.push_packet(Packet::Publish(publish, None));
    }

    fn push_packet(&mut self, packet: Packet) -> Result<(), RouterGone> {
        let was_empty = {
            let mut buffer = self.link.buffer();
            let was_empty = buffer.is_empty();
            buffer.push_back(packet);
            was_empty
        };
        match was_empty {
            true => self.wake(),
            false => Ok(()),
        }
    }

    /// Unsubscribing from nothing is the one wake-up in the public interface that cannot block.
    /// Its queue being full means that the router does not work it off, which is as bad as dead.
    fn wake(&mut self) -> Result<(), RouterGone> {
        self.link
            .try_unsubscribe("")
            .map(|_| ())
            .map_err(|_| RouterGone)
    }
}

impl Inlet {
    /// The next payload; `None` for a notification that carries none. Cancelling loses nothing.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, RouterGone> {
        if self.owes_wake {
            self.link.wake().await.map_err(|_| RouterGone)?;
            self.owes_wake = false;
        }
        match self.link.next().await {
            Ok(Some(Notification::Forward(forward))) => Ok(Some(forward.publish.payload)),
            Ok(Some(Notification::Unschedule)) => {
                self.owes_wake = true;
                Ok(None)
            }
            Ok(Some(Notification::Disconnect(..))) | Err(_) => Err(RouterGone),
            Ok(_) => Ok(None),
        }
    }

    /// As [`Inlet::next`], but `None` instead of waiting.
    pub(super) fn try_next(&mut self) -> Option<Result<Option<Bytes>, RouterGone>> {
        match pin!(self.next()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        }
    }
}

impl Heart {
    /// Ask for a sign of life.
    pub(super) fn ask(&mut self) -> Result<(), RouterGone> {
        self.outlet.push_packet(Packet::PingReq(PingReq))
    }

    /// Wait for a sign of life, or for the end.
    pub(super) async fn beat(&mut self) -> Result<(), RouterGone> {
        loop {
            match self.link.next().await {
                Ok(Some(Notification::DeviceAck(_))) => return Ok(()),
                Ok(Some(Notification::Disconnect(..))) | Err(_) => return Err(RouterGone),
                Ok(_) => {}
            }
        }
    }

    /// End the router's thread.
    pub(super) fn poison(&mut self) {
        self.outlet.poison();
    }
}

macro_rules! opaque {
    ($($name:ident)*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    )*};
}

opaque!(Outlet Inlet Heart);

fn channel(shard: usize) -> String {
    format!("s/{shard}")
}

/// How many messages the router hands to a link before it waits to be woken.
const READ_AT_ONCE: u64 = 1_024;

/// When a segment is full and there are this many and one more, the oldest is dropped; so this
/// many full ones remain.
const FULL_SEGMENTS: usize = 4;

/// What the router demands.
const MIN_SEGMENT_BYTES: usize = 1_024;
