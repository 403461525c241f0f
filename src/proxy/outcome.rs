//! How a request ended: the `Cache-Status` field, the metric labels and the log line are all made from it.

use http::{HeaderValue, StatusCode};

use crate::engine::metrics::{Ending, Limit};
use crate::engine::upstream::error::{Spared, UpstreamError, Why};

/// How a request ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which of the ten.
    pub ending: Ending,
    way: Way,
    /// Why, from a closed set: in `Cache-Status` and in the log.
    pub detail: Option<&'static str>,
    /// Why is for the log alone.
    quiet: bool,
    /// The class of the upstream's error, if there was one (RFC 9209): for the log.
    pub error: Option<&'static str>,
    /// The limit that it was beyond, if it was.
    pub limit: Option<Limit>,
}

/// What `Cache-Status` says besides why.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// From memory, with the seconds it stays fresh.
    Hit { ttl: i64 },
    /// Forwarded, for a reason of RFC 9211 section 2.2.
    Forwarded {
        reason: &'static str,
        status: Option<StatusCode>,
        stored: bool,
        collapsed: bool,
        /// The seconds that what came stays fresh, if that is known.
        ttl: Option<i64>,
    },
    /// Neither.
    Own,
}

impl Outcome {
    /// From memory, with the seconds it stays fresh: negative if it is stale.
    pub fn from_memory(ending: Ending, ttl: i64) -> Self {
        Self::new(ending, Way::Hit { ttl })
    }

    /// Forwarded, for this reason of RFC 9211 section 2.2.
    pub fn forwarded(ending: Ending, reason: &'static str) -> Self {
        Self::new(ending, Way::Forwarded { reason, status: None, stored: false, collapsed: false, ttl: None })
    }

    /// Answered here.
    pub fn own(ending: Ending) -> Self {
        Self::new(ending, Way::Own)
    }

    fn new(ending: Ending, way: Way) -> Self {
        Self { ending, way, detail: None, quiet: false, error: None, limit: None }
    }

    /// The upstream answered with this status.
    #[must_use]
    pub fn status(mut self, answered: StatusCode) -> Self {
        if let Way::Forwarded { status, .. } = &mut self.way {
            *status = Some(answered);
        }
        self
    }

    /// The answer was stored.
    #[must_use]
    pub fn stored(mut self, is_stored: bool) -> Self {
        if let Way::Forwarded { stored, .. } = &mut self.way {
            *stored = is_stored;
        }
        self
    }

    /// It waited for another's fetch.
    #[must_use]
    pub fn collapsed(mut self, is_collapsed: bool) -> Self {
        if let Way::Forwarded { collapsed, .. } = &mut self.way {
            *collapsed = is_collapsed;
        }
        self
    }

    /// What is sent stays fresh for so many seconds.
    #[must_use]
    pub fn fresh_for(mut self, seconds: i64) -> Self {
        if let Way::Forwarded { ttl, .. } = &mut self.way {
            *ttl = Some(seconds);
        }
        self
    }

    /// It came from memory after the upstream had been asked for this reason, and answered with this status, if it did: that is
    /// no hit (RFC 9211 section 2.1).
    #[must_use]
    pub fn after_asking(mut self, reason: &'static str, status: Option<StatusCode>) -> Self {
        if let Way::Hit { ttl } = self.way {
            self.way = Way::Forwarded { reason, status, stored: false, collapsed: false, ttl: Some(ttl) };
        }
        self
    }

    /// Why.
    #[must_use]
    pub fn detail(mut self, detail: &'static str) -> Self {
        self.detail = Some(detail);
        self
    }

    /// Why, for the log alone.
    #[must_use]
    pub fn quietly(mut self, detail: &'static str) -> Self {
        (self.detail, self.quiet) = (Some(detail), true);
        self
    }

    /// It was beyond a limit.
    #[must_use]
    pub fn beyond(mut self, limit: Limit) -> Self {
        self.limit = Some(limit);
        self
    }

