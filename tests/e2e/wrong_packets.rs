//! Wrong packets, octet by octet, by the sections of the standards, and what must follow: the
//! reason code in MQTT 5 (4.13), the end of the connection in MQTT 3.1.1 (4.8). In all cases the
//! connection ends, and the broker serves others.

use crate::harness::tls::{End, TlsClient, TlsStream};
use crate::harness::{Broker, Version};

/// What the broker says before it closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    Nothing,
    /// A CONNACK with this code.
    Connack(u8),
    /// A DISCONNECT with this code.
    Disconnect(u8),
    /// It does not close.
    GoesOn,
}

const MALFORMED: Says = Says::Disconnect(0x81);
const PROTOCOL_ERROR: Says = Says::Disconnect(0x82);

/// A CONNECT with these flags and properties and this payload; keep alive off.
fn connect(level: u8, flags: u8, properties: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut body = b"\x00\x04MQTT".to_vec();
    body.extend([level, flags, 0, 0]);
    if level >= 5 {
        body.push(u8::try_from(properties.len()).unwrap());
        body.extend(properties);
    }
    body.extend(payload);
    packet(0x10, &body)
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let length = u8::try_from(body.len()).unwrap();
    assert!(length < 128);
    [&[first, length], body].concat()
}

/// The client id "c".
const ID: &[u8] = b"\x00\x01c";

/// The first packet of a connection, and what must follow.
fn first_packets() -> Vec<(&'static str, Vec<u8>, &'static [Says])> {
    let v5 = |flags, properties: &[u8], payload: &[u8]| connect(5, flags, properties, payload);
    let v3 = |flags, payload: &[u8]| connect(4, flags, &[], payload);
    let malformed: &[Says] = &[Says::Nothing, Says::Connack(0x81)];
    let error: &[Says] = &[Says::Nothing, Says::Connack(0x82), Says::Connack(0x81)];
    let silent: &[Says] = &[Says::Nothing];
    vec![
        ("3.1.0-1 PINGREQ comes first", vec![0xc0, 0], silent),
        (
            "3.1.0-1 PUBLISH comes first",
            packet(0x30, b"\x00\x01ax"),
            silent,
        ),
        ("2.1.2 type 0 comes first", vec![0, 0], silent),
        (
            "3.1.2-1 another protocol's name",
            packet(0x10, b"\x00\x04MQTX\x05\x02\x00\x00\x00\x00\x01c"),
            &[Says::Nothing, Says::Connack(0x84), Says::Connack(1)],
        ),
        (
            "3.1.2-2 version 6",
            connect(6, 2, &[], ID),
            &[Says::Connack(0x84), Says::Connack(1)],
        ),
        (
            "3.1.2-2 version 3 with the name of version 3.1.1",
            connect(3, 2, &[], ID),
            &[Says::Nothing, Says::Connack(0x84), Says::Connack(1)],
        ),
        (
            "3.1.1 flags of the fixed header",
            {
                let mut octets = v5(2, &[], ID);
                octets[0] = 0x12;
                octets
            },
            malformed,
        ),
        (
            "1.5.5 a length of five octets",
            vec![0x10, 0xff, 0xff, 0xff, 0xff, 1],
            malformed,
        ),
        ("3.1.2-3 reserved flag", v5(3, &[], ID), malformed),
        (
            "3.1.2-11 quality of a will that is not there",
            v5(0x0a, &[], ID),
            malformed,
        ),
        (
            "3.1.2-15 retained will that is not there",
            v5(0x22, &[], ID),
            malformed,
        ),
        (
            "3.1.2-12 will of quality 3",
            v5(0x1e, &[], b"\x00\x01c\x00\x00\x01w\x00\x01x"),
            malformed,
        ),
        (
            "3.1.2.11 session expiry twice",
            v5(2, &[0x11, 0, 0, 0, 1, 0x11, 0, 0, 0, 1], ID),
            error,
        ),
        (
            "3.1.2.11.3 receive maximum 0",
            v5(2, &[0x21, 0, 0], ID),
            error,
        ),
        (
            "3.1.2.11.4 maximum packet size 0",
            v5(2, &[0x27, 0, 0, 0, 0], ID),
            error,
        ),
        (
            "3.1.2.11.6 request response information 2",
            v5(2, &[0x19, 2], ID),
            error,
        ),
        (
            "3.1.2.11.7 request problem information 2",
            v5(2, &[0x17, 2], ID),
            error,
        ),
        (
            "2.2.2.2 a property of PUBLISH",
            v5(2, &[0x23, 0, 1], ID),
            error,
        ),
        (
            "2.2.2.2 a property nobody knows",
            v5(2, &[0x7f, 0], ID),
            error,
        ),
        (
            "2.2.2 properties longer than they are",
            {
                let mut octets = v5(2, &[0x21, 0, 9], ID);
                octets[12] = 90;
                octets
            },
            malformed,
        ),
        (
            "3.1.2-20 user name that is not there",
            v5(0x82, &[], ID),
            malformed,
        ),
        (
            "3.1.3-4 client id that is no UTF-8",
            v5(2, &[], b"\x00\x01\xff"),
            &[Says::Nothing, Says::Connack(0x81), Says::Connack(0x85)],
        ),
        (
            "1.5.4-2 client id with U+0000",
            v5(2, &[], b"\x00\x01\x00"),
            &[Says::Nothing, Says::Connack(0x81), Says::Connack(0x85)],
        ),
        (
            "4.12 an authentication method",
            v5(2, b"\x15\x00\x01x", ID),
            &[Says::Connack(0x8c)],
        ),
        (
            "3.1.2.11.10 authentication data alone",
            v5(2, b"\x16\x00\x01x", ID),
            error,
        ),
        (
            "3.1.3.2 will topic with a wildcard",
            v5(6, &[], b"\x00\x01c\x00\x00\x01#\x00\x01x"),
            &[
                Says::Connack(0x90),
                Says::Connack(0x81),
                Says::Connack(0x82),
            ],
        ),
        (
            "3.1.3 octets after the payload",
            v5(2, &[], b"\x00\x01cmore"),
            malformed,
        ),
        ("v3 3.1.2-3 reserved flag", v3(3, ID), silent),
        (
            "v3 3.1.2-22 password without user name",
            v3(0x42, b"\x00\x01c\x00\x01p"),
            silent,
        ),
        (
            "v3 3.1.2-14 will of quality 3",
            v3(0x1e, b"\x00\x01c\x00\x01w\x00\x01x"),
            silent,
        ),
        (
            "v3 3.1.3-8 no client id and a session to be kept",
            v3(0, b"\x00\x00"),
            &[Says::Connack(2)],
        ),
        (
            "v3 1.5.3-2 client id with U+0000",
            v3(2, b"\x00\x01\x00"),
            silent,
        ),
        (
            "v3 3.1.4-1 octets after the payload",
            v3(2, b"\x00\x01cmore"),
            silent,
        ),
    ]
}

