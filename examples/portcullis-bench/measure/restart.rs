//! A start with many CAs and many recorded devices: how long until it is ready.

use super::Bench;
use crate::Result;
use crate::broker::{Kind, Seed};
use crate::client::Client;
use crate::grid::Grid;
use crate::report::Section;

pub async fn run(bench: &Bench) -> Result<Section> {
    let (cas, devices) = (bench.size(100_000), bench.size(1_000_000));
    let seed = Seed::new(&bench.pki, cas, devices).await?;
    let case = format!("{cas} CAs, {devices} devices");
    let mut times = Grid::new("Seconds from the start of the process", "s", "recorded");
    let mut memory = Grid::new(
        "Memory then (anonymous resident set), MiB",
        "MiB",
        "recorded",
    );
    for _ in 0..bench.rounds {
        let broker = bench.start(Kind::Portcullis, &seed)?;
        // It is ready when a device is in.
        let client = Client::connect(broker.address, &bench.devices[0], 0).await?;
        let ready = broker.began.elapsed();
        let spent = broker.process.cpu()?;
        client.disconnect().await?;
        times.add(&case, "a device is in", ready.as_secs_f64());
        times.add(&case, "CPU time", spent.as_secs_f64());
        let resident = broker.process.resident()?;
        memory.add(&case, "Portcullis", resident as f64 / f64::from(1 << 20));
    }
    Ok(Section {
        grids: vec![times, memory],
        notes: Vec::new(),
    })
}
