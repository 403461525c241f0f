//! `anteroom purge`: a running proxy forgets answers, and says which.

use std::fmt::Write;
use std::io::Read;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::admin_client::{AdminClient, TokenFile, ask, document, reason};
use super::terminal::{Done, complain, say};

#[derive(Args)]
pub(super) struct Purge {
    #[command(flatten)]
    client: AdminClient,
    #[command(flatten)]
    token: TokenFile,
    #[command(flatten)]
    what: What,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct What {
    /// A contact, whose identifier is read from standard input: it is a credential.
    #[arg(long, value_name = "-", value_parser = ["-"], hide_possible_values = true)]
    contact: Option<String>,
    /// An inbox, whose identifier is read from standard input.
    #[arg(long, value_name = "-", value_parser = ["-"], hide_possible_values = true)]
    inbox: Option<String>,
    /// Everything, in all inboxes.
    #[arg(long)]
    all: bool,
}

impl Purge {
    pub(super) fn run(self) -> Done {
        let proxy = self.client.find()?;
        let token = self.token.of(&proxy)?.ok_or_else(|| {
            "purge needs --token-file, the variable ANTEROOM_ADMIN__TOKEN, or admin.token in the settings".to_owned()
        })?;
        let name = if self.what.all { String::new() } else { read_name()? };
        let body = match (&self.what.contact, &self.what.inbox) {
            (Some(_), _) => serde_json::json!({ "contact": name }),
            (_, Some(_)) => serde_json::json!({ "inbox": name }),
            (None, None) => serde_json::json!({ "all": true }),
        };
        let answer = ask(&proxy.address, http::Method::POST, "/purge", Some(&token), body.to_string());
        let told = match answer {
            Ok((status, told)) if status.is_success() => document(&proxy.address, &told, "lists"),
            Ok((status, said)) => Err(format!("not purged: {status}: {}", reason(&said))),
            Err(error) => Err(error),
        };
        match told {
            Ok(told) => say(&summary(&told), ExitCode::SUCCESS),
            Err(error) => {
                complain(&error);
                Ok(ExitCode::FAILURE)
            }
        }
    }
}

/// What was purged, for people.
fn summary(told: &Value) -> String {
    let number = |name: &str| told[name].as_u64().unwrap_or(0);
    let counted = |count: u64, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
    let mut text = format!("dropped {} ({} bytes)", counted(number("lists"), "list", "lists"), number("bytes"));
    let _ = write!(text, " of {}", counted(number("contacts"), "contact", "contacts"));
    let hashes: Vec<_> = told["contact"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !hashes.is_empty() && hashes.len() as u64 == number("contacts") {
        let _ = write!(text, ", in the log {}", hashes.join(" "));
    }
    if number("fetches") > 0 {
        let _ = write!(text, "; {} under way, not to be kept", counted(number("fetches"), "fetch", "fetches"));
    }
    text + "\n"
}

fn read_name() -> Result<String, String> {
    let mut name = String::new();
    std::io::stdin().read_to_string(&mut name).map_err(|error| format!("standard input: {error}"))?;
    let name = name.trim_end_matches(['\r', '\n']);
    if name.is_empty() {
        return Err("standard input holds no identifier".to_owned());
    }
    Ok(name.to_owned())
}
