//! Promises, each held by a module, over real sockets.

#![allow(unreachable_pub, reason = "a test binary exports nothing")]

mod ledger;
mod lifecycle;
mod list;
mod memory;
mod passing;
mod privacy;
mod sharing;
mod streaming;
mod support;
mod tunnels;
