use ppp::v2::{Builder, Version};
use proptest::prelude::*;

use super::*;

fn header(command: Command, protocol: Protocol, addresses: impl Into<Addresses>) -> Vec<u8> {
    let builder = Builder::with_addresses(Version::Two | command, protocol, addresses);
    builder.build().unwrap()
}

fn v4() -> (SocketAddr, SocketAddr) {
    let (client, server) = ("198.51.100.7:40000", "192.0.2.1:8883");
    (client.parse().unwrap(), server.parse().unwrap())
}

fn v6() -> (SocketAddr, SocketAddr) {
    let (client, server) = ("[2001:db8::7]:40000", "[2001:db8::1]:8883");
    (client.parse().unwrap(), server.parse().unwrap())
}

/// What is read of these octets, and which are left.
fn read(mut octets: &[u8]) -> (Result<Option<SocketAddr>, NoHeader>, &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let read = runtime.unwrap().block_on(read_header(&mut octets));
    (read, octets)
}

#[test]
fn header_tells_the_client_and_leaves_what_follows() {
    for addresses in [v4(), v6()] {
        let mut octets = header(Command::Proxy, Protocol::Stream, addresses);
        octets.extend([0x16, 3, 1]);
        let (client, left) = read(&octets);
        assert_eq!(client.unwrap(), Some(addresses.0));
        assert_eq!(left, [0x16, 3, 1]);
    }
}

#[test]
fn what_is_added_to_the_addresses_is_skipped() {
    // Client certificate shown and verified, common name "admin": of no interest here.
    let certificate = [7, 0, 0, 0, 0, 0x22, 0, 5, b'a', b'd', b'm', b'i', b'n'];
    let builder = Builder::with_addresses(Version::Two | Command::Proxy, Protocol::Stream, v4());
    let builder = builder.write_tlv(0x20u8, &certificate[..]).unwrap();
    let mut octets = builder
        .write_tlv(0xeau8, &[1; 300][..])
        .unwrap()
        .build()
        .unwrap();
    octets.push(0x16);
    let (client, left) = read(&octets);
    assert_eq!((client.unwrap(), left), (Some(v4().0), &[0x16][..]));
}

#[test]
fn proxy_that_speaks_for_itself_or_does_not_tell_is_the_client() {
    for octets in [
        header(
            Command::Local,
            Protocol::Unspecified,
            Addresses::Unspecified,
        ),
        header(Command::Local, Protocol::Stream, v4()),
        [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x20, 0xff, 0, 3, 1, 2, 3]].concat(),
        header(
            Command::Proxy,
            Protocol::Unspecified,
            Addresses::Unspecified,
        ),
        header(
            Command::Proxy,
            Protocol::Stream,
            ppp::v2::Unix::new([1; 108], [2; 108]),
        ),
    ] {
        let (client, left) = read(&octets);
        assert_eq!((client.unwrap(), left), (None, &[][..]), "{octets:x?}");
    }
}

#[test]
fn what_is_no_header_is_refused_without_waiting_for_more() {
    let good = header(Command::Proxy, Protocol::Stream, v4());
    let changed = |place: usize, octet: u8| {
        let mut octets = good.clone();
        octets[place] = octet;
        octets
    };
    let hello = [0x16, 3, 1, 2, 0, 1];
    for octets in [
        &hello[..],
        b"PROXY TCP4 198.51.100.7 192.0.2.1 40000 8883\r\n",
        b"GET / HTTP/1.1\r\n",
        &changed(4, 1),
        // Version, command, family, protocol, too few octets for the addresses.
        &changed(12, 0x11),
        &changed(12, 0x22),
        &changed(13, 0x41),
        &changed(13, 0x13),
        &changed(15, 11),
    ] {
        // The stream does not end: waiting for more would be for ever.
        let waiting = [octets, &[0; 4_096]].concat();
        let (client, _) = read(&waiting);
        assert!(
            matches!(client, Err(NoHeader::Malformed(_))),
            "{octets:x?} {client:?}"
        );
    }
    let (client, _) = read(&header(Command::Proxy, Protocol::Datagram, v4()));
    assert!(matches!(client, Err(NoHeader::Datagrams)), "{client:?}");
}

#[test]
fn header_that_is_too_long_is_not_read() {
    let mut octets = header(Command::Proxy, Protocol::Stream, v4());
    octets[14..16].copy_from_slice(&4_081u16.to_be_bytes());
    let (client, left) = read(&octets);
    assert!(
        matches!(client, Err(NoHeader::TooLong(4_081))),
        "{client:?}"
    );
    assert_eq!(left.len(), 12);
}

#[test]
fn header_that_ends_early_is_none() {
    let octets = header(Command::Proxy, Protocol::Stream, v6());
    assert!(matches!(read(&[]).0, Err(NoHeader::Closed)));
    for end in 1..octets.len() {
        assert!(
            matches!(read(&octets[..end]).0, Err(NoHeader::Broken(_))),
            "{end}"
        );
    }
}

#[test]
fn only_proxies_of_the_networks_are_trusted() {
    let networks = ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32"];
    let networks = networks.map(|it| it.parse().unwrap());
    let proxies = Proxies::Trusted(networks.to_vec());
    for (address, trusted) in [
        ("10.255.0.1", true),
        ("::ffff:10.255.0.1", true),
        ("11.0.0.1", false),
        ("192.0.2.1", true),
        ("192.0.2.2", false),
        ("2001:db8:ffff::1", true),
        ("2001:db9::1", false),
    ] {
        let address = address.parse().unwrap();
        assert_eq!(proxies.are_trusted_at(address), trusted, "{address}");
        assert!(!Proxies::None.are_trusted_at(address));
    }
}

proptest! {
    #[test]
    fn any_octets_are_a_header_or_none(octets: Vec<u8>, family in family(), rest: Vec<u8>) {
        let _ = read(&octets);
        let after = [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x21, family, 0], &[rest.len() as u8], &rest].concat();
        let _ = read(&after);
    }
}

/// Families and protocols, half of them such as exist.
fn family() -> impl Strategy<Value = u8> {
    let known = (0u8..4, 0u8..3).prop_map(|(family, protocol)| family << 4 | protocol);
    prop_oneof![known, any::<u8>()]
}
