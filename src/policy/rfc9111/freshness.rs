//! How long an answer is fresh, and how old it is (RFC 9111 section 4.2).

use std::time::Duration;

use http::header;
use http::{HeaderMap, StatusCode, Version};

use super::cache_control::ResponseDirectives;
use super::dates::{Told, made};
use super::targeted;
use crate::policy::http::headers;

/// The part of an answer's age since its last change for which it may be taken to be fresh still (section 4.2.2: "a typical
/// setting of this fraction might be 10%").
const HEURISTIC_PART: u32 = 10;
/// The longest that anything is taken to be fresh of which nobody said so.
const HEURISTIC_LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The statuses of answers that may be kept though nobody says so (RFC 9110 section 15.1).
const HEURISTIC: [u16; 11] = [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501];

/// How an answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// In this version of HTTP.
    pub version: Version,
    /// When it was asked for, since 1970.
    pub asked: Duration,
    /// When its head had come, since 1970.
    pub received: Duration,
}

/// What an answer says of caching, to a cache of this kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// Its directives.
    pub directives: ResponseDirectives,
    /// They are for caches of this kind alone: then `Expires` says nothing (RFC 9213 section 2.1).
    is_targeted: bool,
}

impl Control {
    /// What a head says.
    pub fn of(head: &HeaderMap) -> Self {
        match targeted::directives(head) {
            Some(directives) => Self { directives, is_targeted: true },
            None => Self { directives: ResponseDirectives::of(head), is_targeted: false },
        }
    }

    /// For how long the answer says it is fresh (section 4.2.1): the first that is there of `s-maxage`, `max-age` and
    /// `Expires`, which is counted from its `Date`. One that cannot be read, or is there twice, is in the past (section 5.3).
    pub fn explicit_lifetime(&self, head: &HeaderMap, received: Duration) -> Option<Duration> {
        let Self { directives, is_targeted } = self;
        let told = directives.s_maxage.or(directives.max_age);
        told.or_else(|| match Told::by(head, &header::EXPIRES) {
            Told::Nothing => None,
            _ if *is_targeted => None,
            Told::Time(expires) => Some(expires.saturating_sub(made(head, received))),
            Told::Nonsense => Some(Duration::ZERO),
        })
    }

    /// For how long the answer is fresh. `received` is when its head came.
    pub fn lifetime(&self, status: StatusCode, head: &HeaderMap, received: Duration) -> Duration {
        let explicit = self.explicit_lifetime(head, received);
        explicit.unwrap_or_else(|| self.heuristic_lifetime(status, head, received))
    }

    /// What is likely, by how long the answer had not changed (section 4.2.2): where the status is one of those that may be
    /// kept, or the answer says so.
    fn heuristic_lifetime(&self, status: StatusCode, head: &HeaderMap, received: Duration) -> Duration {
        let Told::Time(changed) = Told::by(head, &header::LAST_MODIFIED) else { return Duration::ZERO };
        if !is_heuristically_cacheable(status) && !self.directives.public {
            return Duration::ZERO;
        }
        let unchanged = made(head, received).saturating_sub(changed);
        (unchanged / HEURISTIC_PART).min(HEURISTIC_LONGEST)
    }
}

/// Whether an answer of this status may be kept though nobody says so.
pub fn is_heuristically_cacheable(status: StatusCode) -> bool {
    HEURISTIC.contains(&status.as_u16())
}

/// How old an answer was when it came (section 4.2.3): as its `Age` tells; the time that it took counts, since the age may be
/// from before it was sent. Where somebody on the way is so old that he may have told none, it is at least as old as its `Date`
/// and our clock say.
pub fn initial_age(head: &HeaderMap, arrival: Arrival) -> Duration {
    let Arrival { version, asked, received } = arrival;
    let corrected = headers::initial_age(head).saturating_add(received.saturating_sub(asked));
    if version >= Version::HTTP_11 && !came_by_old_hops(head) {
        return corrected;
    }
    // In whole seconds, as the field is: else everything would be up to a second old when it comes.
    let apparent = Duration::from_secs(received.as_secs()).saturating_sub(made(head, received));
    apparent.max(corrected)
}

