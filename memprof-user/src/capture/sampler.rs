//! Light mode's choice: which worker's next request is recorded in full.

/// Picks one request in every `1 / rate`, at random, before it starts.
///
/// The worker that serves the chosen request is the one whose *next* request is recorded: so busy
/// workers are chosen as often as they serve, and the choice is made in time to attach the probes.
#[derive(Debug)]
pub struct Sampler {
    rate: f64,
    skip: u64,
    random: u64,
}

impl Sampler {
    /// Records `rate` of the requests, 0 to 1.
    #[must_use]
    pub fn new(rate: f64, seed: u64) -> Self {
        let mut sampler = Self {
            rate,
            skip: 0,
            random: seed | 1,
        };
        sampler.skip = sampler.draw();
        sampler
    }

    /// Records another share from the next choice on.
    pub fn set_rate(&mut self, rate: f64) {
        self.rate = rate;
    }

    /// A request started; whether its worker is the chosen one.
    pub fn choose(&mut self) -> bool {
        if self.rate <= 0.0 {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        self.skip = self.draw();
        true
    }

    /// Requests to let pass: 0 to twice the mean, all as likely.
    fn draw(&mut self) -> u64 {
        // xorshift64: any spread will do.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let interval = (2.0 / self.rate.max(f64::MIN_POSITIVE)).min(1e15) as u64;
        self.random % interval.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept() {
        let mut sampler = Sampler::new(0.01, 12345);
        let chosen = (0..100_000).filter(|_| sampler.choose()).count();
        assert!((900..1100).contains(&chosen), "{chosen}");
    }

    #[test]
    fn none_and_all() {
        let mut none = Sampler::new(0.0, 7);
        assert!((0..1000).all(|_| !none.choose()));
        let mut all = Sampler::new(1.0, 7);
        let chosen = (0..1000).filter(|_| all.choose()).count();
        assert!(chosen > 400, "{chosen}");
    }
}
