//! Thousands of clients that come, go and misbehave while CAs are switched off and on, and what
//! is left of them in the end: nothing. Not one of the ordinary tests: `tests/soak` runs it.

mod client;
mod crowd;
mod pair;
mod switch;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rmqtt_codec::types::QoS;
use rustls::ClientConfig;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::harness::api::{Api, get};
use crate::harness::pki::Ca;
use crate::harness::{Broker, Version, wait_until};
use client::Dice;

/// Limits that misbehaving clients meet within the time of a run.
const LIMITS: &str = r#"
[tls]
handshake_timeout_seconds = 3
[mqtt]
connect_timeout_seconds = 3
write_timeout_seconds = 5
max_queued_messages = 1000
max_queued_bytes = 262144
sys_interval_seconds = 1
[log]
filter = "warn"
"#;

/// Clients at a time, unless the environment says another number.
const CLIENTS: u64 = 1_000;
/// Seconds of the whole run, without the times in which it waits for the end of what was.
const SECONDS: u64 = 60;
/// Authorities that are switched; one more is left alone.
const SWITCHED: usize = 3;
/// Devices of each authority.
const DEVICES: usize = 40;
/// Pairs of clients that do nothing wrong.
const PAIRS: usize = 4;
/// What the broker may have more in the end than after the first part, besides a fourth.
const SLACK: usize = 16 << 20;

/// What all tasks know.
pub struct World {
    address: SocketAddr,
    /// The first record of a handshake.
    hello: Vec<u8>,
    /// The first is never switched.
    authorities: Vec<Authority>,
    tally: Mutex<BTreeMap<&'static str, u64>>,
}

/// A CA and its devices.
pub struct Authority {
    sn: String,
    devices: Vec<Arc<ClientConfig>>,
    /// Odd from the answer to an inactivation until it is activated again.
    off: AtomicU64,
}

impl World {
    fn new(broker: &Broker, api: &Api) -> Self {
        let authority = |number: usize| {
            let ca = Ca::root(&format!("soak {number}"));
            let devices = (0..DEVICES).map(|device| {
                let identity = ca.device(&format!("device-{number}-{device}"));
                broker.client(&identity, Version::V13).config()
            });
            Authority {
                sn: api.register(&format!("soak {number}"), &ca),
                devices: devices.collect(),
                off: AtomicU64::new(0),
            }
        };
        let a1 = broker.identity("device-a1");
        Self {
            address: broker.mqtt,
            hello: broker.client(&a1, Version::V13).hello(),
            authorities: (0..=SWITCHED).map(authority).collect(),
            tally: Mutex::default(),
        }
    }

    /// Something happened.
    fn count(&self, what: &'static str) {
        *self.tally.lock().unwrap().entry(what).or_default() += 1;
    }

    fn counted(&self, what: &str) -> u64 {
        self.tally.lock().unwrap().get(what).copied().unwrap_or(0)
    }
}

#[test]
#[ignore = "it takes a minute or more: tests/soak"]
fn crowd_that_misbehaves_leaves_nothing_behind_and_harms_no_other() {
    let seconds = setting("PORTCULLIS_SOAK_SECONDS", SECONDS);
    let clients = setting("PORTCULLIS_SOAK_CLIENTS", CLIENTS);
    let seed = setting("PORTCULLIS_SOAK_SEED", u64::from(std::process::id()));
    println!("{clients} clients at a time for {seconds} seconds, seed {seed}");

    let mut broker = Broker::start_with_lines(|_| LIMITS.to_owned());
    let api = broker.api();
    let world = Arc::new(World::new(&broker, &api));
    let runtime = Runtime::new().unwrap();
    let start = broker.process().resident();
    let mut dice = Dice::new(seed);
    let mut resident = Vec::new();
    for part in [seconds / 4, seconds - seconds / 4] {
        let begun = Instant::now();
        run(&runtime, &world, &api, clients, part, &mut dice);
        let busy = broker.process().resident();
        wait_until("the crowd has gone", || {
            let left = gauges(&broker);
            (left["portcullis_mqtt_connections"] == 0 && left["portcullis_mqtt_sessions"] == 0)
                .then_some(())
        });
        resident.push(broker.process().resident());
        println!(
            "{} s: memory {} MiB at the start, {} MiB with the crowd, {} MiB without",
            begun.elapsed().as_secs(),
            start >> 20,
            busy >> 20,
            resident.last().unwrap() >> 20,
        );
    }
    report(&world, &broker);
    nothing_is_left(&broker);
    let (before, after) = (resident[0], resident[1]);
    assert!(
        after < before + before / 4 + SLACK,
        "memory grew from {before} to {after} octets"
    );
    assert!(world.counted("connected") > clients, "too few got in");
    let finished = broker.terminate();
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    let panics = finished.stderr.lines().filter(|l| l.contains("panicked"));
    assert_eq!(panics.count(), 0, "{}", finished.stderr);
}

