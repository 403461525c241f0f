//! The upstream of the model, and what has been acknowledged of it.
//!
//! Sources 0 and 1 are one contact's, sources 2 and 4 another's until they are merged, source 3 is missing until it is
//! created for the first. A list shows the version of its contact: 0 is a 404, 1 is `[]`, and versions only grow; two
//! contacts whose lists are empty are merged into one whose list is empty. In some schedules the upstream shows no
//! contact but in lists: a hash is demanded.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::time::{Instant, sleep};

use super::Dice;

pub const INBOX: &str = "in";
pub const SOURCES: usize = 5;

/// Other schedules have other contacts.
pub fn source_name(seed: u64, source: u64) -> String {
    format!("v{seed}s{source}")
}

/// How a write is to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    Answer,
    Empty,
    Refused,
    Unprocessable,
    Failed,
    Reset,
}

impl Want {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Answer, "answer"),
        (Self::Empty, "empty"),
        (Self::Refused, "refused"),
        (Self::Unprocessable, "unprocessable"),
        (Self::Failed, "failed"),
        (Self::Reset, "reset"),
    ];

    pub fn any(dice: &mut Dice) -> Self {
        match dice.below(10) {
            0..4 => Self::Answer,
            4..6 => Self::Empty,
            6 => Self::Refused,
            7 => Self::Unprocessable,
            8 => Self::Failed,
            _ => Self::Reset,
        }
    }

    pub fn word(self) -> &'static str {
        Self::ALL.iter().find(|(want, _)| *want == self).expect("all are named").1
    }
}

/// What the effect of a write was.
struct Done {
    /// The contact, as its version became.
    contact: usize,
    version: u64,
    /// Whose source it went through, as was acknowledged when it happened.
    source: usize,
    created: bool,
    merged: bool,
}

pub struct Register {
    seed: u64,
    /// Whether a contact is shown to whoever has no hash.
    shows_contacts: bool,
    last: u64,
    /// The version of each contact, and when it got each of them.
    versions: [u64; 2],
    history: [Vec<(u64, Instant)>; 2],
    /// Whose each source is.
    owner: [Option<usize>; SOURCES],
    moved: Option<Instant>,
    ops: u64,
    done: HashMap<u64, Done>,
    /// Whose each source is, as was acknowledged, and what a reader of it must see.
    known_owner: [Option<usize>; SOURCES],
    needed: [u64; SOURCES],
}

impl Register {
    pub fn new(seed: u64, shows_contacts: bool) -> Self {
        let owner = [Some(0), Some(0), Some(1), None, Some(1)];
        let now = Instant::now();
        Self {
            seed,
            shows_contacts,
            last: 1,
            versions: [1, 1],
            history: [vec![(1, now)], vec![(1, now)]],
            owner,
            moved: None,
            ops: 0,
            done: HashMap::new(),
            known_owner: owner,
            needed: [1, 1, 1, 0, 1],
        }
    }

    pub fn next_op(&mut self) -> u64 {
        self.ops += 1;
        self.ops
    }

    fn contact_id(&self, contact: usize) -> u64 {
        self.seed * 2 + contact as u64 + 1
    }

    fn shown(&self, source: usize) -> u64 {
        self.owner[source].map_or(0, |contact| self.versions[contact])
    }

    fn raise(&mut self, contact: usize) -> u64 {
        self.last += 1;
        self.versions[contact] = self.last;
        self.history[contact].push((self.last, Instant::now()));
        self.last
    }

    /// What a reader of this source must see from here on.
    pub fn acknowledged(&self, source: u64) -> u64 {
        self.needed[usize::try_from(source).expect("few")]
    }

    /// When a source stopped to show this version.
    pub fn replaced(&self, source: u64, version: u64) -> Option<Instant> {
        let contact = self.owner[usize::try_from(source).expect("few")]?;
        // Which list was the other contact's is not followed; the rest is strict enough.
        if self.moved.is_some() || version == 0 {
            return None;
        }
        self.history[contact].iter().find(|(later, _)| *later > version).map(|(_, at)| *at)
    }

