//! The acts of the demonstration: each does something, and claims what the proxy has made of it. A claim is checked from
//! the answers and from the proxy's counters before it is told.

use std::sync::Arc;
use std::time::Duration;

use anteroom_stand_in::{StandIn, Webhook};
use http::{Method, StatusCode, header};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::cable::Cable;
use super::claim::{Told, claim, for_people};
use super::client::{Answer, Client};
use super::counted::Counted;
use crate::cli::terminal::announce;
use crate::engine::metrics::Metrics;
use crate::policy::http::freshness::Lifetimes;

/// Whose list most acts are about, and one whose list nobody has read.
const VISITOR: &str = "visitor-a";
const OTHER: &str = "visitor-b";
/// Readers at once, and how many of them share a connection: as many as the proxy lets.
const READERS: usize = 1000;
const READERS_A_CONNECTION: usize = 100;
/// Nobody waits longer than this for one act of a demonstration.
const LONGEST_WAIT: Duration = Duration::from_secs(40);
/// After its return the upstream is tried at least once a second.
const RETURN: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What the acts need.
pub(super) struct Acts {
    pub(super) stand_in: Arc<StandIn>,
    /// Of the one proxy.
    pub(super) metrics: [Arc<Metrics>; 1],
    /// The public listener, as `HOST:PORT`.
    pub(super) proxy: String,
    pub(super) webhook: Webhook,
    pub(super) lifetimes: Lifetimes,
}

impl Acts {
    /// Plays all of them, a line each. Says at the end whether every claim held.
    pub(super) async fn play(self) {
        let client = Client::new(&format!("http://{}", self.proxy));
        let stage = Stage { list: StandIn::list_path(VISITOR), client, acts: &self };
        announce("\nThe acts, with what the client waited. Each claim is checked from the proxy's counters.\n\n");
        let start = Counted::now(&self.metrics);
        let mut failed = 0;
        let mut tell = |act: &str, told: Result<Told, String>| {
            failed += usize::from(told.as_ref().is_ok_and(|told| !told.holds) || told.is_err());
            announce(&for_people(act, told));
        };
        tell("miss", stage.miss().await);
        tell("hit", stage.hit().await);
        tell("304", stage.not_modified().await);
        tell("write", stage.write("Is anybody there?").await);
        tell("read after it", stage.read_after_write("Is anybody there?").await);
        tell("1,000 readers", stage.crowd().await);
        tell("webhook", stage.webhook("We are here.").await);
        tell("WebSocket", stage.cable("What is it about?").await);
        tell("other reads", stage.other_reads().await);
        let read = Instant::now();
        let kept = stage.client.get(&stage.list).await;
        self.stand_in.go_down().await;
        tell("upstream killed", stage.killed().await);
        tell("stale-if-error", stage.stand_in_for_error(read, kept).await);
        tell("write meanwhile", stage.write_meanwhile().await);
        tell("its return", stage.recovery().await);
        let all = Counted::now(&self.metrics) - start;
        let from_memory = all.hits + all.joined + all.stood_in;
        announce(&match failed {
            0 => format!("\nEvery claim held: {from_memory} lists from memory, {} upstream requests.\n", all.upstream),
            _ => format!("\n{failed} of the claims did not hold: see above, and the settings that you gave.\n"),
        });
    }
}

/// Where the acts are played.
struct Stage<'a> {
    acts: &'a Acts,
    client: Client,
    list: String,
}

