//! Who may do more on the private listener than read.

use http::request::Parts;
use http::{HeaderValue, Response, StatusCode, header};

use crate::engine::body::Body;
use crate::engine::problem::problem;
use crate::state::State;

/// The answer to whoever may not do `what`, which takes the token of `admin.token`.
pub(super) fn refuse(state: &State, head: &Parts, what: &str) -> Option<Response<Body>> {
    let active = state.active();
    let Some(token) = &active.config.admin.token else {
        return Some(problem(StatusCode::FORBIDDEN, &format!("{what} is off: set admin.token"), false));
    };
    let given = head.headers.get(header::AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
    let is_bearer = given.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer "));
    if is_bearer && token.verify(given[7..].trim_ascii()) {
        return None;
    }
    let detail = format!("{what} needs the bearer token of admin.token");
    let mut response = problem(StatusCode::UNAUTHORIZED, &detail, false);
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    Some(response)
}
