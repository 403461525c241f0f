//! More replicas for a demonstration, in the same process: each has its own memory, counters and listeners, and shares
//! nothing with the others but what goes through Redis.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, ListenAddress};
use crate::engine::metrics::Metrics;
use crate::server::listeners::{Server, Stop};
use crate::state::State;

/// One of them.
#[derive(Clone)]
pub(super) struct Replica {
    pub(super) metrics: Arc<Metrics>,
    /// The public listener, as `HOST:PORT`.
    pub(super) proxy: String,
    pub(super) admin: SocketAddr,
}

/// Those beside the first.
#[derive(Default)]
pub(super) struct Others {
    pub(super) replicas: Vec<Replica>,
    stop: CancellationToken,
    running: JoinSet<()>,
}

impl Others {
    /// Starts so many, with the settings of the first, on free ports of this machine.
    ///
    /// # Errors
    /// In words, why one cannot be started.
    pub(super) async fn start(config: &Config, count: usize) -> Result<Self, String> {
        let mut this = Self::default();
        for _ in 0..count {
            let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let mut settings = config.server.clone();
            (settings.listen, settings.admin) = (vec![ListenAddress::Tcp(free)], free);
            let metrics = Arc::new(Metrics::new());
            let state = State::new(config.clone(), metrics.clone())?;
            let server = Server::bind(state, settings).await.map_err(|error| error.to_string())?;
            let addresses = server.addresses().map_err(|error| error.to_string())?;
            let proxy = addresses.port().map(|address| address.to_string()).unwrap_or_default();
            this.replicas.push(Replica { metrics, proxy, admin: addresses.admin });
            let stop = this.stop.clone();
            this.running.spawn(async move {
                server
                    .run(async move {
                        stop.cancelled().await;
                        Stop::Asked
                    })
                    .await;
            });
        }
        Ok(this)
    }

    /// Drains them, each within `drain.deadline`.
    pub(super) async fn stop(mut self) {
        self.stop.cancel();
        while self.running.join_next().await.is_some() {}
    }
}
