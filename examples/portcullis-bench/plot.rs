//! A grid as a picture: for each case a bar for each contender.

use std::fs;
use std::path::Path;

use plotters::prelude::*;

use crate::Result;
use crate::grid::{Grid, short};

/// Draw it as SVG.
pub fn write(grid: &Grid, path: &Path) -> Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut text = String::new();
    draw(grid, &mut text).map_err(|error| format!("{}: {error}", path.display()))?;
    fs::write(path, text)?;
    Ok(())
}

fn draw(grid: &Grid, into: &mut String) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut bars = Vec::new();
    let mut most = 0.0_f64;
    for (case, medians) in grid.medians() {
        bars.push((None, case.to_owned()));
        for (column, (name, spread)) in grid.columns().iter().zip(medians).enumerate() {
            if let Some(spread) = spread {
                most = most.max(spread.most);
                bars.push((Some((column, spread)), name.clone()));
            }
        }
    }
    let height = u32::try_from(bars.len())? * LINE + 2 * LINE;
    let area = SVGBackend::with_string(into, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE)?;
    let font = |size: i32| ("sans-serif", size).into_font();
    area.draw_text(&grid.title, &font(15).color(&BLACK), (8, 8))?;
    let room = f64::from(WIDTH - LEFT - RIGHT);
    let along = |value: f64| i32::try_from(LEFT).unwrap_or(0) + (room * value / most) as i32;
    for (line, (bar, name)) in (2_u32..).zip(&bars) {
        let top = i32::try_from(line * LINE)?;
        let Some((column, spread)) = bar else {
            area.draw_text(name, &font(13).color(&BLACK), (8, top + 4))?;
            continue;
        };
        area.draw_text(name, &font(12).color(&BLACK), (24, top + 4))?;
        let bottom = top + i32::try_from(LINE)? - 4;
        let color = Palette99::pick(*column);
        area.draw(&Rectangle::new(
            [(along(0.0), top), (along(spread.median), bottom)],
            color.filled(),
        ))?;
        let middle = (top + bottom) / 2;
        area.draw(&PathElement::new(
            vec![(along(spread.least), middle), (along(spread.most), middle)],
            BLACK,
        ))?;
        area.draw_text(
            &format!("{} {}", short(spread.median), grid.unit),
            &font(12).color(&BLACK),
            (along(spread.most) + 6, top + 4),
        )?;
    }
    area.present()?;
    Ok(())
}

const WIDTH: u32 = 860;
/// Room for names, and for figures.
const LEFT: u32 = 130;
const RIGHT: u32 = 130;
const LINE: u32 = 20;