/// One part of the run: the crowd, the pairs and the switching of CAs, until all have ended.
fn run(
    runtime: &Runtime,
    world: &Arc<World>,
    api: &Api,
    clients: u64,
    seconds: u64,
    dice: &mut Dice,
) {
    let stop = CancellationToken::new();
    let crowd: Vec<_> = (0..clients)
        .map(|number| {
            let (world, stop, dice) = (world.clone(), stop.clone(), dice.fork());
            runtime.spawn(async move {
                let all = crowd::live(&world, number, dice);
                let _ = stop.run_until_cancelled(all).await;
            })
        })
        .collect();
    let enough = CancellationToken::new();
    let pairs: Vec<_> = (0..PAIRS)
        .map(|number| {
            let (world, enough, dice) = (world.clone(), enough.clone(), dice.fork());
            runtime.spawn(async move { pair::run(&world, number, dice, &enough).await })
        })
        .collect();

    let until = Instant::now() + Duration::from_secs(seconds);
    let mut turn = 1;
    while Instant::now() < until {
        switch::off_and_on(world, api, turn, dice);
        turn = turn % SWITCHED + 1;
    }
    enough.cancel();
    for pair in pairs {
        runtime.block_on(pair).expect("a pair's messages were lost");
    }
    switch::all_off(world, api);
    stop.cancel();
    for client in crowd {
        runtime.block_on(client).expect("a client of the crowd");
    }
    switch::all_on(world, api);
    runtime
        .block_on(crowd::clear(world))
        .expect("what is retained is cleared");
}

/// The gauges of the process.
fn gauges(broker: &Broker) -> HashMap<String, i64> {
    let metrics = get(broker.admin, "/metrics").unwrap().text;
    let lines = metrics.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse::<f64>().ok()? as i64))
        })
        .collect()
}

/// What the broker itself says that it keeps.
fn nothing_is_left(broker: &Broker) {
    let admin = broker.client(&broker.identity("admin"), Version::V13);
    let mut admin = admin.connect().unwrap();
    admin.subscribe("$SYS/broker/#", QoS::AtMostOnce).unwrap();
    // One subscription is our own.
    let mut expected = HashMap::from([
        ("$SYS/broker/clients/total", "1"),
        ("$SYS/broker/store/messages/bytes", "0"),
        ("$SYS/broker/retained messages/count", "0"),
        ("$SYS/broker/subscriptions/count", "1"),
        ("$SYS/broker/shared_subscriptions/count", "0"),
    ]);
    while !expected.is_empty() {
        let message = admin.next_publish().unwrap();
        // It may have been counted a moment before.
        let value = std::str::from_utf8(&message.payload).unwrap();
        if expected.get(&*message.topic) == Some(&value) {
            expected.remove(&*message.topic);
        }
    }
}

fn report(world: &World, broker: &Broker) {
    for (what, times) in &*world.tally.lock().unwrap() {
        println!("{times:>9}  {what}");
    }
    let gauges = gauges(broker);
    let mut names: Vec<_> = gauges
        .keys()
        .filter(|name| name.contains("_total"))
        .collect();
    names.sort();
    for name in names {
        println!("{:>9}  {name}", gauges[name]);
    }
}

fn setting(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.map_or(default, |text| text.parse().unwrap())
}
