//! `anteroom explain`: why a request is answered from memory, or is not.

use std::fmt::Write;
use std::io::Read;
use std::process::ExitCode;

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::admin_client::{AdminClient, TokenFile, ask, document, reason};
use super::terminal::{Done, complain, say};
use crate::config::{self, RequestRules, SettingsFile};
use crate::policy::http::key::{encode_segment, is_identifier};
use crate::policy::http::route::{Route, Rules, classify};
use crate::policy::http::route_words::told;
use crate::policy::http::{framing, target, typed};

#[derive(Args)]
pub(super) struct Explain {
    #[command(flatten)]
    client: AdminClient,
    #[command(flatten)]
    token: TokenFile,
    /// Ask no running proxy: only what the request is, and by which rule.
    #[arg(long)]
    offline: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// The method, such as GET.
    method: String,
    /// The path with its query. {inbox} and {contact} stand for identifiers, which are read from standard input, a line
    /// each, in the order of the path; - is a whole path that is read from there.
    path: String,
    /// A field of the request, such as "Cookie: x"; whether there is one matters, hardly what is in it.
    header: Vec<String>,
}

impl Explain {
    pub(super) fn run(self) -> Done {
        let path = filled(&self.path, &mut StandardInput::default())?;
        let print = |document: &Value| if self.json { format!("{document:#}\n") } else { for_people(document) };
        if self.offline {
            return say(&print(&self.by_rules(&path, self.client.settings_file())?), ExitCode::SUCCESS);
        }
        let (file, proxy) = (self.client.settings_file(), self.client.find()?);
        let token = self.token.of(&proxy)?.ok_or_else(|| {
            "explain needs --token-file, the variable ANTEROOM_ADMIN__TOKEN, or admin.token in the settings; with \
             --offline it needs none"
                .to_owned()
        })?;
        let question = json!({ "method": self.method, "path": path, "headers": self.header });
        match ask(&proxy.address, Method::POST, "/explain", Some(&token), question.to_string()) {
            Ok((status, said)) if status.is_success() => match document(&proxy.address, &said, "kind") {
                Ok(document) => say(&print(&document), ExitCode::SUCCESS),
                Err(error) => {
                    complain(&error);
                    Ok(ExitCode::FAILURE)
                }
            },
            Ok((status, said)) => {
                complain(&format!("not explained: {status}: {}", reason(&said)));
                Ok(ExitCode::FAILURE)
            }
            Err(error) => {
                complain(&format!("{error}; this is what the settings alone tell"));
                say(&print(&self.by_rules(&path, file)?), ExitCode::FAILURE)
            }
        }
    }

    /// What the request is, by the settings alone.
    fn by_rules(&self, path: &str, file: SettingsFile) -> Result<Value, String> {
        let rules = config::request_rules(file, std::env::vars_os()).map_err(|mistakes| mistakes.to_string())?;
        let RequestRules { routes, query, credentials, ref webhooks, by_origin } = rules;
        let rules = Rules { query, credentials, webhooks: webhooks.as_deref(), by_origin, routes };
        let head = typed::head(&self.method, path, &self.header)?;
        let refused = target::refuse(&head).or_else(|| framing::refuse(&head.headers));
        let route = refused.map_or_else(|| classify(&head.method, &head.uri, &head.headers, rules), Route::Refuse);
        let told = told(&route, &rules);
        let key = (!told.key.is_empty()).then(|| json!({ "made_of": told.key }));
        Ok(json!({ "kind": told.kind, "rule": told.rule, "key": key }))
    }
}

/// Identifiers, or a whole path, as they are typed.
trait Typed {
    /// The next line.
    fn line(&mut self) -> Result<String, String>;
}

/// Read to its end when the first line is asked for.
#[derive(Default)]
struct StandardInput(Option<std::vec::IntoIter<String>>);

impl Typed for StandardInput {
    fn line(&mut self) -> Result<String, String> {
        if self.0.is_none() {
            let mut all = String::new();
            std::io::stdin().read_to_string(&mut all).map_err(|error| format!("standard input: {error}"))?;
            self.0 = Some(all.lines().map(str::to_owned).collect::<Vec<_>>().into_iter());
        }
        let line = self.0.as_mut().and_then(Iterator::next).filter(|line| !line.is_empty());
        line.ok_or_else(|| "standard input has no line for everything that the path leaves open".to_owned())
    }
}

