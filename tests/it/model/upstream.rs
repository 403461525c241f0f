//! How the register answers: reads, look-ups and writes, in time, late, broken, or not at all.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::Value;
use tokio::time::sleep;

use super::Dice;
use super::register::{
    CARD, CONTACTS, Change, Facts, INBOX, Plan, Register, SOURCES, Said, Trouble, What, source_name,
};

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

/// A register and the luck of its answers.
pub struct Serving {
    pub register: Arc<Mutex<Register>>,
    pub dice: Mutex<Dice>,
}

impl Serving {
    pub fn register(&self) -> MutexGuard<'_, Register> {
        self.register.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dice(&self) -> MutexGuard<'_, Dice> {
        self.dice.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pause(&self) -> Duration {
        self.dice().pause()
    }

    /// Which source a path or a body names.
    fn named(&self, text: &str) -> Option<usize> {
        let seed = self.register().seed;
        (0..SOURCES).find(|source| text.contains(&source_name(seed, *source)))
    }
}

/// The registers of the schedules that run, by their seeds.
#[derive(Clone, Default)]
pub struct Origin {
    serving: Arc<Mutex<HashMap<u64, Arc<Serving>>>>,
}

impl Origin {
    pub fn serves(&self, seed: u64, serving: Serving) {
        self.lock().insert(seed, Arc::new(serving));
    }

    pub fn forgets(&self, seed: u64) {
        self.lock().remove(&seed);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Serving>>> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a request of one of the two installations, whoever may still want to know.
    pub async fn answer(self, world: usize, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        let number = |name: &str| head.headers.get(name)?.to_str().ok()?.parse().ok();
        let path = head.uri.path().replace("%2E", ".").replace("%73", "s");
        let before = head.uri.query().filter(|query| query.starts_with("before="));
        let path = before.map_or_else(|| path.clone(), |before| format!("{path}?{before}"));
        // Of a schedule: as its requests say, or as the contact's identifier does.
        let of_path = || path.split_once("/contacts/v")?.1.split('s').next()?.parse().ok();
        let serving = number("x-schedule").or_else(of_path).and_then(|seed| self.lock().get(&seed).cloned());
        body.collect().await.map_err(|_| HungUp)?;
        let op = number("x-op");
        let asks = Asks { world, path, op, fields: head.headers };
        // One of a schedule that is over has no answer but this.
        let Some(serving) = serving else { return Ok(json(404, "{}")) };
        // What a client does who has lost patience is done all the same.
        tokio::spawn(serve(serving, asks)).await.unwrap_or(Err(HungUp))
    }
}

struct Asks {
    world: usize,
    path: String,
    /// A write's number.
    op: Option<u64>,
    fields: HeaderMap,
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

pub type Answer = Result<Response<Full<Bytes>>, HungUp>;

async fn serve(serving: Arc<Serving>, asks: Asks) -> Answer {
    if let Some(op) = asks.op {
        return write(&serving, &asks, op).await;
    }
    let Some(source) = serving.named(&asks.path) else { return Ok(json(404, "{}")) };
    match Read::of(&asks.path) {
        Some(Read::Contact) => look_up(&serving, &asks, source).await,
        Some(what) => read(&serving, &asks, source, what).await,
        None => Ok(json(404, "{}")),
    }
}

/// What is read of a contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    List,
    /// A conversation, by its display id.
    Conversation(u64),
    /// Its newest messages.
    Newest(u64),
    /// Older ones.
    Older(u64),
    Contact,
}

impl Read {
    fn of(path: &str) -> Option<Self> {
        let (_, below) = path.split_once("/contacts/")?;
        let segments: Vec<&str> = below.split(['/', '?']).skip(1).collect();
        Some(match segments[..] {
            [] => Self::Contact,
            ["conversations"] => Self::List,
            ["conversations", display] => Self::Conversation(display.parse().ok()?),
            ["conversations", display, "messages"] => Self::Newest(display.parse().ok()?),
            ["conversations", display, "messages", ..] => Self::Older(display.parse().ok()?),
            _ => return None,
        })
    }

