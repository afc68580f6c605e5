//! Medians, quartiles, and whether the machine was too noisy to tell.

use anyhow::{Context, Result};
use serde::Serialize;

/// The quartiles of some measurements.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quartiles {
    /// A quarter is below.
    pub low: f64,
    /// Half is below.
    pub median: f64,
    /// A quarter is above.
    pub high: f64,
}

impl Quartiles {
    /// Of measurements in any order.
    ///
    /// # Errors
    /// When there are none.
    pub fn of(measurements: impl IntoIterator<Item = f64>) -> Result<Self> {
        let mut sorted: Vec<f64> = measurements.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let found = sorted.get((share * sorted.len() as f64) as usize);
            found.copied().context("nothing was measured")
        };
        Ok(Self {
            low: at(0.25)?,
            median: at(0.5)?,
            high: at(0.75)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_need_no_order() -> Result<()> {
        let quartiles = Quartiles::of([4.0, 1.0, 3.0, 2.0])?;
        let expected = Quartiles {
            low: 2.0,
            median: 3.0,
            high: 4.0,
        };
        assert_eq!(quartiles, expected);
        assert!(Quartiles::of([]).is_err());
        Ok(())
    }
}
