//! What administrators are told on `$SYS`: figures, each instance's own, and nobody waits.

use std::time::{Duration, Instant};

use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::PublishProperties;
use serde_json::Value;

use crate::harness::fleet::{Fleet, Setup};
use crate::harness::mqtt::Mqtt;
use crate::harness::pki::Ca;
use crate::harness::{Broker, Version, wait_until};
use crate::sys::{Listener, connect};

const A: &str = "post-cn-a";
const B: &str = "post-cn-b";

/// Two instances of one owner, with administrators.
fn fleet(more: &str) -> (Fleet, Ca) {
    let administrators = Ca::root("administrators");
    let channel = "[admin.control_channel]\nca = \"admin-ca.pem\"\ncommon_names = [\"admin\"]\n";
    let setup = Setup::new()
        .instance(A, "owner", "127.0.0.1:0", &[])
        .instance(B, "owner", "127.0.0.1:0", &[])
        .with(channel)
        .with(more);
    setup.write("admin-ca.pem", &administrators.pem());
    (setup.start(), administrators)
}

#[test]
fn figures_move_by_what_really_happened() {
    let broker = Broker::start();
    let admin = broker.mosquitto("admin");
    let figure = |name: &str| {
        let topic = format!("$SYS/broker/{name}");
        let subscriber = admin.subscribe(&["-C", "1", "-t", &topic]);
        let message = subscriber.wait_messages(1).remove(0);
        let fields: Vec<&str> = message.splitn(4, '|').collect();
        assert_eq!(fields[..3], [topic.as_str(), "0", "1"]);
        fields[3].to_owned()
    };
    let number = |name: &str| -> u64 { figure(name).parse().unwrap() };
    // The readers before may not have gone yet.
    let becomes = |name: &str, value: u64| {
        wait_until(name, || (number(name) == value).then_some(()));
    };
    assert!(figure("version").starts_with("portcullis version "));
    // The reader itself is one.
    becomes("clients/connected", 1);
    let before = [
        "publish/messages/received",
        "publish/messages/sent",
        "publish/bytes/received",
    ]
    .map(number);
    let received = number("bytes/received");

    let a1 = broker.identity("device-a1");
    let mut device = connect(&broker, &a1, Mqtt::hello("d"));
    device.subscribe("t", QoS::AtLeastOnce).unwrap();
    becomes("clients/connected", 2);
    assert!(number("clients/maximum") >= 2);
    let b1 = broker.mosquitto("device-b1");
    for _ in 0..3 {
        b1.publish_ok(&["-t", "t", "-m", "ten octets", "-q", "1"]);
        device.next_publish().unwrap();
    }
    assert_eq!(number("publish/messages/received"), before[0] + 3);
    assert_eq!(number("publish/bytes/received"), before[2] + 30);
    // Three to the device, and at least the figures that were read.
    assert!(number("publish/messages/sent") >= before[1] + 3);
    assert!(number("bytes/received") > received + 30);
    b1.publish_ok(&["-r", "-t", "kept", "-m", "x", "-q", "1"]);
    assert_eq!(number("retained messages/count"), 1);
    // The device's and the reader's own.
    becomes("subscriptions/count", 2);
    drop(device);
    becomes("clients/connected", 1);
}

#[test]
fn figures_that_change_come_by_themselves_at_each_interval() {
    let (fleet, administrators) = fleet("[mqtt]\nsys_interval_seconds = 1\n");
    let admin = administrators.device("admin");
    let client = fleet.client(A, "localhost", &admin, Version::V13);
    let mut mqtt = client.connect().unwrap();
    mqtt.subscribe("$SYS/portcullis/broker/#", QoS::AtMostOnce)
        .unwrap();
    let mut uptimes = std::collections::BTreeSet::new();
    let (mut retained, mut load) = (0, false);
    while uptimes.len() < 3 || !load {
        let message = mqtt.next_publish().unwrap();
        let payload = String::from_utf8(message.payload.to_vec()).unwrap();
        retained += usize::from(message.retain);
        match &message.topic[..] {
            "$SYS/portcullis/broker/uptime" => {
                uptimes.insert(payload);
            }
            "$SYS/portcullis/broker/instance" => assert_eq!(payload, A),
            "$SYS/portcullis/broker/load/bytes/sent/1min" => load |= payload != "0.00",
            _ => {}
        }
    }
    // Everything once, at the beginning.
    assert!((50..80).contains(&retained), "{retained}");
}

