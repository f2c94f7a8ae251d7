//! The guard against repeated requests, over the file that keeps what was used.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use super::{StartError, now_ms};
use crate::admin::signature::nonce::UsedNonce;
use crate::admin::signature::replay::{self, KeepNonces, Kept, ReplayGuard};
use crate::store::replay::{Durable, Missing, NonceRecord, ReplayStore};

/// The file in the data directory.
const DATABASE: &str = "replay.db";

/// The file, as the guard needs it.
pub(super) struct Keeper(ReplayStore);

/// Open the file and read what is in it. `missing` says what it means if there is none.
pub(super) async fn open(
    data_dir: &Path,
    missing: Missing,
) -> Result<(Arc<Keeper>, ReplayGuard), StartError> {
    let path = data_dir.join(DATABASE);
    let lost_before = now_ms().map(replay::lost_before);
    let opened =
        tokio::task::spawn_blocking(move || ReplayStore::open(&path, missing, lost_before));
    let (store, loaded) = opened
        .await
        .map_err(|_| StartError::Interrupted)?
        .map_err(StartError::Replay)?;
    let keeper = Arc::new(Keeper(store));
    let nonces = loaded.nonces.into_iter().map(|record| UsedNonce {
        key: record.key,
        hash: record.hash,
        minute: record.minute,
    });
    let shared = Arc::clone(&keeper) as Arc<dyn KeepNonces>;
    let guard = ReplayGuard::new(shared, loaded.forgotten, nonces);
    Ok((keeper, guard))
}

impl Keeper {
    /// Whether something waits for a disk that fails.
    pub(super) fn is_failing(&self) -> bool {
        self.0.is_failing()
    }
}

impl KeepNonces for Keeper {
    fn keep(
        &self,
        nonce: UsedNonce,
        forgotten: i64,
    ) -> Pin<Box<dyn Future<Output = Kept> + Send + '_>> {
        let record = NonceRecord {
            key: nonce.key,
            hash: nonce.hash,
            minute: nonce.minute,
        };
        Box::pin(async move {
            match self.0.keep(record, forgotten).await {
                Durable::NotYet => Kept::No,
                Durable::Yes => Kept::Yes,
            }
        })
    }
}