    /// The end of its path.
    pub fn path(self) -> String {
        match self {
            Self::List => "/conversations".to_owned(),
            Self::Conversation(display) => format!("/conversations/{display}"),
            Self::Newest(display) => format!("/conversations/{display}/messages"),
            Self::Older(display) => format!("/conversations/{display}/messages?before=6"),
            Self::Contact => String::new(),
        }
    }
}

/// The look-up of a contact: it may take a moment and does not fail.
async fn look_up(serving: &Serving, asks: &Asks, source: usize) -> Answer {
    let moment = || Duration::from_millis(serving.dice().below(30));
    sleep(moment()).await;
    let shown = {
        let register = serving.register();
        if !register.manner.shows_contacts {
            return Ok(json(500, "{}"));
        }
        contact_json(&register, asks.world, source)
    };
    sleep(moment()).await;
    Ok(shown.map_or_else(|| json(404, "{}"), |shown| json(200, &shown)))
}

async fn read(serving: &Serving, asks: &Asks, source: usize, what: Read) -> Answer {
    // Where it is of interest how late something shows, lists come at once.
    let is_quick = serving.register().manner.trouble == Trouble::LateWrites;
    let pause = || if is_quick { Duration::from_millis(serving.dice().below(40)) } else { serving.pause() };
    sleep(pause()).await;
    let shown = Shown::of(&serving.register(), asks.world, source, what);
    sleep(pause()).await;
    let luck = serving.dice().below(100);
    shown.answer(luck, &asks.fields)
}

async fn write(serving: &Serving, asks: &Asks, op: u64) -> Answer {
    let Some(Plan { change, late }) = serving.register().planned(op) else { return Ok(json(404, "{}")) };
    match late {
        Some(late) => sleep(late).await,
        None => sleep(serving.pause()).await,
    }
    let want = asks.fields.get("x-want").and_then(|want| want.to_str().ok()).unwrap_or_default();
    if want == "refused" {
        return Ok(json(403, "{}"));
    }
    let shown = {
        let mut register = serving.register();
        let contact = register.effect(op, asks.world);
        contact.and_then(|contact| answer_of(&register, asks.world, change, contact))
    };
    sleep(serving.pause()).await;
    let Some(shown) = shown else { return Ok(json(404, "{}")) };
    match want {
        "unprocessable" => Ok(json(422, "{}")),
        "failed" => Ok(json(500, "{}")),
        "reset" => Err(HungUp),
        "empty" => Ok(json(200, "")),
        _ => Ok(json(200, &shown)),
    }
}

/// What a write's answer shows.
fn answer_of(register: &Register, world: usize, change: Change, contact: usize) -> Option<String> {
    let id = register.contact_id(world, contact);
    let conversation = |first: usize| {
        let (display, uuid) = (register.display_id(world, first), register.uuid(world, first));
        format!(r#"{{"id":{display},"uuid":"{uuid}","meta":{{"sender":{{"id":{id}}}}}}}"#)
    };
    Some(match change {
        Change::Under(source, What::Card) | Change::Create(source) | Change::Merge { source, .. } => {
            contact_json(register, world, source)?
        }
        Change::Under(source, What::Says(_, first)) => {
            let id_of = 10 + register.facts(world, source)[Said::Newest.of(first)];
            format!(r#"{{"id":{id_of},"message_type":0,"sender":{{"id":{id},"type":"contact"}}}}"#)
        }
        Change::Under(..) | Change::Contact(..) => conversation(contact),
        Change::MergeContacts { .. } => format!(r#"{{"id":{id}}}"#),
        Change::Conversation(..) => r#"{"id":5,"message_type":1,"sender":{"id":3,"type":"user"}}"#.to_owned(),
    })
}

fn contact_json(register: &Register, world: usize, source: usize) -> Option<String> {
    let (contact, _) = register.conversations(world, source)?;
    let card = register.facts(world, source)[CARD];
    Some(format!(r#"{{"id":{contact},"name":"n{card}","source_id":"{}"}}"#, source_name(register.seed, source)))
}

fn json(status: u16, body: &str) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::copy_from_slice(body.as_bytes())));
    *answer.status_mut() = http::StatusCode::from_u16(status).expect("a status");
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    answer
}

/// What was read, as it was when it was made.
struct Shown {
    /// Whether there is anything.
    is_there: bool,
    etag: String,
    body: String,
    tells_origins: bool,
}

impl Shown {
    fn of(register: &Register, world: usize, source: usize, what: Read) -> Self {
        let (version, facts) = (register.shown(world, source), register.facts(world, source));
        let tells_origins = register.manner.tells_origins;
        let is_nameless = register.manner.is_nameless(source);
        let found = register.conversations(world, source).filter(|_| version > 1 && !is_nameless);
        let conversation = |contact: u64, first: usize| {
            let (display, uuid) = (register.display_id(world, first), register.uuid(world, first));
            let (seen, card) = (facts[Said::Seen.of(first)], facts[CARD]);
            let messages = messages(contact, first, &facts);
            format!(
                r#"{{"id":{display},"uuid":"{uuid}","version":{version},"contact_last_seen_at":{seen},"contact":{{"id":{contact},"account_id":1,"name":"n{card}"}},"messages":[{messages}]}}"#
            )
        };
        let first = |display: u64| {
            let (contact, firsts) = found.as_ref()?;
            let first = register.first_of(world, display).filter(|first| firsts.contains(first))?;
            Some((*contact, first))
        };
        let body = match what {
            // Made from the body alone: what names nobody is alike, whose it may be. It shows its version in its length.
            Read::List if found.is_none() => (version > 0).then(|| format!("[{}]", " ".repeat(to_usize(version) - 1))),
            Read::List => found.map(|(contact, firsts)| {
                let all: Vec<String> = firsts.iter().map(|first| conversation(contact, *first)).collect();
                format!("[{}]", all.join(","))
            }),
            Read::Conversation(display) => first(display).map(|(contact, first)| conversation(contact, first)),
            Read::Newest(display) => {
                first(display).map(|(contact, first)| format!("[{}]", messages(contact, first, &facts)))
            }
            Read::Older(display) => {
                first(display).map(|(contact, first)| format!("[{}]", older(contact, first, &facts)))
            }
            Read::Contact => contact_json(register, world, source),
        };
        let body = body.unwrap_or_default();
        let hash = body.bytes().fold(0_u64, |hash, byte| hash.wrapping_mul(0x100_0000_01b3) ^ u64::from(byte));
        Self { is_there: !body.is_empty(), etag: format!("\"{hash:x}\""), body, tells_origins }
    }

    /// As it is, or one of the odd ways in which it may come.
    fn answer(&self, luck: u64, asked: &HeaderMap) -> Answer {
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
        let origins = |answer: &mut Response<_>| {
            if self.tells_origins {
                let origin = asked.get(header::ORIGIN).cloned().unwrap_or(HeaderValue::from_static("null"));
                answer.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
                answer.headers_mut().insert(header::VARY, HeaderValue::from_static("Origin"));
            }
        };
        if !self.is_there {
            let mut missing = json(404, "{}");
            origins(&mut missing);
            return Ok(missing);
        }
        let etag = HeaderValue::try_from(&self.etag).expect("a field");
        if asked.get(header::IF_NONE_MATCH) == Some(&etag) {
            let mut same = json(304, "");
            same.headers_mut().insert(header::ETAG, etag);
            origins(&mut same);
            return Ok(same);
        }
        // Longer than what is kept.
        let padding = if luck == 9 { " ".repeat(4_000) } else { String::new() };
        let mut answer = json(200, &format!("{padding}{}", self.body));
        if luck != 10 {
            answer.headers_mut().insert(header::ETAG, etag);
        }
        origins(&mut answer);
        match luck {
            11 | 12 => drop(answer.headers_mut().insert(header::VARY, HeaderValue::from_static("x-odd"))),
            13 | 14 => drop(answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))),
            _ => {}
        }
        Ok(answer)
    }
}

/// Who wrote the messages of a conversation: the contact, or agents alone.
fn sender(contact: u64, first: usize, facts: &Facts) -> String {
    match first % 2 {
        0 => format!(r#"{{"id":{contact},"type":"contact","name":"n{}"}}"#, facts[CARD]),
        _ => r#"{"id":3,"type":"user","name":"agent"}"#.to_owned(),
    }
}

fn older(contact: u64, first: usize, facts: &Facts) -> String {
    let (sender, older) = (sender(contact, first, facts), facts[Said::Older.of(first)]);
    format!(r#"{{"id":5,"content":"o{older}","sender":{sender}}}"#)
}

fn messages(contact: u64, first: usize, facts: &Facts) -> String {
    let (sender, newest) = (sender(contact, first, facts), 10 + facts[Said::Newest.of(first)]);
    format!(r#"{},{{"id":{newest},"content":"x","sender":{sender}}}"#, older(contact, first, facts))
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).expect("few")
}

/// The version that a list shows, if it is a list or a 404.
pub fn number_of(status: u16, body: &[u8]) -> Option<u64> {
    match status {
        404 => Some(0),
        200 => {
            let list: Value = serde_json::from_slice(body).ok()?;
            match list.as_array()?.first() {
                None => {
                    let list = body.trim_ascii();
                    Some(u64::try_from(list.len() - 1).expect("few"))
                }
                Some(conversation) => conversation.get("version")?.as_u64(),
            }
        }
        _ => None,
    }
}

/// The facts that an answer shows, if it is what was asked for, or a 404: that of a conversation shows nothing of it.
pub fn facts_of(register: &Register, world: usize, what: Read, status: u16, body: &[u8]) -> Option<Vec<(usize, u64)>> {
    let body: Value = match status {
        404 => Value::Null,
        200 => serde_json::from_slice(body).ok()?,
        _ => return None,
    };
    let numbered =
        |value: &Value, letter: char| value.as_str().and_then(|name| name.strip_prefix(letter)?.parse().ok());
    let mut facts: Vec<(usize, u64)> = Vec::new();
    let mut messages = |display: u64, messages: &Value| {
        let first = register.first_of(world, display)?;
        for message in messages.as_array().map_or(&[][..], Vec::as_slice) {
            match message["id"].as_u64()? {
                5 => facts.push((Said::Older.of(first), numbered(&message["content"], 'o')?)),
                id => facts.push((Said::Newest.of(first), id - 10)),
            }
            facts.extend(numbered(&message["sender"]["name"], 'n').map(|card| (CARD, card)));
        }
        Some(first)
    };
    let (mut more, list) = (Vec::new(), body.as_array().cloned().unwrap_or_default());
    match what {
        Read::Contact => more.push((CARD, numbered(&body["name"], 'n').unwrap_or(0))),
        Read::List | Read::Conversation(_) => {
            for one in if what == Read::List { &list[..] } else { std::slice::from_ref(&body) } {
                let Some(display) = one["id"].as_u64() else { continue };
                let first = messages(display, &one["messages"])?;
                more.push((Said::Seen.of(first), one["contact_last_seen_at"].as_u64()?));
                more.push((CARD, numbered(&one["contact"]["name"], 'n')?));
            }
        }
        Read::Newest(display) | Read::Older(display) => _ = messages(display, &body)?,
    }
    facts.extend(more);
    let all_of = |said: &[Said], display| {
        let first = register.first_of(world, display);
        first.into_iter().flat_map(move |first| said.iter().map(move |said| said.of(first))).collect::<Vec<_>>()
    };
    // What is not there is older than anything.
    let expected = match what {
        Read::List if status == 200 => (0..CONTACTS).flat_map(|first| Said::ALL.map(|said| said.of(first))).collect(),
        Read::Conversation(display) => all_of(&Said::ALL, display),
        Read::Newest(display) => all_of(&[Said::Newest, Said::Older], display),
        Read::Older(display) => all_of(&[Said::Older], display),
        Read::List | Read::Contact => Vec::new(),
    };
    for fact in expected {
        if !facts.iter().any(|(shown, _)| *shown == fact) {
            facts.push((fact, 0));
        }
    }
    Some(facts)
}

/// A path of a contact.
pub fn contact_path(seed: u64, source: usize) -> String {
    format!("/public/api/v1/inboxes/{INBOX}/contacts/{}", source_name(seed, source))
}
