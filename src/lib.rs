//! Anteroom: a caching reverse proxy in front of the Chatwoot-compatible public API.
//!
//! This file is the map. Three floors, imports go downwards only: the ground floor (`policy`) decides, the middle
//! floor (`engine`) does, the top floor tells the story. Read the modules in the order in which they stand here.

#[rustfmt::skip] // The order is the reading order.
pub mod policy {
    //! Decides. Plain functions over plain data: no async, no I/O, no clock.
    pub mod route;
    pub mod key;
    pub mod ledger;
    pub mod payload;
    pub mod shown;
    pub mod freshness;
    pub mod representation;
    pub mod encoding;
    pub mod headers;
    pub mod secret;
    pub mod webhook;
    pub mod event;
    pub mod frames;
    pub mod times;
    pub mod watermark;
    pub mod changes;

    /// What the ledger counts with; `tests/loom.rs` puts loom's in its place.
    mod atomic {
        pub(super) use std::sync::atomic::{AtomicU64, Ordering};
    }
}

#[rustfmt::skip] // The order is the reading order.
pub mod engine {
    //! Does. Sockets, memory, tasks and time; asks `policy` what to do.
    pub mod store;
    pub mod flights;
    pub mod learned;
    pub mod upstream;
    pub mod connector;
    pub mod tunnel;
    pub mod body;
    pub mod memory;
    pub mod strangers;
    pub mod metrics;
    pub mod clock;
}

pub mod admin;
pub mod cable;
pub mod check;
pub mod config;
pub mod contact;
#[cfg(feature = "demo")]
pub mod demo;
pub mod events;
pub mod fetch;
pub mod landed;
pub mod list;
pub mod outcome;
pub mod preflight;
pub mod proxy;
pub mod room;
pub mod server;
pub mod staleness;
pub mod write;
