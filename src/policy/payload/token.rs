//! What a single string or number says, read from the bytes as they stand.

use std::fmt;

use serde::Deserializer as _;
use serde::de::Visitor;

/// A string as it stands in the body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<'a> {
    /// The token with its quotes.
    pub(super) token: &'a [u8],
    /// Whether it holds an escape, so that its bytes are not its text.
    pub(super) escaped: bool,
}

impl<'a> Text<'a> {
    /// The bytes between the quotes.
    pub(super) fn raw(self) -> &'a [u8] {
        &self.token[1..self.token.len() - 1]
    }

    /// Whether the string, escapes resolved, is this one.
    pub(super) fn is(self, expected: &str) -> bool {
        if self.escaped { self.decoded() == expected } else { self.raw() == expected.as_bytes() }
    }

    /// The string, escapes resolved. Half of a surrogate pair that stands alone is no character: it becomes U+FFFD, so
    /// that the text is none that anything is compared with.
    pub(super) fn decoded(self) -> String {
        // Only what the cursor has accepted gets here, and of strings serde_json accepts as much, if asked for bytes.
        let decoded = serde_json::Deserializer::from_slice(self.token).deserialize_bytes(Lossy);
        decoded.unwrap_or_else(|_| char::REPLACEMENT_CHARACTER.into())
    }
}

/// Takes the bytes of a string as text. `serde_json` gives halves of surrogate pairs as bytes, and only so.
struct Lossy;

impl Visitor<'_> for Lossy {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<String, E> {
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }
}

/// An id: digits and nothing else.
pub(super) fn digits(token: &[u8]) -> Option<u64> {
    if token.is_empty() || token.len() > 20 {
        return None;
    }
    token.iter().try_fold(0_u64, |number, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// A time in seconds, however it is spelt; only its order counts.
pub(super) fn seconds(token: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(token).ok()?;
    #[expect(clippy::cast_possible_truncation, reason = "saturates, which keeps the order")]
    text.parse().ok().or_else(|| text.parse::<f64>().ok().filter(|time| !time.is_nan()).map(|time| time as i64))
}

/// Whether a number that is not written as an integer is one: `1.0`, `1e3`. JSON Schema counts these too.
pub(super) fn is_integral(token: &[u8]) -> bool {
    std::str::from_utf8(token)
        .ok()
        .and_then(|text| text.parse::<f64>().ok())
        .is_some_and(|number| number.fract() == 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_pair_of_surrogates_is_no_text_that_anything_is_compared_with() {
        let text = |token| Text { token, escaped: true };
        for (token, decoded) in [
            (&br#""\u006fpen""#[..], "open"),
            (br#""\ud83d\ude00""#, "\u{1F600}"),
            (br#""open\ud83d""#, "open\u{FFFD}\u{FFFD}\u{FFFD}"),
            (br#""\ude00\n""#, "\u{FFFD}\u{FFFD}\u{FFFD}\n"),
            (br#""\ud83d\u0041""#, "\u{FFFD}\u{FFFD}\u{FFFD}A"),
        ] {
            assert_eq!(text(token).decoded(), decoded);
            assert_eq!(text(token).is("open"), decoded == "open");
        }
    }

    #[test]
    fn ids_are_digits_that_fit() {
        assert_eq!(digits(b"0"), Some(0));
        assert_eq!(digits(b"18446744073709551615"), Some(u64::MAX));
        for odd in ["", "-1", "+1", "1.0", "1e3", "18446744073709551616", "000000000000000000001", " 1", "x"] {
            assert_eq!(digits(odd.as_bytes()), None, "{odd:?}");
        }
    }

    #[test]
    fn times_keep_their_order_however_they_are_spelt() {
        let times = ["-1e400", "-5", "0", "\"", "1.5", "2", "1780000000", "1.79e9", "1e400"];
        let read: Vec<_> = times.iter().filter_map(|time| seconds(time.as_bytes())).collect();
        assert!(read.is_sorted() && read.len() == times.len() - 1, "{read:?}");
        assert_eq!(seconds(b"NaN"), None);
    }
}
