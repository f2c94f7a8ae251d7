//! The program put together: everything that is bound, opened, started and stopped.

mod admin;
mod banner;
mod crl_files;
mod desk;
pub mod dev_pki;
mod development;
mod gate;
mod listeners;
pub mod private_file;
pub mod process;
mod replay;
mod sessions;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::local::{LocalError, LocalListener};
use crate::admin::server::AdminServer;
use crate::audit::AuditLog;
use crate::ca::id::InstanceId;
use crate::config::{AdminTransport, Config, Wire};
use crate::control::{Control, ControlParts, InstanceSettings, Patience};
use crate::mqtt::broker::Broker;
use crate::mqtt::control_channel::CommandHandler;
use crate::mqtt::hub::Hooks;
use crate::mqtt::listener;
use crate::store::Store;
use crate::store::replay::Missing;
use crate::store::sqlite::SqliteStore;
use crate::telemetry;
use banner::Banner;
use crl_files::CrlFiles;
use desk::Desk;
use dev_pki::{DevPki, DevPkiError};
use development::Registry;
use listeners::{Listening, Reached};

pub use gate::GateError;

/// The broker, ready to serve: every socket is bound, everything that was kept is read.
pub struct App {
    banner: String,
    control: Control,
    admin: AdminServer,
    admin_address: SocketAddr,
    instances: Vec<Serving>,
    listening: Vec<Listening>,
    crl_files: CrlFiles,
    metrics: Option<PrometheusHandle>,
    grace: Duration,
    save_limit: Duration,
    /// The admin API is served there, and changes of trust are made there, from whichever door.
    desk: Desk,
}

/// An instance, and where it is reached.
struct Serving {
    id: InstanceId,
    mqtt: Reached,
    websocket: Option<Reached>,
    broker: Arc<Broker>,
}

