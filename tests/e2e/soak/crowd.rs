//! What the clients of the crowd do, right and wrong.

use std::num::NonZeroU16;
use std::time::Duration;

use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::{LastWill, Packet, Unsubscribe};
use tokio::io::AsyncWriteExt;

use super::World;
use super::client::{Client, Dice, Lost, handshake, hello, message, reach};
use crate::harness::mqtt::will;

/// Topics below which messages go around.
const PLACES: u64 = 100;
/// Topics with a retained message.
const KEPT: u64 = 50;
/// Client ids of each device that connections fight for.
const FOUGHT_FOR: u64 = 2;
/// Seconds that a session waits: longer than its client is away, shorter than the run.
const EXPIRY: u64 = 4;

/// What a client can do with its life.
#[derive(Clone, Copy)]
enum Life {
    HalfHandshake,
    NeverConnects,
    Garbage,
    NeverAcknowledges,
    ReadsSlowly,
    TakesOver,
    LeavesAWill,
    ChangesItsMind,
    ComesBack,
    Publishes,
}

/// Those that are listed twice are lived twice as often.
const LIVES: [(Life, &str); 12] = [
    (Life::HalfHandshake, "half a handshake"),
    (Life::NeverConnects, "no CONNECT"),
    (Life::Garbage, "garbage after CONNECT"),
    (Life::NeverAcknowledges, "acknowledged nothing"),
    (Life::ReadsSlowly, "did not read"),
    (Life::TakesOver, "fought for a client id"),
    (Life::LeavesAWill, "vanished with a will"),
    (Life::ChangesItsMind, "subscribed and unsubscribed"),
    (Life::ComesBack, "came back to its queue"),
    (Life::ComesBack, "came back to its queue"),
    (Life::Publishes, "published"),
    (Life::Publishes, "published"),
];

/// One life after the other, for ever.
pub async fn live(world: &World, number: u64, mut dice: Dice) {
    loop {
        let (life, name) = LIVES[dice.below(LIVES.len() as u64) as usize];
        let me = Me::new(world, number, &mut dice);
        let lived = match life {
            Life::HalfHandshake => half_handshake(world, &mut dice).await,
            Life::NeverConnects => me.never_connects(&mut dice).await,
            Life::Garbage => me.garbage(&mut dice).await,
            Life::NeverAcknowledges => me.never_acknowledges(&mut dice).await,
            Life::ReadsSlowly => me.reads_slowly(&mut dice).await,
            Life::TakesOver => me.takes_over(&mut dice).await,
            Life::LeavesAWill => me.leaves_a_will(&mut dice).await,
            Life::ChangesItsMind => me.changes_its_mind(&mut dice).await,
            Life::ComesBack => me.comes_back(&mut dice).await,
            Life::Publishes => me.publishes(&mut dice).await,
        };
        world.count(match lived {
            Ok(()) => name,
            Err(Lost) => "refused, cut or given up before it was done",
        });
        tokio::time::sleep(dice.time(1_500)).await;
    }
}

/// Clear what the crowd retained.
pub async fn clear(world: &World) -> Result<(), Lost> {
    let mut dice = Dice::new(0);
    let steady = &world.authorities[0];
    let mut client = Client::connect(world, steady, 0, hello("", 0), &mut dice).await?;
    for number in 0..KEPT {
        let topic = format!("kept/{number}");
        client
            .send(message(topic, QoS::AtLeastOnce, true, 1, Vec::new()))
            .await?;
        while !matches!(client.next().await?, Packet::PublishAck(_)) {}
    }
    Ok(())
}

/// Begin a handshake, somewhere in the middle of it stop, and hold the place for a while.
async fn half_handshake(world: &World, dice: &mut Dice) -> Result<(), Lost> {
    let mut socket = reach(world, dice).await?;
    let until = 1 + dice.below(world.hello.len() as u64) as usize;
    socket
        .write_all(&world.hello[..until])
        .await
        .map_err(|_| Lost)?;
    tokio::time::sleep(dice.time(4_000)).await;
    Ok(())
}

/// Who a client is in one of its lives.
struct Me<'a> {
    world: &'a World,
    authority: usize,
    device: u64,
    number: u64,
}

impl<'a> Me<'a> {
    fn new(world: &'a World, number: u64, dice: &mut Dice) -> Self {
        Self {
            world,
            authority: dice.below(world.authorities.len() as u64) as usize,
            device: 1 + dice.below(super::DEVICES as u64 - 1),
            number,
        }
    }

    /// A client id that belongs to its certificate.
    fn id(&self, which: u64) -> String {
        format!("crowd-{}-{}-{which}", self.authority, self.device)
    }

    /// One that nobody else has.
    fn own_id(&self) -> String {
        self.id(1_000 + self.number)
    }

    async fn connect(&self, id: &str, seconds: u64, dice: &mut Dice) -> Result<Client, Lost> {
        let connect = hello(id, seconds as u32);
        let authority = &self.world.authorities[self.authority];
        Client::connect(self.world, authority, self.device, connect, dice).await
    }

    async fn never_connects(&self, dice: &mut Dice) -> Result<(), Lost> {
        let authority = &self.world.authorities[self.authority];
        let config = &authority.devices[self.device as usize];
        let _stream = handshake(self.world, config, dice).await?;
        tokio::time::sleep(dice.time(4_000)).await;
        Ok(())
    }

