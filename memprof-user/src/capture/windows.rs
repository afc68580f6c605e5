//! Times of the day at which memprof works, and the mode that it works in then.

use std::{fmt, str::FromStr};

use jiff::civil::Time;

use super::options::Mode;

/// A part of every day, in local time: `18:30-19:15`, or `18:30-19:15=aggressive`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// It begins with this moment.
    pub from: Time,
    /// It ends before this moment, on the next day where that is the earlier one.
    pub to: Time,
    /// The mode in it; `None` for the run's own.
    pub mode: Option<Mode>,
}

impl Window {
    /// Whether it is open at this time of the day.
    #[must_use]
    pub fn is_open(&self, time: Time) -> bool {
        if self.from <= self.to {
            (self.from..self.to).contains(&time)
        } else {
            time >= self.from || time < self.to
        }
    }
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || {
            format!(
                "{text:?} is no window: want two times of the day, as 18:30-19:15, \
                 and a mode where it has one of its own: 18:30-19:15=aggressive"
            )
        };
        let (times, mode) = match text.split_once('=') {
            Some((times, mode)) => (times, Some(mode.parse().map_err(|()| wanted())?)),
            None => (text, None),
        };
        let (from, to) = times.split_once('-').ok_or_else(wanted)?;
        let time = |text: &str| text.trim().parse::<Time>().map_err(|_| wanted());
        let window = Self {
            from: time(from)?,
            to: time(to)?,
            mode,
        };
        if window.from == window.to || window.mode == Some(Mode::Exact) {
            return Err(wanted());
        }
        Ok(window)
    }
}

impl fmt::Display for Window {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}-{}", self.from, self.to)?;
        match self.mode {
            Some(mode) => write!(to, "={}", mode.as_str()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(text: &str) -> Window {
        text.parse().expect("a window")
    }

    fn time(text: &str) -> Time {
        text.parse().expect("a time")
    }

    #[test]
    fn a_window_may_reach_over_midnight() {
        let evening = window("18:30-19:15");
        let night = window("22:00-02:30");
        for (time_of_day, in_evening, in_night) in [
            ("18:29:59", false, false),
            ("18:30", true, false),
            ("19:14:59", true, false),
            ("19:15", false, false),
            ("22:00", false, true),
            ("23:59:59", false, true),
            ("00:00", false, true),
            ("02:30", false, false),
        ] {
            let time = time(time_of_day);
            assert_eq!(evening.is_open(time), in_evening, "{time_of_day}");
            assert_eq!(night.is_open(time), in_night, "{time_of_day}");
        }
    }

    #[test]
    fn what_is_no_window_is_refused() {
        for wrong in [
            "",
            "18:30",
            "18:30-",
            "18:30-18:30",
            "25:00-26:00",
            "18:30-19:15=loud",
            "18:30-19:15=exact",
        ] {
            assert!(wrong.parse::<Window>().is_err(), "{wrong}");
        }
    }
}
