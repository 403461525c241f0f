//! How a request ended: the `Cache-Status` field, the metric labels and the log line are all made from it.

use http::{HeaderValue, StatusCode};

use crate::engine::metrics::{Ending, Limit};
use crate::engine::upstream::error::{Spared, UpstreamError, Why};

/// How a request ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which of the ten.
    pub ending: Ending,
    /// The parameters of `Cache-Status` (RFC 9211), each with its `; `.
    cache_status: String,
    /// Why, from a closed set: in `Cache-Status` and in the log.
    pub detail: Option<&'static str>,
    /// Why is for the log alone.
    quiet: bool,
    /// The class of the upstream's error, if there was one (RFC 9209): for the log.
    pub error: Option<&'static str>,
    /// The limit that it was beyond, if it was.
    pub limit: Option<Limit>,
}

impl Outcome {
    /// From memory, with the seconds it stays fresh: negative if it is stale.
    pub fn from_memory(ending: Ending, ttl: i64) -> Self {
        Self::new(ending, format!("; hit; ttl={ttl}"))
    }

    /// Forwarded, for this reason of RFC 9211 section 2.2.
    pub fn forwarded(ending: Ending, reason: &str) -> Self {
        Self::new(ending, format!("; fwd={reason}"))
    }

    /// Answered here.
    pub fn own(ending: Ending) -> Self {
        Self::new(ending, String::new())
    }

    fn new(ending: Ending, cache_status: String) -> Self {
        Self { ending, cache_status, detail: None, quiet: false, error: None, limit: None }
    }

    /// The upstream answered with this status.
    #[must_use]
    pub fn status(mut self, status: StatusCode) -> Self {
        self.cache_status.push_str("; fwd-status=");
        self.cache_status.push_str(status.as_str());
        self
    }

    /// The answer was stored.
    #[must_use]
    pub fn stored(mut self, stored: bool) -> Self {
        if stored {
            self.cache_status.push_str("; stored");
        }
        self
    }

    /// It waited for another's fetch.
    #[must_use]
    pub fn collapsed(mut self, collapsed: bool) -> Self {
        if collapsed {
            self.cache_status.push_str("; collapsed");
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

    /// The value of `Cache-Status`.
    pub fn field(&self) -> HeaderValue {
        let detail =
            self.detail.filter(|_| !self.quiet).map_or_else(String::new, |detail| format!("; detail={detail}"));
        HeaderValue::try_from(format!("anteroom{}{detail}", self.cache_status)).expect("made of tokens")
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
            (Outcome::forwarded(Ending::Bypass, "bypass").detail("cookie"), "anteroom; fwd=bypass; detail=cookie"),
            (Outcome::own(Ending::Refused), "anteroom"),
        ] {
            assert_eq!(outcome.field(), expected);
        }
    }
}
