//! Times in fields (RFC 9110 section 5.6.7), without a clock: as durations since 1970.

use std::time::{Duration, UNIX_EPOCH};

use http::header::{self, HeaderMap, HeaderName};

/// What a field says of a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It is not there.
    Nothing,
    /// This time.
    Time(Duration),
    /// No time, or two.
    Nonsense,
}

impl Told {
    /// What a field of a head says.
    pub fn by(headers: &HeaderMap, name: &HeaderName) -> Self {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Self::Nothing,
            (Some(value), None) => read(value.as_bytes()).map_or(Self::Nonsense, Self::Time),
            (Some(_), Some(_)) => Self::Nonsense,
        }
    }

    /// The time, if it says one.
    pub fn time(self) -> Option<Duration> {
        match self {
            Self::Time(time) => Some(time),
            Self::Nothing | Self::Nonsense => None,
        }
    }
}

/// A time in one of the three forms that a recipient reads, in any case (RFC 9111 section 4.2). What lies before 1970 is none,
/// and so is one of another zone than GMT.
pub fn read(value: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?.trim();
    let time = httpdate::parse_http_date(text).or_else(|_| httpdate::parse_http_date(&in_usual_case(text)));
    time.ok()?.duration_since(UNIX_EPOCH).ok()
}

/// The words of a time as they are defined: each with one capital, but for the zone.
fn in_usual_case(text: &str) -> String {
    let mut is_inside = false;
    let cased = text.chars().map(|char| {
        let is_first = !std::mem::replace(&mut is_inside, char.is_ascii_alphabetic());
        if is_first { char.to_ascii_uppercase() } else { char.to_ascii_lowercase() }
    });
    cased.collect::<String>().replace("Gmt", "GMT")
}

/// When an answer was made: its `Date`, or when it came (RFC 9110 section 6.6.1).
pub fn made(head: &HeaderMap, received: Duration) -> Duration {
    Told::by(head, &header::DATE).time().unwrap_or(Duration::from_secs(received.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::http::fields::map;

    #[test]
    fn three_forms_are_read_and_nothing_else() {
        const TIME: Duration = Duration::from_secs(784_111_777);
        for good in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(read(good.as_bytes()), Some(TIME), "{good}");
        }
        // RFC 9111 section 4.2: "SHOULD match the field value case-insensitively".
        for good in ["SUN, 06 nov 1994 08:49:37 gmt", "sunday, 06-NOV-94 08:49:37 GmT", "sun nov  6 08:49:37 1994"] {
            assert_eq!(read(good.as_bytes()), Some(TIME), "{good}");
        }
        for bad in [
            "",
            "0",
            "-1",
            "Sun, 06 Nov 1994 08:49:37 AEST",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1960 08:49:37 GMT",
        ] {
            assert_eq!(read(bad.as_bytes()), None, "{bad}");
        }
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        let received = Duration::from_millis(5_500);
        for (fields, told, made_at) in [
            (&[][..], Told::Nothing, Duration::from_secs(5)),
            (&[date], Told::Time(TIME), TIME),
            (&[date, date], Told::Nonsense, Duration::from_secs(5)),
            (&[("date", "0")], Told::Nonsense, Duration::from_secs(5)),
        ] {
            assert_eq!(Told::by(&map(fields), &header::DATE), told);
            assert_eq!(made(&map(fields), received), made_at);
        }
    }
}
