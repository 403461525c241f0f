//! Several addresses of the upstream: all are used, dead ones cost nobody anything, and a name that moves is followed.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anteroom::engine::metrics::Metrics;
use anteroom::engine::upstream::addresses::Resolve;
use anteroom::engine::upstream::client::Upstream;
use anteroom::server::listeners::Server;
use anteroom::state::State;
use http::StatusCode;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::support::raw::{Scripted, Talk};
use crate::support::{Answer, Proxy, get, jump, settings, spawn};

const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok";

/// A proxy whose upstream's name has the addresses that a test gives.
struct Named {
    url: String,
    metrics: Arc<Metrics>,
    running: tokio::task::JoinHandle<()>,
}

impl Named {
    async fn start(resolve: Resolve, more: &str) -> Self {
        let metrics = Arc::new(Metrics::new());
        let config = settings("http://chat.test:3000", more);
        let upstream = Upstream::resolving(resolve, config.upstream.clone(), metrics.clone()).unwrap();
        let server = config.server.clone();
        let server = Server::bind(State::with(config, upstream, metrics.clone()), server).await.unwrap();
        let url = format!("http://{}", server.addresses().unwrap().port().unwrap());
        let running = spawn(async move {
            server.run(std::future::pending()).await;
        });
        Self { url, metrics, running }
    }

    async fn get(&self) -> Answer {
        tokio::time::timeout(Duration::from_secs(60), get(&format!("{}/x", self.url))).await.expect("no hanging")
    }

