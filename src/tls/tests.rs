//! Handshakes in memory: who gets in, which alert the others see, and what a change of state does
//! to a handshake that is under way.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rcgen::SanType;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion, version};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_rustls::TlsConnector;

use crate::ca::crl::{CrlPolicy, Revocations};
use crate::ca::error::Refusal;
use crate::ca::id::InstanceId;
use crate::ca::lifecycle::Status;
use crate::ca::registry::Registry;
use crate::ca::topology::SameKey;
use crate::testing::crl::TestCrl;
use crate::testing::{TestCa, TestDevice, device_params, now_secs, registry};
use crate::tls::acceptor::{AcceptError, Accepted, GateAcceptor};
use crate::tls::hello::Hello;
use crate::tls::live::{Cut, LivePeer, LivePeers};
use crate::tls::server_config::{TlsVersions, provider, server_config};
use crate::tls::verifier::CaVerifier;

mod many;
mod names;
mod orders;
mod race;
mod suites;
mod words;

struct Gate {
    way: Way,
    registry: Arc<Registry>,
    peers: Arc<LivePeers>,
    acceptor: GateAcceptor,
    roots: RootCertStore,
}

/// Whether the ClientHello is read apart, to choose the gate by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Whole,
    HelloFirst,
}

const WAYS: [Way; 2] = [Way::Whole, Way::HelloFirst];
const REMOTE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1);
const BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

impl Gate {
    fn new() -> Self {
        Self::with(Way::Whole, Duration::from_secs(20))
    }

    fn of(way: Way) -> Self {
        Self::with(way, Duration::from_secs(20))
    }

    fn with(way: Way, limit: Duration) -> Self {
        let server_ca = TestCa::root("server-ca", 1);
        let mut params = device_params("localhost", 2);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names = vec![SanType::DnsName("localhost".try_into().unwrap())];
        let server = server_ca.issue_device(params);
        let registry = Arc::new(registry(SameKey::Deny));
        let peers = LivePeers::new();
        let verifier = Arc::new(CaVerifier::new(
            instance(),
            Arc::clone(&registry),
            provider().signature_verification_algorithms,
        ));
        let config = server_config(
            verifier,
            vec![server.der.clone()],
            server.private_key(),
            TlsVersions::From12,
        )
        .unwrap();
        let acceptor = GateAcceptor::new(
            Arc::new(config),
            Arc::clone(&registry),
            Arc::clone(&peers),
            limit,
        );
        let mut roots = RootCertStore::empty();
        roots.add(server_ca.der.clone()).unwrap();
        Self {
            way,
            registry,
            peers,
            acceptor,
            roots,
        }
    }

    /// The server's side of a handshake.
    fn accept(
        &self,
        way: Way,
        io: DuplexStream,
    ) -> impl Future<Output = Result<Accepted<DuplexStream>, AcceptError>> + use<> {
        let acceptor = self.acceptor.clone();
        async move {
            match way {
                Way::Whole => acceptor.accept(io, REMOTE).await,
                Way::HelloFirst => {
                    let hello = Hello::read(io, REMOTE, acceptor.limit()).await?;
                    assert_eq!(hello.server_name(), Some("localhost"));
                    acceptor.accept_hello(hello).await
                }
            }
        }
    }

