//! Which fields of an answer are stored (RFC 9111 section 3.1), and how later answers change them (section 3.2).

use http::header::{self, HeaderMap, HeaderName};

use super::freshness::Control;
use crate::policy::http::headers::{X_REQUEST_ID, remove_hop_by_hop};

/// Fields that are never stored: for one proxy on the way (section 3.1), about trailers, which are not stored, or made anew
/// for every answer.
const NOT_STORED: [HeaderName; 4] =
    [HeaderName::from_static("proxy-authentication-info"), header::TRAILER, header::AGE, X_REQUEST_ID];
/// Fields that hold of one part of an answer (RFC 9110 section 14.4, RFC 9530 section 2).
const OF_THE_PART: [&str; 3] = ["content-range", "content-digest", "content-md5"];
/// Fields of the stored bytes, which no later head changes (section 3.2).
const OF_THE_BYTES: [HeaderName; 3] = [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::CONTENT_RANGE];

/// The fields of an answer as they are stored: without those that hold of one connection or one request, and those that it
/// says are not to be sent to others (sections 5.2.2.4 and 5.2.2.7).
pub fn stored(head: &HeaderMap, control: &Control) -> HeaderMap {
    let mut kept = head.clone();
    remove_hop_by_hop(&mut kept);
    let said = &control.directives;
    for name in NOT_STORED.iter().chain(said.no_cache.fields()).chain(said.private.fields()) {
        kept.remove(name);
    }
    kept.remove(header::CONTENT_LENGTH);
    kept
}

/// The fields of two parts put together (section 3.4): those of the stored one as the other's update them, without what holds
/// of one part.
pub fn combined(stored_fields: &HeaderMap, newer: &HeaderMap) -> HeaderMap {
    let mut fields = replaced(stored_fields, newer);
    for name in OF_THE_PART {
        fields.remove(name);
    }
    fields
}

/// Stored fields after a 304 or an answer to `HEAD` with these fields: each that came replaces those of its name.
pub fn updated(stored_fields: &HeaderMap, update: &HeaderMap, control: &Control) -> HeaderMap {
    let mut update = stored(update, control);
    for name in &OF_THE_BYTES {
        update.remove(name);
    }
    replaced(stored_fields, &update)
}

/// Each field that came in the place of those of its name.
fn replaced(stored_fields: &HeaderMap, update: &HeaderMap) -> HeaderMap {
    let mut fields = stored_fields.clone();
    for name in update.keys() {
        fields.remove(name);
    }
    for (name, value) in update {
        fields.append(name.clone(), value.clone());
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::http::fields::map;

    /// Section 3.1: "Caches MUST include all received response header fields — including unrecognized ones", but for these.
    #[test]
    fn all_fields_are_stored_but_those_of_one_hop() {
        let kept = [
            ("content-type", "text/plain"),
            ("x-unknown", "1"),
            ("x-unknown", "2"),
            ("set-cookie", "a=b"),
            ("server", "s"),
            ("content-md5", "x"),
            ("content-encoding", "gzip"),
            ("cache-control", "max-age=1"),
            // RFC 9211 section 2: "SHOULD preserve the existing field value".
            ("cache-status", "origin; hit"),
        ];
        let gone = [
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-authenticate", "Basic"),
            ("proxy-authentication-info", "x"),
            ("proxy-authorization", "x"),
            ("proxy-connection", "x"),
            ("te", "trailers"),
            ("trailer", "x-sum"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("content-length", "3"),
            ("age", "3"),
            ("x-request-id", "x"),
        ];
        let head = map(&[&kept[..], &gone[..]].concat());
        assert_eq!(stored(&head, &Control::of(&head)), map(&kept));
    }

    /// Sections 5.2.2.4 and 5.2.2.7.
    #[test]
    fn fields_that_are_not_for_others_are_not_stored() {
        for directive in
            ["no-cache=\"set-cookie, x-own\"", "private=\"set-cookie, x-own\"", "private=x-own, no-cache=set-cookie"]
        {
            let head = map(&[("cache-control", directive), ("set-cookie", "a"), ("x-own", "b"), ("x", "c")]);
            assert_eq!(stored(&head, &Control::of(&head)), map(&[("cache-control", directive), ("x", "c")]));
        }
    }

    /// Section 3.2.
    #[test]
    fn a_later_head_changes_all_fields_but_those_of_the_bytes() {
        let before = map(&[("x", "1"), ("x", "2"), ("y", "1"), ("content-encoding", "gzip"), ("content-type", "a/b")]);
        let update = map(&[
            ("x", "3"),
            ("z", "1"),
            ("z", "2"),
            ("content-encoding", "br"),
            ("content-length", "7"),
            ("content-range", "bytes 0-1/2"),
            ("content-type", "c/d"),
            ("connection", "z-hop"),
            ("z-hop", "1"),
            ("age", "7"),
        ]);
        let expected =
            [("x", "3"), ("y", "1"), ("z", "1"), ("z", "2"), ("content-encoding", "gzip"), ("content-type", "c/d")];
        assert_eq!(updated(&before, &update, &Control::of(&update)), map(&expected));
    }

    /// Section 3.4.
    #[test]
    fn two_parts_have_the_fields_of_both_but_those_of_one() {
        let first = map(&[("x", "1"), ("y", "1"), ("content-range", "bytes 0-1/4"), ("content-digest", "a")]);
        let second = map(&[("x", "2"), ("content-range", "bytes 2-3/4"), ("repr-digest", "c")]);
        assert_eq!(combined(&first, &second), map(&[("x", "2"), ("y", "1"), ("repr-digest", "c")]));
    }
}
