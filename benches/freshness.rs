//! How long after a change behind the proxy's back a reader sees it: with webhooks that are late, lost and sent twice,
//! with the cable, and with neither. Against the stand-in, over loopback, in one run.
//!
//! `ANTEROOM_FRESHNESS_SECONDS` is how long changes are made (240 by default); after that the bound on age passes once
//! more, so that every change is seen.
#![expect(clippy::print_stdout, clippy::print_stderr, clippy::disallowed_methods, reason = "it measures and tells")]

mod support;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anteroom_stand_in::{Fate, Latency, Options, Shape, StandIn, Trouble, Webhook};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use support::{Client, ask, connect};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

const CONTACTS: usize = 100;
const CHANGES_EVERY: Duration = Duration::from_millis(300);
const READS_EVERY: Duration = Duration::from_millis(200);
const TTL: Duration = Duration::from_secs(60);
const STALE_WHILE_REVALIDATE: Duration = Duration::from_secs(15);
/// What a read itself may take on a busy machine.
const GRACE: Duration = Duration::from_secs(2);
/// What is read: of each contact one of these, in turn.
const READS: [&str; 3] = ["list", "conversation", "messages"];
const SECRET: &str = "freshness";

/// Who tells the proxy of a change.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Webhooks,
    Cable,
    Nobody,
}

/// What one of the three is made of.
struct Course {
    told: Told,
    stand_in: StandIn,
    proxy: SocketAddr,
    admin: SocketAddr,
    /// Changes that nobody has seen yet: for each contact, the message's id and when it was written.
    unseen: Mutex<HashMap<usize, Vec<(i64, Instant)>>>,
    /// Seconds from a change to the first read that shows it, by the read.
    seen: Mutex<[Vec<f64>; READS.len()]>,
    reads: AtomicUsize,
    hits: AtomicUsize,
    /// Reads after an event was heard, and those that did not bring what it told of.
    heard: AtomicUsize,
    heard_in_vain: AtomicUsize,
}

impl Course {
    async fn start(told: Told) -> Arc<Self> {
        let latency = Latency { base: Duration::from_millis(5), ..Latency::NONE };
        let options = Options { kept_requests: 100_000, latency, ..Options::default() };
        let stand_in = StandIn::start(options).await.expect("a stand-in");
        for contact in 0..CONTACTS {
            stand_in.seed(&source(contact), Shape { conversations: 1, messages: 5, bytes: 60 });
        }
        let mut text = format!(
            "cache.ttl = \"{}s\"\ncache.stale_while_revalidate = \"{}s\"\n",
            TTL.as_secs(),
            STALE_WHILE_REVALIDATE.as_secs()
        );
        text += match told {
            Told::Webhooks => "webhook.secrets = [\"freshness\"]\nwebhook.silent_after = \"10s\"",
            Told::Cable => "cable.observe = true",
            Told::Nobody => "",
        };
        let (proxy, admin) = support::proxy(&stand_in, &text).await;
        if told == Told::Webhooks {
            let trouble = Trouble { delay: Duration::ZERO..=Duration::from_secs(2), lost: 0.05, twice: 0.05, seed: 7 };
            let webhook = Webhook::account(format!("http://{proxy}/_anteroom/webhooks")).signed_with(SECRET);
            stand_in.send_webhooks_to(webhook.with(trouble));
        }
        Arc::new(Self {
            told,
            stand_in,
            proxy,
            admin,
            unseen: Mutex::default(),
            seen: Mutex::default(),
            reads: AtomicUsize::new(0),
            hits: AtomicUsize::new(0),
            heard: AtomicUsize::new(0),
            heard_in_vain: AtomicUsize::new(0),
        })
    }

    fn change(&self, contact: usize) {
        let mut unseen = self.unseen.lock().expect("no panic");
        let id = self.stand_in.agent_message(&source(contact), "An agent answers.");
        unseen.entry(contact).or_default().push((id, Instant::now()));
    }

