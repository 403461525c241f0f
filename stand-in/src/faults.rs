//! What can be wrong with an upstream, switchable while it runs.

use std::fmt;

use super::log::{Matcher, Seen};

/// A way in which the stand-in misbehaves. Without a matcher it concerns the conversation list alone, or, if it is
/// about what happens after a write, every write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Every answer takes longer, by [`Options::slow_by`](super::Options::slow_by).
    Slow,
    /// 500, as the application answers any exception.
    Error,
    /// A write is done, and answered with 500.
    ErrorAfter,
    /// 503 with an HTML page, from a front server.
    Unavailable,
    /// 429, as the rate limiter answers: text, no `retry-after`.
    Throttle,
    /// Never answers.
    Hang,
    /// Sends the head, then nothing more.
    HangBody,
    /// Closes the connection without a byte.
    Reset,
    /// A write is done, and the connection closed without a byte.
    ResetAfter,
    /// Announces a length, sends half of it and closes.
    Truncate,
    /// Sends some chunks and closes without the last one.
    TruncateChunked,
    /// HTTP/1.1 with neither length nor chunks: the close is the end.
    CloseDelimited,
    /// 200 with an HTML maintenance page.
    Html,
    /// 200 with a JSON object where an array belongs.
    WrongShape,
    /// A good answer, chunked instead of with a length.
    Chunked,
    /// A good answer with a `set-cookie`.
    SetCookie,
    /// A good answer without its ETag.
    NoEtag,
    /// The order of the conversations changes from answer to answer.
    Reorder,
}

impl Fault {
    /// Every fault with its name on the command line, and what it does in a few words.
    pub const ALL: [(&'static str, Self, &'static str); 18] = [
        ("slow", Self::Slow, "every answer takes five seconds longer"),
        ("error", Self::Error, "500, as the application answers an exception"),
        ("error-after", Self::ErrorAfter, "writes are done, and answered with 500"),
        ("unavailable", Self::Unavailable, "503 with an HTML page, from a front server"),
        ("throttle", Self::Throttle, "429 from the rate limiter, without Retry-After"),
        ("hang", Self::Hang, "never answers"),
        ("hang-body", Self::HangBody, "sends the head, then nothing more"),
        ("reset", Self::Reset, "closes the connection without a byte"),
        ("reset-after", Self::ResetAfter, "writes are done, and the connection closed without a byte"),
        ("truncate", Self::Truncate, "announces a length, sends half of it and closes"),
        ("truncate-chunked", Self::TruncateChunked, "sends some chunks and closes without the last one"),
        ("close-delimited", Self::CloseDelimited, "neither length nor chunks: the close is the end"),
        ("html", Self::Html, "200 with an HTML maintenance page"),
        ("wrong-shape", Self::WrongShape, "200 with a JSON object where an array belongs"),
        ("chunked", Self::Chunked, "a good answer, chunked instead of with a length"),
        ("set-cookie", Self::SetCookie, "a good answer with a Set-Cookie"),
        ("no-etag", Self::NoEtag, "a good answer without its ETag"),
        ("reorder", Self::Reorder, "the conversations come in another order each time"),
    ];

    /// The fault of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, ..)| *known == name).map(|(_, fault, _)| *fault)
    }

    /// The requests that it concerns if nothing else is said.
    pub(super) fn usual(self) -> Matcher {
        match self {
            Self::ErrorAfter | Self::ResetAfter => Matcher::writes(),
            _ => Matcher::lists(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Self::ALL.iter().find(|(_, fault, _)| fault == self);
        f.write_str(named.map_or("unnamed", |(name, ..)| name))
    }
}

/// The faults that are on, each with the requests it concerns and how often it still happens.
#[derive(Default)]
pub(super) struct Faults {
    rules: Vec<Rule>,
}

struct Rule {
    fault: Fault,
    matcher: Matcher,
    left: Option<usize>,
}

impl Faults {
    pub(super) fn add(&mut self, fault: Fault, matcher: Matcher, times: Option<usize>) {
        self.rules.push(Rule { fault, matcher, left: times });
    }

    pub(super) fn clear(&mut self) {
        self.rules.clear();
    }

    /// The faults that befall this request; counted ones are used up by it.
    pub(super) fn befall(&mut self, seen: &Seen) -> Befallen {
        let mut befallen = Vec::new();
        for rule in self.rules.iter_mut().filter(|rule| rule.left != Some(0) && rule.matcher.matches(seen)) {
            befallen.push(rule.fault);
            if let Some(left) = &mut rule.left {
                *left -= 1;
            }
        }
        Befallen(befallen)
    }
}

/// The faults of one request.
pub(super) struct Befallen(Vec<Fault>);

impl Befallen {
    pub(super) fn has(&self, fault: Fault) -> bool {
        self.0.contains(&fault)
    }

    pub(super) fn all(&self) -> &[Fault] {
        &self.0
    }
}
