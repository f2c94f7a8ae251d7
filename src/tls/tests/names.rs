//! A ClientHello that is read apart: what it chooses, and what becomes of bad ones.

use rustls::ClientConnection;
use tokio::time::Instant;

use super::*;
use crate::tls::gates::{GateName, Gates, NoGate};

/// The ClientHello of a client that asks for this name.
fn client_hello(config: Arc<ClientConfig>, name: &'static str) -> Vec<u8> {
    let name = ServerName::try_from(name).unwrap();
    let mut connection = ClientConnection::new(config, name).unwrap();
    let mut out = Vec::new();
    connection.write_tls(&mut out).unwrap();
    out
}

async fn read(bytes: &[u8]) -> Hello<DuplexStream> {
    let (mut near, far) = tokio::io::duplex(256 * 1024);
    near.write_all(bytes).await.unwrap();
    Hello::read(far, REMOTE, Duration::from_secs(5))
        .await
        .unwrap()
}

#[tokio::test]
async fn hello_tells_the_name_in_lower_case_and_an_address_is_none() {
    let gate = Gate::new();
    for version in BOTH {
        let config = gate.client(version, None);
        for (asked, told) in [
            ("IoT.Example.com", Some("iot.example.com")),
            ("192.0.2.1", None),
            ("2001:db8::1", None),
        ] {
            let hello = client_hello(Arc::clone(&config), asked);
            assert_eq!(read(&hello).await.server_name(), told, "{asked}");
        }
        // A client that sends an address in place of a name is taken for one that sends none.
        let mut hello = client_hello(config, "1a.example");
        let at = hello.windows(10).position(|w| w == b"1a.example").unwrap();
        hello[at..at + 10].copy_from_slice(b"100.20.0.1");
        assert_eq!(read(&hello).await.server_name(), None);
    }
}

#[tokio::test]
async fn client_that_no_gate_is_for_gets_the_alert_that_says_why() {
    let gate = Gate::new();
    let mut gates = Gates::new();
    let name: GateName = "iot.example.com".parse().unwrap();
    assert!(gates.add(&[name], ()).is_empty());
    for version in BOTH {
        let config = gate.client(version, None);
        for (asked, why, alert) in [
            ("other.example.com", NoGate::UnknownName, "UnrecognisedName"),
            ("192.0.2.1", NoGate::MissingName, "MissingExtension"),
        ] {
            let (near, far) = tokio::io::duplex(64 * 1024);
            let server = async {
                let hello = Hello::read(far, REMOTE, Duration::from_secs(5)).await;
                let hello = hello.unwrap();
                let no_gate = gates.choose(hello.server_name()).unwrap_err();
                hello.refuse(no_gate).await
            };
            let connector = TlsConnector::from(Arc::clone(&config));
            let asked = ServerName::try_from(asked).unwrap();
            let (error, seen) = tokio::join!(server, connector.connect(asked, near));
            assert!(matches!(error, AcceptError::NoGate(told) if told == why));
            let seen = seen.unwrap_err().to_string();
            assert!(seen.contains(alert), "{seen}");
        }
    }
}

/// A record of TLS.
fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut record = vec![kind, 3, 1];
    record.extend(u16::try_from(content.len()).unwrap().to_be_bytes());
    record.extend(content);
    record
}

/// A handshake message that claims this length, cut into records.
fn message(kind: u8, length: u32, content: &[u8]) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend(&length.to_be_bytes()[1..]);
    message.extend(content);
    let parts = message.chunks(16_000);
    parts.flat_map(|part| record(22, part)).collect()
}

/// What a server answers to these octets and silence after them: the kinds of its records, with
/// the content of alerts; and whether it gave up because of the octets, not the silence.
async fn answer(gate: &Gate, way: Way, bytes: &[u8]) -> (Vec<Vec<u8>>, bool) {
    let (mut near, far) = tokio::io::duplex(1 << 20);
    let server = tokio::spawn(gate.accept(way, far));
    near.write_all(bytes).await.unwrap();
    let mut all = Vec::new();
    near.read_to_end(&mut all).await.unwrap();
    let failed = match server.await.unwrap() {
        Err(AcceptError::Failed(_)) => true,
        Err(AcceptError::Timeout) => false,
        other => panic!("{other:?}"),
    };
    let mut rest = all.as_slice();
    let mut records = Vec::new();
    while let [kind, _, _, high, low, ..] = *rest {
        let (record, after) = rest.split_at(5 + usize::from(u16::from_be_bytes([high, low])));
        records.push(match kind {
            21 => record.to_vec(),
            _ => vec![kind],
        });
        rest = after;
    }
    (records, failed)
}

