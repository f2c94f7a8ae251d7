//! The admin door inside the broker: commands published to `$CONTROL/portcullis/v1`.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;

use bytes::Bytes;

use crate::tls::peer::VerifiedPeer;

/// The topic that takes commands.
pub const COMMAND_TOPIC: &str = "$CONTROL/portcullis/v1";

/// The topic that results are published to when a command names no response topic
/// (MQTT 3.1.1 has none).
pub const DEFAULT_RESPONSE_TOPIC: &str = "$CONTROL/portcullis/v1/response";

/// Carries out commands. `admin` implements it over the same operations as HTTP.
pub trait CommandHandler: Send + Sync + 'static {
    /// Carry out one JSON command of an authorized administrator and give its JSON answer.
    /// Never fails: a bad command has an answer that says what is wrong.
    fn handle(
        &self,
        peer: &VerifiedPeer,
        address: SocketAddr,
        command: Bytes,
    ) -> Pin<Box<dyn Future<Output = Bytes> + Send + '_>>;
}