/// A packet after CONNECT, and what must follow in MQTT 5.
fn later_packets() -> Vec<(&'static str, Vec<u8>, &'static [Says])> {
    let malformed: &[Says] = &[MALFORMED];
    let error: &[Says] = &[PROTOCOL_ERROR];
    let either: &[Says] = &[MALFORMED, PROTOCOL_ERROR];
    let alias: &[Says] = &[Says::Disconnect(0x94)];
    vec![
        ("3.1.0-2 a second CONNECT", connect(5, 2, &[], ID), error),
        ("2.1.2 type 0", vec![0, 0], malformed),
        (
            "1.5.5 a length of five octets",
            vec![0x30, 0xff, 0xff, 0xff, 0xff, 1],
            malformed,
        ),
        (
            "3.3.1-4 PUBLISH of quality 3",
            packet(0x36, b"\x00\x01a\x00\x01\x00x"),
            malformed,
        ),
        (
            "3.3.1-2 DUP at quality 0",
            packet(0x38, b"\x00\x01a\x00x"),
            either,
        ),
        (
            "3.3.2-2 topic with a wildcard",
            packet(0x30, b"\x00\x01+\x00x"),
            &[Says::Disconnect(0x90), MALFORMED, PROTOCOL_ERROR],
        ),
        (
            "3.3.2.1 neither topic nor alias",
            packet(0x30, b"\x00\x00\x00x"),
            error,
        ),
        (
            "1.5.4-1 topic that is no UTF-8",
            packet(0x30, b"\x00\x01\xff\x00x"),
            malformed,
        ),
        (
            "1.5.4-2 topic with U+0000",
            packet(0x30, b"\x00\x01\x00\x00x"),
            &[MALFORMED, Says::Disconnect(0x90)],
        ),
        (
            "3.3.2-8 alias 0",
            packet(0x30, b"\x00\x01a\x03\x23\x00\x00x"),
            alias,
        ),
        (
            "3.3.2-9 alias above the maximum",
            packet(0x30, b"\x00\x01a\x03\x23\xff\xffx"),
            alias,
        ),
        (
            "3.3.2.3.4 alias nobody set",
            packet(0x30, b"\x00\x00\x03\x23\x00\x01x"),
            &[PROTOCOL_ERROR, Says::Disconnect(0x94)],
        ),
        (
            "3.3.4-6 subscription identifier",
            packet(0x30, b"\x00\x01a\x02\x0b\x01x"),
            error,
        ),
        (
            "3.3.2.3.2 payload format 2",
            packet(0x30, b"\x00\x01a\x02\x01\x02x"),
            either,
        ),
        (
            "2.2.1-3 packet id 0",
            packet(0x32, b"\x00\x01a\x00\x00\x00x"),
            either,
        ),
        (
            "3.3.2-14 response topic with a wildcard",
            packet(0x30, b"\x00\x01a\x04\x08\x00\x01#x"),
            &[Says::Disconnect(0x90), MALFORMED, PROTOCOL_ERROR],
        ),
        (
            "3.3.2 packet that ends in its topic",
            packet(0x30, b"\x00\x05a"),
            malformed,
        ),
        (
            "3.6.1-1 flags of PUBREL",
            packet(0x60, b"\x00\x01"),
            malformed,
        ),
        (
            "3.8.1-1 flags of SUBSCRIBE",
            packet(0x80, b"\x00\x01\x00\x00\x01a\x00"),
            malformed,
        ),
        (
            "3.8.3-2 SUBSCRIBE without filters",
            packet(0x82, b"\x00\x01\x00"),
            error,
        ),
        (
            "2.2.1-3 SUBSCRIBE with packet id 0",
            packet(0x82, b"\x00\x00\x00\x00\x01a\x00"),
            either,
        ),
        (
            "3.8.3-5 reserved options",
            packet(0x82, b"\x00\x01\x00\x00\x01a\xc0"),
            either,
        ),
        (
            "3.8.3.1 quality 3",
            packet(0x82, b"\x00\x01\x00\x00\x01a\x03"),
            either,
        ),
        (
            "3.8.3.1 retain handling 3",
            packet(0x82, b"\x00\x01\x00\x00\x01a\x30"),
            either,
        ),
        (
            "3.8.3-4 no local on a shared filter",
            packet(0x82, b"\x00\x01\x00\x00\x0a$share/g/a\x04"),
            error,
        ),
        (
            "3.8.2.1.2 subscription identifier 0",
            packet(0x82, b"\x00\x01\x02\x0b\x00\x00\x01a\x00"),
            either,
        ),
        (
            "3.10.1-1 flags of UNSUBSCRIBE",
            packet(0xa0, b"\x00\x01\x00\x00\x01a"),
            malformed,
        ),
        (
            "3.10.3-2 UNSUBSCRIBE without filters",
            packet(0xa2, b"\x00\x01\x00"),
            error,
        ),
        ("3.12.1 flags of PINGREQ", vec![0xc1, 0], malformed),
        (
            "3.12 PINGREQ with something in it",
            vec![0xc0, 1, 0],
            malformed,
        ),
        ("3.14.1-1 flags of DISCONNECT", vec![0xe1, 0], malformed),
        (
            "3.14.2.2.2 session expiry that was 0",
            packet(0xe0, b"\x00\x05\x11\x00\x00\x00\x09"),
            error,
        ),
        (
            "3.15 AUTH without a method",
            packet(0xf0, b"\x18\x00"),
            error,
        ),
        (
            "a server's packet: CONNACK",
            packet(0x20, b"\x00\x00\x00"),
            either,
        ),
        (
            "a server's packet: SUBACK",
            packet(0x90, b"\x00\x01\x00\x00"),
            either,
        ),
        (
            "a server's packet: UNSUBACK",
            packet(0xb0, b"\x00\x01\x00\x00"),
            either,
        ),
        ("a server's packet: PINGRESP", vec![0xd0, 0], either),
        (
            "3.2.2.3.6 larger than the server takes",
            vec![0x30, 0xff, 0xff, 0xff, 0x7f],
            &[Says::Disconnect(0x95)],
        ),
    ]
}

