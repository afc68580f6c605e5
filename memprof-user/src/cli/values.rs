//! Values on the command line that are more than a number.

use std::time::Duration;

use crate::capture::{CheckpointAt, OwnCheckpoint, Threshold};
use crate::record::Level;

/// `60`, `60s`, `10m`, `1h30m`
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let parsed = match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => text
            .parse::<jiff::SignedDuration>()
            .ok()
            .and_then(|time| time.try_into().ok()),
    };
    match parsed {
        Some(time) if time > Duration::ZERO => Ok(time),
        _ => Err("want a time above 0: 60 or 60s, 10m, 1h".to_owned()),
    }
}

/// `75%` of the memory_limit, or MiB: `1536`, `1536MiB`
pub(super) fn threshold(text: &str) -> Result<Threshold, String> {
    let number = |digits: &str| {
        digits
            .trim()
            .parse::<f64>()
            .ok()
            .filter(|number| *number > 0.0)
    };
    let parsed = if let Some(percent) = text.strip_suffix('%') {
        number(percent)
            .filter(|percent| *percent <= 100.0)
            .map(|percent| Threshold::ShareOfLimit(percent / 100.0))
    } else {
        number(text.strip_suffix("MiB").unwrap_or(text))
            .map(|mib| mib * f64::from(1 << 20))
            .filter(|bytes| *bytes < u64::MAX as f64)
            .map(|bytes| Threshold::Bytes(bytes as u64))
    };
    parsed.ok_or_else(|| "want MiB (1536) or a share of the worker's memory_limit (75%)".to_owned())
}

/// A level by the names that Monolog has for them; those that memprof does not write count as the next
pub(super) fn level(text: &str) -> Result<Level, String> {
    match text.to_ascii_lowercase().as_str() {
        "debug" | "info" => Ok(Level::Info),
        "notice" | "warning" => Ok(Level::Warning),
        "error" | "critical" | "alert" | "emergency" => Ok(Level::Critical),
        _ => Err("want info, warning or critical".to_owned()),
    }
}

/// Milliseconds above 0: `50`, `0.5`
pub(super) fn milliseconds(text: &str) -> Result<f64, String> {
    let parsed = text
        .parse()
        .ok()
        .filter(|ms| *ms > 0.0 && f64::is_finite(*ms));
    parsed.ok_or_else(|| "want milliseconds above 0: 50".to_owned())
}

/// `peak > 75%`: a threshold that a worker is past
pub(super) fn peak(text: &str) -> Result<Threshold, String> {
    let wanted = "want 'peak > 75%' or 'peak > 1536'";
    let rest = text.trim().strip_prefix("peak").map(str::trim_start);
    let past = rest.and_then(|rest| rest.strip_prefix('>')).ok_or(wanted)?;
    threshold(past.trim()).map_err(|_| wanted.to_owned())
}

/// `0` to `1`
pub(super) fn share(text: &str) -> Result<f64, String> {
    let parsed = text
        .parse()
        .ok()
        .filter(|share| (0.0..=1.0).contains(share));
    parsed.ok_or_else(|| "want a share of the requests, from 0 to 1: 0.01".to_owned())
}

/// `boot=app/Providers/AppServiceProvider.php`, `scope=App\Scopes\CompanyScope::apply`
pub(super) fn checkpoint(text: &str) -> Result<OwnCheckpoint, String> {
    const WANTED: &str = "want a name and a file or a function: 'boot=app/Providers/AppServiceProvider.php', \
                          'scope=App\\Scopes\\CompanyScope::apply'";
    let (label, place) = text.split_once('=').ok_or(WANTED)?;
    let is_name = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    if label.is_empty() || !label.chars().all(is_name) || place.is_empty() {
        return Err(WANTED.to_owned());
    }
    let at = if place.ends_with(".php") || place.contains('/') {
        CheckpointAt::File(place.to_owned())
    } else {
        CheckpointAt::Function(place.trim_start_matches('\\').replace("->", "::"))
    };
    Ok(OwnCheckpoint {
        label: label.to_owned(),
        at,
    })
}

/// A name that leaves a log line readable: `production.WARNING: …`
pub(super) fn channel(text: &str) -> Result<String, String> {
    let is_name = |c: char| c.is_alphanumeric() || "-_".contains(c);
    if !text.is_empty() && text.chars().all(is_name) {
        Ok(text.to_owned())
    } else {
        Err("want letters, digits, - and _: production".to_owned())
    }
}

/// MiB, a power of two, as bytes
pub(super) fn ring_size(text: &str) -> Result<u32, String> {
    let parsed = text
        .parse::<u32>()
        .ok()
        .filter(|mib| mib.is_power_of_two() && *mib <= 1024);
    let mib = parsed.ok_or_else(|| "want MiB, a power of two from 1 to 1024: 32".to_owned())?;
    Ok(mib << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_or_have_a_unit() {
        for (text, seconds) in [
            ("60", 60),
            ("60s", 60),
            ("10m", 600),
            ("1h", 3600),
            ("1h30m", 5400),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in [
            "",
            "0",
            "-5",
            "-5s",
            "ten",
            "10 parsecs",
            "99999999999999999999",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn thresholds_are_mib_or_percent() {
        assert_eq!(threshold("1536"), Ok(Threshold::Bytes(1536 << 20)));
        assert_eq!(threshold("1536MiB"), Ok(Threshold::Bytes(1536 << 20)));
        assert_eq!(threshold("87.5%"), Ok(Threshold::ShareOfLimit(0.875)));
        for text in ["", "0", "-1", "101%", "nan", "inf", "1e300", "big"] {
            assert!(threshold(text).is_err(), "{text}");
        }
    }

    #[test]
    fn checkpoints_are_files_or_functions() {
        let at = |text| checkpoint(text).map(|own| (own.label, own.at));
        let file = |path: &str| CheckpointAt::File(path.to_owned());
        let function = |name: &str| CheckpointAt::Function(name.to_owned());
        for (text, expected) in [
            ("boot=app/Foo.php", file("app/Foo.php")),
            ("boot=Foo.php", file("Foo.php")),
            ("boot=App\\Foo::bar", function("App\\Foo::bar")),
            ("boot=\\App\\Foo->bar", function("App\\Foo::bar")),
            ("boot=helper", function("helper")),
        ] {
            assert_eq!(at(text), Ok(("boot".to_owned(), expected)), "{text}");
        }
        for text in ["", "boot", "=f", "boot=", "a b=f", "a\"=f"] {
            assert!(checkpoint(text).is_err(), "{text}");
        }
    }

    #[test]
    fn conditions_are_about_the_peak() {
        for text in ["peak > 75%", "peak>75%", " peak  >  75% "] {
            assert_eq!(peak(text), Ok(Threshold::ShareOfLimit(0.75)), "{text}");
        }
        for text in ["", "75%", "peak", "peak < 75%", "peak > x", "peaks > 75%"] {
            assert!(peak(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shares_and_ring_sizes_are_bounded() {
        assert_eq!(share("0.01"), Ok(0.01));
        assert!(share("1.01").is_err() && share("nan").is_err());
        assert_eq!(ring_size("32"), Ok(32 << 20));
        assert!(ring_size("33").is_err() && ring_size("2048").is_err() && ring_size("0").is_err());
    }
}
