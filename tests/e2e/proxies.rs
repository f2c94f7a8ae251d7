//! Clients behind a load balancer that tells their addresses with the PROXY protocol.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ppp::v2::{Addresses, Builder, Command, Protocol, Version as Header};

use crate::harness::DEADLINE;
use crate::harness::fleet::{Fleet, Setup};
use crate::harness::pki::Ca;
use crate::harness::tls::{Identity, TlsClient, Version, connect_from};

const A: &str = "post-cn-a";
const ANY: &str = "127.0.0.1:0";

/// An instance behind proxies at 127.0.0.1, and a device of it.
fn behind_proxies(more: &str) -> (Fleet, Identity) {
    let fleet = Setup::new()
        .instance(A, "owner-a", ANY, &[])
        .also("websocket_listen = \"127.0.0.1:0\"")
        .also("proxy_protocol = \"v2\"\nproxy_trusted = [\"127.0.0.1\", \"127.1.0.0/16\"]")
        .with(more)
        .start();
    let (_, device) = fleet.device(A);
    (fleet, device)
}

fn header(command: Command, addresses: impl Into<Addresses>) -> Vec<u8> {
    let builder = Builder::with_addresses(Header::Two | command, Protocol::Stream, addresses);
    // What a balancer says of certificates: a verified one of "admin".
    let tls = [7, 0, 0, 0, 0, 0x22, 0, 5, b'a', b'd', b'm', b'i', b'n'];
    builder
        .write_tlv(0x20u8, &tls[..])
        .unwrap()
        .build()
        .unwrap()
}

/// The header of a connection that comes from there.
fn from(client: &str) -> Vec<u8> {
    let client: SocketAddr = client.parse().unwrap();
    let server = match client {
        SocketAddr::V4(_) => "192.0.2.1:8883",
        SocketAddr::V6(_) => "[2001:db8::1]:8883",
    };
    let server: SocketAddr = server.parse().unwrap();
    header(Command::Proxy, (client, server))
}

fn client(fleet: &Fleet, identity: &Identity, header: &[u8]) -> TlsClient {
    let client = fleet.client(A, "localhost", identity, Version::V13);
    client.beginning_with(header)
}

fn unserved(fleet: &Fleet, reason: &str) -> u64 {
    fleet.counter(&format!(
        "portcullis_mqtt_connections_unserved_total{{reason=\"{reason}\"}}"
    ))
}

#[test]
fn log_has_the_address_that_the_proxy_tells() {
    let (fleet, device) = behind_proxies("");
    let stranger = Ca::root("unknown").device("stranger");
    for (header, address) in [
        (from("198.51.100.7:40001"), "198.51.100.7:40001"),
        (from("[2001:db8::7]:40002"), "[2001:db8::7]:40002"),
        // The proxy looks whether the broker is there.
        (header(Command::Local, Addresses::Unspecified), "127.0.0.1:"),
    ] {
        let mut session = client(&fleet, &device, &header).connect().unwrap();
        session.ping().unwrap();
        drop(session);
        let told = format!("client.addr={address}");
        fleet.broker.wait_log("the end of the session", |line| {
            line.contains("client disconnected") && line.contains(&told)
        });
        client(&fleet, &stranger, &header).refusal();
        fleet.broker.wait_log("the refusal", |line| {
            line.contains("reason=\"unknown_ca\"") && line.contains(&told)
        });
    }
    let websocket = client(&fleet, &device, &from("198.51.100.8:40003"));
    let websocket = websocket.going_to(fleet.websocket(A));
    drop(websocket.connect_websocket().unwrap());
    fleet.broker.wait_log("the end of the session", |line| {
        line.contains("client disconnected") && line.contains("client.addr=198.51.100.8:40003")
    });
}

