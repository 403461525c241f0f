//! `anteroom serve`: the proxy, from its settings to the end of its drain.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use super::config::File;
use super::log::{Log, log_to_standard_error};
use super::service_manager;
use super::start;
use super::terminal::{Done, announce, runtime};
use crate::config::{Changes, Flags, ListenAddress, Loaded};
use crate::engine::clock;
use crate::engine::descriptors::raise_open_files_limit;
use crate::engine::metrics::Metrics;
use crate::server::listeners::{Addresses, Drained, Server, Stop};
use crate::server::sockets::Inherited;
use crate::server::take_over::{self, Sockets};
use crate::server::{certificate, panics, silence};
use crate::state::State;

/// How long the collector may take for the last spans when the program ends.
const LAST_SPANS: Duration = Duration::from_secs(2);

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
        let serving = async {
            let inherited = Inherited::take().map_err(|error| format!("a socket that was handed over: {error}"))?;
            serve(loaded, metrics, log.clone(), reread, inherited, |_, _| {}).await
        };
        Ok(log.close(runtime().and_then(|runtime| runtime.block_on(serving))))
    }
}

/// Binds, says where, serves until SIGTERM or SIGINT or until another process takes over, drains.
pub(super) async fn serve(
    loaded: Loaded,
    metrics: Arc<Metrics>,
    log: Log,
    reread: impl Fn() -> Result<Loaded, String> + Send + Sync + 'static,
    mut inherited: Inherited,
    bound: impl FnOnce(Option<SocketAddr>, SocketAddr),
) -> Done {
    let settings = loaded.config.server.clone();
    raise_open_files_limit();
    std::panic::set_hook(Box::new(panics::hook(metrics.clone())));
    let state = State::new(loaded.config.clone(), metrics)?;
    state.tell_settings(loaded.in_force(&loaded));
    let before = inherited.before();
    let server = match Server::with(state.clone(), settings, inherited).await {
        Ok(server) => server,
        Err(error) => {
            let is_taken = error.kind() == ErrorKind::AddrInUse;
            let advice = if is_taken {
                "; end what has it, or choose another with --listen or --admin (port 0 is any free one)"
            } else {
                ""
            };
            tracing::error!("cannot listen on {error}{advice}");
            return Ok(ExitCode::FAILURE);
        }
    };
    // Whoever reads the announcement may signal at once.
    let signals = Signals::listen().map_err(|error| format!("signals cannot be heard: {error}"))?;
    let addresses = server.addresses().map_err(|error| error.to_string())?;
    let sockets = server.sockets().map_err(|error| error.to_string())?;
    announce(&told(&addresses, if state.tls.is_some() { "https" } else { "http" }));
    start::tell(&loaded.config, &addresses);
    bound(addresses.port(), addresses.admin);
    let spans = state.spans.clone();
    // They end with it.
    let mut beside = JoinSet::new();
    beside.spawn(certificate::watch(state.clone()));
    beside.spawn(silence::watch(state.clone()));
    beside.spawn(reload_on_hangup(signals.hangup, state, loaded, reread));
    service_manager::ready();
    if let Some(before) = before {
        before.told();
    }
    let drained = server.run(stop(signals.stop, signals.take_over, sockets, log)).await;
    drop(beside);
    if let Some(spans) = spans {
        spans.flush(LAST_SPANS).await;
    }
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

/// Where clients connect, and where the rest is.
fn told(addresses: &Addresses, scheme: &str) -> String {
    let public = addresses.public.iter().map(|address| match address {
        ListenAddress::Tcp(address) => format!("listening on {scheme}://{address}\n"),
        ListenAddress::Unix(_) => format!("listening on {address}\n"),
    });
    public.chain([format!("admin on http://{}\n", addresses.admin)]).collect()
}

/// The signals that are heard, from the moment this is made.
struct Signals {
    stop: [Signal; 2],
    hangup: Signal,
    take_over: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            stop: [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?],
            hangup: signal(SignalKind::hangup())?,
            take_over: signal(SignalKind::user_defined2())?,
        })
    }
}

async fn either([one, other]: &mut [Signal; 2]) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

/// Ends on SIGTERM or SIGINT, or when a process that SIGUSR2 has started serves.
async fn stop(mut stop: [Signal; 2], mut take_over: Signal, sockets: Sockets, log: Log) -> Stop {
    let why = loop {
        tokio::select! {
            () = either(&mut stop) => break Stop::Asked,
            _ = take_over.recv() => {}
        }
        tracing::info!("a new process is started, to take over");
        let taking_over = tokio::select! {
            result = take_over::take_over(&sockets) => result,
            () = either(&mut stop) => break Stop::Asked,
        };
        match taking_over {
            Ok(id) => {
                tracing::info!(id, "the new process serves");
                service_manager::main_process_is(id);
                break Stop::TakenOver;
            }
            Err(why) => tracing::error!(why, "no new process has taken over; this one goes on"),
        }
    };
    if why == Stop::Asked {
        service_manager::stopping();
    }
    // A second signal does not wait for the drain.
    tokio::spawn(async move {
        either(&mut stop).await;
        tracing::warn!("stopped before the drain was over");
        log.flush();
        std::process::exit(1);
    });
    why
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
                state.tell_settings(new.in_force(&started));
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
