//! The body of an answer, whole and out of its coding, or handed on as it comes.

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::BodyExt;

use crate::engine::aside::aside;
use crate::engine::body::{Body, BodyError, Resumed};
use crate::engine::memory::Memory;
use crate::engine::upstream::error::UpstreamError;
use crate::policy::http::encoding::{Coding, coding_of, decode};

/// What became of a body.
pub(super) enum Collected {
    /// All of it, out of its coding.
    Whole(Bytes),
    /// Larger than may be kept: to be streamed on.
    TooLarge(Body),
}

/// Collects a body of at most `max` bytes, counted in `memory` before it is read, and takes it out of the coding that
/// the upstream put it in, though it was not asked to. `received` is told of the bytes that came.
pub(super) async fn collect(
    fields: &HeaderMap,
    body: Body,
    memory: &Memory,
    max: u64,
    received: impl FnOnce(u64),
) -> Result<Collected, UpstreamError> {
    let body = match read(body, memory, max).await? {
        Collected::Whole(body) => body,
        too_large @ Collected::TooLarge(_) => return Ok(too_large),
    };
    received(body.len() as u64);
    match coding_of(fields) {
        Ok(Some(coding)) => match out_of(body.clone(), coding, memory, max).await? {
            Some(body) => Ok(Collected::Whole(body)),
            None => Ok(Collected::TooLarge(Body::from(body))),
        },
        _ => Ok(Collected::Whole(body)),
    }
}

/// Collects a body as it is, counted in `memory`.
pub(super) async fn read(mut body: Body, memory: &Memory, max: u64) -> Result<Collected, UpstreamError> {
    let length = http_body::Body::size_hint(&body).exact();
    if length.is_some_and(|length| length > max) {
        return Ok(Collected::TooLarge(body));
    }
    let mut collecting = memory.room(length, max).await;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| body_error(&error))?;
        let Ok(data) = frame.into_data() else { continue };
        if collecting.push(&data).is_err() {
            let read = Resumed::new(collecting.finish(), Resumed::new(data, body));
            return Ok(Collected::TooLarge(Body::stream(read)));
        }
    }
    Ok(Collected::Whole(collecting.finish()))
}

/// A body out of its coding; none if that is not known, it is not in it, or there is no room.
pub(super) async fn decoded(fields: &HeaderMap, body: &Bytes, memory: &Memory, max: u64) -> Option<Bytes> {
    match coding_of(fields).ok()? {
        None => Some(body.clone()),
        Some(coding) => out_of(body.clone(), coding, memory, max).await.ok()?,
    }
}

/// `None` if it is too large.
async fn out_of(body: Bytes, coding: Coding, memory: &Memory, max: u64) -> Result<Option<Bytes>, UpstreamError> {
    let Ok(mut decoded) = memory.room_now(max) else { return Ok(None) };
    let work = move || {
        let whole = decode(&body, coding, |piece| decoded.push(piece).is_ok())?;
        Ok::<_, std::io::Error>(whole.then(|| decoded.finish()))
    };
    aside(work).await.map_err(|_| UpstreamError::Malformed)
}

/// What a body that broke off says of the upstream.
pub(super) fn body_error(error: &BodyError) -> UpstreamError {
    match error {
        BodyError::Stalled => UpstreamError::Timeout,
        BodyError::TooLong | BodyError::Broken(_) => UpstreamError::Incomplete,
    }
}
