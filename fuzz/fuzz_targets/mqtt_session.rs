//! A session whose client sends anything, while messages arrive for it, the bus makes it wait,
//! time passes and connections end at any point. No packet id is used twice at a time, the
//! client's receive maximum and packet size hold, the queue stays within its limits, and what is
//! published with QoS 2 reaches the bus once.
//!
//! The input is a row of acts, an octet each; some have an argument in the next octet.
#![no_main]

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use portcullis::mqtt::bus::SessionKey;
use portcullis::mqtt::frame::{Audience, Frame, Message};
use portcullis::mqtt::session::message::{Message as Queued, SharedBudget};
use portcullis::mqtt::session::{Departure, Session, Step, ToPublish};
use portcullis::mqtt::settings::{Limits, Overflow};
use portcullis::mqtt::topics::{TopicLimits, TopicName};
use portcullis::mqtt::wire::{Ack, AckKind, Connect, Decoder, Incoming, QoS};

const QUEUE_BYTES: usize = 4 << 10;
const QUEUE_MESSAGES: usize = 12;
const MAX_INFLIGHT: u16 = 6;
const MAX_PACKET: usize = 1 << 10;

/// A message the client was sent with QoS 1 or 2, by packet id.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Sent {
    qos: u8,
    released: bool,
    on_this_connection: bool,
}

struct World {
    session: Session,
    limits: Arc<Limits>,
    budget: Arc<SharedBudget>,
    overflow: Overflow,
    decoder: Decoder,
    buffer: BytesMut,
    connected: Option<Connect>,
    publishing: Option<ToPublish>,
    sent: HashMap<u16, Sent>,
    /// QoS 2 messages that the bus was given and the client has not released.
    received: HashSet<u16>,
    /// A message was dropped because the client takes smaller packets than before, so that its
    /// packet id is free although nobody acknowledged it.
    dropped: bool,
    now: u64,
}

impl World {
    fn new(overflow: Overflow) -> Self {
        let limits = Arc::new(Limits {
            queue_messages: QUEUE_MESSAGES,
            queue_bytes: QUEUE_BYTES,
            queue_age: Some(std::time::Duration::from_secs(20)),
            max_inflight: MAX_INFLIGHT,
            receive_maximum: 4,
            max_aliases: 3,
            ..Limits::default()
        });
        let budget = Arc::new(SharedBudget::new(2 * QUEUE_BYTES));
        Self {
            session: session(&limits, &budget, overflow),
            limits,
            budget,
            overflow,
            decoder: Decoder::new(MAX_PACKET),
            buffer: BytesMut::new(),
            connected: None,
            publishing: None,
            sent: HashMap::new(),
            received: HashSet::new(),
            dropped: false,
            now: 1,
        }
    }

    /// Process what was read, as a connection does: not while a message waits for the bus.
    fn process(&mut self) {
        while self.publishing.is_none() {
            match self.decoder.next(&mut self.buffer) {
                Ok(None) => return,
                Ok(Some(Incoming::Connect(connect))) => self.connect(*connect),
                Ok(Some(packet)) => {
                    self.note(&packet);
                    match self.session.on_packet(packet, self.now) {
                        Ok(step) => self.step(step),
                        Err(fault) => {
                            assert!(fault.reason >= 0x80);
                            return self.close(Departure::Lost);
                        }
                    }
                }
                Err(_) => return self.close(Departure::Lost),
            }
        }
    }

    fn connect(&mut self, connect: Connect) {
        if connect.clean_start {
            self.renew();
        }
        let will = connect.will.clone().and_then(|will| {
            let topic = TopicName::parse(will.topic.clone(), &TopicLimits::default()).ok()?;
            Some((topic, will))
        });
        let expiry = connect.session_expiry.min(self.limits.max_session_expiry);
        self.session.connect(&connect, will, expiry);
        self.connected = Some(connect);
        for sent in self.sent.values_mut() {
            sent.on_this_connection = false;
        }
    }

