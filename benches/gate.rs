//! What the gate adds to a handshake: our verifier beside the one of rustls, and few registered CAs
//! beside very many. Read the figures as ratios within one run.
//!
//! `cargo bench --bench gate`

// The lint configuration allows these in tests; a benchmark is none.
#![allow(clippy::unwrap_used)]

#[path = "common/pki.rs"]
mod pki;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use portcullis::tls::server_config::{TlsVersions, no_resumption, provider, server_config};
use portcullis::tls::verifier::CaVerifier;
use rcgen::{ExtendedKeyUsagePurpose, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

use pki::{Authorities, SIZES, parsed, registry, verifier};

/// A CA and a device of it.
struct Pki {
    authorities: Authorities,
    ca: CertificateDer<'static>,
    device: CertificateDer<'static>,
    device_key: PrivateKeyDer<'static>,
}

impl Pki {
    fn new(usage: ExtendedKeyUsagePurpose) -> Self {
        let authorities = Authorities::new();
        let device_key = KeyPair::generate().unwrap();
        Self {
            ca: authorities.root(1),
            device: authorities.leaf(1, usage, &device_key),
            device_key: device_key.serialize_der().try_into().unwrap(),
            authorities,
        }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.clone()).unwrap();
        roots
    }

    /// Our verifier; among the registered CAs is this one.
    fn ours(&self, cas: usize) -> Arc<CaVerifier> {
        let others = (2..=cas).map(|number| self.authorities.root(number));
        let all = std::iter::once(self.ca.clone()).chain(others);
        verifier(registry(all.map(|der| parsed(&der))))
    }

    /// That of rustls.
    fn theirs(&self) -> Arc<dyn ClientCertVerifier> {
        WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), provider())
            .build()
            .unwrap()
    }
}

fn certificates(criterion: &mut Criterion) {
    let pki = Pki::new(ExtendedKeyUsagePurpose::ClientAuth);
    let mut group = criterion.benchmark_group("certificate");
    let theirs = pki.theirs();
    group.bench_function("rustls", |bencher| {
        bencher.iter(|| {
            let verified = theirs.verify_client_cert(black_box(&pki.device), &[], UnixTime::now());
            verified.unwrap()
        });
    });
    for cas in SIZES {
        let ours = pki.ours(cas);
        group.bench_function(BenchmarkId::new("portcullis", cas), |bencher| {
            bencher.iter(|| {
                let verified =
                    ours.verify_client_cert(black_box(&pki.device), &[], UnixTime::now());
                verified.unwrap()
            });
        });
    }
    group.finish();
}

/// A whole handshake of TLS 1.3 in memory; gives the time that the server took.
fn handshake(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>) -> Duration {
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut spent = Duration::ZERO;
    let began = Instant::now();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    spent += began.elapsed();
    while client.is_handshaking() || server.is_handshaking() {
        let mut octets = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut octets).unwrap();
        }
        let began = Instant::now();
        let mut rest = octets.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets().unwrap();
        }
        let mut octets = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut octets).unwrap();
        }
        spent += began.elapsed();
        let mut rest = octets.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().unwrap();
        }
    }
    spent
}

fn handshakes(criterion: &mut Criterion) {
    let devices = Pki::new(ExtendedKeyUsagePurpose::ClientAuth);
    let server = Pki::new(ExtendedKeyUsagePurpose::ServerAuth);
    let mut client = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(server.roots())
        .with_client_auth_cert(vec![devices.device.clone()], devices.device_key.clone_key())
        .unwrap();
    client.resumption = rustls::client::Resumption::disabled();
    let client = Arc::new(client);
    let chain = vec![server.device.clone()];
    // The same but for the verifier: no tickets, which cost their share.
    let mut theirs = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(devices.theirs())
        .with_single_cert(chain.clone(), server.device_key.clone_key())
        .unwrap();
    no_resumption(&mut theirs);
    let ours = |cas| {
        let key = server.device_key.clone_key();
        let verifier = devices.ours(cas);
        Arc::new(server_config(verifier, chain.clone(), key, TlsVersions::From12).unwrap())
    };
    let mut group = criterion.benchmark_group("handshake");
    let mut bench = |name: BenchmarkId, config: Arc<ServerConfig>| {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| (0..count).map(|_| handshake(&config, &client)).sum());
        });
    };
    bench(BenchmarkId::new("rustls", 1), Arc::new(theirs));
    for cas in SIZES {
        bench(BenchmarkId::new("portcullis", cas), ours(cas));
    }
    group.finish();
}

criterion_group!(benches, certificates, handshakes);
criterion_main!(benches);