    /// The upstream gave no answer.
    #[must_use]
    pub fn failed(mut self, error: UpstreamError) -> Self {
        self.error = error.proxy_error();
        self.limit = match error {
            UpstreamError::ClientTooLong => Some(Limit::Body),
            UpstreamError::ClientStalled => Some(Limit::StallTimeout),
            UpstreamError::Spared(Spared { why: Why::Queue, .. }) => Some(Limit::MaxQueued),
            _ => None,
        };
        self.detail(error.label())
    }

    /// Whether the upstream is asked for it, and not only waited for.
    pub fn asks_upstream(&self) -> bool {
        matches!(self.way, Way::Forwarded { collapsed: false, .. })
    }

    /// The value of `Cache-Status`.
    pub fn field(&self) -> HeaderValue {
        let mut text = Vec::with_capacity(128);
        self.tell(&mut text);
        HeaderValue::from_bytes(&text).expect("made of tokens")
    }

    /// The same, behind what is there.
    pub fn tell(&self, out: &mut Vec<u8>) {
        let mut say = |text: &str| out.extend_from_slice(text.as_bytes());
        say("anteroom");
        match self.way {
            Way::Hit { ttl } => {
                say("; hit; ttl=");
                say(itoa::Buffer::new().format(ttl));
            }
            Way::Forwarded { reason, status, stored, collapsed, ttl } => {
                say("; fwd=");
                say(reason);
                if let Some(status) = status {
                    say("; fwd-status=");
                    say(status.as_str());
                }
                say(if stored { "; stored" } else { "" });
                say(if collapsed { "; collapsed" } else { "" });
                if let Some(ttl) = ttl {
                    say("; ttl=");
                    say(itoa::Buffer::new().format(ttl));
                }
            }
            Way::Own => {}
        }
        if let Some(detail) = self.detail.filter(|_| !self.quiet) {
            say("; detail=");
            say(detail);
        }
    }
}

/// What is kept is served, since the upstream would not be asked now.
pub const SPARED_AND_KEPT: &str = "the upstream is spared requests for now: what is kept stands in";

/// The upstream would not be asked now, and nothing stands in.
pub fn spared(why: Why) -> &'static str {
    match why {
        Why::Failing => "the upstream fails and is left alone, but for one request a second, and nothing stands in: 503",
        Why::Budget => "the upstream has had its upstream.requests_per_minute, and nothing stands in: 503",
        Why::Queue => "too many wait for the upstream already, and nothing stands in: 503",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_status_is_as_rfc_9211_wants_it() {
        for (outcome, expected) in [
            (Outcome::from_memory(Ending::Hit, 12), "anteroom; hit; ttl=12"),
            (Outcome::from_memory(Ending::Stale, -3).detail("failing"), "anteroom; hit; ttl=-3; detail=failing"),
            (
                Outcome::forwarded(Ending::Joined, "uri-miss").status(StatusCode::OK).stored(true).collapsed(true),
                "anteroom; fwd=uri-miss; fwd-status=200; stored; collapsed",
            ),
            (
                Outcome::forwarded(Ending::Miss, "stale").status(StatusCode::NOT_MODIFIED).stored(true).fresh_for(9),
                "anteroom; fwd=stale; fwd-status=304; stored; ttl=9",
            ),
            (
                Outcome::from_memory(Ending::Stale, -3).after_asking("stale", Some(StatusCode::BAD_GATEWAY)).detail("x"),
                "anteroom; fwd=stale; fwd-status=502; ttl=-3; detail=x",
            ),
            (Outcome::forwarded(Ending::Bypass, "bypass").detail("cookie"), "anteroom; fwd=bypass; detail=cookie"),
            (Outcome::own(Ending::Refused), "anteroom"),
        ] {
            assert_eq!(outcome.field(), expected);
        }
    }
}