/// The same in MQTT 3.1.1, which has no word for it.
fn later_packets_of_version_3() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("3.1.0-2 a second CONNECT", connect(4, 2, &[], ID)),
        ("2.2.1 type 0", vec![0, 0]),
        ("2.2.1 type 15", vec![0xf0, 0]),
        (
            "2.2.3 a length of five octets",
            vec![0x30, 0xff, 0xff, 0xff, 0xff, 1],
        ),
        (
            "3.3.1-4 PUBLISH of quality 3",
            packet(0x36, b"\x00\x01a\x00\x01x"),
        ),
        ("3.3.2-2 topic with a wildcard", packet(0x30, b"\x00\x01#x")),
        ("4.7.3-1 no topic", packet(0x30, b"\x00\x00x")),
        (
            "1.5.3-1 topic that is no UTF-8",
            packet(0x30, b"\x00\x01\xffx"),
        ),
        ("1.5.3-2 topic with U+0000", packet(0x30, b"\x00\x01\x00x")),
        ("2.3.1-1 packet id 0", packet(0x32, b"\x00\x01a\x00\x00x")),
        ("3.6.1-1 flags of PUBREL", packet(0x60, b"\x00\x01")),
        (
            "3.8.1-1 flags of SUBSCRIBE",
            packet(0x80, b"\x00\x01\x00\x01a\x00"),
        ),
        (
            "3.8.3-3 SUBSCRIBE without filters",
            packet(0x82, b"\x00\x01"),
        ),
        ("3-8.3-4 quality 3", packet(0x82, b"\x00\x01\x00\x01a\x03")),
        (
            "3.10.1-1 flags of UNSUBSCRIBE",
            packet(0xa0, b"\x00\x01\x00\x01a"),
        ),
        (
            "3.10.3-2 UNSUBSCRIBE without filters",
            packet(0xa2, b"\x00\x01"),
        ),
        ("3.14.1-1 flags of DISCONNECT", vec![0xe1, 0]),
        ("a server's packet: CONNACK", packet(0x20, b"\x00\x00")),
        ("a server's packet: PINGRESP", vec![0xd0, 0]),
    ]
}

