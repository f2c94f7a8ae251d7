//! Memory of idle sessions.

use super::Bench;
use crate::Result;
use crate::broker::Kind;
use crate::grid::Grid;
use crate::report::Section;

pub async fn run(bench: &Bench) -> Result<Section> {
    let seed = bench.seed().await?;
    let count = bench.size(10_000);
    let title = "Memory per idle session (anonymous resident set), KiB";
    let mut memory = Grid::new(title, "KiB", "sessions");
    for kind in bench.turns(&bench.kinds()) {
        let broker = bench.start(kind, &seed)?;
        // What the first clients cause is not what each causes.
        bench.connects(&broker, 100, 8).await?;
        broker.process.cpu_settled()?;
        let before = broker.process.resident()?;
        let clients = bench.crowd(&broker, count).await?;
        broker.process.cpu_settled()?;
        let more = broker.process.resident()?.saturating_sub(before);
        memory.add(
            &count.to_string(),
            kind.name(),
            more as f64 / count as f64 / 1024.0,
        );
        drop(clients);
    }
    Ok(Section {
        grids: vec![memory.compare(Kind::Portcullis.name())],
        notes: Vec::new(),
    })
}
