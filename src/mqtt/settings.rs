//! What a broker is built from: plain values, each with its unit and default.

use std::num::NonZeroU32;
use std::time::Duration;

use super::access::rules::AccessSettings;
use super::bus::BusSettings;
use super::sys::SysSettings;
use super::topics::TopicLimits;

/// The settings of one broker (one instance).
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The bus: number of shards, its bounds and time limits.
    pub bus: BusSettings,
    /// What a peer can make grow, and how far.
    pub limits: Limits,
    /// What is decided one way or the other.
    pub policy: Policy,
    /// Who may publish and subscribe where. Default: everybody everywhere.
    pub access: AccessSettings,
    /// How operators are told.
    pub sys: SysSettings,
}

/// Limits on everything a peer can make grow.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at the same time, handshakes included. Those beyond are closed. Default 50,000.
    pub max_connections: usize,
    /// TLS handshakes at the same time. Those beyond wait. Default 4,096.
    pub max_handshakes: usize,
    /// What one address of clients may have of these, at each address that is listened on.
    pub per_address: PerAddress,
    /// From the end of the handshake to a whole CONNECT; over WebSocket, to the request for one,
    /// and as long again from there. Default 10 s.
    pub connect_timeout: Duration,
    /// How long a client may take nothing while there is something to send, and how long one to which
    /// nothing can be sent any more is heard at most. Default 30 s.
    pub write_timeout: Duration,
    /// How long CONNECT, or an operator who closes a connection, waits for the previous connection
    /// of the session to end. Default 10 s.
    pub takeover_timeout: Duration,
    /// How long connections may take to end at shutdown. Default 10 s.
    pub shutdown_grace: Duration,
    /// Largest packet a client may send, in octets, 256 to 268,435,460. Default 1 MiB.
    pub max_packet: usize,
    /// Longest client id, in octets. Default 256.
    pub max_client_id: usize,
    /// QoS 2 messages of a client in progress, and the receive maximum told to MQTT 5 clients.
    /// Default 1,024.
    pub receive_maximum: u16,
    /// QoS 1 and 2 messages on the way to a client without acknowledgement; a client's own receive
    /// maximum can make it less. Default 256.
    pub max_inflight: u16,
    /// Topic aliases a client may introduce, and those used toward it. Default 32.
    pub max_aliases: u16,
    /// Longest session expiry, in seconds; what a client asks beyond is reduced to it, and so are
    /// the sessions of 3.1.1 that are not clean. `u32::MAX` is for ever. Default 604,800 (a week).
    pub max_session_expiry: u32,
    /// Longest keep alive, in seconds; a client that wants a longer one or none is told this one
    /// (MQTT 5) or held to it (3.1.1). Default: none.
    pub max_keep_alive: Option<u16>,
    /// Sessions, with and without connection. Default 200,000.
    pub max_sessions: usize,
    /// Subscriptions of one session. Default 1,024.
    pub max_subscriptions: usize,
    /// Messages waiting in one session. Default 50,000.
    pub queue_messages: usize,
    /// Octets of messages waiting in one session. Default 16 MiB.
    pub queue_bytes: usize,
    /// Octets of messages waiting in all sessions together. Default 1 GiB.
    pub total_queue_bytes: usize,
    /// How long a message may wait in a session before it is sent the first time. Default: as long
    /// as the session.
    pub queue_age: Option<Duration>,
    /// Retained messages. Default 100,000.
    pub retained_messages: usize,
    /// Octets of retained messages. Default 256 MiB.
    pub retained_bytes: usize,
    /// Topics and filters: length and levels.
    pub topics: TopicLimits,
    /// Largest command of an administrator, in octets. Default 256 KiB.
    pub command_bytes: usize,
    /// Commands of administrators carried out at the same time. Default 16.
    pub commands_at_once: usize,
    /// How long a command may take. Default 60 s.
    pub command_timeout: Duration,
}

