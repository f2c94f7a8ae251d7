//! Figures of contenders in cases, round by round, and what is read out of them.

use std::fmt::Write;

/// One figure: in each case, of each contender, one sample a round.
pub struct Grid {
    /// What is measured, with its unit.
    pub title: String,
    /// Its unit in a plot.
    pub unit: &'static str,
    /// What the rows are called.
    pub case: &'static str,
    columns: Vec<String>,
    rows: Vec<(String, Vec<Vec<f64>>)>,
    /// Of which columns a ratio to another is shown.
    ratios: Vec<(usize, usize)>,
}

/// A middle and how far the others are from it.
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
    /// Between these is the middle of ever more samples, with a probability of at least 95 %. Only of many
    /// samples.
    pub interval: Option<(f64, f64)>,
}

impl Grid {
    pub fn new(title: impl Into<String>, unit: &'static str, case: &'static str) -> Self {
        Self {
            title: title.into(),
            unit,
            case,
            columns: Vec::new(),
            rows: Vec::new(),
            ratios: Vec::new(),
        }
    }

    /// One sample; cases and contenders appear in the order of their first.
    pub fn add(&mut self, case: &str, contender: &str, value: f64) {
        let column = position(&mut self.columns, contender);
        let row = match self.rows.iter().position(|(name, _)| name == case) {
            Some(row) => row,
            None => {
                self.rows.push((case.to_owned(), Vec::new()));
                self.rows.len() - 1
            }
        };
        let samples = &mut self.rows[row].1;
        if samples.len() <= column {
            samples.resize(column + 1, Vec::new());
        }
        samples[column].push(value);
    }

    /// Show how the first contender compares with each of the others that is there.
    pub fn compare(mut self, first: &str) -> Self {
        let of = self.columns.iter().position(|name| name == first);
        if let Some(of) = of {
            let others = (0..self.columns.len()).filter(|other| *other != of);
            self.ratios = others.map(|other| (of, other)).collect();
        }
        self
    }

    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Cases with the middle of each contender, as far as it was measured.
    pub fn medians(&self) -> impl Iterator<Item = (&str, Vec<Option<Spread>>)> {
        self.rows.iter().map(|(case, samples)| {
            let medians = (0..self.columns.len()).map(|at| spread(samples.get(at)?));
            (case.as_str(), medians.collect())
        })
    }

    /// As a table of Markdown.
    pub fn table(&self) -> String {
        let mut head = vec![self.case.to_owned()];
        head.extend(self.columns.iter().cloned());
        for (of, to) in &self.ratios {
            head.push(format!("{} ÷ {}", self.columns[*of], self.columns[*to]));
        }
        let mut lines = vec![head];
        for (case, samples) in &self.rows {
            let mut line = vec![case.clone()];
            for column in 0..self.columns.len() {
                let spread = samples.get(column).and_then(|samples| spread(samples));
                line.push(spread.map_or_else(|| "–".to_owned(), |spread| spread.with_percent()));
            }
            for (of, to) in &self.ratios {
                let ratio = samples.get(*of).zip(samples.get(*to));
                let ratio = ratio.and_then(|(of, to)| by_round(of, to));
                line.push(ratio.map_or_else(|| "–".to_owned(), |ratio| ratio.with_range()));
            }
            lines.push(line);
        }
        render(&lines)
    }
}

impl Spread {
    fn with_percent(&self) -> String {
        let wide = (self.most - self.least) / 2.0;
        let percent = if self.median > 0.0 {
            100.0 * wide / self.median
        } else {
            0.0
        };
        format!("{} ±{percent:.0} %", short(self.median))
    }

    fn with_range(&self) -> String {
        let [median, least, most] = [self.median, self.least, self.most].map(short);
        let interval = self.interval.map(|(from, to)| {
            let [from, to] = [from, to].map(short);
            format!(" [{from}–{to}]")
        });
        let interval = interval.unwrap_or_default();
        format!("**{median}**{interval} ({least}–{most})")
    }
}

/// The ratio in each round: what slows a machine down for a while slows both down.
fn by_round(of: &[f64], to: &[f64]) -> Option<Spread> {
    let ratios: Vec<_> = of.iter().zip(to).map(|(of, to)| of / to).collect();
    spread(&ratios)
}

/// Of `None`: there are no samples.
pub fn spread(samples: &[f64]) -> Option<Spread> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (least, most) = (*sorted.first()?, *sorted.last()?);
    let middle = sorted.len() / 2;
    let median = match sorted.len() % 2 {
        0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    };
    Some(Spread {
        median,
        least,
        most,
        interval: interval(&sorted),
    })
}

/// By the sign test: each sample is below the true middle as likely as above it, whatever the others are.
fn interval(sorted: &[f64]) -> Option<(f64, f64)> {
    let samples = i32::try_from(sorted.len()).ok()?;
    if samples < MANY {
        return None;
    }
    // How likely it is that so many are below, and that no more than so many are.
    let (mut exactly, mut at_most) = (0.5_f64.powi(samples), 0.0);
    let mut outside = 0;
    while outside < samples / 2 && at_most + exactly <= 0.025 {
        at_most += exactly;
        outside += 1;
        exactly *= f64::from(samples - outside + 1) / f64::from(outside);
    }
    let outside = usize::try_from(outside).ok()?;
    let from = sorted.get(outside.checked_sub(1)?)?;
    Some((*from, *sorted.get(sorted.len() - outside)?))
}

/// Samples from which on an interval is told: with fewer it is as wide as all of them, or wider.
const MANY: i32 = 9;

/// Three digits that count.
pub fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        ..0.1 => format!("{value:.4}"),
        ..10.0 => format!("{value:.2}"),
        ..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

fn position(names: &mut Vec<String>, name: &str) -> usize {
    names.iter().position(|it| it == name).unwrap_or_else(|| {
        names.push(name.to_owned());
        names.len() - 1
    })
}

/// A table of Markdown whose columns are as wide as what is in them.
fn render(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = lines.iter().map(|line| line[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        for (cell, width) in line.iter().zip(&widths) {
            let _ = write!(text, "| {cell:width$} ");
        }
        text.push_str("|\n");
        if number == 0 {
            for width in &widths {
                let _ = write!(text, "|{:-<1$}", "", width + 2);
            }
            text.push_str("|\n");
        }
    }
    text
}