    fn left_out(&self) -> i64 {
        self.metrics.ways.addresses.with_label_values(&["left_out"]).get()
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// Always these.
fn fixed(addresses: &[SocketAddr]) -> Resolve {
    let addresses = addresses.to_vec();
    Arc::new(move |_, _| Ok(addresses.clone()))
}

/// An address that swallows packets: a listener that takes nothing up, with its backlog full.
struct BlackHole {
    address: SocketAddr,
    _held: (TcpListener, Vec<tokio::task::JoinHandle<std::io::Result<TcpStream>>>),
}

impl BlackHole {
    async fn at(address: &str) -> Self {
        let address: SocketAddr = address.parse().unwrap();
        let socket = if address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }.unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut held: Vec<_> = Vec::new();
        loop {
            let mut one = spawn(TcpStream::connect(address));
            let is_taken = tokio::time::timeout(Duration::from_millis(200), &mut one).await;
            if let Ok(stream) = is_taken {
                held.push(spawn(async move { stream.unwrap() }));
            } else {
                held.push(one);
                return Self { address, _held: (listener, held) };
            }
        }
    }
}

/// An upstream at an address of its own, that says how many connections it had.
async fn at(address: &str) -> Scripted {
    Scripted::start_at(address, |_, mut talk| async move { serve(&mut talk).await }).await
}

async fn serve(talk: &mut Talk) {
    while talk.message().await.is_some() {
        talk.send(ANSWER).await;
    }
}

#[tokio::test]
async fn an_address_that_swallows_packets_costs_one_request_a_moment_and_the_others_nothing() {
    let (hole, live) = (BlackHole::at("127.0.0.1:0").await, at("127.0.0.2:0").await);
    let proxy = Named::start(fixed(&[hole.address, live.address]), "upstream.pool_idle = \"1ms\"").await;
    let began = tokio::time::Instant::now();
    for _ in 0..20 {
        assert_eq!(proxy.get().await.status, StatusCode::OK);
    }
    // Each connection that waits for the dead one would cost 250 ms, and the connect limit is 3 s.
    assert!(began.elapsed() < Duration::from_millis(2_500), "{:?}", began.elapsed());
    assert_eq!(proxy.left_out(), 1);
}

#[tokio::test]
async fn when_one_family_is_dead_the_other_serves() {
    let (hole, live) = (BlackHole::at("[::1]:0").await, at("127.0.0.1:0").await);
    let proxy = Named::start(fixed(&[live.address, hole.address]), "upstream.connection_max_age = \"1ms\"").await;
    assert_eq!(proxy.get().await.status, StatusCode::OK);
    // IPv6 is tried first, and left out after that.
    assert_eq!(proxy.left_out(), 1);
}

#[tokio::test]
async fn a_dead_address_is_probed_and_used_again() {
    let live = at("127.0.0.1:0").await;
    let reserved = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let dead = reserved.local_addr().unwrap();
    drop(reserved);
    let every = "upstream.connection_max_age = \"1ms\"\nupstream.pool_idle = \"1ms\"";
    let proxy = Named::start(fixed(&[dead, live.address]), every).await;
    assert_eq!(proxy.get().await.status, StatusCode::OK);
    assert_eq!(proxy.left_out(), 1);
    let back = at(&dead.to_string()).await;
    while proxy.left_out() > 0 {
        jump(Duration::from_millis(1_100)).await;
        assert_eq!(proxy.get().await.status, StatusCode::OK);
    }
    while back.connections() < 2 {
        jump(Duration::from_millis(1_100)).await;
        assert_eq!(proxy.get().await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn all_addresses_of_a_name_are_used() {
    let upstreams = [at("127.0.0.1:0").await, at("127.0.0.2:0").await, at("127.0.0.3:0").await];
    let addresses: Vec<_> = upstreams.iter().map(|upstream| upstream.address).collect();
    let proxy = Named::start(fixed(&addresses), "").await;
    let path = format!("{}/x", proxy.url);
    for _ in 0..40 {
        let many: Vec<_> = (0..12)
            .map(|_| {
                spawn({
                    let path = path.clone();
                    async move { get(&path).await.status }
                })
            })
            .collect();
        for one in many {
            assert_eq!(one.await.unwrap(), StatusCode::OK);
        }
        if upstreams.iter().all(|upstream| upstream.connections() > 0) {
            return;
        }
    }
    panic!("some address was never used");
}

#[tokio::test]
async fn a_name_that_moves_is_followed_though_somebody_asks_all_the_time() {
    let (old, new) = (at("127.0.0.1:0").await, at("127.0.0.2:0").await);
    let now = Arc::new(Mutex::new(old.address));
    let told = now.clone();
    let proxy = Named::start(Arc::new(move |_, _| Ok(vec![*told.lock().unwrap()])), "").await;
    assert_eq!(proxy.get().await.status, StatusCode::OK);
    *now.lock().unwrap() = new.address;
    // Twice a second, by the clock that moves; never idle for so long that the pool would drop the connection.
    let mut asked = 0;
    while new.connections() == 0 {
        jump(Duration::from_millis(500)).await;
        assert_eq!(proxy.get().await.status, StatusCode::OK);
        asked += 1;
        // Long before the connection would be too old.
        assert!(asked < 200, "it is not followed");
    }
    assert_eq!(old.connections(), 1);
}

#[tokio::test]
async fn no_connection_is_used_beyond_its_age() {
    let upstream = at("127.0.0.1:0").await;
    let proxy = Proxy::in_front_of(&upstream.url(), "upstream.connection_max_age = \"30s\"").await;
    for _ in 0..100 {
        assert_eq!(get(&format!("{}/x", proxy.url)).await.status, StatusCode::OK);
        jump(Duration::from_secs(1)).await;
    }
    assert!((3..=5).contains(&upstream.connections()), "{}", upstream.connections());
}

#[tokio::test]
async fn a_resolver_that_hangs_stops_nobody_who_has_an_address() {
    let upstream = at("127.0.0.1:0").await;
    let (hangs, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (address, hanging, counting) = (upstream.address, hangs.clone(), asked.clone());
    let proxy = Named::start(
        Arc::new(move |_, _| {
            counting.fetch_add(1, Ordering::SeqCst);
            while hanging.load(Ordering::SeqCst) {
                std::thread::park_timeout(Duration::from_millis(20));
            }
            Ok(vec![address])
        }),
        "upstream.connection_max_age = \"1ms\"",
    )
    .await;
    assert_eq!(proxy.get().await.status, StatusCode::OK);
    hangs.store(true, Ordering::SeqCst);
    for _ in 0..60 {
        jump(Duration::from_secs(6)).await;
        assert_eq!(proxy.get().await.status, StatusCode::OK);
    }
    // No more threads wait for it than a few.
    let waiting = asked.load(Ordering::SeqCst) - 1;
    assert!((1..=4).contains(&waiting), "{waiting}");
    hangs.store(false, Ordering::SeqCst);
}

#[tokio::test]
async fn a_name_that_never_resolves_is_told_within_the_limit_and_takes_no_other_thread() {
    let (hangs, is_over) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let (hanging, over) = (hangs.clone(), is_over.clone());
    let proxy = Named::start(
        Arc::new(move |_, _| {
            while hanging.load(Ordering::SeqCst) {
                std::thread::park_timeout(Duration::from_millis(20));
            }
            over.fetch_add(1, Ordering::SeqCst);
            Ok(Vec::new())
        }),
        "upstream.connect_timeout = \"300ms\"",
    )
    .await;
    let many: Vec<_> = (0..50)
        .map(|_| {
            let url = format!("{}/x", proxy.url);
            spawn(async move { get(&url).await })
        })
        .collect();
    for one in many {
        let answer = one.await.unwrap();
        assert!(answer.header("proxy-status").unwrap().contains("error=dns_timeout"), "{answer:?}");
    }
    // Work of other kinds has its threads.
    tokio::task::spawn_blocking(|| ()).await.unwrap();
    assert_eq!(is_over.load(Ordering::SeqCst), 0);
    hangs.store(false, Ordering::SeqCst);
}

#[tokio::test]
async fn of_several_urls_all_are_used_and_a_dead_one_is_passed_over() {
    let (one, other) = (at("127.0.0.1:0").await, at("127.0.0.1:0").await);
    let reserved = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = reserved.local_addr().unwrap();
    drop(reserved);
    let urls = format!(
        "upstream.url = [\"http://{dead}\", \"{}\", \"{}\"]\nupstream.connection_max_age = \"1ms\"",
        one.url(),
        other.url()
    );
    let proxy = Proxy::with_settings(&urls).await;
    for _ in 0..20 {
        assert_eq!(get(&format!("{}/x", proxy.url)).await.status, StatusCode::OK);
        jump(Duration::from_millis(1_100)).await;
    }
    assert!(one.connections() > 3 && other.connections() > 3, "{} {}", one.connections(), other.connections());
}
