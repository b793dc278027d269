//! Numbers as people read them: three significant digits, groups of three.

/// `1,234`, `35.2`, `0.089`. Whole from a hundred on.
pub(crate) fn number(value: f64) -> String {
    if !value.is_finite() {
        return "?".to_owned();
    }
    // Decided on the rounded value, or 99.96 would become `100.0`.
    let magnitude = magnitude(value);
    let decimals = usize::try_from(2 - magnitude).unwrap_or(0);
    let plain = format!("{value:.decimals$}");
    let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
    let fraction = fraction.trim_end_matches('0');
    let mut text = grouped(whole);
    if !fraction.is_empty() {
        text.push('.');
        text.push_str(fraction);
    }
    text
}

/// The power of ten of the first digit, after rounding to three digits.
fn magnitude(value: f64) -> i32 {
    // The exponent stands behind the `e` and is always a number.
    let scientific = format!("{value:.2e}");
    let exponent = scientific.split_once('e').map(|(_, exponent)| exponent);
    exponent.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn grouped(whole: &str) -> String {
    let mut text = String::new();
    for (index, digit) in whole.char_indices() {
        let left = whole.len() - index;
        if index > 0 && left.is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A ratio: `72 ×`, or `1/72` where it is less than one.
pub(crate) fn ratio(value: f64) -> String {
    if value > 0.0 && value < 1.0 {
        format!("1/{}", number(1.0 / value))
    } else {
        format!("{} ×", number(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_groups() {
        let cases = [
            (0.0, "0"),
            (0.35, "0.35"),
            (0.089_23, "0.0892"),
            (1.0, "1"),
            (35.249, "35.2"),
            (99.96, "100"),
            (99.94, "99.9"),
            (123.4, "123"),
            (999.6, "1,000"),
            (1_234.5, "1,234"),
            (12_345_678.0, "12,345,678"),
            (-123_456.0, "-123,456"),
            (f64::NAN, "?"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn ratios() {
        let cases = [
            (72.34, "72.3 ×"),
            (1.0 / 72.0, "1/72"),
            (0.4, "1/2.5"),
            (1.0, "1 ×"),
            (0.0, "0 ×"),
        ];
        for (value, text) in cases {
            assert_eq!(ratio(value), text);
        }
    }
}
