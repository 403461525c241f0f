//! The clients of the model over real sockets, in real time, many at once: a server, an upstream, and whatever threads
//! and kernels make of it. Ages are not judged here, since nobody knows how late a busy machine is.
//!
//! `ATTACK_REQUESTS` says how many requests are sent (3,000).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::client::Client;
use super::register::{Manner, Register, Trouble};
use super::schedule::{Schedule, Sockets, Way};
use super::upstream::{Origin, Serving};
use super::{Dice, left_over};
use crate::support::{Proxy, settings};

/// So much faster than in the model.
const HASTE: u32 = 100;
/// Schedules at once, each with its own contacts.
const AT_ONCE: usize = 48;

const SETTINGS: &str = r#"
upstream.head_timeout = "2s"
upstream.fetch_timeout = "3s"
upstream.max_in_flight = 32
limits.connections_per_address = 4096
cache.max_body = "2KiB"
cache.memory = "4MiB"
cache.ttl = "200ms"
cache.stale_while_revalidate = "200ms"
cache.negative_ttl = "100ms"
cache.stale_if_error = "3s"
cache.settle = "50ms"
cache.settle_unknown = "300ms"
cache.wait = "3s"
"#;

/// The upstream, on a socket.
async fn listen(origin: Origin) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback can be bound");
    let address = listener.local_addr().expect("a bound socket has an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let origin = origin.clone();
            let service = hyper::service::service_fn(move |request| {
                let origin = origin.clone();
                async move { origin.answer(0, request).await }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_attack_over_sockets_breaks_the_rule() {
    let requests = super::variable("ATTACK_REQUESTS").unwrap_or(3_000);
    let origin = Origin::default();
    let upstream = listen(origin.clone()).await;
    let proxy = Proxy::in_front_of(&upstream, SETTINGS).await;
    let client: HttpClient<_, _> = HttpClient::builder(TokioExecutor::new()).build_http();
    let (sent, mut running, mut broken) = (Arc::new(AtomicU64::new(0)), JoinSet::new(), Vec::new());
    let (began, mut reloads) = (Instant::now(), 0_u64);
    for seed in 0.. {
        if sent.load(Ordering::Relaxed) >= requests || !broken.is_empty() {
            break;
        }
        // Answers of another form, of which nobody may see the older ones.
        if seed % 200 == 199 {
            reloads += 1;
            let validate = ["off", "report"][usize::from(reloads.is_multiple_of(2))];
            let config = settings(&upstream, &format!("{SETTINGS}payload.validate = \"{validate}\"\n"));
            proxy.state.reload(config).expect("the settings are good");
        }
        let way = Sockets { client: client.clone(), proxy: proxy.url.clone(), sent: sent.clone() };
        running.spawn(run(proxy.state.clone(), origin.clone(), seed, way));
        if running.len() >= AT_ONCE {
            broken.extend(running.join_next().await.expect("some run").expect("no schedule panics"));
        }
    }
    while let Some(ended) = running.join_next().await {
        broken.extend(ended.expect("no schedule panics"));
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    let sent = sent.load(Ordering::Relaxed);
    println!("{sent} requests over sockets in {:.1?}, {reloads} reloads", began.elapsed());
    let all_gone = async {
        while left_over(&proxy.state).iter().any(|(_, left)| *left != 0) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let gone = tokio::time::timeout(Duration::from_secs(20), all_gone).await;
    assert!(gone.is_ok(), "left over: {:?}", left_over(&proxy.state));
}

/// One schedule; what went wrong, if something did.
async fn run(state: Arc<anteroom::state::State>, origin: Origin, seed: u64, way: Sockets) -> Option<String> {
    let mut dice = Dice::new(seed);
    let manner = Manner::of(seed, &mut dice);
    // What nobody knows of one schedule would be taken to be so of the others.
    let manner = Manner { shows_contacts: true, trouble: Trouble::None, ..manner };
    let register = Arc::new(Mutex::new(Register::new(seed, manner)));
    let luck = Mutex::new(Dice::new(!seed).hasty(HASTE));
    origin.serves(seed, Serving { register: register.clone(), dice: luck });
    let mut schedule = Schedule::new(state, register, seed, Way::Sockets(Box::new(way)));
    schedule.is_timed = false;
    let schedule = Arc::new(schedule);
    let mut clients = JoinSet::new();
    for name in 0..2 + dice.below(4) {
        let dice = Dice::new(dice.roll()).hasty(HASTE);
        clients.spawn(Client::new(name, schedule.clone(), dice).active());
    }
    clients.join_all().await;
    origin.forgets(seed);
    schedule.broken()
}
