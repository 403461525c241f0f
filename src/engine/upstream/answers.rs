//! What an answer of the upstream is worth, and what a failure was.

use http::{Response, StatusCode, Version};

use super::connect_failure::ConnectFailure;
use super::error::UpstreamError;
use crate::engine::body::BodyError;
use crate::policy::http::framing::{contradicts_itself, is_plain};
use crate::policy::http::route::switches_to_websocket;

/// Whether the connection may not be used again, though the answer is whole: of HTTP/1.0 hyper would send no chunks, and
/// lose the body; after an answer that contradicts itself nobody knows what comes.
pub(super) fn leaves_a_doubt<B>(response: &Response<B>) -> bool {
    response.version() < Version::HTTP_11 || contradicts_itself(response.status(), response.headers())
}

/// Whether this is an answer to what was asked: in no coding that would stay in it, and a switch only if one was asked
/// for, to what was asked for. What is none is dropped, and its connection with it.
pub(super) fn is_answer<B>(response: &Response<B>, switches: bool) -> bool {
    let well_switched = || switches && switches_to_websocket(response.headers());
    is_plain(response.headers()) && (response.status() != StatusCode::SWITCHING_PROTOCOLS || well_switched())
}

/// What went wrong, by an error and its causes.
pub(super) fn kind(error: &(dyn std::error::Error + 'static)) -> UpstreamError {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(failure) = error.downcast_ref::<ConnectFailure>() {
            return UpstreamError::Connect(*failure);
        }
        match error.downcast_ref::<BodyError>() {
            Some(BodyError::Stalled) => return UpstreamError::ClientStalled,
            Some(BodyError::TooLong) => return UpstreamError::ClientTooLong,
            Some(BodyError::Broken(_)) => return UpstreamError::ClientBroke,
            None => {}
        }
        if let Some(error) = error.downcast_ref::<hyper::Error>()
            && (error.is_parse() || error.is_parse_status())
        {
            return UpstreamError::Malformed;
        }
        if let Some(error) = error.downcast_ref::<std::io::Error>()
            && error.kind() == std::io::ErrorKind::TimedOut
        {
            return UpstreamError::Timeout;
        }
        cause = error.source();
    }
    UpstreamError::Reset
}
