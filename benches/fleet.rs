//! What sharing costs, and what it saves: replicas, Redis and the stand-in on one machine, in one run.
//!
//! `FLEET_READERS` is how many readers there are of a cold list (10,000), `FLEET_WRITES` how many writes are timed (400).
#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "it measures and tells")]

mod support;

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anteroom::engine::replicas::keys;
use anteroom::engine::replicas::link::{Link, Names};
use anteroom::engine::replicas::settings::{CutOff, Door, Mode, RedisAddress, ReplicasSettings, Way};
use anteroom::policy::replicas::member::{Action, Member, Rules};
use anteroom::policy::replicas::pending::Pending;
use anteroom::policy::secret::Secret;
use anteroom_stand_in::{Latency, Options, Shape, StandIn};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::{ask, connect};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const SOURCE: &str = "visitor-a";
/// Lists that are read from Redis once.
const LISTS: usize = 400;
/// Readers of one connection.
const STREAMS: usize = 50;

/// A Redis of its own, gone with the benchmark.
struct Redis {
    folder: tempfile::TempDir,
    child: Child,
}

impl Redis {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--unixsocket", "redis.sock", "--save", "", "--appendonly", "no"]);
        command.current_dir(folder.path()).stdout(Stdio::null());
        let child = command.spawn().expect("redis-server is installed");
        let this = Self { folder, child };
        while Link::open(&this.settings()).await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
        this
    }

    fn socket(&self) -> String {
        self.folder.path().join("redis.sock").display().to_string()
    }

    fn toml(&self, more: &str) -> String {
        let socket = self.socket();
        format!(
            "replicas.redis = \"unix://{socket}\"\nreplicas.secret = \"{SECRET}\"\ncache.ttl = \"10m\"\ncache.settle = \"0s\"\n\
             cache.stale_if_error = \"1h\"\nlog.level = \"error\"\n{more}"
        )
    }

    fn settings(&self) -> ReplicasSettings {
        ReplicasSettings {
            redis: RedisAddress { way: Way::Server(Door::Unix(self.socket().into())), user: None, database: 0 },
            ca_file: None,
            password_file: None,
            secret: Secret::new(SECRET).expect("a secret"),
            prefix: "rest".to_owned(),
            mode: Mode::Strict,
            cut_off: CutOff::Pass,
            lease: Duration::from_millis(500),
            timeout: Duration::from_millis(150),
            ask_within: Duration::from_millis(50),
            tell_within: Duration::from_secs(1),
            alone_ttl: Duration::from_millis(500),
            tier: None,
        }
    }

    /// Processor time that it has used, in seconds: both kinds, from the system.
    fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("a process");
        let fields: Vec<&str> = stat.rsplit_once(") ").expect("a name").1.split(' ').collect();
        let ticks: f64 = fields[11..13].iter().map(|field| field.parse::<f64>().expect("a number")).sum();
        ticks / 100.0
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// So many replicas, once all have met: their public and their private listeners.
async fn fleet(stand_in: &StandIn, settings: &str, count: usize) -> Vec<(SocketAddr, SocketAddr)> {
    let mut proxies = Vec::new();
    for _ in 0..count {
        proxies.push(support::proxy(stand_in, settings).await);
    }
    for (_, admin) in &proxies {
        let mut client = connect(*admin).await;
        while !text(&ask(&mut client, "/ready", &[]).await.1).contains(&format!("leased, {count} of them")) {
            sleep(Duration::from_millis(20)).await;
        }
    }
    // The first writes of a new log wait for leases from before it.
    sleep(Duration::from_millis(700)).await;
    proxies
}

fn text(body: &Bytes) -> String {
    String::from_utf8_lossy(body).into_owned()
}

/// Sorted, then their middle, the 99th of a hundred and the last, in milliseconds.
fn told(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |hundredth: usize| times[(times.len() - 1) * hundredth / 100].as_secs_f64() * 1e3;
    format!("p50 {:6.2} ms   p99 {:6.2} ms   max {:6.2} ms   of {}", at(50), at(99), at(100), times.len())
}

type Writer = SendRequest<Full<Bytes>>;

async fn writer(address: SocketAddr) -> Writer {
    let stream = TcpStream::connect(address).await.expect("loopback");
    stream.set_nodelay(true).expect("a socket option");
    let (client, connection) = handshake(TokioIo::new(stream)).await.expect("a handshake");
    tokio::spawn(connection);
    client
}

