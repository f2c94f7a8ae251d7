//! A fleet comes back all at once, beside a fleet that comes 64 at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::{Bench, connect};
use crate::Result;
use crate::broker::Kind;
use crate::client::Client;
use crate::grid::Grid;
use crate::report::Section;

pub async fn run(bench: &Bench) -> Result<Section> {
    let seed = bench.seed().await?;
    let count = bench.size(10_000);
    let case = format!("{count} at once");
    let mut share = Grid::new("Rate of the storm by the steady rate", "", "devices");
    let mut slowest = Grid::new("The slowest device is in after, s", "s", "devices");
    let mut notes = Vec::new();
    for kind in bench.turns(&bench.some(&[Kind::Portcullis, Kind::Floor, Kind::Mosquitto])) {
        let broker = bench.start(kind, &seed)?;
        let steady = connect::sample(bench, &broker, bench.size(4000), 64).await?;
        let began = Instant::now();
        let mut storm = JoinSet::new();
        for number in 0..count {
            let device = Arc::clone(&bench.devices[number % bench.devices.len()]);
            let address = broker.address;
            storm.spawn(async move {
                let client = Client::connect_within(address, &device, number, LIMIT).await;
                client.map(|client| (client, began.elapsed()))
            });
        }
        let (mut clients, mut last, mut failed) = (Vec::new(), Duration::ZERO, 0);
        let mut why = None;
        while let Some(ended) = storm.join_next().await {
            match ended? {
                Ok((client, took)) => {
                    last = last.max(took);
                    clients.push(client);
                }
                Err(error) => {
                    failed += 1;
                    why = Some(error);
                }
            }
        }
        let rate = clients.len() as f64 / last.as_secs_f64();
        share.add(&case, kind.name(), rate * steady.took);
        slowest.add(&case, kind.name(), last.as_secs_f64());
        if let Some(why) = why {
            notes.push(format!(
                "{}: {failed} of {count} did not get in ({why}).",
                kind.name()
            ));
        }
    }
    notes.sort();
    Ok(Section {
        grids: vec![share, slowest],
        notes,
    })
}

/// How long a device waits before it gives up.
const LIMIT: Duration = Duration::from_secs(60);
