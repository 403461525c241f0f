//! The rule under random schedules: the real request path, from `proxy::handle` to the client towards the upstream,
//! over connections in memory, on one thread whose time stands still until nothing else can happen.
//!
//! The upstream is a register: contacts with a version each, sources that show the version of their contact, and the
//! effect of every write at one moment somewhere between its request and its answer. Clients read, write, create,
//! merge, leave in the middle, and bypass; agents change things, of which events tell late, twice or never; answers
//! are lost, late, broken, too large or not to be shared; the cache is purged and loses entries. The checker holds:
//!
//! - **Read your writes.** No list is older than what was acknowledged, to anybody, before it was asked for.
//! - **No step backwards.** No client sees an older list after a newer one, for the same URL.
//! - **Bounded age.** Nothing from memory is older than the limits allow.
//! - In the end nobody waits, and nothing is under way.
//!
//! `MODEL_SCHEDULES` says how many schedules (10,000), `MODEL_SEED` replays one and tells its story.

mod register;
mod wire;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anteroom::engine::body::Body;
use anteroom::engine::metrics::Metrics;
use anteroom::engine::upstream::client::Upstream;
use anteroom::policy::coherence::ledger::Scope;
use anteroom::policy::http::key::Key;
use anteroom::proxy;
use anteroom::state::State;
use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::BodyExt;
use tokio::time::{Instant, sleep, timeout};

use crate::support::settings;
use register::{INBOX, Register, SOURCES, Want, number_of, source_name};

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

/// After so many schedules everything is built anew.
const ROOM_SERVES: u64 = 1_000;

/// Numbers that look random, the same for the same seed everywhere (splitmix64).
#[derive(Clone)]
pub struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `sides`.
    fn below(&mut self, sides: u64) -> u64 {
        self.roll() % sides
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
        })
    }
}

/// What went wrong, and the story until then.
struct Broken(String);

/// One schedule.
struct Schedule {
    state: Arc<State>,
    register: Arc<Mutex<Register>>,
    origin: wire::Origin,
    seed: u64,
    began: Instant,
    story: Mutex<Vec<String>>,
    broken: Mutex<Option<String>>,
}

impl Schedule {
    fn register(&self) -> std::sync::MutexGuard<'_, Register> {
        self.register.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, what: &str) {
        let at = self.began.elapsed().as_millis();
        self.story.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{at:>6} ms  {what}"));
    }

    fn broke(&self, how: String) {
        self.tell(&how);
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(how);
    }

    /// Sends a request through the real path; gives status, `Cache-Status` and body, or nothing if that broke off.
    async fn send(&self, request: Request<Body>) -> Option<(u16, String, Bytes)> {
        let peer = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let response: Response<Body> = proxy::handle::handle(self.state.clone(), peer, request).await;
        let (head, body) = response.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        let how = head.headers.get("cache-status").and_then(|how| how.to_str().ok()).unwrap_or_default().to_owned();
        Some((head.status.as_u16(), how, body))
    }
}

fn request(method: &str, path: &str, op: u64, want: Want, body: &str) -> Request<Body> {
    let mut request = Request::new(Body::from(Bytes::copy_from_slice(body.as_bytes())));
    *request.method_mut() = method.parse().expect("a method");
    *request.uri_mut() = path.parse().expect("a path");
    let fields = request.headers_mut();
    fields.insert(header::HOST, "proxy.test".parse().expect("a field"));
    fields.insert("x-op", op.into());
    fields.insert("x-want", want.word().parse().expect("a field"));
    if !body.is_empty() {
        fields.insert(header::CONTENT_LENGTH, body.len().into());
        fields.insert(header::CONTENT_TYPE, "application/json".parse().expect("a field"));
    }
    request
}

/// A client and what it has seen.
struct Client {
    name: u64,
    schedule: Arc<Schedule>,
    dice: Dice,
    seen: HashMap<String, u64>,
}

