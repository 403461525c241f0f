//! Promises, each held by a module, over real sockets.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]
#![allow(unreachable_pub, reason = "a test binary exports nothing")]

mod floors;
mod help;
mod ledger;
mod lifecycle;
mod list;
mod logs;
mod passing;
mod privacy;
mod prometheus;
mod sharing;
mod streaming;
mod support;
mod tunnels;
