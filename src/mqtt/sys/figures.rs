//! The figures of a broker, under the names that mosquitto made known and under our own.
//!
//! They are retained as far as a client can tell, but not kept: who subscribes is sent what they
//! are at that moment. From then on what has changed is published at each interval, with QoS 0: a
//! figure that is missed is replaced by the next, and a session that is away does not fill its
//! queue with outdated ones. What nobody is subscribed to is not computed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use super::load::{Load, SPANS};
use super::tally::Tally;
use crate::mqtt::frame::{Audience, Frame, Message};
use crate::mqtt::hub::Hub;
use crate::mqtt::topics::{TopicFilter, TopicLimits, TopicName};
use crate::mqtt::wire::QoS;

/// The figures of one broker.
#[derive(Debug)]
pub(super) struct Figures {
    /// How often what has changed is published.
    interval: Duration,
    all: Vec<Figure>,
    loads: Mutex<Loads>,
    /// Whether somebody has subscribed since the last time, who may know of other values than were
    /// published last.
    again: AtomicBool,
}

#[derive(Debug)]
struct Figure {
    topics: Vec<TopicName>,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Now(fn(&Hub) -> String),
    /// An average: of which flow, over which span.
    Average(usize, usize),
}

#[derive(Debug)]
struct Loads {
    at: Instant,
    flows: [Load; FLOWS.len()],
}

impl Figures {
    pub(super) fn new(interval: Duration) -> Self {
        let averages = FLOWS.iter().enumerate().flat_map(|(flow, (name, _))| {
            SPANS.iter().enumerate().map(move |(span, (_, minutes))| {
                let path = format!("load/{name}/{minutes}");
                Figure::new(&path, &[KNOWN, OWN], Source::Average(flow, span))
            })
        });
        let known = KNOWN_FIGURES
            .iter()
            .map(|(path, value)| Figure::new(path, &[KNOWN, OWN], Source::Now(*value)));
        let own = OWN_FIGURES
            .iter()
            .map(|(path, value)| Figure::new(path, &[OWN], Source::Now(*value)));
        Self {
            interval,
            all: known.chain(own).chain(averages).collect(),
            loads: Mutex::new(Loads {
                at: Instant::now(),
                flows: Default::default(),
            }),
            again: AtomicBool::new(false),
        }
    }

    /// The figures that match, as they are now, for somebody who has just subscribed. To be
    /// followed by [`told`](Self::told).
    pub(super) fn matching(&self, hub: &Hub, filter: &TopicFilter) -> Vec<Frame> {
        let mut found = Vec::new();
        for figure in &self.all {
            for topic in &figure.topics {
                if filter.matches(topic) {
                    found.push(frame(topic, &self.value(hub, figure)));
                }
            }
        }
        found
    }

    /// Somebody has been given what [`matching`](Self::matching) found.
    pub(super) fn told(&self) {
        self.again.store(true, Ordering::Release);
    }

    fn measure(&self, tally: &Tally) {
        let now = Instant::now();
        let mut loads = self.loads();
        let elapsed = now.duration_since(loads.at);
        loads.at = now;
        for (load, (_, count)) in loads.flows.iter_mut().zip(FLOWS) {
            load.advance(count(tally), elapsed);
        }
    }

    fn value(&self, hub: &Hub, figure: &Figure) -> String {
        match figure.source {
            Source::Now(value) => value(hub),
            Source::Average(flow, span) => {
                let load = self.loads().flows.get(flow).copied().unwrap_or_default();
                let average = load.averages().get(span).copied().unwrap_or_default();
                format!("{average:.2}")
            }
        }
    }

