//! Asking the private listener of a running proxy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::header::AUTHORIZATION;
use http::uri::Authority;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::config::File;
use super::terminal::runtime;
use crate::config::{self, AdminAccess, SettingsFile};
use crate::policy::secret::MASK;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(5);

// Which running proxy is asked. (A doc comment would become part of the help.)
#[derive(Args)]
pub(super) struct AdminClient {
    /// The private listener of the proxy; without it the setting admin.address.
    #[arg(long, value_name = "ADDR|URL")]
    admin: Option<String>,
    #[command(flatten)]
    file: File,
}

// Who asks. (A doc comment would become part of the help.)
#[derive(Args)]
pub(super) struct TokenFile {
    /// A file that holds the token of the setting admin.token; without it that setting itself.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl TokenFile {
    /// The token: that of the file, else that of the settings, if there is one.
    pub(super) fn of(&self, proxy: &Asked) -> Result<Option<String>, String> {
        let Some(file) = &self.token_file else { return Ok(proxy.token.clone()) };
        let token = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        one_token(&token).map(Some).map_err(|wrong| format!("{}: {wrong}", file.display()))
    }
}

/// The token that a file holds, or what is wrong with it; nothing of it is repeated.
fn one_token(text: &str) -> Result<String, String> {
    let token = text.trim();
    if token.is_empty() {
        return Err("it holds no token".to_owned());
    }
    if token.lines().count() > 1 {
        return Err(format!("it holds {} lines, and a token is one", token.lines().count()));
    }
    if HeaderValue::try_from(token).is_err() {
        return Err("it holds characters that no token has".to_owned());
    }
    Ok(token.to_owned())
}

/// A proxy that can be asked.
pub(super) struct Asked {
    /// Its private listener.
    pub(super) address: Authority,
    /// The setting `admin.token`, as an answer to who asks.
    pub(super) token: Option<String>,
}

impl AdminClient {
    /// The file of settings that it was told of.
    pub(super) fn settings_file(&self) -> SettingsFile {
        self.file.config.clone().map_or(SettingsFile::Usual, SettingsFile::Given)
    }

    /// Where it is, by the flag or by its settings.
    pub(super) fn find(&self) -> Result<Asked, String> {
        let AdminAccess { address, token } = config::admin_access(self.settings_file(), std::env::vars_os());
        let token = token.and_then(|token| String::from_utf8(token.key().to_owned()).ok());
        let address = if let Some(text) = &self.admin {
            named(text)?
        } else {
            let address = address.map_err(|mistakes| format!("admin.address cannot be told\n{mistakes}"))?;
            if address.port() == 0 {
                return Err("admin.address takes whatever port is free; give --admin with the one that was".to_owned());
            }
            authority_of(reachable(address))
        };
        Ok(Asked { address, token })
    }
}

/// An address or a URL, as it was typed.
fn named(text: &str) -> Result<Authority, String> {
    // Somebody may have written a password into it.
    let shown = if text.contains('@') { MASK } else { text };
    let wrong =
        || format!("--admin: {shown:?} is neither an address nor a URL; write 127.0.0.1:9180 or http://127.0.0.1:9180");
    if text.starts_with("https://") {
        return Err(format!("--admin: {shown:?} is https, which the private listener does not speak; write http://"));
    }
    let (bare, is_url) = text.strip_prefix("http://").map_or((text, false), |rest| (rest.trim_end_matches('/'), true));
    if let Ok(address) = bare.parse() {
        return Ok(authority_of(reachable(address)));
    }
    let authority: Authority = bare.parse().map_err(|_| wrong())?;
    let has_host = !authority.host().is_empty() && !bare.contains('@');
    let has_port = authority.port_u16().is_some_and(|port| port > 0);
    // A URL has a port of its own if it names none.
    if has_host && (has_port || (is_url && authority.as_str() == authority.host())) {
        Ok(authority)
    } else {
        Err(wrong())
    }
}

/// Where a listener is asked that takes connections to every address of this machine.
fn reachable(listener: SocketAddr) -> SocketAddr {
    let ip = match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listener.port())
}

