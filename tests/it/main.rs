//! Promises, each held by a module, over real sockets.

#![allow(unreachable_pub, reason = "a test binary exports nothing")]
#![allow(
    clippy::format_collect,
    clippy::too_many_lines,
    clippy::cast_precision_loss,
    reason = "tests are read from top to bottom, and need not be fast"
)]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "what a test needs must be there, and figures are shown")]

mod addresses;
mod breaker;
mod cable;
mod chaos;
mod check;
mod contract;
mod crowd;
mod demo;
mod documents;
mod explain;
mod fleet_model;
mod flights;
mod floors;
mod forms;
mod forwarding;
mod help;
mod http2;
mod http2_smuggling;
mod identities;
mod interleavings;
mod ledger;
mod lifecycle;
mod limits;
mod list;
mod listeners;
mod logs;
mod loops;
mod manners;
mod memory;
mod mixed;
mod model;
mod origin;
mod outage;
mod passing;
mod plain_hits;
mod pool;
mod preflight;
mod privacy;
mod prometheus;
mod purging;
mod reads;
mod recipes;
mod replicas;
mod secrets;
mod service_manager;
mod sharing;
mod smuggling;
mod staleness;
mod status_page;
mod streaming;
mod support;
mod tls;
mod top;
#[cfg(feature = "otlp")]
mod tracing;
mod trouble;
mod tunnels;
mod upstream_http2;
mod webhooks;
