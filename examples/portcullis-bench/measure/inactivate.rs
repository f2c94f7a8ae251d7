//! A CA with many live sessions is inactivated, while devices of another CA come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use portcullis::ca::certificate::CaCertificate;
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
    let mut ends = JoinSet::new();
    for client in clients {
        ends.spawn(async move {
            client.closed().await;
            Instant::now()
        });
    }
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
    // Only now: the broker closes one on which nobody has asked anything for half a minute.
    let mut admin = connect(&broker).await?;
    let (from, since) = (connects.load(Ordering::Relaxed), Instant::now());
    set(&mut admin, &bench.pki.devices, "InactivateCaCertificate").await?;
    let answered = since.elapsed();
    let mut closed = Duration::ZERO;
    while let Some(ended) = ends.join_next().await {
        closed = closed.max(ended? - since);
    }
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

pub async fn connect(broker: &Broker) -> Result<Admin> {
    Admin::connect(broker.admin.as_deref().ok_or("it has no socket")?).await
}

/// Inactivate or activate a CA.
pub async fn set(admin: &mut Admin, ca: &Authority, action: &str) -> Result<()> {
    let sn = CaCertificate::from_der(&ca.der)?.serial().to_string();
    let parameters = [("MqttInstanceId", INSTANCE), ("Sn", &sn)];
    admin.call(action, &parameters).await.map(drop)
}

/// Devices of the other CA that come and go at the same time.
const AT_ONCE: usize = 32;
const WARM_UP: Duration = Duration::from_millis(500);
const BEFORE: Duration = Duration::from_secs(2);
