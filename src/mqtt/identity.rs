//! Whose a connection is: the peer the gate let in, what it may be called, and what belongs to it.

use std::future::Future;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use bytestring::ByteString;

use super::settings::{Administrators, ClientIdPolicy, IdentityPolicy, Policy};
use crate::ca::id::{CaKeyId, CertSerial};
use crate::tls::live::{Cut, LivePeer};
use crate::tls::peer::{Purpose, VerifiedPeer};

/// A peer whose trust can end while it is connected.
pub trait Peer: Send + Sync + 'static {
    /// Who it is.
    fn verified(&self) -> &VerifiedPeer;
    /// Whether its trust has ended; asked before each packet.
    fn cut(&self) -> Option<Cut>;
    /// Resolves when its trust ends.
    fn until_cut(&self) -> impl Future<Output = Cut> + Send;
    /// Which certificate and which rule ended its trust, for the client and the log.
    fn cut_words(&self) -> Option<String> {
        None
    }
    /// Note by which client id it has connected.
    fn is_called(&self, _client_id: &str, _address: SocketAddr) {}
}

impl Peer for LivePeer {
    fn verified(&self) -> &VerifiedPeer {
        self.peer()
    }
    fn cut(&self) -> Option<Cut> {
        LivePeer::cut(self)
    }
    fn until_cut(&self) -> impl Future<Output = Cut> + Send {
        LivePeer::until_cut(self)
    }
    fn cut_words(&self) -> Option<String> {
        LivePeer::cut_words(self)
    }
    fn is_called(&self, client_id: &str, address: SocketAddr) {
        LivePeer::is_called(self, client_id, address);
    }
}

/// Whom a session belongs to. A session, live or stored, is given only to its owner: a client id
/// alone, which anybody can choose, opens nothing.
///
/// The authority is its name and key, so that a renewed or cross-signed CA certificate makes no
/// difference, and an authority of the same name with another key does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    administrator: bool,
    issuer: CaKeyId,
    name: OwnerName,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum OwnerName {
    CommonName(String),
    Serial(CertSerial),
}

impl Owner {
    /// The owner that this peer is.
    pub fn of(peer: &VerifiedPeer, policy: &Policy) -> Self {
        Self::new(
            peer.issuer(),
            peer.purpose(),
            peer.common_name(),
            peer.serial(),
            policy,
        )
    }

    /// The owner that a peer with such a certificate is.
    pub fn new(
        issuer: CaKeyId,
        purpose: Purpose,
        common_name: Option<&str>,
        serial: &CertSerial,
        policy: &Policy,
    ) -> Self {
        let name = match (policy.identity, common_name) {
            (IdentityPolicy::Name, Some(name)) => OwnerName::CommonName(name.to_owned()),
            (IdentityPolicy::Certificate, _) | (IdentityPolicy::Name, None) => {
                OwnerName::Serial(serial.clone())
            }
        };
        Self {
            administrator: administers(purpose, common_name, &policy.administrators),
            issuer,
            name,
        }
    }

    /// The authority that issued its certificate.
    pub fn issuer(&self) -> CaKeyId {
        self.issuer
    }

    /// Whether it is an administrator of the broker.
    pub fn is_administrator(&self) -> bool {
        self.administrator
    }
}

/// What an operator is shown of whoever has a session. Copied out of the peer, so that sessions
/// that wait do not keep certificates.
#[derive(Debug, Clone)]
pub struct Client {
    /// What its CA is for.
    pub purpose: Purpose,
    /// Serial number of the registered CA that let it in.
    pub ca_sn: CertSerial,
    /// Serial number of its certificate.
    pub serial: CertSerial,
    /// Common name of its certificate.
    pub common_name: Option<String>,
    /// Where it connects from.
    pub address: SocketAddr,
    /// When CONNECT was accepted, Unix milliseconds.
    pub since_ms: i64,
}

impl Client {
    /// The client that this peer is.
    pub fn of(peer: &VerifiedPeer, address: SocketAddr, now: SystemTime) -> Self {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            purpose: peer.purpose(),
            ca_sn: peer.ca_sn().clone(),
            serial: peer.serial().clone(),
            common_name: peer.common_name().map(str::to_owned),
            address,
            since_ms: i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        }
    }
}

/// Whether the peer was let in by a CA of administrators, and is one of them.
pub fn is_administrator(peer: &VerifiedPeer, named: &Administrators) -> bool {
    administers(peer.purpose(), peer.common_name(), named)
}

fn administers(purpose: Purpose, common_name: Option<&str>, named: &Administrators) -> bool {
    match (purpose, named) {
        (Purpose::Device, _) => false,
        (Purpose::Admin, Administrators::All) => true,
        (Purpose::Admin, Administrators::Named(names)) => {
            common_name.is_some_and(|own| names.iter().any(|name| name == own))
        }
    }
}

/// Whether the peer may call itself this. Administrators may take any id that is free.
pub fn may_use(peer: &VerifiedPeer, client_id: &str, policy: &Policy) -> bool {
    if is_administrator(peer, &policy.administrators) {
        return true;
    }
    let common_name = peer.common_name();
    match policy.client_id {
        ClientIdPolicy::Any => true,
        ClientIdPolicy::CommonName => common_name == Some(client_id),
        ClientIdPolicy::Prefix => common_name
            .and_then(|name| client_id.strip_prefix(name))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_', '.', ':', '/'])),
        ClientIdPolicy::San => peer.names().alternatives().any(|name| name == client_id),
    }
}

/// A client id for a peer that left the choice to the server (3.1.3.1). One that has no name of
/// the kind the policy wants gets one that [`may_use`] does not allow.
pub fn choose_client_id(peer: &VerifiedPeer, policy: ClientIdPolicy) -> ByteString {
    let random = uuid::Uuid::new_v4().simple();
    let chosen = match policy {
        ClientIdPolicy::Any => None,
        ClientIdPolicy::CommonName => peer.common_name().map(str::to_owned),
        ClientIdPolicy::Prefix => peer.common_name().map(|name| format!("{name}-{random}")),
        ClientIdPolicy::San => peer.names().alternatives().next().map(str::to_owned),
    };
    ByteString::from(chosen.unwrap_or_else(|| format!("auto-{random}")))
}
