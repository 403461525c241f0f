//! `upstream.url`: text to a base URL, or every mistake in it. Plain functions, no I/O.

use http::uri::{Authority, Scheme};
use toml::Value;

use super::shown::shown;
use crate::engine::upstream::settings::BaseUrl;

const EXAMPLE: &str = "write http:// or https://, a host, and a path only if the API lives below one";

/// What clients' own paths begin with, and pages of the dashboard: no API lives below these.
const NO_PREFIX: [&[&str]; 9] = [
    &["public", "api"],
    &["api", "v1"],
    &["api", "v2"],
    &["app", "accounts"],
    &["app", "login"],
    &["auth", "sign_in"],
    &["rails", "active_storage"],
    &["super_admin"],
    &["cable"],
];

/// As they are read again: one by itself, several as a list.
pub(super) fn base_urls_text(urls: &[BaseUrl]) -> String {
    match urls {
        [url] => Value::from(base_url_text(url)).to_string(),
        urls => Value::from(urls.iter().map(base_url_text).collect::<Vec<_>>()).to_string(),
    }
}

/// One URL, or a list of them that differ in host and port alone: they are doors of one installation.
pub(super) fn read_base_urls(value: &Value) -> Result<Vec<BaseUrl>, String> {
    let Some(list) = value.as_array() else { return Ok(vec![read_base_url(value)?]) };
    let (mut urls, mut problems) = (Vec::<BaseUrl>::new(), Vec::new());
    for value in list {
        match read_base_url(value) {
            Err(problem) => problems.push(problem),
            Ok(url) if urls.contains(&url) => problems.push(format!("{} is there twice", shown(value))),
            Ok(url) => urls.push(url),
        }
    }
    match urls.split_first() {
        None if problems.is_empty() => problems.push(format!("[] is no URL; {EXAMPLE}")),
        Some((first, rest)) if rest.iter().any(|url| url.scheme != first.scheme || url.prefix != first.prefix) => {
            problems.push("all URLs must have the same scheme and path: they are doors of one installation".to_owned());
        }
        _ => {}
    }
    if problems.is_empty() { Ok(urls) } else { Err(problems.join("; and ")) }
}

/// As it is read again.
fn base_url_text(url: &BaseUrl) -> String {
    format!("{}://{}{}", url.scheme, url.authority, url.prefix)
}

/// The value is part of a message only where it cannot hold a password, a token or a contact's identifier.
fn read_base_url(value: &Value) -> Result<BaseUrl, String> {
    let text = value.as_str().ok_or_else(|| format!("{} is not a URL; {EXAMPLE}", shown(value)))?;
    let mut problems = Vec::new();
    for (mark, name) in [('@', "a user name"), ('?', "a query"), ('#', "a fragment")] {
        if text.contains(mark) {
            problems.push(format!("has {name} ({mark:?}), which would not be sent"));
        }
    }
    let may_be_shown = problems.is_empty();
    let (url, advice) = match parts(&without_those(text), &mut problems) {
        Some(parts) => check(parts, &mut problems),
        None => (None, Advice::Example),
    };
    if let (Some(url), true) = (url, problems.is_empty()) {
        return Ok(url);
    }
    let problems = problems.join(", and ");
    Err(match advice {
        Advice::LeaveOut(base) => format!("{problems}; write {}", Value::from(base)),
        Advice::Slash if may_be_shown => format!("{} {problems}; leave the slash out", shown(value)),
        _ if may_be_shown => format!("{} {problems}; {EXAMPLE}", shown(value)),
        _ => format!("{problems}; {EXAMPLE}"),
    })
}

/// What to do.
enum Advice {
    Example,
    Slash,
    /// Write this instead.
    LeaveOut(String),
}

type Parts = (Scheme, Authority, String);

/// The text without user name, query and fragment: the rest may have mistakes of its own.
fn without_those(text: &str) -> String {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

fn parts(text: &str, problems: &mut Vec<String>) -> Option<Parts> {
    let Ok(uri) = text.parse::<http::Uri>() else {
        problems.push("is not a URL".to_owned());
        return None;
    };
    let path = uri.path().to_owned();
    let parts = uri.into_parts();
    let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
        problems.push("is not a whole URL".to_owned());
        return None;
    };
    Some((scheme, authority, path))
}

fn check((scheme, authority, path): Parts, problems: &mut Vec<String>) -> (Option<BaseUrl>, Advice) {
    let mut advice = Advice::Example;
    if scheme != Scheme::HTTP && scheme != Scheme::HTTPS {
        problems.push("is neither http nor https".to_owned());
    }
    let authority = plain_authority(&scheme, &authority);
    if authority.is_none() {
        problems.push("has no proper host and port".to_owned());
    }
    let path = if path == "/" { "" } else { &path };
    if let (Some((before, found)), Some(authority)) = (no_prefix(path), &authority) {
        problems.push(format!(
            "ends in {found}, which is a path of the API or its dashboard and no place below which it lives"
        ));
        advice = Advice::LeaveOut(format!("{scheme}://{authority}{before}"));
    } else if path.ends_with('/') {
        if problems.is_empty() {
            advice = Advice::Slash;
        }
        problems.push("ends in a slash".to_owned());
    } else if path.split('/').skip(1).any(|step| matches!(step, "" | "." | "..")) {
        problems.push("has an empty or dotted step in its path".to_owned());
    }
    (authority.map(|authority| BaseUrl { scheme, authority, prefix: path.to_owned() }), advice)
}

/// What stands before a path of the API or its dashboard, and that path's own beginning: what follows may be a contact's
/// identifier.
fn no_prefix(path: &str) -> Option<(String, String)> {
    let steps: Vec<&str> = path.split('/').filter(|step| !step.is_empty()).collect();
    let text = |steps: &[&str]| steps.iter().map(|step| format!("/{step}")).collect::<String>();
    (0..steps.len()).find_map(|at| {
        let found = NO_PREFIX.iter().find(|known| steps[at..].starts_with(known))?;
        Some((text(&steps[..at]), text(found)))
    })
}

/// Host, and port if it is not the scheme's. `None` if the host is empty or the port no port.
fn plain_authority(scheme: &Scheme, authority: &Authority) -> Option<Authority> {
    let host = authority.host();
    if host.is_empty() {
        return None;
    }
    if authority.as_str() == host {
        return Some(authority.clone());
    }
    let port = authority.port_u16().filter(|port| *port > 0)?;
    let usual = if *scheme == Scheme::HTTPS { 443 } else { 80 };
    if port == usual { host.parse().ok() } else { Some(authority.clone()) }
}
