//! Promises, each held by a module, over real sockets.

#![allow(unreachable_pub, reason = "a test binary exports nothing")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "what a test needs must be there, and figures are shown")]

mod crowd;
mod flights;
mod floors;
mod forms;
mod interleavings;
mod ledger;
mod lifecycle;
mod list;
mod memory;
mod model;
mod passing;
mod privacy;
mod sharing;
mod streaming;
mod support;
mod tunnels;
