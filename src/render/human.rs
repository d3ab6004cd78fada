//! Numbers as a person reads them. JSON has the exact ones.

use crate::model::Bytes;

const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// A size in binary units with three significant digits: `28.9 MiB`.
pub fn size(bytes: Bytes) -> String {
    if bytes.0 < 1024 {
        return format!("{} B", bytes.0);
    }
    let mut value = bytes.0 as f64 / 1024.0;
    let mut unit = 0;
    // 1023.5 would be printed as 1024 of a unit that ends at 1023.
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = match value {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// A count with its thousands apart: `219,672`.
pub fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// `1 copy`, `2 copies`: a count with the word that fits it.
pub fn plural(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_significant_digits() {
        let cases = [
            (0, "0 B"),
            (1, "1 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1536, "1.50 KiB"),
            (10 * 1024 - 1, "10.0 KiB"),
            (102_348, "99.9 KiB"),
            (102_399, "100 KiB"),
            (1_047_552, "1023 KiB"),
            (1_048_575, "1.00 MiB"),
            (30_303_846, "28.9 MiB"),
            (4_960_000_000, "4.62 GiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (bytes, shown) in cases {
            assert_eq!(size(Bytes(bytes)), shown, "{bytes}");
        }
    }

    #[test]
    fn counts_have_their_thousands_apart() {
        let cases = [(0, "0"), (999, "999"), (1000, "1,000"), (219_672, "219,672")];
        for (number, shown) in cases {
            assert_eq!(count(number), shown);
        }
        assert_eq!(count(u64::MAX), "18,446,744,073,709,551,615");
    }

    #[test]
    fn the_word_fits_the_count() {
        assert_eq!(plural(1, "copy", "copies"), "1 copy");
        assert_eq!(plural(1234, "copy", "copies"), "1,234 copies");
    }
}
