//! What survives a restart, and what a crash loses: sessions, queues, retained messages, wills.

use std::fs;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::{Connect, Packet, PublishAck, PublishAck2};

use crate::harness::api::get;
use crate::harness::broker::INSTANCE;
use crate::harness::mosquitto::{BOTH, Protocol};
use crate::harness::mqtt::Mqtt;
use crate::harness::process::signal;
use crate::harness::{Broker, End, Version, wait_until};

/// The file of the development instance.
fn file(broker: &Broker) -> PathBuf {
    broker.data().join(format!("sessions-{INSTANCE}.db"))
}

/// The development broker once more, from a configuration with these settings.
fn configured(broker: Broker, persistence: &str, checkpoint_seconds: u32) -> Broker {
    let home = broker.stop();
    let config = home.path().join("portcullis.toml");
    let text = format!(
        r#"
        [[instance]]
        id = "{INSTANCE}"
        account = "dev-account"
        mqtt_listen = "127.0.0.1:0"
        tls_certificate = "certs/server.pem"
        tls_key = "certs/server.key"
        persistence = "{persistence}"
        [admin]
        listen = "127.0.0.1:0"
        [[admin.access_key]]
        file = "certs/admin-key.json"
        account = "dev-account"
        [store]
        data_dir = "data"
        checkpoint_seconds = {checkpoint_seconds}
        "#
    );
    fs::write(&config, text).unwrap();
    Broker::start_with_config(home, &config)
}

/// The same again after a crash.
fn crashed(broker: Broker) -> Broker {
    let home = broker.kill9();
    let config = home.path().join("portcullis.toml");
    Broker::start_with_config(home, &config)
}

fn connect(broker: &Broker, device: &str, connect: Connect) -> Result<Mqtt, End> {
    let identity = broker.identity(device);
    let client = broker.client(&identity, Version::V13);
    Mqtt::connect(client.handshake()?, connect)
}

fn lasting(client_id: &str, expiry: u32) -> Connect {
    Connect {
        clean_start: false,
        session_expiry_interval_secs: expiry,
        ..Mqtt::hello(client_id)
    }
}

/// Wait until a round of writing that began after now is over.
fn until_written(broker: &Broker) {
    let rounds = || -> u64 {
        let metrics = get(broker.admin, "/metrics").unwrap().text;
        let name = "portcullis_persistence_round_seconds_count";
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0, |count| count.trim().parse().unwrap())
    };
    let now = rounds();
    wait_until("two rounds are over", || {
        (rounds() >= now + 2).then_some(())
    });
}

#[test]
fn queued_messages_survive_a_restart_in_order_and_come_once() {
    let mut broker = Broker::start();
    let cases: Vec<_> = BOTH
        .iter()
        .flat_map(|protocol| ["1", "2"].map(|qos| (*protocol, qos)))
        .map(|(protocol, qos)| {
            let id = format!("kept-{protocol:?}-{qos}");
            (protocol, qos, id.clone(), format!("topic/{id}"))
        })
        .collect();
    fn keep<'a>(protocol: Protocol, qos: &'a str, id: &'a str, topic: &'a str) -> Vec<&'a str> {
        let mut arguments = vec!["-t", topic, "-q", qos, "-i", id, "-c"];
        if protocol == Protocol::V5 {
            arguments.extend(["-x", "300"]);
        }
        arguments
    }
    for (protocol, qos, id, topic) in &cases {
        let tools = broker.mosquitto_in("device-b1", *protocol);
        tools.subscribe_and_leave(&keep(*protocol, qos, id, topic));
    }
    // Two restarts, with messages before, between and after.
    for part in 0..3 {
        for (protocol, qos, _, topic) in &cases {
            let from = broker.mosquitto_in("device-a1", *protocol);
            for n in 0..5 {
                let payload = format!("{part}-{n}");
                from.publish_ok(&["-t", topic, "-m", &payload, "-q", qos]);
            }
        }
        if part < 2 {
            broker = Broker::restart(broker.stop());
        }
    }
    for (protocol, qos, id, topic) in &cases {
        let tools = broker.mosquitto_in("device-b1", *protocol);
        let subscriber = tools.subscribe(&keep(*protocol, qos, id, topic));
        let from = broker.mosquitto_in("device-a1", *protocol);
        from.publish_ok(&["-t", topic, "-m", "last", "-q", qos]);
        subscriber.wait_payload("last");
        let expected: Vec<_> = (0..3)
            .flat_map(|part| (0..5).map(move |n| format!("{part}-{n}")))
            .chain(["last".to_owned()])
            .map(|payload| format!("{topic}|{qos}|0|{payload}"))
            .collect();
        assert_eq!(subscriber.wait_messages(16), expected, "{id}");
    }
}

