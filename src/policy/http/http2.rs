//! What is different in HTTP/2: how a request's head says what HTTP/1.1 says otherwise, and what a client may do for
//! nothing.

use std::time::{Duration, Instant};

use http::request::Parts;
use http::{HeaderValue, header};

/// The most fields of a head: as many as HTTP/1.1 may have here.
const FIELDS: usize = 100;

/// Whether a head has too many fields. The limit of its length counts 32 bytes for each, and would allow thousands.
pub fn has_too_many_fields(head: &Parts) -> bool {
    head.headers.len() > FIELDS
}

/// Turns a head into what the same request has in HTTP/1.1, so that what is decided below is decided once: a body
/// without a length is in chunks, and the parts of `Cookie` are one field (RFC 9113 section 8.2.3). The host stays where
/// it is.
pub fn as_http1(head: &mut Parts, has_body: bool) {
    if has_body && !head.headers.contains_key(header::CONTENT_LENGTH) {
        head.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let mut cookies = head.headers.get_all(header::COOKIE).iter();
    if let (Some(first), Some(second)) = (cookies.next(), cookies.next()) {
        let mut all = first.as_bytes().to_vec();
        for cookie in std::iter::once(second).chain(cookies) {
            all.extend_from_slice(b"; ");
            all.extend_from_slice(cookie.as_bytes());
        }
        let all = HeaderValue::from_bytes(&all).expect("what were field values are one together");
        head.headers.insert(header::COOKIE, all);
    }
}

/// Requests that may be given up at once: a browser that leaves a page gives all of them up.
const AT_ONCE: u32 = 200;
/// So often one more may be.
const ONE_MORE_EVERY: Duration = Duration::from_millis(100);

/// How many requests a connection may still give up: each costs the client nothing, and the proxy something
/// (CVE-2023-44487).
#[derive(Clone, Copy, Debug)]
pub struct Resets {
    left: u32,
    counted: Instant,
}

impl Resets {
    /// A connection that has just begun.
    pub fn new(now: Instant) -> Self {
        Self { left: AT_ONCE, counted: now }
    }

    /// Takes one. False if there is none left.
    pub fn allow(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.counted);
        let more = u32::try_from(passed.as_millis() / ONE_MORE_EVERY.as_millis()).unwrap_or(u32::MAX);
        if more > 0 {
            self.left = self.left.saturating_add(more).min(AT_ONCE);
            self.counted = now;
        }
        let is_allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_become_one_field_and_a_body_without_a_length_is_in_chunks() {
        let head = |fields: &[(&str, &str)], has_body| {
            let mut request = http::Request::builder();
            for (name, value) in fields {
                request = request.header(*name, *value);
            }
            let (mut head, ()) = request.body(()).unwrap().into_parts();
            as_http1(&mut head, has_body);
            head.headers
        };
        let headers = head(&[("cookie", "a=b"), ("x", "y"), ("cookie", "c=d"), ("cookie", "e=f")], true);
        assert_eq!(headers.get_all("cookie").iter().collect::<Vec<_>>(), ["a=b; c=d; e=f"]);
        assert_eq!(
            (&headers["x"], &headers["transfer-encoding"]),
            (&"y".parse().unwrap(), &"chunked".parse().unwrap())
        );
        assert!(head(&[("cookie", "a=b")], false).get("transfer-encoding").is_none());
        assert!(head(&[("content-length", "3")], true).get("transfer-encoding").is_none());
    }

    #[test]
    fn a_page_that_is_left_may_give_up_its_requests_and_a_flood_may_not() {
        let now = crate::engine::clock::now();
        let mut resets = Resets::new(now);
        assert!((0..AT_ONCE).all(|_| resets.allow(now)));
        assert!(!resets.allow(now));
        assert!(!resets.allow(now + ONE_MORE_EVERY / 2));
        assert!(resets.allow(now + ONE_MORE_EVERY));
        assert!(!resets.allow(now + ONE_MORE_EVERY));
        let later = now + Duration::from_secs(3600);
        assert_eq!((0..1000).filter(|_| resets.allow(later)).count(), AT_ONCE as usize);
    }
}