#[test]
fn one_instance_tells_nothing_of_another() {
    let (fleet, administrators) = fleet("");
    let admin = administrators.device("admin");
    let client = fleet.client(A, "localhost", &admin, Version::V13);
    let mut listener = Listener::over(client.connect().unwrap(), "$SYS/#");
    let (ca, other) = (Ca::root("of A"), Ca::root("of B"));
    fleet.api(B).register("of B", &other);
    let elsewhere = fleet.client(B, "localhost", &other.device("b"), Version::V13);
    let _elsewhere = elsewhere.connect().unwrap();
    fleet.api(B).inactivate(&other.sn());
    fleet.api(A).register("of A", &ca);
    let mut connected = None;
    loop {
        let message = listener.0.next_publish().unwrap();
        let text = String::from_utf8(message.payload.to_vec()).unwrap();
        if &message.topic[..] == "$SYS/broker/clients/connected" {
            connected = Some(text);
        } else if message.topic.starts_with("$SYS/portcullis/events/") {
            let event: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(event["instance"], A, "{event}");
            assert_eq!(event["event"], "registered");
            assert_eq!(event["ca_sn"], ca.sn().as_str());
            break;
        }
    }
    assert_eq!(connected.unwrap(), "1");
}

#[test]
fn administrator_that_does_not_read_stalls_nobody_in_a_storm_of_connects() {
    let (fleet, administrators) = fleet("[mqtt]\nmax_queued_messages = 500\n");
    let admin = administrators.device("admin");
    let ca = Ca::root("fleet");
    fleet.api(A).register("fleet", &ca);
    let client = fleet.client(A, "localhost", &admin, Version::V13);
    let _deaf = Listener::over(client.connect().unwrap(), "$SYS/#");
    let device = ca.device("device");
    let client = fleet.client(A, "localhost", &device, Version::V13);
    let mut witness = client.connect().unwrap();
    witness.subscribe("t", QoS::AtLeastOnce).unwrap();

    let storm = 2_000;
    let begun = std::sync::atomic::AtomicUsize::new(0);
    let slowest = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    while begun.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < storm {
                        let client = fleet.client(A, "localhost", &device, Version::V13);
                        client.connect().expect("it is admitted");
                    }
                })
            })
            .collect();
        let mut slowest = Duration::ZERO;
        while !workers.iter().all(|worker| worker.is_finished()) {
            let start = Instant::now();
            witness
                .publish("t", b"x", PublishProperties::default())
                .unwrap();
            witness.next_publish().unwrap();
            slowest = slowest.max(start.elapsed());
        }
        slowest
    });
    // A message that waits for a shard that takes nothing is given up after ten seconds.
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");

    // What the deaf one does not take is dropped from its own queue; others are told all of it.
    let client = fleet.client(
        A,
        "localhost",
        &administrators.device("admin"),
        Version::V13,
    );
    let mut reader = client.connect().unwrap();
    reader
        .subscribe("$SYS/portcullis/broker/#", QoS::AtMostOnce)
        .unwrap();
    let mut figures = std::collections::HashMap::new();
    while figures.len() < 50 {
        let message = reader.next_publish().unwrap();
        let name = message.topic["$SYS/portcullis/broker/".len()..].to_owned();
        figures.insert(name, String::from_utf8(message.payload.to_vec()).unwrap());
    }
    let number = |name: &str| figures[name].parse::<u64>().unwrap();
    assert_eq!(number("connects/accepted"), 2_003);
    assert_eq!(number("events/left_out"), 0);
    assert!(number("publish/messages/dropped") > 2_000);
}