/// Limits for one address that clients come from: one of IPv4, or a /64 of IPv6. `None` is no
/// limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PerAddress {
    /// Connections at the same time, handshakes included. Those beyond are closed. Default 25,000.
    pub connections: Option<usize>,
    /// TLS handshakes at the same time. Those beyond wait. Default 1,024.
    pub handshakes: Option<usize>,
    /// New connections in a second, on average over ten. Those beyond are closed. Default: no
    /// limit, since a fleet behind one address comes back all at once.
    pub connects_per_second: Option<NonZeroU32>,
}

impl PerAddress {
    /// The milder of each limit, where two would hold.
    pub(super) fn milder(self, other: Self) -> Self {
        Self {
            connections: self.connections.zip(other.connections).map(most),
            handshakes: self.handshakes.zip(other.handshakes).map(most),
            connects_per_second: (self.connects_per_second)
                .zip(other.connects_per_second)
                .map(most),
        }
    }
}

fn most<T: Ord>((one, other): (T, T)) -> T {
    one.max(other)
}

impl Default for PerAddress {
    fn default() -> Self {
        Self {
            connections: Some(25_000),
            handshakes: Some(1_024),
            connects_per_second: None,
        }
    }
}

/// What is decided one way or the other; the stricter way first.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Which peers of an administrators' CA are administrators.
    pub administrators: Administrators,
    /// Which client ids a device may use.
    pub client_id: ClientIdPolicy,
    /// What two certificates have in common if they are of the same device.
    pub identity: IdentityPolicy,
    /// What is dropped from a full queue.
    pub overflow: Overflow,
    /// What happens to the will of a device that is cut.
    pub will_on_cut: WillOnCut,
    /// What happens to the session of a device that is cut.
    pub session_on_cut: SessionOnCut,
}

/// Which peers of an administrators' CA are administrators. The others are clients like any.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Administrators {
    /// Those with one of these common names.
    Named(Vec<String>),
    /// All of them.
    #[default]
    All,
}

/// Which client ids a device may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientIdPolicy {
    /// The common name of its certificate only.
    CommonName,
    /// The common name, or what begins with it and `-`, `_`, `.`, `:` or `/`.
    Prefix,
    /// One of the subject alternative names of its certificate: host name, URI or mail address,
    /// octet for octet.
    San,
    /// Any that no session of another device has.
    #[default]
    Any,
}

/// What makes a session the same device's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IdentityPolicy {
    /// The same certificate: issuer and serial number. A renewed certificate starts anew.
    Certificate,
    /// The same name by the same authority: issuer and common name (serial number if the
    /// certificate has none). A renewed certificate keeps its session.
    #[default]
    Name,
}

/// What is dropped from a full queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// What does not fit.
    #[default]
    DropNewest,
    /// What has waited longest.
    DropOldest,
}

/// What happens to the will of a device that is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WillOnCut {
    /// It is thrown away.
    Suppress,
    /// It is published at the cut, its delay notwithstanding.
    #[default]
    Publish,
}

/// What happens to the session of a device that is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SessionOnCut {
    /// It ends.
    Discard,
    /// It stays as after any loss of the connection: subscriptions and queue wait until the
    /// device is let in again or the session expires.
    #[default]
    Keep,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 50_000,
            max_handshakes: 4_096,
            per_address: PerAddress::default(),
            connect_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            takeover_timeout: Duration::from_secs(10),
            shutdown_grace: Duration::from_secs(10),
            max_packet: 1 << 20,
            max_client_id: 256,
            receive_maximum: 1_024,
            max_inflight: 256,
            max_aliases: 32,
            max_session_expiry: 604_800,
            max_keep_alive: None,
            max_sessions: 200_000,
            max_subscriptions: 1_024,
            queue_messages: 50_000,
            queue_bytes: 16 << 20,
            total_queue_bytes: 1 << 30,
            queue_age: None,
            retained_messages: 100_000,
            retained_bytes: 256 << 20,
            topics: TopicLimits::default(),
            command_bytes: 256 << 10,
            commands_at_once: 16,
            command_timeout: Duration::from_secs(60),
        }
    }
}
