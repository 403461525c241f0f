//! `cache.ttl = "origin"`: RFC 9111 over real sockets.

mod asking;
mod coherence;
mod families;
mod fields;
mod forms;
mod reuse;
mod sentences;
mod stale;
mod steps;
mod vary;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;

use crate::support::script::{Script, Scripted, answer};
use crate::support::{Answer, Proxy, request, send};

/// What is set in all of these.
const ORIGIN: &str = "cache.ttl = \"origin\"\npayload.validate = \"off\"\ncache.settle = \"0s\"\n";

/// Fields of a request or an answer.
type Fields = &'static [(&'static str, &'static str)];

/// A request as the upstream got it.
#[derive(Clone, Debug)]
struct Seen {
    headers: HeaderMap,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// An upstream that remembers what it was asked, and the proxy in front of it.
struct Both {
    seen: Arc<Mutex<Vec<Seen>>>,
    script: Script,
    proxy: Proxy,
}

impl Both {
    /// An upstream that answers with what `say` makes of the number of a request to the list, from one, and of the request.
    async fn saying(more: &str, say: impl Fn(usize, &Request<Incoming>) -> Scripted + Send + Sync + 'static) -> Self {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let remembered = seen.clone();
        let script = Script::start(move |request| {
            if !request.uri().path().ends_with("/conversations") {
                return answer(404, "text/plain", "");
            }
            let number = {
                let mut seen = remembered.lock().unwrap();
                seen.push(Seen { headers: request.headers().clone() });
                seen.len()
            };
            say(number, request)
        })
        .await;
        let proxy = Proxy::in_front_of(&script.url, &format!("{ORIGIN}{more}")).await;
        Self { seen, script, proxy }
    }

    /// The first request is answered with these fields, each later one by `later`.
    async fn with(first: Fields, later: impl Fn(usize) -> Scripted + Send + Sync + 'static) -> Self {
        Self::saying("", move |number, _| if number == 1 { plain(200, first, "1") } else { later(number) }).await
    }

    /// Every request is answered with these fields and its number.
    async fn always(fields: Fields) -> Self {
        Self::with(fields, move |number| plain(200, fields, &number.to_string())).await
    }

    fn asked(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    fn last(&self) -> Seen {
        self.seen.lock().unwrap().last().unwrap().clone()
    }

    async fn get(&self, fields: &[(&str, &str)]) -> Answer {
        self.ask("GET", "a", fields).await
    }

    async fn ask(&self, method: &str, source: &str, fields: &[(&str, &str)]) -> Answer {
        send(request(method, &self.proxy.list_url(source), fields, "")).await
    }
}

/// A plain text with some fields.
fn plain(status: u16, fields: &[(&'static str, &'static str)], body: &str) -> Scripted {
    with_fields(answer(status, "text/plain", body), fields)
}

fn with_fields(mut answer: Response<Full<Bytes>>, fields: &[(&'static str, &'static str)]) -> Scripted {
    for (name, value) in fields {
        answer.headers_mut().append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    answer
}

/// A 304 with these fields.
fn not_modified(fields: &[(&'static str, &'static str)]) -> Scripted {
    let mut answer = with_fields(Response::new(Full::default()), fields);
    *answer.status_mut() = StatusCode::NOT_MODIFIED;
    answer
}
