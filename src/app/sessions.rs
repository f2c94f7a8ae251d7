//! What keeps the sessions of each instance, from its file in the data directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::JoinSet;
use tracing::Instrument;

use super::StartError;
use crate::ca::id::InstanceId;
use crate::config::{Config, Instance, Persistence};
use crate::mqtt::broker::{Broker, ResumeError};
use crate::mqtt::hub::Hooks;
use crate::mqtt::persist::Keeper;
use crate::store::sessions::{self, SqliteSessions};

/// The broker of an instance, with the sessions and retained messages that were kept.
pub(super) async fn resume(
    config: &Config,
    instance: &Instance,
    hooks: Hooks,
) -> Result<Broker, StartError> {
    let keeper = keeper(config, instance).await?;
    let kept = keeper.is_on();
    let resumed = Broker::resume(instance.mqtt.clone(), hooks, keeper).await;
    let (broker, restored) = resumed.map_err(|error| match error {
        ResumeError::Bus(source) => StartError::Bus(source),
        ResumeError::Store(source) => StartError::Sessions {
            instance: instance.id.clone(),
            source,
        },
    })?;
    if kept {
        tracing::info!(
            instance = %instance.id,
            sessions = restored.sessions,
            messages = restored.messages,
            retained = restored.retained,
            expired = restored.expired,
            over_limit = restored.over_limit,
            owner_changed = restored.owner_changed,
            unreadable = restored.unreadable,
            dropped = restored.dropped,
            "sessions and retained messages are back"
        );
    }
    Ok(broker)
}

/// Write what the brokers have, side by side, each for at most so long.
pub(super) async fn finish(
    brokers: impl IntoIterator<Item = (InstanceId, Arc<Broker>)>,
    limit: Duration,
) {
    let mut writing = JoinSet::new();
    for (id, broker) in brokers {
        let span = tracing::info_span!("end", instance = %id);
        writing.spawn(async move { broker.finish(limit).await }.instrument(span));
    }
    // What was missed is logged.
    writing.join_all().await;
}

async fn keeper(config: &Config, instance: &Instance) -> Result<Keeper, StartError> {
    let path = path(&config.data_dir, &instance.id);
    let persistence = instance.persistence;
    let opened = tokio::task::spawn_blocking(move || match persistence {
        Persistence::Off => {
            if sessions::remove(&path)? {
                tracing::warn!(
                    path = %path.display(),
                    "sessions and retained messages of an earlier start are removed, since persistence is off"
                );
            }
            Ok(None)
        }
        Persistence::On => SqliteSessions::open(&path).map(Some),
    });
    let opened = opened.await.map_err(|_| StartError::Interrupted)?;
    let store = opened.map_err(|source| StartError::Sessions {
        instance: instance.id.clone(),
        source,
    })?;
    Ok(match store {
        None => Keeper::off(),
        Some(store) => Keeper::on(
            Arc::new(store),
            Arc::new(SystemTime::now),
            config.checkpoint,
        ),
    })
}

/// Its file. The name of an instance is one for files, too.
fn path(data_dir: &Path, instance: &InstanceId) -> PathBuf {
    data_dir.join(format!("sessions-{instance}.db"))
}
