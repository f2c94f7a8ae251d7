//! Why a chain of certificates would be let in or refused.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::UnixTime;

use crate::ca::explain::{Chain, Explanation, Standing};
use crate::ca::id::CaId;
use crate::control::{Answer, Caller, Control, ControlError, Door, Inner, Instance, Need};

/// An explanation, with what people call the CAs in it.
#[derive(Debug, Clone)]
pub struct Explained {
    /// What the gate says, and why.
    pub explanation: Explanation,
    /// The names of the registered CAs that it speaks of.
    pub names: HashMap<CaId, String>,
    /// At which moment, Unix seconds.
    pub at: i64,
}

impl Control {
    /// What a handshake with this chain (PEM, the device's certificate first) would come to now,
    /// and why. Changes nothing, and needs no private key: that the client owns the key of its
    /// certificate is shown by a handshake only.
    ///
    /// # Errors
    /// If the caller may not, or the text holds no certificates.
    pub async fn explain(
        &self,
        caller: &Caller,
        instance: &str,
        chain_pem: &str,
    ) -> Answer<Explained> {
        let at = self.0.authorize(caller, instance, Need::GetCaCertificate)?;
        let chain = Chain::from_pem(chain_pem)
            .map_err(|error| ControlError::Parameter(format!("ChainContent: {error}")))?;
        let registry = Arc::clone(&at.registry);
        let inner = Arc::clone(&self.0);
        let (now, explanation) = at
            .aside(caller.door, move || {
                // Only now, since the call may have waited: states and dates are of one time.
                let now = inner.now();
                let seconds = u64::try_from(now).unwrap_or_default();
                let moment = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
                (now, registry.explain(&chain, moment))
            })
            .await?;
        // Once more: a key that was revoked while the call waited is told nothing.
        self.0.authorize(caller, instance, Need::GetCaCertificate)?;
        let names = self.0.names_in(&explanation);
        Ok(Explained {
            explanation,
            names,
            at: now,
        })
    }
}

impl Instance {
    /// Do work that takes long on a thread that nobody waits for. Those who come over the network
    /// take turns, and are told to come again if theirs does not come soon.
    pub(crate) async fn aside<T: Send + 'static>(
        &self,
        door: Door,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Answer<T> {
        let _turn = match door {
            Door::Host | Door::System => None,
            Door::Http | Door::Mqtt => {
                // Whoever waits holds up others elsewhere: a few wait, the rest come again.
                let Ok(_place) = self.aside_queue.try_acquire() else {
                    return Err(ControlError::Busy);
                };
                match tokio::time::timeout(PATIENCE, self.aside.acquire()).await {
                    Ok(turn) => turn.ok(),
                    Err(_) => return Err(ControlError::Busy),
                }
            }
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| ControlError::Internal(format!("the work did not end: {error}")))
    }
}

impl Inner {
    fn names_in(&self, explanation: &Explanation) -> HashMap<CaId, String> {
        let ledger = self.ledger();
        let steps = explanation.paths.iter().flat_map(|path| &path.steps);
        steps
            .filter_map(|step| match step.standing {
                Standing::Registered { ca, .. } => Some(ca),
                Standing::Device(_) | Standing::Copy { .. } | Standing::Unregistered => None,
            })
            .filter_map(|id| Some((id, ledger.ca(id)?.record.name.clone())))
            .collect()
    }
}

/// How many calls wait for their turn, of an instance.
pub(crate) const MOST_WAITING: usize = 4;

/// How long a call waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);
