//! What clients do, and what the checker holds of what they see.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anteroom::admin::purging::{Purge, purge};
use anteroom::engine::body::Body;
use anteroom::engine::upstream::client::Upstream;
use anteroom::policy::http::key::Key;
use bytes::Bytes;
use http::{Request, header};
use tokio::time::{Instant, sleep, timeout};

use super::register::{
    CONTACTS, CREATED, Change, Facts, INBOX, Needed, Plan, SOURCES, Said, Trouble, WORLDS, What, source_name,
};
use super::schedule::Schedule;
use super::upstream::{Read, Want, contact_path, facts_of, number_of};
use super::wire::{HOSTS, Wire};
use super::{Dice, FETCH, FRESH, ON_ERROR, SETTINGS, UNSETTLED};
use crate::support::settings;

/// What clients send as their origin, if they send one.
const ORIGINS: [&str; 2] = ["https://a.test", "https://b.test"];

/// A client and what it has seen.
pub struct Client {
    pub name: u64,
    pub schedule: Arc<Schedule>,
    pub dice: Dice,
    seen: HashMap<String, u64>,
    /// The facts that were seen by a URL, or by whatever read of a source.
    facts: HashMap<String, Facts>,
}

impl Client {
    pub fn new(name: u64, schedule: Arc<Schedule>, dice: Dice) -> Self {
        Self { name, schedule, dice, seen: HashMap::new(), facts: HashMap::new() }
    }

    pub async fn active(mut self) {
        for _ in 0..2 + self.dice.below(6) {
            let patience = if self.dice.percent(10) { self.dice.pause() } else { Duration::from_secs(600) };
            // Whoever loses patience leaves in the middle: everything of the request is dropped.
            let _ = timeout(patience, self.act()).await;
            sleep(self.dice.pause()).await;
        }
    }

    async fn act(&mut self) {
        // Half of all that happens is about one source, where clients meet: where some writes have their effect late, often
        // the one that they create.
        let trouble = self.schedule.register().manner.trouble;
        let meeting = usize::try_from(self.schedule.seed % SOURCES as u64).expect("few");
        let meeting = if trouble == Trouble::LateWrites && meeting % 2 == 0 { CREATED } else { meeting };
        let is_narrow = self.schedule.register().manner.is_narrow;
        let source =
            if self.dice.percent(if is_narrow { 90 } else { 50 }) { meeting } else { self.dice.up_to(SOURCES) };
        match self.dice.below(26) {
            _ if is_narrow && self.dice.percent(50) => self.read(source).await,
            0..11 => self.read(source).await,
            11..15 => self.write(source).await,
            15 => self.create().await,
            16 | 17 if trouble == Trouble::LateWrites => self.create().await,
            16 | 17 => self.merge().await,
            18 => self.agent(source),
            19 => self.forget(source),
            20 | 24 if trouble == Trouble::MergesPast => self.merge_past(source).await,
            20 => self.verify(source).await,
            21 => self.reload(),
            22 => self.of_conversation().await,
            23 => self.of_account().await,
            _ => sleep(self.dice.rest()).await,
        }
    }

    fn path(&self, source: usize) -> String {
        contact_path(self.schedule.seed, source)
    }

    fn request(&self, method: &str, path: &str, body: &str) -> Request<Body> {
        let mut request = Request::new(Body::from(Bytes::copy_from_slice(body.as_bytes())));
        *request.method_mut() = method.parse().expect("a method");
        *request.uri_mut() = path.parse().expect("a path");
        let fields = request.headers_mut();
        fields.insert(header::HOST, "proxy.test".parse().expect("a field"));
        fields.insert("x-schedule", self.schedule.seed.into());
        if !body.is_empty() {
            fields.insert(header::CONTENT_LENGTH, body.len().into());
            fields.insert(header::CONTENT_TYPE, "application/json".parse().expect("a field"));
        }
        request
    }

    /// What to read: the list, or something that it shows, too.
    fn any_read(&mut self, source: usize) -> Read {
        let (first, world) = (self.dice.up_to(CONTACTS), self.schedule.world());
        let firsts = self.schedule.register().conversations(world, source).map_or_else(Vec::new, |(_, firsts)| firsts);
        // Rarely one that is somebody else's.
        let first = firsts.first().copied().filter(|_| self.dice.percent(90)).unwrap_or(first);
        let display = self.schedule.register().display_id(world, first);
        match self.dice.below(10) {
            0..5 => Read::List,
            5 => Read::Conversation(display),
            6 | 7 => Read::Newest(display),
            8 => Read::Older(display),
            _ => Read::Contact,
        }
    }

