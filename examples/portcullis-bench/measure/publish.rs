//! Messages as fast as they are taken.

use std::time::{Duration, Instant};

use super::Bench;
use crate::Result;
use crate::broker::Kind;
use crate::grid::Grid;
use crate::load::{Load, Pace, Shape};
use crate::report::Section;

pub async fn run(bench: &Bench) -> Result<Section> {
    let seed = bench.seed().await?;
    let kinds = bench.routers();
    let mut cpu = Grid::new("CPU time of the broker per delivery, µs", "µs", "messages");
    let mut rate = Grid::new("Deliveries per second, thousands", "k/s", "messages");
    let mut notes = Vec::new();
    for (publishers, subscribers) in [(1, 1), (1, 50), (50, 1)] {
        for (qos, size) in [(0, 64), (0, 1024), (1, 64), (1, 1024)] {
            let shape = Shape {
                publishers,
                subscribers,
                qos,
                size,
            };
            let case = format!("{publishers} to {subscribers}, QoS {qos}, {size} B");
            for kind in bench.turns_of(&case, &kinds) {
                let broker = bench.start(kind, &seed)?;
                let load = Load::start(broker.address, &bench.devices, shape, Pace::Full).await?;
                tokio::time::sleep(WARM_UP).await;
                let (before, first) = (broker.process.cpu()?, load.delivered());
                let began = Instant::now();
                tokio::time::sleep(LONG / if bench.size(10) == 10 { 1 } else { 5 }).await;
                let count = (load.delivered() - first) as f64;
                let took = began.elapsed();
                let spent = broker.process.cpu()? - before;
                if count > 0.0 {
                    cpu.add(&case, kind.name(), spent.as_secs_f64() * 1e6 / count);
                    rate.add(&case, kind.name(), count / took.as_secs_f64() / 1e3);
                }
                let name = kind.name();
                match load.stop().await {
                    Ok(0) => {}
                    Ok(missing) => notes.push(format!("{case}: {name} lost {missing} deliveries.")),
                    Err(error) => notes.push(format!("{case}: {name}: {error}.")),
                }
            }
        }
    }
    notes.sort();
    let ours = Kind::Portcullis.name();
    Ok(Section {
        grids: vec![cpu.compare(ours), rate],
        notes,
    })
}

const WARM_UP: Duration = Duration::from_millis(400);
const LONG: Duration = Duration::from_millis(1500);
