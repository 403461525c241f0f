//! Whether an answer to a `GET` may be stored (RFC 9111 section 3).

use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::cache_control::Restriction;
use super::freshness::{Control, is_heuristically_cacheable};

/// What of a request decides whether its answer may be stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// It has credentials: `Authorization`, or a token of the API.
    pub has_credentials: bool,
    /// Its own `no-store` is obeyed, and there.
    pub no_store: bool,
}

/// Why an answer may not be stored. A closed set: these words are in `Cache-Status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotStorable {
    /// The answer, or the request, says `no-store`.
    NoStore,
    /// It is for the one who asked.
    Private,
    /// It was given for credentials, and does not say that others may have it (section 3.5).
    Credentials,
    /// What its status asks of a cache is not known here, and the answer wants that it is.
    NotUnderstood,
    /// It is a part, or says nothing of its own.
    NotWhole,
    /// Nothing says that it may be.
    NotCacheable,
}

impl NotStorable {
    /// The word for it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::Credentials => "credentials",
            Self::NotUnderstood => "not-understood",
            Self::NotWhole => "not-whole",
            Self::NotCacheable => "not-cacheable",
        }
    }
}

/// The final statuses of RFC 9110 section 15, all of which ask nothing of a cache but 206 and 304.
const UNDERSTOOD: [std::ops::RangeInclusive<u16>; 8] =
    [200..=206, 300..=305, 307..=308, 400..=417, 421..=422, 426..=426, 500..=505, 304..=304];

/// Statuses that are about a request and not about what it asks for: a condition or a range of its own (412, 416), or its
/// sender (RFC 6585: "MUST NOT be stored").
const ABOUT_THE_REQUEST: [u16; 6] = [412, 416, 428, 429, 431, 511];

/// Whether an answer may be stored. `received` is when its head came.
pub fn storable(
    asked: Asked,
    status: StatusCode,
    head: &HeaderMap,
    control: &Control,
    received: Duration,
) -> Result<(), NotStorable> {
    let said = &control.directives;
    let is_understood = UNDERSTOOD.iter().any(|known| known.contains(&status.as_u16()));
    // Section 5.2.2.3: `no-store` beside it is for caches that do not know it.
    let no_store = said.no_store && !said.must_understand;
    let is_explicit = said.public || control.explicit_lifetime(head, received).is_some();
    if matches!(status, StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED) || status.is_informational() {
        Err(NotStorable::NotWhole)
    } else if ABOUT_THE_REQUEST.contains(&status.as_u16()) {
        Err(NotStorable::NotCacheable)
    } else if said.must_understand && !is_understood {
        Err(NotStorable::NotUnderstood)
    } else if no_store || asked.no_store {
        Err(NotStorable::NoStore)
    } else if said.private == Restriction::Whole {
        Err(NotStorable::Private)
    } else if asked.has_credentials && !(said.public || said.must_revalidate || said.s_maxage.is_some()) {
        Err(NotStorable::Credentials)
    } else if !is_explicit && !is_heuristically_cacheable(status) {
        Err(NotStorable::NotCacheable)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::http::fields::map;

    const FREE: Asked = Asked { has_credentials: false, no_store: false };

    fn judge(asked: Asked, status: u16, cache_control: &'static str) -> Result<(), NotStorable> {
        let head = if cache_control.is_empty() { HeaderMap::new() } else { map(&[("cache-control", cache_control)]) };
        storable(asked, StatusCode::from_u16(status).unwrap(), &head, &Control::of(&head), Duration::ZERO)
    }

    /// Section 3, the last of its conditions: something says that it may be stored.
    #[test]
    fn every_final_status_may_be_stored_if_the_answer_says_so() {
        for status in ABOUT_THE_REQUEST {
            assert_eq!(judge(FREE, status, "max-age=10"), Err(NotStorable::NotCacheable), "{status}");
        }
        for status in (200..1000).filter(|status| ![206, 304].contains(status) && !ABOUT_THE_REQUEST.contains(status)) {
            for said in ["max-age=10", "s-maxage=10", "public", "max-age=0"] {
                assert_eq!(judge(FREE, status, said), Ok(()), "{status} {said}");
            }
            let heuristic = [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501].contains(&status);
            let expected = if heuristic { Ok(()) } else { Err(NotStorable::NotCacheable) };
            assert_eq!(judge(FREE, status, ""), expected, "{status}");
        }
        for status in [103, 206, 304] {
            assert_eq!(judge(FREE, status, "max-age=10"), Err(NotStorable::NotWhole), "{status}");
        }
        let expires = map(&[("expires", "0")]);
        assert_eq!(storable(FREE, StatusCode::FOUND, &expires, &Control::of(&expires), Duration::ZERO), Ok(()));
    }

    /// Sections 5.2.2.5, 5.2.2.7 and 5.2.2.3.
    #[test]
    fn what_forbids_storing_is_obeyed() {
        for (status, said, expected) in [
            (200, "no-store, max-age=10", Err(NotStorable::NoStore)),
            (200, "no-store, public", Err(NotStorable::NoStore)),
            (200, "private, max-age=10", Err(NotStorable::Private)),
            (200, "private, s-maxage=10", Err(NotStorable::Private)),
            (200, "private=\"set-cookie\", max-age=10", Ok(())),
            (200, "no-cache", Ok(())),
            (200, "must-understand, no-store, max-age=10", Ok(())),
            (299, "must-understand, no-store, max-age=10", Err(NotStorable::NotUnderstood)),
            (599, "must-understand, max-age=10", Err(NotStorable::NotUnderstood)),
            (503, "must-understand, max-age=10", Ok(())),
        ] {
            assert_eq!(judge(FREE, status, said), expected, "{status} {said}");
        }
        let no_store = Asked { no_store: true, ..FREE };
        assert_eq!(judge(no_store, 200, "max-age=10"), Err(NotStorable::NoStore));
    }

    /// Section 3.5.
    #[test]
    fn what_was_given_for_credentials_is_stored_only_if_others_may_have_it() {
        let asked = Asked { has_credentials: true, ..FREE };
        for (said, expected) in [
            ("max-age=10", Err(NotStorable::Credentials)),
            ("proxy-revalidate, max-age=10", Err(NotStorable::Credentials)),
            ("no-cache", Err(NotStorable::Credentials)),
            ("", Err(NotStorable::Credentials)),
            ("public, max-age=10", Ok(())),
            ("must-revalidate, max-age=10", Ok(())),
            ("s-maxage=10", Ok(())),
            ("s-maxage=10, no-store", Err(NotStorable::NoStore)),
        ] {
            assert_eq!(judge(asked, 200, said), expected, "{said}");
        }
    }
}
