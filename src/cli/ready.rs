//! `anteroom ready`: whether a running proxy takes requests.

use std::process::ExitCode;

use super::admin_client::{AdminClient, ask};
use super::terminal::{Done, complain};

/// Exit code 0 if the proxy takes requests, 1 if it does not or cannot be asked.
pub(super) fn ready(client: &AdminClient) -> Done {
    let admin = client.find()?.address;
    Ok(match ask(&admin, http::Method::GET, "/ready", None, String::new()) {
        Ok((http::StatusCode::OK, _)) => ExitCode::SUCCESS,
        Ok((status, said)) => {
            complain(&format!("http://{admin} is not ready: {status} {}", said.trim()));
            ExitCode::FAILURE
        }
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    })
}