#[tokio::test(start_paused = true)]
async fn hostile_hello_is_answered_as_it_is_without_names() {
    let gate = Gate::new();
    let good = client_hello(gate.client(&version::TLS13, None), "localhost");
    let with = |change: fn(&mut Vec<u8>)| {
        let mut hello = good.clone();
        change(&mut hello);
        hello
    };
    let no_null_compression = with(|hello| {
        let suites = 44 + usize::from(hello[43]);
        let length = usize::from(u16::from_be_bytes([hello[suites], hello[suites + 1]]));
        hello[suites + 2 + length + 1] = 7;
    });
    let no_name = with(|hello| {
        let at = hello.windows(9).position(|w| w == b"localhost").unwrap();
        hello[at] = b' ';
    });
    let followed_by = |bytes: &[u8]| [good.as_slice(), bytes].concat();
    let cases = [
        ("nothing", Vec::new()),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        (
            "a record too large",
            [&[22, 3, 1, 0xff, 0xff][..], &[0; 70_000]].concat(),
        ),
        ("empty records", [22, 3, 1, 0, 0].repeat(100)),
        ("a message too large", message(1, 0xff_ffff, &[0; 100_000])),
        ("a message without end", message(1, 0xffff, &[0; 60_000])),
        ("ServerHello", message(2, 4, &[0; 4])),
        ("Finished", message(20, 12, &[0; 12])),
        ("an alert", record(21, &[2, 40])),
        ("application data", record(23, &[0; 64])),
        ("ChangeCipherSpec", record(20, &[1])),
        ("a heartbeat", record(24, &[1; 16])),
        ("half a ClientHello", good[..good.len() / 2].to_vec()),
        ("an empty ClientHello", message(1, 0, &[])),
        ("no null compression", no_null_compression),
        ("a name that is none", no_name),
        (
            "ClientHello and HTTP",
            followed_by(b"GET / HTTP/1.1\r\n\r\n"),
        ),
        ("ClientHello twice", followed_by(&good)),
        ("ClientHello, alert", followed_by(&record(21, &[2, 40]))),
        ("ClientHello, data", followed_by(&record(23, &[0; 64]))),
    ];
    for (what, bytes) in cases {
        let whole = answer(&gate, Way::Whole, &bytes).await;
        let apart = answer(&gate, Way::HelloFirst, &bytes).await;
        assert_eq!(apart, whole, "{what}");
    }
    assert!(gate.peers.is_empty());
}

#[tokio::test(start_paused = true)]
async fn half_a_hello_is_given_up_after_the_limit() {
    let gate = Gate::new();
    let hello = client_hello(gate.client(&version::TLS13, None), "localhost");
    let (mut near, far) = tokio::io::duplex(64 * 1024);
    near.write_all(&hello[..hello.len() / 2]).await.unwrap();
    let began = Instant::now();
    let read = Hello::read(far, REMOTE, Duration::from_secs(5)).await;
    assert!(matches!(read, Err(AcceptError::Timeout)));
    assert_eq!(began.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn limit_counts_from_the_beginning_of_the_hello() {
    let gate = Gate::with(Way::HelloFirst, Duration::from_secs(10));
    let hello = client_hello(gate.client(&version::TLS13, None), "localhost");
    let (mut near, far) = tokio::io::duplex(64 * 1024);
    let began = Instant::now();
    let reading = tokio::spawn(Hello::read(far, REMOTE, Duration::from_secs(10)));
    tokio::time::sleep(Duration::from_secs(4)).await;
    near.write_all(&hello).await.unwrap();
    let hello = reading.await.unwrap().unwrap();
    // It waits for its turn, and then for the client.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let result = gate.acceptor.accept_hello(hello).await;
    assert!(matches!(result, Err(AcceptError::Timeout)));
    assert_eq!(began.elapsed().as_secs(), 10);
}

#[tokio::test]
async fn hello_in_single_octets_is_read() {
    let gate = Gate::new();
    let hello = client_hello(gate.client(&version::TLS12, None), "localhost");
    let (mut near, far) = tokio::io::duplex(1);
    let reading = tokio::spawn(Hello::read(far, REMOTE, Duration::from_secs(20)));
    near.write_all(&hello).await.unwrap();
    let hello = reading.await.unwrap().unwrap();
    assert_eq!(hello.server_name(), Some("localhost"));
}