impl Stage<'_> {
    fn counted(&self) -> Counted {
        Counted::now(&self.acts.metrics)
    }

    async fn grown(&self, before: Counted, as_it_should: impl Fn(&Counted) -> bool) -> Counted {
        Counted::since(before, &self.acts.metrics, as_it_should).await
    }

    async fn miss(&self) -> Result<Told, String> {
        let before = self.counted();
        let answer = self.client.get(&self.list).await?;
        let grown = self.grown(before, |it| (it.misses, it.upstream) == (1, 1)).await;
        let words = "the API is asked for the list: 1 upstream request";
        claim(words, &answer, grown, (answer.status == StatusCode::OK) && (grown.misses, grown.upstream) == (1, 1))
    }

    async fn hit(&self) -> Result<Told, String> {
        let before = self.counted();
        let answer = self.client.get(&self.list).await?;
        let grown = self.grown(before, |it| it.hits == 1).await;
        let words = "the same list from memory: no upstream request";
        claim(words, &answer, grown, answer.status == StatusCode::OK && (grown.hits, grown.upstream) == (1, 0))
    }

    async fn not_modified(&self) -> Result<Told, String> {
        let known = self.client.get(&self.list).await?;
        let etag = known.headers.get(header::ETAG).and_then(|etag| etag.to_str().ok()).unwrap_or("*");
        let before = self.counted();
        let answer = self.client.ask(Method::GET, &self.list, &[(header::IF_NONE_MATCH, etag)], "").await?;
        let grown = self.grown(before, |it| it.hits == 1).await;
        let words = format!("who has the list is told so: 0 bytes instead of {}", known.body.len());
        let holds = answer.status == StatusCode::NOT_MODIFIED && answer.body.is_empty();
        claim(words, &answer, grown, holds && (grown.hits, grown.upstream) == (1, 0))
    }

    async fn write(&self, text: &'static str) -> Result<Told, String> {
        let before = self.counted();
        let conversation = self.acts.stand_in.conversation_ids(VISITOR).last().copied().unwrap_or_default();
        let answer = self.client.post(&format!("{}/{conversation}/messages", self.list), json_of(text)).await?;
        // No waiting: the list has to be out of date before the answer comes.
        let invalidated = (self.counted() - before).by_write;
        let grown = self.grown(before, |it| it.writes == 1).await;
        let words = "a message passes; the list is out of date before the answer comes";
        claim(words, &answer, grown, answer.status == StatusCode::OK && invalidated > 0 && grown.writes == 1)
    }

    async fn read_after_write(&self, text: &str) -> Result<Told, String> {
        let before = self.counted();
        let answer = self.client.get(&self.list).await?;
        let grown = self.grown(before, |it| (it.misses, it.upstream) == (1, 1)).await;
        let words = "the list is fetched again, and has the message";
        claim(words, &answer, grown, answer.holds(text) && (grown.misses, grown.upstream) == (1, 1))
    }

    /// All of them want a list that nobody has asked for yet.
    async fn crowd(&self) -> Result<Told, String> {
        let before = self.counted();
        let list = StandIn::list_path(OTHER);
        let connections = READERS.div_ceil(READERS_A_CONNECTION);
        let url = format!("http://{}", self.acts.proxy);
        let clients: Vec<_> = (0..connections).map(|_| Client::over_one_connection(&url)).collect();
        let started = Instant::now();
        let mut reading = JoinSet::new();
        for reader in 0..READERS {
            let (client, list) = (clients[reader % connections].clone(), list.clone());
            reading.spawn(async move { client.get(&list).await });
        }
        let answers: Vec<_> = reading.join_all().await.into_iter().collect::<Result<_, _>>()?;
        let took = started.elapsed();
        let first = answers.first().cloned().ok_or("nobody read")?;
        let all_alike = answers.iter().all(|it| it.status == StatusCode::OK && it.body == first.body);
        let all = |it: &Counted| it.misses + it.joined + it.hits == READERS as u64;
        let grown = self.grown(before, all).await;
        let Counted { misses, joined, hits, .. } = grown;
        let words = format!("at once: 1 upstream request ({misses} asks, {joined} wait with it, {hits} find it kept)");
        claim(words, &Answer { took, ..first }, grown, all_alike && all(&grown) && grown.upstream == 1)
    }

    /// An agent answers behind the proxy's back, and the application tells of it.
    async fn webhook(&self, text: &str) -> Result<Told, String> {
        self.client.get(&self.list).await?;
        self.acts.stand_in.send_webhooks_to(self.acts.webhook.clone());
        let (before, started) = (self.counted(), Instant::now());
        self.acts.stand_in.agent_message(VISITOR, text);
        self.grown(before, |it| it.by_webhook > 0).await;
        let told = started.elapsed();
        let answer = self.client.get(&self.list).await?;
        let grown = self.counted() - before;
        // The next acts are to be seen without them.
        self.acts.stand_in.stop_webhooks();
        let words = format!("an agent answers; {} ms later a webhook tells, and the list has it", told.as_millis());
        claim(words, &answer, grown, answer.holds(text) && grown.by_webhook > 0)
    }

    /// The same for a visitor with a WebSocket, who reloads when he hears of it.
    async fn cable(&self, text: &str) -> Result<Told, String> {
        let token = self.acts.stand_in.pubsub_token(VISITOR);
        let mut cable = Cable::subscribe(&self.acts.proxy, &token).await?;
        self.client.get(&self.list).await?;
        let before = self.counted();
        self.acts.stand_in.agent_message(VISITOR, text);
        cable.event("message.created").await?;
        let invalidated = (self.counted() - before).by_cable;
        let answer = self.client.get(&self.list).await?;
        let grown = self.counted() - before;
        let words = "an agent writes; who hears of it and reloads at once has it";
        claim(words, &answer, grown, answer.holds(text) && invalidated > 0)
    }

    /// What chat windows and portals ask for.
    async fn other_reads(&self) -> Result<Told, String> {
        let before = self.counted();
        let conversation = self.acts.stand_in.conversation_ids(VISITOR).last().copied().unwrap_or_default();
        let contact = self.list.trim_end_matches("/conversations").to_owned();
        let of_one = format!("{}/{conversation}", self.list);
        let mut last = None;
        for path in [&contact, &of_one, &format!("{of_one}/messages")] {
            let (fetched, kept) = (self.client.get(path).await?, self.client.get(path).await?);
            if fetched.status != StatusCode::OK || fetched.body != kept.body {
                return Err("it is another one the second time".to_owned());
            }
            last = Some(kept);
        }
        let answer = last.ok_or("nothing was read")?;
        let grown = self.grown(before, |it| (it.misses, it.hits) == (3, 3)).await;
        let words = "contact, conversation and messages, twice each: asked for once, then from memory";
        claim(words, &answer, grown, (grown.misses, grown.hits, grown.upstream) == (3, 3, 3))
    }

    async fn killed(&self) -> Result<Told, String> {
        let before = self.counted();
        let answer = self.client.get(&self.list).await?;
        let grown = self.grown(before, |it| it.hits == 1).await;
        let words = "nobody notices while the list is fresh: a hit";
        claim(words, &answer, grown, answer.status == StatusCode::OK && (grown.hits, grown.upstream) == (1, 0))
    }

    /// Waits until the list is too old by its own rule, and reads it all the same.
    async fn stand_in_for_error(&self, read: Instant, kept: Result<Answer, String>) -> Result<Told, String> {
        let kept = kept?;
        let Lifetimes { ttl, ttl_with_events, stale_while_revalidate, .. } = self.acts.lifetimes;
        let served_for = ttl.max(ttl_with_events.unwrap_or_default()).saturating_add(stale_while_revalidate);
        if served_for > LONGEST_WAIT {
            return Ok(Told::left_out(format!(
                "left out: the settings let a list be used for {} s",
                served_for.as_secs()
            )));
        }
        announce(&format!("  {:26} (nobody reads for {} s)\n", "", served_for.as_secs()));
        // Ages are told in whole seconds.
        sleep_until(read + served_for + Duration::from_secs(1)).await;
        let before = self.counted();
        let answer = self.client.get(&self.list).await?;
        let grown = self.grown(before, |it| it.stood_in == 1).await;
        let (age, rule) = (read.elapsed().as_secs(), served_for.as_secs());
        let words = format!("the list is {age} s old, more than its {rule} s, and stands in for the error");
        claim(words, &answer, grown, answer.body == kept.body && answer.status == StatusCode::OK && grown.stood_in == 1)
    }

    async fn write_meanwhile(&self) -> Result<Told, String> {
        let before = self.counted();
        let answer = self.client.post(&StandIn::list_path("visitor-c"), "{}").await?;
        let grown = self.grown(before, |it| it.failed == 1).await;
        let words = format!("nothing can stand in for it: {}, and at once", answer.status.as_u16());
        claim(words, &answer, grown, answer.status.is_server_error() && grown.failed == 1)
    }

    async fn recovery(&self) -> Result<Told, String> {
        self.acts.stand_in.come_back().await.map_err(|error| format!("it cannot come back: {error}"))?;
        let (before, started) = (self.counted(), Instant::now());
        loop {
            let answer = self.client.get(&self.list).await?;
            let grown = self.counted() - before;
            let is_fetched = answer.status == StatusCode::OK && answer.cache_status().contains("fwd=");
            if is_fetched || started.elapsed() > RETURN {
                let words = format!("the list is fetched again {} ms later", started.elapsed().as_millis());
                return claim(words, &answer, grown, is_fetched && grown.upstream > 0);
            }
            sleep(LOOK_AGAIN).await;
        }
    }
}

fn json_of(text: &str) -> String {
    serde_json::json!({ "content": text }).to_string()
}
