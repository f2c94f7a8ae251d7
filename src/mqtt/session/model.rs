//! The session against a model of a client, over a network that loses, and connections that end
//! at any point, with the broker restarted or not: QoS 1 at least once, QoS 2 exactly once, both in order, and every packet id used
//! for one message at a time. The packets pass through the real codec both ways.

use std::collections::{HashMap, HashSet, VecDeque};
use std::num::NonZeroU16;
use std::sync::Arc;

use bytes::BytesMut;
use proptest::prelude::*;
use rmqtt_codec::v5;
use tokio_util::codec::{Decoder as _, Encoder as _};

use super::kept::Calendar;
use super::message::SharedBudget;
use super::tests::{connect, frame, holder, queued, session};
use super::*;
use crate::mqtt::wire::Decoder;
use crate::store::sessions::record::{WholeSession, Write};

#[derive(Debug, Clone, Copy)]
enum Event {
    /// The bus has a message for the client.
    Deliver(bool),
    /// The client wants to publish.
    ClientPublish(bool),
    /// The server's packets so far reach the client, except for the last so many.
    ServerFlush(usize),
    /// The client's packets so far reach the server, except for the last so many.
    ClientFlush(usize),
    /// The bus takes what it was given.
    BusTakes,
    /// The connection breaks, with all that is on its way; the client comes back.
    Reconnect(u16),
    /// The connection breaks, the session goes to disk, so many messages come for it, it comes back
    /// in another process, and so does the client.
    Restart(u8, u16),
    /// The client acknowledges what it has, in another order than it came.
    ShuffleAcks,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => any::<bool>().prop_map(Event::Deliver),
        4 => any::<bool>().prop_map(Event::ClientPublish),
        6 => (0usize..3).prop_map(Event::ServerFlush),
        6 => (0usize..3).prop_map(Event::ClientFlush),
        4 => Just(Event::BusTakes),
        2 => (1u16..6).prop_map(Event::Reconnect),
        1 => (0u8..4, 1u16..6).prop_map(|(messages, window)| Event::Restart(messages, window)),
        1 => Just(Event::ShuffleAcks),
    ]
}

/// A client that follows the standard, with a session of its own.
#[derive(Default)]
struct Model {
    /// Messages published and not acknowledged, in the order of publishing.
    outgoing: VecDeque<(u16, bool, u32, bool)>,
    next_id: u16,
    /// QoS 2 messages of the server that have been received and not released.
    received: HashSet<u16>,
    /// What the application got.
    got_1: Vec<u32>,
    got_2: Vec<u32>,
    to_server: VecDeque<v5::Packet>,
}

struct World {
    session: Session,
    decoder: Decoder,
    client: Model,
    to_client: VecDeque<v5::Packet>,
    client_codec: v5::Codec,
    wire: BytesMut,
    /// Given to the bus, not taken yet.
    pending: VecDeque<ToPublish>,
    /// What the bus has taken.
    bus_1: Vec<u32>,
    bus_2: Vec<u32>,
    delivered: (Vec<u32>, Vec<u32>),
    published: (Vec<u32>, Vec<u32>),
    counter: u32,
    window: u16,
    unacked: HashMap<u16, u32>,
}

impl World {
    fn new() -> Self {
        let budget = Arc::new(SharedBudget::new(1 << 30));
        let mut world = Self {
            session: session(Limits::default(), Overflow::DropNewest, &budget),
            decoder: Decoder::new(1 << 20),
            client: Model {
                next_id: 1,
                ..Model::default()
            },
            to_client: VecDeque::new(),
            client_codec: v5::Codec::new(0, 0),
            wire: BytesMut::new(),
            pending: VecDeque::new(),
            bus_1: Vec::new(),
            bus_2: Vec::new(),
            delivered: Default::default(),
            published: Default::default(),
            counter: 0,
            window: 3,
            unacked: HashMap::new(),
        };
        world.open();
        world
    }