    fn client(
        &self,
        version: &'static SupportedProtocolVersion,
        device: Option<&TestDevice>,
    ) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(self.roots.clone());
        Arc::new(match device {
            Some(device) => builder
                .with_client_auth_cert(vec![device.der.clone()], device.private_key())
                .unwrap(),
            None => builder.with_no_client_auth(),
        })
    }

    /// A whole handshake, and what each side saw: the server's result, and an error of the client
    /// (in TLS 1.3 it comes with the first read).
    async fn connect(
        &self,
        client: Arc<ClientConfig>,
    ) -> (Result<Accepted<DuplexStream>, AcceptError>, Option<String>) {
        self.connect_by(self.way, client).await
    }

    async fn connect_by(
        &self,
        way: Way,
        client: Arc<ClientConfig>,
    ) -> (Result<Accepted<DuplexStream>, AcceptError>, Option<String>) {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let server = self.accept(way, far);
        let client = async {
            let name = ServerName::try_from("localhost").unwrap();
            let mut stream = match TlsConnector::from(client).connect(name, near).await {
                Ok(stream) => stream,
                Err(error) => return Some(error.to_string()),
            };
            let mut byte = [0];
            match stream.read(&mut byte).await {
                Err(error) => Some(error.to_string()),
                Ok(_) => None,
            }
        };
        let server = async {
            let mut result = server.await;
            if let Ok(accepted) = &mut result {
                accepted.stream.write_all(b"x").await.unwrap();
                accepted.stream.flush().await.unwrap();
            }
            result
        };
        tokio::join!(server, client)
    }
}

fn instance() -> InstanceId {
    "post-cn-test0001".parse().unwrap()
}

fn refusal(result: Result<Accepted<DuplexStream>, AcceptError>) -> Refusal {
    match result {
        Err(AcceptError::Refused(refused)) => refused.refusal,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was accepted"),
    }
}

#[tokio::test]
async fn device_of_registered_ca_is_accepted_in_both_versions() {
    for way in WAYS {
        let (gate, ca) = (Gate::of(way), TestCa::root("ca", 1));
        ca.register(&gate.registry);
        let device = ca.issue("pump", 2);
        for version in BOTH {
            let (result, seen) = gate.connect(gate.client(version, Some(&device))).await;
            let accepted = result.unwrap();
            assert_eq!(seen, None);
            assert_eq!(accepted.live.peer().common_name(), Some("pump"));
            assert_eq!(accepted.live.peer().instance(), &instance());
            assert_eq!(gate.peers.len(), 1);
            drop(accepted);
            assert!(gate.peers.is_empty());
        }
    }
}

#[tokio::test]
async fn refusals_have_the_alert_that_says_what_is_wrong() {
    for way in WAYS {
        let (gate, ca) = (Gate::of(way), TestCa::root("ca", 1));
        ca.register(&gate.registry);
        let stranger = TestCa::root("stranger", 9).issue("s", 2);
        let mut params = device_params("old", 3);
        params.not_after = time::OffsetDateTime::now_utc() - time::Duration::minutes(1);
        let expired = ca.issue_device(params);
        let (device, off) = (ca.issue("d", 4), ca.issue("off", 5));
        for version in BOTH {
            let (result, seen) = gate.connect(gate.client(version, Some(&stranger))).await;
            assert_eq!(refusal(result), Refusal::UnknownCa);
            assert!(seen.unwrap().contains("UnknownCA"));

            let (result, seen) = gate.connect(gate.client(version, Some(&expired))).await;
            assert!(matches!(refusal(result), Refusal::OutsideValidity(_)));
            assert!(seen.unwrap().contains("CertificateExpired"));

            let (result, seen) = gate.connect(gate.client(version, None)).await;
            assert!(matches!(result, Err(AcceptError::Failed(_))));
            let seen = seen.unwrap();
            let no_certificate = ["CertificateRequired", "HandshakeFailure"];
            assert!(
                no_certificate.iter().any(|alert| seen.contains(alert)),
                "{seen}"
            );

            let (result, _) = gate.connect(gate.client(version, Some(&off))).await;
            let key = result.unwrap().live.peer().admitted().device().clone();
            gate.registry.set_device(key.clone(), Status::Inactive);
            let (result, seen) = gate.connect(gate.client(version, Some(&off))).await;
            assert_eq!(refusal(result), Refusal::DeviceInactive);
            assert!(seen.unwrap().contains("AccessDenied"));
            gate.registry.forget_device(&key);

            let id = ca.certificate().id();
            gate.registry.set_status(id, Status::Inactive);
            let (result, seen) = gate.connect(gate.client(version, Some(&device))).await;
            assert!(matches!(refusal(result), Refusal::CaInactive { .. }));
            assert!(seen.unwrap().contains("AccessDenied"));
            gate.registry.set_status(id, Status::Active);

            let key = ca.certificate().key_id();
            let crl = Arc::new(TestCrl::revoking(1, &[4]).verified(&ca).unwrap());
            let lists = Revocations::new(CrlPolicy::Optional, vec![crl]);
            gate.registry.set_revocations(key, lists);
            let (result, seen) = gate.connect(gate.client(version, Some(&device))).await;
            assert!(matches!(refusal(result), Refusal::Revoked { .. }));
            assert!(seen.unwrap().contains("CertificateRevoked"));

            let none = Revocations::new(CrlPolicy::Required, Vec::new());
            gate.registry.set_revocations(key, none);
            let (result, seen) = gate.connect(gate.client(version, Some(&device))).await;
            assert!(matches!(refusal(result), Refusal::NoCrl { .. }));
            assert!(seen.unwrap().contains("AccessDenied"));
            gate.registry.set_revocations(key, Revocations::default());
        }
        assert!(gate.peers.is_empty());
    }
}

