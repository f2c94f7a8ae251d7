//! Which cipher suite a connection has.

use rustls::CipherSuite::{
    self, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS13_AES_128_GCM_SHA256,
    TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::crypto::CryptoProvider;

use super::*;
use crate::tls::server_config::CipherOrder;

/// What a client gets that offers these, in this order.
async fn suite_for(gate: &Gate, offered: &[CipherSuite], device: &TestDevice) -> CipherSuite {
    let mut provider = CryptoProvider::clone(&provider());
    let all = std::mem::take(&mut provider.cipher_suites);
    let find = |wanted: &CipherSuite| all.iter().find(|suite| suite.suite() == *wanted).copied();
    provider.cipher_suites = offered.iter().map(|suite| find(suite).unwrap()).collect();
    let client = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(gate.roots.clone())
        .with_client_auth_cert(vec![device.der.clone()], device.private_key())
        .unwrap();
    let (accepted, _) = gate.connect(Arc::new(client)).await;
    let accepted = accepted.unwrap();
    let (_, connection) = accepted.stream.get_ref();
    connection.negotiated_cipher_suite().unwrap().suite()
}

#[tokio::test]
async fn the_cheapest_suite_is_taken_unless_the_client_is_better_at_another() {
    for way in WAYS {
        let gate = Gate::of(way);
        let ca = TestCa::root("ca", 10);
        ca.register(&gate.registry);
        let device = ca.issue("device", 11);
        let [aes_128, aes_256, chacha] = [
            TLS13_AES_128_GCM_SHA256,
            TLS13_AES_256_GCM_SHA384,
            TLS13_CHACHA20_POLY1305_SHA256,
        ];
        for (offered, expected) in [
            (vec![aes_256, aes_128, chacha], aes_128),
            (vec![aes_256, chacha, aes_128], aes_128),
            (vec![chacha, aes_256, aes_128], chacha),
            (vec![aes_128, chacha], aes_128),
            (vec![aes_256], aes_256),
            (vec![aes_256, chacha], aes_256),
            (
                vec![
                    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
                    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
                ],
                TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            ),
        ] {
            let suite = suite_for(&gate, &offered, &device).await;
            assert_eq!(suite, expected, "{way:?}, offered: {offered:?}");
        }
    }
}

#[tokio::test]
async fn the_clients_order_counts_if_that_is_asked_for() {
    for way in WAYS {
        let mut gate = Gate::of(way);
        gate.acceptor = gate.acceptor.with_cipher_order(CipherOrder::Client);
        let ca = TestCa::root("ca", 10);
        ca.register(&gate.registry);
        let device = ca.issue("device", 11);
        for offered in [
            [TLS13_AES_256_GCM_SHA384, TLS13_AES_128_GCM_SHA256],
            [TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384],
            [TLS13_CHACHA20_POLY1305_SHA256, TLS13_AES_128_GCM_SHA256],
        ] {
            assert_eq!(suite_for(&gate, &offered, &device).await, offered[0]);
        }
    }
}
