//! The handshake, under a time limit, with the peer it proved.
//!
//! The handshake advances in steps between waits for the network. Each step runs under
//! [`Registry::handshake_step`], and begins by asking whether a peer whose certificate was
//! accepted in an earlier step is still welcome. So once a change toward deny has passed
//! [`Registry::barrier`], no handshake over that CA completes, in whatever state it was.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::ServerConfig;
use rustls::server::ClientHello;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_rustls::StartHandshake;
use tokio_rustls::server::TlsStream;

use crate::ca::error::Refusal;
use crate::ca::path::Refused;
use crate::ca::registry::Registry;
#[cfg(test)]
use crate::testing::schedule;
use crate::tls::gates::NoGate;
use crate::tls::hello::{self, ALERT_LIMIT, Hello};
use crate::tls::live::{LivePeer, LivePeers, PeerSlot};
use crate::tls::report::report;
use crate::tls::server_config::{CipherOrder, is_aes};
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
    /// The client asks for a server name that leads to no gate, or for none.
    #[error(transparent)]
    NoGate(NoGate),
}

impl AcceptError {
    /// The reason as one word for logs, metric labels and events, from a closed set.
    pub fn reason(&self) -> &'static str {
        match self {
            AcceptError::Timeout => "timeout",
            AcceptError::Failed(_) => "tls",
            AcceptError::Refused(refused) => refused.refusal.reason(),
            AcceptError::NoGate(no_gate) => no_gate.reason(),
        }
    }
}

/// Accepts TLS connections of peers whose CA is active. Cheap to clone.
#[derive(Clone)]
pub struct GateAcceptor {
    config: Arc<ServerConfig>,
    /// The same with our order of cipher suites.
    own_order: Arc<ServerConfig>,
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
        let mut own_order = ServerConfig::clone(&config);
        own_order.ignore_client_order = true;
        Self {
            own_order: Arc::new(own_order),
            config,
            registry,
            peers,
            limit,
        }
    }

    /// Choose the cipher suite by this order.
    #[must_use]
    pub fn with_cipher_order(self, order: CipherOrder) -> Self {
        match order {
            CipherOrder::Client => Self {
                own_order: Arc::clone(&self.config),
                ..self
            },
            CipherOrder::Cheapest => self,
        }
    }

    /// The configuration for this client.
    fn config_for(&self, hello: &ClientHello<'_>) -> Arc<ServerConfig> {
        let ours = &self.config.crypto_provider().cipher_suites;
        let mut wanted = hello.cipher_suites().iter();
        Arc::clone(
            match wanted.find(|suite| ours.iter().any(|our| our.suite() == **suite)) {
                Some(first) if !is_aes(*first) => &self.config,
                _ => &self.own_order,
            },
        )
    }

    /// How long a handshake may take.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Run the handshake. The caller runs it in a task of its own.
    ///
    /// # Errors
    /// Why there is no connection; it is logged and counted already.
    pub async fn accept<IO>(&self, io: IO, remote: SocketAddr) -> Result<Accepted<IO>, AcceptError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let accepting = Box::pin(async move {
            let start = hello::read(io).await?;
            self.rest(*start).await
        });
        self.within_limit(accepting, remote, None, Instant::now())
            .await
    }

    /// Run the rest of a handshake whose ClientHello is read. The limit counts from when it began.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub async fn accept_hello<IO>(&self, hello: Hello<IO>) -> Result<Accepted<IO>, AcceptError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        // The answer to the ClientHello is made in the first step, not here.
        let accepting = Box::pin(self.rest(*hello.start));
        let name = hello.server_name.as_deref();
        self.within_limit(accepting, hello.remote, name, hello.began)
            .await
    }

    /// What comes after the ClientHello.
    async fn rest<IO>(&self, start: StartHandshake<IO>) -> io::Result<TlsStream<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let config = self.config_for(&start.client_hello());
        let mut bad = None;
        let rest = start.into_stream_with(config, |connection| {
            // What came in one go with the ClientHello is looked at in one go.
            bad = connection.process_new_packets().err();
        });
        match bad {
            None => rest.await,
            Some(error) => {
                // It sends the alert, and cannot come to another end.
                let _ = tokio::time::timeout(ALERT_LIMIT, rest).await;
                Err(io::Error::new(io::ErrorKind::InvalidData, error))
            }
        }
    }

    /// `accepting` is on the heap, so that it is not kept in the task of the connection for as long
    /// as that lives.
    async fn within_limit<IO>(
        &self,
        accepting: Pin<Box<impl Future<Output = io::Result<TlsStream<IO>>>>>,
        remote: SocketAddr,
        server_name: Option<&str>,
        began: Instant,
    ) -> Result<Accepted<IO>, AcceptError> {
        let result = tokio::time::timeout_at(began + self.limit, self.handshake(accepting))
            .await
            .unwrap_or(Err(AcceptError::Timeout))
            .map(|(stream, live)| Accepted { stream, live });
        let told = result.as_ref().map(|_| ());
        report(told, remote, server_name, began.elapsed());
        result
    }

    /// Run `accepting`, which gives the stream and asks the verifier on its way.
    pub(super) async fn handshake<S>(
        &self,
        accepting: Pin<Box<impl Future<Output = io::Result<S>>>>,
    ) -> Result<(S, LivePeer), AcceptError> {
        let slot = PeerSlot::default();
        let refused: Arc<OnceLock<Refused>> = Arc::default();
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
                #[cfg(test)]
                schedule::point();
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
            Some(live) => Ok((stream, live)),
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

fn now() -> i64 {
    // A clock before 1970 makes every certificate invalid, which is the safe side.
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_secs()).ok())
        .unwrap_or(i64::MAX)
}
