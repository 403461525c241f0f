//! Why the upstream gave no answer.

use std::fmt;

/// Why the upstream gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamError {
    /// No connection: nothing was sent.
    Connect,
    /// No head, or not the whole answer, within the limits.
    Timeout,
    /// The connection broke, before the head or within the body.
    Reset,
    /// It is not HTTP, or the framing is wrong.
    Malformed,
    /// Not the upstream's fault: the client gave no more of its body for too long.
    ClientStalled,
    /// Not the upstream's fault: the client's body broke off, or its framing is wrong.
    ClientBroke,
}

impl UpstreamError {
    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Malformed => "malformed",
            Self::ClientStalled | Self::ClientBroke => "client",
        }
    }
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "no connection to the upstream",
            Self::Timeout => "the upstream took too long",
            Self::Reset => "the upstream broke the connection",
            Self::Malformed => "the upstream's answer is not HTTP",
            Self::ClientStalled => "the request's body did not go on",
            Self::ClientBroke => "the request's body is not whole",
        })
    }
}

impl std::error::Error for UpstreamError {}
