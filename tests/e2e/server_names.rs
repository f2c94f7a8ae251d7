//! Which instance of an address a client is led to, and what becomes of those led nowhere.

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, HandshakeKind, NamedGroup};

use crate::harness::fleet::{Fleet, Setup, free_address};
use crate::harness::pki::Ca;
use crate::harness::process::{Finished, Process};
use crate::harness::tls::{BOTH, Identity, Version};
use crate::harness::wait_until;

const A: &str = "post-cn-a";
const B: &str = "post-cn-b";
const ANY: &str = "127.0.0.1:0";

/// A CA registered at the instance, and a device of it.
fn device(fleet: &Fleet, instance: &str) -> Identity {
    let ca = Ca::root(&format!("a CA of {instance}"));
    fleet.api(instance).register("a CA", &ca);
    ca.device("device")
}

/// Two instances at one address, with a name each, and a device of each.
fn two(more: &str) -> (Fleet, Identity, Identity) {
    let fleet = Setup::new()
        .instance(A, "owner-a", ANY, &["a.example"])
        .instance(B, "owner-b", ANY, &["b.example"])
        .with(more)
        .start();
    let (a, b) = (device(&fleet, A), device(&fleet, B));
    (fleet, a, b)
}

#[test]
fn exact_name_goes_before_a_wildcard_which_covers_one_label() {
    let fleet = Setup::new()
        .instance(A, "owner-a", ANY, &["*.plants.example"])
        .instance(B, "owner-b", ANY, &["seven.plants.example", "b.example"])
        .start();
    let (a, b) = (device(&fleet, A), device(&fleet, B));
    for version in BOTH {
        for (name, home, stranger) in [
            ("six.plants.example", &a, &b),
            ("SIX.Plants.Example", &a, &b),
            ("seven.plants.example", &b, &a),
            ("Seven.PLANTS.example", &b, &a),
            ("b.example", &b, &a),
        ] {
            assert!(fleet.client(A, name, home, version).admitted(), "{name}");
            let client = fleet.client(A, name, stranger, version);
            client.refused_with(AlertDescription::UnknownCA);
        }
        for name in ["plants.example", "x.six.plants.example", "a.b.example"] {
            let client = fleet.client(A, name, &a, version);
            client.refused_with(AlertDescription::UnrecognisedName);
        }
    }
}

#[test]
fn client_of_no_instance_is_refused_with_the_right_alert_logged_once_and_counted() {
    let (mut fleet, a, _) = two("");
    let outcomes = ["unknown_server_name", "no_server_name"]
        .map(|outcome| format!("portcullis_handshakes_total{{outcome=\"{outcome}\"}}"));
    for (round, version) in BOTH.into_iter().enumerate() {
        let client = fleet.client(A, "C.example", &a, version);
        client.refused_with(AlertDescription::UnrecognisedName);
        let client = fleet.client(A, "a.example", &a, version).asking_for_none();
        client.refused_with(AlertDescription::MissingExtension);
        for outcome in &outcomes {
            wait_until(outcome, || {
                (fleet.counter(outcome) == round as u64 + 1).then_some(())
            });
        }
    }
    assert!(fleet.client(A, "a.example", &a, Version::V13).admitted());
    for outcome in &outcomes {
        assert_eq!(fleet.counter(outcome), BOTH.len() as u64, "{outcome}");
    }
    fleet.broker.process().terminate();
    fleet.broker.process().wait_exit();
    let log = fleet.broker.process().stderr();
    let told = |wanted: &str| log.iter().filter(|line| line.contains(wanted)).count();
    assert_eq!(told("reason=\"unknown_server_name\""), 2, "{log:#?}");
    assert_eq!(told("tls.server_name=\"c.example\""), 2, "{log:#?}");
    assert_eq!(told("reason=\"no_server_name\""), 2, "{log:#?}");
}

#[test]
fn instance_that_is_alone_serves_only_its_names() {
    let fleet = Setup::new()
        .instance(A, "owner-a", ANY, &["a.example"])
        .start();
    let a = device(&fleet, A);
    for version in BOTH {
        assert!(fleet.client(A, "a.example", &a, version).admitted());
        let client = fleet.client(A, "localhost", &a, version);
        client.refused_with(AlertDescription::UnrecognisedName);
        let client = fleet.client(A, "a.example", &a, version).asking_for_none();
        client.refused_with(AlertDescription::MissingExtension);
    }
}

#[test]
fn instance_without_names_takes_the_rest() {
    let shared = free_address();
    let fleet = Setup::new()
        .instance(A, "owner-a", &shared, &["a.example"])
        .instance_certified_for(B, "owner-b", &shared, &[], &["b.example", "c.example"])
        .start();
    let (a, b) = (device(&fleet, A), device(&fleet, B));
    for version in BOTH {
        assert!(fleet.client(A, "a.example", &a, version).admitted());
        for client in [
            fleet.client(B, "b.example", &b, version),
            fleet.client(B, "c.example", &b, version),
            fleet.client(B, "b.example", &b, version).asking_for_none(),
        ] {
            assert!(client.admitted());
        }
        for client in [
            fleet.client(A, "a.example", &b, version),
            fleet.client(B, "b.example", &a, version),
            fleet.client(B, "b.example", &a, version).asking_for_none(),
        ] {
            client.refused_with(AlertDescription::UnknownCA);
        }
    }
}

