//! The command line: what each command does, and its exit code. 0 well, 1 failed while running, 2 arguments or
//! settings.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is what talks to the terminal")]

mod check;
#[cfg(feature = "demo")]
mod demo;

use std::io::{IsTerminal, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anteroom::config::{self, Config, Flags, SettingsFile};
use anteroom::engine::metrics::Metrics;
use anteroom::outcome::{LogFormat, LogSettings};
use anteroom::room::Room;
use anteroom::server::{Drained, Server};
use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// A caching reverse proxy in front of the Chatwoot-compatible public API.
#[derive(Parser)]
#[command(version, about, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the proxy in front of the API at `upstream.url`.
    Serve(Serve),
    /// Compare a list with the published contract: what differs, what trimming saves, where the bytes are.
    Check(check::Check),
    /// Show the settings in force and where each came from, or everything that is wrong with them.
    Config(File),
    /// Ask a running proxy whether it takes requests: exit code 0 if it does.
    Ready {
        /// The private listener of the proxy.
        #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9180")]
        admin: String,
    },
    /// Make a running proxy forget what it has of a contact, of an inbox, or everything.
    Purge(Purge),
    /// Try it out: a stand-in for the API and the proxy in front of it, in one process, without any files.
    #[cfg(feature = "demo")]
    Demo(demo::Demo),
}

#[derive(Args)]
struct File {
    /// The file of settings; without it anteroom.toml here, then /etc/anteroom/anteroom.toml, if there is one.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Args)]
struct Serve {
    #[command(flatten)]
    file: File,
    /// The API to stand in front of, such as https://app.example.com (setting upstream.url).
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// Where clients connect (setting listen.address); port 0 lets the system choose.
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Where metrics and health are (setting admin.address).
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
}

#[derive(Args)]
struct Purge {
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
    #[arg(long, value_name = "-", value_parser = ["-"])]
    contact: Option<String>,
    /// An inbox, whose identifier is read from standard input.
    #[arg(long, value_name = "-", value_parser = ["-"])]
    inbox: Option<String>,
    /// Everything.
    #[arg(long)]
    all: bool,
}

/// An error on the way: one message, exit code 2 unless a command says otherwise.
type Done = Result<ExitCode, String>;

/// Tells of a mistake.
pub(crate) fn complain(message: &str) {
    eprintln!("anteroom: {message}");
}

impl Cli {
    /// Runs the command.
    pub(crate) fn run(self) -> Done {
        match self.command {
            Command::Serve(serve) => serve.run(),
            Command::Check(check) => check.run(),
            Command::Config(file) => file.show(),
            Command::Ready { admin } => Ok(ready(&admin)),
            Command::Purge(purge) => purge.run(),
            #[cfg(feature = "demo")]
            Command::Demo(demo) => demo.run(),
        }
    }
}

impl File {
    fn load(self, flags: &Flags) -> Result<config::Loaded, String> {
        let file = self.config.map_or(SettingsFile::Usual, SettingsFile::Given);
        config::load(file, flags, std::env::vars_os()).map_err(|mistakes| format!("the settings are wrong\n{mistakes}"))
    }

