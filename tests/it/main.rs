//! Promises, each held by a module, over real sockets.

#![allow(unreachable_pub, reason = "a test binary exports nothing")]

mod ledger;
mod lifecycle;
mod list;
mod passing;
mod sharing;
mod support;
mod tunnels;
