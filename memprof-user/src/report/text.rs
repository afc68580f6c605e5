//! Texts and numbers as people read them.

use std::borrow::Cow;
use std::path::Path;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// The longest text that is taken from a file, in characters: a path of keys may be as long as its writer likes.
const MAX_CHARACTERS: usize = 300;
/// Folders whose code is not the application's own.
const FOREIGN_FOLDERS: [&str; 2] = ["/vendor/", "/usr/share/php/"];

/// A text that does nothing to a terminal: control characters are substituted.
pub(super) fn printable(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

/// The same, cut off where it is too long for a line.
pub(super) fn short(text: &str) -> String {
    match text.char_indices().nth(MAX_CHARACTERS) {
        Some((end, _)) => format!("{}…", printable(text.get(..end).unwrap_or_default())),
        None => printable(text),
    }
}

/// `63,201`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `512 MiB`, `12.6 MiB`, `8.3 KiB`, `40 bytes`: three digits, and no fraction of 0.
pub(super) fn size(bytes: u64) -> String {
    let (unit, name) = match bytes {
        MIB.. => (MIB, "MiB"),
        KIB.. => (KIB, "KiB"),
        _ => return format!("{bytes} bytes"),
    };
    format!("{} {name}", three_digits(bytes as f64 / unit as f64))
}

/// `498 of the 512 MiB`: a part of a whole, in one unit where that says enough.
pub(super) fn part(bytes: u64, whole: u64) -> String {
    if bytes >= MIB && whole >= MIB {
        format!(
            "{} of the {}",
            three_digits(bytes as f64 / MIB as f64),
            size(whole)
        )
    } else {
        format!("{} of the {}", size(bytes), size(whole))
    }
}

fn three_digits(number: f64) -> String {
    let text = match number {
        99.95.. => return count(number.round() as u64),
        9.995.. => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Whether a file is the application's own code, as far as its path tells.
pub(super) fn is_own(file: &str) -> bool {
    !FOREIGN_FOLDERS.iter().any(|folder| file.contains(folder))
}

/// A file as seen from the application's folder, which is what it has in common with the script that was asked for.
pub(super) fn in_application<'a>(file: &'a str, script: Option<&str>) -> Cow<'a, str> {
    let Some(script) = script else {
        return file.into();
    };
    let mut root = Path::new("/").to_owned();
    let folders = Path::new(file)
        .parent()
        .into_iter()
        .flat_map(Path::components);
    for (folder, other) in folders.zip(Path::new(script).components()).skip(1) {
        if folder != other {
            break;
        }
        root.push(folder);
    }
    // One folder in common, as /var or /usr, is no application.
    if root.components().count() < 3 {
        return file.into();
    }
    match Path::new(file).strip_prefix(&root) {
        Ok(inside) => inside.to_string_lossy(),
        Err(_) => file.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_groups() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_048_576, "1,048,576"),
        ] {
            assert_eq!(count(number), text);
        }
        for (bytes, text) in [
            (40, "40 bytes"),
            (8_500, "8.3 KiB"),
            (MIB, "1 MiB"),
            (13_212_057, "12.6 MiB"),
            (512 * MIB, "512 MiB"),
            (2_048 * MIB, "2,048 MiB"),
            (u64::MAX, "17,592,186,044,416 MiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(part(498 * MIB, 512 * MIB), "498 of the 512 MiB");
        assert_eq!(part(40, 512 * MIB), "40 bytes of the 512 MiB");
    }

    #[test]
    fn what_comes_from_a_file_is_bounded_and_harmless() {
        assert_eq!(short("a\u{1b}[2J"), "a\u{fffd}[2J");
        assert_eq!(short(&"é".repeat(5_000)).chars().count(), 301);
    }

    #[test]
    fn files_are_seen_from_the_application() {
        let script = Some("/var/www/depot/public/index.php");
        for (file, short) in [
            (
                "/var/www/depot/app/Scopes/CompanyScope.php",
                "app/Scopes/CompanyScope.php",
            ),
            ("/var/www/depot/public/index.php", "index.php"),
            ("/usr/share/php/Foo.php", "/usr/share/php/Foo.php"),
            ("/var/lib/x.php", "/var/lib/x.php"),
            ("x.php", "x.php"),
            ("", ""),
        ] {
            assert_eq!(in_application(file, script), short);
        }
        assert_eq!(in_application("/a/b/c.php", None), "/a/b/c.php");
        assert!(is_own("/var/www/app/X.php") && !is_own("/var/www/vendor/x/X.php"));
    }
}
