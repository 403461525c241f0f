//! Validation: asking whether a stored answer still holds, what is learned from the answer, and the client's own question
//! (RFC 9111 section 4.3).

use std::time::Duration;

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::dates::{Told, made};
use crate::policy::http::representation::is_not_modified;

/// What a request asks of the upstream, or of whoever has the answer, besides its target (RFC 9110 section 13.1). Those that
/// only an origin can judge are none of a cache's (RFC 9111 section 4.3.2).
const CONDITIONS: [HeaderName; 5] =
    [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::IF_RANGE, header::IF_MATCH, header::IF_UNMODIFIED_SINCE];

/// Replaces the conditions of a request, and the part that it wants, by the question whether a stored answer still holds
/// (section 4.3.1); false if it has nothing to ask by. `by_date`: its `Last-Modified` counts, too.
pub fn ask_whether(stored: &HeaderMap, request: &mut HeaderMap, by_date: bool) -> bool {
    let etag = stored.get(header::ETAG);
    let changed = stored.get(header::LAST_MODIFIED).filter(|_| by_date);
    if etag.is_none() && changed.is_none() {
        return false;
    }
    ask_for_all(request);
    let asked = [(header::IF_NONE_MATCH, etag), (header::IF_MODIFIED_SINCE, changed)];
    for (name, value) in asked {
        if let Some(value) = value {
            request.insert(name, value.clone());
        }
    }
    true
}

/// Removes the conditions of a request, and the part that it wants.
pub fn ask_for_all(request: &mut HeaderMap) {
    for name in CONDITIONS.iter().chain(&[header::RANGE]) {
        request.remove(name);
    }
}

/// Whether a request has a condition, or wants a part.
pub fn wants_something_of_its_own(request: &HeaderMap) -> bool {
    request.keys().any(|name| *name == header::RANGE || CONDITIONS.contains(name))
}

/// Whether a request has a condition that only an origin can judge.
pub fn is_for_the_origin(request: &HeaderMap) -> bool {
    request.contains_key(header::IF_MATCH) || request.contains_key(header::IF_UNMODIFIED_SINCE)
}

/// Whether a 304 is about this stored answer (section 4.3.4): if it has strong validators, one of them has to be the same; if
/// it has weak ones alone, one of those. One without any is about what was asked about.
pub fn is_about(stored: &HeaderMap, not_modified: &HeaderMap) -> bool {
    let (etag, known) = (not_modified.get(header::ETAG), stored.get(header::ETAG));
    let (changed, known_changed) = (not_modified.get(header::LAST_MODIFIED), stored.get(header::LAST_MODIFIED));
    let same_date = changed.is_some() && changed == known_changed;
    match etag {
        None => changed.is_none() || same_date,
        Some(told) if is_weak(told) => {
            known.is_some_and(|known| opaque(told) == opaque(known)) || (known.is_none() && same_date)
        }
        Some(told) => known == Some(told) || (same_date && is_strong_date(stored)),
    }
}

/// Whether nothing can have changed twice within the second of `Last-Modified` (RFC 9110 section 8.8.2.2).
pub fn is_strong_date(fields: &HeaderMap) -> bool {
    let [changed, made] = [header::LAST_MODIFIED, header::DATE].map(|name| Told::by(fields, &name).time());
    made.zip(changed).is_some_and(|(made, changed)| made > changed)
}

/// What an answer to `HEAD` says of a stored answer to `GET` (section 4.3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadSays {
    /// Nothing.
    Nothing,
    /// It is still the same: its fields are updated.
    Same,
    /// It is another one by now: what is stored is stale.
    Another,
}

/// What an answer to `HEAD` says of a stored one with these fields, and a body of so many bytes.
pub fn head_says(status: StatusCode, head: &HeaderMap, stored: &HeaderMap, length: u64) -> HeadSays {
    if status != StatusCode::OK {
        return HeadSays::Nothing;
    }
    let same = |name: &HeaderName| head.get(name).is_none_or(|told| stored.get(name) == Some(told));
    let told = head
        .get(header::CONTENT_LENGTH)
        .map(|told| told.to_str().ok().and_then(|told| told.trim().parse::<u64>().ok()));
    let is_same = same(&header::ETAG) && same(&header::LAST_MODIFIED) && told.is_none_or(|told| told == Some(length));
    if is_same { HeadSays::Same } else { HeadSays::Another }
}