impl Client {
    async fn active(mut self) {
        for _ in 0..2 + self.dice.below(6) {
            let patience = if self.dice.percent(10) { self.dice.pause() } else { Duration::from_secs(600) };
            // Whoever loses patience leaves in the middle: everything of the request is dropped.
            let _ = timeout(patience, self.act()).await;
            sleep(self.dice.pause()).await;
        }
    }

    async fn act(&mut self) {
        let source = self.dice.below(SOURCES as u64);
        match self.dice.below(22) {
            0..10 => self.read(source).await,
            10..15 => self.write(source).await,
            15 => self.create().await,
            16 => self.merge().await,
            17 => self.agent(source),
            18 => self.forget(source),
            19 => self.verify(source).await,
            20 => self.reload(),
            _ => sleep(Duration::from_millis(self.dice.below(6_000))).await,
        }
    }

    fn path(&self, source: u64) -> String {
        format!("/public/api/v1/inboxes/{INBOX}/contacts/{}", source_name(self.schedule.seed, source))
    }

    async fn read(&mut self, source: u64) {
        let query = if self.dice.percent(15) { "?page=2" } else { "" };
        let path = format!("{}/conversations{query}", self.path(source));
        let mut request = request("GET", &path, 0, Want::Answer, "");
        let bypassing = self.dice.percent(15);
        if bypassing {
            request.headers_mut().insert(header::COOKIE, "a=b".parse().expect("a field"));
        }
        let (needed, asked) = (self.schedule.register().acknowledged(source), Instant::now());
        let reader = format!("client {} reads s{source}{query}{}", self.name, if bypassing { " alone" } else { "" });
        self.schedule.tell(&format!("{reader}: must see {needed}"));
        let Some((status, how, body)) = self.schedule.send(request).await else { return };
        let Some(version) = number_of(status, &body) else {
            return self.schedule.tell(&format!("{reader}: {status} ({how})"));
        };
        self.schedule.tell(&format!("{reader}: saw {version} ({how})"));
        if version < needed {
            self.schedule.broke(format!("{reader}: an answer from before an acknowledged write, {version} < {needed}"));
        }
        let last = self.seen.entry(path).or_default();
        if version < *last {
            self.schedule.broke(format!("{reader}: a step backwards, {version} after {last}"));
        }
        *last = version.max(*last);
        let stands_in = how.contains("upstream-failing");
        let limit = match how.contains("; hit") {
            true if stands_in => ON_ERROR,
            true => FRESH,
            false => FETCH,
        };
        // What is served from memory is judged when it is asked for; a fetch when it has landed.
        let at = if how.contains("; hit") && !stands_in { asked } else { Instant::now() };
        let replaced = self.schedule.register().replaced(source, version);
        if let Some(age) = replaced.map(|replaced| at.saturating_duration_since(replaced)).filter(|age| *age > limit) {
            self.schedule.broke(format!("{reader}: out of date for {age:?}, allowed are {limit:?}"));
        }
    }

    async fn write(&mut self, source: u64) {
        let want = Want::any(&mut self.dice);
        let op = self.schedule.register().next_op();
        let path = format!(
            "{}/conversations/9/{}",
            self.spelt(source),
            if want == Want::Empty { "update_last_seen" } else { "messages" }
        );
        self.change(&format!("writes to s{source}"), request("POST", &path, op, want, "{}"), op).await;
    }