/// A message; how long it took.
async fn write(writer: &mut Writer, stand_in: &StandIn, source: &str, content: &str) -> Duration {
    let display = stand_in.conversation_ids(source)[0];
    let path = format!("{}/{display}/messages", StandIn::list_path(source));
    let body = format!("{{\"content\":\"{content}\"}}");
    let request = Request::post(path).header("host", "bench.test").header("content-type", "application/json");
    let request = request.body(Full::new(body.into())).expect("a request");
    writer.ready().await.expect("an open connection");
    let began = Instant::now();
    let response = writer.send_request(request).await.expect("an answer");
    assert!(response.status().is_success(), "{}", response.status());
    response.into_body().collect().await.expect("a body");
    began.elapsed()
}

fn number(name: &str, or: usize) -> usize {
    std::env::var(name).map_or(or, |text| text.parse().expect("a number"))
}

/// Everybody at once, over three replicas that have nothing.
async fn cold(redis: &Redis) {
    let readers = number("FLEET_READERS", 10_000);
    let latency = Latency { base: Duration::from_millis(50), ..Latency::NONE };
    let stand_in = StandIn::start(Options { latency, ..Options::default() }).await.expect("a stand-in");
    for (what, tier) in [("", "true"), ("without the tier ", "false")] {
        let limits = "limits.connections = 30000\nlimits.connections_per_address = 30000\nlimits.requests = 30000\n\
                      limits.requests_per_address = 30000\ncache.wait = \"60s\"\nreplicas.fetch_wait = \"15s\"\n\
                      replicas.lease = \"3s\"\nreplicas.timeout = \"1400ms\"\nreplicas.tell_within = \"3s\"\nreplicas.read_timeout = \"1s\"\n\
                      replicas.fetch_lease = \"4s\"";
        let settings = redis.toml(&format!("{limits}\nreplicas.tier = {tier}\nreplicas.prefix = \"cold-{tier}\""));
        let proxies = fleet(&stand_in, &settings, 3).await;
        let mut clients = Vec::new();
        for at in 0..readers.div_ceil(STREAMS) {
            let stream = TcpStream::connect(proxies[at % proxies.len()].0).await.expect("loopback");
            let (client, connection) =
                http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
            tokio::spawn(connection);
            clients.push(client);
        }
        let before = stand_in.list_requests(SOURCE);
        let began = Instant::now();
        let mut reading = JoinSet::new();
        for at in 0..readers {
            let mut client = clients[at / STREAMS].clone();
            reading.spawn(async move {
                let url = format!("http://bench.test{}", StandIn::list_path(SOURCE));
                let request = Request::get(url).body(Full::<Bytes>::default()).expect("a request");
                let answer = client.send_request(request).await.expect("an answer");
                assert!(answer.status().is_success(), "{}", answer.status());
                answer.into_body().collect().await.expect("a body");
            });
        }
        reading.join_all().await;
        let (took, asked) = (began.elapsed().as_secs_f64(), stand_in.list_requests(SOURCE) - before);
        println!("{readers} readers of a cold list over 3 replicas {what}: {asked} upstream requests, {took:.2} s");
    }
}

/// What a write costs more, and when the last replica has it.
async fn writes(redis: &Redis) {
    let count = number("FLEET_WRITES", 400);
    let stand_in = StandIn::start(Options::default()).await.expect("a stand-in");
    for (mode, members) in [("alone", 1), ("strict", 3), ("strict", 10), ("async", 3), ("async", 10)] {
        let settings = if mode == "alone" {
            "cache.ttl = \"10m\"\ncache.settle = \"0s\"\nlog.level = \"error\"".to_owned()
        } else {
            redis.toml(&format!("replicas.mode = \"{mode}\"\nreplicas.prefix = \"{mode}-{members}\""))
        };
        let proxies = match mode {
            "alone" => vec![support::proxy(&stand_in, &settings).await],
            _ => fleet(&stand_in, &settings, members).await,
        };
        let mut writer = writer(proxies[0].0).await;
        let (mut wrote, mut agreed) = (Vec::new(), Vec::new());
        let cpu = redis.cpu();
        let all = Instant::now();
        for at in 0..count {
            let (content, source) = (format!("number-{at}."), format!("{mode}-{members}-{}", at / 20));
            if at % 20 == 0 {
                // No list grows long.
                stand_in.seed(&source, Shape { conversations: 1, messages: 10, bytes: 100 });
            }
            wrote.push(write(&mut writer, &stand_in, &source, &content).await);
            // From the acknowledgement until a reader of whichever replica has it: each asks at once, until then.
            let acknowledged = Instant::now();
            let mut reading = JoinSet::new();
            for (address, _) in &proxies {
                let (address, content, path) = (*address, content.clone(), StandIn::list_path(&source));
                reading.spawn(async move {
                    let mut client = connect(address).await;
                    let mut reads = 0;
                    loop {
                        let (_, body) = ask(&mut client, &path, &[]).await;
                        reads += 1;
                        if text(&body).contains(&content) {
                            return reads;
                        }
                    }
                });
            }
            let reads = reading.join_all().await;
            assert!(mode == "async" || reads.iter().all(|reads| *reads == 1), "strict: the first read has it");
            agreed.push(acknowledged.elapsed());
        }
        let (took, cpu) = (all.elapsed().as_secs_f64(), redis.cpu() - cpu);
        println!("a write, {mode:6} {members:2}          {}", told(wrote));
        println!("  until all show it          {}   Redis {:.1} % of a core", told(agreed), 100.0 * cpu / took);
    }
}