    async fn garbage(&self, dice: &mut Dice) -> Result<(), Lost> {
        let mut client = self.connect(&self.own_id(), 0, dice).await?;
        let length = 1 + dice.below(2_000);
        let octets = dice.octets(length);
        client.stream.write_all(&octets).await.map_err(|_| Lost)?;
        // By chance it may be a packet, or the begin of a long one.
        let _ = client.read_for(Duration::from_secs(2)).await;
        Ok(())
    }

    async fn never_acknowledges(&self, dice: &mut Dice) -> Result<(), Lost> {
        let mut client = self.connect(&self.own_id(), EXPIRY, dice).await?;
        client.subscribe(places(dice), QoS::ExactlyOnce).await?;
        let end = tokio::time::sleep(dice.time(3_000));
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return Ok(()),
                taken = client.message() => { taken?; }
            }
        }
    }

    /// Ask for retained messages again and again, and read none of them.
    async fn reads_slowly(&self, dice: &mut Dice) -> Result<(), Lost> {
        let mut client = self.connect(&self.own_id(), 0, dice).await?;
        let filters = vec!["load/#".to_owned(), "kept/+".to_owned()];
        for _ in 0..dice.below(400) {
            client.ask_for(filters.clone(), QoS::AtMostOnce).await?;
        }
        tokio::time::sleep(dice.time(12_000)).await;
        client.read_for(dice.time(500)).await.map(|_| ())
    }

    async fn takes_over(&self, dice: &mut Dice) -> Result<(), Lost> {
        let id = self.id(dice.below(FOUGHT_FOR));
        let seconds = dice.below(2) * EXPIRY;
        let mut client = self.connect(&id, seconds, dice).await?;
        client.subscribe(places(dice), QoS::AtLeastOnce).await?;
        // Whoever comes next ends it.
        let _ = client.read_for(dice.time(2_000)).await;
        Ok(())
    }

    async fn leaves_a_will(&self, dice: &mut Dice) -> Result<(), Lost> {
        let mut connect = hello(&self.own_id(), 0);
        connect.last_will = Some(LastWill {
            message: dice.octets(100).into(),
            will_delay_interval_sec: Some(dice.below(3) as u32),
            ..will(&place(dice), "")
        });
        connect.session_expiry_interval_secs = dice.below(2) as u32 * EXPIRY as u32;
        let authority = &self.world.authorities[self.authority];
        Client::connect(self.world, authority, self.device, connect, dice).await?;
        Ok(())
    }

    async fn changes_its_mind(&self, dice: &mut Dice) -> Result<(), Lost> {
        let mut client = self.connect(&self.own_id(), 0, dice).await?;
        for _ in 0..10 {
            let mut filters = places(dice);
            filters.extend((0..10).map(|_| format!("other/{}/+/#", dice.next())));
            filters.push(format!("$share/g{}/load/+/+", dice.below(5)));
            filters.push("kept/+".to_owned());
            client.subscribe(filters.clone(), QoS::AtMostOnce).await?;
            let kept = dice.below(filters.len() as u64) as usize;
            client
                .send(Packet::Unsubscribe(Unsubscribe {
                    packet_id: NonZeroU16::MIN,
                    user_properties: Vec::new(),
                    topic_filters: filters.drain(kept..).map(Into::into).collect(),
                }))
                .await?;
            client.read_for(dice.time(100)).await?;
        }
        Ok(())
    }

    async fn comes_back(&self, dice: &mut Dice) -> Result<(), Lost> {
        let id = self.own_id();
        let mut filters = places(dice);
        if dice.below(4) == 0 {
            // More than its queue holds while it is away.
            filters.push("load/#".to_owned());
        }
        for _ in 0..3 {
            let mut client = self.connect(&id, EXPIRY, dice).await?;
            client.subscribe(filters.clone(), QoS::AtLeastOnce).await?;
            client.read_for(dice.time(1_000)).await?;
            drop(client);
            tokio::time::sleep(dice.time(2_000)).await;
        }
        Ok(())
    }

    async fn publishes(&self, dice: &mut Dice) -> Result<(), Lost> {
        let mut client = self.connect(&self.own_id(), 0, dice).await?;
        for _ in 0..dice.below(40) {
            let octets = dice.below(1_000);
            let payload = dice.octets(octets);
            match dice.below(4) {
                0 => {
                    let topic = format!("kept/{}", dice.below(KEPT));
                    client
                        .send(message(topic, QoS::AtMostOnce, true, 1, payload))
                        .await?;
                }
                1 => {
                    client
                        .send(message(place(dice), QoS::AtMostOnce, false, 1, payload))
                        .await?
                }
                _ => {
                    let sent = message(place(dice), QoS::AtLeastOnce, false, 1, payload);
                    client.send(sent).await?;
                    loop {
                        match client.next().await? {
                            Packet::PublishAck(_) => break,
                            Packet::Disconnect(_) => return Err(Lost),
                            _ => {}
                        }
                    }
                }
            }
            tokio::time::sleep(dice.time(100)).await;
        }
        Ok(())
    }
}

/// Where a message goes.
fn place(dice: &mut Dice) -> String {
    format!("load/{}/{}", dice.below(PLACES), dice.next())
}

/// Where messages are expected.
fn places(dice: &mut Dice) -> Vec<String> {
    (0..3)
        .map(|_| format!("load/{}/+", dice.below(PLACES)))
        .collect()
}
