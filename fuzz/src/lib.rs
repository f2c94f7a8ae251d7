//! What the targets share: an authenticator with one key, at a time that stands still.

use std::pin::Pin;
use std::sync::Arc;

use portcullis::admin::signature::authenticator::Authenticator;
use portcullis::admin::signature::nonce::UsedNonce;
use portcullis::admin::signature::replay::{KeepNonces, Kept, ReplayGuard};
use portcullis::ca::lifecycle::Status;
use portcullis::config::SignatureV1;
use portcullis::control::access_key::{AccessKey, AccessKeys, KeyOrigin};
use portcullis::control::grant::KeyGrant;
use portcullis::secret::Secret;

/// The one access key there is. The seeds name it.
pub const KEY: &str = "LTAI5tFakeKeyId000001";

/// The time at which everything happens, Unix milliseconds: 2026-11-24T08:40:00Z. The seeds were
/// signed shortly before.
pub const NOW_MS: i64 = 1_795_509_600_000;

/// A CONNECT of MQTT 3.1.1 with a clean session.
pub const CONNECT_V311: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c";

/// A CONNECT of MQTT 5 with a clean start.
pub const CONNECT_V5: &[u8] = b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01c";

/// The secret of [`KEY`].
pub fn secret() -> Secret {
    Secret::new("FakeSecret0123456789abcdefghij".to_owned())
}

/// Checks signatures of [`KEY`], or of a key of that name with a secret that nobody knows.
pub fn authenticator(secret: Secret) -> Authenticator {
    let key = AccessKey {
        id: KEY.parse().expect("a key id"),
        secret,
        account: "owner".parse().expect("an account id"),
        grant: Arc::new(KeyGrant::new(None)),
        status: Status::Active,
        origin: KeyOrigin::Configuration,
    };
    let keys: AccessKeys = [key].into_iter().collect();
    let replays = ReplayGuard::new(Arc::new(Nowhere), 0, []);
    Authenticator::new(Arc::new(keys), SignatureV1::Accept, replays)
}

/// Nothing is carried out here, so nothing needs to be kept.
struct Nowhere;

impl KeepNonces for Nowhere {
    fn keep(
        &self,
        _nonce: UsedNonce,
        _forgotten: i64,
    ) -> Pin<Box<dyn Future<Output = Kept> + Send + '_>> {
        Box::pin(async { Kept::Yes })
    }
}
