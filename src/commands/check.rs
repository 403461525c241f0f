//! `anteroom check`: reads a list from a file, standard input or a URL, and prints the report on it.

use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anteroom::check::{render_json, render_text, report, schema_json};
use anteroom::config::{Config, Flags};
use anteroom::engine::metrics::Metrics;
use anteroom::engine::upstream::Upstream;
use anteroom::policy::payload::PayloadSettings;
use bytes::Bytes;
use clap::Args;
use http::uri::Uri;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;

use super::{Done, File, complain, runtime};

#[derive(Args)]
pub(super) struct Check {
    #[command(flatten)]
    file: File,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// Print the contract itself as JSON Schema, and check nothing.
    #[arg(long)]
    schema: bool,
    /// A file, the URL of a list (its path holds a credential: others on this machine can see it), or - for standard input.
    #[arg(value_name = "PAYLOAD|URL|-", required_unless_present = "schema")]
    payload: Option<String>,
}

impl Check {
    pub(super) fn run(self) -> Done {
        if self.schema {
            println!("{}", schema_json());
            return Ok(ExitCode::SUCCESS);
        }
        let payload = self.payload.unwrap_or_default();
        let url = payload.parse::<Uri>().ok().filter(|uri| uri.scheme().is_some() && uri.authority().is_some());
        let config = settings(self.file, url.as_ref())?;
        let body = match (&url, payload.as_str()) {
            (Some(url), _) => match runtime()?.block_on(download(url, &config)) {
                Ok(body) => body,
                Err(error) => {
                    complain(&error);
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
        let report = report(&body, &payload);
        let text = if self.json { render_json(&report) } else { render_text(&report) };
        // Whoever reads only the first lines has closed the pipe: no mistake of ours.
        let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
        Ok(if report.keeps_contract { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// The settings, with the upstream where the list is: what is checked need not be what a proxy stands in front of.
fn settings(file: File, url: Option<&Uri>) -> Result<Config, String> {
    let origin = |url: &Uri| Some(format!("{}://{}", url.scheme_str()?, url.authority()?));
    let upstream = url.and_then(origin).unwrap_or_else(|| "http://localhost".to_owned());
    let flags = Flags { upstream: Some(upstream), ..Flags::default() };
    // Only a file that was named counts: a check gives the same in every folder.
    let given = File { config: Some(file.config.unwrap_or_else(|| PathBuf::from("/dev/null"))) };
    given.load(&flags).map(|loaded| loaded.config)
}

/// Reads a list as any client would, within the limits of the settings; shows how far it is on a terminal.
async fn download(url: &Uri, config: &Config) -> Result<Bytes, String> {
    let upstream = Upstream::new(config.upstream.clone(), Arc::new(Metrics::new()))?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::new(anteroom::engine::body::Body::empty());
    *request.uri_mut() = upstream.base().join(path).map_err(|error| error.to_string())?;
    let host = url.authority().map_or("", |authority| authority.as_str());
    request.headers_mut().insert(header::HOST, host.parse().map_err(|_| "the URL has no usable host".to_owned())?);
    request.headers_mut().insert(header::ACCEPT, "application/json".parse().map_err(|_| "no header".to_owned())?);
    let exchange = upstream.exchange();
    let response = upstream.send(request).await.map_err(|error| error.to_string())?;
    if response.status() != StatusCode::OK {
        return Err(format!("the answer is {}, not a list", response.status()));
    }
    let total = http_body::Body::size_hint(response.body()).exact();
    let mut body = upstream.watch(response.into_body(), exchange);
    let mut read = Vec::new();
    let terminal = std::io::stderr().is_terminal();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| error.to_string())?.into_data() else { continue };
        read.extend_from_slice(&data);
        if terminal {
            show_progress(read.len(), total);
        }
    }
    if terminal {
        eprint!("\r\x1b[K");
    }
    Ok(read.into())
}

/// A bar if the length is known, else a count.
fn show_progress(read: usize, total: Option<u64>) {
    const WIDTH: usize = 30;
    let kib = read / 1024;
    match total.and_then(|total| usize::try_from(total).ok()).filter(|total| *total > 0) {
        Some(total) => {
            let done = (read * WIDTH / total).min(WIDTH);
            eprint!("\r[{}{}] {kib} of {} KiB", "#".repeat(done), " ".repeat(WIDTH - done), total / 1024);
        }
        None => eprint!("\r{kib} KiB"),
    }
}
