//! What administrators are told on `$SYS`: events of what really happens.

use std::time::Instant;

use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::{
    Connect, Disconnect, DisconnectReasonCode, Packet, PublishProperties, SubscribeAckReason,
};
use rustls::AlertDescription;
use serde_json::{Value, json};

use crate::control_channel::Admin;
use crate::harness::broker::{INSTANCE, program};
use crate::harness::mosquitto::Protocol;
use crate::harness::mqtt::Mqtt;
use crate::harness::pki::{Ca, sn};
use crate::harness::process::Process;
use crate::harness::tls::Identity;
use crate::harness::{Broker, DEADLINE, Version, wait_until};

const EVENTS: &str = "$SYS/portcullis/events/#";

/// An administrator who is subscribed to something.
pub struct Listener(pub Mqtt);

impl Listener {
    fn start(broker: &Broker, filter: &str) -> Self {
        let client = broker.client(&broker.identity("admin"), Version::V13);
        Self::over(client.connect().unwrap(), filter)
    }

    pub fn over(mut mqtt: Mqtt, filter: &str) -> Self {
        let granted = mqtt.subscribe(filter, QoS::AtLeastOnce).unwrap();
        assert_eq!(granted, SubscribeAckReason::GrantedQos1);
        Self(mqtt)
    }

    /// The next event, with its topic as a member.
    fn next(&mut self) -> Value {
        let message = self.0.next_publish().unwrap();
        assert!(!message.retain);
        let mut event: Value = serde_json::from_slice(&message.payload).unwrap();
        event["topic"] = json!(message.topic.rsplit('/').next());
        event
    }

    /// The next event for which this holds, whatever comes before.
    #[track_caller]
    fn wait(&mut self, members: Value) -> Value {
        let start = Instant::now();
        loop {
            let event = self.next();
            if has(&event, &members) {
                return event;
            }
            assert!(start.elapsed() < DEADLINE, "waited in vain for {members}");
        }
    }

    /// The next event, which must be this one.
    #[track_caller]
    fn is_next(&mut self, members: Value) -> Value {
        let event = self.next();
        assert!(has(&event, &members), "{event} in place of {members}");
        event
    }
}

fn has(event: &Value, members: &Value) -> bool {
    let mut members = members.as_object().unwrap().iter();
    members.all(|(name, value)| event[name] == *value)
}

/// The command line, over the broker's socket.
#[track_caller]
fn host(broker: &Broker, arguments: &[&str]) -> String {
    let mut command = program();
    let socket = broker.data().join("admin.sock");
    command.args(arguments).arg("--socket").arg(socket);
    let finished = Process::spawn(&mut command).finish();
    assert_eq!(finished.code, 0, "{arguments:?}: {}", finished.stderr);
    finished.stdout
}

pub fn connect(broker: &Broker, identity: &Identity, connect: Connect) -> Mqtt {
    let client = broker.client(identity, Version::V13);
    Mqtt::connect(client.handshake().unwrap(), connect).unwrap()
}