/// The path with what comes from standard input.
fn filled(path: &str, typed: &mut impl Typed) -> Result<String, String> {
    let path = if path == "-" { typed.line()?.trim().to_owned() } else { path.to_owned() };
    if !path.starts_with('/') {
        return Err("a path begins with a slash: it is what follows the host in a URL".to_owned());
    }
    let (mut filled, mut rest) = (String::new(), path.as_str());
    while let Some(at) = ["{inbox}", "{contact}"].iter().filter_map(|name| rest.find(name)).min() {
        let (before, after) = rest.split_at(at);
        let identifier = typed.line()?;
        if !is_identifier(&identifier) {
            return Err(
                "that is no identifier: it is one step of a path, decoded, such as what follows /contacts/".to_owned()
            );
        }
        filled.push_str(before);
        filled.push_str(&encode_segment(&identifier));
        rest = after.split_once('}').map_or("", |(_, rest)| rest);
    }
    Ok(filled + rest)
}

/// What was found out, in lines.
fn for_people(document: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut out = String::new();
    let mut line = |name: &str, what: String| {
        let _ = writeln!(out, "{name:<8}{what}");
    };
    line("kind", text(&document["kind"]));
    line("rule", text(&document["rule"]));
    let key = &document["key"];
    if !key.is_null() {
        let parts: Vec<String> = key["made_of"].as_array().into_iter().flatten().map(text).collect();
        let hashes = match (key["inbox"].as_str(), key["contact"].as_str()) {
            (Some(inbox), Some(contact)) => format!("; here inbox {inbox}, contact {contact} as in the log"),
            _ => String::new(),
        };
        line("key", format!("{}{hashes}", parts.join(", ")));
    }
    let now = &document["now"];
    if now.is_null() {
        return out;
    }
    if !key.is_null() {
        let kept = &document["kept"];
        if kept.is_null() {
            line("kept", "nothing".to_owned());
            for change in changes(&document["changes"]) {
                line("changed", change);
            }
        } else {
            for told in kept_lines(kept) {
                line("kept", told);
            }
            for told in state_lines(kept, &document["changes_remembered_s"]) {
                line("state", told);
            }
        }
        if document["under_way"] == true {
            line("fetch", "one is under way".to_owned());
        }
    }
    if document["upstream_left_alone"] == true {
        line(
            "fetch",
            "the upstream is left alone, but for one request a second, since it gave nothing but failures".to_owned(),
        );
    }
    line("now", format!("{}: {}", text(&now["outcome"]), text(&now["why"])));
    line("", format!("Cache-Status: {}", text(&now["cache_status"])));
    out
}

fn lasting(value: &Value) -> String {
    let seconds = value.as_f64().unwrap_or_default();
    if seconds < 120.0 {
        format!("{} s", (seconds * 10.0).round() / 10.0)
    } else {
        format!("{:.1} min", seconds / 60.0)
    }
}

fn kept_lines(kept: &Value) -> Vec<String> {
    let form = |form: &Value| format!("{} ({} bytes)", form["coding"].as_str().unwrap_or_default(), form["bytes"]);
    let forms: Vec<String> = kept["forms"].as_array().into_iter().flatten().map(form).collect();
    let packed =
        if kept["kept_as"].is_null() { String::new() } else { format!(", kept as {}", form(&kept["kept_as"])) };
    let beside = if forms.is_empty() { String::new() } else { format!(", and as {}", forms.join(", ")) };
    // `Age` counts both.
    let before = kept["age_from_upstream_s"].as_f64().unwrap_or_default();
    let age = json!(before + kept["age_s"].as_f64().unwrap_or_default());
    let older =
        if before > 0.0 { format!(", {} of them before it came here", lasting(&json!(before))) } else { String::new() };
    let left = kept["ttl_left_s"].as_i64().unwrap_or_default();
    let left = if left >= 0 { format!("{left} s left") } else { format!("over for {} s", -left) };
    let soon =
        if kept["fetched_soon_after_a_write"] == true { ", short since it was fetched soon after a write" } else { "" };
    vec![
        format!("{}, {} bytes{packed}{beside}", kept["status"], kept["bytes"]),
        format!("{} old{older}; TTL {} ({left}){soon}", lasting(&age), lasting(&kept["ttl_s"])),
        format!(
            "served until it is {} old while the upstream works, stands in for an error until {}",
            lasting(&kept["served_until_s"]),
            lasting(&kept["stands_in_until_s"]),
        ),
    ]
}

