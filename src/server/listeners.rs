//! Opens listeners, takes connections, drains on the way out.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::serve;
use crate::config::ServerSettings;
use crate::state::State;

/// How long a failed accept waits (no file descriptor is free): neither spinning nor giving up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Both listeners, bound and not yet served.
pub struct Server {
    state: Arc<State>,
    public: TcpListener,
    admin: TcpListener,
    settings: ServerSettings,
}

/// How the drain went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every answer in flight arrived whole.
    Whole,
    /// The deadline came first.
    CutShort,
}

impl Server {
    /// Binds both listeners.
    ///
    /// # Errors
    /// Which address could not be bound, and why.
    pub async fn bind(state: Arc<State>, settings: ServerSettings) -> io::Result<Self> {
        let bind = async |address: SocketAddr| {
            TcpListener::bind(address)
                .await
                .map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))
        };
        Ok(Self { public: bind(settings.listen).await?, admin: bind(settings.admin).await?, state, settings })
    }

    /// The addresses in fact: public, admin.
    pub fn addresses(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.public.local_addr()?, self.admin.local_addr()?))
    }

    /// Serves until `stop`, then drains: notice, answers in flight, tunnels, deadline.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Drained {
        let Self { state, public, admin, settings } = self;
        let (closing, quit) = (CancellationToken::new(), CancellationToken::new());
        let connections = TaskTracker::new();
        let accepting = tokio::spawn(accept(public, "public", state.clone(), connections.clone(), closing.clone()));
        let administering = tokio::spawn(accept(admin, "admin", state.clone(), TaskTracker::new(), quit.clone()));
        stop.await;
        state.lifecycle.ready.store(false, Ordering::Release);
        tracing::info!(notice = ?settings.drain_notice, "draining");
        tokio::time::sleep(settings.drain_notice).await;
        closing.cancel();
        state.lifecycle.drained.cancel();
        connections.close();
        state.lifecycle.tasks.close();
        let all = async { tokio::join!(connections.wait(), state.lifecycle.tasks.wait()) };
        let drained = match tokio::time::timeout(settings.drain_deadline, all).await {
            Ok(_) => Drained::Whole,
            Err(_) => Drained::CutShort,
        };
        accepting.abort();
        quit.cancel();
        administering.abort();
        drained
    }
}

/// Takes connections until `closing`; each is a task of the tracker.
async fn accept(
    listener: TcpListener,
    name: &'static str,
    state: Arc<State>,
    connections: TaskTracker,
    closing: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = closing.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                connections.spawn(serve(stream, peer, name, state.clone(), closing.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, listener = name, "a connection could not be accepted");
                state.metrics.connection_errors.with_label_values(&["accept"]).inc();
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