    async fn read(&mut self, source: usize) {
        let what = self.any_read(source);
        let query = if what == Read::List && self.dice.percent(15) { "?page=2" } else { "" };
        let path = format!("{}{}{query}", self.path(source), what.path());
        let mut request = self.request("GET", &path, "");
        let alone = self.dice.percent(15);
        if alone {
            request.headers_mut().insert(header::COOKIE, "a=b".parse().expect("a field"));
        }
        let is_narrow = self.schedule.register().manner.is_narrow;
        let origin = ORIGINS.get(self.dice.up_to(3)).filter(|_| !is_narrow);
        if let Some(origin) = origin {
            request.headers_mut().insert(header::ORIGIN, origin.parse().expect("a field"));
        }
        let (world, moves) = (self.schedule.world(), self.schedule.moves());
        let (needed, asked) = (self.schedule.register().needed(world, source), Instant::now());
        let manner = format!("{}{}", if alone { " alone" } else { "" }, origin.map_or("", |origin| &origin[7..]));
        let reader = format!("client {} reads {what:?} of s{source}{query}{manner} of {world}", self.name);
        self.schedule.tell(&format!("{reader}: must see {needed:?}"));
        let Some((status, how, body)) = self.schedule.send(request).await else { return };
        let facts = facts_of(&self.schedule.register(), world, what, status, &body);
        let version = if what == Read::List { number_of(status, &body) } else { facts.as_ref().map(|_| 0) };
        let (Some(version), Some(facts)) = (version, facts) else {
            return self.schedule.tell(&format!("{reader}: {status} ({how})"));
        };
        self.schedule.tell(&format!("{reader}: saw {version} {facts:?} ({how})"));
        if self.schedule.moves() != moves {
            // It may be of the one or of the other.
            return;
        }
        let seen = Seen { reader, world, source, version, how, needed, asked };
        if what == Read::List {
            self.judge(&seen, format!("{world}{path}"));
        }
        let is_nameless = self.schedule.register().manner.is_nameless(source);
        if what == Read::Contact || !is_nameless {
            let passes_by = alone || !query.is_empty();
            self.judge_facts(&seen, &facts, format!("{world}{path}"), what == Read::List, passes_by);
        }
    }

    /// The same of the facts that an answer shows. What passes by the cache, or answers 404, says nothing of other reads.
    fn judge_facts(&mut self, seen: &Seen, facts: &[(usize, u64)], url: String, is_list: bool, passes_by: bool) {
        let Seen { reader, world, source, how, needed, asked, .. } = seen;
        let stands_in = how.contains("upstream-failing");
        let is_hit = how.contains("; hit");
        let may_be_outdated =
            stands_in && (self.schedule.serves_outdated || self.schedule.register().merged_past(*world));
        let broke = |what: String| self.schedule.broke(format!("{reader}: {what}"));
        let by_any_read = format!("{world} s{source}");
        for &(fact, version) in facts {
            let register = self.schedule.register();
            let is_older = (0..CONTACTS).any(|first| fact == Said::Older.of(first));
            if !register.is_of(*world, version) {
                broke(format!("fact {fact}, {version}, is another installation's"));
            }
            let needed = if is_list && version == 0 { needed.absent[fact] } else { needed.facts[fact] };
            if version < needed && !may_be_outdated {
                broke(format!("fact {fact} from before an acknowledged write, {version} < {needed}"));
            }
            for (url, counts) in [(&url, true), (&by_any_read, !passes_by && !is_older)] {
                let last = self.facts.get(url).map_or(0, |facts| facts[fact]);
                if counts && version < last && !may_be_outdated {
                    broke(format!("fact {fact}, a step backwards from what was seen by {url}, {version} after {last}"));
                }
            }
            let Some(replaced) = register.fact_replaced(*world, *source, fact, version) else { continue };
            drop(register);
            let limit = if !is_hit {
                FETCH
            } else if stands_in {
                ON_ERROR
            } else {
                FRESH
            };
            let at = if is_hit && !stands_in { *asked } else { Instant::now() };
            let age = at.saturating_duration_since(replaced);
            if self.schedule.is_timed && age > limit {
                broke(format!("fact {fact} out of date for {age:?}, allowed are {limit:?}"));
            }
        }
        let is_shared = is_hit || how.contains("stored") || how.contains("collapsed");
        for (url, counts) in [(url, true), (by_any_read, is_shared && !passes_by)] {
            let last = self.facts.entry(url).or_default();
            for &(fact, version) in facts.iter().filter(|_| counts) {
                last[fact] = last[fact].max(version);
            }
        }
    }