    /// The path of what is read of a contact.
    fn path(&self, contact: usize) -> String {
        let list = StandIn::list_path(&source(contact));
        let conversation = self.stand_in.conversation_ids(&source(contact))[0];
        match READS[contact % READS.len()] {
            "list" => list,
            "conversation" => format!("{list}/{conversation}"),
            _ => format!("{list}/{conversation}/messages"),
        }
    }

    /// Reads a list, or one of the others, and notes what is seen for the first time.
    async fn read(&self, client: &mut Client, contact: usize) -> String {
        let (head, body) = ask(client, &self.path(contact), &[]).await;
        let now = Instant::now();
        self.reads.fetch_add(1, Ordering::Relaxed);
        let from_memory = head["cache-status"].as_bytes().starts_with(b"anteroom; hit");
        self.hits.fetch_add(usize::from(from_memory), Ordering::Relaxed);
        let body = String::from_utf8(body.to_vec()).expect("JSON");
        let mut unseen = self.unseen.lock().expect("no panic");
        unseen.entry(contact).or_default().retain(|(id, written)| {
            let shown = shows(&body, *id);
            if shown {
                let after = now.saturating_duration_since(*written);
                self.seen.lock().expect("no panic")[contact % READS.len()].push(after.as_secs_f64());
            }
            !shown
        });
        body
    }

    /// Reads the list of one contact again and again.
    async fn poll(self: Arc<Self>, contact: usize) {
        let mut client = connect(self.proxy).await;
        let mut turn = interval(READS_EVERY);
        loop {
            turn.tick().await;
            self.read(&mut client, contact).await;
        }
    }

    /// Holds a WebSocket through the proxy, and reads the list whenever a message is told of.
    async fn listen(self: Arc<Self>, contact: usize) {
        let (mut socket, _) = connect_async(format!("ws://{}/cable", self.proxy)).await.expect("a WebSocket");
        let token = self.stand_in.pubsub_token(&source(contact));
        let channel = json!({ "channel": "RoomChannel", "pubsub_token": token }).to_string();
        let subscribe = json!({ "command": "subscribe", "identifier": channel }).to_string();
        socket.send(Message::text(subscribe)).await.expect("an open WebSocket");
        let mut client = connect(self.proxy).await;
        while let Some(Ok(frame)) = socket.next().await {
            let Message::Text(text) = frame else { continue };
            let frame: Value = serde_json::from_str(&text).expect("JSON");
            if frame["message"]["event"] != "message.created" {
                continue;
            }
            let id = frame["message"]["data"]["id"].as_i64().expect("a message has an id");
            let body = self.read(&mut client, contact).await;
            self.heard.fetch_add(1, Ordering::Relaxed);
            self.heard_in_vain.fetch_add(usize::from(!shows(&body, id)), Ordering::Relaxed);
        }
    }

    fn missing(&self) -> usize {
        self.unseen.lock().expect("no panic").values().map(Vec::len).sum()
    }

