//! Random histories of one session against a model of it that knows what a crash may lose, and
//! against a client that follows the standard: what it gets is exactly once and in order, whatever
//! the broker goes through.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

const DAY: i64 = 86_400_000;

#[derive(Debug, Clone, Copy)]
enum Event {
    /// Somebody publishes a message for the client, QoS 2 or 1.
    Publish(bool),
    /// The client connects, if it is away.
    Come,
    /// It takes what there is, and acknowledges so many steps of it.
    Take(usize),
    /// It begins anew, if it is away; with a session that lasts, or to delete the one there is.
    Anew(bool),
    /// Its connection breaks.
    Leave,
    /// What has changed is written.
    Write,
    /// The wall clock is set by a day, forward or back, and what has changed is written.
    Clock(bool),
    /// The broker crashes and starts again.
    Crash,
    /// The broker is stopped in order and starts again.
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => any::<bool>().prop_map(Event::Publish),
        4 => Just(Event::Come),
        4 => (0_usize..5).prop_map(Event::Take),
        1 => any::<bool>().prop_map(Event::Anew),
        3 => Just(Event::Leave),
        3 => Just(Event::Write),
        1 => any::<bool>().prop_map(Event::Clock),
        2 => Just(Event::Crash),
        1 => Just(Event::Restart),
    ]
}

struct History {
    place: Place,
    world: World,
    client: Option<Client5>,
    /// The client's side of its session: packet ids that it has received and not completed.
    received: HashSet<u16>,
    got: Vec<u32>,
    /// What it has to have got in the end.
    expected: Vec<u32>,
    /// Whether there is a session.
    exists: bool,
    /// What disk has of `expected`, if it has the session.
    on_disk: Option<Vec<u32>>,
    number: u32,
}

impl History {
    async fn begin() -> Self {
        let place = Place::new();
        place.pass(1_000 * DAY);
        let (world, _) = place.start().await;
        Self {
            place,
            world,
            client: None,
            received: HashSet::new(),
            got: Vec::new(),
            expected: Vec::new(),
            exists: false,
            on_disk: None,
            number: 0,
        }
    }

    async fn apply(&mut self, event: Event) {
        match event {
            Event::Publish(exactly_once) => self.publish(exactly_once).await,
            Event::Come => self.come().await,
            Event::Take(steps) => self.take(steps).await,
            Event::Anew(lasts) => self.begin_anew(lasts).await,
            Event::Leave => self.leave().await,
            Event::Write => self.write().await,
            Event::Clock(forward) => {
                self.place.pass(if forward { DAY } else { -DAY });
                self.write().await;
            }
            Event::Crash => {
                let crashed = self.place.crashed();
                self.replace_world().await;
                self.place = crashed;
                self.world = self.place.start().await.0;
                self.exists = self.on_disk.is_some();
                self.expected = self.on_disk.clone().unwrap_or_default();
            }
            Event::Restart => {
                self.client = None;
                self.world.until_away("c").await;
                let next = World::start().await;
                let world = std::mem::replace(&mut self.world, next);
                self.place.stop(world).await;
                self.world = self.place.start().await.0;
                self.on_disk = self.exists.then(|| self.expected.clone());
            }
        }
    }

    /// End what runs without a word.
    async fn replace_world(&mut self) {
        self.client = None;
        let next = World::start().await;
        std::mem::replace(&mut self.world, next).until_gone().await;
    }

    async fn publish(&mut self, exactly_once: bool) {
        self.number += 1;
        if self.exists {
            self.expected.push(self.number);
        }
        let qos = match exactly_once {
            true => QoS::ExactlyOnce,
            false => QoS::AtLeastOnce,
        };
        let mut publisher = self.world.simple5("p").await;
        let mut message = message("t", qos, "");
        message.payload = self.number.to_be_bytes().to_vec().into();
        publisher.publish(message).await;
        while !self.world.broker.hub().bus_is_idle() {
            tokio::task::yield_now().await;
        }
    }

    async fn come(&mut self) {
        if self.client.is_some() {
            return;
        }
        let connect = v5::Connect {
            receive_max: std::num::NonZeroU16::new(3),
            ..lasting("c")
        };
        let (mut client, connack) = self.world.connect5(&device("c"), connect).await;
        assert_eq!(connack.session_present, self.exists);
        if !self.exists {
            self.subscribe(&mut client).await;
        }
        self.on_disk = None;
        self.client = Some(client);
    }

    async fn begin_anew(&mut self, lasts: bool) {
        if self.client.is_some() {
            return;
        }
        let connect = v5::Connect {
            clean_start: true,
            receive_max: std::num::NonZeroU16::new(3),
            session_expiry_interval_secs: if lasts { 1_000 } else { 0 },
            ..lasting("c")
        };
        let (mut client, connack) = self.world.connect5(&device("c"), connect).await;
        assert!(!connack.session_present);
        self.on_disk = None;
        self.exists = lasts;
        match lasts {
            true => {
                self.subscribe(&mut client).await;
                self.client = Some(client);
            }
            false => {
                drop(client);
                self.world.until("c", |info| info.is_none()).await;
            }
        }
    }

    async fn subscribe(&mut self, client: &mut Client5) {
        self.received.clear();
        self.got.clear();
        self.expected.clear();
        client.subscribe("t", QoS::ExactlyOnce).await;
        self.exists = true;
    }

    async fn write(&mut self) {
        self.world.write().await;
        if self.client.is_none() && self.exists {
            self.on_disk = Some(self.expected.clone());
        }
    }

    async fn take(&mut self, mut steps: usize) {
        let Some(client) = &mut self.client else {
            return;
        };
        let mut answers = 1;
        while answers > 0 {
            answers = 0;
            client.send(v5::Packet::PingRequest).await;
            loop {
                let answer = match client.recv().await {
                    v5::Packet::PingResponse => break,
                    v5::Packet::Publish(message) => {
                        let id = message.packet_id.unwrap();
                        let number = u32::from_be_bytes(message.payload[..].try_into().unwrap());
                        match message.qos {
                            QoS::ExactlyOnce => {
                                if self.received.insert(id.get()) {
                                    self.got.push(number);
                                }
                                v5::Packet::PublishReceived(ack(id))
                            }
                            _ => {
                                // Twice is allowed only for what was sent before.
                                if !(message.dup && self.got.contains(&number)) {
                                    self.got.push(number);
                                }
                                v5::Packet::PublishAck(ack(id))
                            }
                        }
                    }
                    v5::Packet::PublishRelease(release) => {
                        self.received.remove(&release.packet_id.get());
                        v5::Packet::PublishComplete(ack2(release.packet_id))
                    }
                    other => panic!("{other:?}"),
                };
                if steps > 0 {
                    steps -= 1;
                    answers += 1;
                    client.send(answer).await;
                }
            }
        }
    }

    async fn leave(&mut self) {
        if self.client.take().is_some() {
            self.world.until_away("c").await;
        }
    }

    async fn end(mut self) {
        self.leave().await;
        self.come().await;
        self.take(usize::MAX).await;
        assert_eq!(self.got, self.expected);
        assert!(self.received.is_empty());
        let session = self.world.broker.session("c").unwrap();
        assert_eq!(session.waiting, 0);
        self.replace_world().await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn session_gives_each_message_once_and_in_order_across_crashes_and_restarts(
        events in proptest::collection::vec(event(), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut history = History::begin().await;
            for event in events {
                history.apply(event).await;
            }
            history.end().await;
        });
    }
}
