//! When a certificate ends: the one thing that rustls does not say of a certificate it believes.

use rustls::pki_types::CertificateDer;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// `notAfter` of a certificate in seconds since 1970 (RFC 5280, 4.1). Only for what to show: it is not what decides.
pub(super) fn end(certificate: &CertificateDer<'_>) -> Option<u64> {
    let mut certificate = inside(&mut &**certificate, SEQUENCE)?;
    let mut fields = inside(&mut certificate, SEQUENCE)?;
    if fields.first() == Some(&VERSION) {
        element(&mut fields)?;
    }
    // Serial number, algorithm, issuer.
    for _ in 0..3 {
        element(&mut fields)?;
    }
    let mut validity = inside(&mut fields, SEQUENCE)?;
    element(&mut validity)?;
    let (tag, text) = element(&mut validity)?;
    let text = std::str::from_utf8(text).ok()?;
    match tag {
        // Two digits of the year: 50 to 99 belong to the last century.
        UTC_TIME => {
            let century = if *text.as_bytes().first()? >= b'5' {
                "19"
            } else {
                "20"
            };
            seconds(&format!("{century}{text}"))
        }
        GENERALIZED_TIME => seconds(text),
        _ => None,
    }
}

/// The next element: its tag and its content.
fn element<'a>(der: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let length = if first < 0x80 {
        usize::from(first)
    } else {
        let bytes = usize::from(first & 0x7f);
        if bytes > 4 || bytes > rest.len() {
            return None;
        }
        let (length, after) = rest.split_at(bytes);
        rest = after;
        length
            .iter()
            .fold(0, |length, byte| length << 8 | usize::from(*byte))
    };
    if length > rest.len() {
        return None;
    }
    let (content, after) = rest.split_at(length);
    *der = after;
    Some((tag, content))
}

fn inside<'a>(der: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    element(der)
        .filter(|(found, _)| *found == tag)
        .map(|(_, content)| content)
}

/// Seconds since 1970 of `YYYYMMDDHHMMSSZ`.
fn seconds(text: &str) -> Option<u64> {
    let text = text.strip_suffix('Z')?;
    if text.len() != 14 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = |from: usize, to: usize| text[from..to].parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    let (hour, minute, second) = (number(8, 10)?, number(10, 12)?, number(12, 14)?);
    if year < 1970 || !(1..=12).contains(&month) || day == 0 {
        return None;
    }
    // Days since 1970 with the year beginning in March, so that the leap day is its last.
    let shifted = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let days =
        shifted * 365 + shifted / 4 - shifted / 100 + shifted / 400 + (month * 306 + 5) / 10 + day
            - 1;
    let days = days.checked_sub(719_468)?;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dates_are_counted() {
        assert_eq!(seconds("19700101000000Z"), Some(0));
        assert_eq!(seconds("20000229120000Z"), Some(951_825_600));
        assert_eq!(seconds("20260101000000Z"), Some(1_767_225_600));
        assert_eq!(seconds("20261301000000Z"), None);
        assert_eq!(seconds("2026"), None);
    }

    #[test]
    fn the_end_of_a_certificate_is_found() {
        let mut params =
            rcgen::CertificateParams::new(vec!["a.example".to_owned()]).expect("a name");
        params.not_after = rcgen::date_time_ymd(2031, 5, 17);
        let key = rcgen::KeyPair::generate().expect("a key can be made");
        let certificate = params.self_signed(&key).expect("a certificate");
        assert_eq!(end(certificate.der()), seconds("20310517000000Z"));
        params.not_after = rcgen::date_time_ymd(2060, 1, 1);
        let certificate = params.self_signed(&key).expect("a certificate");
        assert_eq!(end(certificate.der()), seconds("20600101000000Z"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = end(&CertificateDer::from(bytes));
        }
    }
}
