//! Text for a terminal: columns, units, and no control characters from outside.

use std::borrow::Cow;
use std::fmt::Write;

/// What stands for a value that could not be read.
pub(super) const UNKNOWN: &str = "?";

/// The text with control characters escaped: a request path or a pool's name must not steer the terminal.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return text.into();
    }
    let escape = |c: char| -> String {
        if c.is_control() {
            c.escape_default().collect()
        } else {
            c.into()
        }
    };
    text.chars().map(escape).collect::<String>().into()
}

/// Bytes as MiB with one decimal.
pub(super) fn mib(bytes: u64) -> String {
    format!("{:.1}M", bytes as f64 / f64::from(1 << 20))
}

/// Rows under a heading, each column as wide as its widest cell; numbers may be aligned to the right.
pub(super) struct Table<const COLUMNS: usize> {
    heading: [(&'static str, Align); COLUMNS],
    rows: Vec<[String; COLUMNS]>,
}

/// On which side of its column a cell stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    pub(super) fn new(heading: [(&'static str, Align); COLUMNS]) -> Self {
        Self {
            heading,
            rows: Vec::new(),
        }
    }

    /// Adds a row; its cells are made printable.
    pub(super) fn row(&mut self, cells: [String; COLUMNS]) {
        self.rows
            .push(cells.map(|cell| printable(&cell).into_owned()));
    }

    pub(super) fn text(&self) -> String {
        let heading = self.heading.map(|(title, _)| title.to_owned());
        let lines: Vec<&[String; COLUMNS]> = std::iter::once(&heading).chain(&self.rows).collect();
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
        let widths: [usize; COLUMNS] = std::array::from_fn(|column| width(column).unwrap_or(0));
        let mut text = String::new();
        for line in &lines {
            let mut row = String::new();
            for ((cell, width), (_, align)) in line.iter().zip(widths).zip(self.heading) {
                let _ = match align {
                    Align::Left => write!(row, "{cell:<width$}  "),
                    Align::Right => write!(row, "{cell:>width$}  "),
                };
            }
            let _ = writeln!(text, "{}", row.trim_end());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new([
            ("PID", Align::Right),
            ("POOL", Align::Left),
            ("RSS", Align::Right),
        ]);
        table.row(["8".into(), "www".into(), "1.0M".into()]);
        table.row(["12345".into(), "a\tb".into(), UNKNOWN.into()]);
        let text = "  PID  POOL   RSS\n    8  www   1.0M\n12345  a\\tb     ?\n";
        assert_eq!(table.text(), text);
    }

    #[test]
    fn bytes_are_shown_as_mib() {
        assert_eq!(mib(0), "0.0M");
        assert_eq!(mib(128 << 20), "128.0M");
        assert_eq!(mib(1_600_000), "1.5M");
    }
}
