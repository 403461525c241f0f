//! The forms of an answer: one answer is stored, and each reader gets it as it may have it. One topic a module; each
//! test cites the paragraph it holds.

mod codings;
mod cors;
mod fields;
mod validators;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::Full;

use crate::support::script::{Script, Scripted, json};

/// A list of one conversation whose one message has `length` bytes that compress well, but not to nothing.
fn list(length: usize) -> String {
    let words: String = (0..).map(|count: u32| format!("{count:x} ")).take(length / 2).collect();
    let content = &words[..length.min(words.len())];
    format!(
        r#"[{{"id":7,"uuid":"4b1f7a0e-6f1c-4d0a-9a55-0d3c8b7f1a11","contact":{{"id":42}},"messages":[{{"id":1,"content":"{content}"}}]}}]"#
    )
}

fn with(mut answer: Scripted, fields: &[(&'static str, &str)]) -> Scripted {
    for (name, value) in fields {
        answer.headers_mut().append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    answer
}

/// JSON with some fields.
fn json_with(body: &str, fields: &[(&'static str, &str)]) -> Scripted {
    with(json(body), fields)
}

/// A body in a coding, in whatever way it was made.
fn in_coding(mut answer: Scripted, coding: &'static str, body: Vec<u8>) -> Scripted {
    *answer.body_mut() = Full::new(Bytes::from(body));
    with(answer, &[("content-encoding", coding)])
}

/// An upstream that answers by the request's fields, and what it was asked for the list.
struct Asked {
    script: Script,
    seen: Arc<Mutex<Vec<HeaderMap>>>,
}

impl Asked {
    async fn start(answer: impl Fn(&HeaderMap) -> Scripted + Send + Sync + 'static) -> Self {
        let seen = Arc::<Mutex<Vec<HeaderMap>>>::default();
        let log = seen.clone();
        let script = Script::start(move |request| {
            if request.method() == http::Method::GET && request.uri().path().ends_with("/conversations") {
                log.lock().unwrap().push(request.headers().clone());
            }
            answer(request.headers())
        })
        .await;
        Self { script, seen }
    }

    fn lists(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    fn last(&self, name: &str) -> Option<String> {
        self.seen.lock().unwrap().last()?.get(name).map(|value| value.to_str().unwrap().to_owned())
    }
}
