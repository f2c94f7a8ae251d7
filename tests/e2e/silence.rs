//! Clients that connect and say nothing, or not enough.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::harness::{Broker, DEADLINE, wait_until};

#[test]
fn silent_clients_delay_nobody() {
    let broker = Broker::start();
    let open = || TcpStream::connect(broker.mqtt).unwrap();
    let silent: Vec<_> = (0..100).map(|_| open()).collect();
    let half: Vec<_> = (0..300)
        .map(|_| {
            let mut socket = open();
            // A TLS record that announces 512 octets and stops.
            socket.write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
            socket
        })
        .collect();
    let start = Instant::now();
    for device in ["device-a1", "device-b1"] {
        for _ in 0..5 {
            assert!(broker.admits(&broker.identity(device)));
        }
    }
    // Ten connections one after the other; a broker that waits for one silent client takes as
    // long as its handshake limit.
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "{:?}",
        start.elapsed()
    );
    drop((silent, half));
}

#[test]
fn silent_client_is_dropped_in_the_end() {
    let broker = Broker::start();
    let mut socket = TcpStream::connect(broker.mqtt).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut rest = Vec::new();
    // The end of the stream or a reset, but no silence for ever.
    if let Err(error) = socket.read_to_end(&mut rest) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
}

#[test]
fn client_without_connect_is_dropped_in_the_end() {
    let broker = Broker::start();
    let client = broker.client(&broker.identity("device-a1"), crate::harness::Version::V13);
    let mut stream = client.handshake().unwrap();
    let end = stream.read().unwrap_err();
    assert_ne!(end, crate::harness::End::Silent);
}

#[test]
fn clients_that_vanish_during_the_handshake_leave_nothing() {
    let broker = Broker::start();
    let a1 = broker.identity("device-a1");
    for _ in 0..20 {
        let client = broker.client(&a1, crate::harness::Version::V13);
        drop(client.with_small_records().hold_before_finished());
        drop(TcpStream::connect(broker.mqtt).unwrap());
    }
    wait_until("a device gets in", || broker.admits(&a1).then_some(()));
}
