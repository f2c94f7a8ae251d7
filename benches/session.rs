//! What the session layer does for one message: the octets of its PUBLISH are decoded, its session
//! and its rights are asked, it becomes a frame, the shard gives it to the sessions that want it, and
//! each of them writes its own PUBLISH. With QoS 1 all PUBACKs belong to it, decoded and written.
//!
//! A connection wants a peer that only the acceptor makes, so with one the figures would be those
//! of TLS and of a socket. What is driven here is what it drives: the same parts in the same order,
//! one message at a time, on one thread and in one shard. `step` leaves out the bus, whose router
//! has a thread of its own: that is stable. `bus` sends the same messages through it, 64 at a time,
//! in wall time: what it takes longer is the bus. Not in either: sockets, TLS, timers, counters,
//! clocks.
//!
//! `cargo bench --bench session`

// The lint configuration allows these in tests; a benchmark is none.
#![allow(clippy::unwrap_used)]

#[path = "common/packets.rs"]
mod packets;
#[path = "common/pki.rs"]
mod pki;

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::{Buf, Bytes, BytesMut};
use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use portcullis::mqtt::access::rules::AccessSettings;
use portcullis::mqtt::access::{Access, Publishing, Rights};
use portcullis::mqtt::bus::{Bus, BusSettings, Delivery, FilterId, SessionKey, ShardLink};
use portcullis::mqtt::frame::{Audience, Frame, Message};
use portcullis::mqtt::identity::{Client, Owner};
use portcullis::mqtt::session::message::SharedBudget;
use portcullis::mqtt::session::subscriptions::Place;
use portcullis::mqtt::session::{Session, Step, ToPublish};
use portcullis::mqtt::settings::{Limits, Overflow, Policy};
use portcullis::mqtt::shard::{Cell, Shard, Wakes};
use portcullis::mqtt::shared::Presence;
use portcullis::mqtt::sys::tally::Tally;
use portcullis::mqtt::topics::{Subscription, TopicLimits};
use portcullis::mqtt::wire::packets::{Options, RetainHandling};
use portcullis::mqtt::wire::{Decoder, Incoming, QoS, Version, reason};
use portcullis::tls::peer::VerifiedPeer;
use rcgen::{ExtendedKeyUsagePurpose, KeyPair};
use rustls::pki_types::UnixTime;
use tokio::runtime::Runtime;
use tokio_util::task::TaskTracker;

use packets::{TOPIC, connect, publish};
use pki::{Authorities, parsed, registry, verifier};

const VERSION: Version = Version::V5;
const QUALITIES: [QoS; 2] = [QoS::AtMostOnce, QoS::AtLeastOnce];
const SUBSCRIBERS: [usize; 2] = [1, 50];
/// Octets of a payload.
const PAYLOADS: [usize; 2] = [64, 1_024];
/// Messages that go through the bus before any is taken out of it.
const AT_ONCE: u64 = 64;
/// What a connection reads and writes at once.
const READ_AT_LEAST: usize = 512;
const WRITE_TARGET: usize = 64 << 10;
/// The clock of the broker stands still.
const NOW: u64 = 1;

/// A shard, a client that publishes, and clients that are subscribed.
struct World {
    runtime: Runtime,
    bus: Bus,
    link: ShardLink,
    shard: Arc<Shard>,
    filter: FilterId,
    rights: Rights,
    publisher: Connected,
    subscribers: Vec<Connected>,
    packet: Bytes,
}

/// What a connection keeps.
struct Connected {
    cell: Arc<Cell>,
    decoder: Decoder,
    input: BytesMut,
    output: BytesMut,
    /// Of the last message with QoS 1.
    packet_id: u16,
}

