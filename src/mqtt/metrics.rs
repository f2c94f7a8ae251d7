//! The metrics of the session layer. Labels come from the closed sets here, never from a client.

use metrics::{Counter, counter, gauge};

use super::session::room::Dropped;

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The client sent DISCONNECT.
    ClientLeft,
    /// The client closed the connection, or it broke.
    ConnectionLost,
    /// Nothing came for one and a half times the keep alive.
    KeepAliveTimeout,
    /// CONNECT did not come in time.
    ConnectTimeout,
    /// CONNECT was refused.
    Refused,
    /// The client broke a rule of the protocol.
    ProtocolError,
    /// The client did something it may not.
    NotAuthorized,
    /// The client did not take what was sent.
    SlowConsumer,
    /// Another connection took the session over.
    TakenOver,
    /// An administrator ended it.
    Administrative,
    /// The trust in the certificate ended.
    Cut,
    /// The bus did not take a message.
    BusOverloaded,
    /// The server stops.
    Shutdown,
}

impl Ending {
    /// The name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientLeft => "client_left",
            Self::ConnectionLost => "connection_lost",
            Self::KeepAliveTimeout => "keep_alive_timeout",
            Self::ConnectTimeout => "connect_timeout",
            Self::Refused => "refused",
            Self::ProtocolError => "protocol_error",
            Self::NotAuthorized => "not_authorized",
            Self::SlowConsumer => "slow_consumer",
            Self::TakenOver => "taken_over",
            Self::Administrative => "administrative",
            Self::Cut => "cut",
            Self::BusOverloaded => "bus_overloaded",
            Self::Shutdown => "shutdown",
        }
    }
}

/// Why a message did not reach a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drop {
    /// The queue of the session is full.
    QueueFull,
    /// All sessions together have as much waiting as they may.
    AllQueuesFull,
    /// It expired while it waited.
    Expired,
    /// It waited longer than messages may.
    TooOld,
    /// It is larger than the client takes.
    TooLarge,
    /// There is no room for a retained message.
    RetainedFull,
    /// It waited for a client that may not read it any more.
    NotAuthorized,
    /// It waited for a restart, and the limits do not allow it any more.
    OverLimit,
    /// It waited for a restart and could not be read.
    Unreadable,
}

impl Drop {
    fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::AllQueuesFull => "all_queues_full",
            Self::Expired => "expired",
            Self::TooOld => "too_old",
            Self::TooLarge => "too_large",
            Self::RetainedFull => "retained_full",
            Self::NotAuthorized => "not_authorized",
            Self::OverLimit => "over_limit",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Why administrators are not told of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOut {
    /// There were too many refusals in a second.
    TooManyRefusals,
    /// Too many events wait.
    QueueFull,
    /// The bus did not take it.
    BusOverloaded,
}

impl LeftOut {
    fn as_str(self) -> &'static str {
        match self {
            Self::TooManyRefusals => "too_many_refusals",
            Self::QueueFull => "queue_full",
            Self::BusOverloaded => "bus_overloaded",
        }
    }
}

/// Why a connection is closed before its handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unserved {
    /// There are too many.
    OverLimit,
    /// There are too many from its address.
    AddressConnections,
    /// Its address came too often.
    AddressRate,
    /// It comes from none of the trusted proxies.
    UntrustedProxy,
    /// It begins with something else than a header of the PROXY protocol.
    ProxyHeader,
    /// The header did not come in time.
    ProxyTimeout,
}

impl Unserved {
    /// The name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OverLimit => "over_limit",
            Self::AddressConnections => "address_connections",
            Self::AddressRate => "address_rate",
            Self::UntrustedProxy => "untrusted_proxy",
            Self::ProxyHeader => "proxy_header",
            Self::ProxyTimeout => "proxy_timeout",
        }
    }
}