/// Whether it has passed somebody who speaks HTTP/1.0.
fn came_by_old_hops(head: &HeaderMap) -> bool {
    let hops = head.get_all(header::VIA).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    hops.map(<[u8]>::trim_ascii).any(|hop| hop.starts_with(b"1.0 ") || hop.starts_with(b"HTTP/1.0 "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::http::fields::map;

    const RECEIVED: Duration = Duration::from_millis(784_111_777_600);
    const NOW: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const HOUR_AGO: &str = "Sun, 06 Nov 1994 07:49:37 GMT";
    const IN_AN_HOUR: &str = "Sun, 06 Nov 1994 09:49:37 GMT";
    const LONG_AGO: &str = "Wed, 06 Nov 1974 08:49:37 GMT";

    fn lifetime(status: u16, fields: &[(&'static str, &'static str)]) -> u64 {
        let head = map(fields);
        Control::of(&head).lifetime(StatusCode::from_u16(status).unwrap(), &head, RECEIVED).as_secs()
    }

    /// Section 4.2.1, and 5.3 for `Expires`.
    #[test]
    fn the_first_of_s_maxage_max_age_and_expires_counts() {
        let expires = ("expires", IN_AN_HOUR);
        let date = ("date", NOW);
        for (fields, expected) in [
            (&[("cache-control", "max-age=10"), expires, date][..], 10),
            (&[("cache-control", "max-age=10, s-maxage=20"), expires, date], 20),
            (&[("cache-control", "s-maxage=0, max-age=10"), expires, date], 0),
            (&[("cache-control", "max-age=x"), expires, date], 0),
            (&[expires, date], 3600),
            (&[expires], 3600),
            (&[expires, ("date", HOUR_AGO)], 7200),
            (&[expires, ("date", "nonsense")], 3600),
            (&[("expires", NOW), date], 0),
            (&[("expires", HOUR_AGO), date], 0),
            (&[("expires", "0"), date, ("last-modified", LONG_AGO)], 0),
            (&[("expires", ""), date], 0),
            (&[expires, expires, date], 0),
            (&[], 0),
        ] {
            assert_eq!(lifetime(200, fields), expected, "{fields:?}");
        }
    }

    /// Section 4.2.2; RFC 9110 section 15.1.
    #[test]
    fn what_has_not_changed_for_long_is_fresh_for_a_tenth_of_that() {
        let (date, changed) = (("date", NOW), ("last-modified", HOUR_AGO));
        for status in [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501] {
            assert_eq!(lifetime(status, &[date, changed]), 360, "{status}");
        }
        for status in [201, 202, 299, 302, 303, 307, 400, 403, 499, 500, 502, 503, 504, 599] {
            assert_eq!(lifetime(status, &[date, changed]), 0, "{status}");
            assert_eq!(lifetime(status, &[date, changed, ("cache-control", "public")]), 360, "{status}");
        }
        assert_eq!(lifetime(200, &[changed]), 360);
        assert_eq!(lifetime(200, &[date, ("last-modified", LONG_AGO)]), HEURISTIC_LONGEST.as_secs());
        assert_eq!(lifetime(200, &[date, ("last-modified", IN_AN_HOUR)]), 0);
        assert_eq!(lifetime(200, &[date, ("last-modified", "x")]), 0);
        assert_eq!(lifetime(200, &[date, changed, changed]), 0);
        assert_eq!(lifetime(200, &[date, changed, ("cache-control", "max-age=0")]), 0, "nobody guesses what is said");
    }

    /// RFC 9213 section 2.1.
    #[test]
    fn what_is_said_to_this_kind_of_cache_alone_is_all_that_is_said() {
        let ours = |value| ("cdn-cache-control", value);
        for (fields, expected) in [
            (&[ours("max-age=5"), ("cache-control", "no-store, max-age=10")][..], 5),
            (&[ours("max-age=5, s-maxage=6")], 6),
            (&[ours("foo"), ("cache-control", "max-age=10"), ("expires", IN_AN_HOUR)], 0),
            (&[ours("foo"), ("date", NOW), ("last-modified", HOUR_AGO)], 360),
            (&[ours(""), ("cache-control", "max-age=10")], 10),
            (&[ours("max-age=&"), ("cache-control", "max-age=10")], 10),
        ] {
            assert_eq!(lifetime(200, fields), expected, "{fields:?}");
        }
        assert!(!Control::of(&map(&[ours("max-age=5"), ("cache-control", "no-store")])).directives.no_store);
    }

    /// Section 4.2.3, and 5.1 for `Age`.
    #[test]
    fn the_age_is_what_is_told_and_the_time_it_took() {
        for (fields, delay, expected) in [
            (&[][..], 0, 0),
            (&[], 3000, 3000),
            (&[("date", NOW)], 0, 0),
            (&[("date", HOUR_AGO)], 3000, 3000),
            (&[("date", HOUR_AGO), ("via", "1.1 a, 1.0 b")], 3000, 3_600_000),
            (&[("date", HOUR_AGO), ("via", "1.1 a"), ("via", "HTTP/1.0 b")], 0, 3_600_000),
            (&[("date", NOW), ("via", "1.0 b")], 0, 0),
            (&[("via", "1.0 b")], 0, 0),
            (&[("date", IN_AN_HOUR), ("via", "1.0 b")], 0, 0),
            (&[("date", IN_AN_HOUR)], 0, 0),
            (&[("age", "10")], 500, 10_500),
            (&[("age", "10"), ("date", HOUR_AGO)], 500, 10_500),
            (&[("age", "7200"), ("date", HOUR_AGO), ("via", "1.0 b")], 0, 7_200_000),
            (&[("age", "10, 20")], 0, 10_000),
            (&[("age", "10"), ("age", "20")], 0, 10_000),
            (&[("age", "0010")], 0, 10_000),
            (&[("age", "-10")], 0, 0),
            (&[("age", "10.5")], 0, 0),
            (&[("age", "ten")], 0, 0),
            (&[("age", "10;x=y")], 0, 0),
            (&[("age", "99999999999999999999")], 0, (1 << 31) * 1000),
        ] {
            let asked = RECEIVED.saturating_sub(Duration::from_millis(delay));
            let age = initial_age(&map(fields), Arrival { version: Version::HTTP_11, asked, received: RECEIVED });
            assert_eq!(age, Duration::from_millis(expected), "{fields:?}");
        }
        let old = initial_age(
            &map(&[("date", HOUR_AGO)]),
            Arrival { version: Version::HTTP_10, asked: RECEIVED, received: RECEIVED },
        );
        assert_eq!(old, Duration::from_secs(3600));
    }
}
