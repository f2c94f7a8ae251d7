//! A CA with many live sessions is inactivated, while devices of another CA come and go.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use portcullis::ca::certificate::CaCertificate;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, Notify};
use tokio::task::JoinSet;

use super::Bench;
use crate::Result;
use crate::admin::Admin;
use crate::broker::{Broker, INSTANCE, Kind, Seed};
use crate::client::Client;
use crate::grid::Grid;
use crate::pki::{Authority, Device};
use crate::report::Section;

pub async fn run(bench: &Bench) -> Result<Section> {
    let seed = bench.seed().await?;
    let others = bench.pki.fleet(&bench.pki.others, AT_ONCE)?;
    let count = bench.size(10_000);
    let mut times = Grid::new("From the call, ms", "ms", "live sessions");
    let mut rates = Grid::new(
        "Connections per second under another CA",
        "/s",
        "live sessions",
    );
    let case = count.to_string();
    for _ in 0..bench.rounds {
        let cut = cut(bench, &seed, &others, count).await?;
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        times.add(&case, "answered", ms(cut.answered));
        times.add(&case, "last session closed", ms(cut.closed));
        rates.add(&case, "while sessions end", cut.meanwhile);
        rates.add(&case, "before", cut.before);
    }
    Ok(Section {
        grids: vec![times, rates.compare("while sessions end")],
        notes: Vec::new(),
    })
}

struct Cut {
    answered: Duration,
    closed: Duration,
    /// Connections of the other CA per second.
    before: f64,
    meanwhile: f64,
}

async fn cut(bench: &Bench, seed: &Seed, others: &[Device], count: usize) -> Result<Cut> {
    let broker = bench.start(Kind::Portcullis, seed)?;
    let clients = bench.crowd(&broker, count).await?;
    let ends = Ends::of(clients);
    let connects = Arc::new(AtomicU64::new(0));
    let mut traffic = JoinSet::new();
    for (number, device) in others.iter().enumerate() {
        let (device, connects) = (Arc::clone(device), Arc::clone(&connects));
        let address = broker.address;
        traffic.spawn(async move {
            loop {
                let client = Client::connect(address, &device, number).await?;
                client.disconnect().await?;
                connects.fetch_add(1, Ordering::Relaxed);
            }
            #[allow(unreachable_code)]
            Result::Ok(())
        });
    }
    tokio::time::sleep(WARM_UP).await;
    let rate = |from: u64, since: Instant| {
        let count = connects.load(Ordering::Relaxed) - from;
        count as f64 / since.elapsed().as_secs_f64()
    };
    let (from, since) = (connects.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(BEFORE).await;
    let before = rate(from, since);
    // Only now: the broker closes one on which nobody has asked anything for half a minute. It has
    // been used once, so that what is measured is the call.
    let mut admin = connect(&broker).await?;
    let ca = &bench.pki.devices;
    call(&mut admin, ca, "GetCaCertificate").await?;
    let (from, since) = (connects.load(Ordering::Relaxed), Instant::now());
    call(&mut admin, ca, "InactivateCaCertificate").await?;
    let answered = since.elapsed();
    let closed = ends.last().await - since;
    let meanwhile = rate(from, since);
    if let Some(failed) = traffic.try_join_next() {
        failed??;
    }
    traffic.abort_all();
    Ok(Cut {
        answered,
        closed,
        before,
        meanwhile,
    })
}

/// When the connections of idle clients end.
struct Ends {
    /// How many have not.
    left: AtomicUsize,
    /// Those that have. They are closed when all is over: devices do that elsewhere, and here it would
    /// be work for the same processors.
    ended: Mutex<Vec<TcpStream>>,
    last: OnceLock<Instant>,
    all: Notify,
}

impl Ends {
    fn of(clients: Vec<Client>) -> Arc<Self> {
        let ends = Arc::new(Self {
            left: AtomicUsize::new(clients.len()),
            ended: Mutex::new(Vec::with_capacity(clients.len())),
            last: OnceLock::new(),
            all: Notify::new(),
        });
        for client in clients {
            let ends = Arc::clone(&ends);
            tokio::spawn(async move {
                let socket = client.ended().await;
                if ends.left.fetch_sub(1, Ordering::AcqRel) == 1 {
                    let _ = ends.last.set(Instant::now());
                    ends.all.notify_one();
                }
                ends.ended.lock().await.push(socket);
            });
        }
        ends
    }

    /// When the last one has ended.
    async fn last(&self) -> Instant {
        self.all.notified().await;
        self.last.get().copied().unwrap_or_else(Instant::now)
    }
}

pub async fn connect(broker: &Broker) -> Result<Admin> {
    Admin::connect(broker.admin.as_deref().ok_or("it has no socket")?).await
}

/// Ask for something about a CA, or to change it.
pub async fn call(admin: &mut Admin, ca: &Authority, action: &str) -> Result<()> {
    let sn = CaCertificate::from_der(&ca.der)?.serial().to_string();
    let parameters = [("MqttInstanceId", INSTANCE), ("Sn", &sn)];
    admin.call(action, &parameters).await.map(drop)
}

/// Devices of the other CA that come and go at the same time.
const AT_ONCE: usize = 32;
const WARM_UP: Duration = Duration::from_millis(500);
const BEFORE: Duration = Duration::from_secs(2);