/// Whether a client has a stored answer already (section 4.3.2): by entity tags, or else by date, where the date of an answer
/// that does not say when it changed is its own. Only where the answer would be a success. `received`: since 1970.
pub fn has_already(status: StatusCode, stored: &HeaderMap, received: Duration, asked: &HeaderMap) -> bool {
    if !status.is_success()
        || !(asked.contains_key(header::IF_NONE_MATCH) || asked.contains_key(header::IF_MODIFIED_SINCE))
    {
        return false;
    }
    let by_date = !asked.contains_key(header::IF_NONE_MATCH) && !stored.contains_key(header::LAST_MODIFIED);
    if by_date {
        let since = Told::by(asked, &header::IF_MODIFIED_SINCE).time();
        return since.is_some_and(|since| made(stored, received) <= since);
    }
    // One without quotes is no entity tag, but what came with it is no other.
    let is_same = || {
        stored.get(header::ETAG).is_some_and(|etag| asked.get_all(header::IF_NONE_MATCH).iter().any(|tag| tag == etag))
    };
    is_not_modified(|name| stored.get(name).map(HeaderValue::as_bytes), asked) || is_same()
}

fn is_weak(etag: &HeaderValue) -> bool {
    etag.as_bytes().starts_with(b"W/")
}

/// The part that a weak comparison looks at (RFC 9110 section 8.8.3.2).
fn opaque(etag: &HeaderValue) -> &[u8] {
    etag.as_bytes().strip_prefix(b"W/").unwrap_or(etag.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::http::fields::map;

    type Fields = &'static [(&'static str, &'static str)];

    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    /// Section 4.3.1.
    #[test]
    fn the_upstream_is_asked_by_what_the_stored_answer_has() {
        let own: Fields = &[
            ("if-none-match", "\"mine\""),
            ("if-modified-since", AFTER),
            ("range", "bytes=0-1"),
            ("if-range", "\"m\""),
            ("x", "y"),
        ];
        for (stored, by_date, expected) in [
            (&[("etag", "\"a\"")][..], true, Some(&[("x", "y"), ("if-none-match", "\"a\"")][..])),
            (
                &[("etag", "W/\"a\""), ("last-modified", THEN)],
                true,
                Some(&[("x", "y"), ("if-none-match", "W/\"a\""), ("if-modified-since", THEN)]),
            ),
            (&[("etag", "\"a\""), ("last-modified", THEN)], false, Some(&[("x", "y"), ("if-none-match", "\"a\"")])),
            (&[("last-modified", THEN)], true, Some(&[("x", "y"), ("if-modified-since", THEN)])),
            (&[("last-modified", THEN)], false, None),
            (&[], true, None),
        ] {
            let mut request = map(own);
            let asks = ask_whether(&map(stored), &mut request, by_date);
            assert_eq!((asks, request), (expected.is_some(), map(expected.unwrap_or(own))), "{stored:?}");
        }
        let mut request = map(own);
        assert!(wants_something_of_its_own(&request) && !is_for_the_origin(&request));
        ask_for_all(&mut request);
        assert_eq!(request, map(&[("x", "y")]));
        assert!(!wants_something_of_its_own(&request) && is_for_the_origin(&map(&[("if-match", "*")])));
    }

    /// Section 4.3.4.
    #[test]
    fn a_304_is_about_the_answer_with_its_validator() {
        for (stored, told, expected) in [
            (&[("etag", "\"a\"")][..], &[("etag", "\"a\"")][..], true),
            (&[("etag", "\"a\"")], &[("etag", "\"b\"")], false),
            (&[("etag", "W/\"a\"")], &[("etag", "W/\"a\"")], true),
            (&[("etag", "\"a\"")], &[("etag", "W/\"a\"")], true),
            (&[("etag", "W/\"a\"")], &[("etag", "\"a\"")], false),
            (&[("etag", "W/\"a\"")], &[("etag", "W/\"b\"")], false),
            (&[("etag", "\"a\"")], &[], true),
            (&[("last-modified", THEN)], &[], true),
            (&[("last-modified", THEN)], &[("last-modified", THEN)], true),
            (&[("last-modified", THEN)], &[("etag", "\"a\"")], false),
            (&[("last-modified", THEN)], &[("etag", "\"a\""), ("last-modified", THEN)], false),
            (&[("last-modified", THEN), ("date", AFTER)], &[("etag", "\"a\""), ("last-modified", THEN)], true),
            (
                &[("etag", "\"b\""), ("last-modified", THEN), ("date", AFTER)],
                &[("etag", "\"a\""), ("last-modified", THEN)],
                true,
            ),
            (
                &[("etag", "\"b\""), ("last-modified", THEN), ("date", AFTER)],
                &[("etag", "\"a\""), ("last-modified", AFTER)],
                false,
            ),
            (&[("last-modified", THEN)], &[("etag", "W/\"a\""), ("last-modified", THEN)], true),
            (&[("etag", "W/\"b\""), ("last-modified", THEN)], &[("etag", "W/\"a\""), ("last-modified", THEN)], false),
        ] {
            assert_eq!(is_about(&map(stored), &map(told)), expected, "{stored:?} {told:?}");
        }
    }

    /// Section 4.3.5.
    #[test]
    fn an_answer_to_head_updates_what_is_stored_or_makes_it_stale() {
        let stored = map(&[("etag", "\"a\""), ("last-modified", THEN)]);
        for (status, head, expected) in [
            (200, &[][..], HeadSays::Same),
            (200, &[("etag", "\"a\""), ("last-modified", THEN), ("content-length", "5")], HeadSays::Same),
            (200, &[("etag", "\"b\"")], HeadSays::Another),
            (200, &[("etag", "W/\"a\"")], HeadSays::Another),
            (200, &[("last-modified", AFTER)], HeadSays::Another),
            (200, &[("content-length", "6")], HeadSays::Another),
            (200, &[("content-length", "x")], HeadSays::Another),
            (404, &[("etag", "\"b\"")], HeadSays::Nothing),
            (304, &[("etag", "\"b\"")], HeadSays::Nothing),
        ] {
            assert_eq!(head_says(StatusCode::from_u16(status).unwrap(), &map(head), &stored, 5), expected, "{head:?}");
        }
        assert_eq!(head_says(StatusCode::OK, &stored, &map(&[]), 5), HeadSays::Another, "what is stored has none");
    }

    /// Section 4.3.2; RFC 9110 sections 13.1.2 and 13.1.3.
    #[test]
    fn a_client_that_has_it_already_gets_304() {
        let received = Duration::from_secs(784_111_777);
        let tagged: Fields = &[("etag", "\"a\""), ("last-modified", THEN)];
        for (status, stored, asked, expected) in [
            (200, tagged, &[("if-none-match", "\"a\"")][..], true),
            (200, tagged, &[("if-none-match", "W/\"a\"")], true),
            (200, tagged, &[("if-none-match", "\"b\", \"a\"")], true),
            (200, tagged, &[("if-none-match", "\"b\""), ("if-none-match", "\"a\"")], true),
            (200, tagged, &[("if-none-match", "*")], true),
            (200, tagged, &[("if-none-match", "\"b\"")], false),
            (200, tagged, &[("if-none-match", "\"b\""), ("if-modified-since", AFTER)], false),
            (200, tagged, &[("if-modified-since", THEN)], true),
            (200, tagged, &[("if-modified-since", AFTER)], true),
            (200, tagged, &[("if-modified-since", BEFORE)], false),
            (200, tagged, &[("if-modified-since", "x")], false),
            (200, tagged, &[], false),
            (200, &[("etag", "bare")], &[("if-none-match", "bare")], true),
            (200, &[("etag", "\"a\"")], &[("if-none-match", "a")], false),
            (203, tagged, &[("if-none-match", "\"a\"")], true),
            (404, tagged, &[("if-none-match", "\"a\"")], false),
            (301, tagged, &[("if-modified-since", AFTER)], false),
            (200, &[("date", THEN)], &[("if-modified-since", THEN)], true),
            (200, &[("date", THEN)], &[("if-modified-since", BEFORE)], false),
            (200, &[], &[("if-modified-since", THEN)], true),
            (200, &[], &[("if-modified-since", BEFORE)], false),
            (200, &[("date", THEN)], &[("if-none-match", "\"a\"")], false),
        ] {
            let found = has_already(StatusCode::from_u16(status).unwrap(), &map(stored), received, &map(asked));
            assert_eq!(found, expected, "{status} {stored:?} {asked:?}");
        }
    }
}
