//! All reads of one contact mixed at random, by several clients at once over sockets, with writes through the proxy and changes of
//! which nobody tells. Each answer is held against what its client has seen before, in whatever read, and against what was
//! acknowledged to anybody before it was asked for. The list is asked for again now and then by force, so that refetches,
//! 304s and joined flights meet.
//!
//! `MIXED_REQUESTS` says how many requests are sent (1,500).

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anteroom::policy::http::key::Key;
use anteroom::policy::resource::Resource;
use anteroom_stand_in::{INBOX, Shape, StandIn};
use http::StatusCode;
use serde_json::Value;

use crate::support::{Proxy, both, get, post, request, send, spawn};

const WHO: &str = "somebody";
const CLIENTS: u64 = 6;
/// Short, so that answers become stale and are refreshed, some behind and some while readers wait.
const SETTINGS: &str = "cache.ttl = \"60ms\"\ncache.stale_while_revalidate = \"60ms\"\ncache.settle = \"0s\"\n";

/// What must be seen: the newest message of each conversation, and which name the contact has.
#[derive(Clone, Debug, Default)]
struct Seen {
    newest: HashMap<i64, i64>,
    name: u64,
}

impl Seen {
    fn raise(&mut self, other: &Self) {
        for (conversation, newest) in &other.newest {
            let known = self.newest.entry(*conversation).or_default();
            *known = (*known).max(*newest);
        }
        self.name = self.name.max(other.name);
    }

    /// What is less here than there, where it is shown at all.
    fn lacks(&self, other: &Self) -> Option<String> {
        let message = self.newest.iter().find(|(conversation, newest)| other.newest.get(conversation) > Some(newest));
        let name =
            (self.name > 0 && self.name < other.name).then(|| format!("name {} after {}", self.name, other.name));
        message
            .map(|(conversation, newest)| {
                format!("message {newest} of {conversation}, not {:?}", other.newest[conversation])
            })
            .or(name)
    }
}

/// The number in a name such as `n7`.
fn number(name: &Value) -> u64 {
    name.as_str().and_then(|name| name.strip_prefix('n')?.parse().ok()).unwrap_or(0)
}

fn newest(messages: &Value) -> i64 {
    messages.as_array().unwrap().iter().map(|message| message["id"].as_i64().unwrap()).max().unwrap_or(0)
}

/// What an answer shows.
fn shown(resource: Resource, body: &Value) -> Seen {
    let mut seen = Seen::default();
    let mut conversation = |one: &Value| {
        seen.newest.insert(one["id"].as_i64().unwrap(), newest(&one["messages"]));
        seen.name = number(&one["contact"]["name"]);
    };
    match resource {
        Resource::Conversations => body.as_array().unwrap().iter().for_each(conversation),
        Resource::Conversation(_) => conversation(body),
        Resource::Messages(display) => {
            seen.newest.insert(i64::try_from(display).unwrap(), newest(body));
            let senders = body.as_array().unwrap().iter().filter(|message| message["sender"]["type"] == "contact");
            seen.name = senders.map(|message| number(&message["sender"]["name"])).max().unwrap_or(0);
        }
        Resource::Contact => seen.name = number(&body["name"]),
    }
    seen
}

struct Mixed {
    stand_in: StandIn,
    proxy: Proxy,
    conversations: Vec<u64>,
    acknowledged: Mutex<Seen>,
    names: AtomicU64,
    left: AtomicI64,
}

impl Mixed {
    fn acknowledged(&self) -> Seen {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn acknowledge(&self, seen: &Seen) {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).raise(seen);
    }

    fn url(&self, below: &str) -> String {
        format!("{}{below}", self.proxy.contact_url(WHO))
    }

