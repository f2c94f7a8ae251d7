//! The rustls configuration of a listener.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::hash::HashAlgorithm;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{CipherSuite, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};

use crate::tls::verifier::CaVerifier;

/// Which TLS versions a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsVersions {
    /// TLS 1.3 only.
    Only13,
    /// TLS 1.2 (with extended master secret and AEAD suites only) and 1.3.
    #[default]
    From12,
}

/// Whose order of cipher suites counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CipherOrder {
    /// The client's, always.
    Client,
    /// What costs the server least, which is AES-128-GCM with SHA-256, unless a suite without AES is
    /// what the client wants most: it has no instructions for AES then, and its order counts.
    #[default]
    Cheapest,
}

/// The cryptography of this crate: aws-lc-rs, and nothing else.
pub fn provider() -> Arc<CryptoProvider> {
    use std::sync::LazyLock;
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}

/// The same, with the cipher suites in the order of what they cost a server: AES-128-GCM with SHA-256,
/// which RFC 8446 (9.1) demands of everybody, then the others. The key schedule of a handshake is made
/// of hashes, and processors have instructions for SHA-256, but few for SHA-384.
fn cheapest_first() -> Arc<CryptoProvider> {
    use std::sync::LazyLock;
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = CryptoProvider::clone(&provider());
        let is_cheapest = |suite: &SupportedCipherSuite| {
            let hash = match suite {
                SupportedCipherSuite::Tls12(suite) => suite.common.hash_provider.algorithm(),
                SupportedCipherSuite::Tls13(suite) => suite.common.hash_provider.algorithm(),
            };
            is_aes(suite.suite()) && hash == HashAlgorithm::SHA256
        };
        // Stable: what is left stays in the order of rustls, and TLS 1.3 before 1.2.
        provider
            .cipher_suites
            .sort_by_key(|suite| !is_cheapest(suite));
        Arc::new(provider)
    });
    Arc::clone(&PROVIDER)
}

/// Whether it encrypts with AES, for which almost all processors but the smallest have instructions.
pub(super) fn is_aes(suite: CipherSuite) -> bool {
    suite.as_str().is_some_and(|name| name.contains("_AES_"))
}

/// The signature algorithms that certificates may carry, as a registry wants them.
pub fn algorithms() -> crate::ca::certificate::Algorithms {
    provider().signature_verification_algorithms.all
}

/// The configuration of a listener that lets in whom the verifier accepts.
///
/// # Errors
/// If rustls cannot use the server's certificate and key.
pub fn server_config(
    verifier: Arc<CaVerifier>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    versions: TlsVersions,
) -> Result<ServerConfig, rustls::Error> {
    let versions: &[&SupportedProtocolVersion] = match versions {
        TlsVersions::Only13 => &[&rustls::version::TLS13],
        TlsVersions::From12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
    };
    let mut config = ServerConfig::builder_with_provider(cheapest_first())
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.require_ems = true;
    config.max_fragment_size = Some(RECORD_MAX + HEADER);
    no_resumption(&mut config);
    Ok(config)
}

/// Octets of the content of a record, at most. Each has a buffer of its own until it is written; many of
/// half the size that TLS allows stay in the cache of a processor, where fewer large ones push each other
/// out.
const RECORD_MAX: usize = 8 << 10;
/// What stands before it, and what rustls counts as well.
const HEADER: usize = 5;

/// Make the server forget every session at once: no tickets, no session cache, no early data.
///
/// rustls restores a client's certificates from a ticket or a cached session without asking the
/// verifier, so a client could come back after its CA was switched off.
pub fn no_resumption(config: &mut ServerConfig) {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_tls13_tickets = 0;
    config.max_early_data_size = 0;
    // The default ticketer is disabled already; say so, it must stay so.
    config.ticketer = Arc::new(NoTickets);
}

#[derive(Debug)]
struct NoTickets;

impl rustls::server::ProducesTickets for NoTickets {
    fn enabled(&self) -> bool {
        false
    }
    fn lifetime(&self) -> u32 {
        0
    }
    fn encrypt(&self, _plain: &[u8]) -> Option<Vec<u8>> {
        None
    }
    fn decrypt(&self, _cipher: &[u8]) -> Option<Vec<u8>> {
        None
    }
}
