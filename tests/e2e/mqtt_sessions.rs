//! Sessions: wills, clean and resumed, takeover, keep alive.

use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::DisconnectReasonCode;
use rustls::AlertDescription;

use crate::harness::mosquitto::{BOTH, Protocol};
use crate::harness::mqtt::{Mqtt, will};
use crate::harness::process::signal;
use crate::harness::tls::End;
use crate::harness::{Broker, Version};

#[test]
fn will_is_published_when_a_client_vanishes_and_not_when_it_leaves() {
    let broker = Broker::start();
    let watcher = broker
        .mosquitto("device-b1")
        .subscribe(&["-t", "will/#", "-q", "1"]);
    for protocol in BOTH {
        let version = format!("{protocol:?}");
        let tools = broker.mosquitto_in("device-a1", protocol);
        let leaves = format!("left {version}");
        // -E: subscribe, and leave in order.
        tools.subscribe_and_leave(&[
            "-t",
            "x",
            "--will-topic",
            "will/a",
            "--will-payload",
            &leaves,
            "--will-qos",
            "1",
        ]);

        let vanished = format!("vanished {version}");
        let mut vanishing = tools.subscribe(&[
            "-t",
            "x",
            "--will-topic",
            "will/a",
            "--will-payload",
            &vanished,
            "--will-qos",
            "1",
        ]);
        vanishing.process.kill();
        assert_eq!(
            watcher.wait_payload(&vanished),
            format!("will/a|1|0|{vanished}")
        );
        let messages = watcher.wait_messages(1);
        assert!(!messages.iter().any(|m| m.contains("left")), "{messages:?}");
    }
}

#[test]
fn will_of_a_device_that_is_cut_is_published() {
    let broker = Broker::start();
    let api = broker.api();
    let watcher = broker
        .mosquitto("device-b1")
        .subscribe(&["-t", "will/#", "-q", "1"]);
    let _cut = broker.mosquitto_in("device-a1", Protocol::V5).subscribe(&[
        "-t",
        "x",
        "--will-topic",
        "will/cut",
        "--will-payload",
        "cut",
        "--will-qos",
        "1",
    ]);
    api.inactivate(&api.sn_of("ca-a"));
    assert_eq!(watcher.wait_payload("cut"), "will/cut|1|0|cut");
}

#[test]
fn resumed_session_gets_what_it_missed_and_clean_one_does_not() {
    let broker = Broker::start();
    for protocol in BOTH {
        let tools = broker.mosquitto_in("device-b1", protocol);
        let id = format!("resumed-{protocol:?}");
        let mut keep = vec!["-t", "missed", "-q", "1", "-i", &id, "-c"];
        if protocol == Protocol::V5 {
            keep.extend(["-x", "300"]);
        }
        tools.subscribe_and_leave(&keep);

        let from = broker.mosquitto_in("device-a1", protocol);
        for n in 0..5 {
            from.publish_ok(&["-t", "missed", "-m", &format!("m{n}"), "-q", "1"]);
        }
        let second = tools.subscribe(&keep);
        let expected: Vec<_> = (0..5).map(|n| format!("missed|1|0|m{n}")).collect();
        assert_eq!(second.wait_messages(5), expected);
        drop(second);

        let clean = tools.subscribe(&["-t", "other", "-q", "1", "-i", &id]);
        from.publish_ok(&["-t", "missed", "-m", "late", "-q", "1"]);
        from.publish_ok(&["-t", "other", "-m", "mark", "-q", "1"]);
        clean.wait_payload("mark");
        assert_eq!(clean.wait_messages(1), ["other|1|0|mark"]);
    }
}

