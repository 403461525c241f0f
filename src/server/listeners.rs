//! Opens listeners, takes connections, drains on the way out.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{Door, serve};
use super::heads::Heads;
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
        let heads = Arc::new(Heads::new(settings.head_memory));
        let head_limit = usize::try_from(settings.head).unwrap_or(usize::MAX);
        let door = |name, closing: &CancellationToken| {
            let (state, heads, closing) = (state.clone(), heads.clone(), closing.clone());
            Door { name, state, heads, head_limit, closing }
        };
        let accepting = tokio::spawn(accept(public, door("public", &closing), connections.clone()));
        let administering = tokio::spawn(accept(admin, door("admin", &quit), TaskTracker::new()));
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

/// Takes connections until the door closes; each is a task of the tracker.
async fn accept(listener: TcpListener, door: Door, connections: TaskTracker) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = door.closing.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                connections.spawn(serve(stream, peer, door.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, listener = door.name, "a connection could not be accepted");
                door.state.metrics.connection_errors.with_label_values(&["accept"]).inc();
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
