//! Where a message's body ends (RFC 9112 section 6): what the other side may say of it, and what is said on.
//!
//! Nothing that one side said of a length reaches the other: what is sent is framed by the body that is sent.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode, Version};

use super::route::Refusal;

/// The longest body that a request may announce: 1 TiB. Nobody who announces more means it, and servers differ in how
/// they count so far.
const LONGEST: u64 = 1 << 40;

/// The body of a message that is about to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// There is none.
    Nothing,
    /// It has so many bytes.
    Sized(u64),
    /// It ends when it ends.
    Unsized,
}

/// Why a request's framing is refused, before a byte of its body is read: a coding that would have to be undone here
/// (section 6.1: 501), or a length that nobody means.
pub fn refuse(headers: &HeaderMap) -> Option<Refusal> {
    if !headers.contains_key(header::TRANSFER_ENCODING) {
        return announces_more_than(LONGEST, headers).then_some(Refusal::TooLong);
    }
    let codings = codings(headers);
    if !matches!(codings[..], [] | [Some("chunked")]) {
        return Some(Refusal::Coding);
    }
    None
}

/// Whether a request announces a body that is longer.
pub fn announces_more_than(limit: u64, headers: &HeaderMap) -> bool {
    announced(headers).is_some_and(|length| length > limit) && !headers.contains_key(header::TRANSFER_ENCODING)
}

/// Frames a request by the body that is sent with it.
pub fn frame_request(method: &Method, headers: &mut HeaderMap, content: Content) {
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::TRANSFER_ENCODING);
    match content {
        // RFC 9110 section 8.6: of these a receiver expects a length.
        Content::Nothing if matches!(*method, Method::POST | Method::PUT | Method::PATCH) => {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
        }
        Content::Nothing => {}
        Content::Sized(length) => drop(headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length))),
        // Said for every method: of a `GET` hyper would think that it has no body.
        Content::Unsized => {
            headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }
}

/// Frames an answer that passes by the body that is sent with it. One that has no body by its nature may say how long
/// the body would be (RFC 9110 section 8.6).
pub fn frame_answer(method: &Method, status: StatusCode, headers: &mut HeaderMap, length: Option<u64>) {
    let length = match status {
        StatusCode::NO_CONTENT => None,
        status if status.is_informational() => None,
        StatusCode::NOT_MODIFIED => announced(headers),
        _ if *method == Method::HEAD => announced(headers),
        _ => length,
    };
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::CONTENT_LENGTH);
    if let Some(length) = length {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
}

/// Whether the end of an answer's body can be told from a broken connection: it has a length, or its only coding is
/// chunks. In HTTP/2 the end is always told (RFC 9113 section 8.1).
pub fn has_known_end(version: Version, headers: &HeaderMap) -> bool {
    if version == Version::HTTP_2 {
        return true;
    }
    match codings(headers)[..] {
        [] => headers.contains_key(header::CONTENT_LENGTH),
        [Some("chunked")] => true,
        _ => false,
    }
}

/// Whether the bytes of an answer's body are its content: in no transfer coding but chunks. No other was asked for
/// (section 7.4), and none would be undone. `identity` is none.
pub fn is_plain(headers: &HeaderMap) -> bool {
    let codings = codings(headers);
    let rest = codings.strip_suffix(&[Some("chunked")]).unwrap_or(&codings);
    rest.iter().all(|coding| *coding == Some("identity"))
}

/// Whether an answer that has no body by its status announces one: what comes after its head is anybody's guess.
pub fn contradicts_itself(status: StatusCode, headers: &HeaderMap) -> bool {
    status == StatusCode::NO_CONTENT
        && (headers.contains_key(header::TRANSFER_ENCODING)
            || headers.contains_key(header::CONTENT_LENGTH) && announced(headers) != Some(0))
}

/// The length that a message announces; none if it announces two.
fn announced(headers: &HeaderMap) -> Option<u64> {
    let mut announced = None;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        for length in value.to_str().ok()?.split(',').map(str::trim) {
            let is_number = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
            // More than can be counted is more than any limit.
            let length = is_number.then(|| length.parse().unwrap_or(u64::MAX))?;
            if announced.replace(length).is_some_and(|before| before != length) {
                return None;
            }
        }
    }
    announced
}

