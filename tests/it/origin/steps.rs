//! Requests one after the other as rows of a table, and what comes of each: over real sockets, with an upstream that answers as
//! the row says.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::HeaderMap;

use super::{Fields, ORIGIN, not_modified, plain};
use crate::support::script::Script;
use crate::support::{Answer, Proxy, jump, request, send};

/// A request, what the upstream would answer, and what comes of it.
#[derive(Clone, Copy)]
pub struct Step {
    /// Seconds before it.
    pub after: u64,
    pub method: &'static str,
    pub asks: Fields,
    /// What the upstream answers if it is asked: 0 closes the connection.
    pub status: u16,
    pub says: Fields,
    pub body: &'static str,
    pub expects: &'static [Expect],
}

/// What comes of a request.
#[derive(Clone, Copy, Debug)]
pub enum Expect {
    /// It is answered from memory.
    Hit,
    /// From memory, with this value of this field; none if it is not there.
    HitWith(&'static str, Option<&'static str>),
    /// The upstream is asked, and what comes is its answer or is confirmed by it.
    Asked,
    /// It is asked with this value of this field; without it if there is none.
    AskedWith(&'static str, Option<&'static str>),
    /// The upstream fails, and what is stored stands in for it.
    StandsIn,
    /// Whoever answers, with this status.
    Status(u16),
    /// With this value of this field.
    With(&'static str, Option<&'static str>),
    /// With this body.
    Body(&'static str),
    /// `Cache-Status` says so.
    Told(&'static str),
}

pub use Expect::{Asked, AskedWith, Body, Hit, HitWith, StandsIn, Status, Told, With};

pub const HOUR: Fields = &[("cache-control", "max-age=3600")];
pub const NOTHING: Fields = &[];

/// A `GET` at once that the upstream is asked.
pub const fn first(says: Fields) -> Step {
    Step { after: 0, method: "GET", asks: NOTHING, status: 200, says, body: "text", expects: &[Asked] }
}

pub const fn of_status(status: u16, says: Fields) -> Step {
    Step { status, ..first(says) }
}

/// A `GET` with these fields, so many seconds later.
pub const fn then(after: u64, asks: Fields, expects: &'static [Expect]) -> Step {
    Step { after, asks, expects, ..first(NOTHING) }
}

pub const fn by(method: &'static str, step: Step) -> Step {
    Step { method, ..step }
}

/// The same, and the upstream would answer like this.
pub const fn answered(status: u16, says: Fields, step: Step) -> Step {
    Step { status, says, ..step }
}

/// The same with this body.
pub const fn with(body: &'static str, step: Step) -> Step {
    Step { body, ..step }
}

/// What a case shows, and its requests.
pub type Case = (&'static str, &'static [Step]);

/// What the upstream is to answer, and the last request that it got.
#[derive(Default)]
struct Scene {
    answer: Option<Step>,
    asked: Option<HeaderMap>,
}

/// An upstream that answers as a step says, and the proxy in front of it.
pub struct Stage {
    scene: Arc<Mutex<Scene>>,
    proxy: Proxy,
    _script: Script,
}

impl Stage {
    /// With these settings besides.
    pub async fn with(more: &str) -> Self {
        let scene = Arc::<Mutex<Scene>>::default();
        let shown = scene.clone();
        let script = Script::start(move |request| {
            let mut scene = shown.lock().unwrap();
            let Some(step) = scene.answer.filter(|_| request.uri().path().ends_with("/conversations")) else {
                return plain(404, &[], "");
            };
            scene.asked = Some(request.headers().clone());
            let asked = |name| request.headers().contains_key(name);
            match step.status {
                // No answer at all: the connection ends.
                0 => {
                    drop(scene);
                    std::panic::resume_unwind(Box::new("the connection ends"))
                }
                304 if asked("if-none-match") || asked("if-modified-since") => not_modified(step.says),
                304 => plain(200, step.says, step.body),
                status => plain(status, step.says, if step.method == "HEAD" { "" } else { step.body }),
            }
        })
        .await;
        let proxy = Proxy::in_front_of(&script.url, &format!("{ORIGIN}upstream.breaker = false\n{more}")).await;
        Self { scene, proxy, _script: script }
    }

    /// Plays all cases of a table, each with a list of its own.
    pub async fn play(&self, cases: &[Case]) {
        for (number, (name, steps)) in cases.iter().enumerate() {
            self.play_one(name, &format!("case-{number}"), steps).await;
        }
    }

    /// Plays one case.
    pub async fn play_one(&self, name: &str, source: &str, steps: &[Step]) {
        for (at, step) in steps.iter().enumerate() {
            jump(Duration::from_secs(step.after)).await;
            *self.scene.lock().unwrap() = Scene { answer: Some(*step), asked: None };
            let answer = send(request(step.method, &self.proxy.list_url(source), step.asks, "")).await;
            let asked = self.scene.lock().unwrap().asked.take();
            for expected in step.expects {
                judge(&format!("{name}, request {}", at + 1), expected, &answer, asked.as_ref());
            }
        }
    }
}

fn judge(place: &str, expected: &Expect, answer: &Answer, asked: Option<&HeaderMap>) {
    let told = answer.cache_status();
    let value = |headers: &HeaderMap, name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    match expected {
        Hit => assert!(answer.is_hit() && asked.is_none(), "{place}: {told}"),
        HitWith(name, expected) => {
            assert!(answer.is_hit() && asked.is_none(), "{place}: {told}");
            assert_eq!(value(&answer.headers, name).as_deref(), *expected, "{place}: {name}");
        }
        Asked => assert!(asked.is_some() && !answer.is_hit(), "{place}: {told}"),
        AskedWith(name, expected) => {
            let asked = asked.unwrap_or_else(|| panic!("{place}: nobody was asked: {told}"));
            assert_eq!(value(asked, name).as_deref(), *expected, "{place}: {name}");
        }
        StandsIn => {
            let is_told = told.starts_with("anteroom; fwd=stale") && told.ends_with("; detail=upstream-failing");
            assert!(answer.status.is_success() && is_told, "{place}: {told}");
        }
        Status(status) => assert_eq!(answer.status.as_u16(), *status, "{place}: {told}"),
        With(name, expected) => assert_eq!(value(&answer.headers, name).as_deref(), *expected, "{place}: {name}"),
        Body(text) => assert_eq!(answer.text(), *text, "{place}: {told}"),
        Told(text) => assert!(told.contains(text), "{place}: {told}"),
    }
}