fn authority_of(address: SocketAddr) -> Authority {
    Authority::try_from(address.to_string()).expect("an address with a port is an authority")
}

/// Why not: what a problem document says, or whatever else came.
pub(super) fn reason(said: &str) -> String {
    let document: Value = serde_json::from_str(said).unwrap_or_default();
    document["detail"].as_str().unwrap_or(said.trim()).to_owned()
}

/// The document that was asked for, which has this name in it; or why it is none.
pub(super) fn document(admin: &Authority, said: &str, name: &str) -> Result<Value, String> {
    let document: Option<Value> = serde_json::from_str(said).ok();
    let document = document.filter(|document| !document[name].is_null());
    document.ok_or_else(|| {
        format!("what answers at http://{admin} is not the private listener of this program: --admin or admin.address names another")
    })
}

/// One request to the private listener of a running proxy.
pub(super) fn ask(
    admin: &Authority,
    method: Method,
    path: &str,
    token: Option<&str>,
    body: String,
) -> Result<(StatusCode, String), String> {
    ask_for(Duration::ZERO, admin, method, path, token, body)
}

/// The same, where the answer takes so long at least.
pub(super) fn ask_for(
    takes: Duration,
    admin: &Authority,
    method: Method,
    path: &str,
    token: Option<&str>,
    body: String,
) -> Result<(StatusCode, String), String> {
    let cannot = |error: &dyn std::fmt::Display| format!("http://{admin} cannot be asked: {error}");
    let mut request = Request::builder().method(method).uri(format!("http://{admin}{path}"));
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Full::new(Bytes::from(body))).map_err(|error| cannot(&error))?;
    let asking = async {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let response = client.request(request).await.map_err(|error| cannot(&error))?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| cannot(&error))?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    let limit = takes + LIMIT;
    let late = |_| Err(cannot(&format!("it took over {} s", limit.as_secs())));
    let limited = async { tokio::time::timeout(limit, asking).await.unwrap_or_else(late) };
    runtime()?.block_on(limited)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_one_token_and_what_is_wrong_with_it_is_told_without_it() {
        assert_eq!(one_token("hush-hush\r\n"), Ok("hush-hush".to_owned()));
        for (text, said) in
            [("", "no token"), ("\n\n", "no token"), ("hush\nhush\n", "2 lines"), ("hush\u{1}hush", "characters")]
        {
            let told = one_token(text).expect_err(text);
            assert!(told.contains(said) && !told.contains("hush"), "{told}");
        }
    }

    #[test]
    fn an_answer_of_another_server_is_told_to_be_none() {
        let admin = Authority::from_static("127.0.0.1:1");
        assert!(document(&admin, r#"{"kind": "list"}"#, "kind").is_ok());
        for said in ["", "<html>", "{}", "[]", "7", r#"{"kind": null}"#] {
            assert!(document(&admin, said, "kind").is_err_and(|told| told.contains("127.0.0.1:1 is not")), "{said}");
        }
    }

    #[test]
    fn an_address_and_a_url_name_the_same_listener() {
        for (text, authority) in [
            ("127.0.0.1:9180", "127.0.0.1:9180"),
            ("http://127.0.0.1:9180", "127.0.0.1:9180"),
            ("http://127.0.0.1:9180/", "127.0.0.1:9180"),
            ("0.0.0.0:9180", "127.0.0.1:9180"),
            ("http://0.0.0.0:9180", "127.0.0.1:9180"),
            ("[::]:9180", "[::1]:9180"),
            ("[2001:db8::1]:9180", "[2001:db8::1]:9180"),
            ("proxy:9180", "proxy:9180"),
            ("http://proxy:9180/", "proxy:9180"),
            ("http://proxy", "proxy"),
        ] {
            assert_eq!(named(text).as_ref().map(Authority::as_str), Ok(authority), "{text}");
        }
        for wrong in
            ["", "proxy", "9180", "127.0.0.1", "https://proxy:1", "ftp://proxy:1", "http://", "a:b@proxy:1", "proxy:0"]
        {
            assert!(named(wrong).is_err(), "{wrong}");
        }
    }
}
