//! How the register answers: readings, look-ups and writes, in time, late, broken, or not at all.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::time::sleep;

use super::Dice;
use super::register::{Change, INBOX, Plan, Register, SOURCES, Trouble, source_name};

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
    if asks.path.ends_with("/conversations") {
        read(&serving, &asks, source).await
    } else {
        look_up(&serving, &asks, source).await
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

async fn read(serving: &Serving, asks: &Asks, source: usize) -> Answer {
    // Where it is of interest how late something shows, lists come at once.
    let is_quick = serving.register().manner.trouble == Trouble::LateWrites;
    let pause = || if is_quick { Duration::from_millis(serving.dice().below(40)) } else { serving.pause() };
    sleep(pause()).await;
    let shown = List::of(&serving.register(), asks.world, source);
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
    Some(match change {
        Change::Message(_) => format!(r#"{{"id":5,"message_type":0,"sender":{{"id":{id},"type":"contact"}}}}"#),
        Change::Create(source) | Change::Merge { source, .. } => contact_json(register, world, source)?,
        Change::MergeContacts { .. } => format!(r#"{{"id":{id}}}"#),
        Change::Conversation(_) => r#"{"id":5,"message_type":1,"sender":{"id":3,"type":"user"}}"#.to_owned(),
        Change::Contact(_) => {
            let (display, uuid) = (register.display_id(world, contact), register.uuid(world, contact));
            format!(r#"{{"id":{display},"uuid":"{uuid}","meta":{{"sender":{{"id":{id}}}}}}}"#)
        }
    })
}

fn contact_json(register: &Register, world: usize, source: usize) -> Option<String> {
    let (contact, _) = register.conversations(world, source)?;
    Some(format!(r#"{{"id":{contact},"source_id":"{}"}}"#, source_name(register.seed, source)))
}

fn json(status: u16, body: &str) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::copy_from_slice(body.as_bytes())));
    *answer.status_mut() = http::StatusCode::from_u16(status).expect("a status");
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    answer
}

/// A list as it was when it was made.
struct List {
    version: u64,
    etag: String,
    /// Its conversations, as far as they go; none of a list that names nobody.
    conversations: Vec<String>,
    tells_origins: bool,
}

impl List {
    fn of(register: &Register, world: usize, source: usize) -> Self {
        let (version, tells_origins) = (register.shown(world, source), register.manner.tells_origins);
        let found =
            register.conversations(world, source).filter(|_| version > 1 && !register.manner.is_nameless(source));
        let Some((contact, firsts)) = found else {
            // Made from the body alone: what names nobody is alike, whose it may be.
            return Self { version, etag: format!("\"none-{version}\""), conversations: Vec::new(), tells_origins };
        };
        let etag = format!("\"{contact}-{version}-{firsts:?}\"").replace(' ', "");
        let one = |first: &usize| {
            let (display, uuid) = (register.display_id(world, *first), register.uuid(world, *first));
            format!(
                r#"{{"id":{display},"uuid":"{uuid}","contact_last_seen_at":{version},"contact":{{"id":{contact},"account_id":1}},"messages":[]}}"#
            )
        };
        Self { version, etag, conversations: firsts.iter().map(one).collect(), tells_origins }
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
        if self.version == 0 {
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
        let mut answer = json(200, &self.body(luck == 9));
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

    /// A list that names nobody shows its version in its length.
    fn body(&self, is_long: bool) -> String {
        let version = usize::try_from(self.version).expect("few");
        let padding = if is_long { 4_000 } else { 0 };
        if self.conversations.is_empty() {
            let padding = if padding > 0 { " ".repeat(padding) } else { String::new() };
            return format!("{padding}[{}]", " ".repeat(version - 1));
        }
        let last = format!(r#","p":"{}"}}"#, "x".repeat(padding));
        let all = self.conversations.join(",");
        format!("[{}{last}]", all.strip_suffix('}').unwrap_or(&all))
    }
}

/// The version that an answer shows, if it is a list or a 404.
pub fn number_of(status: u16, body: &[u8]) -> Option<u64> {
    match status {
        404 => Some(0),
        200 => {
            let list: serde_json::Value = serde_json::from_slice(body).ok()?;
            match list.as_array()?.first() {
                None => {
                    let list = body.trim_ascii();
                    Some(u64::try_from(list.len() - 1).expect("few"))
                }
                Some(conversation) => conversation.get("contact_last_seen_at")?.as_u64(),
            }
        }
        _ => None,
    }
}

/// A path of a contact.
pub fn contact_path(seed: u64, source: usize) -> String {
    format!("/public/api/v1/inboxes/{INBOX}/contacts/{}", source_name(seed, source))
}
