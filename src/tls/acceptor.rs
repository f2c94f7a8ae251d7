//! The handshake, under a time limit, with the peer it proved.

use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::tls::live::LivePeer;

/// A finished handshake.
pub struct Accepted {
    /// The encrypted stream.
    pub stream: TlsStream<TcpStream>,
    /// Who is at the other end. Drop it only when the connection is over.
    pub live: LivePeer,
}

/// Why there is no connection. Already logged and counted when it is returned.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    #[error("the handshake did not finish in time")]
    Timeout,
    #[error("the connection failed during the handshake: {0}")]
    Io(#[from] std::io::Error),
    #[error("the client was refused: {0}")]
    Refused(String),
}

/// Accepts TLS connections of devices whose CA is active. Cheap to clone.
#[derive(Clone)]
pub struct GateAcceptor {}

impl GateAcceptor {
    /// Run the handshake.
    pub async fn accept(
        &self,
        _stream: TcpStream,
        _remote: SocketAddr,
    ) -> Result<Accepted, AcceptError> {
        todo!()
    }
}
