//! `anteroom serve`: the proxy, from its settings to the end of its drain.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::config::File;
use super::log::{Log, log_to_standard_error};
use super::start;
use super::terminal::{Done, announce, runtime};
use crate::config::{Changes, Flags, Loaded};
use crate::engine::clock;
use crate::engine::metrics::Metrics;
use crate::server::listeners::{Drained, Server};
use crate::server::{certificate, panics};
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
    #[arg(long, value_name = "ADDR|URL")]
    admin: Option<String>,
}

impl Serve {
    pub(super) fn run(self) -> Done {
        let flags = Flags { upstream: self.upstream, listen: self.listen, admin: self.admin };
        let reload = self.file.config.clone();
        let loaded = self.file.load(&flags)?;
        let metrics = Arc::new(Metrics::new());
        let log = log_to_standard_error(&loaded.config.log, &metrics)?;
        let reread = move || File { config: reload.clone() }.load(&flags);
        let serving = serve(loaded, metrics, log.clone(), reread, |_, _| {});
        Ok(log.close(runtime().and_then(|runtime| runtime.block_on(serving))))
    }
}

/// Binds, says where, serves until SIGTERM or SIGINT, drains.
pub(super) async fn serve(
    loaded: Loaded,
    metrics: Arc<Metrics>,
    log: Log,
    reread: impl Fn() -> Result<Loaded, String> + Send + Sync + 'static,
    bound: impl FnOnce(SocketAddr, SocketAddr),
) -> Done {
    let settings = loaded.config.server;
    std::panic::set_hook(Box::new(panics::hook(metrics.clone())));
    let state = State::new(loaded.config.clone(), metrics)?;
    let server = match Server::bind(state.clone(), settings).await {
        Ok(server) => server,
        Err(error) => {
            tracing::error!("cannot listen on {error}");
            return Ok(ExitCode::FAILURE);
        }
    };
    // Whoever reads the announcement may signal at once.
    let (stop, hangup) = listen_to_signals(log).map_err(|error| format!("signals cannot be heard: {error}"))?;
    let (public, admin) = server.addresses().map_err(|error| error.to_string())?;
    let scheme = if state.tls.is_some() { "https" } else { "http" };
    announce(&format!("listening on {scheme}://{public}\nadmin on http://{admin}\n"));
    start::tell(&loaded.config, public, admin);
    bound(public, admin);
    let renewing = tokio::spawn(certificate::watch(state.clone()));
    let reloading = tokio::spawn(reload_on_hangup(hangup, state, loaded, reread));
    let drained = server.run(stop).await;
    reloading.abort();
    renewing.abort();
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

/// What ends on SIGTERM or SIGINT, and what tells of each SIGHUP; both are heard from now on.
fn listen_to_signals(log: Log) -> std::io::Result<(impl Future<Output = ()>, Signal)> {
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
            tracing::warn!("stopped before the drain was over");
            log.flush();
            std::process::exit(1);
        });
    };
    Ok((stop, signal(SignalKind::hangup())?))
}

/// Reads the settings again on each SIGHUP, and tells what that has changed; bad ones do not replace good ones.
async fn reload_on_hangup(
    mut hangup: Signal,
    state: Arc<State>,
    started: Loaded,
    reread: impl Fn() -> Result<Loaded, String>,
) {
    let metrics = state.metrics.clone();
    let succeeded = || {
        metrics.config_last_reload_ok.set(1);
        let now = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        metrics.config_last_reload_time.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    };
    succeeded();
    let mut current = started.clone();
    while hangup.recv().await.is_some() {
        let result = reread().and_then(|new| state.reload(new.config.clone()).map(|()| new));
        let label = if result.is_ok() { "ok" } else { "failed" };
        metrics.config_reloads.with_label_values(&[label]).inc();
        match result {
            Ok(new) => {
                succeeded();
                let Changes { in_force, needing_restart } = started.changes_to(&current, &new);
                let told = |changes: Vec<String>| (!changes.is_empty()).then(|| changes.join("; "));
                let (changed, needs_restart) = (told(in_force), told(needing_restart));
                tracing::info!(changed, needs_restart, "the settings were read again");
                current = new;
            }
            Err(mistakes) => {
                metrics.config_last_reload_ok.set(0);
                tracing::error!(%mistakes, "the settings stay as they were");
            }
        }
    }
}