    /// A client who asks one thing after the other. Of those that hear of writes, one in three writes himself.
    async fn client(self: Arc<Self>, name: u64, draws: u64) {
        let mut dice = super::model::Dice::new(draws + 1);
        let mut seen = Seen::default();
        while self.left.fetch_sub(1, Ordering::Relaxed) > 0 {
            let conversation = self.conversations[dice.up_to(self.conversations.len())];
            match dice.below(20) {
                0 => {
                    let below = format!("/conversations/{conversation}/messages");
                    let answer = post(&self.url(&below), r#"{"content":"by the contact"}"#).await;
                    let written: Value = serde_json::from_slice(&answer.body).unwrap();
                    let newest =
                        HashMap::from([(i64::try_from(conversation).unwrap(), written["id"].as_i64().unwrap())]);
                    self.acknowledge(&Seen { newest, name: 0 });
                }
                // One after the other, or nobody knows which name is the last.
                1 if name == 0 => {
                    let next = self.names.fetch_add(1, Ordering::Relaxed);
                    let body = format!(r#"{{"name":"n{next}"}}"#);
                    let fields = [("content-type", "application/json")];
                    assert_eq!(send(request("PATCH", &self.url(""), &fields, &body)).await.status, StatusCode::OK);
                    self.acknowledge(&Seen { name: next, ..Seen::default() });
                }
                2 if name == 0 => {
                    let next = self.names.fetch_add(1, Ordering::Relaxed);
                    self.stand_in.rename_contact(WHO, &format!("n{next}"));
                }
                3 => _ = self.stand_in.agent_message(WHO, "nobody tells"),
                4 => {
                    let key = Key::of(Resource::Conversations, INBOX, WHO, None);
                    let cache = &self.proxy.state.cache;
                    cache.store.forget(&key, self.proxy.state.invalidation.ledger.now());
                }
                5 => tokio::time::sleep(std::time::Duration::from_millis(dice.below(90))).await,
                _ => self.read(conversation, &mut dice, &mut seen, name).await,
            }
        }
    }

    async fn read(&self, conversation: u64, dice: &mut super::model::Dice, seen: &mut Seen, name: u64) {
        let resource = match dice.below(5) {
            0 => Resource::Conversations,
            1 => Resource::Conversation(conversation),
            2 => Resource::Contact,
            _ => Resource::Messages(conversation),
        };
        let acknowledged = self.acknowledged();
        let answer = get(&self.url(&resource.path())).await;
        assert_eq!(answer.status, StatusCode::OK, "{resource:?}");
        let shows = shown(resource, &serde_json::from_slice(&answer.body).unwrap());
        for (what, other) in [("was acknowledged", &acknowledged), ("this client had seen", &*seen)] {
            let lacks = shows.lacks(other);
            assert!(
                lacks.is_none(),
                "client {name}, {resource:?}: {} than {what} ({})",
                lacks.unwrap(),
                answer.cache_status()
            );
        }
        seen.raise(&shows);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_steps_backwards_whatever_other_read_was_seen() {
    let (stand_in, proxy) = both(SETTINGS).await;
    stand_in.seed(WHO, Shape { conversations: 2, messages: 4, bytes: 10 });
    let conversations = stand_in.conversation_ids(WHO).into_iter().map(|id| u64::try_from(id).unwrap()).collect();
    let requests = std::env::var("MIXED_REQUESTS").map_or(1_500, |number| number.parse().unwrap());
    let (acknowledged, names, left) = (Mutex::default(), AtomicU64::new(1), AtomicI64::new(0));
    let mixed = Arc::new(Mixed { stand_in, proxy, conversations, acknowledged, names, left });
    // Until all of it was met: answers from memory, stale ones, and fetches. On a machine that is busy few are stale for just so long.
    let reads = |outcome: &str| format!("anteroom_reads_total{{outcome=\"{outcome}\",route=\"messages\"}}");
    let mut missing = Vec::new();
    for round in 0..20 {
        mixed.left.store(requests, Ordering::Relaxed);
        let clients: Vec<_> =
            (0..CLIENTS).map(|name| spawn(mixed.clone().client(name, name + CLIENTS * round))).collect();
        for client in clients {
            client.await.unwrap();
        }
        missing.clear();
        for outcome in ["hit", "stale", "miss"] {
            if mixed.proxy.metric(&reads(outcome)).await < 1.0 {
                missing.push(outcome);
            }
        }
        if missing.is_empty() {
            return;
        }
    }
    panic!("never met: {missing:?}");
}
