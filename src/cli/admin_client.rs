//! Asking the private listener of a running proxy.

use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use super::terminal::runtime;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(5);

/// One request to the private listener of a running proxy.
pub(super) fn ask(
    admin: &str,
    method: Method,
    path: &str,
    token: Option<&str>,
    body: String,
) -> Result<(StatusCode, String), String> {
    let cannot = |error: &dyn std::fmt::Display| format!("{admin} cannot be asked: {error}");
    let mut request = Request::builder().method(method).uri(format!("{}{path}", admin.trim_end_matches('/')));
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Full::new(Bytes::from(body))).map_err(|error| cannot(&error))?;
    let asking = async {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let response = client.request(request).await.map_err(|error| cannot(&error))?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| cannot(&error))?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    let limited =
        async { tokio::time::timeout(LIMIT, asking).await.unwrap_or_else(|_| Err(cannot(&"it took over 5 s"))) };
    runtime()?.block_on(limited)
}
