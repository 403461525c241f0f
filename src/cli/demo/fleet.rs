//! The acts of a demonstration with replicas: what one has acknowledged no other serves older, also while Redis is gone.

use std::sync::Arc;
use std::time::Duration;

use anteroom_stand_in::StandIn;
use http::StatusCode;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::claim::{Told, claim, claim_state, for_people};
use super::client::{Answer, Client};
use super::counted::Counted;
use super::redis::Redis;
use super::replicas::Replica;
use crate::cli::terminal::announce;
use crate::engine::metrics::Metrics;
use crate::engine::replicas::settings::CutOff;

const VISITOR: &str = "visitor-a";
/// Nobody waits longer than this until all replicas stand somewhere.
const LONGEST_WAIT: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// What the acts need: at least two replicas.
pub(super) struct FleetActs {
    pub(super) stand_in: Arc<StandIn>,
    pub(super) replicas: Vec<Replica>,
    /// None: it is somebody's, and not to be killed.
    pub(super) redis: Option<Arc<Mutex<Redis>>>,
    pub(super) cut_off: CutOff,
}

impl FleetActs {
    /// Plays all of them, a line each. Says at the end whether every claim held.
    pub(super) async fn play(self) {
        let stage = Stage {
            clients: self.replicas.iter().map(|it| Client::new(&format!("http://{}", it.proxy))).collect(),
            metrics: self.replicas.iter().map(|it| it.metrics.clone()).collect(),
            list: StandIn::list_path(VISITOR),
            acts: &self,
        };
        announce("\nThe acts, with what the client waited. Each claim is checked from the replicas' counters.\n\n");
        let start = stage.counted();
        let mut failed = 0;
        let mut tell = |act: &str, told: Result<Told, String>| {
            failed += usize::from(told.as_ref().is_ok_and(|told| !told.holds) || told.is_err());
            announce(&for_people(act, told));
        };
        let together = stage.together().await;
        let have_met = together.holds;
        tell("together", Ok(together));
        if !have_met {
            return announce(
                "\nUntil all of them reach Redis there is nothing to show: the log says why they do not.\n",
            );
        }
        tell("misses", stage.misses().await);
        tell("hits", stage.hits().await);
        tell("write", stage.write("Is anybody there?").await);
        tell("read elsewhere", stage.read_elsewhere("Is anybody there?").await);
        if let Some(redis) = &self.redis {
            let mut redis = redis.lock().await;
            redis.kill();
            tell("Redis killed", Ok(stage.alone().await));
            tell("read alone", stage.read_alone().await);
            tell("write alone", stage.write_alone("Still there?").await);
            tell("read elsewhere", stage.read_elsewhere_alone("Still there?").await);
            tell("its return", stage.its_return(&mut redis).await);
            tell("write again", stage.write("Here again.").await);
            tell("read elsewhere", stage.read_elsewhere("Here again.").await);
        } else {
            announce(
                "  (left out: what happens while Redis is gone, for this one is not the demonstration's to kill)\n",
            );
        }
        let all = stage.counted() - start;
        announce(&match failed {
            0 => format!("\nEvery claim held: {} lists from memory, {} upstream requests.\n", all.hits, all.upstream),
            _ => format!("\n{failed} of the claims did not hold: see above, and the settings that you gave.\n"),
        });
    }
}

/// Where the acts are played.
struct Stage<'a> {
    acts: &'a FleetActs,
    clients: Vec<Client>,
    metrics: Vec<Arc<Metrics>>,
    list: String,
}