/// What the broker says to these octets before it closes. If it does not, a PINGREQ after them is
/// answered.
fn answer(stream: &mut TlsStream, octets: &[u8]) -> Says {
    stream.send(octets).unwrap();
    // It may have closed already.
    let _ = stream.send(&[0xc0, 0]);
    let mut heard = Vec::new();
    loop {
        match stream.read() {
            Ok(more) => heard.extend(more),
            Err(End::Silent) => panic!("neither answer nor end, after {heard:02x?}"),
            Err(_) => break,
        }
        if heard.ends_with(&[0xd0, 0]) {
            return Says::GoesOn;
        }
    }
    match heard.as_slice() {
        [] => Says::Nothing,
        [0x20, _, _, code, ..] => Says::Connack(*code),
        [0xe0, 0] => Says::Disconnect(0),
        [0xe0, _, code, ..] => Says::Disconnect(*code),
        other => panic!("what is this: {other:02x?}"),
    }
}

/// A connection that has its CONNACK.
fn connected(client: &TlsClient, hello: &[u8]) -> TlsStream {
    let mut stream = client.handshake().unwrap();
    stream.send(hello).unwrap();
    let connack = stream.read().unwrap();
    assert_eq!((connack[0], connack[3]), (0x20, 0), "{connack:02x?}");
    stream
}

#[test]
fn wrong_first_packet_is_answered_by_the_table_and_no_session_begins() {
    let broker = Broker::start();
    let client = broker.client(&broker.identity("device-a1"), Version::V13);
    let mut wrong = Vec::new();
    for (what, octets, expected) in first_packets() {
        let mut stream = client.handshake().unwrap();
        let said = answer(&mut stream, &octets);
        if !expected.contains(&said) {
            wrong.push(format!("{what}: {said:x?}, not one of {expected:x?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(client.admitted());
}

#[test]
fn wrong_packet_of_version_5_has_the_reason_code_of_the_table() {
    let broker = Broker::start();
    let client = broker.client(&broker.identity("device-a1"), Version::V13);
    let hello = connect(5, 2, &[], ID);
    let mut wrong = Vec::new();
    for (what, octets, expected) in later_packets() {
        let mut stream = connected(&client, &hello);
        let said = answer(&mut stream, &octets);
        if !expected.contains(&said) {
            wrong.push(format!("{what}: {said:x?}, not one of {expected:x?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(client.admitted());
}

#[test]
fn wrong_packet_of_version_3_ends_the_connection_without_a_word() {
    let broker = Broker::start();
    let client = broker.client(&broker.identity("device-a1"), Version::V13);
    let hello = connect(4, 2, &[], ID);
    let mut wrong = Vec::new();
    for (what, octets) in later_packets_of_version_3() {
        let mut stream = connected(&client, &hello);
        let said = answer(&mut stream, &octets);
        if said != Says::Nothing {
            wrong.push(format!("{what}: {said:x?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(client.admitted());
}
