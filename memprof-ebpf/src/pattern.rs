//! Matching a path against a pattern, step by step, so that the BPF programs can do it too.

use crate::{PATH_BYTES, PATTERN_BYTES, Pattern};

/// Steps after which every match is decided.
pub const MOST_STEPS: u32 = (PATH_BYTES * PATTERN_BYTES) as u32;

/// Where a match stands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Matching {
    /// Bytes of the pattern that are matched.
    at_pattern: usize,
    /// Bytes of the path that are matched.
    at_path: usize,
    /// Behind the last `*` of the pattern; 0 where there was none.
    behind_star: usize,
    /// Up to where that `*` reaches.
    star_end: usize,
}

impl Matching {
    /// One step; `Some` when it is decided. The path ends at `length`, or at its query string.
    #[inline(always)]
    pub fn step(
        &mut self,
        pattern: &Pattern,
        path: &[u8; PATH_BYTES],
        length: usize,
    ) -> Option<bool> {
        // Powers of two: the masks are the bounds that the kernel asks for.
        let wanted = pattern.bytes[self.at_pattern & (PATTERN_BYTES - 1)];
        let byte = path[self.at_path & (PATH_BYTES - 1)];
        let is_matched = self.at_pattern >= pattern.length as usize;
        let is_over = self.at_path >= length || byte == b'?' || byte == b'#';
        if is_matched && is_over {
            return Some(true);
        }
        if !is_matched && wanted == b'*' {
            self.at_pattern += 1;
            self.behind_star = self.at_pattern;
            self.star_end = self.at_path;
            return None;
        }
        if is_over {
            return Some(false);
        }
        if !is_matched && (wanted == b'?' || wanted == byte) {
            self.at_pattern += 1;
            self.at_path += 1;
            return None;
        }
        if self.behind_star == 0 {
            return Some(false);
        }
        // The last star takes one byte more.
        self.star_end += 1;
        self.at_path = self.star_end;
        self.at_pattern = self.behind_star;
        None
    }
}

impl Pattern {
    /// `None` where the pattern is longer than [`PATTERN_BYTES`].
    #[must_use]
    pub fn new(pattern: &str) -> Option<Self> {
        let mut bytes = [0; PATTERN_BYTES];
        bytes
            .get_mut(..pattern.len())?
            .copy_from_slice(pattern.as_bytes());
        Some(Self {
            length: pattern.len() as u32,
            reserved: 0,
            bytes,
        })
    }

    /// Whether a path matches, up to its query string.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        if self.length == 0 {
            return true;
        }
        let mut bytes = [0; PATH_BYTES];
        let length = path.len().min(PATH_BYTES);
        bytes[..length].copy_from_slice(&path.as_bytes()[..length]);
        let mut matching = Matching::default();
        let mut steps = (0..MOST_STEPS).map(|_| matching.step(self, &bytes, length));
        steps.find_map(|step| step).unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything_and_question_marks_for_one_byte() {
        let matches = |pattern, path| Pattern::new(pattern).is_some_and(|p| p.matches(path));
        for (pattern, path) in [
            ("", "/anything"),
            ("*", ""),
            ("/admin", "/admin"),
            ("/admin", "/admin?page=2"),
            ("/admin*", "/admin/users"),
            ("/admin/*", "/admin/"),
            ("*/edit", "/admin/users/7/edit"),
            ("/a*b*c", "/aXbXbXc"),
            ("/?/x", "/1/x"),
            ("**", "/a"),
        ] {
            assert!(matches(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("/admin", "/admin/"),
            ("/admin", "/"),
            ("/admin/*", "/admin"),
            ("*page*", "/admin?page=2"),
            ("/?", "/"),
            ("/?x", "/?x"),
            ("/a*b", "/aXbX"),
        ] {
            assert!(!matches(pattern, path), "{pattern} {path}");
        }
    }

    #[test]
    fn the_worst_pattern_is_decided() {
        let path = [b'a'; PATH_BYTES];
        let path = core::str::from_utf8(&path).unwrap_or_default();
        let mut pattern = Pattern::new("").expect("short");
        pattern.length = PATTERN_BYTES as u32;
        for (index, byte) in pattern.bytes.iter_mut().enumerate() {
            *byte = if index % 2 == 0 { b'*' } else { b'a' };
        }
        assert!(pattern.matches(path));
        pattern.bytes[PATTERN_BYTES - 1] = b'b';
        assert!(!pattern.matches(path));
    }

    #[test]
    fn a_pattern_has_its_bound() {
        let long = [b'a'; PATTERN_BYTES + 1];
        let long = core::str::from_utf8(&long).unwrap_or_default();
        assert!(Pattern::new(long).is_none() && Pattern::new(&long[1..]).is_some());
    }
}
