//! Why the upstream gave no answer.

use std::fmt;

use http::uri::Scheme;

use super::connect_failure::ConnectFailure;
use super::settings::BaseUrl;
use crate::engine::metrics::ErrorClass;

/// Why the upstream gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamError {
    /// No connection: nothing was sent.
    Connect(ConnectFailure),
    /// No head, or not the whole answer, within the limits.
    Timeout,
    /// The connection broke before the head.
    Reset,
    /// The answer broke off within its body.
    Incomplete,
    /// It is not HTTP, or the framing is wrong.
    Malformed,
    /// It was not asked: nothing was sent.
    Spared(Spared),
    /// Not the upstream's fault: the client gave no more of its body for too long.
    ClientStalled,
    /// Not the upstream's fault: the client's body broke off, or its framing is wrong.
    ClientBroke,
    /// Not the upstream's fault: the client's body is longer than `limits.body`.
    ClientTooLong,
}

/// A request that was not sent, so that the upstream is spared it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spared {
    /// Why.
    pub why: Why,
    /// After so many seconds it may be tried again.
    pub seconds: u32,
}

/// Why the upstream is spared a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It has given nothing but failures.
    Failing,
    /// It has had all that it may have within a minute.
    Budget,
    /// Too many fetches wait for their place already.
    Queue,
}

impl Why {
    /// The metric label, and the word in the log.
    pub fn label(self) -> &'static str {
        match self {
            Self::Failing => "breaker",
            Self::Budget => "budget",
            Self::Queue => "queue",
        }
    }
}

impl UpstreamError {
    /// The error type for `Proxy-Status` (RFC 9209 section 2.3); none if the client is at fault.
    pub fn proxy_error(self) -> Option<&'static str> {
        match self {
            Self::Spared(Spared { why: Why::Failing, .. }) => Some(ErrorClass::DestinationUnavailable.label()),
            Self::Spared(_) => Some("connection_limit_reached"),
            _ => self.class().map(ErrorClass::label),
        }
    }

    /// Whether the request's own body is at fault: the upstream never had the end of it.
    pub fn is_of_client(self) -> bool {
        matches!(self, Self::ClientStalled | Self::ClientBroke | Self::ClientTooLong)
    }

    /// The metric label of what a request came to.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Timeout => "timeout",
            Self::Reset | Self::Incomplete => "reset",
            Self::Malformed => "malformed",
            Self::Spared(Spared { why, .. }) => why.label(),
            Self::ClientStalled | Self::ClientBroke | Self::ClientTooLong => "client",
        }
    }

    /// Its class (RFC 9209 section 2.3); none if the client is at fault,
    /// or it was not asked.
    pub fn class(self) -> Option<ErrorClass> {
        match self {
            Self::Connect(failure) => Some(failure.class),
            Self::Timeout => Some(ErrorClass::HttpResponseTimeout),
            Self::Reset => Some(ErrorClass::ConnectionTerminated),
            Self::Incomplete => Some(ErrorClass::HttpResponseIncomplete),
            Self::Malformed => Some(ErrorClass::HttpProtocolError),
            Self::Spared(_) | Self::ClientStalled | Self::ClientBroke | Self::ClientTooLong => None,
        }
    }

    /// The cause in words, for whoever asked this upstream; with its address, never with a path.
    pub fn told_of(self, base: &BaseUrl) -> String {
        match self {
            _ if self.is_of_client() => self.to_string(),
            _ => format!("the upstream {}: {}", base.authority, self.words(&base.scheme)),
        }
    }

    /// The cause in words, without the address; `scheme` is how it was asked.
    pub fn words(self, scheme: &Scheme) -> String {
        let hint =
            if self == Self::Malformed && *scheme == Scheme::HTTP { "; is it to be asked with https?" } else { "" };
        format!("{self}{hint}")
    }
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect(failure) => failure.words,
            Self::Timeout => "it took too long to answer",
            Self::Reset => "it closed the connection without an answer",
            Self::Incomplete => "its answer broke off",
            Self::Malformed => "its answer is not HTTP",
            Self::Spared(Spared { why: Why::Failing, .. }) => "it has failed for a while, and is left alone for now",
            Self::Spared(Spared { why: Why::Budget, .. }) => "it has had all requests that it may have in a minute",
            Self::Spared(Spared { why: Why::Queue, .. }) => "too many requests wait for it already",
            Self::ClientStalled => "the request's body did not go on",
            Self::ClientBroke => "the request's body is not whole",
            Self::ClientTooLong => "the request's body is longer than it may be",
        })
    }
}

impl std::error::Error for UpstreamError {}