/// `mosquitto_pub` or `mosquitto_sub` with the host that it connects to and asks for.
fn mosquitto(
    tool: &str,
    host: &str,
    fleet: &Fleet,
    files: &(impl AsRef<Path>, impl AsRef<Path>),
) -> Command {
    let mut command = Command::new("stdbuf");
    command
        .args(["-oL", tool, "-h", host, "-t", "plant/x", "-q", "1"])
        .args(["-p", &fleet.address(A).port().to_string()])
        .arg("--cafile")
        .arg(fleet.server_ca())
        .arg("--cert")
        .arg(files.0.as_ref())
        .arg("--key")
        .arg(files.1.as_ref());
    command
}

#[test]
fn mosquitto_is_led_to_the_instance_of_its_host_name() {
    let shared = free_address();
    // The tools ask for the host they are given. An address is not asked for.
    let fleet = Setup::new()
        .instance(A, "owner-a", &shared, &["localhost"])
        .instance_certified_for(B, "owner-b", &shared, &[], &["b.example"])
        .start();
    let (a, b) = (device(&fleet, A), device(&fleet, B));
    let files = [("a", &a), ("b", &b)].map(|(name, it)| fleet.write_identity(name, it));
    let publish = |host: &str, device: usize, payload: &str| -> Finished {
        let mut command = mosquitto("mosquitto_pub", host, &fleet, &files[device]);
        // The name of B's certificate is not the address that B is reached by.
        command.args(["--insecure", "-m", payload]);
        Process::spawn(&mut command).finish()
    };
    let listening = [("localhost", 0), ("127.0.0.1", 1)].map(|(host, device)| {
        let mut command = mosquitto("mosquitto_sub", host, &fleet, &files[device]);
        let process = Process::spawn(command.args(["--insecure", "-d", "-F", "message:%p"]));
        process.wait_stdout("SUBACK", |line| line.contains("SUBACK").then_some(()));
        process
    });
    for (host, device, payload) in [("localhost", 0, "for A"), ("127.0.0.1", 1, "for B")] {
        let done = publish(host, device, payload);
        assert_eq!(done.code, 0, "{done:?}");
        assert_ne!(publish(host, 1 - device, "nobody's").code, 0);
        let messages = listening[device]
            .wait_stdout_lines("a message", 1, |line| line.starts_with("message:"));
        assert_eq!(messages, [format!("message:{payload}")]);
    }
}

/// Keeps sessions for one server, whatever the client calls it.
#[derive(Debug)]
struct AnyName(ClientSessionMemoryCache);

impl AnyName {
    fn name() -> ServerName<'static> {
        ServerName::try_from("any.example").unwrap()
    }
}

impl ClientSessionStore for AnyName {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(Self::name(), group);
    }
    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(&Self::name())
    }
    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(Self::name(), value);
    }
    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(&Self::name())
    }
    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&Self::name());
    }
    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(Self::name(), value);
    }
    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&Self::name())
    }
}

#[test]
fn session_of_one_instance_is_no_way_into_another() {
    let (fleet, a, b) = two("");
    let files = [A, B].map(|it| {
        (
            fleet.file(&format!("{it}.pem")),
            fleet.file(&format!("{it}.key")),
        )
    });
    for version in BOTH {
        for (device, home, away, files) in [
            (&a, "a.example", "b.example", &files[0]),
            (&b, "b.example", "a.example", &files[1]),
        ] {
            let store = Arc::new(AnyName(ClientSessionMemoryCache::new(8)));
            let client = fleet.client(A, home, device, version);
            let client = client.keeping_sessions_in(store);
            for _ in 0..3 {
                let mut session = client.connect().unwrap();
                session.ping().unwrap();
                assert_eq!(session.kind(), HandshakeKind::Full);
                let client = client.asking_for(away);
                client.refused_with(AlertDescription::UnknownCA);
            }
            // The instances give nothing to resume. A session that another server gave is offered.
            let ordinary = crate::resumption::ordinary_server(&files.0, &files.1);
            let there = client.asking_for(home).going_to(ordinary);
            for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
                let mut stream = there.handshake().unwrap();
                stream.read().unwrap();
                assert_eq!(stream.kind(), kind);
            }
            let client = client.asking_for(away);
            client.refused_with(AlertDescription::UnknownCA);
        }
    }
}

/// Connect and send these octets, over and over.
fn stuck(fleet: &Fleet, count: usize, octets: &[u8]) -> Vec<TcpStream> {
    let connect = |_| {
        let mut socket = TcpStream::connect(fleet.address(A)).unwrap();
        socket.write_all(octets).unwrap();
        socket
    };
    (0..count).map(connect).collect()
}

/// The ClientHello of a client that asks for A, up to the middle.
fn half_a_hello(fleet: &Fleet, device: &Identity) -> Vec<u8> {
    let client = fleet.client(A, "a.example", device, Version::V13);
    let mut hello = client.hello();
    hello.truncate(hello.len() / 2);
    hello
}

