//! The queues between those who have something to tell and the bus, and what is left out of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::events::{About, Event, Stream};
use super::tally::Tally;
use super::{Sys, SysSettings};
use crate::mqtt::frame::{Audience, Message};
use crate::mqtt::metrics::{self, LeftOut as Why};
use crate::mqtt::wire::QoS;
use crate::mqtt::wire::publish::PropertyWriter;

/// Which queue an event waits in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// That of what clients cause.
    Clients,
    /// That of what operators do, which no client can fill.
    Operators,
}

/// Where events are put. Never waits.
#[derive(Debug)]
pub(super) struct Outbox {
    clients: mpsc::Sender<Waiting>,
    operators: mpsc::Sender<Waiting>,
    refusals: Mutex<Allowance>,
    left_out: LeftOut,
}

/// Where they come out.
#[derive(Debug)]
pub(in crate::mqtt) struct Inlet {
    clients: mpsc::Receiver<Waiting>,
    operators: mpsc::Receiver<Waiting>,
}

type Waiting = (Stream, Event);

/// How many refusals may still be told in this second.
#[derive(Debug)]
struct Allowance {
    most: u32,
    began: Instant,
    told: u32,
}

/// What administrators have not been told yet that they were not told.
#[derive(Debug, Default)]
struct LeftOut {
    refusals: AtomicU64,
    lost: AtomicU64,
    noted: Notify,
}

impl Outbox {
    pub(super) fn new(settings: &SysSettings) -> (Self, Inlet) {
        let (clients, from_clients) = mpsc::channel(settings.waiting.max(1));
        let (operators, from_operators) = mpsc::channel(settings.waiting.max(1));
        let outbox = Self {
            clients,
            operators,
            refusals: Mutex::new(Allowance {
                most: settings.refusals_per_second,
                began: Instant::now(),
                told: 0,
            }),
            left_out: LeftOut::default(),
        };
        let inlet = Inlet {
            clients: from_clients,
            operators: from_operators,
        };
        (outbox, inlet)
    }

    /// Whether one more refusal may be told now; if not, it is counted.
    pub(super) fn admits_refusal(&self, tally: &Tally) -> bool {
        let admitted = {
            let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
            refusals.admits(Instant::now())
        };
        if !admitted {
            self.left_out.refusals.fetch_add(1, Ordering::Relaxed);
            self.left_out.noted.notify_one();
            tally.events_left_out.add(1);
            metrics::event_left_out(Why::TooManyRefusals);
        }
        admitted
    }

    /// Put an event into its queue; the error is that there is no room.
    pub(super) fn put(&self, lane: Lane, stream: Stream, event: Event) -> Result<(), Why> {
        let queue = match lane {
            Lane::Clients => &self.clients,
            Lane::Operators => &self.operators,
        };
        queue.try_send((stream, event)).map_err(|_| Why::QueueFull)
    }

    /// Count an event that was lost.
    pub(super) fn note(&self, outcome: Result<(), Why>, tally: &Tally) {
        if let Err(why) = outcome {
            self.left_out.lost.fetch_add(1, Ordering::Relaxed);
            self.left_out.noted.notify_one();
            tally.events_left_out.add(1);
            metrics::event_left_out(why);
        }
    }
}

impl Allowance {
    fn admits(&mut self, now: Instant) -> bool {
        if now.duration_since(self.began) >= SECOND {
            self.began = now;
            self.told = 0;
        }
        if self.told >= self.most {
            return false;
        }
        self.told += 1;
        true
    }
}

impl LeftOut {
    fn take(&self) -> About {
        About::LeftOut {
            refusals: self.refusals.swap(0, Ordering::Relaxed),
            lost: self.lost.swap(0, Ordering::Relaxed),
        }
    }
}

/// An event with its number among those of its topic.
#[derive(Serialize)]
struct Numbered<'a> {
    #[serde(flatten)]
    event: &'a Event,
    seq: u64,
}

/// Publish what is put into the outbox, for ever.
pub(super) async fn publish(sys: &Sys, mut inlet: Inlet) {
    let mut numbers = [0_u64; Stream::ALL.len()];
    let properties = properties();
    // When what was left out is told.
    let mut tell_at: Option<Instant> = None;
    loop {
        let (stream, event) = tokio::select! {
            biased;
            Some(waiting) = inlet.operators.recv() => waiting,
            () = at(tell_at) => {
                tell_at = None;
                let about = sys.outbox.left_out.take();
                (Stream::LeftOut, Event::new("left_out", &sys.instance, about))
            }
            () = sys.outbox.left_out.noted.notified(), if tell_at.is_none() => {
                tell_at = Some(Instant::now() + SECOND);
                continue;
            }
            Some(waiting) = inlet.clients.recv() => waiting,
        };
        let number = numbers.get_mut(stream as usize);
        let Some((number, topic)) = number.zip(stream.topic()) else {
            continue;
        };
        *number += 1;
        let numbered = Numbered {
            event: &event,
            seq: *number,
        };
        let payload = match serde_json::to_vec(&numbered) {
            Ok(payload) => payload,
            Err(error) => {
                tracing::error!(%error, "an event could not be written as JSON");
                continue;
            }
        };
        let frame = Message {
            qos: QoS::AtLeastOnce,
            retain: false,
            audience: Audience::Administrators,
            publisher: 0,
            expires_at: None,
            topic: &topic,
            properties: &properties,
            payload: &payload,
        }
        .encode();
        if let Err(error) = sys.bus.publish(0, &topic, frame.octets().clone()).await {
            tracing::warn!(%error, "an event could not be published");
            sys.outbox.note(Err(Why::BusOverloaded), &sys.tally);
        }
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn properties() -> Bytes {
    let mut properties = PropertyWriter::default();
    properties.text_payload();
    properties.content_type("application/json");
    properties.finish()
}

const SECOND: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_an_allowance() {
        let began = Instant::now();
        let mut allowance = Allowance {
            most: 2,
            began,
            told: 0,
        };
        let later = |ms| began + Duration::from_millis(ms);
        let admitted = [0, 1, 999, 1_000, 1_500, 1_999].map(|ms| allowance.admits(later(ms)));
        assert_eq!(admitted, [true, true, false, true, true, false]);
    }

    #[test]
    fn a_full_queue_of_clients_leaves_room_for_what_operators_do() {
        let settings = SysSettings {
            waiting: 2,
            ..SysSettings::default()
        };
        let (outbox, _inlet) = Outbox::new(&settings);
        let tally = Tally::default();
        let event = || Event::new("left_out", "i", LeftOut::default().take());
        let mut results = Vec::new();
        for _ in 0..3 {
            let outcome = outbox.put(Lane::Clients, Stream::Session, event());
            outbox.note(outcome, &tally);
            results.push(outcome);
        }
        assert_eq!(results, [Ok(()), Ok(()), Err(Why::QueueFull)]);
        assert_eq!(tally.events_left_out.get(), 1);
        assert_eq!(outbox.put(Lane::Operators, Stream::Ca, event()), Ok(()));
        match outbox.left_out.take() {
            About::LeftOut {
                refusals: 0,
                lost: 1,
            } => {}
            other => panic!("{other:?}"),
        }
    }
}
