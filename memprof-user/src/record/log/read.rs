//! Reading a log back, a line at a time.

use std::io::{self, BufRead, Read};

use super::{LogLine, MAX_LINE_BYTES};

/// The lines of a log that memprof writes, in the order of the file; all others are counted and passed over.
///
/// It holds one line at a time, and no more than [`MAX_LINE_BYTES`] of it. Invalid UTF-8 is substituted.
pub struct LogReader<R> {
    input: R,
    passed_over: u64,
}

impl<R: BufRead> LogReader<R> {
    /// Reads that log.
    pub fn new(input: R) -> Self {
        Self {
            input,
            passed_over: 0,
        }
    }

    /// How many lines so far were none of memprof's, or too long.
    pub fn passed_over(&self) -> u64 {
        self.passed_over
    }

    /// The next line's bytes; `None` at the end of the file, and an empty line for one that is too long.
    fn next_bytes(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        let limit = MAX_LINE_BYTES as u64;
        self.input
            .by_ref()
            .take(limit)
            .read_until(b'\n', &mut bytes)?;
        if bytes.len() == MAX_LINE_BYTES && !bytes.ends_with(b"\n") {
            self.input.skip_until(b'\n')?;
            return Ok(Some(Vec::new()));
        }
        Ok((!bytes.is_empty()).then_some(bytes))
    }
}

impl<R: BufRead> Iterator for LogReader<R> {
    type Item = io::Result<LogLine>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let bytes = match self.next_bytes() {
                Ok(bytes) => bytes?,
                Err(error) => return Some(Err(error)),
            };
            match LogLine::parse(&String::from_utf8_lossy(&bytes)) {
                Some(line) => return Some(Ok(line)),
                None => self.passed_over += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_over_what_is_not_a_record() {
        let good = b"[2026-02-03 04:05:06] production.INFO: a\xff {\"b\":1} \n";
        let mut log = Vec::new();
        log.extend_from_slice(b"[stacktrace]\n#0 {main}\n\n");
        log.extend_from_slice(good);
        log.extend(std::iter::repeat_n(b'x', MAX_LINE_BYTES + 10));
        log.push(b'\n');
        log.extend_from_slice(good);
        log.extend_from_slice(b"[2026-02-03 04:05:06] production.INFO: cut {\"b\"");

        let mut reader = LogReader::new(log.as_slice());
        let lines: Vec<LogLine> = reader
            .by_ref()
            .collect::<io::Result<_>>()
            .expect("a slice reads");
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1].message, "a\u{fffd}");
        assert_eq!(reader.passed_over(), 5);
    }

    #[test]
    fn a_line_of_the_greatest_length_is_read() {
        let head = "[2026-02-03 04:05:06] production.INFO: a {\"b\":\"";
        let tail = "\"} \n";
        let filling = "x".repeat(MAX_LINE_BYTES - head.len() - tail.len());
        let log = format!("{head}{filling}{tail}");
        assert_eq!(LogReader::new(log.as_bytes()).count(), 1);
    }
}
