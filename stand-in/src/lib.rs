//! A stand-in for the real service, in memory, to try the proxy out and to test it against.
//!
//! It answers the client API as the real one does, down to key order and header sets, and it can be slowed down,
//! broken, held still and asked what it has seen. This file is the map: a module uses those of its own paragraph and of
//! the paragraphs above it, and never in a circle. `tests/it/floors.rs` of the proxy holds this.

// What everything is made of.
mod account;
mod json;
mod stamps;

// Below the account: what happens to a request, and who is told of a change.
mod faults;
mod log;
mod options;
mod outbox;
mod webhooks;
mod wire;

// The account: its data, how it is shown, who hears of a change, what changes it, and what it opens with.
mod data;
mod events;
mod render;
mod seed;
mod writes;

// The way of a request, and of what is told.
mod cable;
mod deliver;
mod handlers;
mod http;
mod params;
mod routes;
mod serve;
mod shared;

// What tests and the demonstration hold in their hands.
mod acts;
mod deliveries;
mod stand_in;

#[cfg(test)]
mod tests;

pub use account::{INBOX, OTHER_INBOX};
pub use faults::Fault;
pub use log::{Gate, Matcher, Point, Seen};
pub use options::{Latency, Options};
pub use seed::Shape;
pub use stand_in::StandIn;
pub use webhooks::{Delivery, Fate, Trouble, Webhook, WebhookKind};
