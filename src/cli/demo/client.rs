//! A client of the proxy, as a browser or an app is one.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// For a whole answer: longer than the proxy itself lets anybody wait.
const PATIENCE: Duration = Duration::from_secs(40);
/// The longest answer that is read.
const LONGEST: usize = 16 << 20;

/// A client with connections of its own.
#[derive(Clone)]
pub(super) struct Client {
    client: legacy::Client<HttpConnector, Full<Bytes>>,
    url: String,
}

/// An answer, all of it.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// From sending the request to the last byte of its answer.
    pub(super) took: Duration,
}

impl Client {
    /// One that speaks HTTP/1.1 with what is at this URL.
    pub(super) fn new(url: &str) -> Self {
        let client = legacy::Client::builder(TokioExecutor::new()).build_http();
        Self { client, url: url.trim_end_matches('/').to_owned() }
    }

    /// One that speaks HTTP/2, over one connection.
    pub(super) fn over_one_connection(url: &str) -> Self {
        let client = legacy::Client::builder(TokioExecutor::new()).http2_only(true).build_http();
        Self { client, ..Self::new(url) }
    }

    /// The answer once all of it is there, or why there is none.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        fields: &[(HeaderName, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, String> {
        let started = tokio::time::Instant::now();
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        for (name, value) in fields {
            request = request.header(name, *value);
        }
        let request = request.body(Full::new(body.into())).map_err(|error| error.to_string())?;
        let asking = async {
            let response = self.client.request(request).await.map_err(|error| format!("no answer: {error}"))?;
            let (head, body) = response.into_parts();
            let body =
                Limited::new(body, LONGEST).collect().await.map_err(|error| format!("half an answer: {error}"))?;
            Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes(), took: started.elapsed() })
        };
        tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
    }

    /// The same for a GET.
    pub(super) async fn get(&self, path: &str) -> Result<Answer, String> {
        self.ask(Method::GET, path, &[], "").await
    }

    /// The same for a POST of JSON.
    pub(super) async fn post(&self, path: &str, json: impl Into<Bytes>) -> Result<Answer, String> {
        self.ask(Method::POST, path, &[(header::CONTENT_TYPE, "application/json")], json).await
    }
}

impl Answer {
    /// What the proxy says of its cache; empty if it does not.
    pub(super) fn cache_status(&self) -> &str {
        self.headers.get("cache-status").map(HeaderValue::as_bytes).and_then(|it| str::from_utf8(it).ok()).unwrap_or("")
    }

    /// Whether this text is in it.
    pub(super) fn holds(&self, text: &str) -> bool {
        self.body.windows(text.len()).any(|part| part == text.as_bytes())
    }
}
