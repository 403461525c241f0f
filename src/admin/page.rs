//! The status page, and the manual beside it: files that are part of the program.

use http::request::Parts;
use http::{HeaderValue, Response, header};

use super::reply;
use crate::engine::body::Body;

/// One file.
pub(super) struct File {
    path: &'static str,
    kind: &'static str,
    text: &'static str,
}

const MARKDOWN: &str = "text/plain; charset=utf-8";

/// All of them. The manual is the one of this very version, and at hand where the network is the trouble.
static FILES: [File; 8] = [
    File { path: "/", kind: "text/html; charset=utf-8", text: include_str!("page/page.html") },
    File { path: "/page.css", kind: "text/css; charset=utf-8", text: include_str!("page/page.css") },
    File { path: "/page.js", kind: "text/javascript; charset=utf-8", text: include_str!("page/page.js") },
    File { path: "/charts.js", kind: "text/javascript; charset=utf-8", text: include_str!("page/charts.js") },
    File { path: "/words.js", kind: "text/javascript; charset=utf-8", text: include_str!("page/words.js") },
    File { path: "/docs/operating.md", kind: MARKDOWN, text: include_str!("../../docs/operating.md") },
    File { path: "/docs/metrics.md", kind: MARKDOWN, text: include_str!("../../docs/metrics.md") },
    File { path: "/docs/status.md", kind: MARKDOWN, text: include_str!("../../docs/status.md") },
];

/// What a browser may do for the page: nothing that is not from here.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The file of that path, if there is one.
pub(super) fn file(path: &str) -> Option<&'static File> {
    FILES.iter().find(|file| file.path == path)
}

/// A file as it is sent.
pub(super) fn answer(file: &'static File, head: &Parts) -> Response<Body> {
    let mut response = reply::long_text(head, file.kind, file.text);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}