impl Stage<'_> {
    fn counted(&self) -> Counted {
        Counted::now(&self.metrics)
    }

    async fn grown(&self, before: Counted, as_it_should: impl Fn(&Counted) -> bool) -> Counted {
        Counted::since(before, &self.metrics, as_it_should).await
    }

    fn first(&self) -> &Client {
        &self.clients[0]
    }

    fn last(&self) -> &Client {
        &self.clients[self.clients.len() - 1]
    }

    /// Waits until all of them stand so.
    async fn all_stand(&self, state: &str) -> (Duration, bool) {
        let count = self.clients.len() as u64;
        let stands = |metrics: &Arc<Metrics>| {
            let figures = metrics.figures();
            let knows_all = state != "leased" || figures.sum("anteroom_replicas_members") == count;
            knows_all && figures.by("anteroom_replicas_state", "state").get(state) == Some(&1)
        };
        let started = Instant::now();
        while !self.metrics.iter().all(stands) {
            if started.elapsed() > LONGEST_WAIT {
                return (started.elapsed(), false);
            }
            sleep(LOOK_AGAIN).await;
        }
        (started.elapsed(), true)
    }

    async fn together(&self) -> Told {
        let (took, holds) = self.all_stand("leased").await;
        claim_state(format!("{} replicas share what has changed through Redis", self.clients.len()), took, holds)
    }

    /// All of them read, one after the other: the answers, and how long they took together.
    async fn read_everywhere(&self) -> Result<(Answer, bool), String> {
        let started = Instant::now();
        let mut answers = Vec::new();
        for client in &self.clients {
            answers.push(client.get(&self.list).await?);
        }
        let first = answers[0].clone();
        let alike = answers.iter().all(|it| it.status == StatusCode::OK && it.body == first.body);
        Ok((Answer { took: started.elapsed(), ..first }, alike))
    }

    async fn misses(&self) -> Result<Told, String> {
        let (before, count) = (self.counted(), self.clients.len() as u64);
        let (answer, alike) = self.read_everywhere().await?;
        let grown = self.grown(before, |it| it.misses + it.joined + it.hits == count).await;
        let requests = if grown.upstream == 1 { "request" } else { "requests" };
        let words = format!("each is asked for a list that none has: {} upstream {requests}", grown.upstream);
        claim(words, &answer, grown, alike && (1..=count).contains(&grown.upstream))
    }

    async fn hits(&self) -> Result<Told, String> {
        let (before, count) = (self.counted(), self.clients.len() as u64);
        let (answer, alike) = self.read_everywhere().await?;
        let grown = self.grown(before, |it| it.hits == count).await;
        claim(
            "each has it in memory: no upstream request",
            &answer,
            grown,
            alike && (grown.hits, grown.upstream) == (count, 0),
        )
    }

    async fn post(&self, text: &str) -> Result<Answer, String> {
        let conversation = self.acts.stand_in.conversation_ids(VISITOR).last().copied().unwrap_or_default();
        let json = serde_json::json!({ "content": text }).to_string();
        self.first().post(&format!("{}/{conversation}/messages", self.list), json).await
    }

    async fn write(&self, text: &str) -> Result<Told, String> {
        let before = self.counted();
        let answer = self.post(text).await?;
        // No waiting: the others have to know of it before the answer comes.
        let others = (self.counted() - before).by_replica;
        let grown = self.grown(before, |it| it.writes == 1).await;
        let words = "a message passes through one; every other knows of it before the answer comes";
        let all = others >= self.clients.len() as u64 - 1;
        claim(words, &answer, grown, answer.status == StatusCode::OK && all && (grown.writes, grown.untold) == (1, 0))
    }

    async fn read_elsewhere(&self, text: &str) -> Result<Told, String> {
        let before = self.counted();
        let answer = self.last().get(&self.list).await?;
        let grown = self.grown(before, |it| (it.misses, it.upstream) == (1, 1)).await;
        let words = "another one fetches the list, and has the message";
        claim(words, &answer, grown, answer.holds(text) && (grown.misses, grown.upstream) == (1, 1))
    }

    async fn alone(&self) -> Told {
        let (took, holds) = self.all_stand("alone").await;
        claim_state("none can know any more what others have acknowledged", took, holds)
    }

    async fn read_alone(&self) -> Result<Told, String> {
        let before = self.counted();
        let answer = self.last().get(&self.list).await?;
        let grown = self.grown(before, |it| (it.alone, it.upstream) == (1, 1)).await;
        let words = "so each fetches what it is asked for: exact, and no faster than the API";
        let holds = answer.status == StatusCode::OK && (grown.alone, grown.hits, grown.upstream) == (1, 0, 1);
        claim(words, &answer, grown, holds)
    }

    async fn write_alone(&self, text: &str) -> Result<Told, String> {
        let before = self.counted();
        let answer = self.post(text).await?;
        let grown = self.grown(before, |it| it.writes + it.failed == 1).await;
        let status = answer.status.as_u16();
        let (words, holds) = match self.acts.cut_off {
            CutOff::Pass => (
                "it passes, and is counted: nobody could be told in time".to_owned(),
                status == 200 && grown.untold == 1,
            ),
            CutOff::Refuse => {
                (format!("refused, as it is set (replicas.cut_off): {status}"), matches!(status, 503 | 504))
            }
        };
        claim(words, &answer, grown, holds)
    }

    async fn read_elsewhere_alone(&self, text: &str) -> Result<Told, String> {
        let before = self.counted();
        let answer = self.last().get(&self.list).await?;
        let grown = self.grown(before, |it| it.alone == 1).await;
        let is_new = self.acts.cut_off == CutOff::Refuse || answer.holds(text);
        claim("another one has the API's newest list", &answer, grown, is_new && (grown.alone, grown.hits) == (1, 0))
    }

    async fn its_return(&self, redis: &mut Redis) -> Result<Told, String> {
        redis.start().await?;
        let (took, holds) = self.all_stand("leased").await;
        let before = self.counted();
        let (answer, alike) = self.read_everywhere().await?;
        let again = self.read_everywhere().await?.0;
        let grown = self.grown(before, |it| it.hits > 0).await;
        let words = "empty: everything kept is out of date once, then memory serves again";
        let count = self.clients.len() as u64;
        let holds = holds && alike && answer.body == again.body && grown.upstream <= count && grown.hits >= count;
        claim(words, &Answer { took, ..answer }, grown, holds)
    }
}