#[test]
fn qos_2_messages_on_the_way_are_completed_after_a_restart() {
    let broker = Broker::start();
    let mut client = connect(&broker, "device-b1", lasting("half", 300)).unwrap();
    client.subscribe("t", QoS::ExactlyOnce).unwrap();
    let from = broker.mosquitto("device-a1");
    for payload in ["1", "2"] {
        from.publish_ok(&["-t", "t", "-m", payload, "-q", "2"]);
    }
    let first = client.next_publish().unwrap().packet_id.unwrap();
    let second = client.next_publish().unwrap().packet_id.unwrap();
    client
        .send(Packet::PublishReceived(received(first)))
        .unwrap();
    wait_release(&mut client, first);

    let broker = Broker::restart(broker.stop());
    let mut client = connect(&broker, "device-b1", lasting("half", 300)).unwrap();
    assert!(client.ack.session_present);
    wait_release(&mut client, first);
    let completed = PublishAck2 {
        packet_id: first,
        ..PublishAck2::default()
    };
    client.send(Packet::PublishComplete(completed)).unwrap();
    let again = client.next_publish().unwrap();
    assert_eq!((again.packet_id, again.dup), (Some(second), true));
    assert_eq!(&again.payload[..], b"2");
    client
        .send(Packet::PublishReceived(received(second)))
        .unwrap();
    wait_release(&mut client, second);
}

fn received(packet_id: NonZeroU16) -> PublishAck {
    PublishAck {
        packet_id,
        ..PublishAck::default()
    }
}

fn wait_release(client: &mut Mqtt, packet_id: NonZeroU16) {
    match client.next().unwrap() {
        Packet::PublishRelease(release) => assert_eq!(release.packet_id, packet_id),
        other => panic!("{other:?}"),
    }
}

#[test]
fn retained_messages_survive_a_restart_unless_they_were_cleared() {
    let broker = Broker::start();
    let from = broker.mosquitto("device-a1");
    for (topic, payload) in [("r/kept", "1"), ("r/replaced", "2"), ("r/cleared", "3")] {
        from.publish_ok(&["-t", topic, "-m", payload, "-q", "1", "-r"]);
    }
    let broker = Broker::restart(broker.stop());
    let from = broker.mosquitto("device-a1");
    from.publish_ok(&["-t", "r/replaced", "-m", "4", "-q", "1", "-r"]);
    from.publish_ok(&["-t", "r/cleared", "-n", "-q", "1", "-r"]);
    let broker = Broker::restart(broker.stop());
    let subscriber = broker
        .mosquitto("device-b1")
        .subscribe(&["-t", "r/#", "-q", "1"]);
    let from = broker.mosquitto("device-a1");
    from.publish_ok(&["-t", "r/mark", "-m", "mark", "-q", "1"]);
    subscriber.wait_payload("mark");
    let mut messages = subscriber.wait_messages(3);
    messages.sort();
    assert_eq!(
        messages,
        ["r/kept|1|1|1", "r/mark|1|0|mark", "r/replaced|1|1|4"]
    );
}

#[test]
fn will_waits_for_its_delay_across_a_restart() {
    let mut broker = Broker::start();
    let tools = broker.mosquitto_in("device-b1", Protocol::V5);
    let watch = [
        "-t", "will/#", "-q", "1", "-i", "watcher", "-c", "-x", "300",
    ];
    tools.subscribe_and_leave(&watch);
    let clients = [("now", "0"), ("later", "2"), ("never", "1000")].map(|(id, delay)| {
        let topic = format!("will/{id}");
        let tools = broker.mosquitto_in("device-a1", Protocol::V5);
        let mut arguments = vec!["-t", "x", "-i", id, "-c", "-x", "300"];
        arguments.extend(["--will-topic", &topic, "--will-payload", id]);
        arguments.extend([
            "--will-qos",
            "1",
            "-D",
            "will",
            "will-delay-interval",
            delay,
        ]);
        tools.subscribe(&arguments)
    });
    // They would come back by themselves.
    for client in &clients {
        signal(client.process.id(), "STOP");
    }
    let finished = broker.terminate();
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    drop(clients);
    let broker = Broker::restart(broker.home());
    let tools = broker.mosquitto_in("device-b1", Protocol::V5);
    let watcher = tools.subscribe(&watch);
    watcher.wait_payload("later");
    assert_eq!(
        watcher.wait_messages(2),
        ["will/now|1|0|now", "will/later|1|0|later"]
    );
}

#[test]
fn session_that_expires_while_the_broker_is_down_is_gone() {
    let broker = Broker::start();
    for (id, expiry) in [("short", 1), ("long", 300)] {
        connect(&broker, "device-b1", lasting(id, expiry)).unwrap();
    }
    let home = broker.stop();
    let stopped = Instant::now();
    wait_until("the session has expired", || {
        (stopped.elapsed() > Duration::from_millis(1_500)).then_some(())
    });
    let broker = Broker::restart(home);
    for (id, present) in [("short", false), ("long", true)] {
        let client = connect(&broker, "device-b1", lasting(id, 300)).unwrap();
        assert_eq!(client.ack.session_present, present, "{id}");
    }
}