/// Each list once from Redis, once from memory, and once from an upstream that answers at once.
async fn tier(redis: &Redis) {
    let stand_in = StandIn::start(Options::default()).await.expect("a stand-in");
    let paths: Vec<String> = (0..LISTS)
        .map(|at| {
            let source = format!("list-{at}");
            stand_in.seed(&source, Shape { conversations: 2, messages: 12, bytes: 100 });
            StandIn::list_path(&source)
        })
        .collect();
    let proxies = fleet(&stand_in, &redis.toml("replicas.prefix = \"tier\""), 2).await;
    let (mut first, mut second) = (connect(proxies[0].0).await, connect(proxies[1].0).await);
    let mut bytes = 0;
    for (what, from_second) in [("from the upstream", false), ("from Redis", true), ("from memory", true)] {
        let mut times = Vec::new();
        for path in &paths {
            let client = if from_second { &mut second } else { &mut first };
            let began = Instant::now();
            let (head, body) = ask(client, path, &[]).await;
            times.push(began.elapsed());
            bytes = body.len();
            let status = head["cache-status"].to_str().expect("text").to_owned();
            assert_eq!(status.contains("detail=replica"), what == "from Redis", "{what}: {status}");
        }
        println!("a list {what:18}   {}", told(times));
        sleep(Duration::from_millis(500)).await;
    }
    println!("  of {bytes} bytes");
}

/// Members with nothing to tell, in a time of their own, against the real script: how often they ask, and what that costs.
async fn at_rest(redis: &Redis) {
    const SECONDS: u64 = 20;
    let settings = redis.settings();
    let agreement = keys::of_agreement(&settings);
    let mut link = Link::open(&settings).await.expect("Redis");
    for count in [3_u64, 10, 50] {
        let names = Names::new(&format!("rest-{count}"), agreement);
        let rules = Rules { lease: 500_000, told_when_appended: false };
        let mut members: Vec<(Member, Pending)> =
            (0..count).map(|at| (Member::new((u128::from(at) + 1).to_be_bytes(), rules), Pending::default())).collect();
        let (mut now, mut asked) = (1_000_000_u64, 0_u32);
        let (cpu, began) = (redis.cpu(), Instant::now());
        while now < (SECONDS + 1) * 1_000_000 {
            for (member, pending) in &mut members {
                for action in member.poll(now, pending) {
                    let Action::Send(request) = action else { continue };
                    asked += 1;
                    let random = ([7; 16], 1);
                    let reply = link.exchange(&names, member.id(), &request, random).await.expect("a reply");
                    member.replied(request.number, reply, now, pending);
                }
            }
            now = members
                .iter()
                .map(|(member, pending)| member.next_poll(now, pending))
                .min()
                .expect("members")
                .max(now + 1);
        }
        let (cpu, took) = (redis.cpu() - cpu, began.elapsed().as_secs_f64());
        let (a_second, each) = (f64::from(asked) / 20.0, cpu / f64::from(asked));
        println!(
            "{count:2} members at rest: {a_second:.0} exchanges a second, {:.0} µs of Redis each: {:.1} % of a core   ({:.0} µs in all)",
            each * 1e6,
            100.0 * each * a_second,
            took / f64::from(asked) * 1e6
        );
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let redis = Redis::start().await;
        at_rest(&redis).await;
        tier(&redis).await;
        writes(&redis).await;
        cold(&redis).await;
    });
}
