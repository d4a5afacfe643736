//! Compares two reports row by row: what became slower by more than is allowed.
use super::report::Report;
use crate::{Error, Result};
use std::str::FromStr;

/// How much slower a row may be, as a share: `5%` or `0.05`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance(pub f64);

impl FromStr for Tolerance {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (number, scale) = text.strip_suffix('%').map_or((text, 1.0), |n| (n, 0.01));
        match number.trim().parse::<f64>() {
            Ok(n) if n >= 0.0 && n.is_finite() => Ok(Self(n * scale)),
            _ => Err(Error::Model(format!("tolerance {text:?} is not a share such as 5% or 0.05"))),
        }
    }
}

/// One row in both reports.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The row's name.
    pub name: String,
    /// Median before and now, in milliseconds; `None` where it has no time now.
    pub medians: (f64, Option<f64>),
    /// Whether it is slower by more than the tolerance and by more than the noise, or gone.
    pub regressed: bool,
}

/// Deviations of both runs that a difference must exceed to be more than noise.
const NOISE: f64 = 3.0;

/// Compares every timed row of `old` with the row of the same name in `new`.
///
/// # Errors
/// Reports of different work: other networks, sizes, batches or steps cannot be compared.
pub fn compare(old: &Report, new: &Report, tolerance: Tolerance) -> Result<Vec<Change>> {
    if old.work != new.work {
        return Err(Error::Model(format!(
            "the reports are of different work and cannot be compared: {:?} before, {:?} now",
            old.work, new.work
        )));
    }
    let change = |row: &super::report::Row| {
        let before = row.sequence.as_ref()?;
        let now = new.rows.iter().find(|r| r.name == row.name && r.case == row.case).and_then(|r| r.sequence.as_ref());
        let regressed = now.is_none_or(|now| {
            let slower = now.median - before.median;
            slower > tolerance.0 * before.median && slower > NOISE * (now.mad + before.mad)
        });
        Some(Change { name: row.title(), medians: (before.median, now.map(|s| s.median)), regressed })
    };
    Ok(old.rows.iter().filter_map(change).collect())
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::{report, row};
    use super::*;

    #[test]
    fn a_tolerance_is_a_share() {
        assert_eq!("5%".parse::<Tolerance>().unwrap(), Tolerance(0.05));
        assert_eq!("0.2".parse::<Tolerance>().unwrap(), Tolerance(0.2));
        for bad in ["", "five", "-1%", "inf"] {
            assert!(bad.parse::<Tolerance>().is_err(), "{bad}");
        }
    }

    #[test]
    fn slower_beyond_tolerance_and_noise_is_a_regression() {
        let old = report(vec![row("none", 100.0), row("a", 10.0), row("b", 10.0), row("gone", 5.0)]);
        let new = report(vec![row("none", 104.0), row("a", 12.0), row("b", 8.0)]);
        let regressed: Vec<_> =
            compare(&old, &new, Tolerance(0.05)).unwrap().into_iter().map(|c| c.regressed).collect();
        assert_eq!(regressed, [false, true, false, true]);
        // 100 -> 104 is within 3 deviations of 1 + 1.04
        assert!(!compare(&old, &new, Tolerance(0.0)).unwrap()[0].regressed);
    }

    #[test]
    fn different_work_is_not_compared() {
        let old = report(vec![row("none", 1.0)]);
        let mut new = old.clone();
        new.work.batch = 2;
        assert!(compare(&old, &new, Tolerance(0.05)).is_err());
    }
}
