//! The values of fields that each answer has of its own, in few bytes: most are a date, or a hash in hexadecimal digits.

use std::ops::Deref;
use std::time::{Duration, UNIX_EPOCH};

/// `Sun, 06 Nov 1994 08:49:37 GMT`.
const DATE: usize = 29;
/// `W/"` and `"` with 32 digits between them: what the upstream's framework makes.
const HASH: usize = 36;

/// What follows, in a byte.
const TEXT: u8 = 0;
const IS_DATE: u8 = 1;
const IS_HASH: u8 = 2;

/// A value as it is sent.
pub(super) enum Value<'b> {
    Text(&'b [u8]),
    Date([u8; DATE]),
    Hash([u8; HASH]),
}

impl Deref for Value<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Text(text) => text,
            Self::Date(date) => date,
            Self::Hash(hash) => hash,
        }
    }
}

/// Adds a value; none if it is too long.
pub(super) fn write(value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    if let Some(seconds) = seconds_of(value) {
        out.push(IS_DATE);
        out.extend(seconds.to_le_bytes());
    } else if let Some(hash) = hash_of(value) {
        out.push(IS_HASH);
        out.extend(hash);
    } else {
        out.push(TEXT);
        out.extend(u16::try_from(value.len()).ok()?.to_le_bytes());
        out.extend_from_slice(value);
    }
    Some(())
}

/// The first value, and what follows it.
pub(super) fn read(bytes: &[u8]) -> Option<(Value<'_>, &[u8])> {
    let (kind, bytes) = bytes.split_first()?;
    match *kind {
        IS_DATE => {
            let (seconds, rest) = bytes.split_first_chunk()?;
            Some((Value::Date(date(u64::from_le_bytes(*seconds))), rest))
        }
        IS_HASH => {
            let (hash, rest) = bytes.split_first_chunk()?;
            Some((Value::Hash(digits(*hash)), rest))
        }
        _ => {
            let (length, bytes) = bytes.split_first_chunk()?;
            let (text, rest) = bytes.split_at_checked(u16::from_le_bytes(*length).into())?;
            Some((Value::Text(text), rest))
        }
    }
}

/// The time that a date names, if it is written as dates are.
fn seconds_of(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.len() == DATE)?;
    let seconds =
        httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).as_ref().map(Duration::as_secs).ok()?;
    (date(seconds) == value).then_some(seconds)
}

/// A time as a `Date` field has it (RFC 9110 section 5.6.7), to the end of the year 9999. Not by a library: a hit has one.
#[expect(clippy::cast_possible_truncation, reason = "no number here has more than four digits")]
fn date(seconds: u64) -> [u8; DATE] {
    const DAYS: &[u8; 21] = b"ThuFriSatSunMonTueWed";
    const MONTHS: &[u8; 36] = b"MarAprMayJunJulAugSepOctNovDecJanFeb";
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Years begin with March here, and eras of 400 years with the year 0: so the day that is sometimes missing is a last one.
    let since_year_0 = days + 719_468;
    let (era, of_era) = (since_year_0 / 146_097, since_year_0 % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year_of_era + u64::from(month >= 10);
    let mut text = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    let mut put = |at: usize, name: &[u8]| text[at..at + name.len()].copy_from_slice(name);
    let name = |names: &'static [u8], at: u64| &names[at as usize * 3..][..3];
    put(0, name(DAYS, days % 7));
    put(8, name(MONTHS, month));
    let pairs =
        [(5, day), (12, year / 100), (14, year), (17, of_day / 3600), (20, of_day / 60 % 60), (23, of_day % 60)];
    for (at, number) in pairs {
        put(at, &[b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8]);
    }
    text
}

fn hash_of(value: &[u8]) -> Option<[u8; 16]> {
    let digits = value.strip_prefix(b"W/\"")?.strip_suffix(b"\"")?.as_chunks::<2>();
    let (pairs, []) = digits else { return None };
    let mut hash = [0; 16];
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    (pairs.len() == hash.len()).then_some(hash)
}

fn digits(hash: [u8; 16]) -> [u8; HASH] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = *b"W/\"................................\"";
    for (pair, byte) in text[3..].chunks_exact_mut(2).zip(hash) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kept(value: &[u8]) -> (Vec<u8>, usize) {
        let mut out = Vec::new();
        write(value, &mut out).unwrap();
        let length = out.len();
        out.push(7);
        let (read, rest) = read(&out).unwrap();
        assert_eq!(rest, [7]);
        (read.to_vec(), length)
    }

    #[test]
    fn what_is_not_quite_a_date_or_a_hash_stays_as_it_is() {
        for (value, length) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", 9),
            ("Thu, 29 Feb 2024 23:59:59 GMT", 9),
            ("Fri, 31 Dec 9999 23:59:59 GMT", 9),
            // Not its day of the week; and an older form.
            ("Mon, 06 Nov 1994 08:49:37 GMT", 32),
            ("Sunday, 06-Nov-94 08:49:37 GMT", 33),
            ("Sun, 06 Nov 1904 08:49:37 GMT", 32),
            ("W/\"0123456789abcdef0123456789abcdef\"", 17),
            ("W/\"0123456789ABCDEF0123456789abcdef\"", 39),
            ("W/\"0123456789abcdef0123456789abcde\"", 38),
            ("W/\"0123456789abcdef0123456789abcdef01\"", 41),
            ("\"0123456789abcdef0123456789abcdef\"", 37),
            ("W/\"0123456789abcdef0123456789abcdef", 38),
            ("W/\"\"", 7),
            ("", 3),
        ] {
            assert_eq!(kept(value.as_bytes()), (value.as_bytes().to_vec(), length), "{value}");
        }
        assert!(write(&vec![b'a'; 1 << 16], &mut Vec::new()).is_none());
    }

    proptest! {
        #[test]
        fn every_date_is_the_librarys(seconds in 0..253_402_300_800_u64) {
            let theirs = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
            prop_assert_eq!(&date(seconds)[..], theirs.as_bytes());
            prop_assert_eq!(seconds_of(theirs.as_bytes()), Some(seconds));
        }

        #[test]
        fn every_value_is_read_as_it_was(value in "(W/)?\"?[0-9a-g]{30,34}\"?") {
            prop_assert_eq!(kept(value.as_bytes()).0, value.as_bytes());
        }
    }
}
