//! Durations of a run of any length, in constant memory.

use std::time::Duration;

/// Histogram of durations with a resolution of 4 %, from 1 microsecond to half an hour.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: Duration,
}

const SHORTEST: f64 = 1e-6;
const RATIO: f64 = 1.04;
const BUCKETS: usize = 544;

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: Duration::ZERO }
    }
}

impl Histogram {
    /// Adds a duration.
    pub fn add(&mut self, duration: Duration) {
        let place = (duration.as_secs_f64().max(SHORTEST) / SHORTEST).ln() / RATIO.ln();
        self.counts[(place as usize).min(BUCKETS - 1)] += 1;
        self.total += duration;
    }

    /// The number of durations.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum.
    pub fn total(&self) -> Duration {
        self.total
    }

    /// The quantiles that are reported.
    pub const QUANTILES: [f64; 3] = [0.5, 0.95, 0.99];

    /// The reported quantiles.
    pub fn quantiles(&self) -> [Duration; 3] {
        Self::QUANTILES.map(|part| self.quantile(part))
    }

    /// The duration that `part` (0 to 1) of all do not exceed, within 2 %; zero when the histogram
    /// is empty.
    pub fn quantile(&self, part: f64) -> Duration {
        let rank = (part * self.count() as f64).ceil().max(1.0) as u64;
        let mut below = 0;
        for (i, count) in self.counts.iter().enumerate() {
            below += count;
            if below >= rank {
                return Duration::from_secs_f64(SHORTEST * RATIO.powf(i as f64 + 0.5));
            }
        }
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::Histogram;
    use std::time::Duration;

    #[test]
    fn computes_quantiles() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), Duration::ZERO);
        (1..=1000).for_each(|i| histogram.add(Duration::from_millis(i)));
        for part in [0.01, 0.5, 0.95, 0.99, 1.0] {
            let found = histogram.quantile(part).as_secs_f64();
            assert!((found / part - 1.0).abs() < 0.025, "{part}: {found}");
        }
        assert_eq!((histogram.count(), histogram.total()), (1000, Duration::from_millis(500_500)));
        histogram.add(Duration::from_secs(100_000));
        histogram.add(Duration::ZERO);
        assert_eq!(histogram.count(), 1002);
    }
}
