//! An upstream that kills, stalls, cuts short, lies and restarts at random, and clients that leave: no wrong body, no
//! request that hangs, nothing left over, and an outcome for every request. `make chaos` sends 100,000.
//!
//! What the upstream and the clients do follows from `CHAOS_SEED`; what meets what does not.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anteroom::engine::clock;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::support::child::Program;
use crate::support::raw::{Message, Talk};
use crate::tunnels::{HANDSHAKE, SWITCHED};

const CONTACTS: u64 = 40;
const CLIENTS: u64 = 32;
/// Fetches end after half a second, a reader waits for two in all; a write waits for others of its contact (5 s), for who
/// is behind it (1 s), and for its answer.
const SETTINGS: &str = "upstream.connect_timeout = \"500ms\"\nupstream.head_timeout = \"400ms\"\n\
                        upstream.fetch_timeout = \"500ms\"\nupstream.stall_timeout = \"500ms\"\nupstream.pool_idle = \"500ms\"\n\
                        cache.wait = \"2s\"\ncache.ttl = \"200ms\"\ncache.stale_while_revalidate = \"200ms\"\n\
                        payload.validate = \"off\"\ndrain.notice = \"0s\"\nlog.level = \"warn\"\n";
/// The sum of the limits above, and what a busy machine adds.
const LONGEST: Duration = Duration::from_secs(12);

/// xorshift64*: small, and the same everywhere.
struct Dice(u64);

