//! `memprof diff`: what grew between two dumps or two profiles.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::exit::Exit;
use super::table::{Align, Table, UNKNOWN, mib, printable};
use crate::record::json;
use crate::report::diff::{Row, Section, Side, Unit, diff};

/// Tell what grew between two memory dumps or two profiles
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct DiffArgs {
    /// The first: a memory-dump-*.json, a profile-*.pb.gz, or a folder, whose newest dump is taken
    #[arg(value_name = "A")]
    before: PathBuf,
    /// The second, of the same kind
    #[arg(value_name = "B")]
    after: PathBuf,
    /// Rows of each table
    #[arg(long, value_name = "N", default_value_t = 15)]
    rows: usize,
    /// Print JSON, one object, with up to 1,000 rows of each table
    #[arg(long)]
    json: bool,
}

/// What differs by less is not printed, in bytes: a tenth of a MiB.
const LEAST_BYTES: u64 = (1 << 20) / 10;
/// Unless it is so many things.
const LEAST_THINGS: u64 = 1000;

const EXAMPLES: &str = "\
EXAMPLES:
  memprof diff memory-dump-1770091501-4711.json memory-dump-1770091507-4711.json
  memprof diff /tmp/command-line /var/log/memprof/www
  memprof diff profile-1770091500.pb.gz profile-1770095100.pb.gz --rows 40

To see why a page takes more over HTTP than the same code on the command line, take a dump of each and compare them:
  sudo memprof dump --pid PHP --out /tmp/command-line
  sudo memprof dump --pid WORKER --out /tmp/worker
  memprof diff /tmp/command-line /tmp/worker

What changed most comes first. ? is unknown, because a dump lists only its largest entries; the change is then at most
what the other has.

EXIT STATUS: 0 when both were compared, whether or not they differ; 1 when one is no record, or they are of different
kinds; 4 when a file may not be read.";

impl DiffArgs {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let comparison = diff(&self.before, &self.after)?;
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{}", json::to_line(&comparison)?)?;
            return Ok(Exit::Done);
        }
        writeln!(out, "A  {}", describe(&comparison.before))?;
        writeln!(out, "B  {}", describe(&comparison.after))?;
        for section in &comparison.sections {
            let rows: Vec<&Row> = section
                .rows
                .iter()
                .filter(|row| is_shown(row))
                .take(self.rows)
                .collect();
            if rows.is_empty() {
                continue;
            }
            writeln!(out, "\n{}", section.title)?;
            write!(out, "{}", table(section, &rows))?;
            let more = section.rows.len() - rows.len() + section.omitted;
            if more > 0 {
                writeln!(out, "… {more} more changed less")?;
            }
        }
        Ok(Exit::Done)
    }
}

/// `dump.json: dump of GET /admin, pid 4711, at 2026-02-03T04:05:06Z`
fn describe(side: &Side) -> String {
    let of = if side.of.is_empty() {
        String::new()
    } else {
        format!(" of {}", side.of)
    };
    let path = side.path.display().to_string();
    let text = format!("{path}: {}{of}, at {}", side.kind, side.time);
    printable(&text).into_owned()
}

/// Whether a row says anything in MiB with one decimal, or of many things.
fn is_shown(row: &Row) -> bool {
    let (distance, things) = row.distance();
    row.unit == Unit::Number || distance >= LEAST_BYTES || things >= LEAST_THINGS
}

fn table(section: &Section, rows: &[&Row]) -> String {
    let mut table = Table::new([
        ("CHANGE", Align::Right),
        ("A", Align::Right),
        ("B", Align::Right),
        (section.counted.unwrap_or_default(), Align::Right),
        ("", Align::Left),
    ]);
    for row in rows {
        let [change, before, after] = amounts(row);
        let counts = match section.counted {
            Some(_) => format!("{} → {}", number(row.count_before), number(row.count_after)),
            None => String::new(),
        };
        table.row([change, before, after, counts, row.name.clone()]);
    }
    table.text()
}

/// The change, and what it is between.
fn amounts(row: &Row) -> [String; 3] {
    let amount = |amount: u64| match row.unit {
        Unit::Bytes => mib(amount),
        Unit::Number => amount.to_string(),
    };
    let change = match (row.change, row.before, row.after) {
        (Some(change), ..) if change < 0 => format!("-{}", amount(change.unsigned_abs())),
        (Some(change), ..) => format!("+{}", amount(change.unsigned_abs())),
        // What is not listed is 0 or more.
        (None, None, Some(after)) => format!("≤ +{}", amount(after)),
        (None, Some(before), None) => format!("≥ -{}", amount(before)),
        (None, ..) => UNKNOWN.to_owned(),
    };
    let known = |value: Option<u64>| value.map_or_else(|| UNKNOWN.to_owned(), amount);
    [change, known(row.before), known(row.after)]
}

fn number(value: Option<u64>) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), |value| value.to_string())
}