#[test]
fn session_of_a_cut_device_is_there_when_it_comes_back() {
    let broker = Broker::start();
    let api = broker.api();
    let sn = api.sn_of("ca-a");
    let a1 = broker.identity("device-a1");
    let mut hello = Mqtt::hello("comes-back");
    hello.session_expiry_interval_secs = 300;
    let client = broker.client(&a1, Version::V13);
    let mut session = Mqtt::connect(client.handshake().unwrap(), hello.clone()).unwrap();
    session.subscribe("missed/+", QoS::AtLeastOnce).unwrap();
    api.inactivate(&sn);
    session.wait_disconnect();
    let b1 = broker.mosquitto("device-b1");
    b1.publish_ok(&["-t", "missed/x", "-m", "while you were out", "-q", "1"]);

    api.activate(&sn);
    hello.clean_start = false;
    let mut session = Mqtt::connect(client.handshake().unwrap(), hello).unwrap();
    assert!(session.ack.session_present);
    let message = session.next_publish().unwrap();
    assert_eq!(&message.payload[..], b"while you were out");
}

#[test]
fn second_client_with_the_same_id_takes_over() {
    let broker = Broker::start();
    let client = broker.client(&broker.identity("device-a1"), Version::V13);
    let connect = || Mqtt::connect(client.handshake().unwrap(), Mqtt::hello("same"));
    let first = connect().unwrap();
    let mut second = connect().unwrap();
    assert_eq!(
        first.wait_disconnect(),
        DisconnectReasonCode::SessionTakenOver
    );
    second.ping().unwrap();
}

#[test]
fn keep_alive_0_is_legal() {
    let broker = Broker::start();
    let client = broker.client(&broker.identity("device-a1"), Version::V13);
    let mut session = client.connect().unwrap();
    session.ping().unwrap();

    // MQTT 3.1.1, whose tools do not let 0 through.
    let mut stream = client.handshake().unwrap();
    let connect = [16, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 1, b'x'];
    stream.send(&connect).unwrap();
    assert_eq!(stream.read().unwrap(), [32, 2, 0, 0], "CONNACK, accepted");
    stream.send(&[192, 0]).unwrap();
    assert_eq!(stream.read().unwrap(), [208, 0], "PINGRESP");
}

#[test]
fn client_silent_beyond_its_keep_alive_is_disconnected() {
    let broker = Broker::start();
    let client = broker.client(&broker.identity("device-a1"), Version::V13);
    let mut hello = Mqtt::hello("stops-talking");
    hello.keep_alive = 1;
    let session = Mqtt::connect(client.handshake().unwrap(), hello).unwrap();
    assert_eq!(
        session.wait_disconnect(),
        DisconnectReasonCode::KeepAliveTimeout
    );
}

#[test]
fn record_that_cannot_be_decrypted_ends_the_session_and_the_log_says_so() {
    let broker = Broker::start();
    let watcher = broker
        .mosquitto("device-b1")
        .subscribe(&["-t", "will/#", "-q", "1"]);
    let client = broker.client(&broker.identity("device-a1"), Version::V13);
    let mut hello = Mqtt::hello("garbles");
    hello.last_will = Some(will("will/garbles", "gone"));
    let mut session = Mqtt::connect(client.handshake().unwrap(), hello).unwrap();
    // A record of application data, of 32 octets, that nobody has encrypted.
    session
        .stream
        .send_in_clear(&[&[23, 3, 3, 0, 32][..], &[0; 32]].concat());
    assert_eq!(
        session.wait_end(),
        End::Alert(AlertDescription::BadRecordMac)
    );
    watcher.wait_payload("gone");
    broker.wait_log("why, and of whom", |line| {
        line.contains("what came cannot be read") && line.contains("mqtt.client_id=\"garbles\"")
    });
}

#[test]
fn frozen_subscriber_does_not_delay_the_others() {
    let broker = Broker::start();
    let frozen = broker
        .mosquitto("device-b2")
        .subscribe(&["-t", "flow", "-q", "0"]);
    let other = broker
        .mosquitto("device-b1")
        .subscribe(&["-t", "flow", "-q", "1"]);
    signal(frozen.process.id(), "STOP");
    let from = broker.mosquitto("device-a1");
    let payload = "x".repeat(100_000);
    for n in 0..20 {
        from.publish_ok(&["-t", "flow", "-m", &format!("{payload}{n}"), "-q", "1"]);
    }
    other.wait_messages(20);
    signal(frozen.process.id(), "CONT");
}
