//! What can be wrong with an upstream, switchable while it runs.

use std::fmt;
use std::str::FromStr;

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
    /// Every fault with its name on the command line.
    pub const ALL: [(&'static str, Self); 18] = [
        ("slow", Self::Slow),
        ("error", Self::Error),
        ("error-after", Self::ErrorAfter),
        ("unavailable", Self::Unavailable),
        ("throttle", Self::Throttle),
        ("hang", Self::Hang),
        ("hang-body", Self::HangBody),
        ("reset", Self::Reset),
        ("reset-after", Self::ResetAfter),
        ("truncate", Self::Truncate),
        ("truncate-chunked", Self::TruncateChunked),
        ("close-delimited", Self::CloseDelimited),
        ("html", Self::Html),
        ("wrong-shape", Self::WrongShape),
        ("chunked", Self::Chunked),
        ("set-cookie", Self::SetCookie),
        ("no-etag", Self::NoEtag),
        ("reorder", Self::Reorder),
    ];

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
        let named = Self::ALL.iter().find(|(_, fault)| fault == self);
        f.write_str(named.map_or("unnamed", |(name, _)| name))
    }
}

/// No fault has this name; says which names there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownFault(String);

impl fmt::Display for UnknownFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = Fault::ALL.iter().map(|(name, _)| *name).collect();
        write!(f, "\"{}\" is not a fault; write one of {}", self.0, names.join(", "))
    }
}

impl std::error::Error for UnknownFault {}

impl FromStr for Fault {
    type Err = UnknownFault;

    fn from_str(name: &str) -> Result<Self, UnknownFault> {
        let named = Self::ALL.iter().find(|(known, _)| *known == name);
        named.map(|(_, fault)| *fault).ok_or_else(|| UnknownFault(name.to_owned()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_its_name_and_an_unknown_one_lists_them_all() {
        for (name, fault) in Fault::ALL {
            assert_eq!(name.parse(), Ok(fault));
            assert_eq!(fault.to_string(), name);
        }
        let message = "fire".parse::<Fault>().expect_err("no such fault").to_string();
        assert!(message.starts_with("\"fire\" is not a fault; write one of slow, error,"), "{message}");
        assert!(Fault::ALL.iter().all(|(name, _)| message.contains(name)));
    }
}
