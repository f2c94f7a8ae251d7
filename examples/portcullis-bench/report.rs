//! What is shown at the end, and what of it goes into docs/benchmarks.md.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Result;
use crate::grid::Grid;
use crate::measure::Measure;
use crate::plot;

/// What one measure came to.
#[derive(Default)]
pub struct Section {
    pub grids: Vec<Grid>,
    /// Lines below the tables.
    pub notes: Vec<String>,
}

impl Section {
    pub fn for_terminal(&self) -> String {
        let mut text = String::new();
        for grid in &self.grids {
            text.push_str(&format!("## {}\n\n{}\n", grid.title, grid.table()));
        }
        for note in &self.notes {
            text.push_str(&format!("{note}\n\n"));
        }
        text
    }
}

/// Put the section in the place of the last one of that measure. What people wrote around the
/// markers stays.
pub fn write(measure: Measure, section: &Section, about: &str) -> Result<()> {
    let path = root().join("docs/benchmarks.md");
    let text = fs::read_to_string(&path)?;
    let (begin, end) = markers(measure);
    let before = text
        .find(&begin)
        .ok_or("docs/benchmarks.md has no such marker")?;
    let after = text[before..]
        .find(&end)
        .ok_or("docs/benchmarks.md has no such marker")?;
    let mut body = String::new();
    for (number, grid) in section.grids.iter().enumerate() {
        let name = format!("{}-{}.svg", measure.name(), number + 1);
        plot::write(grid, &root().join("docs/benchmarks").join(&name))?;
        body.push_str(&format!(
            "**{}**\n\n{}\n![{}](benchmarks/{name})\n\n",
            grid.title,
            grid.table(),
            grid.title
        ));
    }
    for note in &section.notes {
        body.push_str(&format!("{note}\n\n"));
    }
    body.push_str(&format!("*{about}*\n"));
    let text = format!(
        "{}{begin}\n\n{body}\n{}",
        &text[..before],
        &text[before + after..]
    );
    fs::write(path, text)?;
    Ok(())
}

fn markers(measure: Measure) -> (String, String) {
    let name = measure.name();
    (
        format!("<!-- begin {name} -->"),
        format!("<!-- end {name} -->"),
    )
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}