impl World {
    fn new(qos: QoS, subscribers: usize, payload: usize) -> Self {
        let runtime = Runtime::new().unwrap();
        let settings = BusSettings {
            shards: 1,
            ..BusSettings::default()
        };
        let (bus, mut links) = runtime.block_on(Bus::start(settings)).unwrap();
        let tally = Arc::new(Tally::default());
        let shard = Arc::new(Shard::new(0, bus.clone(), tally, TaskTracker::new()));
        let peer = peer();
        let limits = Arc::new(Limits::default());
        let budget = Arc::new(SharedBudget::new(limits.total_queue_bytes));
        let client = |number| Connected::new(number, &shard, &peer, &limits, &budget);
        let subscribers: Vec<_> = (2..2 + subscribers as u64).map(client).collect();
        // All have the same filter, and it has one id in a shard.
        let places: Vec<_> = subscribers
            .iter()
            .map(|one| one.subscribe(&shard, qos))
            .collect();
        let Some(&Place::Filter(filter)) = places.first() else {
            unreachable!("it is no shared subscription");
        };
        Self {
            runtime,
            link: links.remove(0),
            filter,
            rights: Access::new(AccessSettings::default()).rights(&peer, "1", false),
            packet: publish(VERSION, qos, payload),
            publisher: client(1),
            subscribers,
            bus,
            shard,
        }
    }

    /// The message that the publisher sends, from its octets.
    fn receive(&mut self) -> (ToPublish, Frame) {
        let Step::Publish(message) = self.publisher.receive(&self.packet) else {
            unreachable!("it is a message");
        };
        assert_eq!(self.rights.publish(&message.topic), Publishing::Message);
        let frame = Message {
            qos: message.packet.qos,
            retain: message.packet.retain,
            audience: Audience::Everybody,
            publisher: self.publisher.cell.key.0,
            expires_at: message.expires_at,
            topic: &message.topic,
            properties: &message.packet.properties,
            payload: &message.packet.payload,
        }
        .encode();
        (message, frame)
    }

    /// The bus has the message.
    fn published(&mut self, message: &ToPublish) {
        let qos = message.packet.qos;
        let cell = &self.publisher.cell;
        cell.session().published(message.id, qos, reason::SUCCESS);
        self.publisher.transmit();
    }

    /// The bus gives the message to the shard. Gives the messages that were written.
    fn deliver(&mut self, delivery: &Delivery) -> usize {
        self.shard.deliver(delivery, NOW, &mut Wakes::default());
        let written = self.subscribers.iter_mut().map(Connected::transmit);
        written.sum()
    }

    /// One message, without the bus. `delivery` is what the bus would have made of another one.
    fn step(&mut self, delivery: &Delivery) -> usize {
        let (message, frame) = self.receive();
        let mut delivery = delivery.clone();
        delivery.frame = frame.octets().clone();
        self.published(&message);
        drop(message);
        self.deliver(&delivery)
    }

    /// Messages through the bus.
    async fn through_bus(&mut self, messages: u64) -> usize {
        for _ in 0..messages {
            let (message, frame) = self.receive();
            let octets = frame.octets().clone();
            let routed = self.bus.publish(0, &message.topic, octets).await.unwrap();
            assert_eq!(routed.filters, 1);
            self.published(&message);
        }
        let (mut taken, mut written) = (0, 0);
        while taken < messages {
            for delivery in self.link.recv().await {
                written += self.deliver(&delivery);
                taken += 1;
            }
        }
        written
    }
}

impl Connected {
    fn new(
        number: u64,
        shard: &Shard,
        peer: &VerifiedPeer,
        limits: &Arc<Limits>,
        budget: &Arc<SharedBudget>,
    ) -> Self {
        let mut decoder = Decoder::new(limits.max_packet);
        let mut session = Session::new(
            SessionKey(number),
            number.to_string().into(),
            false,
            limits.clone(),
            Overflow::default(),
            budget.clone(),
        );
        let mut input = BytesMut::from(connect(VERSION));
        let Some(Incoming::Connect(connect)) = decoder.next(&mut input).unwrap() else {
            unreachable!("it is CONNECT");
        };
        session.connect(&connect, None, 0);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let client = Client::of(peer, address, SystemTime::now());
        Self {
            cell: shard.cell(session, Owner::of(peer, &Policy::default()), client),
            decoder,
            input: BytesMut::new(),
            output: BytesMut::new(),
            packet_id: 0,
        }
    }

