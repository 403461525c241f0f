//! Where the upstream is, and the limits of asking it.

use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};

/// What the client towards the upstream obeys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// `upstream.url`: the first of them, whose host the upstream is told.
    pub base: BaseUrl,
    /// The others: more doors of the same installation, with the same scheme and path.
    pub others: Vec<BaseUrl>,
    /// `upstream.lookup_interval`: how often names are looked up again.
    pub lookup_interval: Duration,
    /// `upstream.connection_max_age`: an older connection carries no further request.
    pub connection_max_age: Duration,
    /// `upstream.connect_timeout`: name look-up, TCP and TLS together.
    pub connect_timeout: Duration,
    /// `upstream.head_timeout`: from the last byte of the request to the head of the answer.
    pub head_timeout: Duration,
    /// `upstream.stall_timeout`: no byte either way of a passed-through body or tunnel.
    pub stall_timeout: Duration,
    /// `upstream.pool_idle`: how long an unused connection is kept.
    pub pool_idle: Duration,
    /// `upstream.requests_per_minute`: all together; none is no limit.
    pub requests_per_minute: Option<usize>,
    /// `upstream.breaker`: whether it is left alone while it gives nothing but failures.
    pub breaker: bool,
    /// `upstream.http2`, if the upstream is told its own host: whether shared fetches take HTTP/2 where it is offered.
    pub http2: bool,
    /// `upstream.host`, if it is a name: what the certificate is checked against.
    pub server_name: Option<String>,
    /// `upstream.ca_file`: PEM certificates trusted besides the system's.
    pub ca_file: Option<PathBuf>,
}

impl UpstreamSettings {
    /// All URLs.
    pub fn urls(&self) -> impl Iterator<Item = &BaseUrl> {
        std::iter::once(&self.base).chain(&self.others)
    }
}

/// Where the upstream is: scheme, authority and an optional path prefix without a trailing slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    /// `http` or `https`.
    pub scheme: Scheme,
    /// Host, and port if it is not the scheme's.
    pub authority: Authority,
    /// Empty, or a path such as `/chat` that stands before every path of a client.
    pub prefix: String,
}

impl BaseUrl {
    /// The name or the address, without brackets.
    pub fn host(&self) -> &str {
        self.authority.host().trim_matches(['[', ']'])
    }

    /// The port, or the scheme's.
    pub fn port(&self) -> u16 {
        let usual = if self.scheme == Scheme::HTTPS { 443 } else { 80 };
        self.authority.port_u16().unwrap_or(usual)
    }

    /// The upstream's URI for a client's path and query, which stay as they are, byte for byte.
    pub fn join(&self, path_and_query: &str) -> Result<Uri, http::Error> {
        self.at(&PathAndQuery::try_from(path_and_query)?)
    }

    /// The same for a path that has been read already.
    ///
    /// # Errors
    /// If it cannot be part of a URL behind the prefix.
    pub fn at(&self, path_and_query: &PathAndQuery) -> Result<Uri, http::Error> {
        let path = if self.prefix.is_empty() {
            path_and_query.clone()
        } else {
            PathAndQuery::try_from(format!("{}{path_and_query}", self.prefix))?
        };
        Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone()).path_and_query(path).build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_path_is_not_changed() {
        let base = |prefix: &str| BaseUrl {
            scheme: Scheme::HTTPS,
            authority: Authority::from_static("up.test"),
            prefix: prefix.to_owned(),
        };
        for path in ["/", "/a//b/../c%2F%zz?x=%20&y", "/a?"] {
            let uri = base("").join(path).unwrap();
            assert_eq!(uri.path_and_query().unwrap().as_str(), path);
            assert_eq!(base("/chat").join(path).unwrap().to_string(), format!("https://up.test/chat{path}"));
        }
    }
}