    fn open(&mut self) {
        self.decoder = Decoder::new(1 << 20);
        let mut hello = BytesMut::from(&b"\x10\x0d\x00\x04MQTT\x05\x00\x00\x00\x00\x00\x00"[..]);
        self.decoder.next(&mut hello).unwrap().unwrap();
        self.session.connect(&connect(self.window), None, 100);
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Deliver(exactly_once) => self.deliver(exactly_once),
            Event::ClientPublish(exactly_once) => self.client_publishes(exactly_once),
            Event::ServerFlush(lost) => self.server_flush(lost),
            Event::ClientFlush(lost) => self.client_flush(lost),
            Event::BusTakes => self.bus_takes(),
            Event::Reconnect(window) => {
                self.lose_connection();
                self.come_back(window);
            }
            Event::Restart(messages, window) => {
                self.lose_connection();
                self.restart(messages);
                self.come_back(window);
            }
            Event::ShuffleAcks => self.client.to_server.make_contiguous().reverse_acks(),
        }
    }

    fn deliver(&mut self, exactly_once: bool) {
        self.counter += 1;
        let (qos, log) = match exactly_once {
            true => (QoS::ExactlyOnce, &mut self.delivered.1),
            false => (QoS::AtLeastOnce, &mut self.delivered.0),
        };
        log.push(self.counter);
        let frame = frame("t", &self.counter.to_be_bytes(), None);
        assert!(self.session.enqueue(queued(frame, qos)).queued);
    }

    fn client_publishes(&mut self, exactly_once: bool) {
        if self.client.outgoing.len() >= 100 {
            return;
        }
        self.counter += 1;
        let id = self.client.next_id;
        self.client.next_id = if id == 200 { 1 } else { id + 1 };
        match exactly_once {
            true => self.published.1.push(self.counter),
            false => self.published.0.push(self.counter),
        }
        self.client
            .outgoing
            .push_back((id, exactly_once, self.counter, false));
        self.client
            .to_server
            .push_back(publish(id, exactly_once, self.counter, false));
    }

    /// What the session sends reaches the client, or its beginning does.
    fn server_flush(&mut self, keep_back: usize) {
        self.session.transmit(0, &mut self.wire, usize::MAX);
        while let Some((packet, _)) = self.client_codec.decode(&mut self.wire).unwrap() {
            self.check_sent(&packet);
            self.to_client.push_back(packet);
        }
        while self.to_client.len() > keep_back {
            let packet = self.to_client.pop_front().unwrap();
            self.client.take(packet);
        }
    }

    /// One message for one packet id, and no more of them than the client takes.
    fn check_sent(&mut self, packet: &v5::Packet) {
        if let v5::Packet::Publish(packet) = packet {
            let id = packet.packet_id.unwrap().get();
            let number = u32::from_be_bytes(packet.payload[..].try_into().unwrap());
            let known = self.unacked.insert(id, number);
            assert!(known.is_none_or(|known| known == number && packet.dup));
        }
    }

    fn client_flush(&mut self, keep_back: usize) {
        while self.client.to_server.len() > keep_back {
            let packet = self.client.to_server.pop_front().unwrap();
            match &packet {
                v5::Packet::PublishAck(ack) => {
                    self.unacked.remove(&ack.packet_id.get());
                }
                v5::Packet::PublishComplete(ack) => {
                    self.unacked.remove(&ack.packet_id.get());
                }
                _ => {}
            }
            let mut octets = BytesMut::new();
            self.client_codec.encode(packet, &mut octets).unwrap();
            let packet = self.decoder.next(&mut octets).unwrap().unwrap();
            match self.session.on_packet(packet, 0).unwrap() {
                Step::Publish(message) => self.pending.push_back(message),
                Step::Nothing => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn bus_takes(&mut self) {
        while let Some(message) = self.pending.pop_front() {
            let number = u32::from_be_bytes(message.packet.payload[..].try_into().unwrap());
            match message.packet.qos {
                QoS::ExactlyOnce => self.bus_2.push(number),
                _ => self.bus_1.push(number),
            }
            self.session.published(message.id, message.packet.qos, 0);
        }
    }

    fn lose_connection(&mut self) {
        self.wire.clear();
        self.to_client.clear();
        self.client.to_server.clear();
        // As the connection does: what the bus has not taken is taken back.
        for message in std::mem::take(&mut self.pending) {
            self.session.not_published(message.id, message.packet.qos);
        }
        assert!(!self.session.disconnect(Departure::Lost, 0).ended);
    }

    fn restart(&mut self, messages: u8) {
        let mut disk = Disk::default();
        disk.write(&mut self.session);
        for number in 0..messages {
            self.deliver(number % 2 == 0);
            if number == 1 {
                disk.write(&mut self.session);
            }
        }
        disk.write(&mut self.session);
        assert!(self.session.is_written());
        self.session = disk.read();
    }

    fn come_back(&mut self, window: u16) {
        self.session.forget_on_disk();
        self.window = window;
        self.open();
        for (id, exactly_once, number, released) in self.client.outgoing.clone() {
            self.client.to_server.push_back(match released {
                false => publish(id, exactly_once, number, true),
                true => release(id),
            });
        }
    }

    /// Let everything come to its end.
    fn settle(&mut self) {
        for _ in 0..2_000 {
            self.client_flush(0);
            self.bus_takes();
            self.server_flush(0);
        }
    }
}

/// What was written of the session, in the form in which it is written.
#[derive(Default)]
struct Disk(Option<WholeSession>);

impl Disk {
    fn write(&mut self, session: &mut Session) {
        let calendar = Calendar {
            now: 50,
            unix_ms: 1_000,
        };
        match (session.write(holder, calendar), &mut self.0) {
            (None, Some(_)) => {}
            (Some(Write::Session(whole)), _) => self.0 = Some(*whole),
            (
                Some(Write::Queue {
                    before,
                    first,
                    messages,
                    ..
                }),
                Some(whole),
            ) => {
                assert_eq!(before, whole.first, "nothing left the queue meanwhile");
                assert_eq!(first, whole.first + whole.queue.len() as u64);
                whole.queue.extend(messages);
            }
            other => panic!("{other:?}"),
        }
    }

    /// In another process, whose clock began elsewhere.
    fn read(self) -> Session {
        let whole = self.0.unwrap();
        let calendar = Calendar {
            now: 7,
            unix_ms: 2_000,
        };
        let budget = Arc::new(SharedBudget::new(1 << 30));
        let limits = Arc::new(Limits::default());
        let overflow = Overflow::DropNewest;
        let mut session =
            Session::restored(&whole.session, false, limits, overflow, budget, calendar).unwrap();
        for id in &whole.received {
            session.restore_received(*id).unwrap();
        }
        for entry in whole.in_flight.clone() {
            session.restore_in_flight(entry, calendar).unwrap();
        }
        for (message, number) in whole.queue.iter().zip(whole.first..) {
            let taken = session.restore_queued(number, message.clone(), calendar);
            assert!(taken.unwrap().queued);
        }
        session.restore_ends().unwrap();
        assert!(session.is_written());
        // What would be written of it now is what was.
        session.outdate();
        let Some(Write::Session(mut again)) = session.write(holder, calendar) else {
            panic!("it was not written");
        };
        again.received.sort_unstable();
        let mut before = whole;
        before.received.sort_unstable();
        if before.queue.is_empty() {
            before.first = again.first;
        }
        assert_eq!(*again, before);
        session
    }
}

trait Shuffle {
    fn reverse_acks(&mut self);
}

impl Shuffle for [v5::Packet] {
    /// Reverse the PUBACKs among the packets; the others keep their places.
    fn reverse_acks(&mut self) {
        let places: Vec<usize> = (0..self.len())
            .filter(|&place| matches!(self[place], v5::Packet::PublishAck(_)))
            .collect();
        for pair in 0..places.len() / 2 {
            self.swap(places[pair], places[places.len() - 1 - pair]);
        }
    }
}

impl Model {
    fn take(&mut self, packet: v5::Packet) {
        match packet {
            v5::Packet::Publish(packet) => {
                let id = packet.packet_id.unwrap();
                let number = u32::from_be_bytes(packet.payload[..].try_into().unwrap());
                match packet.qos {
                    QoS::AtLeastOnce => {
                        if !packet.dup || !self.got_1.contains(&number) {
                            self.got_1.push(number);
                        }
                        self.answer(v5::Packet::PublishAck(ack(id)));
                    }
                    _ => {
                        if self.received.insert(id.get()) {
                            self.got_2.push(number);
                        }
                        self.answer(v5::Packet::PublishReceived(ack(id)));
                    }
                }
            }
            v5::Packet::PublishRelease(packet) => {
                self.received.remove(&packet.packet_id.get());
                let ack = v5::PublishAck2 {
                    packet_id: packet.packet_id,
                    ..Default::default()
                };
                self.answer(v5::Packet::PublishComplete(ack));
            }
            v5::Packet::PublishAck(packet) => self.finished(packet.packet_id.get(), false),
            v5::Packet::PublishReceived(packet) => {
                let id = packet.packet_id.get();
                if let Some(entry) = self.outgoing.iter_mut().find(|entry| entry.0 == id) {
                    entry.3 = true;
                }
                self.answer(release(id));
            }
            v5::Packet::PublishComplete(packet) => self.finished(packet.packet_id.get(), true),
            other => panic!("{other:?}"),
        }
    }

    fn finished(&mut self, id: u16, exactly_once: bool) {
        self.outgoing
            .retain(|entry| (entry.0, entry.1) != (id, exactly_once));
    }

    fn answer(&mut self, packet: v5::Packet) {
        self.to_server.push_back(packet);
    }
}

fn publish(id: u16, exactly_once: bool, number: u32, dup: bool) -> v5::Packet {
    v5::Packet::Publish(Box::new(rmqtt_codec::types::Publish {
        dup,
        retain: false,
        qos: match exactly_once {
            true => QoS::ExactlyOnce,
            false => QoS::AtLeastOnce,
        },
        topic: "t".into(),
        packet_id: NonZeroU16::new(id),
        payload: number.to_be_bytes().to_vec().into(),
        properties: None,
    }))
}

fn release(id: u16) -> v5::Packet {
    v5::Packet::PublishRelease(v5::PublishAck2 {
        packet_id: NonZeroU16::new(id).unwrap(),
        ..Default::default()
    })
}

fn ack(packet_id: NonZeroU16) -> v5::PublishAck {
    v5::PublishAck {
        packet_id,
        ..Default::default()
    }
}

/// Each at least once, and first occurrences in order.
fn check_at_least_once(got: &[u32], expected: &[u32]) {
    let mut seen = HashSet::new();
    let firsts: Vec<u32> = got
        .iter()
        .copied()
        .filter(|number| seen.insert(*number))
        .collect();
    assert_eq!(firsts, expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn messages_survive_everything(events in proptest::collection::vec(event(), 0..120)) {
        let mut world = World::new();
        for event in events {
            world.apply(event);
        }
        world.settle();
        check_at_least_once(&world.client.got_1, &world.delivered.0);
        prop_assert_eq!(&world.client.got_2, &world.delivered.1);
        check_at_least_once(&world.bus_1, &world.published.0);
        prop_assert_eq!(&world.bus_2, &world.published.1);
        prop_assert!(world.client.outgoing.is_empty());
        prop_assert_eq!(world.session.waiting(), 0);
    }
}