    async fn create(&mut self) {
        let want = if self.dice.percent(70) { Want::Answer } else { Want::any(&mut self.dice) };
        let op = self.schedule.register().next_op();
        let path = format!("/public/api/v1/inboxes/{INBOX}/contacts");
        let body = format!(r#"{{"source_id":"{}"}}"#, source_name(self.schedule.seed, 3));
        self.change("creates s3", request("POST", &path, op, want, &body), op).await;
    }

    async fn merge(&mut self) {
        let want = if self.dice.percent(70) { Want::Answer } else { Want::any(&mut self.dice) };
        let op = self.schedule.register().next_op();
        let source = if self.dice.percent(50) { 2 } else { 4 };
        let path = format!("{}{}", self.spelt(source), if self.dice.percent(20) { ".json" } else { "" });
        self.change(&format!("merges s{source} into s0's"), request("PATCH", &path, op, want, "{}"), op).await;
    }

    /// A hash, with a `GET`, in a spelling of the parameter that the upstream takes for it.
    async fn verify(&mut self, source: u64) {
        let want = Want::any(&mut self.dice);
        let op = self.schedule.register().next_op();
        let name = ["identifier_hash", "[identifier_hash]", "identifier_hash[]", "%5Bidentifier%5Fhash%5D"];
        let name = name[usize::try_from(self.dice.below(4)).expect("few")];
        let path = format!("{}?{name}={op}", self.spelt(source));
        self.change(&format!("verifies s{source}"), request("GET", &path, op, want, ""), op).await;
    }

    /// A path of a contact, sometimes in another spelling.
    fn spelt(&mut self, source: u64) -> String {
        let path = self.path(source);
        match self.dice.below(5) {
            0 => path.replace("/contacts/", "//contacts/"),
            1 => path.replace("/inboxes/", "/x/../inboxes/"),
            2 => path.replace('s', "%73"),
            _ => path,
        }
    }

    /// Settings that shape answers differently, or those of before: what flies and what is kept is of no use any more.
    fn reload(&self) {
        let trims = self.schedule.register().next_op().is_multiple_of(2);
        let state = &self.schedule.state;
        let more = if trims { "payload.trim.sort_conversations = true\n" } else { "" };
        let config = settings("http://origin.test", &format!("{SETTINGS}{more}"));
        let upstream = Upstream::over(self.schedule.origin.clone(), config.upstream.clone(), state.metrics.clone());
        state.reload_with(config, upstream);
        self.schedule.tell("the settings are loaded anew");
    }

    async fn change(&self, what: &str, request: Request<Body>, op: u64) {
        let what = format!("client {} {what} (op {op}, {})", self.name, request.headers()["x-want"].to_str().unwrap());
        self.schedule.tell(&what);
        let unattributed = &self.schedule.state.metrics.writes_unattributed;
        let before = unattributed.get();
        let answer = self.schedule.send(request).await;
        let status = answer.map_or(0, |(status, ..)| status);
        // Of these only the bound on age is promised, but for the source itself.
        let attributed = unattributed.get() == before;
        let needed = self.schedule.register().acknowledge(op, attributed);
        self.schedule.tell(&format!("{what}: {status}, acknowledged {needed:?}"));
    }

    /// An agent changes the contact of a source; an event tells of it late, twice, or never.
    fn agent(&mut self, source: u64) {
        let Some((contact, sources, version)) = self.schedule.register().change(source) else { return };
        self.schedule.tell(&format!("an agent changes the contact of s{source}: {version}"));
        let (times, late) = (self.dice.below(3), self.dice.pause());
        let schedule = self.schedule.clone();
        tokio::spawn(async move {
            for _ in 0..times {
                sleep(late).await;
                schedule
                    .state
                    .invalidation
                    .ledger
                    .invalidate(schedule.state.invalidation.ledger.place(&Scope::Contact(contact)));
                schedule.register().heard(contact, &sources, version);
                schedule.tell(&format!("an event tells of {version}"));
            }
        });
    }

    /// An entry is evicted, or something is purged.
    fn forget(&mut self, source: u64) {
        let name = source_name(self.schedule.seed, source);
        let state = &self.schedule.state;
        match self.dice.below(4) {
            0 => drop(state.invalidation.ledger.invalidate(state.invalidation.ledger.place(&Scope::Source(&name)))),
            1 => drop(state.invalidation.ledger.invalidate_all()),
            _ => drop(state.cache.store.forget(&Key::new(INBOX, &name, None), state.invalidation.ledger.now())),
        }
        self.schedule.tell(&format!("s{source} is purged or evicted"));
    }
}

/// A room in front of a register, for many schedules.
fn room(origin: &wire::Origin, negative: bool, audits: bool) -> Arc<State> {
    let negative = if negative { "cache.negative_ttl = \"2s\"\n" } else { "" };
    let audits = if audits { "audit.share = 0.5\n" } else { "" };
    let config = settings("http://origin.test", &format!("{SETTINGS}{negative}{audits}"));
    let metrics = Arc::new(Metrics::new());
    let upstream = Upstream::over(origin.clone(), config.upstream.clone(), metrics.clone());
    State::with(config, upstream, metrics)
}

async fn run(state: Arc<State>, origin: &wire::Origin, seed: u64) -> Result<(), Broken> {
    let mut dice = Dice::new(seed);
    let register = Arc::new(Mutex::new(Register::new(seed, !seed.is_multiple_of(5))));
    origin.serves(register.clone(), Dice::new(!seed));
    let schedule = Arc::new(Schedule {
        state: state.clone(),
        register,
        origin: origin.clone(),
        seed,
        began: Instant::now(),
        story: Mutex::default(),
        broken: Mutex::default(),
    });
    let clients: Vec<_> = (0..2 + dice.below(4))
        .map(|name| {
            let client =
                Client { name, schedule: schedule.clone(), dice: Dice::new(dice.roll()), seen: HashMap::new() };
            tokio::spawn(client.active())
        })
        .collect();
    for client in clients {
        if client.await.is_err() {
            schedule.broke("a client panicked".to_owned());
        }
    }
    // Longer than anything may take that nobody waits for.
    sleep(Duration::from_secs(60)).await;
    for (what, left) in [
        ("readers wait", state.metrics.waiters.get()),
        ("flights are under way", i64::try_from(state.cache.flights.under_way()).unwrap_or(i64::MAX)),
        ("writes are under way", i64::try_from(state.lifecycle.tasks.len()).unwrap_or(i64::MAX)),
    ] {
        if left != 0 {
            schedule.broke(format!("in the end {left} {what}"));
        }
    }
    let broken = schedule.broken.lock().unwrap_or_else(PoisonError::into_inner).take();
    broken.map_or(Ok(()), |how| {
        let mut told = format!("seed {seed}: {how}\n");
        for line in &*schedule.story.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = writeln!(told, "{line}");
        }
        Err(Broken(told))
    })
}