    fn subscribe(&self, shard: &Shard, qos: QoS) -> Place {
        let filter = Subscription::parse(TOPIC, &TopicLimits::default()).unwrap();
        let place = shard
            .subscribe(&self.cell, &filter, Presence::Online)
            .unwrap();
        let options = Options {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Always,
        };
        let mut session = self.cell.session();
        session
            .subscriptions_mut()
            .insert(filter, place, options, None);
        place
    }

    /// Take a packet of the client.
    fn receive(&mut self, octets: &[u8]) -> Step {
        self.input.reserve(octets.len().max(READ_AT_LEAST));
        self.input.extend_from_slice(octets);
        let packet = self.decoder.next(&mut self.input).unwrap().unwrap();
        self.cell.session().on_packet(packet, NOW).unwrap()
    }

    /// Write what there is to write; what has QoS 1 is acknowledged. Gives the messages that were
    /// written.
    fn transmit(&mut self) -> usize {
        let mut written = 0;
        loop {
            self.cell.rearm();
            let sent = self
                .cell
                .session()
                .transmit(NOW, &mut self.output, WRITE_TARGET);
            if self.output.is_empty() {
                return written;
            }
            written += sent.messages;
            let is_acknowledged = self
                .output
                .first()
                .is_some_and(|octet| octet & 0xF6 == 0x32);
            self.output.advance(black_box(&self.output).len());
            for _ in 0..sent.messages {
                if is_acknowledged {
                    self.packet_id = self.packet_id.checked_add(1).unwrap_or(1);
                    let [high, low] = self.packet_id.to_be_bytes();
                    self.receive(&[0x40, 2, high, low]);
                }
            }
        }
    }
}

/// A device that the gate has let in.
fn peer() -> VerifiedPeer {
    let authorities = Authorities::new();
    let key = KeyPair::generate().unwrap();
    let device = authorities.leaf(1, ExtendedKeyUsagePurpose::ClientAuth, &key);
    let verifier = verifier(registry([parsed(&authorities.root(1))]));
    verifier.peer(&device, &[], UnixTime::now()).unwrap()
}

/// Each kind of message, with an element for each message that is written.
fn bench_each(
    group: &mut BenchmarkGroup<'_, WallTime>,
    mut measure: impl FnMut(&mut World, u64) -> (usize, Duration),
) {
    for qos in QUALITIES {
        for subscribers in SUBSCRIBERS {
            for payload in PAYLOADS {
                let mut world = World::new(qos, subscribers, payload);
                group.throughput(Throughput::Elements(subscribers as u64));
                let name = format!("1 to {subscribers}/{payload} B");
                let id = BenchmarkId::new(format!("QoS {}", qos.value()), name);
                group.bench_function(id, |bencher| {
                    bencher.iter_custom(|count| {
                        let (written, spent) = measure(&mut world, count);
                        assert_eq!(written as u64, count * subscribers as u64);
                        spent
                    });
                    let waiting = |one: &Connected| one.cell.session().waiting();
                    assert_eq!(world.subscribers.iter().map(waiting).sum::<usize>(), 0);
                });
            }
        }
    }
}

fn steps(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("step");
    bench_each(&mut group, |world, count| {
        let delivery = Delivery::new(0, &[world.filter], &[], Bytes::new());
        let began = Instant::now();
        let written = (0..count).map(|_| world.step(&delivery)).sum();
        (written, began.elapsed())
    });
    group.finish();
}

fn through_bus(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("bus");
    bench_each(&mut group, |world, count| {
        let handle = world.runtime.handle().clone();
        handle.block_on(async {
            let (mut left, mut written) = (count, 0);
            let began = Instant::now();
            while left > 0 {
                let messages = left.min(AT_ONCE);
                written += world.through_bus(messages).await;
                left -= messages;
            }
            (written, began.elapsed())
        })
    });
    group.finish();
}

criterion_group!(benches, steps, through_bus);
criterion_main!(benches);
