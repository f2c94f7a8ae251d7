//! MQTT over WebSocket (MQTT 5.0 and 3.1.1, section 6), behind the same gate.

use std::time::{Duration, Instant};

use bytes::Bytes;
use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::{ConnectAckReason, DisconnectReasonCode, Packet, PublishProperties};
use rustls::AlertDescription;
use tungstenite::Message;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::{CloseCode, Data};

use crate::harness::fleet::{Fleet, Setup};
use crate::harness::mqtt::{Mqtt, will};
use crate::harness::tls::{BOTH, End, Identity, TlsClient, Version};
use crate::harness::wait_until;
use crate::harness::websocket::{ORDINARY, WsStream, request};

const A: &str = "post-cn-a";
const B: &str = "post-cn-b";
const ANY: &str = "127.0.0.1:0";
const WEBSOCKET: &str = "websocket_listen = \"127.0.0.1:0\"";

/// An instance with a WebSocket, and more of the configuration.
fn one(keys: &str, more: &str) -> Fleet {
    let setup = Setup::new().instance(A, "owner-a", ANY, &[]);
    setup.also(WEBSOCKET).also(keys).with(more).start()
}

/// A client at the WebSocket address of the instance.
fn client(fleet: &Fleet, identity: &Identity, version: Version) -> TlsClient {
    let client = fleet.client(A, "localhost", identity, version);
    client.going_to(fleet.websocket(A))
}

#[test]
fn messages_and_sessions_pass_between_websocket_and_tcp() {
    let fleet = one("", "");
    let (_, device) = fleet.device(A);
    for version in BOTH {
        let tcp = fleet.client(A, "localhost", &device, version);
        let mut tcp = tcp.connect().unwrap();
        let mut websocket = client(&fleet, &device, version)
            .connect_websocket()
            .unwrap();
        tcp.subscribe("to/tcp", QoS::AtLeastOnce).unwrap();
        websocket
            .subscribe("to/websocket", QoS::AtLeastOnce)
            .unwrap();
        for payload in [&b"x"[..], &[7; 200], &[7; 70_000], &[7; 900_000]] {
            tcp.publish("to/websocket", payload, PublishProperties::default())
                .unwrap();
            assert_eq!(websocket.next_publish().unwrap().payload, payload);
            websocket
                .publish("to/tcp", payload, PublishProperties::default())
                .unwrap();
            assert_eq!(tcp.next_publish().unwrap().payload, payload);
        }
    }
    // A session begun over one is gone on with over the other.
    let mut hello = Mqtt::hello("moves");
    hello.session_expiry_interval_secs = 60;
    let stream = client(&fleet, &device, Version::V13)
        .websocket("/mqtt")
        .unwrap();
    let mut first = Mqtt::connect(stream, hello.clone()).unwrap();
    first.subscribe("moved/#", QoS::AtLeastOnce).unwrap();
    hello.clean_start = false;
    let tcp = fleet.client(A, "localhost", &device, Version::V13);
    let second = Mqtt::connect(tcp.handshake().unwrap(), hello).unwrap();
    assert!(second.ack.session_present);
    assert_eq!(
        first.wait_disconnect(),
        DisconnectReasonCode::SessionTakenOver
    );
}

#[test]
fn device_of_an_inactive_or_unknown_ca_is_refused_at_the_websocket_with_the_alert() {
    let fleet = one("", "");
    let (ca, device) = fleet.device(A);
    let stranger = crate::harness::pki::Ca::root("unknown").device("stranger");
    for version in BOTH {
        assert!(client(&fleet, &device, version).connect_websocket().is_ok());
        let refused = client(&fleet, &stranger, version);
        refused.refused_with(AlertDescription::UnknownCA);
        fleet.api(A).inactivate(&ca.sn());
        let refused = client(&fleet, &device, version);
        refused.refused_with(AlertDescription::AccessDenied);
        fleet.api(A).activate(&ca.sn());
    }
}

