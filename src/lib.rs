//! Anteroom: a caching reverse proxy in front of the Chatwoot-compatible public API.
//!
//! This file is the map. Imports go downwards only, and form no circle: whatever stands here may use what stands
//! above it on this page. `policy` decides, `engine` does, the rest tells the story. `tests/it/floors.rs` holds this.

pub mod policy {
    //! Decides. Plain functions over plain data: no async, no I/O, no clock.
    pub mod secret;
    pub mod resource;
    pub mod payload;
    pub mod upstream_health;
    pub mod addresses;
    pub mod breaker;
    pub mod budget;
    pub mod heavy;

    pub mod coherence {
        //! Which answers are out of date, and what tells of changes.
        pub mod ledger;
        pub mod purges;
        pub mod beliefs;
        pub mod causes;
        pub mod answer_ids;
        pub mod webhook;
        pub mod shown;
        pub mod remembered;
        pub mod reach;
        pub mod pages;
        pub mod event;
        pub mod frames;
        pub mod watermark;
        pub mod changes;
        pub mod times;

        /// What the ledger counts with; `tests/loom.rs` puts loom's in its place.
        mod atomic {
            pub(super) use std::sync::atomic::{AtomicU64, Ordering};
        }
    }

    pub mod replicas {
        //! When replicas that share through a log may serve from memory, and when a change is told.
        pub mod wire;
        pub mod pending;
        pub mod exchange;
        pub mod known;
        pub mod member;
    }

    pub mod http {
        //! What a request is, when two share an answer, how long it lives, and the forms it is sent in.
        pub mod fields;
        pub mod key;
        pub mod path;
        pub mod route;
        pub mod route_name;
        pub mod route_words;
        pub mod target;
        pub mod typed;
        pub mod private;
        pub mod framing;
        pub mod plain_head;
        pub mod http2;
        pub mod encoding;
        pub mod pieces;
        pub mod kept_body;
        pub mod exposition;
        pub mod via;
        pub mod headers;
        pub mod trace;
        pub mod client;
        pub mod onward;
        pub mod no_list;
        pub mod freshness;
        pub mod attempts;
        mod own_value;
        pub mod stored_head;
        pub mod representation;
        pub mod shared_answer;
    }

    pub mod rfc9111 {
        //! Caching as the answers themselves say (`cache.ttl = "origin"`): RFC 9111, in its order.
        pub mod cache_control;
        pub mod targeted;
        pub mod dates;
        pub mod freshness;
        pub mod storable;
        pub mod fields;
        pub mod vary;
        pub mod reuse;
        pub mod validate;
        pub mod part;
        pub mod form;
        pub mod invalidate;
    }
}

pub mod engine {
    //! Does. Sockets, memory, tasks and time; asks `policy` what to do.
    pub mod build_info;
    pub mod clock;
    pub mod aside;
    pub mod descriptors;
    pub mod metrics;
    pub mod log_lines;
    pub mod allocator;
    pub mod places_kept;
    pub mod memory;
    pub mod requests;
    mod unsent;
    pub mod body;
    pub mod problem;
    pub mod sampler;
    pub mod rates;
    pub mod top;
    pub mod spans;
    #[cfg(feature = "otlp")]
    pub mod otlp;

    pub mod upstream {
        //! The client towards the upstream.
        pub mod settings;
        pub mod connect_failure;
        pub mod error;
        pub mod health;
        mod connections;
        pub mod addresses;
        pub mod ways;
        mod race;
        pub mod connector;
        mod outgoing;
        mod answers;
        mod account;
        pub mod carrier;
        pub mod direct;
        pub mod client;
    }

    pub mod replicas {
        //! What replicas share, through Redis.
        pub mod settings;
        pub mod keys;
        pub mod seal;
        mod read;
        pub mod connect;
        mod primary;
        pub mod link;
        pub mod survey;
        pub mod fleet;
        mod lane;
        pub mod tier;
    }

    pub mod tls;
    pub mod tunnel;
    pub mod places;
    pub mod common_heads;
    pub mod store;
    pub mod fetch_result;
    pub mod responses;
    pub mod refusals;
    pub mod flights;
    pub mod recent;
    pub mod sources;
    pub mod identities;
    pub mod preflights;
    pub mod webhook_bodies;
}

pub mod config;
pub mod state;

#[rustfmt::skip] // The order is the reading order: from the dispatcher down to what it stands on.
pub mod proxy {
    //! The request path: the dispatcher, one file for each kind of request, and what they share.
    pub mod handle;
    pub mod plain_hit;

    pub mod list;
    pub mod origin {
        //! The same path where the answers themselves say how they may be cached (`cache.ttl = "origin"`).
        pub mod answer;
        mod foresee;
        mod ask;
        mod fetch;
        mod keep;
        mod combine;
        mod named;
        mod serve;
        mod asking;
    }
    pub mod unshared;
    pub mod pass;
    pub mod write;
    pub mod webhook;
    pub mod preflight;
    pub mod tunnel;

    pub mod audit;
    pub mod explain;
    pub mod wait;
    pub mod flight;
    pub mod respond;
    mod tier;
    pub mod fetch;
    mod admission;
    mod made_from;
    mod no_list;
    mod collect;
    pub mod staleness;
    mod guard;
    mod replicas;
    pub mod contact;
    pub mod cable;

    mod limits;
    pub mod request;
    pub mod access_log;
    pub mod outcome;
}

#[rustfmt::skip]
pub mod admin {
    //! The private listener: the status page, metrics, health, purge.
    pub mod handle;
    pub mod status;
    pub mod page;
    pub mod health;
    pub mod explain;
    pub mod top;
    pub mod purge;
    pub mod purging;
    mod token;
    mod reply;
}

#[rustfmt::skip]
pub mod server {
    //! Listeners, connections, and the drain.
    pub mod listeners;
    pub mod connection;
    pub mod connections;
    pub mod proxy_protocol;
    pub mod sockets;
    pub mod take_over;
    pub mod certificate;
    mod replication;
    mod survey;
    mod sweep;
    pub mod silence;
    mod http1;
    mod http2;
    mod exchange;
    mod frames;
    mod stream;
    mod at_once;
    mod conversation;
    mod progress;
    mod socket;
    mod heads;
    pub mod panics;
}

pub mod cli;