/// Why the broker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("{what} cannot listen on {address}: {source}")]
    Bind {
        /// Which part wanted to.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// No client would be led to an instance, since another takes them.
    #[error("instance {instance} cannot be told apart from another on {address}")]
    Unreachable {
        /// The instance.
        instance: InstanceId,
        /// Where it is to listen.
        address: SocketAddr,
    },
    /// The system has nothing to start the threads of the admin API with.
    #[error("the thread of the admin API cannot be started: {0}")]
    Thread(#[source] std::io::Error),
    /// The development certificates cannot be made or used.
    #[error(transparent)]
    DevPki(#[from] DevPkiError),
    /// The registry's database cannot be opened.
    #[error("the registry cannot be opened: {0}")]
    Store(#[from] crate::store::StoreError),
    /// The record of used nonces cannot be opened.
    #[error("the record of requests cannot be opened: {0}")]
    Replay(#[source] crate::store::StoreError),
    /// The audit log cannot be opened.
    #[error(transparent)]
    Audit(#[from] crate::audit::AuditError),
    /// What is kept cannot be understood.
    #[error("the registry cannot be loaded: {0}")]
    Control(#[from] crate::control::start::OpenError),
    /// A certificate or key of the configuration cannot be used.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// The socket for administrators on the host cannot be had.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// What is kept of the sessions of an instance cannot be opened or read.
    #[error(
        "the kept sessions of instance {instance} cannot be read: {source}; to begin without them, move sessions-{instance}.db away from the data directory"
    )]
    Sessions {
        /// The instance.
        instance: InstanceId,
        /// Why.
        source: crate::store::StoreError,
    },
    /// The bus below the sessions does not start.
    #[error("the message bus does not start: {0}")]
    Bus(#[from] crate::mqtt::bus::BusError),
    /// A development CA cannot be registered.
    #[error("the development CA {name} cannot be registered: {source}")]
    Register {
        /// Its name.
        name: &'static str,
        /// Why.
        source: crate::control::ControlError,
    },
    /// The program was told to end while it started.
    #[error("the start was interrupted")]
    Interrupted,
}

impl App {
    /// Bind and open everything that `config` names. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// What cannot be bound, opened or read.
    pub async fn build(config: Config) -> Result<Self, StartError> {
        Self::build_until(config, &CancellationToken::new()).await
    }

    /// As [`build`](Self::build), unless `shutdown` is cancelled first. If it comes to nothing, the
    /// sessions that are back by then are written again: a will that was overdue waits in them.
    ///
    /// # Errors
    /// As [`build`](Self::build), and [`StartError::Interrupted`].
    pub async fn build_until(
        config: Config,
        shutdown: &CancellationToken,
    ) -> Result<Self, StartError> {
        let save_limit = config.save_limit;
        let mut resumed = Vec::new();
        let building = Self::assemble(config, &mut resumed);
        let built = shutdown.run_until_cancelled(building).await;
        let built = built.unwrap_or(Err(StartError::Interrupted));
        if built.is_err() {
            sessions::finish(resumed, save_limit).await;
        }
        built
    }

    async fn assemble(
        mut config: Config,
        resumed: &mut Vec<(InstanceId, Arc<Broker>)>,
    ) -> Result<Self, StartError> {
        let desk = Desk::open().map_err(StartError::Thread)?;
        let address = config.admin.listen;
        let binding = desk
            .handle()
            .spawn(async move { bind("the admin API", address) });
        let admin_listener = binding.await.map_err(|_| StartError::Interrupted)??;
        let mut listening = listeners::bind_all(&config)?;
        let metrics = telemetry::metrics::install();
        let mut dev_pki = development::prepare(&mut config).await?;
        let (control, head) = open_control(&config, desk.handle()).await?;
        control.make_changes_on(desk.handle().clone());
        let missing = match head {
            0 => Missing::New,
            _ => Missing::Lost,
        };
        let replays = replay::open(&config.data_dir, missing).await?;
        if let (Some(pki), Some(instance)) = (&mut dev_pki, config.instances.first()) {
            development::register(&control, instance, pki, Registry::at(head)).await?;
        }

        // What they revoke is out before anybody is served.
        let mut crl_files = CrlFiles::new(&config, &control);
        crl_files.look_first().await;

        let service = admin::service(&config.admin, &control);
        let commands = config.admin.control_channel.as_ref().map(|_| {
            let commands = admin::commands(Arc::clone(&service), &control);
            Arc::new(commands) as Arc<dyn CommandHandler>
        });
        let mut instances = Vec::new();
        for instance in &config.instances {
            let acceptor = gate::acceptor(&control, instance, &config.tls)?;
            let hooks = hooks(&control, commands.clone());
            let broker = Arc::new(sessions::resume(&config, instance, hooks).await?);
            resumed.push((instance.id.clone(), Arc::clone(&broker)));
            let (mqtt, websocket) = listeners::open(&mut listening, instance, &broker, &acceptor)?;
            control.serve_sessions(&instance.id, broker.operations());
            control.observe(&instance.id, broker.observer());
            instances.push(Serving {
                id: instance.id.clone(),
                mqtt,
                websocket,
                broker,
            });
        }
        let admin_address = local_address("the admin API", &admin_listener, config.admin.listen)?;
        let scheme = match config.admin.transport {
            AdminTransport::Plain => "http",
            AdminTransport::Tls { .. } => "https",
        };
        let endpoint = format!("{scheme}://{admin_address}");
        if let Some(pki) = &mut dev_pki {
            pki.set_endpoint(&endpoint)?;
        }
        let local = {
            let _there = desk.handle().enter();
            let local = config.admin.socket.as_deref().map(LocalListener::bind);
            local.transpose()?
        };
        let banner = banner(&config, &instances, &endpoint, dev_pki.as_ref());
        let admin = admin::server(
            &config.admin,
            admin::Doors {
                network: admin_listener,
                local,
            },
            service,
            &control,
            metrics.clone(),
            Arc::new(SystemTime::now),
            replays,
        )?;
        Ok(Self {
            banner,
            control,
            admin,
            admin_address,
            instances,
            listening,
            crl_files,
            metrics,
            grace: config.shutdown_grace,
            save_limit: config.save_limit,
            desk,
        })
    }

    /// What to tell whoever started it: addresses, directories, and in the development mode
    /// what to try next.
    pub fn banner(&self) -> &str {
        &self.banner
    }

    /// Where the admin API really listens.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// Where an instance really listens for MQTT over TLS.
    pub fn mqtt_address(&self, instance: &InstanceId) -> Option<SocketAddr> {
        let mut all = self.instances.iter();
        all.find(|serving| serving.id == *instance)
            .map(|serving| serving.mqtt.address)
    }

    /// Where an instance really listens for WebSocket over TLS, if it does.
    pub fn websocket_address(&self, instance: &InstanceId) -> Option<SocketAddr> {
        let mut all = self.instances.iter();
        let serving = all.find(|serving| serving.id == *instance)?;
        Some(serving.websocket.as_ref()?.address)
    }

    /// The handle to read and change trust.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Serve until `shutdown` is cancelled, then end what is connected within the grace time, and
    /// write the sessions of the instances that keep them.
    pub async fn run(self, shutdown: CancellationToken) {
        let tasks = TaskTracker::new();
        for serving in &self.instances {
            let reached = [Some(&serving.mqtt), serving.websocket.as_ref()];
            for (wire, reached) in Wire::ALL.into_iter().zip(reached) {
                if let Some(Reached { address, clients }) = reached {
                    let (id, what) = (&serving.id, wire.as_str());
                    tracing::info!(instance = %id, %address, server_names = clients, "serving {what} over TLS");
                }
            }
        }
        for Listening {
            listener,
            gates,
            proxies,
            ..
        } in self.listening
        {
            tasks.spawn(listener::serve(listener, gates, proxies, shutdown.clone()));
        }
        tracing::info!(address = %self.admin_address, "serving the admin API");
        tasks.spawn_on(self.admin.serve(shutdown.clone()), self.desk.handle());
        tasks.spawn(
            shutdown
                .clone()
                .run_until_cancelled_owned(self.crl_files.follow()),
        );
        if let Some(metrics) = self.metrics {
            tokio::spawn(
                shutdown
                    .clone()
                    .run_until_cancelled_owned(keep_metrics(metrics)),
            );
        }
        tasks.close();
        shutdown.cancelled().await;
        let drained = async {
            tasks.wait().await;
            self.control.close().await;
        };
        // Each part has the grace time for what it serves; a little more is for what is after.
        match tokio::time::timeout(self.grace + AFTER_GRACE, drained).await {
            Ok(()) => tracing::info!("ended in order"),
            Err(_) => tracing::warn!("not everything ended within the grace time"),
        }
        let brokers = self.instances.into_iter();
        let brokers = brokers.map(|serving| (serving.id, serving.broker));
        sessions::finish(brokers, self.save_limit).await;
    }
}

/// What a broker tells the rest of the program.
fn hooks(control: &Control, commands: Option<Arc<dyn CommandHandler>>) -> Hooks {
    let (admitting, leaving) = (control.clone(), control.clone());
    Hooks {
        commands,
        on_admitted: Arc::new(move |peer| admitting.device_admitted(peer)),
        on_left: Arc::new(move |peer| leaving.device_seen(peer)),
    }
}

/// Histograms keep every sample until this is called.
async fn keep_metrics(metrics: PrometheusHandle) {
    let mut ticks = tokio::time::interval(METRICS_UPKEEP);
    loop {
        ticks.tick().await;
        metrics.run_upkeep();
    }
}

fn bind(what: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    let listen = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        // Or a restart would have to wait for the connections of before.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(MAX_UNACCEPTED)
    };
    listen().map_err(|source| StartError::Bind {
        what,
        address,
        source,
    })
}

fn local_address(
    what: &'static str,
    listener: &TcpListener,
    address: SocketAddr,
) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(|source| StartError::Bind {
        what,
        address,
        source,
    })
}

/// Open what is kept, and read it into the gate's registries; gives the number of the last commit
/// as well.
/// What the control keeps doing is begun on `desk`: who changes something there need not wait for
/// somebody whose turn comes among the connections.
async fn open_control(config: &Config, desk: &Handle) -> Result<(Control, u64), StartError> {
    let database = config.data_dir.join(DATABASE);
    let (audit_path, rotation) = (config.audit_path.clone(), config.audit_rotation);
    let forward = config.audit_forward.clone();
    let opened = tokio::task::spawn_blocking(move || -> Result<_, StartError> {
        let store = SqliteStore::open(&database)?;
        // A clock before 1970 makes every certificate invalid, which is the safe side.
        let now_ms = now_ms().unwrap_or(i64::MAX);
        let (mut audit, open_intents) = AuditLog::open(&audit_path, rotation, now_ms)?;
        if let Some(forward) = forward {
            audit.forward(forward)?;
        }
        Ok((store, (audit, open_intents)))
    });
    let (store, audit) = opened.await.map_err(|_| StartError::Interrupted)??;
    let head = store.head().await?;
    let mut instances = Vec::new();
    for instance in &config.instances {
        let admin_ca = config.admin.control_channel.as_ref();
        let admin_ca = admin_ca.map(|channel| gate::admin_ca(&channel.ca));
        instances.push(InstanceSettings {
            id: instance.id.clone(),
            account: instance.account.clone(),
            region: instance.region.clone(),
            same_key: instance.same_key,
            on_inactivate: instance.on_inactivate,
            admin_cas: admin_ca.transpose()?.into_iter().collect(),
        });
    }
    let opening = Control::open(ControlParts {
        store: Arc::new(store),
        audit,
        instances,
        settings: config.registry.clone(),
        keys: admin::keys(&config.admin),
        clock: Arc::new(SystemTime::now),
        patience: Patience::default(),
    });
    let control = desk.spawn(opening).await;
    let control = control.map_err(|_| StartError::Interrupted)??;
    Ok((control, head))
}

fn banner(config: &Config, instances: &[Serving], admin: &str, dev_pki: Option<&DevPki>) -> String {
    let reached = instances.iter().zip(&config.instances);
    let instances: Vec<_> = reached
        .map(|(serving, instance)| banner::Reached {
            instance: &serving.id,
            address: serving.mqtt.address,
            websocket: (serving.websocket.as_ref())
                .zip(instance.websocket.as_ref())
                .map(|(reached, it)| (reached.address, it.door.path.as_str())),
            clients: serving.mqtt.clients.as_deref(),
        })
        .collect();
    let program = banner::program();
    Banner {
        instances: &instances,
        admin,
        socket: config.admin.socket.as_deref(),
        data_dir: &config.data_dir,
        certs_dir: dev_pki.map(DevPki::directory),
        program: &program,
    }
    .render()
}

/// `None` if the clock is before 1970.
fn now_ms() -> Option<i64> {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_millis()).ok())
}

/// The registry's database in the data directory.
const DATABASE: &str = "registry.db";

/// Clients that may wait to be accepted, if the system allows so many (`net.core.somaxconn`): when a
/// fleet is back all at once, who finds no room tries again after a second.
const MAX_UNACCEPTED: u32 = 4096;

/// How often the metrics are compacted.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// What the changes of trust that are under way may take after the connections have ended.
const AFTER_GRACE: Duration = Duration::from_secs(2);
