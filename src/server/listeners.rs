//! Opens listeners, takes connections, drains on the way out.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::connection::{Door, serve};
use super::connections::{Connections, within};
use super::heads::Heads;
use super::replication;
use super::sweep;
use super::sockets::{Inherited, Listener};
use super::take_over::Sockets;
use crate::config::{ListenAddress, ServerSettings};
use crate::engine::descriptors::open_files_limit;
use crate::state::State;

/// How long a failed accept waits (no file descriptor is free): neither spinning nor giving up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How many may be connected to the private listener at once.
const ADMIN_CONNECTIONS: usize = 8;

/// All listeners, bound and not yet served.
pub struct Server {
    state: Arc<State>,
    public: Vec<Listener>,
    admin: Listener,
    settings: ServerSettings,
}

/// Where the listeners are in fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Of the public listener, one or more.
    pub public: Vec<ListenAddress>,
    /// Of the private listener.
    pub admin: SocketAddr,
}

impl Addresses {
    /// The first address of the public listener that is one of TCP.
    pub fn port(&self) -> Option<SocketAddr> {
        self.public.iter().find_map(ListenAddress::port)
    }
}

/// Why the server stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It was told to.
    Asked,
    /// Another process serves from its sockets.
    TakenOver,
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
    /// Binds all listeners.
    ///
    /// # Errors
    /// Which address could not be bound, and why.
    pub async fn bind(state: Arc<State>, settings: ServerSettings) -> io::Result<Self> {
        Self::with(state, settings, Inherited::default()).await
    }

    /// The same with sockets that were handed over, which are used instead of those that the settings name.
    ///
    /// # Errors
    /// Which address could not be bound, and why.
    #[expect(clippy::unused_async, reason = "sockets can be opened within a runtime only")]
    pub async fn with(state: Arc<State>, settings: ServerSettings, inherited: Inherited) -> io::Result<Self> {
        let Inherited { mut public, admin, .. } = inherited;
        if public.is_empty() {
            for address in &settings.listen {
                public.push(Listener::bind(address)?);
            }
        }
        let admin = match admin {
            Some(listener) => Listener::Tcp(listener),
            None => Listener::bind(&ListenAddress::Tcp(settings.admin))?,
        };
        Ok(Self { state, public, admin, settings })
    }

    /// The addresses in fact.
    pub fn addresses(&self) -> io::Result<Addresses> {
        let admin = self.admin.address()?.port().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let public = self.public.iter().map(Listener::address).collect::<io::Result<_>>()?;
        Ok(Addresses { public, admin })
    }

    /// The sockets once more, for a process that takes over.
    pub fn sockets(&self) -> io::Result<Sockets> {
        let public = self.public.iter().map(Listener::handed_over).collect::<io::Result<_>>()?;
        Ok(Sockets { public, admin: self.admin.handed_over()? })
    }

    /// Serves until `stop`, then drains: notice, answers in flight, tunnels, deadline.
    pub async fn run(self, stop: impl Future<Output = Stop>) -> Drained {
        let Self { state, public, admin, settings } = self;
        let (closing, quit) = (CancellationToken::new(), CancellationToken::new());
        // It exchanges to the end of the drain, when what is written then has been told.
        let fleet = state.invalidation.fleet.clone();
        let _exchanging =
            fleet.map(|fleet| AbortOnDropHandle::new(tokio::spawn(replication::run(Arc::downgrade(&state), fleet))));
        let _sweeping = sweep::begin(Arc::downgrade(&state));
        let (accepting, connections) = (CancellationToken::new(), TaskTracker::new());
        let limit = within(settings.connections, open_files_limit());
        state.metrics.limits.allow("connections", limit as u64);
        let door = Door {
            name: "public",
            state: state.clone(),
            heads: Arc::new(Heads::new(settings.head_memory)),
            head_limit: usize::try_from(settings.head).unwrap_or(usize::MAX),
            head_timeout: settings.head_timeout,
            idle_timeout: settings.idle_timeout,
            proxy_protocol: settings.proxy_protocol,
            connections: Connections::new(limit, settings.connections_per_address),
            closing: closing.clone(),
        };
        let admin_door = Door {
            name: "admin",
            proxy_protocol: false,
            connections: Connections::new(ADMIN_CONNECTIONS.min(limit), usize::MAX),
            closing: quit.clone(),
            ..door.clone()
        };
        let public: Vec<_> = public
            .into_iter()
            .map(|listener| tokio::spawn(accept(listener, door.clone(), connections.clone(), accepting.clone())))
            .collect();
        let administering = tokio::spawn(accept(admin, admin_door, TaskTracker::new(), accepting.clone()));
        if stop.await == Stop::TakenOver {
            // Whoever connects from now on is the other process's.
            accepting.cancel();
        }
        state.lifecycle.ready.store(false, Ordering::Release);
        tracing::info!(notice = ?settings.drain_notice, "draining");
        tokio::time::sleep(settings.drain_notice).await;
        closing.cancel();
        state.lifecycle.drained.cancel();
        if let Some(fleet) = &state.invalidation.fleet {
            fleet.leave();
        }
        connections.close();
        state.lifecycle.tasks.close();
        let all = async { tokio::join!(connections.wait(), state.lifecycle.tasks.wait()) };
        let drained = match tokio::time::timeout(settings.drain_deadline, all).await {
            Ok(_) => Drained::Whole,
            Err(_) => Drained::CutShort,
        };
        if let Some(fleet) = &state.invalidation.fleet {
            fleet.left().await;
        }
        public.iter().for_each(JoinHandle::abort);
        quit.cancel();
        administering.abort();
        drained
    }
}

/// Takes connections until the door closes, or somebody else does so; each is a task of the tracker.
async fn accept(mut listener: Listener, door: Door, connections: TaskTracker, taken_over: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = taken_over.cancelled() => return listener.give_up_file(),
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