#[test]
fn what_begins_without_a_header_is_closed_and_counted() {
    let (fleet, device) = behind_proxies("");
    let good = from("198.51.100.7:40000");
    let mut long = good.clone();
    long[14] = 0xff;
    let mut unknown = good.clone();
    unknown[13] = 0x51;
    let malformed = [
        &b""[..],
        b"PROXY TCP4 198.51.100.7 192.0.2.1 40000 8883\r\n",
        b"\r\n\r\n\0\r\nQUIT\r",
        &long,
        &unknown,
    ];
    for (number, octets) in malformed.into_iter().enumerate() {
        assert!(!client(&fleet, &device, octets).admitted(), "{octets:?}");
        assert_eq!(
            unserved(&fleet, "proxy_header"),
            number as u64 + 1,
            "{octets:?}"
        );
    }
    // Told once, though there were several.
    fleet.broker.wait_log("the first of them", |line| {
        line.contains("reason=\"proxy_header\"") && line.contains("untold=0")
    });
    // Those that only look whether somebody listens are no event.
    drop(TcpStream::connect(fleet.address(A)).unwrap());
    assert!(client(&fleet, &device, &good).admitted());
    assert_eq!(unserved(&fleet, "proxy_header"), malformed.len() as u64);
}

#[test]
fn header_from_elsewhere_is_not_believed() {
    let (fleet, device) = behind_proxies("");
    for (proxy, trusted) in [
        ("127.0.0.1", true),
        ("127.0.0.2", false),
        ("127.1.2.3", true),
        ("127.2.0.1", false),
    ] {
        let before = unserved(&fleet, "untrusted_proxy");
        let client = client(&fleet, &device, &from("198.51.100.7:40000"));
        assert_eq!(client.coming_from(proxy).admitted(), trusted, "{proxy}");
        let after = unserved(&fleet, "untrusted_proxy");
        assert_eq!(after - before, u64::from(!trusted), "{proxy}");
    }
}

#[test]
fn half_a_header_delays_nobody_and_is_dropped_in_the_end() {
    let (fleet, device) =
        behind_proxies("[tls]\nmax_concurrent_handshakes = 2\nhandshake_timeout_seconds = 10\n");
    let good = from("198.51.100.7:40000");
    let half: Vec<_> = (0..20)
        .map(|number| {
            let source: IpAddr = "127.0.0.1".parse().unwrap();
            let mut socket = connect_from(source, fleet.address(A));
            socket.write_all(&good[..number % good.len()]).unwrap();
            socket
        })
        .collect();
    let start = Instant::now();
    for _ in 0..5 {
        assert!(client(&fleet, &device, &good).admitted());
    }
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    for mut socket in half {
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        if let Err(error) = socket.read_to_end(&mut Vec::new()) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
    }
    assert_eq!(unserved(&fleet, "proxy_timeout"), 20);
}

#[test]
fn limits_for_an_address_hold_for_the_client_and_not_for_the_proxy() {
    let (fleet, device) = behind_proxies("[mqtt]\nmax_connections_per_address = 1\n");
    let connect = |address| client(&fleet, &device, &from(address)).connect();
    let one = connect("198.51.100.7:40000").unwrap();
    let two = connect("198.51.100.8:40000").unwrap();
    let three = connect("[2001:db8:0:1::7]:40000").unwrap();
    assert!(connect("198.51.100.7:40001").is_err());
    assert!(connect("[2001:db8:0:1:ffff::8]:40000").is_err());
    assert_eq!(unserved(&fleet, "address_connections"), 2);
    drop((one, two, three));
}

#[test]
fn header_is_taken_before_a_name_chooses_the_instance() {
    let keys = "proxy_protocol = \"v2\"\nproxy_trusted = [\"127.0.0.1\"]";
    let fleet = Setup::new()
        .instance(A, "owner-a", ANY, &["a.example"])
        .also(keys)
        .instance("post-cn-b", "owner-b", ANY, &["b.example"])
        .also(keys)
        .start();
    for (instance, name) in [(A, "a.example"), ("post-cn-b", "b.example")] {
        let (_, device) = fleet.device(instance);
        let client = fleet.client(A, name, &device, Version::V13);
        let client = client.beginning_with(&from("198.51.100.7:40000"));
        assert!(client.admitted(), "{name}");
    }
}