#[test]
fn session_of_a_shut_out_device_waits_for_it_across_a_restart() {
    let broker = Broker::start();
    let api = broker.api();
    let sn = api.sn_of("ca-a");
    let mut client = connect(&broker, "device-a1", lasting("waits", 300)).unwrap();
    client.subscribe("t", QoS::AtLeastOnce).unwrap();
    api.inactivate(&sn);
    client.wait_disconnect();
    broker
        .mosquitto("device-b1")
        .publish_ok(&["-t", "t", "-m", "1", "-q", "1"]);
    let broker = Broker::restart(broker.stop());
    assert!(connect(&broker, "device-a1", lasting("waits", 300)).is_err());
    // Nor does another device get it.
    assert!(connect(&broker, "device-b1", lasting("waits", 300)).is_err());
    broker.api().activate(&sn);
    let mut client = connect(&broker, "device-a1", lasting("waits", 300)).unwrap();
    assert!(client.ack.session_present);
    assert_eq!(&client.next_publish().unwrap().payload[..], b"1");
}

/// As `docs/persistence.md` has it.
#[test]
fn crash_keeps_sessions_that_were_away_and_lets_none_come_twice() {
    let broker = configured(Broker::start(), "on", 1);
    for id in ["away", "used", "here"] {
        let mut client = connect(&broker, "device-b1", lasting(id, 300)).unwrap();
        client.subscribe("t", QoS::AtLeastOnce).unwrap();
    }
    let from = broker.mosquitto("device-a1");
    from.publish_ok(&["-t", "r", "-m", "kept", "-q", "1", "-r"]);
    // Whoever vanished without a word is found to be away by then.
    until_written(&broker);
    for payload in ["1", "2"] {
        from.publish_ok(&["-t", "t", "-m", payload, "-q", "1"]);
    }
    until_written(&broker);
    // One gets its messages and leaves again, one stays.
    let mut used = connect(&broker, "device-b1", lasting("used", 300)).unwrap();
    for payload in [b"1", b"2"] {
        assert_eq!(&used.next_publish().unwrap().payload[..], payload);
    }
    let here = connect(&broker, "device-b1", lasting("here", 300)).unwrap();
    let broker = crashed(broker);
    drop((used, here));
    for id in ["used", "here"] {
        let client = connect(&broker, "device-b1", lasting(id, 300)).unwrap();
        assert!(!client.ack.session_present, "{id}");
    }
    let mut away = connect(&broker, "device-b1", lasting("away", 300)).unwrap();
    assert!(away.ack.session_present);
    for payload in [b"1", b"2"] {
        let message = away.next_publish().unwrap();
        assert_eq!((&message.payload[..], message.dup), (&payload[..], false));
    }
    let subscriber = broker.mosquitto("device-b2").subscribe(&["-t", "r"]);
    assert_eq!(subscriber.wait_messages(1), ["r|0|1|kept"]);
    // It was used: another crash does not bring it back.
    let broker = crashed(broker);
    let client = connect(&broker, "device-b1", lasting("away", 300)).unwrap();
    assert!(!client.ack.session_present);
}

#[test]
fn instance_without_persistence_forgets_and_removes_what_was_kept() {
    let broker = Broker::start();
    connect(&broker, "device-b1", lasting("kept", 300)).unwrap();
    let from = broker.mosquitto("device-a1");
    from.publish_ok(&["-t", "r", "-m", "1", "-q", "1", "-r"]);
    let broker = configured(broker, "off", 1);
    assert!(!file(&broker).exists());
    broker.wait_log("the removal", |line| line.contains("persistence is off"));
    let client = connect(&broker, "device-b1", lasting("kept", 300)).unwrap();
    assert!(!client.ack.session_present);
    drop(client);
    // Nor does it come back when persistence is switched on.
    let broker = configured(broker, "on", 1);
    let client = connect(&broker, "device-b1", lasting("kept", 300)).unwrap();
    assert!(!client.ack.session_present);
    let subscriber = broker.mosquitto("device-b2").subscribe(&["-t", "r"]);
    let from = broker.mosquitto("device-a1");
    from.publish_ok(&["-t", "r", "-m", "mark", "-q", "1"]);
    assert_eq!(subscriber.wait_messages(1), ["r|0|0|mark"]);
}

#[test]
fn damaged_file_is_put_aside_and_the_broker_serves() {
    let broker = Broker::start();
    connect(&broker, "device-b1", lasting("lost", 300)).unwrap();
    let path = file(&broker);
    let home = broker.stop();
    fs::write(&path, "scribbled over").unwrap();
    let broker = Broker::restart(home);
    broker.wait_log("the error", |line| {
        line.contains("ERROR") && line.contains("moved aside")
    });
    let client = connect(&broker, "device-b1", lasting("lost", 300)).unwrap();
    assert!(!client.ack.session_present);
    drop(client);
    let aside = fs::read_dir(broker.data()).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        path.to_str().unwrap().contains(".db.damaged-")
            && fs::read(&path).unwrap() == b"scribbled over"
    });
    assert!(aside);
    let broker = Broker::restart(broker.stop());
    let client = connect(&broker, "device-b1", lasting("lost", 300)).unwrap();
    assert!(client.ack.session_present);
}