#[tokio::test]
async fn client_that_keeps_sessions_cannot_resume_one() {
    for way in WAYS {
        let (gate, ca) = (Gate::of(way), TestCa::root("ca", 1));
        ca.register(&gate.registry);
        let device = ca.issue("d", 2);
        for version in BOTH {
            // One configuration, so the client offers whatever it was given.
            let client = gate.client(version, Some(&device));
            for _ in 0..3 {
                let (result, _) = gate.connect(Arc::clone(&client)).await;
                let accepted = result.unwrap();
                assert_eq!(
                    accepted.stream.get_ref().1.handshake_kind(),
                    Some(rustls::HandshakeKind::Full)
                );
            }
            gate.registry
                .set_status(ca.certificate().id(), Status::Inactive);
            let (result, _) = gate.connect(client).await;
            assert!(matches!(refusal(result), Refusal::CaInactive { .. }));
            gate.registry
                .set_status(ca.certificate().id(), Status::Active);
        }
    }
}

/// A client that is driven by hand and can keep back the end of a flight.
struct SlowClient {
    connection: ClientConnection,
    io: DuplexStream,
}

impl SlowClient {
    fn new(config: Arc<ClientConfig>, io: DuplexStream) -> Self {
        // Small records, so that the certificate can arrive without the end of the flight.
        let mut config = Arc::unwrap_or_clone(config);
        config.max_fragment_size = Some(64);
        let config = Arc::new(config);
        let name = ServerName::try_from("localhost").unwrap();
        Self {
            connection: ClientConnection::new(config, name).unwrap(),
            io,
        }
    }

    async fn send(&mut self, hold_back: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut out).unwrap();
        }
        let split = out.len().saturating_sub(hold_back);
        let rest = out.split_off(split);
        self.io.write_all(&out).await.unwrap();
        rest
    }

    async fn receive(&mut self) -> std::io::Result<usize> {
        let mut buffer = vec![0; 32 * 1024];
        let count = self.io.read(&mut buffer).await?;
        let mut rest = buffer.get(..count).unwrap();
        while !rest.is_empty() {
            self.connection.read_tls(&mut rest).unwrap();
            self.connection
                .process_new_packets()
                .map_err(std::io::Error::other)?;
        }
        Ok(count)
    }
}

