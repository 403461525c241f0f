//! Times as payloads write them.

/// Milliseconds since 1970 of an ISO 8601 time in UTC with or without a fraction, such as `2026-06-11T13:02:44.118Z`.
/// `None` for any other form.
pub fn from_iso(text: &str) -> Option<u64> {
    let (date, rest) = text.strip_suffix('Z')?.split_once('T')?;
    let (time, fraction) = rest.split_once('.').unwrap_or((rest, "0"));
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    let digits = fraction.bytes().all(|byte| byte.is_ascii_digit()) && !fraction.is_empty();
    let plausible = digits && year >= 1970 && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !plausible || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days from a civil date: the year is taken to begin in March, so that the leap day is its last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    let milli = fraction.bytes().chain(*b"00").take(3).fold(0, |milli, digit| milli * 10 + u64::from(digit - b'0'));
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + milli)
}

/// Milliseconds since 1970 of Unix seconds, whole or not. `None` for what is no time: zero is "never" (`api.md`
/// section 4.1).
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in range")]
pub fn from_seconds(seconds: f64) -> Option<u64> {
    (seconds > 0.0 && seconds < 1e12).then(|| (seconds * 1000.0).round() as u64)
}

/// Milliseconds since 1970 of a time as it stands in JSON: Unix seconds, whole or not, or ISO 8601. Older servers write
/// numbers as strings.
pub fn from_json(json: &str) -> Option<u64> {
    if json.starts_with('"') {
        let text: String = serde_json::from_str(json).ok()?;
        return from_iso(&text).or_else(|| from_seconds(text.parse().ok()?));
    }
    from_seconds(json.parse().ok()?)
}

fn numbers(text: &str, between: char, lengths: [usize; 3]) -> Option<[u64; 3]> {
    let mut parts = text.split(between);
    let mut number = |length| {
        let part = parts.next()?;
        (part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit())).then(|| part.parse().ok())?
    };
    let found = [number(lengths[0])?, number(lengths[1])?, number(lengths[2])?];
    parts.next().is_none().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_the_api_writes_them() {
        for (text, expected) in [
            ("2026-06-11T13:02:44.118Z", Some(1_781_182_964_118)),
            ("2026-06-11T13:02:44Z", Some(1_781_182_964_000)),
            ("2026-06-11T13:02:44.1189Z", Some(1_781_182_964_118)),
            ("2026-06-11T13:02:44.5Z", Some(1_781_182_964_500)),
            ("1970-01-01T00:00:00.000Z", Some(0)),
            ("2024-02-29T00:00:00.000Z", Some(1_709_164_800_000)),
            ("2024-03-01T00:00:00.000Z", Some(1_709_251_200_000)),
            ("2026-06-11T13:02:44+02:00", None),
            ("2026-06-11 13:02:44Z", None),
            ("2026-13-11T13:02:44Z", None),
            ("2026-6-11T13:02:44Z", None),
            ("2026-06-11T13:02:44.Z", None),
            ("", None),
        ] {
            assert_eq!(from_iso(text), expected, "{text}");
        }
    }

    #[test]
    fn zero_is_never() {
        for (seconds, expected) in
            [(0.0, None), (-1.0, None), (f64::NAN, None), (1e300, None), (1_781_182_950.551, Some(1_781_182_950_551))]
        {
            assert_eq!(from_seconds(seconds), expected, "{seconds}");
        }
    }
}
