//! Answers with the header sets of the real service, and what its middleware adds to each of them.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use sha2::{Digest, Sha256};

use super::json::{Value, json};
use super::render::to_json;
use super::stamps::{hex, uuid, wall_clock};
use super::wire::{Body, full};

const NOT_FOUND_PAGE: &str = "<!DOCTYPE html>\n<html>\n<head>\n  <title>The page you were looking for doesn't exist (404)</title>\n</head>\n<body>\n  <h1>The page you were looking for doesn't exist.</h1>\n</body>\n</html>\n";
const MAINTENANCE_PAGE: &str =
    "<!doctype html>\n<html><head><title>Maintenance</title></head><body><h1>We'll be back soon.</h1></body></html>\n";

/// What is sent.
pub(super) enum Content {
    Bytes(Bytes),
    Stream(Body),
}

impl Content {
    pub(super) fn into_body(self) -> Body {
        match self {
            Self::Bytes(bytes) => full(bytes),
            Self::Stream(body) => body,
        }
    }
}

/// An answer before the middleware has seen it.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) content: Content,
}

impl Reply {
    fn plain(status: StatusCode, content_type: Option<&'static str>, body: impl Into<Bytes>) -> Self {
        let mut headers = HeaderMap::new();
        if let Some(content_type) = content_type {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        Self { status, headers, content: Content::Bytes(body.into()) }
    }

    /// An answer of a controller: with cache-control and the security headers.
    fn of_controller(status: StatusCode, content_type: &'static str, cache: &'static str, body: Bytes) -> Self {
        let mut reply = Self::plain(status, Some(content_type), body);
        for (name, value) in [
            ("cache-control", cache),
            ("x-frame-options", "SAMEORIGIN"),
            ("x-content-type-options", "nosniff"),
            ("x-xss-protection", "0"),
            ("x-download-options", "noopen"),
            ("x-permitted-cross-domain-policies", "none"),
            ("referrer-policy", "strict-origin-when-cross-origin"),
        ] {
            reply.headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        reply
    }

    /// 200 with JSON and its ETag.
    pub(super) fn json(body: Bytes) -> Self {
        let etag = HeaderValue::from_str(&etag(&body)).expect("hexadecimal");
        let cache = "max-age=0, private, must-revalidate";
        let mut reply = Self::of_controller(StatusCode::OK, "application/json; charset=utf-8", cache, body);
        reply.headers.insert(header::ETAG, etag);
        reply
    }

    /// 200 without a body.
    pub(super) fn empty() -> Self {
        Self::of_controller(StatusCode::OK, "application/json", "no-cache", Bytes::new())
    }

    /// 422, or any other refusal by a controller.
    pub(super) fn refused(status: StatusCode, body: &Value) -> Self {
        Self::of_controller(status, "application/json; charset=utf-8", "no-cache", to_json(body))
    }

    /// A message that breaks a rule.
    pub(super) fn invalid(message: &str, attribute: &str) -> Self {
        let body = json!({ "message": message, "attributes": [attribute] });
        Self::refused(StatusCode::UNPROCESSABLE_ENTITY, &body)
    }

    fn exception(status: StatusCode, error: &str) -> Self {
        let body = to_json(&json!({ "status": status.as_u16(), "error": error }));
        Self::plain(status, Some("application/json; charset=UTF-8"), body)
    }

    /// An unknown inbox, contact, conversation or message.
    pub(super) fn not_found() -> Self {
        Self::exception(StatusCode::NOT_FOUND, "Not Found")
    }

    /// A path or verb that no route has.
    pub(super) fn no_route(accepts_json_only: bool) -> Self {
        if accepts_json_only {
            return Self::not_found();
        }
        Self::plain(StatusCode::NOT_FOUND, Some("text/html; charset=UTF-8"), NOT_FOUND_PAGE)
    }

    /// Any exception, and the time limit.
    pub(super) fn broken() -> Self {
        Self::exception(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
    }

    /// JSON that is none.
    pub(super) fn unreadable(accepts_json_only: bool) -> Self {
        if accepts_json_only {
            return Self::exception(StatusCode::BAD_REQUEST, "Bad Request");
        }
        Self::plain(StatusCode::BAD_REQUEST, Some("text/html; charset=UTF-8"), Bytes::new())
    }

    /// The rate limiter's answer.
    pub(super) fn throttled() -> Self {
        let mut reply = Self::plain(StatusCode::TOO_MANY_REQUESTS, Some("text/plain"), "Retry later\n");
        reply.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        reply
    }

    /// A front server's page.
    pub(super) fn maintenance(status: StatusCode) -> Self {
        Self::plain(status, Some("text/html"), MAINTENANCE_PAGE)
    }

    /// Bytes that are not made by a controller.
    pub(super) fn stream(content_type: &'static str, body: Body) -> Self {
        let mut reply = Self::plain(StatusCode::OK, Some(content_type), Bytes::new());
        reply.content = Content::Stream(body);
        reply
    }

    /// The WebSocket endpoint, asked without an upgrade.
    pub(super) fn no_socket() -> Self {
        Self::plain(StatusCode::NOT_FOUND, Some("text/plain"), "Page not found")
    }

    /// 413: more than the stand-in is willing to remember.
    pub(super) fn too_large() -> Self {
        Self::plain(StatusCode::PAYLOAD_TOO_LARGE, Some("text/plain"), "too large\n")
    }

    /// An answer without a body and without any header, for preflight.
    fn bare() -> Self {
        Self::plain(StatusCode::OK, None, Bytes::new())
    }

    /// GET and HEAD with the right If-None-Match need no body. Plain equality: a list or `*` never matches.
    fn conditional(&mut self, method: &Method, headers: &HeaderMap) {
        let reads = matches!(*method, Method::GET | Method::HEAD) && self.status == StatusCode::OK;
        let Some(etag) = self.headers.get(header::ETAG).filter(|_| reads) else { return };
        if headers.get(header::IF_NONE_MATCH) == Some(etag) {
            self.status = StatusCode::NOT_MODIFIED;
            self.headers.remove(header::CONTENT_TYPE);
            self.content = Content::Bytes(Bytes::new());
        }
    }
}

/// `W/"<first 32 hex digits of the SHA-256 of the body>"`.
pub(super) fn etag(body: &[u8]) -> String {
    format!("W/\"{}\"", &hex(&Sha256::digest(body))[..32])
}

fn origin(headers: &HeaderMap) -> Option<&HeaderValue> {
    headers.get(header::ORIGIN).or_else(|| headers.get("x-origin"))
}

fn allow_origin(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, ""),
        (header::ACCESS_CONTROL_MAX_AGE, "7200"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// The answer to a preflight, if this is one. It is given before anything else sees the request.
pub(super) fn preflight(method: &Method, headers: &HeaderMap) -> Option<Reply> {
    let asked = headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if *method != Method::OPTIONS || origin(headers).is_none() || !asked {
        return None;
    }
    let mut reply = Reply::bare();
    allow_origin(&mut reply.headers);
    if let Some(wanted) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        reply.headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    Some(reply)
}

/// Passes an answer through the middleware: conditional GET, request id, run time, CORS.
pub(super) fn finish(
    reply: &mut Reply,
    method: &Method,
    request: &HeaderMap,
    place: usize,
    took: Duration,
    is_public: bool,
) {
    reply.conditional(method, request);
    let id = request.get("x-request-id").and_then(|it| it.to_str().ok()).map(sanitised).filter(|it| !it.is_empty());
    let id = id.unwrap_or_else(|| uuid(&format!("request {place} {:?}", wall_clock())));
    let id = HeaderValue::from_str(&id).expect("letters and digits");
    reply.headers.insert(HeaderName::from_static("x-request-id"), id);
    let runtime = HeaderValue::from_str(&format!("{:.6}", took.as_secs_f64())).expect("a number");
    reply.headers.insert(HeaderName::from_static("x-runtime"), runtime);
    if is_public {
        reply.headers.insert(header::VARY, HeaderValue::from_static("Origin"));
        if origin(request).is_some() {
            allow_origin(&mut reply.headers);
        }
    }
}

fn sanitised(id: &str) -> String {
    let kept = id.chars().filter(|it| it.is_ascii_alphanumeric() || matches!(it, '_' | '-' | '@'));
    kept.take(255).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_has_the_etag_everyone_knows() {
        assert_eq!(etag(b"[]"), "W/\"4f53cda18c2baa0c0354bb5f9a3ecbe5\"");
    }

    #[test]
    fn request_ids_are_echoed_without_what_could_hurt() {
        assert_eq!(sanitised("a b\tc_d-e@f<>ü1"), "abc_d-e@f1");
        assert_eq!(sanitised(&"x".repeat(300)).len(), 255);
    }
}