impl Dice {
    /// Another for each number.
    fn of(seed: u64, number: u64) -> Self {
        let mut dice = Self((seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1);
        dice.throw(1);
        dice
    }

    fn throw(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }
}

/// What the upstream holds: how often each contact was written to.
struct World {
    versions: Vec<AtomicU64>,
    /// How often each numbered write was seen whole.
    writes: Mutex<HashMap<String, usize>>,
    /// Ends all connections of the upstream; another comes with each restart.
    alive: Mutex<CancellationToken>,
    is_over: AtomicBool,
    restarts: AtomicUsize,
    done: AtomicUsize,
    seed: u64,
}

/// How an answer comes, or does not.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Good,
    Slow,
    Chunked,
    /// The connection ends without a byte; `true`: by a reset.
    Killed(bool),
    KilledInHead,
    Hangs,
    HangsInBody,
    Truncated,
    TruncatedChunks,
    /// Announces fewer bytes than it sends.
    TooShort,
    /// Answers with this status.
    Fails(u16),
    /// 200, and no list.
    Lies(&'static str),
    Garbage(&'static str),
}

fn manner(dice: &mut Dice) -> Manner {
    match dice.throw(1000) {
        0..15 => Manner::Killed(false),
        15..30 => Manner::Killed(true),
        30..45 => Manner::KilledInHead,
        45..60 => Manner::Hangs,
        60..70 => Manner::HangsInBody,
        70..90 => Manner::Truncated,
        90..105 => Manner::TruncatedChunks,
        105..120 => Manner::TooShort,
        120..135 => Manner::Fails(500),
        135..150 => Manner::Fails(503),
        150..160 => Manner::Fails(502),
        160..170 => Manner::Fails(429),
        170..180 => Manner::Lies("<html>"),
        180..195 => Manner::Lies("{\"lie\":true}"),
        195..200 => Manner::Garbage("HTTP/1.1 2x0 OK\r\n\r\n"),
        200..205 => Manner::Garbage("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"),
        205..210 => Manner::Garbage("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcdef"),
        210..240 => Manner::Slow,
        240..300 => Manner::Chunked,
        _ => Manner::Good,
    }
}

fn contact_in(target: &str) -> Option<u64> {
    let (_, rest) = target.split_once("c-")?;
    rest.split(|char: char| !char.is_ascii_digit()).next()?.parse().ok()
}

/// A list, or whatever names a contact and its version.
fn body_of(contact: u64, version: u64, padding: u64) -> String {
    let padding = "x".repeat(usize::try_from(padding).expect("short"));
    format!(
        "[{{\"contact\":{{\"id\":{contact}}},\"version\":{version},\"id\":{contact},\"messages\":[],\"pad\":\"{padding}\"}}]"
    )
}

async fn serve(world: Arc<World>, mut talk: Talk, alive: CancellationToken, number: u64) {
    let mut dice = Dice::of(world.seed, number);
    loop {
        let message = tokio::select! {
            message = talk.message() => message,
            () = alive.cancelled() => {
                // In the middle of whatever there was.
                let _ = talk.stream.set_zero_linger();
                return;
            }
        };
        let Some(request) = message.filter(|request| request.whole) else { return };
        let goes_on = tokio::select! {
            goes_on = answer(&world, &mut talk, &request, &mut dice) => goes_on,
            () = alive.cancelled() => {
                let _ = talk.stream.set_zero_linger();
                return;
            }
        };
        if goes_on.is_none() {
            return;
        }
    }
}

/// Answers in one manner or another; nothing if the connection does not go on.
async fn answer(world: &World, talk: &mut Talk, request: &Message, dice: &mut Dice) -> Option<()> {
    let target = request.start_line().split(' ').nth(1)?.to_owned();
    let contact = contact_in(&target)?;
    let place = &world.versions[usize::try_from(contact).ok()?];
    let manner = if world.is_over.load(Ordering::SeqCst) { Manner::Good } else { manner(dice) };
    let is_write = !request.start_line().starts_with("GET");
    // What is wrong with a write may come before it is done, or after.
    let comes_to_it = matches!(manner, Manner::Good | Manner::Slow | Manner::Chunked) || dice.throw(2) == 0;
    if is_write {
        let number = request.field("x-n").expect("a numbered write").to_owned();
        *world.writes.lock().expect("no panic").entry(number).or_default() += 1;
        if comes_to_it {
            place.fetch_add(1, Ordering::SeqCst);
        }
    }
    let version = place.load(Ordering::SeqCst);
    if request.field("upgrade").is_some() && manner == Manner::Good {
        talk.stream.write_all(format!("{SWITCHED}c-{contact}.").as_bytes()).await.ok()?;
        talk.rest().await;
        return None;
    }
    let etag = format!("W/\"{contact}-{version}\"");
    if request.field("if-none-match") == Some(&etag) && manner == Manner::Good {
        let head = format!("HTTP/1.1 304 Not Modified\r\netag: {etag}\r\n\r\n");
        return talk.stream.write_all(head.as_bytes()).await.ok();
    }
    let body = body_of(contact, version, [0, 40, 3000, 60_000][usize::try_from(dice.throw(4)).ok()?]);
    send(talk, manner, &etag, &body, contact).await
}

async fn send(talk: &mut Talk, manner: Manner, etag: &str, body: &str, contact: u64) -> Option<()> {
    let stream = &mut talk.stream;
    let kind = "content-type: application/json";
    let head = |length: usize| format!("HTTP/1.1 200 OK\r\n{kind}\r\netag: {etag}\r\ncontent-length: {length}\r\n\r\n");
    let whole = format!("{}{body}", head(body.len()));
    let half = whole.len() - body.len() / 2;
    let chunks = format!(
        "HTTP/1.1 200 OK\r\n{kind}\r\netag: {etag}\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n",
        body.len()
    );
    match manner {
        Manner::Good => stream.write_all(whole.as_bytes()).await.ok(),
        Manner::Slow => {
            for piece in whole.as_bytes().chunks(whole.len() / 3 + 1) {
                stream.write_all(piece).await.ok()?;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Some(())
        }
        Manner::Chunked => stream.write_all(format!("{chunks}0\r\n\r\n").as_bytes()).await.ok(),
        Manner::Killed(by_reset) => {
            if by_reset {
                stream.set_zero_linger().ok()?;
            }
            None
        }
        Manner::KilledInHead => {
            stream.write_all(&whole.as_bytes()[..30]).await.ok()?;
            None
        }
        Manner::Hangs => {
            talk.rest().await;
            None
        }
        Manner::HangsInBody => {
            stream.write_all(&whole.as_bytes()[..half]).await.ok()?;
            talk.rest().await;
            None
        }
        Manner::Truncated => {
            stream.write_all(&whole.as_bytes()[..half]).await.ok()?;
            None
        }
        Manner::TruncatedChunks => {
            stream.write_all(chunks.as_bytes()).await.ok()?;
            None
        }
        Manner::TooShort => stream.write_all(format!("{}{body}", head(body.len() / 2)).as_bytes()).await.ok(),
        Manner::Fails(status) => {
            let after = if contact.is_multiple_of(2) { "retry-after: 1\r\n" } else { "" };
            let body = format!("lie-{contact}.");
            let length = body.len();
            let text = format!("HTTP/1.1 {status} Trouble\r\n{after}content-length: {length}\r\n\r\n{body}");
            stream.write_all(text.as_bytes()).await.ok()
        }
        Manner::Lies(what) => {
            let body = format!("{what}lie-{contact}.");
            let head = head(body.len()).replace(etag, "\"lie\"");
            stream.write_all(format!("{head}{body}").as_bytes()).await.ok()
        }
        Manner::Garbage(bytes) => {
            stream.write_all(bytes.as_bytes()).await.ok()?;
            None
        }
    }
}

/// Waits until the last of the old connections has gone.
async fn bound_again(address: SocketAddr) -> TcpListener {
    loop {
        if let Ok(bound) = TcpListener::bind(address).await {
            return bound;
        }
        tokio::task::yield_now().await;
    }
}

/// Listens at one address again and again, and ends whatever was there before each time.
async fn listen(world: Arc<World>, first: TcpListener) {
    let address = first.local_addr().expect("an address");
    let mut listener = Some(first);
    let mut dice = Dice::of(world.seed, u64::MAX);
    let mut number = 0;
    loop {
        let bound = match listener.take() {
            Some(bound) => bound,
            None => bound_again(address).await,
        };
        let alive = world.alive.lock().expect("no panic").clone();
        loop {
            let accepted = tokio::select! {
                accepted = bound.accept() => accepted,
                () = alive.cancelled() => break,
            };
            let Ok((stream, _)) = accepted else { break };
            number += 1;
            tokio::spawn(serve(world.clone(), Talk::new(stream), alive.clone(), number));
        }
        drop(bound);
        tokio::time::sleep(Duration::from_millis(dice.throw(60))).await;
        *world.alive.lock().expect("no panic") = CancellationToken::new();
    }
}

/// What all clients know and count.
struct Clients {
    url: String,
    world: Arc<World>,
    /// The latest version of each contact that a write was acknowledged with.
    acknowledged: Vec<AtomicU64>,
    next: AtomicUsize,
    requests: usize,
    tally: Mutex<HashMap<&'static str, u64>>,
    longest: Mutex<Duration>,
}

impl Clients {
    fn count(&self, what: &'static str) {
        *self.tally.lock().expect("no panic").entry(what).or_default() += 1;
    }

    fn took(&self, took: Duration) {
        let mut longest = self.longest.lock().expect("no panic");
        *longest = took.max(*longest);
    }

    /// The order of the next request, if there is one; the upstream restarts now and then.
    fn next(&self) -> Option<usize> {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let done = self.world.done.fetch_add(1, Ordering::SeqCst);
        if done % 700 == 350 {
            self.world.restarts.fetch_add(1, Ordering::SeqCst);
            self.world.alive.lock().expect("no panic").cancel();
        }
        (number < self.requests).then_some(number)
    }

    async fn run(self: Arc<Self>, client: u64) {
        let mut dice = Dice::of(self.world.seed, client << 32);
        let mut known: HashMap<u64, (String, u64)> = HashMap::new();
        let mut connection: Option<Talk> = None;
        while let Some(number) = self.next() {
            let contact = dice.throw(CONTACTS).min(dice.throw(CONTACTS));
            let place = usize::try_from(contact).expect("small");
            let list = format!("/public/api/v1/inboxes/in/contacts/c-{contact}/conversations");
            let at_least = self.acknowledged[place].load(Ordering::SeqCst);
            let body = "{\"content\":\"x\"}";
            let write = |method: &str, target: &str| {
                let length = body.len();
                format!(
                    "{method} {target} HTTP/1.1\r\nhost: h\r\nx-n: {number}\r\ncontent-length: {length}\r\n\r\n{body}"
                )
            };
            let choice = dice.throw(100);
            let request = match choice {
                0..12 => write("POST", &format!("{list}/{contact}/messages")),
                12..15 => write("PATCH", list.trim_end_matches("/conversations")),
                15..25 => format!("GET /elsewhere/c-{contact} HTTP/1.1\r\nhost: h\r\n\r\n"),
                25..35 if known.contains_key(&contact) => {
                    format!("GET {list} HTTP/1.1\r\nhost: h\r\nif-none-match: {}\r\n\r\n", known[&contact].0)
                }
                35..37 => HANDSHAKE.replacen("/cable", &format!("/cable/c-{contact}"), 1),
                37..42 => {
                    self.leave(&mut dice, &list, &write("POST", &format!("{list}/{contact}/messages"))).await;
                    continue;
                }
                _ => format!("GET {list} HTTP/1.1\r\nhost: h\r\n\r\n"),
            };
            let mut talk = match connection.take() {
                Some(talk) => talk,
                None => Talk::to(&self.url).await,
            };
            let began = clock::now();
            talk.send(&request).await;
            let answer = tokio::time::timeout(LONGEST, talk.message()).await;
            let answer = answer.unwrap_or_else(|_| panic!("no answer within {LONGEST:?} to {request}"));
            let answer = answer.unwrap_or_else(|| panic!("no answer to {request}"));
            self.took(began.elapsed());
            if answer.status() == 101 {
                let greeting = format!("c-{contact}.");
                let heard =
                    tokio::time::timeout(LONGEST, talk.exactly(greeting.len())).await.expect("a greeting, or the end");
                // The upstream may have restarted meanwhile.
                assert!(heard.is_none_or(|heard| heard == greeting.as_bytes()), "another's tunnel");
                self.count("1xx");
                continue;
            }
            let version = self.examine(contact, at_least, &answer, known.get(&contact));
            if let Some(version) = version {
                if choice < 15 {
                    self.acknowledged[place].fetch_max(version, Ordering::SeqCst);
                } else if let Some(etag) = answer.field("etag") {
                    known.insert(contact, (etag.to_owned(), version));
                }
            }
            if answer.whole && answer.field("connection") != Some("close") && dice.throw(50) > 0 {
                connection = Some(talk);
            }
        }
    }

    /// Whoever leaves has sent a whole head, with a part of its body or all of it, or a request that is whole.
    async fn leave(&self, dice: &mut Dice, list: &str, write: &str) {
        let mut talk = Talk::to(&self.url).await;
        match dice.throw(3) {
            0 => talk.send(format!("GET {list} HTTP/1.1\r\nhost: h\r\n\r\n")).await,
            1 => talk.send(&write[..write.len() - 4]).await,
            _ => talk.send(write).await,
        }
        tokio::time::sleep(Duration::from_millis(dice.throw(8))).await;
        self.count("left");
    }

    /// That an answer is about whom it was asked of, and not older than what was acknowledged before; gives the version.
    fn examine(&self, contact: u64, at_least: u64, answer: &Message, known: Option<&(String, u64)>) -> Option<u64> {
        let cache_status = answer.field("cache-status").expect("it is always there");
        let is_from_memory = cache_status.contains("; hit");
        let class = match answer.status() {
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            _ => "5xx",
        };
        self.count(class);
        let now = self.world.versions[usize::try_from(contact).expect("small")].load(Ordering::SeqCst);
        if answer.status() == 304 {
            let (_, version) = known.expect("asked with what is known");
            assert!(*version >= at_least, "304 for version {version}, {at_least} was acknowledged: {}", answer.head);
            return None;
        }
        let text = answer.text();
        let ours = answer.field("content-type") == Some("application/problem+json");
        let list: Option<Value> = serde_json::from_str(text).ok().filter(Value::is_array);
        if let Some(list) = list.filter(|_| answer.whole && class == "2xx") {
            let (of, version) = (list[0]["contact"]["id"].as_u64(), list[0]["version"].as_u64().expect("a version"));
            assert_eq!(of, Some(contact), "another's body: {}", answer.head);
            assert!(
                (at_least..=now).contains(&version),
                "version {version} of {now}, {at_least} was acknowledged: {}",
                answer.head
            );
            return Some(version);
        }
        // Anything else is the upstream's own for this reader alone, or an error of the proxy's.
        assert!(!is_from_memory, "no list, out of memory: {}\n{text}", answer.head);
        if !ours {
            let of = [format!("lie-{contact}."), format!("[{{\"contact\":{{\"id\":{contact}}}")];
            let is_theirs = of.iter().any(|name| text.contains(name.as_str()))
                || (!answer.whole && of.iter().any(|name| name.starts_with(text)));
            assert!(is_theirs, "nobody's body: {}\n{text}", answer.head);
        }
        if !answer.whole {
            self.count("cut short");
        }
        None
    }
}

/// The sum of a metric over all its labels, if they have this part.
fn sum(metrics: &str, name: &str, part: &str) -> f64 {
    let lines = metrics.lines().filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(part));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_does_everything_wrong_makes_nobody_hear_wrong_or_wait_for_ever() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().expect("a number"));
    let requests = usize::try_from(number("CHAOS_REQUESTS", 2_000)).expect("a count");
    let seed = number("CHAOS_SEED", 0xc4a05);
    let zeros = || (0..CONTACTS).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
    let world = Arc::new(World {
        versions: zeros(),
        writes: Mutex::default(),
        alive: Mutex::new(CancellationToken::new()),
        is_over: AtomicBool::new(false),
        restarts: AtomicUsize::new(0),
        done: AtomicUsize::new(0),
        seed,
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let listening = tokio::spawn(listen(world.clone(), listener));
    let mut program = Program::serve(&url, SETTINGS).await;
    let descriptors = program.metric("process_open_fds").await;
    let began = clock::now();
    let clients = Arc::new(Clients {
        url: program.url.clone(),
        world: world.clone(),
        acknowledged: zeros(),
        next: AtomicUsize::new(0),
        requests,
        tally: Mutex::default(),
        longest: Mutex::default(),
    });
    let running: Vec<_> = (1..=CLIENTS).map(|client| tokio::spawn(clients.clone().run(client))).collect();
    for client in running {
        client.await.expect("a client heard nothing wrong");
    }
    let took = began.elapsed();
    // Nothing is left over.
    world.is_over.store(true, Ordering::SeqCst);
    for gauge in [
        "anteroom_requests_in_flight",
        "anteroom_flights",
        "anteroom_waiters",
        "anteroom_tunnels",
        "anteroom_upstream_in_flight",
        "anteroom_connections{listener=\"public\"}",
    ] {
        program.wait_for_metric(gauge, |value| value < 0.5).await;
    }
    program.wait_for_metric("process_open_fds", |open| open <= descriptors + 2.0).await;
    // Every request has an outcome, and every error that was seen is counted as one.
    let metrics = program.metrics().await;
    let tally = clients.tally.lock().expect("no panic").clone();
    let counted = |part: &str| sum(&metrics, "anteroom_requests_total", part);
    let outcomes: Vec<String> =
        ["hit", "stale", "miss", "joined", "bypass", "pass", "write", "webhook", "refused", "failed"]
            .map(|outcome| format!("{outcome} {}", counted(&format!("outcome=\"{outcome}\""))))
            .to_vec();
    println!(
        "{requests} requests in {took:.1?}, seed {seed}, {} restarts, longest {:.2?}; seen {tally:?}; counted: {}",
        world.restarts.load(Ordering::SeqCst),
        clients.longest.lock().expect("no panic"),
        outcomes.join(", ")
    );
    assert!((counted("") - requests as f64).abs() < 0.5, "{} outcomes of {requests} requests: {tally:?}", counted(""));
    let left = tally.get("left").copied().unwrap_or_default() as f64;
    for class in ["1xx", "2xx", "3xx", "4xx", "5xx"] {
        let heard = tally.get(class).copied().unwrap_or_default() as f64;
        let counted = counted(&format!("status_class=\"{class}\""));
        assert!((heard..=heard + left).contains(&counted), "{class}: {heard} heard, {counted} counted, {left} left");
    }
    assert!(sum(&metrics, "anteroom_panics_total", "").abs() < 0.5 && !metrics.contains("anteroom_panics_total 1"));
    let writes = world.writes.lock().expect("no panic").clone();
    assert!(writes.values().all(|times| *times == 1), "a write was sent twice");
    // And all is well again: every contact is served as it is.
    for contact in 0..CONTACTS {
        let list =
            format!("GET /public/api/v1/inboxes/in/contacts/c-{contact}/conversations HTTP/1.1\r\nhost: h\r\n\r\n");
        let waiting = async {
            loop {
                let mut talk =
                    Talk::new(TcpStream::connect(program.url.trim_start_matches("http://")).await.expect("it serves"));
                talk.send(&list).await;
                let answer = talk.message().await.expect("an answer");
                let version = clients.world.versions[usize::try_from(contact).expect("small")].load(Ordering::SeqCst);
                if answer.status() == 200 && answer.text().contains(&format!("\"version\":{version},")) {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("the list as it is");
    }
    program.signal("TERM").await;
    assert!(program.ended().await.success(), "no task was left: {}", program.stderr());
    listening.abort();
}
