//! Amounts of memory as the records print them.
//!
//! "MB" in every record is MiB, rounded half away from zero to two decimals (`round($bytes / 1048576, 2)` in PHP).
//! The rounding is done on whole numbers, so a tie (a page is 1/256 MiB) is never decided by a float's last bit.

use serde::{Deserialize, Serialize};

const BYTES_PER_MIB: i128 = 1024 * 1024;
const BYTES_PER_KIB: i128 = 1024;

/// An amount of memory, or a difference of two, in MiB with two decimals.
///
/// A document read back may hold any float here; only the constructors promise two decimals.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mib(f64);

impl Mib {
    /// That many bytes.
    pub fn from_bytes(bytes: u64) -> Self {
        Self(hundredths(i128::from(bytes), BYTES_PER_MIB))
    }

    /// What was gained (or, negative, lost) between two amounts of bytes. Rounded once, after the subtraction.
    pub fn difference(from_bytes: u64, to_bytes: u64) -> Self {
        Self(hundredths(
            i128::from(to_bytes) - i128::from(from_bytes),
            BYTES_PER_MIB,
        ))
    }

    /// The number, in MiB.
    pub fn get(self) -> f64 {
        self.0
    }
}

/// Bytes in KiB with two decimals.
pub fn kib(bytes: u64) -> f64 {
    hundredths(i128::from(bytes), BYTES_PER_KIB)
}

/// A worker's memory_limit at the moment of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryLimit {
    /// So many bytes.
    Bytes(u64),
    /// memory_limit = -1.
    Unlimited,
}

impl MemoryLimit {
    /// The limit as the Zend heap holds it: without one, the heap holds PHP_INT_MAX.
    pub fn from_heap(bytes: u64) -> Self {
        if bytes >= i64::MAX as u64 {
            Self::Unlimited
        } else {
            Self::Bytes(bytes)
        }
    }

    /// In MiB; without a limit PHP_INT_MAX, which the records print as 8796093022208.
    pub fn mib(self) -> Mib {
        Mib::from_bytes(self.bytes())
    }

    /// Which share of the limit is in use, in percent with two decimals; 0 without a limit, and for a limit of 0.
    pub fn usage_percent(self, current_bytes: u64) -> f64 {
        match self.bytes() {
            0 => 0.0,
            limit => hundredths(i128::from(current_bytes) * 100, i128::from(limit)),
        }
    }

    /// As the ini setting has it: as it is written in the ini, where that is known and means this limit.
    pub fn setting(self, written: Option<&str>) -> String {
        if let Some(written) = written
            && Self::from_setting(written) == Some(self)
        {
            return written.to_owned();
        }
        match self {
            Self::Unlimited => "-1".to_owned(),
            Self::Bytes(bytes) if bytes.is_multiple_of(1 << 20) => format!("{}M", bytes >> 20),
            Self::Bytes(bytes) => bytes.to_string(),
        }
    }

    /// A number and a unit: K, M or G (`ini_parse_quantity`).
    fn from_setting(written: &str) -> Option<Self> {
        let written = written.trim();
        let shift = match written.as_bytes().last()?.to_ascii_lowercase() {
            b'k' => 10,
            b'm' => 20,
            b'g' => 30,
            _ => 0,
        };
        let digits = match shift {
            0 => written,
            _ => &written[..written.len() - 1],
        };
        match digits.trim().parse::<i64>().ok()? {
            -1 => Some(Self::Unlimited),
            number => u64::try_from(number)
                .ok()?
                .checked_mul(1 << shift)
                .map(Self::Bytes),
        }
    }

    fn bytes(self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Unlimited => i64::MAX as u64,
        }
    }
}

/// `amount / unit`, rounded half away from zero to two decimals. `unit` is positive.
fn hundredths(amount: i128, unit: i128) -> f64 {
    // The amounts are at most 2^71 (a u64 times 100), so nothing here overflows.
    let doubled = amount.abs() * 200 / unit;
    let rounded = (doubled + 1) / 2;
    (amount.signum() * rounded) as f64 / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn a_limit_is_written_as_it_was_set() {
        let limit = MemoryLimit::Bytes(2048 * MIB);
        for written in ["2048M", "2G", "2g", " 2147483648", "2097152K"] {
            assert_eq!(limit.setting(Some(written)), written);
        }
        for other in [
            None,
            Some("128M"),
            Some(""),
            Some("M"),
            Some("é"),
            Some("-1"),
        ] {
            assert_eq!(limit.setting(other), "2048M");
        }
        assert_eq!(MemoryLimit::Bytes(5).setting(None), "5");
        assert_eq!(MemoryLimit::Unlimited.setting(Some("-1")), "-1");
    }

    #[test]
    fn rounds_half_away_from_zero() {
        // 0.125 MiB, and the page-sized ties on both sides of zero.
        assert_eq!(Mib::from_bytes(MIB / 8).get(), 0.13);
        assert_eq!(Mib::difference(MIB / 8, 0).get(), -0.13);
        assert_eq!(Mib::from_bytes(4096).get(), 0.0);
        assert_eq!(Mib::from_bytes(2 * 4096).get(), 0.01);
        assert_eq!(Mib::from_bytes(5242).get(), 0.0);
        assert_eq!(Mib::from_bytes(5243).get(), 0.01);
        assert_eq!(Mib::from_bytes(1946 * MIB).get(), 1946.0);
        assert_eq!(Mib::from_bytes(MIB + MIB / 4 * 3).get(), 1.75);
    }

    #[test]
    fn a_difference_is_rounded_once() {
        // Each end rounds up (0.01), the difference is 4096 bytes = 0.0039 MiB.
        assert_eq!(Mib::difference(2 * 4096, 3 * 4096).get(), 0.0);
        assert!(
            Mib::difference(3 * 4096, 2 * 4096).get().is_sign_positive(),
            "no -0"
        );
        assert_eq!(Mib::difference(u64::MAX, 0).get(), -17592186044416.0);
    }

    #[test]
    fn limits() {
        assert_eq!(MemoryLimit::Bytes(2048 * MIB).mib().get(), 2048.0);
        assert_eq!(
            MemoryLimit::Bytes(2048 * MIB).usage_percent(1946 * MIB),
            95.02
        );
        assert_eq!(
            MemoryLimit::from_heap(i64::MAX as u64),
            MemoryLimit::Unlimited
        );
        assert_eq!(MemoryLimit::Unlimited.mib().get(), 8_796_093_022_208.0);
        assert_eq!(MemoryLimit::Unlimited.usage_percent(1946 * MIB), 0.0);
        assert_eq!(MemoryLimit::Bytes(0).usage_percent(MIB), 0.0);
        assert_eq!(
            MemoryLimit::Bytes(1).usage_percent(u64::MAX),
            u64::MAX as f64 * 100.0
        );
    }

    #[test]
    fn kibibytes() {
        assert_eq!(kib(2048), 2.0);
        assert_eq!(kib(87_276), 85.23);
        assert_eq!(kib(6), 0.01);
    }
}
