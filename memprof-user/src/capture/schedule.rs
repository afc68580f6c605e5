//! Which mode a run is in, and why: by order, by the guard, by the time of the day, by what the workers do.

use std::{
    fmt,
    time::{Duration, Instant},
};

use jiff::civil::Time;

use super::{
    options::{AttachOptions, Mode, Threshold},
    windows::Window,
};

/// For how long a worker's peak counts for `--when`.
const PEAK_COUNTS: Duration = Duration::from_secs(60);

/// What decides which mode a run is in.
#[derive(Debug)]
pub struct Schedule {
    configured: Mode,
    windows: Vec<Window>,
    /// Aggressive only while a worker is past this.
    when: Option<Threshold>,
    order: Option<Order>,
    /// When a worker was last past `when`.
    past: Option<Instant>,
    /// The most that the guard allows; `None` within for no probe.
    ceiling: Option<Option<Mode>>,
}

/// The mode that an operator ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Order {
    mode: Mode,
    until: Option<Instant>,
}

/// The mode, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// `None` for no probe.
    pub mode: Option<Mode>,
    /// Why.
    pub reason: Reason,
}

/// Why a run is in its mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// By its command line or configuration.
    Configured,
    /// `memprof disable`.
    Disabled,
    /// `memprof mode`.
    Ordered,
    /// The guard stepped down.
    Guard,
    /// In a window.
    Window(Window),
    /// Outside of every window.
    OutsideWindows,
    /// A worker is past the threshold of `--when`, or was within the last minute.
    Peak,
    /// No worker is past the threshold of `--when`.
    NoPeak,
}

/// What a run is to do at a time of the day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hours {
    /// No window has a say: the run's own mode.
    Open,
    /// In this window.
    In(Window),
    /// Outside of every window: no probe at all.
    Closed,
}

/// Windows without a mode say when memprof works at all; one with a mode says which it is then. The first
/// that is open counts.
fn hours(windows: &[Window], time: Time) -> Hours {
    let open = windows.iter().filter(|window| window.is_open(time));
    // The more precise one counts first.
    if let Some(window) = open.min_by_key(|window| window.mode.is_none()) {
        return Hours::In(*window);
    }
    if windows.iter().any(|window| window.mode.is_none()) {
        Hours::Closed
    } else {
        Hours::Open
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configured => write!(to, "as configured"),
            Self::Disabled => write!(to, "disabled by `memprof disable`"),
            Self::Ordered => write!(to, "ordered by `memprof mode`"),
            Self::Guard => write!(
                to,
                "the overhead guard, until `memprof mode` says otherwise"
            ),
            Self::Window(window) => write!(to, "window {window}"),
            Self::OutsideWindows => write!(to, "outside its windows"),
            Self::Peak => write!(to, "a worker is past the threshold of --when"),
            Self::NoPeak => write!(to, "no worker is past the threshold of --when"),
        }
    }
}

impl Schedule {
    /// What the options say.
    #[must_use]
    pub fn new(options: &AttachOptions) -> Self {
        Self {
            configured: options.mode,
            windows: options.windows.clone(),
            when: options.when,
            order: None,
            past: None,
            ceiling: None,
        }
    }

    /// The mode at this moment.
    pub fn decide(&mut self, now: Instant, time: Time, is_disabled: bool) -> Decision {
        let decided = |mode, reason| Decision { mode, reason };
        self.order = self
            .order
            .filter(|order| order.until.is_none_or(|until| now < until));
        if is_disabled {
            return decided(None, Reason::Disabled);
        }
        let decision = match (self.order, hours(&self.windows, time)) {
            (Some(order), _) => decided(Some(order.mode), Reason::Ordered),
            (None, Hours::Closed) => decided(None, Reason::OutsideWindows),
            (None, Hours::In(window)) => {
                let mode = window.mode.unwrap_or(self.configured);
                self.by_peak(now, mode, Reason::Window(window))
            }
            (None, Hours::Open) => self.by_peak(now, self.configured, Reason::Configured),
        };
        match self.ceiling {
            Some(ceiling) if cost(decision.mode) > cost(ceiling) => decided(ceiling, Reason::Guard),
            _ => decision,
        }
    }

    fn by_peak(&self, now: Instant, mode: Mode, reason: Reason) -> Decision {
        let (mode, reason) = match (self.when, mode) {
            (Some(_), Mode::Aggressive) => {
                let counts = |past| now.saturating_duration_since(past) < PEAK_COUNTS;
                if self.past.is_some_and(counts) {
                    (mode, Reason::Peak)
                } else {
                    (Mode::Light, Reason::NoPeak)
                }
            }
            _ => (mode, reason),
        };
        Decision {
            mode: Some(mode),
            reason,
        }
    }