fn state_lines(kept: &Value, remembered: &Value) -> Vec<String> {
    let freshness = match kept["freshness"].as_str() {
        Some("fresh") => "fresh",
        Some("stale") => "stale",
        Some("only_on_error") => "only good to stand in for an error",
        _ => "too old",
    };
    let failed = if kept["refetch_failed"] == true { "; the last fetch that was to replace it failed" } else { "" };
    if kept["current"] == true {
        return vec![format!("current and {freshness}{failed}")];
    }
    let mut lines = vec![format!("out of date, and {freshness}{failed}")];
    lines.extend(changes(&kept["out_of_date_by"]));
    if kept["out_of_date_by"].as_array().into_iter().flatten().any(|change| change["by"].is_null()) {
        lines.push(format!("all changes of the last {} are remembered", lasting(remembered)));
    }
    lines
}

/// What has changed, a line each.
fn changes(changes: &Value) -> Vec<String> {
    let told = |change: &Value| {
        let what = change["what"].as_str().unwrap_or_default();
        match change["words"].as_str() {
            Some(words) => format!("{what}, by {words}, {} ago", lasting(&change["ago_s"])),
            None => format!("{what}, before what is remembered"),
        }
    };
    changes.as_array().into_iter().flatten().map(told).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Lines(Vec<&'static str>);

    impl Typed for Lines {
        fn line(&mut self) -> Result<String, String> {
            if self.0.is_empty() { Err("no more".into()) } else { Ok(self.0.remove(0).to_owned()) }
        }
    }

    #[test]
    fn identifiers_come_from_standard_input_in_the_order_of_the_path() {
        let path = "/public/api/v1/inboxes/{inbox}/contacts/{contact}/conversations?x={contact}";
        for (path, lines, expected) in [
            (path, vec!["in", "a.b c", "d"], Ok("/public/api/v1/inboxes/in/contacts/a%2Eb%20c/conversations?x=d")),
            ("/a/b", vec![], Ok("/a/b")),
            ("-", vec!["/a/{inbox}", "b"], Ok("/a/b")),
            ("/{inbox}", vec!["a/b"], Err("no identifier")),
            ("/{inbox}", vec![], Err("no more")),
            ("a/b", vec![], Err("begins with a slash")),
            ("https://chat.test/a", vec![], Err("begins with a slash")),
        ] {
            match (filled(path, &mut Lines(lines)), expected) {
                (Ok(filled), Ok(expected)) => assert_eq!(filled, expected),
                (Err(said), Err(expected)) => assert!(said.contains(expected), "{path}: {said}"),
                (got, _) => panic!("{path}: {got:?}"),
            }
        }
    }

    #[test]
    fn what_was_found_out_is_told_in_lines() {
        let change = json!({ "what": "its contact", "by": "webhook", "words": "a webhook", "ago_s": 1.23 });
        let forgotten = json!({ "what": "its inbox", "by": null, "words": null, "ago_s": null });
        let mut document = json!({
            "kind": "list", "rule": "as published", "under_way": true, "upstream_left_alone": false,
            "key": { "inbox": "0a", "contact": "0b", "made_of": ["inbox", "contact", "no query"] },
            "kept": {
                "status": 200, "bytes": 1234, "forms": [{ "coding": "gzip", "bytes": 99 }], "kept_as": { "coding": "zstd", "bytes": 98 }, "age_s": 3.26,
                "age_from_upstream_s": 1.0, "ttl_s": 15.0, "ttl_left_s": 11, "served_until_s": 30.0, "stands_in_until_s": 600.0,
                "freshness": "fresh", "fetched_soon_after_a_write": true, "refetch_failed": false, "current": false,
                "out_of_date_by": [change, forgotten],
            },
            "changes": [change], "changes_remembered_s": 90.0,
            "now": { "outcome": "joined", "cache_status": "anteroom; fwd=stale; collapsed", "why": "what is kept is out of date" },
        });
        let text = for_people(&document);
        for line in [
            "kind    list\nrule    as published\nkey     inbox, contact, no query; here inbox 0a, contact 0b as in the log\n",
            "kept    200, 1234 bytes, kept as zstd (98 bytes), and as gzip (99 bytes)\n",
            "4.3 s old, 1 s of them before it came here; TTL 15 s (11 s left), short since",
            "served until it is 30 s old while the upstream works, stands in for an error until 10.0 min\n",
            "state   out of date, and fresh\nstate   its contact, by a webhook, 1.2 s ago\n",
            "state   its inbox, before what is remembered\nstate   all changes of the last 90 s are remembered\n",
            "fetch   one is under way\nnow     joined: what is kept is out of date\n",
            "        Cache-Status: anteroom; fwd=stale; collapsed\n",
        ] {
            assert!(text.contains(line), "no {line:?} in\n{text}");
        }
        document["kept"] = Value::Null;
        assert!(for_people(&document).contains("kept    nothing\nchanged its contact, by a webhook, 1.2 s ago\n"));
    }
}