/// The transfer codings of a message in their order; `None` is one that is not known here.
fn codings(headers: &HeaderMap) -> Vec<Option<&'static str>> {
    let known = |name: &str| ["chunked", "identity"].into_iter().find(|known| name.trim().eq_ignore_ascii_case(known));
    let values = headers.get_all(header::TRANSFER_ENCODING).iter();
    values.flat_map(|value| value.to_str().unwrap_or("?").split(',').map(known)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::http::fields::map;

    #[test]
    fn a_request_is_framed_by_the_body_that_is_sent() {
        let lies = [("content-length", "60"), ("content-length", "5, 5"), ("transfer-encoding", "chunked"), ("x", "y")];
        for (method, content, framing) in [
            (Method::GET, Content::Nothing, None),
            (Method::DELETE, Content::Nothing, None),
            (Method::POST, Content::Nothing, Some(("content-length", "0"))),
            (Method::GET, Content::Sized(7), Some(("content-length", "7"))),
            (Method::POST, Content::Sized(0), Some(("content-length", "0"))),
            (Method::GET, Content::Unsized, Some(("transfer-encoding", "chunked"))),
            (Method::POST, Content::Unsized, Some(("transfer-encoding", "chunked"))),
        ] {
            let mut headers = map(&lies);
            frame_request(&method, &mut headers, content);
            let expected: Vec<_> = [("x", "y")].into_iter().chain(framing).collect();
            assert_eq!(headers, map(&expected), "{method} {content:?}");
        }
    }

    #[test]
    fn an_answer_is_framed_by_the_body_that_is_sent_and_by_its_own_word_if_it_has_none() {
        for (method, status, said, body, framed) in [
            ("GET", 200, "5, 5", Some(5), Some("5")),
            ("GET", 200, "5", None, None),
            ("GET", 206, "7", Some(5), Some("5")),
            ("GET", 204, "5", Some(0), None),
            ("GET", 304, "5, 5", Some(0), Some("5")),
            ("GET", 304, "5, 6", Some(0), None),
            ("HEAD", 200, "005", Some(0), Some("5")),
            ("HEAD", 200, "five", Some(0), None),
            ("HEAD", 204, "5", Some(0), None),
            ("GET", 101, "5", Some(0), None),
        ] {
            let mut headers = map(&[("content-length", said), ("transfer-encoding", "x")]);
            let status = StatusCode::from_u16(status).unwrap();
            frame_answer(&method.parse().unwrap(), status, &mut headers, body);
            let framed: Vec<_> = framed.into_iter().map(|length| ("content-length", length)).collect();
            assert_eq!(headers, map(&framed), "{method} {status} {said}");
        }
    }

    #[test]
    fn a_request_in_another_coding_than_chunks_or_of_senseless_length_is_refused() {
        for (name, value, refusal) in [
            ("content-length", "0", None),
            ("content-length", "1099511627776", None),
            ("content-length", "1099511627777", Some(Refusal::TooLong)),
            ("content-length", "9223372036854775807", Some(Refusal::TooLong)),
            ("content-length", "99999999999999999999999", Some(Refusal::TooLong)),
            ("transfer-encoding", "Chunked", None),
            ("transfer-encoding", "gzip, chunked", Some(Refusal::Coding)),
            ("transfer-encoding", "identity, chunked", Some(Refusal::Coding)),
            ("transfer-encoding", "chunked, chunked", Some(Refusal::Coding)),
            ("transfer-encoding", "chunked;q=1", Some(Refusal::Coding)),
            ("transfer-encoding", "chunked,", Some(Refusal::Coding)),
            ("transfer-encoding", "", Some(Refusal::Coding)),
        ] {
            assert_eq!(refuse(&map(&[(name, value)])), refusal, "{name}: {value}");
        }
        let two = [("transfer-encoding", "identity"), ("transfer-encoding", "chunked")];
        assert_eq!(refuse(&map(&two)), Some(Refusal::Coding));
    }

    #[test]
    fn what_ends_with_the_connection_has_no_known_end_and_what_is_coded_is_not_plain() {
        for (fields, known, plain) in [
            (&[][..], false, true),
            (&[("content-length", "5")], true, true),
            (&[("transfer-encoding", "chunked")], true, true),
            (&[("transfer-encoding", "identity")], false, true),
            (&[("transfer-encoding", "identity"), ("content-length", "5")], false, true),
            (&[("transfer-encoding", "identity, chunked")], false, true),
            (&[("transfer-encoding", "chunked, identity")], false, false),
            (&[("transfer-encoding", "chunked, chunked")], false, false),
            (&[("transfer-encoding", "gzip, chunked")], false, false),
            (&[("transfer-encoding", "chunked,")], false, false),
            (&[("transfer-encoding", "x")], false, false),
        ] {
            assert_eq!(
                (has_known_end(Version::HTTP_11, &map(fields)), is_plain(&map(fields))),
                (known, plain),
                "{fields:?}"
            );
            assert!(has_known_end(Version::HTTP_2, &map(fields)));
        }
    }
}
