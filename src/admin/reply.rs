//! Answers of the private listener.

use bytes::Bytes;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderValue, Response, header};

use crate::engine::body::Body;
use crate::policy::http::encoding::{Coding, EncodingSettings, encode, negotiate};

/// Figures and pages become a tenth of their length by this, and take less than a millisecond.
const GZIP_LEVEL: u32 = 5;

/// Seconds, with three digits behind the point.
pub(super) fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e3).round() / 1e3
}

/// A text of some kind.
pub(super) fn text(kind: &'static str, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::from(text.into()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// The same in gzip, if whoever asks takes that.
pub(super) fn long_text(head: &Parts, kind: &'static str, text: impl Into<Bytes>) -> Response<Body> {
    let plain = text.into();
    let accepted = negotiate(&head.headers, &[Coding::Gzip]);
    let gzipped = accepted.coding.and_then(|coding| gzip(&plain, coding));
    let coded = gzipped.filter(|gzipped| accepted.is_of_use(gzipped.len(), plain.len()));
    let mut response = self::text(kind, coded.clone().unwrap_or(plain));
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    if coded.is_some() {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

fn gzip(plain: &[u8], coding: Coding) -> Option<Bytes> {
    let (offer, gzip_level) = (vec![coding], GZIP_LEVEL);
    let settings = EncodingSettings { offer, min_size: 0, zstd_level: 0, br_level: 0, gzip_level };
    encode(plain, coding, &settings).ok().map(Bytes::from)
}
