//! Connections, one at a time and 64 at once: what each costs the broker.

use std::time::Instant;

use super::Bench;
use crate::Result;
use crate::broker::{Broker, Kind};
use crate::grid::Grid;
use crate::report::Section;

pub async fn run(bench: &Bench) -> Result<Section> {
    let seed = bench.seed().await?;
    let mut cpu = Grid::new("CPU time of the broker per connection, ms", "ms", "at once");
    let mut rate = Grid::new("Connections per second", "/s", "at once");
    let mut notes = Vec::new();
    for (at_once, count) in [(1, 1500), (64, 4000)] {
        let count = bench.size(count);
        let case = at_once.to_string();
        for kind in bench.turns(&bench.kinds()) {
            let broker = bench.start(kind, &seed)?;
            let sample = sample(bench, &broker, count, at_once).await?;
            cpu.add(&case, kind.name(), sample.spent * 1e3);
            rate.add(&case, kind.name(), 1.0 / sample.took);
            if sample.failed > 0 {
                let (name, failed) = (kind.name(), sample.failed);
                notes.push(format!("{at_once} at once: {name} failed {failed} times."));
            }
        }
    }
    let ours = Kind::Portcullis.name();
    Ok(Section {
        grids: vec![cpu.compare(ours), rate.compare(ours)],
        notes,
    })
}

/// What connections came to.
pub struct Sample {
    /// CPU time of the broker for one, in seconds.
    pub spent: f64,
    /// Time from one to the next, in seconds.
    pub took: f64,
    /// How many failed.
    pub failed: usize,
}

/// Connect `count` times.
pub async fn sample(
    bench: &Bench,
    broker: &Broker,
    count: usize,
    at_once: usize,
) -> Result<Sample> {
    bench.connects(broker, 300, at_once).await?;
    let before = broker.process.cpu_settled()?;
    let began = Instant::now();
    let failed = bench.connects(broker, count, at_once).await?;
    let took = began.elapsed();
    let spent = broker.process.cpu_settled()? - before;
    let count = (count - failed) as f64;
    Ok(Sample {
        spent: spent.as_secs_f64() / count,
        took: took.as_secs_f64() / count,
        failed,
    })
}
