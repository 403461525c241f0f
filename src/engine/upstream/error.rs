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
    /// Not the upstream's fault: the client gave no more of its body for too long.
    ClientStalled,
    /// Not the upstream's fault: the client's body broke off, or its framing is wrong.
    ClientBroke,
}

impl UpstreamError {
    /// The metric label of what a request came to.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Timeout => "timeout",
            Self::Reset | Self::Incomplete => "reset",
            Self::Malformed => "malformed",
            Self::ClientStalled | Self::ClientBroke => "client",
        }
    }

    /// Its class (RFC 9209 section 2.3); none if the client is at fault.
    pub fn class(self) -> Option<ErrorClass> {
        match self {
            Self::Connect(failure) => Some(failure.class),
            Self::Timeout => Some(ErrorClass::HttpResponseTimeout),
            Self::Reset => Some(ErrorClass::ConnectionTerminated),
            Self::Incomplete => Some(ErrorClass::HttpResponseIncomplete),
            Self::Malformed => Some(ErrorClass::HttpProtocolError),
            Self::ClientStalled | Self::ClientBroke => None,
        }
    }

    /// The cause in words, for whoever asked this upstream; with its address, never with a path.
    pub fn told_of(self, base: &BaseUrl) -> String {
        match self {
            Self::ClientStalled | Self::ClientBroke => self.to_string(),
            _ => format!("the upstream {}: {}", base.authority, self.words(&base.scheme)),
        }
    }

    /// The cause in words, without the address; `scheme` is how it was asked.
    pub fn words(self, scheme: &Scheme) -> String {
        let hint = if self == Self::Malformed && *scheme == Scheme::HTTP { "; is it to be asked with https?" } else { "" };
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
            Self::ClientStalled => "the request's body did not go on",
            Self::ClientBroke => "the request's body is not whole",
        })
    }
}

impl std::error::Error for UpstreamError {}
