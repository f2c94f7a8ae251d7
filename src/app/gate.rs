//! From certificate files to an acceptor that asks the registry.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use webpki::EndEntityCert;

use crate::ca::certificate::CaCertificate;
use crate::ca::error::CertificateError;
use crate::config;
use crate::control::Control;
use crate::tls::acceptor::GateAcceptor;
use crate::tls::server_config::{provider, server_config};
use crate::tls::verifier::CaVerifier;

/// Why the gate cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// A PEM file cannot be read.
    #[error("{what} {} cannot be read: {source}", path.display())]
    Pem {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// The file of the server's certificate has none.
    #[error("{} has no certificate", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The server's certificate and key cannot be used.
    #[error("the server certificate {} cannot be used with the key {}: {source}", certificate.display(), key.display())]
    ServerCertificate {
        /// File of the certificate.
        certificate: PathBuf,
        /// File of the key.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The file of the administrators' CA cannot be read.
    #[error("the CA of the administrators {} cannot be read: {source}", path.display())]
    AdminCaFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The administrators' CA is none.
    #[error("the CA of the administrators {} cannot be used: {source}", path.display())]
    AdminCa {
        /// The file.
        path: PathBuf,
        /// Why.
        source: CertificateError,
    },
    /// Control does not know the instance.
    #[error("instance {0} has no registry")]
    NoRegistry(crate::ca::id::InstanceId),
}

/// The acceptor of an instance.
pub(super) fn acceptor(
    control: &Control,
    instance: &config::Instance,
    tls: &config::Tls,
) -> Result<GateAcceptor, GateError> {
    let (Some(registry), Some(peers)) =
        (control.registry(&instance.id), control.peers(&instance.id))
    else {
        return Err(GateError::NoRegistry(instance.id.clone()));
    };
    let verifier = Arc::new(CaVerifier::new(
        instance.id.clone(),
        Arc::clone(&registry),
        provider().signature_verification_algorithms,
    ));
    let chain = chain(&instance.tls_certificate)?;
    warn_of_names_not_covered(instance, &chain);
    let key = key(&instance.tls_key)?;
    let config = server_config(verifier, chain, key, tls.versions).map_err(|source| {
        GateError::ServerCertificate {
            certificate: instance.tls_certificate.clone(),
            key: instance.tls_key.clone(),
            source,
        }
    })?;
    // The generator's first use takes a tenth of a second, which the first client would wait for.
    let _ = aws_lc_rs::rand::fill(&mut [0; 32]);
    let acceptor = GateAcceptor::new(Arc::new(config), registry, peers, tls.handshake_timeout);
    Ok(acceptor.with_cipher_order(tls.cipher_order))
}

/// Clients that ask for a name which the certificate does not have will not trust the server.
fn warn_of_names_not_covered(instance: &config::Instance, chain: &[CertificateDer<'_>]) {
    // What cannot be read is refused when rustls takes it.
    let Some(certificate) = chain.first().map(EndEntityCert::try_from) else {
        return;
    };
    let Ok(certificate) = certificate else { return };
    for name in &instance.server_names {
        let example = name.example("any-other");
        let covered = ServerName::try_from(example.as_str())
            .is_ok_and(|name| certificate.verify_is_valid_for_subject_name(&name).is_ok());
        if !covered {
            tracing::warn!(
                instance = %instance.id,
                server_name = %name,
                certificate = %instance.tls_certificate.display(),
                "the server certificate does not have this name, so clients that ask for it \
                 will not trust the server"
            );
        }
    }
}

/// TLS without client certificates, for the admin API.
pub(super) fn plain_server(certificate: &Path, key_file: &Path) -> Result<ServerConfig, GateError> {
    let chain = chain(certificate)?;
    let key = key(key_file)?;
    let unusable = |source| GateError::ServerCertificate {
        certificate: certificate.to_owned(),
        key: key_file.to_owned(),
        source,
    };
    ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unusable)
}

/// The CA of the administrators, as named in the configuration.
pub(super) fn admin_ca(path: &Path) -> Result<CaCertificate, GateError> {
    let text = std::fs::read_to_string(path).map_err(|source| GateError::AdminCaFile {
        path: path.to_owned(),
        source,
    })?;
    CaCertificate::from_pem(&text).map_err(|source| GateError::AdminCa {
        path: path.to_owned(),
        source,
    })
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, GateError> {
    PrivateKeyDer::from_pem_file(path).map_err(|source| GateError::Pem {
        what: "the server key",
        path: path.to_owned(),
        source,
    })
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, GateError> {
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|source| GateError::Pem {
            what: "the server certificate",
            path: path.to_owned(),
            source,
        })?;
    match chain.is_empty() {
        true => Err(GateError::NoCertificate {
            path: path.to_owned(),
        }),
        false => Ok(chain),
    }
}