#[test]
fn live_websocket_session_is_cut_with_administrative_action_and_closed() {
    let fleet = one("", "");
    let (ca, device) = fleet.device(A);
    for version in BOTH {
        let mut cut = client(&fleet, &device, version)
            .connect_websocket()
            .unwrap();
        // One that has the handshake of TLS only, and one that has not said CONNECT.
        let asking = client(&fleet, &device, version).handshake().unwrap();
        let silent = client(&fleet, &device, version).websocket("/mqtt").unwrap();
        fleet.api(A).inactivate(&ca.sn());
        match cut.next() {
            Ok(Packet::Disconnect(it)) => {
                assert_eq!(it.reason_code, DisconnectReasonCode::AdministrativeAction);
            }
            other => panic!("{other:?} in place of DISCONNECT"),
        }
        assert_eq!(cut.stream.wait_close(), CloseCode::Normal);
        let answer = WsStream::ask(asking, &request("/mqtt", &ORDINARY));
        assert!(answer.is_err(), "a WebSocket after the CA was inactivated");
        assert!(Mqtt::connect(silent, Mqtt::hello("")).is_err());
        fleet.api(A).activate(&ca.sn());
    }
}

#[test]
fn packets_in_any_frames_are_understood() {
    let fleet = one("", "");
    let (_, device) = fleet.device(A);
    let stream = client(&fleet, &device, Version::V13)
        .websocket("/mqtt")
        .unwrap();
    let mut mqtt = Mqtt::connect(stream, Mqtt::hello("")).unwrap();
    // PINGREQ twice in a frame, once in two frames of a message, once in two messages, with
    // control frames and empty ones between.
    let ping: &[u8] = &[0xc0, 0];
    let stream = &mut mqtt.stream;
    stream.say(Message::binary(ping.repeat(2))).unwrap();
    stream.say_part(Data::Binary, &ping[..1], false).unwrap();
    stream.say(Message::Ping(Bytes::from_static(b"?"))).unwrap();
    stream.say_part(Data::Continue, &[], false).unwrap();
    stream.say_part(Data::Continue, &ping[1..], true).unwrap();
    stream.say(Message::binary(&ping[..1])).unwrap();
    stream.say(Message::binary(Vec::new())).unwrap();
    stream.say(Message::binary(&ping[1..])).unwrap();
    for _ in 0..4 {
        assert!(matches!(mqtt.next(), Ok(Packet::PingResponse)));
    }
}

#[test]
fn what_breaks_a_rule_of_websocket_closes_the_connection_with_the_code() {
    let fleet = one("", "");
    let (_, device) = fleet.device(A);
    let open = || {
        let client = client(&fleet, &device, Version::V13);
        client.connect_websocket().unwrap().stream
    };
    let mut text = open();
    text.say(Message::text("{}")).unwrap();
    assert_eq!(text.wait_close(), CloseCode::Unsupported);
    fleet.broker.wait_log("why, and of whom", |line| {
        line.contains("what came cannot be read") && line.contains("conn{conn.id=")
    });
    let mut unmasked = open();
    unmasked.send_raw(&[0x82, 2, 0xc0, 0]).unwrap();
    assert_eq!(unmasked.wait_close(), CloseCode::Protocol);
    let mut impossible = open();
    let length = [&[0x82, 0xff][..], &[0xff; 8], &[0; 4]].concat();
    impossible.send_raw(&length).unwrap();
    assert_eq!(impossible.wait_close(), CloseCode::Protocol);
    let mut alone = open();
    alone.say_part(Data::Continue, &[0xc0, 0], true).unwrap();
    assert_eq!(alone.wait_close(), CloseCode::Protocol);
    for (rule, times) in [
        ("text", 1),
        ("not_masked", 1),
        ("length", 1),
        ("fragments", 1),
    ] {
        let counter = format!("portcullis_websocket_failures_total{{reason=\"{rule}\"}}");
        assert_eq!(fleet.counter(&counter), times, "{rule}");
    }
}

