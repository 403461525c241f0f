//! `anteroom ready`: whether a running proxy takes requests.

use std::process::ExitCode;

use super::admin_client::ask;
use super::terminal::complain;

/// Exit code 0 if the proxy takes requests, 1 if it does not or cannot be asked.
pub(super) fn ready(admin: &str) -> ExitCode {
    match ask(admin, http::Method::GET, "/ready", None, String::new()) {
        Ok((http::StatusCode::OK, _)) => ExitCode::SUCCESS,
        Ok((status, said)) => {
            complain(&format!("{admin} is not ready: {status} {}", said.trim()));
            ExitCode::FAILURE
        }
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}