    /// Holds what a reader saw against what is promised.
    fn judge(&mut self, seen: &Seen, url: String) {
        let Seen { reader, world, source, version, how, needed, asked } = seen;
        let (world, source, version) = (*world, *source, *version);
        let stands_in = how.contains("upstream-failing");
        let broke = |what: String| self.schedule.broke(format!("{reader}: {what}"));
        if !self.schedule.register().is_of(world, version) {
            broke(format!("{version} is another installation's"));
        }
        if version < needed.purged {
            broke(format!("{version} was purged, up to {}", needed.purged));
        }
        let may_be_outdated = stands_in && self.schedule.serves_outdated;
        let is_open = stands_in && self.schedule.register().merged_past(world);
        if version < needed.acknowledged && !may_be_outdated && !is_open {
            broke(format!("an answer from before an acknowledged write, {version} < {}", needed.acknowledged));
        }
        let last = self.seen.entry(url).or_default();
        if version < *last && !may_be_outdated {
            broke(format!("a step backwards, {version} after {last}"));
        }
        *last = version.max(*last);
        if !self.schedule.is_timed {
            return;
        }
        let is_hit = how.contains("; hit");
        let replaced = self.schedule.register().replaced(world, source, version);
        let Some((replaced, late)) = replaced else { return };
        let limit = match is_hit {
            true if stands_in => ON_ERROR,
            true if late => UNSETTLED,
            true => FRESH,
            false => FETCH,
        };
        // What is served from memory is judged when it is asked for; a fetch when it has landed.
        let at = if is_hit && !stands_in { *asked } else { Instant::now() };
        let age = at.saturating_duration_since(replaced);
        if age > limit {
            broke(format!("out of date for {age:?}, allowed are {limit:?}"));
        }
    }

    /// A write under a source, in one of its conversations if it has one.
    async fn write(&mut self, source: usize) {
        let (want, world, path) = (Want::any(&mut self.dice), self.schedule.world(), self.spelt(source));
        let firsts = {
            let register = self.schedule.register();
            let firsts = register.conversations(world, source).filter(|_| register.shown(world, source) > 1);
            firsts.map_or_else(Vec::new, |(_, firsts)| firsts)
        };
        let (method, below, what) = if firsts.is_empty() || self.dice.percent(10) {
            ("POST", String::new(), What::Opens)
        } else {
            let first = firsts[self.dice.up_to(firsts.len())];
            let display = self.schedule.register().display_id(world, first);
            let (method, below, said) = match self.dice.below(4) {
                _ if want == Want::Empty => ("POST", "update_last_seen", Said::Seen),
                0 => ("POST", "toggle_status", Said::Seen),
                1 => ("PATCH", "messages/5", Said::Older),
                _ => ("POST", "messages", Said::Newest),
            };
            (method, format!("/{display}/{below}"), What::Says(said, first))
        };
        let path = format!("{path}/conversations{below}");
        let change = Change::Under(source, what);
        self.change(&format!("writes to s{source} with {method} {path}"), method, &path, "{}", change, want).await;
    }

