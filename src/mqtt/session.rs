//! One session: what MQTT says a server remembers and does for a client (MQTT 5, 4.1).
//!
//! No I/O: packets, frames of the bus and the time go in; packets, and steps that the connection
//! has to take, come out. Time is in milliseconds of the broker's clock. The connection may come
//! and go; packet ids, messages on the way and subscriptions stay.

pub mod inbound;
pub mod kept;
pub mod message;
pub mod outbound;
pub mod room;
pub mod subscriptions;

use std::num::NonZeroU16;
use std::sync::Arc;

use bytestring::ByteString;

use super::bus::SessionKey;
use super::settings::{Limits, Overflow};
use super::topics::{Subscription, TopicName};
use super::wire::encode::Outgoing;
use super::wire::packets::Options;
use super::wire::{Connect, QoS, Version, Will, reason};
use inbound::Inbound;
use message::SharedBudget;
use outbound::Outbound;
use subscriptions::Subscriptions;

/// A session.
#[derive(Debug)]
pub struct Session {
    key: SessionKey,
    client_id: ByteString,
    limits: Arc<Limits>,
    administrator: bool,
    subscriptions: Subscriptions,
    inbound: Inbound,
    outbound: Outbound,
    link: Option<Link>,
    expiry: u32,
    will: Option<(TopicName, Will)>,
    away: Away,
    /// It has ended: whoever still holds it must not keep it.
    over: bool,
}

/// What holds while the client is connected.
#[derive(Debug, Clone, Copy)]
struct Link {
    version: Version,
    max_packet: u32,
    /// CONNECT asked for a session that ends with the connection (3.14.2.2.2).
    began_without_expiry: bool,
}

/// What is due while the client is away.
#[derive(Debug, Clone, Copy, Default)]
struct Away {
    will_at: Option<u64>,
    expires_at: Option<u64>,
}

/// What the connection has to do about a packet.
#[derive(Debug)]
pub enum Step {
    /// Nothing, besides sending what there is to send.
    Nothing,
    /// Publish, and then call [`Session::published`].
    Publish(ToPublish),
    /// Subscribe to each filter, and then answer with [`Session::subscribed`].
    Subscribe(ToSubscribe),
    /// Unsubscribe from each filter, and then answer with [`Session::unsubscribed`].
    Unsubscribe(NonZeroU16, Vec<Option<Subscription>>),
    /// The client takes its leave; with its will published or not.
    Leave(Departure),
}

/// A message a client wants to be published.
#[derive(Debug)]
pub struct ToPublish {
    /// The packet id, unless QoS is 0.
    pub id: Option<NonZeroU16>,
    /// Where it goes.
    pub topic: TopicName,
    /// What came with it.
    pub packet: Box<super::wire::Publish>,
    /// When it expires.
    pub expires_at: Option<u64>,
}

/// The subscriptions a client asks for.
#[derive(Debug)]
pub struct ToSubscribe {
    /// The packet id.
    pub id: NonZeroU16,
    /// The subscription identifier.
    pub subscription_id: Option<u32>,
    /// The filters, or the reason code of those that are none.
    pub filters: Vec<Result<(Subscription, Options), u8>>,
}

/// The client broke a rule: the connection ends with this reason code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The reason code of MQTT 5.
    pub reason: u8,
    /// What it did, in words.
    pub words: &'static str,
}

/// Why a connection ended, as far as the session is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// DISCONNECT: no will.
    Left,
    /// DISCONNECT with the will (0x04).
    LeftWithWill,
    /// The connection was lost, or closed because of a fault, or taken over.
    Lost,
    /// The peer's trust ended.
    Cut {
        /// Whether the will is published now.
        publish_will: bool,
        /// Whether the session ends now.
        discard: bool,
    },
    /// The server stops.
    Shutdown,
}

/// What came due: a will to publish, the end of the session.
#[derive(Debug, Default)]
pub struct Due {
    /// Publish it now.
    pub will: Option<(TopicName, Will)>,
    /// The session is over: end its subscriptions and forget it.
    pub ended: bool,
}