    /// What an acknowledgement means for the messages the client was sent.
    fn note(&mut self, packet: &Incoming) {
        let Incoming::Ack(Ack { kind, id, reason }) = *packet else {
            return;
        };
        let id = id.get();
        match (kind, self.sent.get_mut(&id)) {
            (AckKind::PubRel, _) => {
                self.received.remove(&id);
            }
            (AckKind::PubAck, Some(sent)) if sent.qos == 1 => {
                self.sent.remove(&id);
            }
            (AckKind::PubRec, Some(sent)) if sent.qos == 2 && !sent.released => match reason {
                0x80.. => {
                    self.sent.remove(&id);
                }
                _ => sent.released = true,
            },
            (AckKind::PubComp, Some(sent)) if sent.released => {
                self.sent.remove(&id);
            }
            _ => {}
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Nothing => {}
            Step::Publish(message) => {
                if let (QoS::ExactlyOnce, Some(id)) = (message.packet.qos, message.id) {
                    assert!(self.received.insert(id.get()), "QoS 2 published twice");
                }
                self.publishing = Some(message);
            }
            Step::Subscribe(wanted) => {
                let code = |filter: &Result<_, u8>| *filter.as_ref().err().unwrap_or(&0);
                let codes = wanted.filters.iter().map(code).collect();
                self.session.subscribed(wanted.id, codes);
            }
            Step::Unsubscribe(id, filters) => {
                let existed: Vec<_> = filters.iter().map(Option::is_some).collect();
                self.session.unsubscribed(id, &existed);
            }
            Step::Leave(departure) => self.close(departure),
        }
    }

    /// The bus takes the message, refuses it, or cannot take it.
    fn bus(&mut self, argument: u8) {
        let Some(message) = self.publishing.take() else {
            return;
        };
        let (id, qos) = (message.id, message.packet.qos);
        let code = [0, 0x10, 0x87][usize::from(argument % 3)];
        if let (Some(id), 0x80..) = (id, code) {
            self.received.remove(&id.get());
        }
        self.session.published(id, qos, code);
        self.process();
    }

    fn close(&mut self, departure: Departure) {
        if let Some(message) = self.publishing.take() {
            let (id, qos) = (message.id, message.packet.qos);
            if let (QoS::ExactlyOnce, Some(id)) = (qos, id) {
                self.received.remove(&id.get());
            }
            self.session.not_published(id, qos);
        }
        self.decoder = Decoder::new(MAX_PACKET);
        self.buffer.clear();
        self.connected = None;
        if self.session.disconnect(departure, self.now).ended {
            self.renew();
        }
    }

    fn renew(&mut self) {
        self.session = session(&self.limits, &self.budget, self.overflow);
        assert_eq!(self.budget.used(), 0, "a session that ended holds nothing");
        self.sent.clear();
        self.received.clear();
        self.dropped = false;
    }

    fn deliver(&mut self, argument: u8) {
        let qos = QoS::try_from(argument % 3).unwrap();
        let frame = frame(argument, (argument & 64 != 0).then_some(self.now + 1_500));
        let taken = self.session.enqueue(Queued {
            frame,
            qos,
            retain: argument & 4 != 0,
            subscription_ids: vec![1; usize::from(argument & 3)],
            queued_at: i64::try_from(self.now).unwrap(),
        });
        assert!(taken.queued || taken.dropped.for_room() > 0);
        assert!(self.budget.used() <= QUEUE_BYTES);
        let limit = QUEUE_MESSAGES + usize::from(MAX_INFLIGHT);
        assert!(self.session.waiting() <= limit);
    }