/// What became of a session that was kept across a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is there again.
    Restored,
    /// It expired meanwhile.
    Expired,
    /// The limits do not allow it any more.
    OverLimit,
    /// Its client was an administrator and is none now, or the other way round.
    OwnerChanged,
    /// It makes no sense.
    Unreadable,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Restored => "restored",
            Self::Expired => "expired",
            Self::OverLimit => "over_limit",
            Self::OwnerChanged => "owner_changed",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Connections that a client holds now, counted while this lives.
pub struct Connected(());

impl Connected {
    /// One more.
    pub fn new() -> Self {
        gauge!("portcullis_mqtt_connections").increment(1.0);
        Self(())
    }
}

impl Default for Connected {
    fn default() -> Self {
        Self::new()
    }
}

impl std::ops::Drop for Connected {
    fn drop(&mut self) {
        gauge!("portcullis_mqtt_connections").decrement(1.0);
    }
}

/// A connection ended.
pub fn connection_ended(ending: Ending) {
    counter!("portcullis_mqtt_connections_ended_total", "reason" => ending.as_str()).increment(1);
}

/// A connection was closed before its handshake.
pub fn unserved(why: Unserved) {
    match why {
        Unserved::OverLimit => {
            counter!("portcullis_mqtt_connections_over_limit_total").increment(1);
        }
        why => {
            counter!("portcullis_mqtt_connections_unserved_total", "reason" => why.as_str())
                .increment(1);
        }
    }
}

/// A client asked for a WebSocket; `outcome` is why there is none, or `accepted`.
pub fn websocket_asked(outcome: &'static str) {
    counter!("portcullis_websocket_requests_total", "outcome" => outcome).increment(1);
}

/// A client broke a rule of WebSocket.
pub fn websocket_failed(rule: &'static str) {
    counter!("portcullis_websocket_failures_total", "reason" => rule).increment(1);
}

/// One session more, with or without connection. All brokers of the process count together.
pub fn session_began() {
    gauge!("portcullis_mqtt_sessions").increment(1.0);
}

/// One session less.
pub fn session_ended() {
    gauge!("portcullis_mqtt_sessions").decrement(1.0);
}

/// A session that was kept across a restart.
pub fn restored(outcome: Outcome) {
    counter!("portcullis_persistence_restored_total", "outcome" => outcome.as_str()).increment(1);
}

/// The counters that every message touches, looked up once.
pub struct PerMessage {
    /// Clients published a message, and the bus has it.
    pub received: Counter,
    /// Messages were sent to a client.
    pub sent: Counter,
}

impl PerMessage {
    /// To be made after the recorder is installed.
    pub fn new() -> Self {
        Self {
            received: counter!("portcullis_mqtt_messages_received_total"),
            sent: counter!("portcullis_mqtt_messages_sent_total"),
        }
    }
}

impl Default for PerMessage {
    fn default() -> Self {
        Self::new()
    }
}

/// Messages did not reach a client.
pub fn dropped(why: Drop, messages: usize) {
    if messages > 0 {
        counter!("portcullis_mqtt_messages_dropped_total", "reason" => why.as_str())
            .increment(messages as u64);
    }
}

/// Messages left the queue of a session, or did not get into it.
pub fn dropped_from_queue(messages: &Dropped) {
    dropped(Drop::QueueFull, messages.queue_full);
    dropped(Drop::AllQueuesFull, messages.all_queues_full);
    dropped(Drop::Expired, messages.expired);
    dropped(Drop::TooOld, messages.too_old);
}

/// An event was left out of what administrators are told.
pub fn event_left_out(why: LeftOut) {
    counter!("portcullis_mqtt_events_left_out_total", "reason" => why.as_str()).increment(1);
}

/// Publishing (`publish`), CONNECT with a will (`will`), subscribing (`subscribe`), or going on with a
/// subscription of an earlier connection (`resume`) was not permitted.
pub fn denied(action: &'static str) {
    counter!("portcullis_mqtt_denied_total", "action" => action).increment(1);
}

/// A command of an administrator came, and was carried out or not.
pub fn command(outcome: &'static str) {
    counter!("portcullis_mqtt_commands_total", "outcome" => outcome).increment(1);
}
