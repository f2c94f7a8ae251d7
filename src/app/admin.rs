//! The admin API and the control topic, put together.

use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;

use super::gate::{self, GateError};
use super::replay::Keeper;
use crate::admin::access_key::{AccessKey, AccessKeys, KeyState};
use crate::admin::command::Commands;
use crate::admin::router::Api;
use crate::admin::server::AdminServer;
use crate::admin::service::Service;
use crate::admin::signature::authenticator::Authenticator;
use crate::admin::signature::replay::ReplayGuard;
use crate::config;
use crate::control::{Clock, Control};

/// What both doors carry out calls with.
pub(super) fn service(config: &config::Admin, control: &Control) -> Arc<Service> {
    let operations = Arc::new(control.clone());
    Arc::new(Service::new(operations, config.service.clone()))
}

/// The door inside the broker.
pub(super) fn commands(service: Arc<Service>, control: &Control) -> Commands {
    let control = control.clone();
    Commands::new(service, Arc::new(move |instance| control.owner(instance)))
}

/// The HTTP door.
pub(super) fn server(
    config: &config::Admin,
    listener: TcpListener,
    service: Arc<Service>,
    control: &Control,
    metrics: Option<PrometheusHandle>,
    clock: Clock,
    (keeper, replays): (Arc<Keeper>, ReplayGuard),
) -> Result<AdminServer, GateError> {
    let keys: AccessKeys = config
        .access_keys
        .iter()
        .map(|key| AccessKey {
            id: key.id.clone(),
            secret: key.secret.clone(),
            account: key.account.clone(),
            state: KeyState::Enabled,
        })
        .collect();
    let tls = match &config.transport {
        config::AdminTransport::Plain => None,
        config::AdminTransport::Tls { certificate, key } => {
            Some(Arc::new(gate::plain_server(certificate, key)?))
        }
    };
    let control = control.clone();
    let api = Api {
        service,
        authenticator: Authenticator::new(Arc::new(keys), config.signature_v1, replays),
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
        listener,
        tls,
        api,
        config.connections.clone(),
    ))
}
