//! One address floods, and the others are served.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::harness::fleet::{Fleet, Setup};
use crate::harness::tls::{Identity, TlsClient, Version, connect_from};
use crate::harness::wait_until;

const A: &str = "post-cn-a";
const FLOOD: &str = "127.0.0.2";
const HONEST: &str = "127.0.0.3";

fn one(more: &str) -> (Fleet, Identity) {
    let setup = Setup::new().instance(A, "owner-a", "127.0.0.1:0", &[]);
    let fleet = setup.with(more).start();
    let (_, device) = fleet.device(A);
    (fleet, device)
}

fn client(fleet: &Fleet, identity: &Identity, from: &str) -> TlsClient {
    let client = fleet.client(A, "localhost", identity, Version::V13);
    client.coming_from(from)
}

/// Connections from there that say this, and nothing more.
fn flood(fleet: &Fleet, from: &str, connections: usize, said: &[u8]) -> Vec<TcpStream> {
    let from: IpAddr = from.parse().unwrap();
    let sockets = (0..connections).map(|_| {
        let mut socket = connect_from(from, fleet.address(A));
        // Those that are too many may be closed already.
        let _ = socket.write_all(said);
        socket
    });
    sockets.collect()
}

fn unserved(fleet: &Fleet, reason: &str) -> u64 {
    fleet.counter(&format!(
        "portcullis_mqtt_connections_unserved_total{{reason=\"{reason}\"}}"
    ))
}

/// A TLS record that announces 512 octets and stops.
const HALF_A_RECORD: [u8; 6] = [22, 3, 1, 2, 0, 1];

#[test]
fn half_open_handshakes_of_one_address_keep_no_other_out() {
    let (fleet, device) = one(
        "[tls]\nmax_concurrent_handshakes = 8\nmax_handshakes_per_address = 4\n\
         handshake_timeout_seconds = 60\n",
    );
    let held = flood(&fleet, FLOOD, 100, &HALF_A_RECORD);
    let start = Instant::now();
    for _ in 0..10 {
        assert!(client(&fleet, &device, HONEST).admitted());
    }
    // With all turns taken it would be a minute.
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "{:?}",
        start.elapsed()
    );
    // A device behind the flooding address waits; it is not refused.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| client(&fleet, &device, FLOOD).admitted());
        assert!(client(&fleet, &device, HONEST).admitted());
        assert!(!waiting.is_finished());
        drop(held);
        assert!(waiting.join().unwrap());
    });
}

#[test]
fn connections_of_one_address_leave_places_for_others() {
    let (fleet, device) = one("[mqtt]\nmax_connections = 40\nmax_connections_per_address = 20\n");
    let silent = flood(&fleet, FLOOD, 60, &[]);
    wait_until("those that are too many are closed", || {
        (unserved(&fleet, "address_connections") == 40).then_some(())
    });
    let mut sessions: Vec<_> = (0..15)
        .map(|_| client(&fleet, &device, HONEST).connect().unwrap())
        .collect();
    for session in &mut sessions {
        session.ping().unwrap();
    }
    assert!(!client(&fleet, &device, FLOOD).admitted());
    fleet.broker.wait_log("the first of them", |line| {
        line.contains("reason=\"address_connections\"") && line.contains("client.addr=127.0.0.2:")
    });
    // Places that were given back are there for the address again.
    drop(silent);
    wait_until("the address has places again", || {
        client(&fleet, &device, FLOOD).admitted().then_some(())
    });
    assert_eq!(
        fleet.counter("portcullis_mqtt_connections_over_limit_total"),
        0
    );
}

#[test]
fn flood_is_told_of_once_and_counted_whole() {
    let (mut fleet, device) = one("[mqtt]\nmax_connections_per_address = 1\n");
    let held = client(&fleet, &device, FLOOD).connect().unwrap();
    for mut socket in flood(&fleet, FLOOD, 50, &[]) {
        // The end of the stream, or a reset.
        let _ = socket.read_to_end(&mut Vec::new());
    }
    assert_eq!(unserved(&fleet, "address_connections"), 50);
    drop(held);
    fleet.broker.process().terminate();
    fleet.broker.process().wait_exit();
    let log = fleet.broker.process().stderr();
    let told = log
        .iter()
        .filter(|line| line.contains("address_connections"));
    assert!((1..5).contains(&told.count()), "{log:#?}");
}

#[test]
fn address_that_comes_too_often_is_slowed_down_and_others_are_not() {
    let (fleet, device) = one("[mqtt]\nmax_connects_per_second_per_address = 1\n");
    let start = Instant::now();
    let admitted = |from| {
        let attempts = (0..30).filter(|_| client(&fleet, &device, from).admitted());
        attempts.count() as u64
    };
    let of_flood = admitted(FLOOD);
    let permitted = 10 + start.elapsed().as_secs() + 1;
    assert!(
        (10..=permitted).contains(&of_flood),
        "{of_flood} of {permitted}"
    );
    assert_eq!(unserved(&fleet, "address_rate"), 30 - of_flood);
    assert!(client(&fleet, &device, HONEST).admitted());
    wait_until("the address may come again", || {
        client(&fleet, &device, FLOOD).admitted().then_some(())
    });
}

#[test]
fn fleet_behind_one_address_comes_all_at_once_by_default() {
    let (fleet, device) = one("");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..25 {
                    assert!(client(&fleet, &device, FLOOD).admitted());
                }
            });
        }
    });
    for reason in ["address_connections", "address_rate"] {
        assert_eq!(unserved(&fleet, reason), 0);
    }
}
