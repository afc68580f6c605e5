//! Floats as PHP rounds and prints them.

/// The most digits before the point that JSON prints without an exponent (ini serialize_precision = -1).
const JSON_DIGITS: i32 = 17;
/// The digits that `echo` prints (ini precision = 14).
const ECHO_DIGITS: i32 = 14;

/// A float as in JSON: the shortest digits that read back as the same number, `1.0e+25` where PHP would.
pub fn shortest(value: f64) -> String {
    text(value, JSON_DIGITS, 'e')
}

/// A float as PHP echoes it: 14 digits, without trailing zeros, `1.0E+25` where PHP would.
pub fn echo(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "INF" } else { "-INF" }.to_owned();
    }
    let rounded = format!("{value:.13e}").parse().unwrap_or(value);
    text(rounded, ECHO_DIGITS, 'E')
}

/// PHP's `round($value, 2)`.
///
/// Like PHP before 8.4 it first rounds to the 15 digits that a float holds for sure, so that 1.005 gives 1.01.
pub fn round2(value: f64) -> f64 {
    let scaled = value * 100.0;
    match format!("{scaled:.14e}").parse::<f64>() {
        Ok(fifteen_digits) if fifteen_digits.abs() < 1e15 => fifteen_digits.round() / 100.0,
        // Too big to have decimals, or not a number.
        _ => value,
    }
}

fn text(value: f64, max_digits: i32, exponent_sign: char) -> String {
    let scientific = scientific(value);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..max_digits).contains(&exponent) {
        let fraction = if mantissa.contains('.') { "" } else { ".0" };
        return format!("{mantissa}{fraction}{exponent_sign}{exponent:+}");
    }
    let digits = mantissa.replace(['-', '.'], "");
    let sign = if value.is_sign_negative() { "-" } else { "" };
    // How many digits stand before the point.
    match usize::try_from(exponent + 1) {
        Ok(whole @ 1..) => match digits.split_at_checked(whole) {
            Some((whole, fraction)) if !fraction.is_empty() => format!("{sign}{whole}.{fraction}"),
            _ => format!("{sign}{digits:0<whole$}"),
        },
        _ => format!(
            "{sign}0.{}{digits}",
            "0".repeat(exponent.unsigned_abs() as usize - 1)
        ),
    }
}

/// The shortest digits that read back as the same number, as `-1.5e-7`.
fn scientific(value: f64) -> String {
    let shortest = format!("{value:e}");
    let fraction = shortest
        .split_once('.')
        .and_then(|(_, rest)| rest.split_once('e'));
    let decimals = fraction.map_or(0, |(decimals, _)| decimals.len());
    // Of two that are equally near PHP takes the even one, and Rust the larger one.
    let nearest = format!("{value:.decimals$e}");
    if nearest.parse() == Ok(value) {
        nearest
    } else {
        shortest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // What PHP 8.2.36 printed with json_encode and with echo.
    #[test]
    fn prints_as_php_does() {
        for (value, json, echoed) in [
            (2048.0, "2048", "2048"),
            (1850.5, "1850.5", "1850.5"),
            (1e13, "10000000000000", "10000000000000"),
            (1e14, "100000000000000", "1.0E+14"),
            (1e15, "1000000000000000", "1.0E+15"),
            (1e16, "10000000000000000", "1.0E+16"),
            (1e17, "1.0e+17", "1.0E+17"),
            (1e25, "1.0e+25", "1.0E+25"),
            (1.5e300, "1.5e+300", "1.5E+300"),
            (0.0001, "0.0001", "0.0001"),
            (0.00001, "1.0e-5", "1.0E-5"),
            (1e-7, "1.0e-7", "1.0E-7"),
            (1_770_091_502.911_87, "1770091502.91187", "1770091502.9119"),
            (
                123_456_789_012_345_680.0,
                "1.2345678901234568e+17",
                "1.2345678901235E+17",
            ),
            (
                12_345_678_901_234_567.0,
                "12345678901234568",
                "1.2345678901235E+16",
            ),
            (0.1 + 0.2, "0.30000000000000004", "0.3"),
            (-0.0, "-0", "-0"),
            (-0.012, "-0.012", "-0.012"),
            (-1290.5, "-1290.5", "-1290.5"),
            // Two shortest texts, equally near: these end in .25 and .5625.
            (
                1_290_311_284_509_401.3,
                "1290311284509401.2",
                "1.2903112845094E+15",
            ),
            (
                27_945_177_909_229.563,
                "27945177909229.562",
                "27945177909230",
            ),
            // Not all digits of a whole number are its own.
            (
                72_057_594_037_927_952.0,
                "72057594037927950",
                "7.2057594037928E+16",
            ),
        ] {
            assert_eq!(
                (shortest(value).as_str(), echo(value).as_str()),
                (json, echoed)
            );
        }
        assert_eq!(
            (
                echo(f64::INFINITY).as_str(),
                echo(f64::NEG_INFINITY).as_str()
            ),
            ("INF", "-INF")
        );
    }

    #[test]
    fn rounds_as_php_does() {
        for (value, rounded) in [
            (1.005, 1.01),
            (-1.005, -1.01),
            (0.125, 0.13),
            (1_903.416_666_666_666_7, 1903.42),
            (2048.0, 2048.0),
            (1e300, 1e300),
            (0.0, 0.0),
        ] {
            assert_eq!(round2(value), rounded);
        }
    }
}