    #[expect(clippy::cast_precision_loss, reason = "a share needs no 64 bits")]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a list")]
    async fn tell(&self) {
        let name = match self.told {
            Told::Webhooks => "webhooks",
            Told::Cable => "cable",
            Told::Nobody => "neither",
        };
        let seen = self.seen.lock().expect("no panic").clone();
        let (reads, hits) = (self.reads.load(Ordering::Relaxed), self.hits.load(Ordering::Relaxed));
        let bound = (TTL + STALE_WHILE_REVALIDATE + GRACE).as_secs_f64();
        println!("{name}, from memory {:5.1} %", 100.0 * hits as f64 / reads as f64);
        assert_eq!(self.missing(), 0, "{name}: every change was seen");
        for (read, mut seen) in READS.into_iter().zip(seen) {
            seen.sort_by(f64::total_cmp);
            let at = |share: f64| seen[((seen.len() - 1) as f64 * share) as usize];
            println!(
                "  {read:12} {:5} changes   p50 {:5.2} s   p90 {:5.2} s   p99 {:5.2} s   max {:5.2} s",
                seen.len(),
                at(0.5),
                at(0.9),
                at(0.99),
                at(1.0)
            );
            assert!(at(1.0) <= bound, "{name}, {read}: {:.2} s is beyond the bound of {bound} s", at(1.0));
        }
        match self.told {
            Told::Webhooks => {
                let deliveries = self.stand_in.deliveries();
                let lost = deliveries.iter().filter(|it| matches!(it.fate, Fate::Lost)).count();
                println!(
                    "          {} webhooks, {lost} of them lost; what the proxy found when it fetched again:",
                    deliveries.len()
                );
                let mut client = connect(self.admin).await;
                let (_, metrics) = ask(&mut client, "/metrics", &[]).await;
                let metrics = String::from_utf8(metrics.to_vec()).expect("text");
                for line in metrics.lines().filter(|line| {
                    [
                        "anteroom_untold_changes_total",
                        "anteroom_staleness_seconds_count",
                        "anteroom_staleness_seconds_sum",
                    ]
                    .iter()
                    .any(|name| line.starts_with(name))
                }) {
                    println!("          {line}");
                }
            }
            Told::Cable => {
                let (heard, in_vain) = (self.heard.load(Ordering::Relaxed), self.heard_in_vain.load(Ordering::Relaxed));
                println!("          {heard} reads on hearing of a message, {in_vain} without it");
                assert_eq!(in_vain, 0, "whoever hears of a message gets it");
            }
            Told::Nobody => {}
        }
    }
}

fn source(contact: usize) -> String {
    format!("fresh-{contact}")
}

fn shows(body: &str, id: i64) -> bool {
    body.contains(&format!("\"id\":{id},"))
}

async fn run(seconds: u64) {
    let mut courses = Vec::new();
    for told in [Told::Webhooks, Told::Cable, Told::Nobody] {
        courses.push(Course::start(told).await);
    }
    let mut busy = JoinSet::new();
    for course in &courses {
        for contact in 0..CONTACTS {
            busy.spawn(course.clone().poll(contact));
            if course.told == Told::Cable {
                busy.spawn(course.clone().listen(contact));
            }
        }
    }
    sleep(Duration::from_secs(2)).await;
    let began = Instant::now();
    let mut turn = interval(CHANGES_EVERY);
    let (mut contact, mut said) = (0, 0);
    while began.elapsed() < Duration::from_secs(seconds) {
        turn.tick().await;
        // All of them in turn, far apart.
        contact = (contact + 37) % CONTACTS;
        for course in &courses {
            course.change(contact);
        }
        if began.elapsed().as_secs() >= said + 30 {
            said += 30;
            eprintln!("{said} of {seconds} s of changes");
        }
    }
    let patience = TTL + STALE_WHILE_REVALIDATE + GRACE;
    eprintln!("waiting until the last change has been seen, at most {} s", patience.as_secs());
    let ended = Instant::now();
    while courses.iter().any(|course| course.missing() > 0) && ended.elapsed() < patience {
        sleep(Duration::from_millis(100)).await;
    }
    // Until the proxy knows which webhooks were lost.
    sleep(Duration::from_secs(12)).await;
    println!(
        "a change every {} ms to one of {CONTACTS} lists, each read every {} ms; TTL {} s, stale-while-revalidate {} s",
        CHANGES_EVERY.as_millis(),
        READS_EVERY.as_millis(),
        TTL.as_secs(),
        STALE_WHILE_REVALIDATE.as_secs()
    );
    println!("webhooks 0 to 2 s late, 5 % lost, 5 % twice; from the change to the first read that shows it:");
    for course in &courses {
        course.tell().await;
    }
}

fn main() {
    let seconds = std::env::var("ANTEROOM_FRESHNESS_SECONDS");
    let seconds = seconds.map_or(240, |text| text.parse().expect("ANTEROOM_FRESHNESS_SECONDS is a number"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run(seconds));
}
