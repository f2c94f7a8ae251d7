//! The gate's own share: whole handshakes of TLS 1.3 in memory, with our verifier and with that of
//! rustls in turn. What counts is the CPU time of the server's steps.

use std::sync::Arc;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use portcullis::ca::certificate::CaCertificate;
use portcullis::ca::lifecycle::Status;
use portcullis::ca::registry::{Purpose, Registry};
use portcullis::ca::topology::SameKey;
use portcullis::tls::server_config::{algorithms, no_resumption, provider};
use portcullis::tls::verifier::CaVerifier;
use rcgen::KeyPair;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

use super::Bench;
use crate::Result;
use crate::broker::INSTANCE;
use crate::grid::Grid;
use crate::pki::root;
use crate::report::Section;

pub fn run(bench: &Bench) -> Result<Section> {
    let title = "CPU time of the server in one handshake, µs";
    let mut grid = Grid::new(title, "µs", "registered CAs");
    let client = &bench.devices[0];
    let mut roots = RootCertStore::empty();
    roots.add(bench.pki.devices.der.clone())?;
    let theirs = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let theirs = config(bench, theirs.build()?)?;
    let (new, back) = (0, 1000);
    for (cas, device, remembered) in [
        (1, "new", new),
        (100, "new", new),
        (bench.size(10_000), "new", new),
        (bench.size(100_000), "new", new),
        (1, "back", back),
        (bench.size(100_000), "back", back),
    ] {
        let ours = config(bench, ours(bench, cas, remembered)?)?;
        // Caches and branch predictors.
        for _ in 0..200 {
            handshake(&ours, client)?;
            handshake(&theirs, client)?;
        }
        for _ in 0..bench.rounds {
            let (mut own, mut other) = (Duration::ZERO, Duration::ZERO);
            let count = bench.size(2000);
            for _ in 0..count {
                own += handshake(&ours, client)?;
                other += handshake(&theirs, client)?;
            }
            let each = |all: Duration| all.as_secs_f64() * 1e6 / count as f64;
            let case = format!("{cas}, device is {device}");
            grid.add(&case, "Portcullis's verifier", each(own));
            grid.add(&case, "rustls's verifier", each(other));
        }
    }
    Ok(Section {
        grids: vec![grid.compare("Portcullis's verifier")],
        notes: vec![
            "A device that is back has been there since the start of the broker: the signature on its \
             certificate is known to hold."
                .to_owned(),
        ],
    })
}

/// The two servers differ in nothing else.
fn config(bench: &Bench, verifier: Arc<dyn ClientCertVerifier>) -> Result<Arc<ServerConfig>> {
    let certs = bench.certs.path();
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_file(certs.join("server.pem"))?],
            PrivateKeyDer::from_pem_file(certs.join("server.key"))?,
        )?;
    no_resumption(&mut config);
    Ok(Arc::new(config))
}

fn ours(bench: &Bench, cas: usize, remembered: usize) -> Result<Arc<dyn ClientCertVerifier>> {
    let registry = Arc::new(Registry::new(SameKey::Deny, algorithms()).remembering(remembered));
    let register = |der: &CertificateDer<'_>| -> Result<()> {
        let ca = Arc::new(CaCertificate::from_der(der)?);
        registry.insert(ca, Purpose::Device, Status::Active)?;
        Ok(())
    };
    register(&bench.pki.devices.der)?;
    let key = KeyPair::generate()?;
    for number in 2..=cas as u64 {
        let params = root(&format!("other {number}"), number);
        register(params.self_signed(&key)?.der())?;
    }
    let algorithms = provider().signature_verification_algorithms;
    Ok(Arc::new(CaVerifier::new(
        INSTANCE.parse()?,
        registry,
        algorithms,
    )))
}

/// A handshake; gives the CPU time of the server.
fn handshake(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>) -> Result<Duration> {
    let name = ServerName::try_from("localhost")?;
    let mut client = ClientConnection::new(Arc::clone(client), name)?;
    let mut spent = Duration::ZERO;
    let began = now()?;
    let mut server = ServerConnection::new(Arc::clone(server))?;
    spent += now()? - began;
    while client.is_handshaking() || server.is_handshaking() {
        let mut octets = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut octets)?;
        }
        let began = now()?;
        let mut rest = octets.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest)?;
            server.process_new_packets()?;
        }
        let mut octets = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut octets)?;
        }
        spent += now()? - began;
        let mut rest = octets.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest)?;
            client.process_new_packets()?;
        }
    }
    Ok(spent)
}

/// CPU time of this thread.
fn now() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}