    async fn create(&mut self) {
        let want = if self.dice.percent(70) { Want::Answer } else { Want::any(&mut self.dice) };
        let path = format!("/public/api/v1/inboxes/{INBOX}/contacts");
        let body = format!(r#"{{"source_id":"{}"}}"#, source_name(self.schedule.seed, CREATED));
        self.change("creates s3", "POST", &path, &body, Change::Create(CREATED), want).await;
    }

    async fn merge(&mut self) {
        let want = if self.dice.percent(70) { Want::Answer } else { Want::any(&mut self.dice) };
        let (source, into) = (self.dice.up_to(SOURCES), self.dice.up_to(CONTACTS));
        let path = format!("{}{}", self.spelt(source), if self.dice.percent(20) { ".json" } else { "" });
        let change = Change::Merge { source, into };
        self.change(&format!("merges s{source} into c{into}"), "PATCH", &path, "{}", change, want).await;
    }

    /// A hash, with a `GET`, in a spelling of the parameter that the upstream takes for it.
    async fn verify(&mut self, source: usize) {
        let want = Want::any(&mut self.dice);
        let name = ["identifier_hash", "[identifier_hash]", "identifier_hash[]", "%5Bidentifier%5Fhash%5D"];
        let (name, hash) = (name[self.dice.up_to(4)], self.dice.below(1_000));
        let path = format!("{}?{name}={hash}", self.spelt(source));
        self.change(&format!("verifies s{source}"), "GET", &path, "", Change::Under(source, What::Card), want).await;
    }

    /// A write that names a conversation: by its uuid, or through the account API.
    async fn of_conversation(&mut self) {
        let (want, first, world) = (Want::any(&mut self.dice), self.dice.up_to(CONTACTS), self.schedule.world());
        let (display, uuid) = {
            let register = self.schedule.register();
            (register.display_id(world, first), register.uuid(world, first))
        };
        let survey = |uuid: String| format!("/public/api/v1/csat_survey/{uuid}");
        let of_account = |below: &str| format!("/api/v1/accounts/1/{below}");
        let (method, path, said) = match self.dice.below(6) {
            0 => ("PUT", survey(uuid), Said::Older),
            1 => ("PUT", survey(uuid.replace('-', "")), Said::Older),
            2 => ("PATCH", survey(uuid.to_uppercase()), Said::Older),
            3 => ("POST", of_account(&format!("conversations/{display}/messages")), Said::Newest),
            4 => ("POST", of_account(&format!("conversations/{display}/toggle_status")), Said::Seen),
            _ => ("POST", of_account("bulk_actions"), Said::Seen),
        };
        let body = if path.ends_with("bulk_actions") {
            format!(r#"{{"type":"Conversation","ids":[{display}],"fields":{{"status":"open"}}}}"#)
        } else {
            "{}".to_owned()
        };
        let what = format!("changes the conversation of c{first} with {method} {path}");
        self.change(&what, method, &path, &body, Change::Conversation(said, first), want).await;
    }

    /// A write of the account API that names contacts.
    async fn of_account(&mut self) {
        let (want, world) = (Want::any(&mut self.dice), self.schedule.world());
        let (first, other) = (self.dice.up_to(CONTACTS), self.dice.up_to(CONTACTS));
        let [id, into] = [first, other].map(|contact| self.schedule.register().contact_id(world, contact));
        let (method, path, body, change) = match self.dice.below(3) {
            0 => (
                "PATCH",
                format!("/api/v1/accounts/1/contacts/{id}"),
                "{}".to_owned(),
                Change::Contact(first, What::Card),
            ),
            1 => {
                let body = format!(r#"{{"contact_id":{id},"inbox_id":1}}"#);
                ("POST", "/api/v1/accounts/1/conversations".to_owned(), body, Change::Contact(first, What::Opens))
            }
            _ => {
                let body = format!(r#"{{"base_contact_id":{into},"mergee_contact_id":{id}}}"#);
                let change = Change::MergeContacts { from: first, into: other };
                ("POST", "/api/v1/accounts/1/actions/contact_merge".to_owned(), body, change)
            }
        };
        self.change(&format!("sends {method} {path} {body}"), method, &path, &body, change, want).await;
    }

    /// A path of a contact, sometimes in another spelling.
    fn spelt(&mut self, source: usize) -> String {
        let path = self.path(source);
        match self.dice.below(5) {
            0 => path.replace("/contacts/", "//contacts/"),
            1 => path.replace("/inboxes/", "/x/../inboxes/"),
            2 => path.replace('s', "%73"),
            _ => path,
        }
    }

    /// Settings that shape answers differently, another upstream, or what was before: what flies and what is kept is of
    /// no use any more.
    fn reload(&mut self) {
        let Some(wire) = self.schedule.wire.clone() else { return };
        let manner = self.schedule.register().manner;
        // The length of a list that names nobody is what it shows.
        let trims = self.dice.percent(50) && manner.nameless == 0;
        let world = if self.dice.percent(30) { self.dice.up_to(WORLDS) } else { self.schedule.world() };
        let more = if trims { "payload.trim.sort_conversations = true\n" } else { "" };
        self.schedule.take(&wire, world, more);
        self.schedule.tell(&format!("the settings are loaded anew, the upstream is {world}"));
    }

    async fn change(&mut self, what: &str, method: &str, path: &str, body: &str, change: Change, want: Want) {
        let moves = matches!(change, Change::Merge { .. } | Change::MergeContacts { .. });
        let is_late = !moves && self.schedule.register().manner.trouble == Trouble::LateWrites && self.dice.percent(50);
        // In the time that the limits leave, after the proxy has given up on it.
        let late = is_late.then(|| Duration::from_millis(6_200 + self.dice.below(3_600)));
        let op = self.schedule.register().plan(Plan { change, late });
        let mut request = self.request(method, path, body);
        request.headers_mut().insert("x-op", op.into());
        request.headers_mut().insert("x-want", want.word().parse().expect("a field"));
        let what = format!("client {} {what} (op {op}, {}, {late:?})", self.name, want.word());
        self.schedule.tell(&what);
        let unattributed = &self.schedule.state.metrics.writes_unattributed;
        let before = unattributed.get();
        let answer = self.schedule.send(request).await;
        let status = answer.map_or(0, |(status, ..)| status);
        let attributed = unattributed.get() == before;
        let needed = self.schedule.register().acknowledge(op, attributed);
        let known = if attributed { "" } else { " (nobody knows whose)" };
        self.schedule.tell(&format!("{what}: {status}{known}, acknowledged {needed:?}"));
    }

    /// An agent changes the contact of a source; a webhook tells of it late, twice, or never.
    fn agent(&mut self, source: usize) {
        let (world, is_of_contact) = (self.schedule.world(), self.dice.percent(50));
        let changed = self.schedule.register().change(world, source, is_of_contact);
        let Some((contact, touched)) = changed else { return };
        self.schedule.tell(&format!("an agent changes the contact of s{source}: {touched:?}"));
        let (times, late) = (self.dice.below(3), self.dice.pause());
        let body = {
            let register = self.schedule.register();
            let (id, display) = (register.contact_id(world, contact), register.display_id(world, contact));
            let named = source_name(self.schedule.seed, source);
            if is_of_contact {
                format!(r#"{{"event":"contact_updated","id":{id},"account":{{"id":1}}}}"#)
            } else {
                format!(
                    r#"{{"event":"message_created","account":{{"id":1}},"conversation":{{"id":{display},"contact_inbox":{{"source_id":"{named}","contact_id":{id}}}}}}}"#
                )
            }
        };
        let schedule = self.schedule.clone();
        tokio::spawn(async move {
            for _ in 0..times {
                sleep(late).await;
                schedule.state.invalidation.hear(body.as_bytes(), Duration::from_secs(1_700_000_000));
                schedule.register().heard(world, &touched);
                schedule.tell(&format!("an event tells of {touched:?}"));
            }
        });
    }

    /// Somebody merges contacts past the proxy. What may be believed of it by then, is believed after a while only.
    async fn merge_past(&mut self, source: usize) {
        let (world, into) = (self.schedule.world(), self.dice.up_to(CONTACTS));
        if self.schedule.register().merge_past(world, source, into).is_some() {
            self.schedule.tell(&format!("past the proxy s{source} is merged into c{into}"));
            sleep(Duration::from_secs(self.dice.below(25))).await;
        }
    }

    /// An entry is evicted, or something is purged.
    fn forget(&mut self, source: usize) {
        let (name, world) = (source_name(self.schedule.seed, source), self.schedule.world());
        let state = self.schedule.state.clone();
        let key = Key::new(INBOX, &name, None);
        let what = match self.dice.below(5) {
            0 | 1 => {
                // Whose it was the list tells, if it is there and names somebody.
                let stored = state.cache.store.get(&key).filter(|entry| state.invalidation.is_current(entry));
                let is_nameless = self.schedule.register().manner.is_nameless(source);
                let names = stored.is_some_and(|entry| !is_nameless && entry.answer.body.length() > 2);
                purge(&state, Purge::Contact(&name));
                self.schedule.register().purge(world, source, names);
                "a contact is purged"
            }
            2 if self.schedule.wire.is_some() => {
                purge(&state, Purge::All);
                for source in 0..SOURCES {
                    self.schedule.register().purge(world, source, false);
                }
                "everything is purged"
            }
            _ => {
                state.cache.store.forget(&key, state.invalidation.ledger.now());
                "an entry is evicted"
            }
        };
        self.schedule.tell(&format!("{what}: s{source}"));
    }
}

/// What a reader saw.
struct Seen {
    reader: String,
    world: usize,
    source: usize,
    version: u64,
    /// `Cache-Status`.
    how: String,
    needed: Needed,
    asked: Instant,
}

impl Schedule {
    /// Other settings, and maybe another upstream.
    pub fn take(&self, wire: &Wire, world: usize, more: &str) {
        let config = settings(HOSTS[world], &format!("{SETTINGS}{}{more}", self.settings));
        let upstream = Upstream::over(wire.clone(), config.upstream.clone(), self.state.metrics.clone());
        self.state.reload_with(config, upstream);
        self.set_world(world);
    }
}
