//! A session taken before an inactivation carries nobody past the verifier.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, HandshakeKind, ServerConfig, ServerConnection};

use crate::harness::Broker;
use crate::harness::tls::{BOTH, TlsClient, Version};

#[test]
fn client_that_tries_to_resume_after_inactivation_is_refused() {
    let broker = Broker::start();
    let api = broker.api();
    let sn = api.sn_of("ca-a");
    let a1 = broker.identity("device-a1");
    for version in BOTH {
        // One client, which keeps whatever it is given to resume with.
        let client = broker.client(&a1, version);
        for _ in 0..3 {
            let mut session = client.connect().unwrap();
            session.ping().unwrap();
        }
        api.inactivate(&sn);
        for _ in 0..3 {
            client.refused_with(AlertDescription::AccessDenied);
        }
        api.activate(&sn);
        assert!(client.admitted());
    }
}

#[test]
fn client_that_comes_back_is_verified_in_full() {
    let broker = Broker::start();
    let client = broker.client(&broker.identity("device-a1"), Version::V13);
    let client12 = broker.client(&broker.identity("device-a1"), Version::V12);
    for client in [client, client12] {
        for _ in 0..3 {
            let mut session = client.connect().unwrap();
            session.ping().unwrap();
            assert_eq!(session.kind(), HandshakeKind::Full);
        }
    }
}

/// The two scenarios above mean something only if the client would resume where it can.
#[test]
fn client_of_the_harness_resumes_with_an_ordinary_server() {
    let broker = Broker::start();
    for version in BOTH {
        let address = ordinary_server(&broker.cert("server.pem"), &broker.cert("server.key"));
        let ca = broker.cert("server-ca.pem");
        let client = TlsClient::new(address, &ca, None, version);
        let kinds: Vec<_> = (0..2)
            .map(|_| {
                let mut stream = client.handshake().unwrap();
                stream.read().unwrap(); // tickets come before the greeting
                stream.kind()
            })
            .collect();
        assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed]);
    }
}

/// A rustls server with its defaults that greets two clients.
pub fn ordinary_server(certificate: &Path, key: &Path) -> std::net::SocketAddr {
    let chain = CertificateDer::pem_file_iter(certificate).unwrap();
    let chain = chain.map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming().take(2) {
            let connection = ServerConnection::new(config.clone()).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, socket.unwrap());
            stream.write_all(b"hello").unwrap();
            let _ = stream.read(&mut [0; 16]);
        }
    });
    address
}
