//! The rustls client verifier that asks the registry.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use crate::ca::error::{PathMember, Refusal};
use crate::ca::id::InstanceId;
use crate::ca::path::Refused;
use crate::ca::registry::Registry;
use crate::tls::live::PeerSlot;
use crate::tls::peer::VerifiedPeer;

tokio::task_local! {
    /// Set by the acceptor around each step of a handshake; rustls gives a verifier no way to
    /// say more than yes.
    pub(crate) static SLOT: PeerSlot;
}

/// Accepts the client certificates that the registry admits, and refuses the others with the
/// alert that says why.
///
/// Put it into any rustls `ServerConfig` with `with_client_cert_verifier`. It differs from
/// [`rustls::server::WebPkiClientVerifier`] in one thing: which paths count is decided by the
/// registry at the moment of the handshake. Signatures are checked by the same code. It demands
/// a certificate, and it sends no CA names as hints: they would show who your suppliers are, and
/// thousands of them break every handshake.
///
/// Two things it cannot do alone: rustls resumes sessions without asking any verifier, so
/// switch resumption off ([`no_resumption`](crate::tls::server_config::no_resumption)); and a
/// state may change between the handshake and the moment you use the connection, so enter the
/// peer into [`LivePeers`](crate::tls::live::LivePeers), which reads the states again and ends
/// the connection later when they change. [`GateAcceptor`](crate::tls::acceptor::GateAcceptor)
/// does both.
#[derive(Debug)]
pub struct CaVerifier {
    instance: InstanceId,
    registry: Arc<Registry>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl CaVerifier {
    /// A verifier over the registry of this instance, with the signature algorithms of the
    /// provider.
    pub fn new(
        instance: InstanceId,
        registry: Arc<Registry>,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Self {
        Self {
            instance,
            registry,
            algorithms,
        }
    }

    /// The peer of this chain, if the registry admits it at `now`.
    ///
    /// For servers that do not use [`GateAcceptor`](crate::tls::acceptor::GateAcceptor): call it
    /// with `peer_certificates()` after the handshake to learn who the client is.
    ///
    /// # Errors
    /// The refusal, with what is known of the certificate.
    pub fn peer(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<VerifiedPeer, Box<Refused>> {
        self.registry
            .admit(end_entity, intermediates, now)
            .map(|admitted| VerifiedPeer::new(self.instance.clone(), admitted))
    }
}

impl ClientCertVerifier for CaVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let peer = self
            .peer(end_entity, intermediates, now)
            .map_err(|refused| to_rustls(*refused))?;
        match SLOT.try_with(|slot| slot.fill(peer)) {
            // Without the acceptor there is no slot, and nothing to leave in it.
            Ok(Ok(())) | Err(_) => Ok(ClientCertVerified::assertion()),
            Ok(Err(_)) => Err(Error::General(
                "a second client certificate in one handshake".to_owned(),
            )),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Carries the refusal through rustls to whoever logs the failed handshake.
#[derive(Debug, Clone)]
pub struct RefusedError(pub Refused);

impl std::fmt::Display for RefusedError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.refusal.fmt(f)
    }
}

impl std::error::Error for RefusedError {}

tokio::task_local! {
    /// Where the refusal goes, since most rustls errors that give the right alert carry no data.
    pub(crate) static REFUSED: Arc<std::sync::OnceLock<Refused>>;
}

/// The rustls error whose alert says what is wrong (RFC 8446, 6.2).
fn to_rustls(refused: Refused) -> Error {
    let error = match &refused.refusal {
        Refusal::UnknownCa => CertificateError::UnknownIssuer,
        Refusal::OutsideValidity(
            PathMember::Device | PathMember::Intermediate | PathMember::Ca(_),
        ) => CertificateError::Expired,
        Refusal::CaInactive { .. } | Refusal::DeviceInactive | Refusal::NoCrl { .. } => {
            CertificateError::ApplicationVerificationFailure
        }
        Refusal::Revoked { .. } => CertificateError::Revoked,
        Refusal::ChainTooLarge | Refusal::Malformed(_) => CertificateError::BadEncoding,
        Refusal::BadSignature => CertificateError::BadSignature,
        Refusal::Misused { .. } => CertificateError::InvalidPurpose,
        Refusal::InvalidPath(_) | Refusal::TooMuchWork => {
            CertificateError::Other(rustls::OtherError(Arc::new(RefusedError(refused.clone()))))
        }
    };
    // Nobody listens when the verifier is used without the acceptor.
    let _ = REFUSED.try_with(|place| place.set(refused));
    error.into()
}