    fn show(self) -> Done {
        print!("{}", self.load(&Flags::default())?.listing());
        Ok(ExitCode::SUCCESS)
    }
}

impl Serve {
    fn run(self) -> Done {
        let flags = Flags { upstream: self.upstream, listen: self.listen, admin: self.admin };
        let reload = self.file.config.clone();
        let config = self.file.load(&flags)?.config;
        log_to_standard_error(&config.log)?;
        let reread = move || File { config: reload.clone() }.load(&flags).map(|loaded| loaded.config);
        runtime()?.block_on(serve(config, reread, |_, _| {}))
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| format!("no runtime: {error}"))
}

/// Binds, says where, serves until SIGTERM or SIGINT, drains.
async fn serve(
    config: Config,
    reread: impl Fn() -> Result<Config, String> + Send + Sync + 'static,
    bound: impl FnOnce(SocketAddr, SocketAddr),
) -> Done {
    let settings = config.server;
    let room = Room::new(config, Arc::new(Metrics::new()))?;
    let server = match Server::bind(room.clone(), settings).await {
        Ok(server) => server,
        Err(error) => {
            complain(&format!("cannot listen on {error}"));
            return Ok(ExitCode::FAILURE);
        }
    };
    // Whoever reads the announcement may signal at once.
    let (stop, hangup) = listen_to_signals().map_err(|error| format!("signals cannot be heard: {error}"))?;
    let (public, admin) = announce(&server)?;
    bound(public, admin);
    let reloading = tokio::spawn(reload_on_hangup(hangup, room, reread));
    let drained = server.run(stop).await;
    reloading.abort();
    Ok(match drained {
        Drained::Whole => {
            tracing::info!("every answer in flight arrived whole");
            ExitCode::SUCCESS
        }
        Drained::CutShort => {
            tracing::warn!("drain.deadline came before every answer had arrived");
            ExitCode::FAILURE
        }
    })
}

fn announce(server: &Server) -> Result<(SocketAddr, SocketAddr), String> {
    let (public, admin) = server.addresses().map_err(|error| error.to_string())?;
    println!("listening on http://{public}");
    println!("admin on http://{admin}");
    std::io::stdout().flush().map_err(|error| error.to_string())?;
    Ok((public, admin))
}

/// What ends on SIGTERM or SIGINT, and what tells of each SIGHUP; both are heard from now on.
fn listen_to_signals() -> std::io::Result<(impl Future<Output = ()>, Signal)> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        // A second signal does not wait for the drain.
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            complain("stopped before the drain was over");
            std::process::exit(1);
        });
    };
    Ok((stop, signal(SignalKind::hangup())?))
}

/// Reads the settings again on each SIGHUP; bad ones do not replace good ones.
async fn reload_on_hangup(mut hangup: Signal, room: Arc<Room>, reread: impl Fn() -> Result<Config, String>) {
    while hangup.recv().await.is_some() {
        let result = reread().and_then(|config| room.reload(config));
        let label = if result.is_ok() { "ok" } else { "failed" };
        room.metrics.config_reloads.with_label_values(&[label]).inc();
        match result {
            Ok(()) => tracing::info!("the settings were read again; listeners and memory stay as they were"),
            Err(mistakes) => tracing::error!(%mistakes, "the settings stay as they were"),
        }
    }
}

fn log_to_standard_error(settings: &LogSettings) -> Result<(), String> {
    let filter = EnvFilter::try_new(&settings.level).map_err(|error| format!("log.level: {error}"))?;
    let pretty = match settings.format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let set = if pretty { logs.compact().try_init() } else { logs.json().flatten_event(true).try_init() };
    set.map_err(|error| format!("logging: {error}"))
}

/// Exit code 0 if the proxy takes requests, 1 if it does not or cannot be asked.
fn ready(admin: &str) -> ExitCode {
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

impl Purge {
    fn run(self) -> Done {
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

/// One request to the private listener of a running proxy.
fn ask(
    admin: &str,
    method: http::Method,
    path: &str,
    token: Option<&str>,
    body: String,
) -> Result<(http::StatusCode, String), String> {
    use http_body_util::{BodyExt, Full};
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;

    let cannot = |error: &dyn std::fmt::Display| format!("{admin} cannot be asked: {error}");
    let mut request = http::Request::builder().method(method).uri(format!("{}{path}", admin.trim_end_matches('/')));
    if let Some(token) = token {
        request = request.header(http::header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Full::new(bytes::Bytes::from(body))).map_err(|error| cannot(&error))?;
    let asking = async {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let response = client.request(request).await.map_err(|error| cannot(&error))?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| cannot(&error))?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    let limit = std::time::Duration::from_secs(5);
    let limited =
        async { tokio::time::timeout(limit, asking).await.unwrap_or_else(|_| Err(cannot(&"it took over 5 s"))) };
    runtime()?.block_on(limited)
}
