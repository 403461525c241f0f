//! A stored answer, as one client gets it.

use std::time::Instant;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};

use crate::engine::body::Body;
use crate::engine::responses::Stored;
use crate::policy::rfc9111::form::Form;
use crate::proxy::request::ClientRequest;

impl ClientRequest {
    /// A stored answer in the form that this request asks for, with its age (RFC 9111 section 4).
    pub(super) fn give(&self, stored: &Stored, now: Instant) -> Response<Body> {
        let (shape, body) = (stored.shape(), &stored.body);
        let begins = stored.part.map_or(0, |part| part.first);
        let form = shape.form(&self.head.method, &self.head.headers);
        let (status, mut head) = shape.head(form);
        head.insert(header::AGE, HeaderValue::from(stored.age(now).as_secs()));
        let body = match form {
            Form::Whole => body.clone(),
            Form::Part(first, last) => body.slice(index(first - begins)..=index(last - begins)),
            Form::NotModified | Form::NoPart => Bytes::new(),
        };
        let is_head = self.head.method == Method::HEAD;
        let has_length = !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if has_length && (is_head || body.is_empty()) {
            // What GET would send (RFC 9110 section 8.6).
            head.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        let mut response = Response::new(if is_head { Body::empty() } else { Body::from(body) });
        (*response.status_mut(), *response.headers_mut()) = (status, head);
        response
    }
}

/// A place in a body, which is in memory.
fn index(place: u64) -> usize {
    usize::try_from(place).expect("a body in memory is no longer than memory")
}
