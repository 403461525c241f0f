//! Anteroom: a caching reverse proxy in front of the Chatwoot-compatible public API.
//!
//! This file is the map. Three floors, imports go downwards only: the ground floor (`policy`) decides, the middle
//! floor (`engine`) does, the top floor tells the story. Read the modules in the order in which they stand here.

pub mod config;
#[cfg(feature = "demo")]
pub mod demo;

pub mod policy {
    //! Decides. Plain functions over plain data: no async, no I/O, no clock.
    pub mod freshness;
    pub mod key;
    pub mod payload;
    pub mod route;
}

pub mod engine {
    //! Does. Sockets, memory, tasks and time; asks `policy` what to do.
    pub mod store;
    pub mod upstream;
}

pub mod admin;
pub mod check;
pub mod fetch;
pub mod outcome;
pub mod server;