    fn transmit(&mut self) {
        let mut out = BytesMut::new();
        let done = self.session.transmit(self.now, &mut out, MAX_PACKET * 64);
        self.dropped |= done.too_large > 0;
        let Some(connect) = &self.connected else {
            assert!(out.is_empty(), "sent to nobody");
            return;
        };
        let (mut messages, mut rest) = (0, &out[..]);
        while !rest.is_empty() {
            let (packet, body, later) = split(rest);
            rest = later;
            if packet[0] >> 4 != 3 {
                continue;
            }
            messages += 1;
            assert!(packet.len() <= connect.max_packet as usize);
            let (qos, dup) = ((packet[0] >> 1) & 3, packet[0] & 8 != 0);
            if qos == 0 {
                continue;
            }
            let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
            let id = u16::from_be_bytes([body[2 + topic], body[3 + topic]]);
            assert_ne!(id, 0);
            let sent = Sent {
                qos,
                released: false,
                on_this_connection: true,
            };
            let known = self.sent.insert(id, sent);
            if !self.dropped {
                assert_eq!(known.is_some(), dup, "DUP says that it was sent before");
                assert!(known.is_none_or(|known| {
                    known.qos == qos && !known.released && !known.on_this_connection
                }));
            }
        }
        assert_eq!(messages, done.messages);
        let open = self.sent.values().filter(|sent| sent.on_this_connection);
        assert!(open.count() <= usize::from(connect.receive_maximum.min(MAX_INFLIGHT)));
    }

    fn pass(&mut self, argument: u8) {
        self.now += u64::from(argument) * 100;
        self.session.drop_useless(self.now);
        if self.session.on_time(self.now).ended {
            self.renew();
        }
        assert!(self.session.deadline().is_none_or(|at| at > self.now));
    }
}

fn session(limits: &Arc<Limits>, budget: &Arc<SharedBudget>, overflow: Overflow) -> Session {
    let (key, limits) = (SessionKey(1), limits.clone());
    Session::new(key, "c".into(), false, limits, overflow, budget.clone())
}

fn frame(argument: u8, expires_at: Option<u64>) -> Frame {
    let topic = ["t", "topic/one", "topic/two", "topic/three"][usize::from(argument & 3)];
    Message {
        qos: QoS::ExactlyOnce,
        retain: false,
        audience: Audience::Everybody,
        publisher: 7,
        expires_at,
        topic: &TopicName::parse(topic, &TopicLimits::default()).unwrap(),
        properties: &[],
        payload: &[b'x'; 256][..usize::from(argument)],
    }
    .encode()
}

/// The first packet, its body, and what comes after it.
fn split(octets: &[u8]) -> (&[u8], &[u8], &[u8]) {
    let (mut length, mut place) = (0, 1);
    loop {
        length |= usize::from(octets[place] & 0x7F) << (7 * (place - 1));
        place += 1;
        if octets[place - 1] & 0x80 == 0 {
            break;
        }
    }
    let end = place + length;
    (&octets[..end], &octets[place..end], &octets[end..])
}

fuzz_target!(|octets: &[u8]| {
    let Some((&first, mut rest)) = octets.split_first() else {
        return;
    };
    let mut world = World::new(match first & 1 {
        0 => Overflow::DropNewest,
        _ => Overflow::DropOldest,
    });
    while let Some((&[act, argument], later)) = rest.split_first_chunk::<2>() {
        rest = later;
        match act % 8 {
            // Twice, since the client has more to say than the others.
            0 | 1 => {
                let (piece, later) = rest.split_at(usize::from(argument).min(rest.len()));
                rest = later;
                world.buffer.extend_from_slice(piece);
                world.process();
            }
            2 => world.deliver(argument),
            3 => world.transmit(),
            4 => world.bus(argument),
            5 => world.pass(argument),
            6 => world.close(Departure::Lost),
            _ => {
                world
                    .session
                    .sift(usize::from(argument), 3, |topic| topic != "t");
            }
        }
    }
    let budget = world.budget.clone();
    drop(world);
    assert_eq!(budget.used(), 0);
});
