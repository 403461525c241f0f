//! Fuzzing of what strangers' requests are read by: the key and the route, the fields that go on to the upstream, the
//! PROXY protocol; and of what operators write: the settings. Each against an opinion of its own. `make fuzz`.
#![allow(clippy::too_many_lines, reason = "samples and rules stand together")]

mod key;
mod mutator;
mod onward;
mod proxy_protocol;
mod settings;

/// Under plain `cargo test`.
const BRIEFLY: u64 = 10_000;