    /// A write was answered: whatever it did before, every later reader of what it touched sees.
    pub fn acknowledge(&mut self, op: u64, attributed: bool) -> Option<u64> {
        let Done { contact, version, source, created, merged } = self.done.remove(&op)?;
        if !attributed {
            if merged {
                // Whose the others' lists are is not promised to be known.
                for owner in self.known_owner.iter_mut().filter(|owner| **owner == Some(1)) {
                    *owner = None;
                }
            }
            self.known_owner[source] = None;
            self.need(source, version);
            return Some(version);
        }
        if created || merged {
            self.known_owner[source] = Some(contact);
        }
        if merged {
            // With all that the other one had.
            for owner in self.known_owner.iter_mut().filter(|owner| **owner == Some(1)) {
                *owner = Some(0);
            }
        }
        self.need(source, version);
        if self.known_owner[source] == Some(contact) {
            // All of them show one contact: what was needed of one is needed of each.
            let all: Vec<usize> = (0..SOURCES).filter(|source| self.known_owner[*source] == Some(contact)).collect();
            let most = all.iter().map(|source| self.needed[*source]).max().unwrap_or(0);
            if merged || created {
                self.need(source, most);
            }
            for source in all {
                self.need(source, version);
            }
        }
        Some(version)
    }

    fn need(&mut self, source: usize, version: u64) {
        self.needed[source] = self.needed[source].max(version);
    }

    /// A change that no request made: contact id, its known sources, and the version.
    pub fn change(&mut self, source: u64) -> Option<(u64, Vec<usize>, u64)> {
        let contact = self.owner[usize::try_from(source).expect("few")]?;
        let version = self.raise(contact);
        let sources = (0..SOURCES).filter(|source| self.known_owner[*source] == Some(contact)).collect();
        Some((self.contact_id(contact), sources, version))
    }

    /// The event of such a change has arrived. It reaches the sources that were this contact's and are.
    pub fn heard(&mut self, contact: u64, sources: &[usize], version: u64) {
        for source in sources {
            if self.known_owner[*source].is_some_and(|owner| self.contact_id(owner) == contact)
                && self.owner[*source] == self.known_owner[*source]
            {
                self.need(*source, version);
            }
        }
    }

    /// What a `POST` or `PATCH` does, at once.
    fn effect(&mut self, op: u64, source: usize, request: &Head) -> Option<String> {
        let created = request.method == Method::POST && request.path.ends_with("/contacts");
        let merged = request.method == Method::PATCH;
        if created && self.owner[source].is_none() {
            self.owner[source] = Some(0);
        }
        let contact = self.owner[source]?;
        let stays_empty = merged && self.versions == [1, 1];
        let version =
            if created || stays_empty { self.versions[contact] } else { self.raise(if merged { 0 } else { contact }) };
        if merged && contact == 1 {
            for owner in self.owner.iter_mut().filter(|owner| **owner == Some(1)) {
                *owner = Some(0);
            }
            self.moved = Some(Instant::now());
        }
        let contact = self.owner[source]?;
        self.done.insert(op, Done { contact, version, source, created, merged });
        if created || merged {
            return self.contact_json(source);
        }
        let id = self.contact_id(contact);
        Some(format!(r#"{{"id":5,"message_type":0,"sender":{{"id":{id},"type":"contact"}}}}"#))
    }

    fn contact_json(&self, source: usize) -> Option<String> {
        let contact = self.contact_id(self.owner[source]?);
        Some(format!(r#"{{"id":{contact},"source_id":"{}"}}"#, source_name(self.seed, source as u64)))
    }

    /// The version that a list shows, and its contact.
    fn list(&self, source: usize) -> (u64, u64) {
        (self.shown(source), self.owner[source].map_or(0, |contact| self.contact_id(contact)))
    }
}

struct Head {
    method: Method,
    path: String,
    op: u64,
    want: String,
    asked_if: Option<HeaderValue>,
}

/// The connection is closed without a byte.
#[derive(Debug)]
pub struct HungUp;

impl fmt::Display for HungUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hung up")
    }
}

impl std::error::Error for HungUp {}

type Answer = Result<Response<Full<Bytes>>, HungUp>;

/// Answers a request, whoever may still want to know.
pub async fn answer(register: Arc<Mutex<Register>>, dice: Arc<Mutex<Dice>>, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let field = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let head = Head {
        method: head.method.clone(),
        path: head.uri.path().to_owned(),
        op: field("x-op").parse().unwrap_or(0),
        want: field("x-want").to_owned(),
        asked_if: head.headers.get(header::IF_NONE_MATCH).cloned(),
    };
    let body = body.collect().await.map_err(|_| HungUp)?.to_bytes();
    // What a client does who has lost patience is done all the same.
    tokio::spawn(work(register, dice, head, body)).await.unwrap_or(Err(HungUp))
}

async fn work(register: Arc<Mutex<Register>>, dice: Arc<Mutex<Dice>>, head: Head, body: Bytes) -> Answer {
    let lock = || register.lock().unwrap_or_else(PoisonError::into_inner);
    let roll = |sides| dice.lock().unwrap_or_else(PoisonError::into_inner).below(sides);
    let pause = || dice.lock().unwrap_or_else(PoisonError::into_inner).pause();
    let seed = lock().seed;
    let named = |text: &str| (0..SOURCES).find(|source| text.contains(&source_name(seed, *source as u64)));
    let path = head.path.replace("%2E", ".").replace("%73", "s");
    let Some(source) = named(&path).or_else(|| named(&String::from_utf8_lossy(&body))) else {
        // A write of a schedule that is over.
        return Ok(json(404, "{}"));
    };
    if head.method == Method::GET && !head.path.ends_with("/conversations") && head.op == 0 {
        // The look-up of a contact: it may take a moment and does not fail.
        sleep(Duration::from_millis(roll(30))).await;
        if !lock().shows_contacts {
            return Ok(json(500, "{}"));
        }
        let shown = lock().contact_json(source);
        sleep(Duration::from_millis(roll(30))).await;
        return Ok(shown.map_or_else(|| json(404, "{}"), |shown| json(200, &shown)));
    }
    sleep(pause()).await;
    if head.method == Method::GET && head.op == 0 {
        let (shown, contact) = lock().list(source);
        sleep(pause()).await;
        return list(shown, contact, roll(100), head.asked_if.as_ref());
    }
    if head.want == "refused" {
        return Ok(json(403, "{}"));
    }
    let shown = lock().effect(head.op, source, &head);
    sleep(pause()).await;
    let Some(shown) = shown else { return Ok(json(404, "{}")) };
    match head.want.as_str() {
        "unprocessable" => Ok(json(422, "{}")),
        "failed" => Ok(json(500, "{}")),
        "reset" => Err(HungUp),
        "empty" => Ok(json(200, "")),
        _ => Ok(json(200, &shown)),
    }
}

fn json(status: u16, body: &str) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::copy_from_slice(body.as_bytes())));
    *answer.status_mut() = http::StatusCode::from_u16(status).expect("a status");
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    answer
}

