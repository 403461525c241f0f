//! `anteroom check`: reads a list, or what another read gives, from a file, standard input or a URL, and prints the report on it.

use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use crate::config::{Config, Flags};
use crate::engine::metrics::Metrics;
use crate::engine::upstream::client::Upstream;
use crate::policy::http::no_list::NoList;
use crate::policy::http::path::canonical;
use crate::policy::payload::PayloadSettings;
use crate::policy::resource::ReadKind;
use bytes::Bytes;
use clap::Args;
use http::uri::Uri;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;

use super::config::File;
use super::report::{read_of, render_json, render_text, report, schema_json};
use super::terminal::{Done, complain, runtime, say};

#[derive(Args)]
pub(super) struct Check {
    /// A file of settings: lists are trimmed as it says, URLs are read within its limits. Without it nothing is trimmed.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// Print the contract itself as JSON Schema, and check nothing.
    #[arg(long)]
    schema: bool,
    /// What it is: conversations, conversation, messages or contact. Without it, the body tells, or the path of a URL.
    #[arg(long, value_name = "ROUTE", value_parser = read_named)]
    route: Option<ReadKind>,
    /// A file, the URL of an answer (its path holds a credential: others on this machine can see it), or - for standard input.
    #[arg(value_name = "PAYLOAD|URL|-", required_unless_present = "schema")]
    payload: Option<String>,
}

impl Check {
    pub(super) fn run(self) -> Done {
        if self.schema {
            return say(&schema_json(self.route.unwrap_or(ReadKind::Conversations)), ExitCode::SUCCESS);
        }
        let payload = self.payload.unwrap_or_default();
        let url = if payload.contains("://") { Some(web_address(&payload)?) } else { None };
        let config = settings(self.config, url.as_ref())?;
        let of_path = url.as_ref().and_then(|url| Some(canonical(url.path())?.2.read()));
        let named = self.route.or(of_path);
        let wanted = named.unwrap_or(ReadKind::Conversations).words();
        let body = match (&url, payload.as_str()) {
            (Some(url), _) => match runtime()?.block_on(download(url, &config, wanted)) {
                Ok(body) => body,
                Err(error) => {
                    complain(&format!("{}: {error}", origin(url)));
                    return Ok(ExitCode::FAILURE);
                }
            },
            (None, "-") => {
                let mut body = Vec::new();
                std::io::stdin().read_to_end(&mut body).map_err(|error| format!("standard input: {error}"))?;
                body.into()
            }
            (None, file) => Bytes::from(std::fs::read(file).map_err(|error| format!("{file}: {error}"))?),
        };
        let payload = PayloadSettings { trim: config.payload.trim, ..PayloadSettings::default() };
        let read = named.unwrap_or_else(|| read_of(&body));
        let report = report(read, &body, &payload);
        let text = if self.json { render_json(&report) } else { render_text(&report) };
        say(&text, if report.keeps_contract { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// A read by its word.
fn read_named(word: &str) -> Result<ReadKind, String> {
    let read = ReadKind::ALL.into_iter().find(|read| read.label() == word);
    read.ok_or_else(|| format!("write one of {}", ReadKind::LABELS.join(", ")))
}

/// A URL that can be read. Its path is a credential, so no message repeats it.
fn web_address(text: &str) -> Result<Uri, String> {
    let url: Uri = text.parse().map_err(|_| "the URL cannot be read; write http://HOST/PATH".to_owned())?;
    if !matches!(url.scheme_str(), Some("http" | "https")) {
        return Err("the URL is neither http nor https".to_owned());
    }
    let authority = url.authority().map_or("", |authority| authority.as_str());
    if authority.contains('@') {
        return Err("the URL has a user name, which would not be sent; leave it out".to_owned());
    }
    // Without a port, or with one that is none, the authority is the host or is not.
    if url.port_u16().is_none() && url.host() != Some(authority) {
        return Err("the URL has no proper port".to_owned());
    }
    Ok(url)
}

/// Scheme, host and port of a URL.
fn origin(url: &Uri) -> String {
    format!("{}://{}", url.scheme_str().unwrap_or_default(), url.authority().map_or("", |it| it.as_str()))
}

/// The settings, with the upstream where the list is: what is checked need not be what a proxy stands in front of.
fn settings(file: Option<PathBuf>, url: Option<&Uri>) -> Result<Config, String> {
    let flags = Flags { upstream: Some(url.map_or("http://localhost".to_owned(), origin)), ..Flags::default() };
    // Only a file that was named counts: a check gives the same in every folder.
    let given = File { config: Some(file.unwrap_or_else(|| PathBuf::from("/dev/null"))) };
    given.load(&flags).map(|loaded| loaded.config)
}

/// Reads a list as any client would, within the limits of the settings; shows how far it is on a terminal.
async fn download(url: &Uri, config: &Config, wanted: &str) -> Result<Bytes, String> {
    let upstream = Upstream::new(config.upstream.clone(), Arc::new(Metrics::new()))?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::new(crate::engine::body::Body::empty());
    *request.uri_mut() = upstream.base().join(path).map_err(|error| error.to_string())?;
    let host = url.authority().map_or("", |authority| authority.as_str());
    request.headers_mut().insert(header::HOST, host.parse().map_err(|_| "the URL has no usable host".to_owned())?);
    request.headers_mut().insert(header::ACCEPT, "application/json".parse().map_err(|_| "no header".to_owned())?);
    let exchange = upstream.exchange();
    let response = upstream.send(request).await.map_err(|error| error.words(&upstream.base().scheme))?;
    if response.status() != StatusCode::OK {
        let likely = NoList::of_head(response.status(), response.headers(), url);
        let likely = likely.map_or_else(String::new, |what| format!("; likely {}", what.likely_cause()));
        return Err(format!("the answer is {}, not {wanted}{likely}", response.status()));
    }
    if let Some(coding) = response.headers().get(header::CONTENT_ENCODING).filter(|coding| *coding != "identity") {
        let coding = String::from_utf8_lossy(coding.as_bytes()).into_owned();
        return Err(format!("the answer is encoded ({coding}), though that was not asked for"));
    }
    let total = http_body::Body::size_hint(response.body()).exact();
    let mut body = upstream.watch(response.into_body(), exchange);
    let mut read = Vec::new();
    let mut progress = Progress { terminal: std::io::stderr().is_terminal(), shown: None };
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| error.to_string())?.into_data() else { continue };
        read.extend_from_slice(&data);
        progress.show(read.len(), total);
    }
    Ok(read.into())
}

/// Puts something onto the terminal's line. If that is gone, so is the need.
fn put(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// How far a download is, on a terminal. The line is gone when it is over, however it ended.
struct Progress {
    terminal: bool,
    /// What is on the line; a line a step, not one for each piece that comes.
    shown: Option<usize>,
}

impl Progress {
    /// A bar if the length is known, else a count.
    fn show(&mut self, read: usize, total: Option<u64>) {
        const WIDTH: usize = 30;
        const STEP: usize = 64 * 1024;
        let total = total.and_then(|total| usize::try_from(total).ok()).filter(|total| *total > 0);
        let step = read / STEP;
        if !self.terminal || (self.shown == Some(step) && total != Some(read)) {
            return;
        }
        self.shown = Some(step);
        let kib = read / 1024;
        match total {
            Some(total) => {
                let done = (read.saturating_mul(WIDTH) / total).min(WIDTH);
                put(&format!("\r[{}{}] {kib} of {} KiB", "#".repeat(done), " ".repeat(WIDTH - done), total / 1024));
            }
            None => put(&format!("\r{kib} KiB")),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some() {
            put("\r\x1b[K");
        }
    }
}