#[test]
fn connections_are_told_as_they_really_begin_and_end() {
    let broker = Broker::start();
    let mut listener = Listener::start(&broker, "$SYS/portcullis/events/session");
    let a1 = broker.identity("device-a1");
    let ca = broker.api().sn_of("ca-a");

    // A client of another make, which leaves in order, in both versions.
    for (protocol, name) in [(Protocol::V311, "3.1.1"), (Protocol::V5, "5.0")] {
        let tools = broker.mosquitto_in("device-a1", protocol);
        tools.publish_ok(&[
            "-i",
            "tools/+/#",
            "-k",
            "17",
            "-t",
            "t",
            "-m",
            "x",
            "-q",
            "1",
        ]);
        let began = listener.is_next(json!({
            "event": "connected", "instance": INSTANCE, "client_id": "tools/+/#",
            "protocol": name, "clean_start": true, "session_present": false,
            "keep_alive_seconds": 17, "ca_sn": ca, "device_sn": sn(&a1.chain[0]),
        }));
        let address = began["address"].as_str().unwrap();
        assert!(address.starts_with("127.0.0.1:"), "{began}");
        listener.is_next(json!({
            "event": "disconnected", "client_id": "tools/+/#", "reason": "client_left",
            "reason_code": 0, "connection": began["connection"], "address": address,
        }));
    }

    // The connection breaks.
    let session = Connect {
        session_expiry_interval_secs: 60,
        ..Mqtt::hello("d")
    };
    drop(connect(&broker, &a1, session.clone()));
    listener.is_next(json!({"event": "connected", "session_expiry_seconds": 60}));
    listener.is_next(json!({"reason": "connection_lost", "reason_code": null}));

    // It comes back to its session, and is taken over there.
    let back = Connect {
        clean_start: false,
        ..session
    };
    let first = connect(&broker, &a1, back.clone());
    listener.is_next(json!({"event": "connected", "session_present": true, "clean_start": false}));
    let mut second = connect(&broker, &a1, back);
    assert_eq!(
        first.wait_disconnect(),
        DisconnectReasonCode::SessionTakenOver
    );
    listener.is_next(json!({"event": "disconnected", "reason": "taken_over", "reason_code": 142}));
    listener.is_next(json!({"event": "connected", "client_id": "d"}));
    second
        .send(Packet::Disconnect(Disconnect {
            reason_code: DisconnectReasonCode::DisconnectWithWillMessage,
            ..Disconnect::default()
        }))
        .unwrap();
    listener.is_next(json!({"reason": "client_left", "reason_code": 4}));

    // It says nothing any more.
    let silent = Connect {
        keep_alive: 1,
        ..Mqtt::hello("silent")
    };
    let silent = connect(&broker, &a1, silent);
    listener.is_next(json!({"event": "connected", "keep_alive_seconds": 1}));
    listener.is_next(json!({"reason": "keep_alive_timeout", "reason_code": 141}));
    drop(silent);

    // It breaks a rule; an operator ends it.
    let mut rude = connect(&broker, &a1, Mqtt::hello("rude"));
    rude.send(Packet::from(Mqtt::hello("again"))).unwrap();
    listener.is_next(json!({"event": "connected"}));
    listener.is_next(json!({"reason": "protocol_error", "reason_code": 130}));
    let closed = connect(&broker, &a1, Mqtt::hello("closed"));
    listener.is_next(json!({"event": "connected"}));
    broker
        .call_about("CloseConnection", &[("ClientId", "closed")])
        .ok();
    listener.is_next(json!({"reason": "administrative", "reason_code": 152}));
    drop(closed);
}

#[test]
fn inactivated_ca_is_told_with_whom_it_cut_and_whom_it_refuses() {
    let broker = Broker::start();
    let api = broker.api();
    let ca = api.sn_of("ca-a");
    let mut listener = Listener::start(&broker, EVENTS);
    let a1 = broker.identity("device-a1");
    let _live = connect(&broker, &a1, Mqtt::hello("live"));
    // Of two topics, and so in either order.
    let (mut connected, mut recorded) = (false, false);
    while !connected || !recorded {
        let event = listener.next();
        connected |= has(&event, &json!({"topic": "session", "event": "connected"}));
        recorded |= has(
            &event,
            &json!({"topic": "device", "event": "recorded", "ca_sn": ca,
                    "device_sn": sn(&a1.chain[0]), "before": null, "after": "active"}),
        );
    }
    let answer = api.inactivate(&ca);
    let (mut cut, mut told) = (false, None);
    while !cut || told.is_none() {
        let event = listener.next();
        match event["event"].as_str().unwrap() {
            "disconnected" => {
                assert_eq!(event["client_id"], "live");
                assert_eq!(event["reason"], "cut");
                assert_eq!(event["reason_code"], 152);
                assert_eq!(event["detail"], format!("CA {ca} is inactive"));
                cut = true;
            }
            "inactivated" => told = Some(event),
            _ => panic!("{event}"),
        }
    }
    let told = told.unwrap();
    assert!(
        has(
            &told,
            &json!({"topic": "ca", "ca_sn": ca, "before": "active", "after": "inactive",
                "connections_ended": 1, "durable": true, "door": "http",
                "action": "InactivateCaCertificate", "request_id": answer["RequestId"],
                "principal": format!("access_key:{}", api.key_id)})
        ),
        "{told}"
    );

    broker
        .client(&a1, Version::V13)
        .refused_with(AlertDescription::AccessDenied);
    listener.is_next(json!({"topic": "refused", "event": "handshake_refused",
                            "reason": "ca_inactive", "ca_sn": ca,
                            "device_sn": sn(&a1.chain[0])}));
    // Nothing changes, and nothing is told.
    api.inactivate(&ca);
    api.activate(&ca);
    listener.is_next(json!({"event": "activated", "before": "inactive", "after": "active"}));
    let stranger = Ca::root("nobody's").device("stranger");
    broker
        .client(&stranger, Version::V12)
        .refused_with(AlertDescription::UnknownCA);
    listener.is_next(json!({"event": "handshake_refused", "reason": "unknown_ca"}));
}