#[test]
fn clients_that_do_not_finish_the_hello_delay_nobody() {
    let (fleet, a, b) = two("");
    let silent = stuck(&fleet, 100, &[]);
    let half = stuck(&fleet, 300, &half_a_hello(&fleet, &a));
    let start = Instant::now();
    for _ in 0..5 {
        assert!(fleet.client(A, "a.example", &a, Version::V13).admitted());
        assert!(fleet.client(B, "b.example", &b, Version::V13).admitted());
    }
    // A broker that waits for one of them takes as long as its handshake limit.
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "{:?}",
        start.elapsed()
    );
    drop((silent, half));
}

#[test]
fn half_a_hello_takes_no_handshake_of_an_instance_and_is_dropped_in_the_end() {
    let (fleet, a, b) =
        two("[tls]\nmax_concurrent_handshakes = 4\nhandshake_timeout_seconds = 2\n");
    // All who may be saying what they want are stuck: others wait for them, but not for ever.
    let half = stuck(&fleet, 4, &half_a_hello(&fleet, &a));
    for (name, device) in [("a.example", &a), ("b.example", &b)] {
        assert!(fleet.client(A, name, device, Version::V13).admitted());
    }
    let timeouts = "portcullis_handshakes_total{outcome=\"timeout\"}";
    wait_until("all are dropped", || {
        (fleet.counter(timeouts) == 4).then_some(())
    });
    drop(half);
}

#[test]
fn handshakes_held_open_at_one_instance_do_not_delay_another() {
    let (fleet, a, b) =
        two("[tls]\nmax_concurrent_handshakes = 4\nhandshake_timeout_seconds = 60\n");
    let client = |name, device| {
        fleet
            .client(A, name, device, Version::V13)
            .with_small_records()
    };
    let mut held: Vec<_> = (0..4)
        .map(|_| client("a.example", &a).hold_before_finished())
        .collect();
    for _ in 0..6 {
        assert!(client("b.example", &b).admitted());
    }
    // One more of A waits for its turn there.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| client("a.example", &a).admitted());
        assert!(client("b.example", &b).admitted());
        assert!(!waiting.is_finished());
        assert!(held.pop().unwrap().release().is_ok());
        assert!(waiting.join().unwrap());
    });
}

#[test]
fn connections_of_one_instance_do_not_count_at_another() {
    let (fleet, a, b) = two("[mqtt]\nmax_connections = 3\n[tls]\nhandshake_timeout_seconds = 5\n");
    let over_limit = "portcullis_mqtt_connections_over_limit_total";
    let client = |name, device| fleet.client(A, name, device, Version::V13);
    let mut at_a: Vec<_> = (0..3)
        .map(|_| client("a.example", &a).connect().unwrap())
        .collect();
    assert!(!client("a.example", &a).admitted());
    assert_eq!(fleet.counter(over_limit), 1);
    assert!(client("b.example", &b).admitted());

    // Those that have not said which instance they want have a limit of their own.
    let silent = stuck(&fleet, 3, &[]);
    wait_until("one too many is closed", || {
        (!client("b.example", &b).admitted()).then_some(())
    });
    for session in &mut at_a {
        session.ping().unwrap();
    }
    wait_until("the silent ones are dropped", || {
        client("b.example", &b).admitted().then_some(())
    });
    drop(silent);
}

#[test]
fn name_that_the_server_certificate_lacks_is_warned_of_at_the_start() {
    let mut fleet = Setup::new()
        .instance_certified_for(
            A,
            "owner-a",
            ANY,
            &[
                "a.example",
                "*.plants.example",
                "missing.example",
                "*.a.example",
            ],
            &["a.example", "*.plants.example", "x.a.example"],
        )
        .instance(B, "owner-b", ANY, &["b.example"])
        .start();
    let log = fleet.broker.process().stderr();
    let warned: Vec<_> = log
        .iter()
        .filter(|line| line.contains("WARN") && line.contains("server_name="))
        .collect();
    assert_eq!(warned.len(), 2, "{log:#?}");
    for name in ["missing.example", "*.a.example"] {
        let told = format!("server_name={name} ");
        assert!(warned.iter().any(|line| line.contains(&told)), "{log:#?}");
    }
}

#[test]
fn start_tells_every_instance_with_address_and_names() {
    let shared = free_address();
    let mut fleet = Setup::new()
        .instance(A, "owner-a", &shared, &["a.example", "*.Plants.example"])
        .instance(B, "owner-b", &shared, &[])
        .instance("post-cn-c", "owner-b", ANY, &[])
        .start();
    let own = fleet.address("post-cn-c");
    let banner = fleet.broker.process().stdout().join("\n");
    let told = format!(
        "  Instance        {A}
  MQTT over TLS   mqtts://{shared}
  Server names    a.example, *.plants.example
  Instance        {B}
  MQTT over TLS   mqtts://{shared}
  Server names    all others
  Instance        post-cn-c
  MQTT over TLS   mqtts://{own}
  Admin API "
    );
    assert!(banner.contains(&told), "{banner}");
}
