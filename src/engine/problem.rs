//! Errors of our own, as documents that clients can read.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::body::Body;
use crate::policy::http::headers::stock_cors;

/// An error of our own: a problem document (RFC 9457), with the CORS fields of the route, since a browser could not
/// read it without them.
pub fn problem(status: StatusCode, detail: &str, with_origin: bool) -> Response<Body> {
    let title = status.canonical_reason().unwrap_or("Error");
    let body =
        serde_json::json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail });
    let mut response = Response::new(Body::from(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    if with_origin {
        stock_cors(headers);
    }
    response
}
