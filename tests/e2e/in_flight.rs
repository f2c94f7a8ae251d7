//! A handshake that is under way while its CA is inactivated.

use crate::harness::Broker;
use crate::harness::tls::{BOTH, Version};

#[test]
fn handshake_held_open_across_an_inactivation_does_not_complete() {
    let broker = Broker::start();
    let api = broker.api();
    let sn = api.sn_of("ca-a");
    let (a1, b1) = (broker.identity("device-a1"), broker.identity("device-b1"));
    for version in BOTH {
        let hold = |identity| {
            let client = broker.client(identity, version).with_small_records();
            client.hold_before_finished()
        };
        let held: Vec<_> = (0..8).map(|_| hold(&a1)).collect();
        let watched = (version == Version::V12).then(|| hold(&a1));
        let others: Vec<_> = (0..2).map(|_| hold(&b1)).collect();
        // The broker has read what the clients sent by the time it has answered others.
        for _ in 0..3 {
            assert!(broker.admits(&b1));
        }

        api.inactivate(&sn);
        for held in held {
            if held.release().is_ok() {
                panic!("{version:?}: a handshake of an inactive CA completed");
            }
        }
        if let Some(watched) = watched {
            assert!(!watched.completes(), "the server's Finished was sent");
        }
        for other in others {
            assert!(other.release().is_ok(), "{version:?}: the other CA");
        }
        api.activate(&sn);
    }
}

/// The scenario above means something only if such a handshake completes otherwise.
#[test]
fn handshake_held_open_completes_when_nothing_happens() {
    let broker = Broker::start();
    let a1 = broker.identity("device-a1");
    for version in BOTH {
        let client = broker.client(&a1, version).with_small_records();
        let mut session = client.hold_before_finished().release().unwrap();
        session.ping().unwrap();
    }
    let client = broker.client(&a1, Version::V12).with_small_records();
    assert!(client.hold_before_finished().completes());
}

#[test]
fn handshake_done_but_not_connected_is_cut_by_an_inactivation() {
    let broker = Broker::start();
    let api = broker.api();
    let a1 = broker.identity("device-a1");
    let streams: Vec<_> = (0..4)
        .map(|_| broker.client(&a1, Version::V12).handshake().unwrap())
        .collect();
    api.inactivate(&api.sn_of("ca-a"));
    for stream in streams {
        use crate::harness::mqtt::Mqtt;
        assert!(
            Mqtt::connect(stream, Mqtt::hello("")).is_err(),
            "CONNACK after the CA was inactivated"
        );
    }
}
