//! Opens listeners, serves connections, drains on the way out.

use std::net::SocketAddr;
use std::time::Duration;

/// What the listeners and the drain obey.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// `listen.address`: the public listener.
    pub listen: SocketAddr,
    /// `admin.address`: the private listener.
    pub admin: SocketAddr,
    /// `drain.notice`: how long `/ready` says 503 while requests are still taken.
    pub drain_notice: Duration,
    /// `drain.deadline`: how long answers in flight may take after that.
    pub drain_deadline: Duration,
}
