//! A thousand messages a second, one by one: what hand-offs cost.

use std::time::Duration;

use super::Bench;
use crate::Result;
use crate::broker::Kind;
use crate::grid::Grid;
use crate::load::{Load, Pace, Shape};
use crate::report::Section;

pub async fn run(bench: &Bench) -> Result<Section> {
    let seed = bench.seed().await?;
    let kinds = bench.routers();
    let mut cpu = Grid::new("CPU time of the broker per message, µs", "µs", "messages");
    let mut half = Grid::new("Median latency, µs", "µs", "messages");
    let mut most = Grid::new("99th percentile of latency, µs", "µs", "messages");
    let mut notes = Vec::new();
    for qos in [0, 1] {
        let shape = Shape {
            publishers: 1,
            subscribers: 1,
            qos,
            size: 64,
        };
        let case = format!("1,000/s, QoS {qos}, 64 B");
        for kind in bench.turns_of(&case, &kinds) {
            let broker = bench.start(kind, &seed)?;
            let pace = Pace::Every(Duration::from_millis(1));
            let load = Load::start(broker.address, &bench.devices, shape, pace).await?;
            tokio::time::sleep(Duration::from_millis(500)).await;
            load.latencies().await;
            let before = broker.process.cpu()?;
            tokio::time::sleep(Duration::from_secs(bench.size(30) as u64 / 10)).await;
            let spent = broker.process.cpu()? - before;
            let mut latencies = load.latencies().await;
            latencies.sort();
            let count = latencies.len();
            if count == 0 {
                notes.push(format!("{case}: {} delivered nothing.", kind.name()));
                continue;
            }
            let at = |share: f64| latencies[((count - 1) as f64 * share) as usize];
            let name = kind.name();
            cpu.add(&case, name, spent.as_secs_f64() * 1e6 / count as f64);
            half.add(&case, name, at(0.5).as_secs_f64() * 1e6);
            most.add(&case, name, at(0.99).as_secs_f64() * 1e6);
            load.stop().await?;
        }
    }
    let ours = Kind::Portcullis.name();
    Ok(Section {
        grids: vec![cpu.compare(ours), half, most.compare(ours)],
        notes,
    })
}