#[test]
fn changes_through_every_door_are_told_with_who_made_them() {
    let broker = Broker::start();
    let api = broker.api();
    let mut admin = Admin::connect(&broker);
    let mut listener = Listener::start(&broker, EVENTS);
    listener.0.ping().unwrap();
    // Both have connected before the subscription: what comes is of changes only.
    let ca = Ca::root("customer");
    let serial = ca.sn();
    let key = format!("access_key:{}", api.key_id);

    assert_eq!(api.register("customer", &ca), serial);
    let http = |event: &str| {
        json!({"topic": "ca", "event": event, "ca_sn": serial,
                                    "door": "http", "principal": key})
    };
    listener.is_next(http("registered"));
    admin.command("InactivateCaCertificate", json!({"Sn": serial}));
    let event = listener.is_next(json!({"topic": "ca", "event": "inactivated", "door": "mqtt"}));
    let principal = event["principal"].as_str().unwrap();
    let certificate = format!("certificate:{}/", sn(&Ca::load(&broker, "admin-ca").der));
    assert!(principal.starts_with(&certificate), "{principal}");
    host(&broker, &["ca", "activate", &serial]);
    let event = listener.is_next(json!({"topic": "ca", "event": "activated", "door": "host",
                                        "address": null}));
    let principal = event["principal"].as_str().unwrap();
    assert!(principal.starts_with("host:"), "{principal}");

    let device = ca.device("one");
    let device_sn = sn(&device.chain[0]);
    assert!(broker.admits(&device));
    let of_device = |event: &str| {
        json!({"topic": "device", "event": event, "ca_sn": serial,
                                         "device_sn": device_sn})
    };
    listener.wait(of_device("recorded"));
    let names = [("CaSn", serial.as_str()), ("DeviceSn", device_sn.as_str())];
    for (action, event) in [
        ("InactivateDeviceCertificate", "inactivated"),
        ("ActiveDeviceCertificate", "activated"),
        ("DeleteDeviceCertificate", "deleted"),
    ] {
        api.call(action, &names).ok();
        let told = listener.wait(of_device(event));
        assert_eq!(told["action"], action);
    }
    api.call("DeleteCaCertificate", &[("Sn", &serial)]).ok();
    listener.is_next(http("deleted"));

    let made: Value = serde_json::from_str(&host(&broker, &["key", "create", "--json"])).unwrap();
    let id = made["AccessKeyId"].as_str().unwrap();
    let secret = made["AccessKeySecret"].as_str().unwrap();
    let event = listener.is_next(json!({"topic": "access_key", "event": "created",
                                        "access_key_id": id, "door": "host"}));
    assert!(!event.to_string().contains(secret));
    host(&broker, &["key", "disable", id]);
    listener.is_next(json!({"event": "inactivated", "access_key_id": id}));
    host(&broker, &["key", "delete", id]);
    listener.is_next(json!({"event": "deleted", "access_key_id": id, "before": "inactive"}));
}

