//! Connections with two and with 100,000 registered CAs.

use super::{Bench, connect};
use crate::Result;
use crate::broker::{Kind, Seed};
use crate::grid::Grid;
use crate::report::Section;

pub async fn run(bench: &Bench) -> Result<Section> {
    let many = bench.size(100_000);
    let seeds = [
        (format!("{many} CAs"), Seed::new(&bench.pki, many, 0).await?),
        ("2 CAs".to_owned(), bench.seed().await?),
    ];
    let title = "CPU time of Portcullis per connection, ms";
    let mut cpu = Grid::new(title, "ms", "at once");
    for (at_once, count) in [(1, 1500), (64, 4000)] {
        for (name, seed) in bench.turns(&seeds.each_ref()).map(|it| (&it.0, &it.1)) {
            let broker = bench.start(Kind::Portcullis, seed)?;
            let sample = connect::sample(bench, &broker, bench.size(count), at_once).await?;
            cpu.add(&at_once.to_string(), name, sample.spent * 1e3);
        }
    }
    let grids = vec![cpu.compare(&seeds[0].0)];
    Ok(Section {
        grids,
        notes: Vec::new(),
    })
}
