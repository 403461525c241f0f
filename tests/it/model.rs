//! The rule under random schedules: the real request path, from `proxy::handle` to the client towards the upstream,
//! over connections in memory, on one thread whose time stands still until nothing else can happen; and the same
//! clients over real sockets, in real time.
//!
//! The upstream is a register: contacts with a version each, sources that show the version of their contact, and the
//! effect of every write at one moment somewhere between its request and its answer, or after the proxy has given up
//! on it. Clients read, from various origins, write, create, merge, verify, leave in the middle, and bypass, in many
//! spellings; agents write through the account API or past the proxy, of which webhooks tell late, twice or never;
//! answers are lost, late, broken, too large or not to be shared; the cache is purged and loses entries; settings are
//! loaded anew, with another upstream. The checker holds:
//!
//! - **Read your writes.** No list is older than what was acknowledged, to anybody, before it was asked for.
//! - **No step backwards.** No client sees an older list after a newer one, for the same URL.
//! - **Bounded age.** Nothing from memory is older than the limits allow, the shorter ones after a write of unknown
//!   outcome included.
//! - What was purged is gone, and no list is another installation's.
//! - In the end nobody waits, and nothing is under way.
//!
//! `MODEL_SCHEDULES` says how many schedules (6,000), `MODEL_FROM` where to begin, `MODEL_SEED` replays one and tells its
//! story.

mod attack;
mod client;
mod register;
mod schedule;
mod upstream;
mod wire;

use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anteroom::engine::metrics::Metrics;
use anteroom::engine::upstream::client::Upstream;
use anteroom::state::State;
use tokio::time::sleep;

use crate::support::settings;
use client::Client;
use register::{Manner, Register};
use schedule::{Schedule, Way};
use upstream::{Origin, Serving};
use wire::{HOSTS, Wire};

/// Ages in the model: short, so that a schedule passes through all of them.
const SETTINGS: &str = r#"
upstream.head_timeout = "6s"
upstream.fetch_timeout = "8s"
upstream.max_in_flight = 4
cache.max_body = "2KiB"
cache.ttl = "2s"
cache.stale_while_revalidate = "2s"
cache.stale_if_error = "20s"
cache.settle = "1s"
cache.settle_unknown = "4s"
cache.wait = "3s"
"#;
const FRESH: Duration = Duration::from_secs(4);
const FETCH: Duration = Duration::from_secs(8);
const ON_ERROR: Duration = Duration::from_secs(20);
/// Where lists come at once: what was fetched while a write might still have an effect lives a second longer.
const UNSETTLED: Duration = Duration::from_millis(1_500);

/// After so many schedules everything is built anew.
const PROXY_SERVES: u64 = 1_000;
/// A long run tells how far it is after so many schedules.
const PROGRESS_EVERY: u64 = 50_000;

/// Numbers that look random, the same for the same seed everywhere (splitmix64).
#[derive(Clone)]
pub struct Dice {
    state: u64,
    /// How much shorter pauses are than in the model.
    haste: u32,
}

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d, haste: 1 }
    }

    fn roll(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `sides`.
    pub fn below(&mut self, sides: u64) -> u64 {
        self.roll() % sides
    }

    /// The same for what is counted.
    pub fn up_to(&mut self, sides: usize) -> usize {
        usize::try_from(self.below(sides as u64)).expect("few")
    }

    /// So many times of a hundred.
    fn percent(&mut self, share: u64) -> bool {
        self.below(100) < share
    }

    /// None at all, a moment, or long enough to meet the limits.
    fn pause(&mut self) -> Duration {
        Duration::from_millis(match self.below(10) {
            0..5 => 0,
            5..8 => self.below(40),
            8 => self.below(900),
            _ => self.below(5_000),
        }) / self.haste
    }

    /// As long as it takes until what is kept is old.
    fn rest(&mut self) -> Duration {
        Duration::from_millis(self.below(6_000)) / self.haste
    }

    fn hasty(self, haste: u32) -> Self {
        Self { haste, ..self }
    }
}

/// What went wrong, and the story until then.
struct Broken(String);

/// Settings of the proxy of so many schedules.
fn more(which: u64) -> String {
    let negative = if which.is_multiple_of(2) { "cache.negative_ttl = \"2s\"\n" } else { "" };
    let audits = if which % 4 >= 2 { "audit.share = 0.5\n" } else { "" };
    let outdated = if serves_outdated(which) { "cache.serve_outdated_on_error = true\n" } else { "" };
    format!("{negative}{audits}{outdated}")
}

