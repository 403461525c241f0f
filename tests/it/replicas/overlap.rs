//! Readers and writers at once, over three replicas: nobody reads what is older than what was acknowledged before he asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anteroom_stand_in::StandIn;
use http::StatusCode;

use super::fleet;
use crate::support::{Proxy, client, spawn};

const SOURCES: [&str; 2] = ["visitor-a", "visitor-b"];
const READERS: usize = 12;
/// Readers go on until there were so many writes, however slow the machine is with these.
const WRITES: u64 = 24;

/// How many reads: more with `make model`.
fn reads() -> u64 {
    std::env::var("REPLICA_READS").ok().and_then(|reads| reads.parse().ok()).unwrap_or(3_000)
}

/// What there was to see.
#[derive(Default)]
struct Seen {
    /// Of each source: the number of the last message that was acknowledged.
    acknowledged: [AtomicU64; 2],
    reads: AtomicU64,
    hits: AtomicU64,
    stale: AtomicU64,
    writes: AtomicU64,
}

impl Seen {
    fn is_enough(&self, reads: u64) -> bool {
        self.reads.load(Ordering::Relaxed) >= reads && self.writes.load(Ordering::Relaxed) >= WRITES
    }
}

/// The greatest number that a message of a list bears.
fn last_number(list: &str) -> u64 {
    list.match_indices("number-")
        .filter_map(|(at, word)| {
            let digits: String = list[at + word.len()..].chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<u64>().ok()
        })
        .max()
        .unwrap_or(0)
}

async fn read(
    url: &str,
    http: &hyper_util::client::legacy::Client<
        hyper_util::client::legacy::connect::HttpConnector,
        http_body_util::Full<bytes::Bytes>,
    >,
) -> (bool, u64) {
    let request = crate::support::request("GET", url, &[], "");
    let response = http.request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let is_hit = response.headers()["cache-status"].to_str().unwrap().starts_with("anteroom; hit");
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    (is_hit, last_number(std::str::from_utf8(&body).unwrap()))
}

/// Reads and writes until there were enough reads, while `meanwhile` goes on.
async fn overlap(stand_in: &StandIn, proxies: &[Proxy], enough: u64, meanwhile: impl Future<Output = ()>) -> Arc<Seen> {
    let seen = Arc::new(Seen::default());
    let mut tasks = Vec::new();
    for reader in 0..READERS {
        let which = reader % SOURCES.len();
        let urls: Vec<String> = proxies.iter().map(|proxy| proxy.list_url(SOURCES[which])).collect();
        let seen = seen.clone();
        tasks.push(spawn(async move {
            let http = client();
            for at in reader.. {
                if seen.is_enough(enough) {
                    return;
                }
                if seen.reads.fetch_add(1, Ordering::Relaxed) >= enough {
                    // The writer is behind.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                let least = seen.acknowledged[which].load(Ordering::SeqCst);
                let (is_hit, number) = read(&urls[at % urls.len()], &http).await;
                seen.hits.fetch_add(u64::from(is_hit), Ordering::Relaxed);
                if number < least {
                    seen.stale.fetch_add(1, Ordering::Relaxed);
                }
            }
        }));
    }
    let writing = async {
        let http = client();
        for at in 1_usize.. {
            let number = at as u64;
            if seen.is_enough(enough) {
                return;
            }
            let (which, proxy) = (at % 2, &proxies[at % proxies.len()]);
            let display = stand_in.conversation_ids(SOURCES[which])[0];
            let url = format!("{}/conversations/{display}/messages", proxy.contact_url(SOURCES[which]));
            let body = format!("{{\"content\":\"number-{number}\"}}");
            let untold = proxy.state.metrics.replicas.untold.get();
            let write = crate::support::request("POST", &url, &[("content-type", "application/json")], &body);
            let status = http.request(write).await.unwrap().status();
            // What was acknowledged though nobody could be told of it is another promise.
            if status == StatusCode::OK && proxy.state.metrics.replicas.untold.get() == untold {
                seen.acknowledged[which].fetch_max(number, Ordering::SeqCst);
            }
            seen.writes.fetch_add(1, Ordering::Relaxed);
            // About one write for so many reads, however fast either is.
            let next = seen.reads.load(Ordering::Relaxed) + 60;
            while seen.reads.load(Ordering::Relaxed) < next.min(enough) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    };
    tokio::select! {
        () = async { tokio::join!(writing, meanwhile); } => {}
        () = async { for task in tasks { task.await.unwrap(); } } => {}
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_reads_what_is_older_than_an_acknowledged_write() {
    let (stand_in, _redis, proxies) =
        fleet(3, "cache.ttl = \"5m\"\ncache.settle = \"0s\"\nlog.level = \"error\"").await;
    let seen = overlap(&stand_in, &proxies, reads(), async {}).await;
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let written: u64 = seen.acknowledged.iter().map(count).max().unwrap();
    println!("{} reads, {} hits, {written} writes, {} stale", reads(), count(&seen.hits), count(&seen.stale));
    assert_eq!(count(&seen.stale), 0);
    assert!(written > 10 && count(&seen.hits) * 100 > reads() * 70, "{} hits of {}", count(&seen.hits), reads());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_does_while_redis_dies_and_comes_back() {
    let (stand_in, redis, proxies) = fleet(3, "cache.ttl = \"5m\"\ncache.settle = \"0s\"\nlog.level = \"error\"").await;
    let ends = std::cell::Cell::new(0_u32);
    let dying = async {
        let mut redis = redis;
        loop {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            redis.signal("KILL").await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            redis.restart_dead().await;
            ends.set(ends.get() + 1);
        }
    };
    let seen = overlap(&stand_in, &proxies, reads(), dying).await;
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
    println!("Redis killed {} times: {} hits, {} stale", ends.get(), count(&seen.hits), count(&seen.stale));
    assert_eq!(count(&seen.stale), 0);
}