/// A list as it is, or one of the odd ways in which it may come.
fn list(version: u64, contact: u64, luck: u64, asked_if: Option<&HeaderValue>) -> Answer {
    match luck {
        0..5 => return Ok(json(500, "{}")),
        5..8 => return Err(HungUp),
        8 => {
            let mut page = json(200, "<html>");
            page.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
            return Ok(page);
        }
        _ => {}
    }
    if version == 0 {
        return Ok(json(404, "{}"));
    }
    let padding = "x".repeat(if luck == 9 { 4_000 } else { 0 });
    let body = match version {
        1 => "[]".to_owned(),
        _ => format!(
            r#"[{{"id":1,"contact_last_seen_at":{version},"contact":{{"id":{contact},"account_id":1}},"messages":[],"p":"{padding}"}}]"#
        ),
    };
    // Made from the body alone: an empty list is like any other.
    let strong = if version == 1 { "\"empty\"".to_owned() } else { format!("\"{contact}-{version}\"") };
    let etag = HeaderValue::try_from(strong).expect("a field");
    if asked_if == Some(&etag) {
        let mut same = json(304, "");
        same.headers_mut().insert(header::ETAG, etag);
        return Ok(same);
    }
    let mut answer = json(200, &body);
    if luck != 10 {
        answer.headers_mut().insert(header::ETAG, etag);
    }
    match luck {
        11 | 12 => drop(answer.headers_mut().insert(header::VARY, HeaderValue::from_static("x-odd"))),
        13 | 14 => drop(answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))),
        _ => {}
    }
    Ok(answer)
}

/// The version that an answer shows, if it is a list or a 404.
pub fn number_of(status: u16, body: &[u8]) -> Option<u64> {
    match status {
        404 => Some(0),
        200 => {
            let list: serde_json::Value = serde_json::from_slice(body).ok()?;
            match list.as_array()?.first() {
                None => Some(1),
                Some(conversation) => conversation.get("contact_last_seen_at")?.as_u64(),
            }
        }
        _ => None,
    }
}
