//! What a single string or number says, read from the bytes as they stand.

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

    /// The string, escapes resolved.
    pub(super) fn decoded(self) -> String {
        // Only what the cursor has accepted gets here, and it accepts no more than serde_json does.
        serde_json::from_slice(self.token).unwrap_or_default()
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
