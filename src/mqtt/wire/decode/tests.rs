use std::sync::Arc;

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::mqtt::bus::SessionKey;
use crate::mqtt::session::Session;
use crate::mqtt::session::message::SharedBudget;
use crate::mqtt::settings::{Limits, Overflow};

const CONNECTS: [&[u8]; 2] = [
    b"\x10\x1f\x00\x04MQTT\x04\xc6\x00\x3c\x00\x01c\x00\x01t\x00\x01m\x00\x01u\x00\x04pass\x00\x00",
    b"\x10\x30\x00\x04MQTT\x05\x06\x00\x3c\x05\x11\x00\x00\x00\x09\x00\x01c\x12\x18\x00\x00\x00\x05\x03\x00\x01x\x26\x00\x01k\x00\x02vv\x00\x01t\x00\x01m",
];

const PACKETS: [&[u8]; 12] = [
    b"\x30\x03\x00\x01a",
    b"\x32\x06\x00\x01a\x00\x01\x00",
    b"\x3d\x1a\x00\x05topic\x43\x21\x0b\x23\x00\x01\x03\x00\x01x\x08\x00\x00data",
    b"\x40\x02\x00\x01",
    b"\x50\x03\x00\x01\x10",
    b"\x62\x04\x00\x01\x00\x00",
    b"\x70\x02\x00\x01",
    b"\x82\x06\x00\x01\x00\x01a\x01",
    b"\x82\x0b\x00\x01\x02\x0b\x01\x00\x03a/#\x2d",
    b"\xa2\x06\x00\x01\x00\x00\x01a",
    b"\xc0\x00",
    b"\xe0\x07\x04\x05\x11\x00\x00\x00\x01",
];

/// Feed the octets, split anywhere, to a decoder and a session: nothing may panic, and no packet
/// may be larger than allowed. What is sent back must be decodable lengths.
fn feed(mut decoder: Decoder, chunks: &[Vec<u8>]) {
    let budget = Arc::new(SharedBudget::new(1 << 20));
    let limits = Arc::new(Limits::default());
    let mut session = Session::new(
        SessionKey(1),
        "c".into(),
        false,
        limits,
        Overflow::DropNewest,
        budget,
    );
    let mut buffer = BytesMut::new();
    for chunk in chunks {
        buffer.extend_from_slice(chunk);
        loop {
            match decoder.next(&mut buffer) {
                Ok(Some(Incoming::Connect(connect))) => session.connect(&connect, None, 5),
                Ok(Some(packet)) => {
                    if session.on_packet(packet, 1).is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert!(buffer.len() <= 4_096 + chunk.len());
        let mut out = BytesMut::new();
        session.transmit(1, &mut out, 1 << 16);
    }
}

fn connected(place: usize) -> Decoder {
    let mut decoder = Decoder::new(4_096);
    let plain: [&[u8]; 2] = [
        b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c",
        b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01c",
    ];
    let mut buffer = BytesMut::from(plain[place]);
    assert!(decoder.next(&mut buffer).unwrap().is_some());
    decoder
}

fn mutated(packet: &'static [u8]) -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<proptest::sample::Index>(), any::<u8>());
    proptest::collection::vec(change, 0..4).prop_map(move |changes| {
        let mut octets = packet.to_vec();
        for (place, octet) in changes {
            let place = place.index(octets.len());
            octets[place] = octet;
        }
        octets
    })
}

fn packets() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let one = proptest::sample::select(&PACKETS[..]).prop_flat_map(mutated);
    proptest::collection::vec(one, 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_octets_after_connect(version in 0usize..2, chunks: Vec<Vec<u8>>) {
        feed(connected(version), &chunks);
    }

    #[test]
    fn almost_good_packets_after_connect(version in 0usize..2, chunks in packets()) {
        feed(connected(version), &chunks);
    }

    #[test]
    fn almost_good_connects(
        octets in proptest::sample::select(&CONNECTS[..]).prop_flat_map(mutated),
        rest: Vec<u8>,
    ) {
        feed(Decoder::new(4_096), &[octets, rest]);
    }

    #[test]
    fn any_octets_before_connect(chunks: Vec<Vec<u8>>) {
        feed(Decoder::new(4_096), &chunks);
    }
}
