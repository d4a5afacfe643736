//! What a list of timings says: its middle, its tail, its spread, and whether to believe it.
use serde::{Deserialize, Serialize};

/// A summary of timings, all in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How many timings there are.
    pub count: usize,
    /// Half are below.
    pub median: f64,
    /// 95 % are below.
    pub p95: f64,
    /// 99 % are below.
    pub p99: f64,
    /// The fastest.
    pub min: f64,
    /// The slowest.
    pub max: f64,
    /// Median distance from the median.
    pub mad: f64,
}

/// Timings further from the median than this many scaled deviations are outliers (Iglewicz and Hoaglin, 1993).
const OUTLIER: f64 = 3.5;
/// Makes the median deviation of a normal distribution its standard deviation.
const SCALE: f64 = 1.4826;
/// A deviation below this share of the median is the clock's, not the work's.
const CLOCK: f64 = 1e-3;

/// From so many timings on, a quantile near the end is more than the slowest of them.
pub const MANY: usize = 20;

impl Summary {
    /// Sums up timings in milliseconds; `None` where there are none.
    pub fn new(timings: &[f64]) -> Option<Self> {
        let sorted = sorted(timings);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let median = quantile(&sorted, 0.5);
        let deviations: Vec<f64> = sorted.iter().map(|t| (t - median).abs()).collect();
        Some(Self {
            count: sorted.len(),
            median,
            p95: quantile(&sorted, 0.95),
            p99: quantile(&sorted, 0.99),
            min,
            max,
            mad: quantile(&self::sorted(&deviations), 0.5),
        })
    }

    /// Reasons not to believe the timings, in words that say what to do.
    pub fn warnings(&self, timings: &[f64]) -> Vec<String> {
        let mut found = vec![];
        let limit = OUTLIER * SCALE * self.mad.max(CLOCK * self.median);
        let outliers = timings.iter().filter(|t| (*t - self.median).abs() > limit).count();
        // among many, one cold run moves nothing
        if self.count < MANY && timings.first().is_some_and(|first| first - self.median > limit) {
            found.push(format!(
                "the first run took {:.2} times the median: caches were cold; raise --warmup",
                timings[0] / self.median
            ));
        } else if outliers * 10 > timings.len() {
            found.push(format!(
                "{outliers} of {} runs are outliers: something else runs on this machine; close it and measure again",
                timings.len()
            ));
        }
        found
    }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// Linear interpolation between the two nearest of the sorted values.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let place = q * (sorted.len() - 1) as f64;
    let (low, high) = (place.floor() as usize, place.ceil() as usize);
    sorted[low] + (sorted[high] - sorted[low]) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_numbers() {
        let summary = Summary::new(&[4.0, 1.0, 3.0, 2.0, 10.0]).unwrap();
        assert_eq!((summary.median, summary.min, summary.max, summary.mad), (3.0, 1.0, 10.0, 1.0));
        assert!((summary.p95 - 8.8).abs() < 1e-12 && (summary.p99 - 9.76).abs() < 1e-12);
        assert_eq!(Summary::new(&[]), None);
        let one = Summary::new(&[7.0]).unwrap();
        assert_eq!((one.median, one.p99, one.mad), (7.0, 7.0, 0.0));
    }

    #[test]
    fn a_cold_start_and_a_busy_machine_are_told_apart() {
        let mut timings = vec![10.0; 30];
        let warn = |t: &[f64]| Summary::new(t).unwrap().warnings(t);
        assert_eq!(warn(&timings), Vec::<String>::new());
        timings[0] = 50.0;
        assert_eq!(warn(&timings), Vec::<String>::new(), "one cold run among many moves nothing");
        assert!(warn(&timings[..8])[0].contains("5.00 times"));
        timings[0] = 10.0;
        for i in [5, 9, 13, 17] {
            timings[i] = 30.0;
        }
        assert!(warn(&timings)[0].contains("4 of 30"));
    }
}
