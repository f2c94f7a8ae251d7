//! Moving averages, computed as mosquitto computes them: a rate for each minute, in which the past
//! fades exponentially over 1, 5 or 15 minutes.

use std::time::Duration;

/// What the averages are taken over, in minutes, and how the topics name it.
pub(super) const SPANS: [(f64, &str); 3] = [(1.0, "1min"), (5.0, "5min"), (15.0, "15min")];

/// The averages of one count.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Load {
    last: u64,
    averages: [f64; SPANS.len()],
}

impl Load {
    /// The count stands at `count` now, `elapsed` after the last time.
    pub(super) fn advance(&mut self, count: u64, elapsed: Duration) {
        let minutes = elapsed.as_secs_f64() / 60.0;
        if minutes <= 0.0 {
            return;
        }
        let rate = count.saturating_sub(self.last) as f64 / minutes;
        self.last = count;
        for (average, (span, _)) in self.averages.iter_mut().zip(SPANS) {
            *average = rate + (-minutes / span).exp() * (*average - rate);
        }
    }

    /// For each minute, over the spans in their order.
    pub(super) fn averages(&self) -> [f64; SPANS.len()] {
        self.averages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_secs(10);

    #[test]
    fn a_steady_rate_is_reached_sooner_over_a_shorter_span() {
        let mut load = Load::default();
        for tick in 1..=6 {
            load.advance(tick * 20, STEP);
        }
        let [one, five, fifteen] = load.averages();
        // 120 for each minute, of which 1 - 1/e has been taken in after one minute.
        assert!((one - 75.85).abs() < 0.01, "{one}");
        assert!(one > five && five > fifteen && fifteen > 0.0);
        for tick in 7..=1_000 {
            load.advance(tick * 20, STEP);
        }
        for average in load.averages() {
            assert!((average - 120.0).abs() < 0.01, "{average}");
        }
    }

    #[test]
    fn what_has_stopped_fades() {
        let mut load = Load::default();
        load.advance(1_000, STEP);
        load.advance(1_000, Duration::from_secs(3_600 * 24));
        assert!(load.averages().iter().all(|average| *average < 0.01));
        let before = load;
        load.advance(5_000, Duration::ZERO);
        assert_eq!(load, before);
    }
}