impl Session {
    /// A session without connection or subscriptions.
    pub fn new(
        key: SessionKey,
        client_id: ByteString,
        administrator: bool,
        limits: Arc<Limits>,
        overflow: Overflow,
        budget: Arc<SharedBudget>,
    ) -> Self {
        Self {
            key,
            client_id,
            administrator,
            subscriptions: Subscriptions::default(),
            inbound: Inbound::default(),
            outbound: Outbound::new(&limits, overflow, budget),
            limits,
            link: None,
            expiry: 0,
            will: None,
            away: Away::default(),
            over: false,
        }
    }

    /// Its key.
    pub fn key(&self) -> SessionKey {
        self.key
    }

    /// The client id.
    pub fn client_id(&self) -> &ByteString {
        &self.client_id
    }

    /// Whether the client is connected.
    pub fn is_connected(&self) -> bool {
        self.link.is_some()
    }

    /// Its subscriptions.
    pub fn subscriptions(&self) -> &Subscriptions {
        &self.subscriptions
    }

    /// Messages that wait to be sent or acknowledged.
    pub fn waiting(&self) -> usize {
        self.outbound.waiting()
    }

    /// The client is connected (again). `session_expiry` is what was agreed on, in seconds. What
    /// was on the way is sent again, and a will that waits for its delay is forgotten (3.1.3.2.2).
    pub fn connect(&mut self, connect: &Connect, will: Option<(TopicName, Will)>, expiry: u32) {
        self.link = Some(Link {
            version: connect.version,
            max_packet: connect.max_packet,
            began_without_expiry: expiry == 0,
        });
        self.expiry = expiry;
        self.will = will;
        self.away = Away::default();
        self.inbound.connect();
        self.outdate();
        self.outbound.connect(
            connect.receive_maximum.min(self.limits.max_inflight),
            connect.alias_maximum.min(self.limits.max_aliases),
        );
    }

    /// Send this packet before all messages.
    pub fn send(&mut self, packet: Outgoing) {
        self.outbound.control(packet);
    }

    /// The connection is over. What is due now is given back; what is due later comes with
    /// [`on_time`](Self::on_time) at [`deadline`](Self::deadline).
    pub fn disconnect(&mut self, departure: Departure, now: u64) -> Due {
        if self.link.take().is_none() {
            return Due::default();
        }
        self.outbound.disconnect();
        let expiry = match departure {
            Departure::Cut { discard: true, .. } => 0,
            _ => self.expiry,
        };
        self.away.expires_at = match expiry {
            u32::MAX => None,
            seconds => Some(now.saturating_add(u64::from(seconds) * 1_000)),
        };
        match departure {
            Departure::Left | Departure::Shutdown => self.will = None,
            Departure::Cut { publish_will, .. } => match publish_will {
                true => self.away.will_at = Some(now),
                false => self.will = None,
            },
            Departure::Lost | Departure::LeftWithWill => {
                self.away.will_at = self.will.as_ref().map(|(_, will)| {
                    let due = now.saturating_add(u64::from(will.delay) * 1_000);
                    self.away.expires_at.map_or(due, |at| at.min(due))
                });
            }
        }
        self.on_time(now)
    }

    /// The session ends although it has not expired: the client asked for a clean start, or an
    /// administrator for its end. Gives the will that was waiting.
    pub fn end(&mut self) -> Option<(TopicName, Will)> {
        self.over = true;
        self.away.will_at.take()?;
        self.will.take()
    }

    /// When [`on_time`](Self::on_time) has to be called next.
    pub fn deadline(&self) -> Option<u64> {
        match (self.away.will_at, self.away.expires_at) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// What is due at this time.
    pub fn on_time(&mut self, now: u64) -> Due {
        let mut due = Due::default();
        if self.link.is_some() {
            return due;
        }
        due.ended = self.away.expires_at.is_some_and(|at| at <= now);
        self.over |= due.ended;
        if self.away.will_at.is_some_and(|at| at <= now || due.ended) {
            self.away.will_at = None;
            due.will = self.will.take();
        }
        due
    }

    fn version(&self) -> Version {
        self.link.map_or(Version::V5, |link| link.version)
    }
}

impl Fault {
    /// A fault.
    pub const fn new(reason: u8, words: &'static str) -> Self {
        Self { reason, words }
    }

    const fn protocol(words: &'static str) -> Self {
        Self::new(reason::PROTOCOL_ERROR, words)
    }
}

/// The lower of two.
fn lower(one: QoS, other: QoS) -> QoS {
    one.less_value(other)
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