fn serves_outdated(which: u64) -> bool {
    which % 5 == 1
}

/// A proxy in front of the first installation, for many schedules.
fn proxy(wire: &Wire, which: u64) -> Arc<State> {
    let config = settings(HOSTS[0], &format!("{SETTINGS}{}", more(which)));
    let metrics = Arc::new(Metrics::new());
    let upstream = Upstream::over(wire.clone(), config.upstream.clone(), metrics.clone());
    State::with(config, upstream, metrics)
}

async fn run(state: Arc<State>, origin: &Origin, seed: u64) -> Result<(), Broken> {
    let mut dice = Dice::new(seed);
    let manner = Manner::of(seed, &mut dice);
    let register = Arc::new(Mutex::new(Register::new(seed, manner)));
    origin.serves(seed, Serving { register: register.clone(), dice: Mutex::new(Dice::new(!seed)) });
    let which = seed / PROXY_SERVES;
    let mut schedule = Schedule::new(state.clone(), register, seed, Way::Called);
    let wire = Wire(origin.clone());
    (schedule.settings, schedule.serves_outdated) = (more(which), serves_outdated(which));
    schedule.take(&wire, 0, "");
    schedule.wire = Some(wire);
    let schedule = Arc::new(schedule);
    let clients: Vec<_> = (0..2 + dice.below(4))
        .map(|name| tokio::spawn(Client::new(name, schedule.clone(), Dice::new(dice.roll())).active()))
        .collect();
    for client in clients {
        if client.await.is_err() {
            schedule.broke("a client panicked".to_owned());
        }
    }
    // Longer than anything may take that nobody waits for.
    sleep(Duration::from_secs(60)).await;
    origin.forgets(seed);
    for (what, left) in left_over(&state) {
        if left != 0 {
            schedule.broke(format!("in the end {left} {what}"));
        }
    }
    schedule.broken().map_or(Ok(()), |story| Err(Broken(story)))
}

/// What is still under way.
fn left_over(state: &State) -> [(&'static str, i64); 3] {
    [
        ("readers wait", state.metrics.waiters.get()),
        ("flights are under way", i64::try_from(state.cache.flights.under_way()).unwrap_or(i64::MAX)),
        ("writes are under way", i64::try_from(state.lifecycle.tasks.len()).unwrap_or(i64::MAX)),
    ]
}

/// Runs schedules one after the other.
fn run_all(seeds: std::ops::Range<u64>) -> Result<(), Broken> {
    let mut seeds = seeds.peekable();
    while let Some(first) = seeds.peek().copied() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(async {
            let origin = Origin::default();
            let state = proxy(&Wire(origin.clone()), first / PROXY_SERVES);
            for seed in seeds.by_ref().take(usize::try_from(PROXY_SERVES).expect("few")) {
                run(state.clone(), &origin, seed).await?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a whole number"))
}

#[test]
#[expect(clippy::print_stderr, reason = "a long run tells how far it is")]
fn no_schedule_breaks_the_rule() {
    if let Some(seed) = variable("MODEL_SEED") {
        // With the proxy that it would have had.
        let first = seed / PROXY_SERVES * PROXY_SERVES;
        let result = if variable("MODEL_ALONE").is_some() { run_all(seed..seed + 1) } else { run_all(first..seed + 1) };
        return result.unwrap_or_else(|Broken(story)| panic!("{story}"));
    }
    let schedules = variable("MODEL_SCHEDULES").unwrap_or(6_000);
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let next = AtomicU64::new(variable("MODEL_FROM").unwrap_or(0) / PROXY_SERVES * PROXY_SERVES);
    let take_turns = || loop {
        let first = next.fetch_add(PROXY_SERVES, Ordering::Relaxed);
        if first >= schedules {
            return Ok(());
        }
        if first > 0 && first.is_multiple_of(PROGRESS_EVERY) {
            eprintln!("{first} of {schedules} schedules");
        }
        run_all(first..(first + PROXY_SERVES).min(schedules)).inspect_err(|_| {
            // The others need go no further.
            next.fetch_max(schedules, Ordering::Relaxed);
        })?;
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(take_turns)).collect();
        running.into_iter().map(|thread| thread.join().expect("a thread of the model does not panic")).collect()
    });
    for result in results {
        result.unwrap_or_else(|Broken(story)| panic!("{story}replay it: MODEL_SEED=... cargo test --test it model"));
    }
}
