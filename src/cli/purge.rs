//! `anteroom purge`: a running proxy forgets answers.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::admin_client::ask;
use super::terminal::{Done, complain};

#[derive(Args)]
pub(super) struct Purge {
    /// The private listener of the proxy.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9180")]
    admin: String,
    /// A file that holds the token of the setting admin.token; without it the variable ANTEROOM_ADMIN__TOKEN.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
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
        let token = match &self.token_file {
            Some(file) => std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?,
            None => std::env::var("ANTEROOM_ADMIN__TOKEN")
                .map_err(|_| "purge needs --token-file, or the variable ANTEROOM_ADMIN__TOKEN".to_owned())?,
        };
        let name = if self.what.all { String::new() } else { read_name()? };
        let body = match (&self.what.contact, &self.what.inbox) {
            (Some(_), _) => serde_json::json!({ "contact": name }),
            (_, Some(_)) => serde_json::json!({ "inbox": name }),
            (None, None) => serde_json::json!({ "all": true }),
        };
        let answer = ask(&self.admin, http::Method::POST, "/purge", Some(token.trim()), body.to_string());
        match answer {
            Ok((status, _)) if status.is_success() => Ok(ExitCode::SUCCESS),
            Ok((status, said)) => {
                complain(&format!("not purged: {status} {said}"));
                Ok(ExitCode::FAILURE)
            }
            Err(error) => {
                complain(&error);
                Ok(ExitCode::FAILURE)
            }
        }
    }
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