    /// A worker's heap is so large, in bytes, under that memory_limit.
    pub fn seen(&mut self, now: Instant, real_size: u64, limit: u64) {
        if self
            .when
            .is_some_and(|threshold| real_size > threshold.bytes(limit))
        {
            self.past = Some(now);
        }
    }

    /// An operator wants this mode, for a time or for good; what the guard said before is over.
    pub fn order(&mut self, mode: Mode, until: Option<Instant>) {
        self.order = Some(Order { mode, until });
        self.ceiling = None;
    }

    /// An operator wants what is configured; what the guard said before is over.
    pub fn withdraw_order(&mut self) {
        self.order = None;
        self.ceiling = None;
    }

    /// The guard steps down from this mode, until an operator says otherwise.
    pub fn step_down(&mut self, from: Mode) {
        self.ceiling = Some(match from {
            Mode::Exact | Mode::Aggressive => Some(Mode::Light),
            Mode::Targeted | Mode::Light => None,
        });
    }
}

/// A mode that costs more has a higher number.
fn cost(mode: Option<Mode>) -> u8 {
    match mode {
        None => 0,
        Some(Mode::Light | Mode::Targeted) => 1,
        Some(Mode::Aggressive) => 2,
        Some(Mode::Exact) => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(mode: Mode) -> Schedule {
        Schedule {
            configured: mode,
            windows: Vec::new(),
            when: None,
            order: None,
            past: None,
            ceiling: None,
        }
    }

    fn noon() -> Time {
        Time::constant(12, 0, 0, 0)
    }

    #[test]
    fn windows_without_a_mode_close_the_rest_of_the_day() {
        let time = |text: &str| text.parse::<Time>().expect("a time");
        let day = "08:00-20:00".parse::<Window>().expect("a window");
        let busy = "18:00-19:00=aggressive"
            .parse::<Window>()
            .expect("a window");
        assert_eq!(hours(&[], time("03:00")), Hours::Open);
        assert_eq!(hours(&[busy], time("03:00")), Hours::Open);
        assert_eq!(hours(&[day, busy], time("03:00")), Hours::Closed);
        assert_eq!(hours(&[day, busy], time("09:00")), Hours::In(day));
        assert_eq!(hours(&[day, busy], time("18:30")), Hours::In(busy));
    }

    #[test]
    fn an_order_ends() {
        let mut schedule = schedule(Mode::Light);
        let now = Instant::now();
        schedule.order(Mode::Aggressive, Some(now + Duration::from_secs(10)));
        let at = |schedule: &mut Schedule, seconds| {
            let now = now + Duration::from_secs(seconds);
            schedule.decide(now, noon(), false).mode
        };
        assert_eq!(at(&mut schedule, 9), Some(Mode::Aggressive));
        assert_eq!(at(&mut schedule, 10), Some(Mode::Light));
        assert_eq!(at(&mut schedule, 9), Some(Mode::Light));
    }

    #[test]
    fn disabled_is_above_all() {
        let mut schedule = schedule(Mode::Light);
        schedule.order(Mode::Aggressive, None);
        let decision = schedule.decide(Instant::now(), noon(), true);
        assert_eq!((decision.mode, decision.reason), (None, Reason::Disabled));
    }

    #[test]
    fn the_guard_steps_down_until_told_otherwise() {
        let mut schedule = schedule(Mode::Aggressive);
        let now = Instant::now();
        schedule.step_down(Mode::Aggressive);
        let decision = schedule.decide(now, noon(), false);
        assert_eq!(
            (decision.mode, decision.reason),
            (Some(Mode::Light), Reason::Guard)
        );
        schedule.step_down(Mode::Light);
        assert_eq!(schedule.decide(now, noon(), false).mode, None);
        schedule.withdraw_order();
        let decision = schedule.decide(now, noon(), false);
        assert_eq!(
            (decision.mode, decision.reason),
            (Some(Mode::Aggressive), Reason::Configured)
        );
    }

    #[test]
    fn aggressive_only_while_a_worker_is_past_its_share() {
        let mut schedule = schedule(Mode::Aggressive);
        schedule.when = Some(Threshold::ShareOfLimit(0.75));
        let now = Instant::now();
        let limit = 128 << 20;
        schedule.seen(now, 96 << 20, limit);
        assert_eq!(schedule.decide(now, noon(), false).mode, Some(Mode::Light));
        schedule.seen(now, 98 << 20, limit);
        assert_eq!(
            schedule.decide(now, noon(), false).mode,
            Some(Mode::Aggressive)
        );
        let later = now + PEAK_COUNTS;
        assert_eq!(
            schedule.decide(later, noon(), false).mode,
            Some(Mode::Light)
        );
    }
}
