//! `anteroom serve`: the proxy, from its settings to the end of its drain.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::config::File;
use super::log::log_to_standard_error;
use super::terminal::{Done, complain, runtime};
use crate::config::{Config, Flags};
use crate::engine::metrics::Metrics;
use crate::server::listeners::{Drained, Server};
use crate::server::panics;
use crate::state::State;

#[derive(Args)]
pub(super) struct Serve {
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

impl Serve {
    pub(super) fn run(self) -> Done {
        let flags = Flags { upstream: self.upstream, listen: self.listen, admin: self.admin };
        let reload = self.file.config.clone();
        let config = self.file.load(&flags)?.config;
        log_to_standard_error(&config.log)?;
        let reread = move || File { config: reload.clone() }.load(&flags).map(|loaded| loaded.config);
        runtime()?.block_on(serve(config, reread, |_, _| {}))
    }
}

/// Binds, says where, serves until SIGTERM or SIGINT, drains.
pub(super) async fn serve(
    config: Config,
    reread: impl Fn() -> Result<Config, String> + Send + Sync + 'static,
    bound: impl FnOnce(SocketAddr, SocketAddr),
) -> Done {
    let settings = config.server;
    let metrics = Arc::new(Metrics::new());
    std::panic::set_hook(Box::new(panics::hook(metrics.clone())));
    let state = State::new(config, metrics)?;
    let server = match Server::bind(state.clone(), settings).await {
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
    let reloading = tokio::spawn(reload_on_hangup(hangup, state, reread));
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
async fn reload_on_hangup(mut hangup: Signal, state: Arc<State>, reread: impl Fn() -> Result<Config, String>) {
    while hangup.recv().await.is_some() {
        let result = reread().and_then(|config| state.reload(config));
        let label = if result.is_ok() { "ok" } else { "failed" };
        state.metrics.config_reloads.with_label_values(&[label]).inc();
        match result {
            Ok(()) => tracing::info!("the settings were read again; listeners and memory stay as they were"),
            Err(mistakes) => tracing::error!(%mistakes, "the settings stay as they were"),
        }
    }
}
