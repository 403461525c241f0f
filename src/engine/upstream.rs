//! The client towards the upstream.

use std::path::PathBuf;
use std::time::Duration;

use http::uri::{Authority, Scheme};

/// What the client towards the upstream obeys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// `upstream.url`.
    pub base: BaseUrl,
    /// `upstream.connect_timeout`: name look-up, TCP and TLS together.
    pub connect_timeout: Duration,
    /// `upstream.head_timeout`: from the last byte of the request to the head of the answer.
    pub head_timeout: Duration,
    /// `upstream.stall_timeout`: no byte either way of a passed-through body or tunnel.
    pub stall_timeout: Duration,
    /// `upstream.pool_idle`: how long an unused connection is kept.
    pub pool_idle: Duration,
    /// `upstream.ca_file`: PEM certificates trusted besides the system's.
    pub ca_file: Option<PathBuf>,
}

/// Where the upstream is: scheme, authority and an optional path prefix without a trailing slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    /// `http` or `https`.
    pub scheme: Scheme,
    /// Host, and port if it is not the scheme's.
    pub authority: Authority,
    /// Empty, or a path such as `/chat` that stands before every path of a client.
    pub prefix: String,
}
