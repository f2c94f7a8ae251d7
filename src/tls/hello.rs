//! A handshake of which only the ClientHello is read, so that the server name can choose the gate.

use std::net::SocketAddr;
use std::time::Duration;

use rustls::server::Acceptor;
use rustls::{AlertDescription, ContentType};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use crate::tls::acceptor::AcceptError;
use crate::tls::gates::NoGate;
use crate::tls::report::report;

/// A ClientHello, with the connection it came on.
///
/// Give it to the gate that its name chooses
/// ([`GateAcceptor::accept_hello`](crate::tls::acceptor::GateAcceptor::accept_hello)), or
/// [`refuse`](Self::refuse) it.
///
/// ```no_run
/// # use portcullis::tls::{acceptor::{AcceptError, Accepted, GateAcceptor}, gates::Gates, hello::Hello};
/// # use std::{net::SocketAddr, time::Duration};
/// # use tokio::net::TcpStream;
/// # async fn accept(gates: &Gates<GateAcceptor>, stream: TcpStream, remote: SocketAddr)
/// #     -> Result<Accepted<TcpStream>, AcceptError> {
/// let hello = Hello::read(stream, remote, Duration::from_secs(10)).await?;
/// match gates.choose(hello.server_name()) {
///     Ok(acceptor) => acceptor.accept_hello(hello).await,
///     Err(no_gate) => Err(hello.refuse(no_gate).await),
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Hello<IO> {
    pub(super) start: Box<StartHandshake<IO>>,
    pub(super) remote: SocketAddr,
    pub(super) began: Instant,
    pub(super) server_name: Option<String>,
}

impl<IO> Hello<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    /// Read a ClientHello, which may take `limit`. What is none is answered with the alert that
    /// says why.
    ///
    /// # Errors
    /// Why there is none; it is logged and counted already.
    pub async fn read(io: IO, remote: SocketAddr, limit: Duration) -> Result<Self, AcceptError> {
        let began = Instant::now();
        let start = tokio::time::timeout(limit, Box::pin(read(io)))
            .await
            .map_err(|_| AcceptError::Timeout)
            .and_then(|start| start.map_err(AcceptError::Failed));
        match start {
            Ok(start) => Ok(Self {
                server_name: start.client_hello().server_name().map(str::to_owned),
                start,
                remote,
                began,
            }),
            Err(error) => {
                report(Err(&error), remote, None, began.elapsed());
                Err(error)
            }
        }
    }

    /// The name that the client asks for, in lower case; rustls has checked that it is a DNS
    /// name. None also if the client sent an address in its place.
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// When the handshake began.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Give the handshake up, because what it waited for did not come in time; logged and counted.
    pub fn give_up(self) -> AcceptError {
        self.end(AcceptError::Timeout)
    }

    /// Send the alert that says why no gate is for this client, and close; logged and counted.
    pub async fn refuse(mut self, no_gate: NoGate) -> AcceptError {
        // A client that takes seven octets too late or never is not told.
        let told = send_alert(&mut self.start.io, no_gate.alert());
        let _ = tokio::time::timeout(ALERT_LIMIT, told).await;
        self.end(AcceptError::NoGate(no_gate))
    }

    fn end(self, error: AcceptError) -> AcceptError {
        let name = self.server_name.as_deref();
        report(Err(&error), self.remote, name, self.began.elapsed());
        error
    }
}

/// What the rest of the handshake needs.
pub(super) async fn read<IO>(io: IO) -> std::io::Result<Box<StartHandshake<IO>>>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let mut reading = LazyConfigAcceptor::new(Acceptor::default(), io);
    match (&mut reading).await {
        Ok(start) => Ok(Box::new(start)),
        Err(error) => {
            // The one case in which rustls leaves the alert to a connection that there is not yet.
            if is_other_message(&error)
                && let Some(mut io) = reading.take_io()
            {
                let _ = send_alert(&mut io, AlertDescription::UnexpectedMessage).await;
            }
            Err(error)
        }
    }
}

/// Whether a message came that is TLS, but neither a ClientHello nor an alert.
fn is_other_message(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(rustls::Error::InappropriateMessage { got_type, .. }) => {
            *got_type != ContentType::Alert
        }
        Some(rustls::Error::InappropriateHandshakeMessage { .. }) => true,
        _ => false,
    }
}

/// A fatal alert before any key is agreed on (RFC 8446, sections 5.1 and 6).
async fn send_alert<IO>(io: &mut IO, alert: AlertDescription) -> std::io::Result<()>
where
    IO: AsyncWrite + Unpin,
{
    let record = [21, 3, 3, 0, 2, 2, u8::from(alert)];
    io.write_all(&record).await?;
    io.shutdown().await
}

/// How long a client may take for an alert.
pub(super) const ALERT_LIMIT: Duration = Duration::from_secs(1);