    fn loads(&self) -> MutexGuard<'_, Loads> {
        self.loads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Figure {
    fn new(path: &str, roots: &[&str], source: Source) -> Self {
        let topics = roots.iter().filter_map(|root| {
            let topic = TopicName::parse(format!("{root}/{path}"), &TopicLimits::default());
            topic.ok()
        });
        Self {
            topics: topics.collect(),
            source,
        }
    }
}

/// Measure, and publish what has changed, at each interval.
pub(super) async fn publish(hub: &Hub, figures: &Figures) {
    let mut ticks = tokio::time::interval_at(Instant::now() + figures.interval, figures.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut published: Vec<Option<String>> = vec![None; figures.all.len()];
    loop {
        ticks.tick().await;
        figures.measure(&hub.sys.tally);
        let again = figures.again.swap(false, Ordering::AcqRel);
        for (figure, last) in figures.all.iter().zip(&mut published) {
            let wanted = figure
                .topics
                .iter()
                .filter(|topic| hub.sys.bus.wants(topic));
            let wanted: Vec<&TopicName> = wanted.collect();
            if wanted.is_empty() {
                continue;
            }
            let value = figures.value(hub, figure);
            if !again && last.as_ref() == Some(&value) {
                continue;
            }
            for topic in wanted {
                let octets = frame(topic, &value).octets().clone();
                if let Err(error) = hub.sys.bus.publish(0, topic, octets).await {
                    tracing::warn!(%error, "a figure could not be published");
                }
            }
            *last = Some(value);
        }
    }
}

fn frame(topic: &TopicName, value: &str) -> Frame {
    Message {
        qos: QoS::AtMostOnce,
        retain: true,
        audience: Audience::Administrators,
        publisher: 0,
        expires_at: None,
        topic,
        properties: &[],
        payload: value.as_bytes(),
    }
    .encode()
}

/// Where dashboards and exporters that were made for mosquitto look.
const KNOWN: &str = "$SYS/broker";
const OWN: &str = "$SYS/portcullis/broker";

type Value = fn(&Hub) -> String;

/// Named as mosquitto names them, and meaning the same; docs/events.md tells where not quite.
const KNOWN_FIGURES: &[(&str, Value)] = &[
    ("version", |_| {
        format!("portcullis version {}", env!("CARGO_PKG_VERSION"))
    }),
    ("uptime", |hub| format!("{} seconds", hub.now() / 1_000)),
    ("clients/connected", |hub| {
        hub.sys.tally.connected.get().to_string()
    }),
    ("clients/disconnected", |hub| {
        let connected = hub.sys.tally.connected.get();
        let sessions = hub.registry.len() as u64;
        sessions.saturating_sub(connected).to_string()
    }),
    ("clients/total", |hub| hub.registry.len().to_string()),
    ("clients/maximum", |hub| {
        hub.sys.tally.connected.highest().to_string()
    }),
    ("clients/expired", |hub| {
        hub.sys.tally.sessions_expired.get().to_string()
    }),
    ("bytes/received", |hub| {
        hub.sys.tally.octets_received.get().to_string()
    }),
    ("bytes/sent", |hub| {
        hub.sys.tally.octets_sent.get().to_string()
    }),
    ("messages/received", |hub| {
        hub.sys.tally.packets_received.get().to_string()
    }),
    ("messages/sent", |hub| {
        hub.sys.tally.packets_sent.get().to_string()
    }),
    ("publish/messages/received", |hub| {
        hub.sys.tally.messages_received.get().to_string()
    }),
    ("publish/messages/sent", |hub| {
        hub.sys.tally.messages_sent.get().to_string()
    }),
    ("publish/messages/dropped", |hub| {
        hub.sys.tally.messages_dropped.get().to_string()
    }),
    ("publish/bytes/received", |hub| {
        hub.sys.tally.payload_received.get().to_string()
    }),
    ("publish/bytes/sent", |hub| {
        hub.sys.tally.payload_sent.get().to_string()
    }),
    ("store/messages/bytes", |hub| {
        hub.registry.queued_octets().to_string()
    }),
    ("retained messages/count", |hub| {
        hub.retained.len().to_string()
    }),
    ("subscriptions/count", |hub| {
        hub.sys.tally.subscriptions.get().to_string()
    }),
    ("shared_subscriptions/count", |hub| {
        hub.sys.tally.shared_subscriptions.get().to_string()
    }),
];

/// What mosquitto has no name for.
const OWN_FIGURES: &[(&str, Value)] = &[
    ("instance", |hub| hub.sys.instance.clone()),
    ("retained messages/bytes", |hub| {
        hub.retained.bytes().to_string()
    }),
    ("handshakes/accepted", |hub| {
        hub.sys.tally.handshakes_accepted.get().to_string()
    }),
    ("handshakes/refused", |hub| {
        hub.sys.tally.handshakes_refused.get().to_string()
    }),
    ("connects/accepted", |hub| {
        hub.sys.tally.connects_accepted.get().to_string()
    }),
    ("connects/refused", |hub| {
        hub.sys.tally.connects_refused.get().to_string()
    }),
    ("events/left_out", |hub| {
        hub.sys.tally.events_left_out.get().to_string()
    }),
];

type Flow = fn(&Tally) -> u64;

/// What averages are taken of.
const FLOWS: [(&str, Flow); 9] = [
    ("messages/received", |tally| tally.packets_received.get()),
    ("messages/sent", |tally| tally.packets_sent.get()),
    ("publish/received", |tally| tally.messages_received.get()),
    ("publish/sent", |tally| tally.messages_sent.get()),
    ("publish/dropped", |tally| tally.messages_dropped.get()),
    ("bytes/received", |tally| tally.octets_received.get()),
    ("bytes/sent", |tally| tally.octets_sent.get()),
    ("sockets", |tally| {
        tally.handshakes_accepted.get() + tally.handshakes_refused.get()
    }),
    ("connections", |tally| {
        tally.connects_accepted.get() + tally.connects_refused.get()
    }),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The names that exporters for mosquitto know, and no topic that is not legal.
    #[test]
    fn figures_have_the_well_known_names_and_our_own() {
        let figures = Figures::new(Duration::from_secs(10));
        let topics: std::collections::BTreeSet<&str> = figures
            .all
            .iter()
            .flat_map(|figure| &figure.topics)
            .map(TopicName::as_str)
            .collect();
        let averages = FLOWS.len() * SPANS.len();
        let known = KNOWN_FIGURES.len() + averages;
        assert_eq!(topics.len(), 2 * known + OWN_FIGURES.len());
        for name in [
            "version",
            "uptime",
            "clients/connected",
            "clients/total",
            "bytes/received",
            "messages/sent",
            "publish/messages/dropped",
            "retained messages/count",
            "subscriptions/count",
            "load/messages/received/1min",
            "load/bytes/sent/15min",
            "load/connections/5min",
        ] {
            assert!(
                topics.contains(format!("$SYS/broker/{name}").as_str()),
                "{name}"
            );
            assert!(
                topics.contains(format!("$SYS/portcullis/broker/{name}").as_str()),
                "{name}"
            );
        }
    }

    /// docs/events.md names every figure.
    #[test]
    fn figures_are_documented() {
        let document = include_str!("../../../docs/events.md");
        let plain = KNOWN_FIGURES
            .iter()
            .chain(OWN_FIGURES)
            .map(|(path, _)| path.to_string());
        let averages = FLOWS.iter().map(|(name, _)| format!("load/{name}/"));
        for path in plain.chain(averages) {
            assert!(document.contains(&format!("`{path}")), "{path}");
        }
    }
}
