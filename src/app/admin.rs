//! The admin API and the control topic, put together.

use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;

use super::gate::{self, GateError};
use super::replay::Keeper;
use crate::admin::command::{Commands, Owner};
use crate::admin::local::LocalListener;
use crate::admin::router::Api;
use crate::admin::server::AdminServer;
use crate::admin::service::Service;
use crate::admin::signature::authenticator::Authenticator;
use crate::admin::signature::replay::ReplayGuard;
use crate::ca::lifecycle::Status;
use crate::config;
use crate::control::access_key::{AccessKey, KeyOrigin};
use crate::control::grant::KeyGrant;
use crate::control::keys::KeySettings;
use crate::control::{Clock, Control};

/// What both doors carry out calls with.
pub(super) fn service(config: &config::Admin, control: &Control) -> Arc<Service> {
    let operations = Arc::new(control.clone());
    Arc::new(Service::new(operations, config.service.clone()))
}

/// The door inside the broker.
pub(super) fn commands(service: Arc<Service>, control: &Control) -> Commands {
    Commands::new(service, owner(control))
}

fn owner(control: &Control) -> Owner {
    let control = control.clone();
    Arc::new(move |instance| control.owner(instance))
}

/// The access keys of the configuration, and how others are kept.
pub(super) fn keys(config: &config::Admin) -> KeySettings {
    let configured = config.access_keys.iter().map(|key| AccessKey {
        id: key.id.clone(),
        secret: key.secret.clone(),
        account: key.account.clone(),
        grant: Arc::new(KeyGrant::new(key.policy.clone())),
        status: Status::Active,
        origin: KeyOrigin::Configuration,
    });
    KeySettings {
        configured: configured.collect(),
        encryption: config.secret_encryption.clone(),
    }
}

/// Where the admin API listens.
pub(super) struct Doors {
    pub(super) network: TcpListener,
    /// For administrators on the host.
    pub(super) local: Option<LocalListener>,
}

/// The HTTP door.
pub(super) fn server(
    config: &config::Admin,
    doors: Doors,
    service: Arc<Service>,
    control: &Control,
    metrics: Option<PrometheusHandle>,
    clock: Clock,
    (keeper, replays): (Arc<Keeper>, ReplayGuard),
) -> Result<AdminServer, GateError> {
    let tls = match &config.transport {
        config::AdminTransport::Plain => None,
        config::AdminTransport::Tls { certificate, key } => {
            Some(Arc::new(gate::plain_server(certificate, key)?))
        }
    };
    let control = control.clone();
    let api = Api {
        service,
        authenticator: Authenticator::new(control.access_keys(), config.signature_v1, replays),
        owner: owner(&control),
        only_instance: control.only_instance(),
        ready: Arc::new(move || {
            if !control.is_ready() {
                Err("changes of trust are not durable, or the broker is ending".to_owned())
            } else if keeper.is_failing() {
                Err("used nonces are not durable: the admin API may only read and deny".to_owned())
            } else {
                Ok(())
            }
        }),
        metrics: Arc::new(move || {
            metrics
                .as_ref()
                .map(PrometheusHandle::render)
                .unwrap_or_default()
        }),
        clock,
        limits: config.requests.clone(),
    };
    Ok(AdminServer::new(
        doors.network,
        tls,
        doors.local,
        api,
        config.connections.clone(),
    ))
}