#[tokio::test]
async fn handshake_under_way_does_not_complete_after_an_inactivation() {
    for (version, way) in BOTH
        .iter()
        .flat_map(|version| WAYS.map(|way| (*version, way)))
    {
        let (gate, ca) = (Gate::of(way), TestCa::root("ca", 1));
        ca.register(&gate.registry);
        let device = ca.issue("d", 2);
        let (near, far) = tokio::io::duplex(64 * 1024);
        let server = tokio::spawn(gate.accept(way, far));
        let mut client = SlowClient::new(gate.client(version, Some(&device)), near);
        client.send(0).await;
        // Take the server's flight, then send certificate and proof but not the last octets of
        // Finished: the server has accepted the certificate and waits.
        while client.connection.is_handshaking() && !client.connection.wants_write() {
            client.receive().await.unwrap();
        }
        let finished = client.send(8).await;
        while gate.peers.is_empty() {
            tokio::task::yield_now().await;
        }
        gate.registry
            .set_status(ca.certificate().id(), Status::Inactive);
        gate.registry.barrier();
        client.io.write_all(&finished).await.unwrap();
        assert!(matches!(
            refusal(server.await.unwrap()),
            Refusal::CaInactive { .. }
        ));
        // In TLS 1.2 the server's Finished must not have reached the client.
        while let Ok(count) = client.receive().await {
            if count == 0 {
                break;
            }
        }
        if version == &version::TLS12 {
            assert!(client.connection.is_handshaking());
        }
        assert!(gate.peers.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn silent_client_is_given_up_after_the_limit() {
    for way in WAYS {
        let gate = Gate::with(way, Duration::from_secs(5));
        let (_near, far) = tokio::io::duplex(1024);
        let result = gate.accept(way, far).await;
        assert!(matches!(result, Err(AcceptError::Timeout)));
    }
}

#[tokio::test]
async fn garbage_is_an_error_and_leaves_nothing() {
    for way in WAYS {
        let gate = Gate::of(way);
        let (mut near, far) = tokio::io::duplex(64 * 1024);
        near.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        let result = gate.accept(way, far).await;
        assert!(matches!(result, Err(AcceptError::Failed(_))));
        assert!(gate.peers.is_empty());
    }
}

#[tokio::test]
async fn connected_peers_are_told_when_their_trust_ends() {
    let gate = Gate::new();
    let (ca, other) = (TestCa::root("ca", 1), TestCa::root("other", 2));
    ca.register(&gate.registry);
    other.register(&gate.registry);
    let version = &version::TLS13;
    let (one, _) = gate
        .connect(gate.client(version, Some(&ca.issue("a", 3))))
        .await;
    let (two, _) = gate
        .connect(gate.client(version, Some(&other.issue("b", 4))))
        .await;
    let (one, two) = (one.unwrap().live, two.unwrap().live);
    let waiting = tokio::spawn({
        let one = one.clone();
        async move { one.until_cut().await }
    });
    let id = ca.certificate().id();
    let effects = gate.registry.set_status(id, Status::Inactive);
    assert_eq!(gate.peers.count_over(&effects.denied), 1);
    let cut = gate
        .peers
        .cut_over(&effects.denied, &gate.registry, now_secs());
    assert_eq!(cut, 1);
    assert_eq!(waiting.await.unwrap(), Cut::CaInactive);
    assert_eq!(one.until_cut().await, Cut::CaInactive);
    assert_eq!(two.cut(), None);
    // Told once only; and an authority that is on again cuts nobody.
    gate.registry.set_status(id, Status::Active);
    assert_eq!(
        gate.peers.cut_over(
            &[ca.certificate().key_id(), other.certificate().key_id()],
            &gate.registry,
            now_secs()
        ),
        0
    );
    let key = two.peer().admitted().device().clone();
    gate.registry.set_device(key.clone(), Status::Inactive);
    assert_eq!(gate.peers.cut_device(&key, &gate.registry, now_secs()), 1);
    assert_eq!(two.cut(), Some(Cut::DeviceInactive));
}

#[tokio::test]
async fn connected_peer_is_told_when_a_certificate_of_its_path_expires() {
    let (gate, ca) = (Gate::new(), TestCa::root("ca", 1));
    ca.register(&gate.registry);
    let client = gate.client(&version::TLS13, Some(&ca.issue("d", 2)));
    let live = gate.connect(client).await.0.unwrap().live;
    let end = live.peer().admitted().path_not_after();
    assert_eq!(gate.peers.cut_expired(end), 0);
    assert_eq!(live.cut(), None);
    assert_eq!(gate.peers.cut_expired(end + 1), 1);
    assert_eq!(live.cut(), Some(Cut::Expired));
    assert_eq!(gate.peers.cut_expired(end + 2), 0);
}
