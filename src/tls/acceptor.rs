//! The handshake, under a time limit, with the peer it proved.
//!
//! The handshake advances in steps between waits for the network. Each step runs under
//! [`Registry::handshake_step`], and begins by asking whether a peer whose certificate was
//! accepted in an earlier step is still welcome. So once a change toward deny has passed
//! [`Registry::barrier`], no handshake over that CA completes, in whatever state it was.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::ca::error::Refusal;
use crate::ca::path::Refused;
use crate::ca::registry::Registry;
use crate::tls::live::{LivePeer, LivePeers, PeerSlot};
use crate::tls::verifier::{REFUSED, SLOT};

/// A finished handshake.
#[derive(Debug)]
pub struct Accepted<IO> {
    /// The encrypted stream.
    pub stream: TlsStream<IO>,
    /// Who is at the other end. Drop it only when the connection is over.
    pub live: LivePeer,
}

/// Why there is no connection. Already logged and counted when it is returned.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The client did not finish in time.
    #[error("the handshake did not finish in time")]
    Timeout,
    /// The connection broke, or the client did not speak TLS.
    #[error("the handshake failed: {0}")]
    Failed(#[source] std::io::Error),
    /// The client's certificate was refused.
    #[error("the client was refused: {}", .0.refusal)]
    Refused(Box<Refused>),
}

/// Accepts TLS connections of peers whose CA is active. Cheap to clone.
#[derive(Clone)]
pub struct GateAcceptor {
    tls: TlsAcceptor,
    registry: Arc<Registry>,
    peers: Arc<LivePeers>,
    limit: Duration,
}

impl GateAcceptor {
    /// An acceptor over a configuration whose verifier asks `registry`
    /// (see [`server_config`](crate::tls::server_config::server_config)), that enters accepted
    /// peers into `peers`. A handshake may take `limit`.
    pub fn new(
        config: Arc<ServerConfig>,
        registry: Arc<Registry>,
        peers: Arc<LivePeers>,
        limit: Duration,
    ) -> Self {
        Self {
            tls: TlsAcceptor::from(config),
            registry,
            peers,
            limit,
        }
    }

    /// How long a handshake may take.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Log and count a client that connected and said nothing within the limit, for callers that
    /// wait for its first octets before they start the handshake.
    pub fn report_silent(&self, remote: SocketAddr) {
        report::<()>(&Err(AcceptError::Timeout), remote, self.limit);
    }

    /// Run the handshake. The caller runs it in a task of its own.
    ///
    /// # Errors
    /// Why there is no connection; it is logged and counted already.
    pub async fn accept<IO>(&self, io: IO, remote: SocketAddr) -> Result<Accepted<IO>, AcceptError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let started = std::time::Instant::now();
        let result = tokio::time::timeout(self.limit, self.handshake(io))
            .await
            .unwrap_or(Err(AcceptError::Timeout));
        report(&result, remote, started.elapsed());
        result
    }

    async fn handshake<IO>(&self, io: IO) -> Result<Accepted<IO>, AcceptError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let slot = PeerSlot::default();
        let refused: Arc<OnceLock<Refused>> = Arc::default();
        let accepting = self.tls.accept(io);
        let scoped = REFUSED.scope(Arc::clone(&refused), SLOT.scope(slot.clone(), accepting));
        let mut scoped = pin!(scoped);
        let mut live: Option<LivePeer> = None;

        // One step a wake-up. The peer enters the index in the step that accepted it.
        let stream = std::future::poll_fn(|context| {
            self.registry.handshake_step(|| {
                if let Some(cut) = live
                    .as_ref()
                    .and_then(|live| self.registry.objection(live.peer().admitted(), now()))
                {
                    return Poll::Ready(Err(self.withdrawn(&slot, cut)));
                }
                let polled = scoped.as_mut().poll(context);
                if live.is_none()
                    && let Some(peer) = slot.peer()
                {
                    match self.peers.enter(peer.clone(), &self.registry, now()) {
                        Ok(entered) => live = Some(entered),
                        Err(refusal) => {
                            return Poll::Ready(Err(self.withdrawn(&slot, refusal)));
                        }
                    }
                }
                polled.map_err(|error| match refused.get() {
                    Some(refused) => AcceptError::Refused(Box::new(refused.clone())),
                    None => AcceptError::Failed(error),
                })
            })
        })
        .await?;
        match live {
            Some(live) => Ok(Accepted { stream, live }),
            // Only a resumed session gets here without having met the verifier, and there is
            // no resumption.
            None => Err(AcceptError::Refused(Box::new(Refused {
                refusal: Refusal::InvalidPath("the verifier was not asked".to_owned()),
                device: None,
                ca: None,
            }))),
        }
    }

    fn withdrawn(&self, slot: &PeerSlot, refusal: Refusal) -> AcceptError {
        AcceptError::Refused(Box::new(Refused {
            refusal,
            device: slot.peer().map(|peer| peer.serial().clone()),
            ca: slot.peer().map(|peer| peer.ca_sn().clone()),
        }))
    }
}

fn report<IO>(result: &Result<Accepted<IO>, AcceptError>, remote: SocketAddr, took: Duration) {
    let handshake_ms = took.as_secs_f64() * 1000.0;
    let outcome = match result {
        Ok(_) => "accepted",
        Err(AcceptError::Timeout) => {
            tracing::info!(client.addr = %remote, handshake_ms, reason = "timeout", "handshake not finished in time");
            "timeout"
        }
        Err(AcceptError::Failed(error)) => {
            tracing::info!(client.addr = %remote, handshake_ms, reason = "tls", %error, "handshake failed");
            "tls"
        }
        Err(AcceptError::Refused(refused)) => {
            tracing::info!(
                client.addr = %remote,
                handshake_ms,
                reason = refused.refusal.reason(),
                ca.sn = refused.ca.as_ref().map(tracing::field::display),
                device.sn = refused.device.as_ref().map(tracing::field::display),
                detail = %refused.refusal,
                "client certificate refused"
            );
            refused.refusal.reason()
        }
    };
    metrics::counter!("portcullis_handshakes_total", "outcome" => outcome).increment(1);
    metrics::histogram!("portcullis_handshake_seconds").record(took.as_secs_f64());
}

fn now() -> i64 {
    // A clock before 1970 makes every certificate invalid, which is the safe side.
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_secs()).ok())
        .unwrap_or(i64::MAX)
}
