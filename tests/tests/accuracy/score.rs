//! How far a profile is from the truth.

use std::fmt;

/// Functions below this share of what a program holds are not judged one by one.
const SMALLEST_SHARE: f64 = 0.01;
/// Functions whose order is judged.
const TOP: usize = 20;

/// The errors over many programs.
#[derive(Clone, Debug, Default)]
pub struct Score {
    pub programs: usize,
    /// Share reported less true share, in percentage points, of each function above 1 %.
    points: Vec<f64>,
    /// Bytes reported less true bytes, in percent of these, of the same functions.
    percent: Vec<f64>,
    /// Spearman's rank correlation of the top 20 of each program.
    ranks: Vec<f64>,
    /// The most bytes that any function is off, however small.
    pub most_bytes: u64,
}

impl Score {
    /// Enters a program: what each function is reported to hold, and what it does hold.
    pub fn enter(&mut self, reported: &[u64], truth: &[u64]) {
        self.programs += 1;
        let share = |of: u64, all: &[u64]| of as f64 / all.iter().sum::<u64>().max(1) as f64;
        for (&reported_bytes, &true_bytes) in reported.iter().zip(truth) {
            let true_share = share(true_bytes, truth);
            self.most_bytes = self.most_bytes.max(reported_bytes.abs_diff(true_bytes));
            if true_share > SMALLEST_SHARE {
                let off = (share(reported_bytes, reported) - true_share) * 100.0;
                self.points.push(off.abs());
                let off = (reported_bytes as f64 / true_bytes as f64 - 1.0) * 100.0;
                self.percent.push(off.abs());
            }
        }
        let mut functions: Vec<usize> = (0..truth.len()).filter(|at| truth[*at] > 0).collect();
        functions.sort_by_key(|at| std::cmp::Reverse(truth[*at]));
        functions.truncate(TOP);
        let of = |all: &[u64]| -> Vec<u64> { functions.iter().map(|at| all[*at]).collect() };
        if let Some(rank) = spearman(&of(reported), &of(truth)) {
            self.ranks.push(rank);
        }
    }

    /// Adds another score's programs.
    pub fn add(&mut self, other: &Self) {
        self.programs += other.programs;
        self.points.extend(&other.points);
        self.percent.extend(&other.percent);
        self.ranks.extend(&other.ranks);
        self.most_bytes = self.most_bytes.max(other.most_bytes);
    }

    pub fn mean_points(&self) -> f64 {
        mean(&self.points)
    }

    pub fn mean_rank(&self) -> f64 {
        mean(&self.ranks)
    }
}

impl fmt::Display for Score {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = |of: &[f64]| of.iter().copied().fold(0.0, f64::max);
        let least = |of: &[f64]| of.iter().copied().fold(1.0, f64::min);
        write!(
            formatter,
            "{} | {} | {:.3} | {:.3} | {:.2} | {:.2} | {:.4} | {:.4} | {}",
            self.programs,
            self.points.len(),
            self.mean_points(),
            most(&self.points),
            mean(&self.percent),
            most(&self.percent),
            self.mean_rank(),
            least(&self.ranks),
            self.most_bytes,
        )
    }
}

/// What the columns of a [`Score`]'s line are.
pub const COLUMNS: &str = "programs | functions above 1 % | mean error, points | largest, points | \
    mean error, % of its bytes | largest, % | rank of the top 20, mean | lowest | largest error, bytes";

fn mean(of: &[f64]) -> f64 {
    of.iter().sum::<f64>() / of.len().max(1) as f64
}

/// Spearman's rank correlation; `None` where one side does not differ.
pub fn spearman(left: &[u64], right: &[u64]) -> Option<f64> {
    let (left, right) = (ranks(left), ranks(right));
    let (left_mean, right_mean) = (mean(&left), mean(&right));
    let product = |a: &[f64], a_mean: f64, b: &[f64], b_mean: f64| -> f64 {
        let pairs = a.iter().zip(b);
        pairs.map(|(a, b)| (a - a_mean) * (b - b_mean)).sum()
    };
    let spread = product(&left, left_mean, &left, left_mean)
        * product(&right, right_mean, &right, right_mean);
    (spread > 0.0).then(|| product(&left, left_mean, &right, right_mean) / spread.sqrt())
}

/// Each value's rank; equal values share the mean of theirs.
fn ranks(of: &[u64]) -> Vec<f64> {
    let rank = |value: &u64| {
        let below = of.iter().filter(|other| *other < value).count();
        let equal = of.iter().filter(|other| *other == value).count();
        below as f64 + (equal as f64 - 1.0) / 2.0
    };
    of.iter().map(rank).collect()
}

#[test]
fn ranks_are_compared() {
    assert_eq!(spearman(&[1, 2, 3], &[10, 20, 90]), Some(1.0));
    assert_eq!(spearman(&[1, 2, 3], &[3, 2, 1]), Some(-1.0));
    assert_eq!(spearman(&[1, 1], &[1, 2]), None);
    let with_ties = spearman(&[1, 1, 3], &[1, 2, 3]).unwrap();
    assert!((with_ties - 0.866).abs() < 0.001, "{with_ties}");
}

#[test]
fn errors_are_those_of_functions_above_a_percent() {
    let mut score = Score::default();
    score.enter(&[60, 40, 1], &[50, 50, 0]);
    assert_eq!((score.points.len(), score.most_bytes), (2, 10));
    let points = [50.0 - 100.0 * 40.0 / 101.0, 100.0 * 60.0 / 101.0 - 50.0];
    assert!((score.mean_points() - (points[0] + points[1]) / 2.0).abs() < 1e-9);
}
