//! Promises, each held by a module, over real sockets.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]
#![allow(unreachable_pub, reason = "a test binary exports nothing")]

mod crowd;
mod flights;
mod floors;
mod interleavings;
mod ledger;
mod list;
mod model;
mod support;