/// Runs schedules one after the other.
fn run_all(seeds: std::ops::Range<u64>) -> Result<(), Broken> {
    let mut seeds = seeds.peekable();
    while let Some(first) = seeds.peek().copied() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(async {
            let origin = wire::Origin::default();
            let which = first / ROOM_SERVES;
            let state = room(&origin, which.is_multiple_of(2), which % 4 >= 2);
            for seed in seeds.by_ref().take(usize::try_from(ROOM_SERVES).expect("few")) {
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
fn no_schedule_breaks_the_rule() {
    if let Some(seed) = variable("MODEL_SEED") {
        // In the room that it would have had.
        let first = seed / ROOM_SERVES * ROOM_SERVES;
        let result = if variable("MODEL_ALONE").is_some() { run_all(seed..seed + 1) } else { run_all(first..seed + 1) };
        return result.unwrap_or_else(|Broken(story)| panic!("{story}"));
    }
    let schedules = variable("MODEL_SCHEDULES").unwrap_or(10_000);
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    let share = schedules.div_ceil(threads).next_multiple_of(ROOM_SERVES);
    let results: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| (thread * share).min(schedules)..((thread + 1) * share).min(schedules))
            .map(|seeds| scope.spawn(|| run_all(seeds)))
            .collect();
        running.into_iter().map(|thread| thread.join().expect("a thread of the model does not panic")).collect()
    });
    for result in results {
        result.unwrap_or_else(|Broken(story)| panic!("{story}replay it: MODEL_SEED=... cargo test --test it model"));
    }
}
