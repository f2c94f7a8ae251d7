//! What operators are told on `$SYS`: figures of the broker, and events. `docs/events.md` says what
//! each topic means.
//!
//! Everything goes over the bus like any message, published by the broker itself and marked for
//! administrators, so that no filter lets anybody else have it. What nobody is subscribed to is
//! not computed and not queued. Nobody who has something to tell waits: what does not fit into the
//! queue is left out and counted.

mod changes;
mod events;
mod figures;
mod load;
mod outbox;
pub mod tally;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub(super) use self::changes::BrokerObserver;
pub use self::events::{Departed, Refused, Terms, Who};
pub(super) use self::outbox::Inlet;

use self::events::{Event, Stream};
use self::figures::Figures;
use self::outbox::{Lane, Outbox};
use self::tally::Tally;
use super::bus::Bus;
use super::frame::Frame;
use super::hub::Hub;
use super::topics::TopicFilter;
use crate::ca::id::InstanceId;
use crate::tls::acceptor::AcceptError;

/// How operators are told.
#[derive(Debug, Clone)]
pub struct SysSettings {
    /// The name of the instance in what is told.
    pub instance: Option<InstanceId>,
    /// How often figures that have changed are published; `None`: there are no figures. Default
    /// 10 s.
    pub interval: Option<Duration>,
    /// Refused clients that are told one by one in a second; of the others the number is told.
    /// Default 10.
    pub refusals_per_second: u32,
    /// Events that may wait to be published, those of clients and those of operators apart.
    /// Default 16,384.
    pub waiting: usize,
}

impl Default for SysSettings {
    fn default() -> Self {
        Self {
            instance: None,
            interval: Some(Duration::from_secs(10)),
            refusals_per_second: 10,
            waiting: 16_384,
        }
    }
}

/// What a broker has to tell operators, and the way it goes.
#[derive(Debug)]
pub struct Sys {
    /// What has been counted.
    pub tally: Arc<Tally>,
    instance: String,
    bus: Bus,
    figures: Option<Figures>,
    outbox: Outbox,
}

impl Sys {
    /// Nothing is told before [`run`] runs with the other end.
    pub(super) fn new(settings: &SysSettings, bus: Bus, tally: Arc<Tally>) -> (Self, Inlet) {
        let (outbox, inlet) = Outbox::new(settings);
        let instance = settings.instance.as_ref();
        let sys = Self {
            tally,
            instance: instance.map(ToString::to_string).unwrap_or_default(),
            bus,
            figures: settings.interval.map(Figures::new),
            outbox,
        };
        (sys, inlet)
    }

    /// A client has its session.
    pub fn connected(&self, who: &Who<'_>, terms: &Terms<'_>) {
        self.tally.connects_accepted.add(1);
        self.tell(Lane::Clients, Stream::Session, || {
            Event::connected(&self.instance, who, terms)
        });
    }

    /// A client has no connection any more. To be told before another can have its session, so
    /// that events of one client come in their order.
    pub fn disconnected(&self, who: &Who<'_>, departed: &Departed<'_>) {
        self.tell(Lane::Clients, Stream::Session, || {
            Event::disconnected(&self.instance, who, departed)
        });
    }

    /// A client that the gate let in got no session.
    pub fn connect_refused(&self, who: &Who<'_>, refused: &Refused) {
        self.tally.connects_refused.add(1);
        self.tell_refusal(|| Event::connect_refused(&self.instance, who, refused));
    }

    /// A handshake has ended, in a connection or not.
    pub fn handshake(&self, remote: SocketAddr, outcome: Result<(), &AcceptError>) {
        match outcome {
            Ok(()) => self.tally.handshakes_accepted.add(1),
            Err(error) => {
                self.tally.handshakes_refused.add(1);
                self.tell_refusal(|| Event::handshake(&self.instance, remote, error));
            }
        }
    }

    fn tell_refusal(&self, event: impl FnOnce() -> Event) {
        if self.is_wanted(Stream::Refused) && self.outbox.admits_refusal(&self.tally) {
            let queued = self.outbox.put(Lane::Clients, Stream::Refused, event());
            self.outbox.note(queued, &self.tally);
        }
    }

    fn tell(&self, lane: Lane, stream: Stream, event: impl FnOnce() -> Event) {
        if self.is_wanted(stream) {
            let queued = self.outbox.put(lane, stream, event());
            self.outbox.note(queued, &self.tally);
        }
    }

    fn is_wanted(&self, stream: Stream) -> bool {
        stream.topic().is_some_and(|topic| self.bus.wants(&topic))
    }
}

impl Hub {
    /// The figures that match a filter, for somebody who has just subscribed to it. To be followed
    /// by [`figures_given`](Self::figures_given).
    pub fn figures(&self, filter: &TopicFilter) -> Vec<Frame> {
        match &self.sys.figures {
            Some(figures) if filter.as_str().starts_with("$SYS") => figures.matching(self, filter),
            _ => Vec::new(),
        }
    }

    /// Somebody was given what [`figures`](Self::figures) found.
    pub fn figures_given(&self) {
        if let Some(figures) = &self.sys.figures {
            figures.told();
        }
    }
}

/// Publish figures and events, for ever.
pub(super) async fn run(hub: Arc<Hub>, inlet: Inlet) {
    let figures = async {
        if let Some(figures) = &hub.sys.figures {
            figures::publish(&hub, figures).await;
        }
    };
    tokio::join!(outbox::publish(&hub.sys, inlet), figures);
}