#[test]
fn frame_of_any_size_is_taken_apart_and_the_packet_in_it_has_its_limit() {
    let fleet = one("", "[mqtt]\nmax_packet_bytes = 1024\n");
    let (_, device) = fleet.device(A);
    let open = || {
        client(&fleet, &device, Version::V13)
            .connect_websocket()
            .unwrap()
    };
    // More octets in one frame than a packet may have, in packets that are small.
    let mut many = open();
    many.stream
        .say(Message::binary([0xc0, 0].repeat(5_000)))
        .unwrap();
    for _ in 0..5_000 {
        assert!(matches!(many.next(), Ok(Packet::PingResponse)));
    }
    // A frame of an exbibyte, and in it a packet of 256 MiB: refused by what it announces.
    let mut large = open();
    let head = [0x82, 0xff, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let publish = [0x30, 0xff, 0xff, 0xff, 0x7f, 0, 1, b'x'];
    large
        .stream
        .send_raw(&[&head[..], &publish].concat())
        .unwrap();
    assert_eq!(
        large.wait_disconnect(),
        DisconnectReasonCode::PacketTooLarge
    );
}

#[test]
fn request_that_gets_no_websocket_is_told_why_and_counted() {
    let fleet = one("websocket_origins = [\"https://console.example\"]", "");
    let (_, device) = fleet.device(A);
    let ask = |request: &str| {
        let stream = client(&fleet, &device, Version::V13).handshake().unwrap();
        WsStream::ask(stream, request).unwrap()
    };
    let without = |header: &str| {
        let headers = ORDINARY.iter().filter(|it| !it.starts_with(header));
        request("/mqtt", &headers.copied().collect::<Vec<_>>())
    };
    let with = |header| request("/mqtt", &[&ORDINARY[..], &[header]].concat());
    for (request, status, reason) in [
        (request("/", &ORDINARY), 404, "path"),
        (request("/mqtt", &[]), 426, "not_asked"),
        (without("Upgrade"), 426, "not_asked"),
        (without("Sec-WebSocket-Version"), 426, "version"),
        (without("Sec-WebSocket-Key"), 400, "malformed"),
        (without("Sec-WebSocket-Protocol"), 400, "subprotocol"),
        (with("Origin: https://evil.example"), 403, "origin"),
        (with("Origin: null"), 403, "origin"),
    ] {
        let counter = format!("portcullis_websocket_requests_total{{outcome=\"{reason}\"}}");
        let before = fleet.counter(&counter);
        let answer = ask(&request).err().expect("no WebSocket");
        assert_eq!(answer.status, status, "{request}\n{answer:?}");
        assert!(answer.text.contains("onnection: "), "{answer:?}");
        // It is counted when it has been answered.
        wait_until(&format!("{reason} is counted"), || {
            (fleet.counter(&counter) == before + 1).then_some(())
        });
    }
    for request in [
        with("Origin: https://console.example"),
        with("Sec-WebSocket-Extensions: permessage-deflate"),
    ] {
        let Ok(stream) = ask(&request) else {
            panic!("no WebSocket: {request}");
        };
        assert!(Mqtt::connect(stream, Mqtt::hello("")).is_ok());
    }
}

#[test]
fn ping_is_answered_and_close_ends_the_session_with_its_will() {
    let fleet = one("", "");
    let (_, device) = fleet.device(A);
    let mut watching = fleet.client(A, "localhost", &device, Version::V13);
    watching = watching.with_small_records();
    let mut watching = watching.connect().unwrap();
    watching.subscribe("will", QoS::AtLeastOnce).unwrap();
    let mut hello = Mqtt::hello("closes");
    hello.last_will = Some(will("will", "gone"));
    let stream = client(&fleet, &device, Version::V13)
        .websocket("/mqtt")
        .unwrap();
    let mut stream = Mqtt::connect(stream, hello).unwrap().stream;
    stream
        .say(Message::Ping(Bytes::from_static(b"there?")))
        .unwrap();
    assert_eq!(
        stream.hear(),
        Ok(Message::Pong(Bytes::from_static(b"there?")))
    );
    stream
        .say(Message::Pong(Bytes::from_static(b"unasked")))
        .unwrap();
    let close = CloseFrame {
        code: CloseCode::Away,
        reason: "the page was left".into(),
    };
    stream.say(Message::Close(Some(close))).unwrap();
    assert_eq!(stream.wait_close(), CloseCode::Away);
    assert_eq!(watching.next_publish().unwrap().payload, &b"gone"[..]);
}

#[test]
fn mqtt_refusal_goes_through_the_websocket() {
    let fleet = one("client_id = \"common_name\"", "");
    let (_, device) = fleet.device(A);
    let stream = client(&fleet, &device, Version::V13)
        .websocket("/mqtt")
        .unwrap();
    match Mqtt::connect(stream, Mqtt::hello("somebody-else")) {
        Err(End::Broken(answer)) => {
            let refused = format!("{:?}", ConnectAckReason::NotAuthorized);
            assert!(answer.contains(&refused), "{answer}");
        }
        other => panic!("{:?} in place of CONNACK", other.err()),
    }
}

#[test]
fn request_that_does_not_come_is_not_waited_for_and_delays_nobody() {
    let fleet = one("", "[mqtt]\nconnect_timeout_seconds = 3\n");
    let (_, device) = fleet.device(A);
    let start = Instant::now();
    let slow: Vec<_> = ["", "GET /mqtt HTTP/1.1\r\nHost: x\r\n", "GET"]
        .map(|begun| {
            let mut stream = client(&fleet, &device, Version::V13).handshake().unwrap();
            stream.send(begun.as_bytes()).unwrap();
            stream
        })
        .into();
    assert!(
        client(&fleet, &device, Version::V13)
            .connect_websocket()
            .is_ok()
    );
    for mut stream in slow {
        assert_eq!(stream.read(), Err(End::Closed));
    }
    assert!(start.elapsed() < Duration::from_secs(20));
    let counter = "portcullis_websocket_requests_total{outcome=\"timeout\"}";
    wait_until("they are counted", || {
        (fleet.counter(counter) == 3).then_some(())
    });
    // The request came, but CONNECT does not.
    let silent = client(&fleet, &device, Version::V13)
        .websocket("/mqtt")
        .unwrap();
    assert_eq!(silent.wait_close(), CloseCode::Normal);
}

#[test]
fn request_head_that_never_ends_is_not_collected() {
    let fleet = one("", "");
    let (_, device) = fleet.device(A);
    let mut stream = client(&fleet, &device, Version::V13).handshake().unwrap();
    stream.send(b"GET /mqtt HTTP/1.1\r\n").unwrap();
    let field = format!("x: {}\r\n", "x".repeat(1000));
    let sent = (0..1_000).find(|_| stream.send(field.as_bytes()).is_err());
    let end = match sent {
        Some(_) => End::Closed,
        None => loop {
            if let Err(end) = stream.read() {
                break end;
            }
        },
    };
    assert_ne!(end, End::Silent);
}

#[test]
fn instances_share_a_websocket_address_and_are_told_apart_by_name() {
    let shared = crate::harness::fleet::free_address();
    let listen = format!("websocket_listen = \"{shared}\"");
    let fleet = Setup::new()
        .instance(A, "owner-a", ANY, &["a.example"])
        .also(&listen)
        .instance(B, "owner-b", ANY, &["b.example"])
        .also(&listen)
        .also("websocket_path = \"/\"")
        .start();
    let ((_, a), (_, b)) = (fleet.device(A), fleet.device(B));
    let client = |name: &str, device| {
        let client = fleet.client(A, name, device, Version::V13);
        client.going_to(fleet.websocket(A))
    };
    assert_eq!(fleet.websocket(A), fleet.websocket(B));
    for (name, device, path) in [("a.example", &a, "/mqtt"), ("b.example", &b, "/")] {
        let stream = client(name, device).websocket(path).unwrap();
        assert!(Mqtt::connect(stream, Mqtt::hello("")).is_ok());
    }
    client("a.example", &b).refused_with(AlertDescription::UnknownCA);
    client("c.example", &a).refused_with(AlertDescription::UnrecognisedName);
}

#[test]
fn connections_of_both_kinds_count_together() {
    let fleet = one("", "[mqtt]\nmax_connections = 2\n");
    let (_, device) = fleet.device(A);
    let tcp = fleet.client(A, "localhost", &device, Version::V13);
    let tcp = tcp.connect().unwrap();
    let websocket = client(&fleet, &device, Version::V13);
    let held = websocket.connect_websocket().unwrap();
    assert!(websocket.connect_websocket().is_err());
    drop(tcp);
    wait_until("there is a place again", || {
        websocket.connect_websocket().ok().map(drop)
    });
    drop(held);
}