#[test]
fn refused_connects_are_told_and_a_flood_of_them_as_a_number() {
    let broker = Broker::start();
    let mut listener = Listener::start(&broker, "$SYS/portcullis/events/+");
    let (a1, a2) = (broker.identity("device-a1"), broker.identity("device-a2"));
    let _owner = connect(&broker, &a1, Mqtt::hello("mine"));
    let client = broker.client(&a2, Version::V13);
    let refused = || Mqtt::connect(client.handshake().unwrap(), Mqtt::hello("mine")).is_err();
    assert!(refused());
    listener.wait(
        json!({"topic": "refused", "event": "connect_refused", "client_id": "mine",
                         "reason": "refused", "reason_code": 135,
                         "device_sn": sn(&a2.chain[0])}),
    );
    let flood = 60;
    for _ in 0..flood {
        assert!(refused());
    }
    let (mut told, mut left_out) = (0, 0);
    while told + left_out < flood {
        let event = listener.next();
        match event["event"].as_str().unwrap() {
            "connect_refused" => told += 1,
            "left_out" => {
                assert_eq!(event["lost"], 0);
                left_out += event["refusals"].as_u64().unwrap();
            }
            _ => {}
        }
    }
    assert_eq!(told + left_out, flood);
}

#[test]
fn device_sees_none_of_it_whatever_it_subscribes_to() {
    let broker = Broker::start();
    let sn = broker.api().sn_of("ca-b");
    let client = broker.client(&broker.identity("device-a1"), Version::V13);
    let mut device = client.connect().unwrap();
    for filter in [
        "$SYS/#",
        "$SYS/broker/#",
        "$SYS/portcullis/events/+",
        "$share/g/$SYS/#",
        "$share/g/$SYS/portcullis/events/session",
    ] {
        let reason = device.subscribe(filter, QoS::AtLeastOnce).unwrap();
        assert_eq!(reason, SubscribeAckReason::NotAuthorized, "{filter}");
    }
    for filter in [
        "#",
        "+/#",
        "+/portcullis/#",
        "+/broker/+/+",
        "$share/g/#",
        "$share/g/+/+/+/+",
    ] {
        device.subscribe(filter, QoS::AtLeastOnce).unwrap();
    }
    let tools = broker.mosquitto("device-a2");
    let refused = tools.subscribe(&["-t", "#", "-t", "$SYS/#"]);

    let mut listener = Listener::start(&broker, "$SYS/#");
    let b1 = broker.mosquitto("device-b1");
    b1.publish_ok(&["-t", "first", "-m", "x", "-q", "1"]);
    broker.api().inactivate(&sn);
    broker.api().activate(&sn);
    loop {
        let message = listener.0.next_publish().unwrap();
        let text = String::from_utf8(message.payload.to_vec()).unwrap();
        if text.contains("\"activated\"") {
            break;
        }
    }
    b1.publish_ok(&["-t", "mark", "-m", "x", "-q", "1"]);
    let mut seen = Vec::new();
    while seen.last().is_none_or(|topic| topic != "mark") {
        seen.push(device.next_publish().unwrap().topic.to_string());
    }
    let sys = seen.iter().filter(|topic| topic.starts_with('$'));
    assert_eq!(sys.count(), 0, "{seen:?}");
    let last = refused.wait_payload("x");
    assert!(last.starts_with("first|"), "{last}");
    assert_eq!(refused.wait_messages(2).len(), 2);
    // Nor may it speak there.
    device
        .publish("$SYS/broker/uptime", b"1", PublishProperties::default())
        .unwrap();
    wait_until("it is refused", || match device.next() {
        Ok(Packet::PublishAck(ack)) => {
            assert_eq!(u8::from(ack.reason_code), 0x87);
            Some(())
        }
        _ => None,
    });
}
