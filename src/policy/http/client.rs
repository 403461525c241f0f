//! Who the client is, and what the upstream is told of it (RFC 7239, and the fields that were there before it).
//!
//! Only a proxy that the operator trusts is believed; what anyone else claims is replaced. Rack takes the **last**
//! element of `Forwarded` before it looks at `X-Forwarded-*`, so ours always says what the others say.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};
use http::uri::Authority;
use ipnet::IpNet;

use super::headers::X_REQUEST_ID;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Fields in which a client could claim to be somebody else, beside those that are always replaced: servers behind
/// read one or another of them.
const CLAIMS: [&str; 12] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-scheme",
    "x-forwarded-ssl",
    "x-forwarded-server",
    "x-real-ip",
    "x-client-ip",
    "client-ip",
];

/// Fields that are made here, or say here what a request is. A twin of theirs goes, too: it was not looked at.
const OURS: [&str; 4] = ["content-length", "transfer-encoding", "x-request-id", "x-http-method-override"];

/// The protocol of the client's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Plain.
    Http,
    /// Over TLS.
    Https,
}

impl Protocol {
    /// As it stands in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn read(text: &str) -> Option<Self> {
        [Self::Http, Self::Https].into_iter().find(|protocol| protocol.as_str().eq_ignore_ascii_case(text))
    }
}

/// `upstream.forwarded_proto`: which protocol the upstream is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolRule {
    /// What the client's side used.
    Client,
    /// Always this.
    Fixed(Protocol),
}

/// `upstream.host`: the `Host` that the upstream gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostRule {
    /// That of `upstream.url`.
    Upstream,
    /// The client's own; answers for one are then never another's.
    Client,
    /// This name, which is the TLS server name, too.
    Name(Authority),
}

/// `listen.trusted_proxies`: who is believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(pub Vec<IpNet>);

impl TrustedProxies {
    /// Whether what comes from this address is believed.
    pub fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// What decides who the client is, and what the upstream is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardSettings {
    /// `listen.trusted_proxies`.
    pub trusted: TrustedProxies,
    /// `upstream.forwarded_proto`.
    pub protocol: ProtocolRule,
    /// `upstream.host`.
    pub host: HostRule,
}

/// The connection a request came on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    /// The address at its other end; an IPv4 client of a `[::]` listener is told as IPv4.
    pub peer: IpAddr,
    /// Plain, or over TLS.
    pub protocol: Protocol,
}

impl From<SocketAddr> for Side {
    fn from(peer: SocketAddr) -> Self {
        Self { peer: peer.ip().to_canonical(), protocol: Protocol::Http }
    }
}

/// Who the client is, as far as is known, in the fields that tell it.
#[derive(Clone, PartialEq, Eq)]
pub struct Client {
    /// The client itself: the peer, or whom trusted proxies name.
    pub address: IpAddr,
    /// The protocol that the upstream is told.
    pub protocol: Protocol,
    /// The host that the client asked for.
    pub host: Option<HeaderValue>,
    /// `X-Forwarded-For`.
    pub forwarded_for: HeaderValue,
    /// `Forwarded`.
    forwarded: HeaderValue,
    /// The peer is a proxy whose word counts.
    is_told_by_a_proxy: bool,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.protocol.as_str())
    }
}

impl Client {
    /// Who it is, by the connection, by what trusted proxies say, and by the host that the request is for.
    pub fn of(headers: &HeaderMap, side: Side, host: Option<HeaderValue>, settings: &ForwardSettings) -> Self {
        let is_told_by_a_proxy = settings.trusted.contain(side.peer);
        let told = if is_told_by_a_proxy { Told::by(headers) } else { Told::default() };
        let address = nearest_stranger(&told.addresses, side.peer, &settings.trusted);
        let protocol = match settings.protocol {
            ProtocolRule::Fixed(protocol) => protocol,
            ProtocolRule::Client => told.protocol.unwrap_or(side.protocol),
        };
        let host = told.host.or(host);
        let peer = text_of(side.peer);
        let forwarded = listed(told.elements, &element(side.peer, &peer, host.as_ref(), protocol));
        let list = listed(told.addresses.join(", "), &peer);
        Self { address, protocol, host, forwarded_for: list, forwarded, is_told_by_a_proxy }
    }

    /// Adds to a request towards the upstream whom it is for: `Host`, `X-Forwarded-*`, `Forwarded` and the
    /// request's id. What a stranger claims goes.
    pub fn tell(&self, headers: &mut HeaderMap, base: &Authority, rule: &HostRule, request_id: &HeaderValue) {
        remove_claims(headers, self.is_told_by_a_proxy);
        headers.insert(header::HOST, host_of(base, rule, self.host.as_ref()));
        headers.insert(X_FORWARDED_FOR, self.forwarded_for.clone());
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(self.protocol.as_str()));
        match &self.host {
            Some(host) => drop(headers.insert(X_FORWARDED_HOST, host.clone())),
            None => drop(headers.remove(X_FORWARDED_HOST)),
        }
        headers.insert(header::FORWARDED, self.forwarded.clone());
        headers.insert(X_REQUEST_ID, request_id.clone());
    }

    /// The same for a request of our own, as far as a shared answer may depend on it.
    pub fn lead(&self, headers: &mut HeaderMap, base: &Authority, rule: &HostRule) {
        headers.insert(header::HOST, host_of(base, rule, self.host.as_ref()));
        headers.insert(X_FORWARDED_FOR, self.forwarded_for.clone());
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(self.protocol.as_str()));
    }
}

/// The `Host` that the upstream gets.
fn host_of(base: &Authority, rule: &HostRule, client: Option<&HeaderValue>) -> HeaderValue {
    let plain =
        |authority: &Authority| HeaderValue::try_from(authority.as_str()).expect("an authority is a field value");
    match (rule, client) {
        (HostRule::Client, Some(host)) => host.clone(),
        (HostRule::Upstream | HostRule::Client, _) => plain(base),
        (HostRule::Name(name), _) => plain(name),
    }
}

/// What a trusted proxy tells.
#[derive(Default)]
struct Told {
    /// The client first, then the proxies behind it.
    addresses: Vec<String>,
    protocol: Option<Protocol>,
    host: Option<HeaderValue>,
    /// `Forwarded` as it came, or as the other fields would have it (RFC 7239 section 7.4).
    elements: String,
}

impl Told {
    fn by(headers: &HeaderMap) -> Self {
        let elements = elements_of(headers, &header::FORWARDED);
        let last = |name: &str| elements.last().and_then(|element| parameter(element, name));
        let addresses = told_addresses(headers);
        let protocol = elements_of(headers, &X_FORWARDED_PROTO).pop().or_else(|| last("proto"));
        let host = elements_of(headers, &X_FORWARDED_HOST).pop().or_else(|| last("host"));
        let elements = if elements.is_empty() {
            addresses.iter().map(|address| format!("for={}", node(address))).collect::<Vec<_>>().join(", ")
        } else {
            elements.join(", ")
        };
        Self {
            protocol: protocol.and_then(|text| Protocol::read(&text)),
            host: host.filter(|host| is_host(host)).and_then(|host| HeaderValue::try_from(host).ok()),
            addresses,
            elements,
        }
    }
}

/// The elements of a list that may stand in several fields.
fn elements_of(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    elements(headers.get_all(name).iter().filter_map(|value| value.to_str().ok()))
}

fn elements<'a>(values: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let elements = values.into_iter().flat_map(|value| split_outside_quotes(value, ','));
    elements.map(|element| element.trim().to_owned()).filter(|element| !element.is_empty()).collect()
}

/// The addresses that a trusted proxy tells, the client's first.
fn told_addresses(headers: &HeaderMap) -> Vec<String> {
    let addresses = elements_of(headers, &X_FORWARDED_FOR);
    if !addresses.is_empty() {
        return addresses;
    }
    let elements = elements_of(headers, &header::FORWARDED);
    elements.iter().filter_map(|element| parameter(element, "for")).map(|node| node_address(&node)).collect()
}

/// Who it is where each client has limits: the peer, or whom trusted proxies name, of IPv6 the network. None is a
/// trusted proxy itself, who speaks for others.
pub fn limited_as(headers: &HeaderMap, peer: IpAddr, trusted: &TrustedProxies) -> Option<IpAddr> {
    limited_by(|| told_addresses(headers), peer, trusted)
}

/// The same by `X-Forwarded-For`, where nothing else tells it.
pub fn limited_as_told(forwarded_for: Option<&str>, peer: IpAddr, trusted: &TrustedProxies) -> Option<IpAddr> {
    limited_by(|| elements(forwarded_for), peer, trusted)
}

fn limited_by(told: impl FnOnce() -> Vec<String>, peer: IpAddr, trusted: &TrustedProxies) -> Option<IpAddr> {
    let address = if trusted.contain(peer) { nearest_stranger(&told(), peer, trusted) } else { peer };
    (!trusted.contain(address)).then(|| network_of(address))
}

/// Whether a host is one: a name or an address, and perhaps a port.
pub fn is_host(text: &str) -> bool {
    let authority = text.parse::<Authority>();
    !text.contains(['@', ' ', '"', '\\']) && authority.is_ok_and(|authority| !authority.host().is_empty())
}

/// Who counts as one client where clients take turns: of IPv6 the network (RFC 6177), since one customer has all of its
/// addresses.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        IpAddr::V4(_) => address,
    }
}

/// The last address of the list that is no trusted proxy's, from the peer on; the farthest that can be read, if all are.
fn nearest_stranger(addresses: &[String], peer: IpAddr, trusted: &TrustedProxies) -> IpAddr {
    let mut known = peer;
    for text in addresses.iter().rev() {
        if !trusted.contain(known) {
            break;
        }
        let Some(address) = read_address(text) else { break };
        known = address;
    }
    known
}

/// An address as it stands in these fields: alone, in brackets, or with a port.
fn read_address(text: &str) -> Option<IpAddr> {
    let address: Option<IpAddr> = text.parse().ok();
    let address = address.or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok());
    let address = address.or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()));
    address.map(|address| address.to_canonical())
}

/// The address of a node of `Forwarded` (RFC 7239 section 6), as `X-Forwarded-For` has it.
fn node_address(node: &str) -> String {
    read_address(node).map_or_else(|| node.to_owned(), |address| address.to_string())
}

/// An address as a node of `Forwarded`; what cannot be read is `unknown`.
fn node(address: &str) -> String {
    match read_address(address) {
        Some(IpAddr::V4(address)) => address.to_string(),
        Some(IpAddr::V6(address)) => format!("\"[{address}]\""),
        None => "unknown".to_owned(),
    }
}

/// This hop, as an element of `Forwarded`: by its address, which is `text`.
fn element(peer: IpAddr, text: &str, host: Option<&HeaderValue>, protocol: Protocol) -> String {
    let host = host.and_then(|host| host.to_str().ok()).filter(|host| !host.contains(['"', '\\']));
    let (before, after) = if peer.is_ipv6() { ("for=\"[", "]\"") } else { ("for=", "") };
    let (named, host, quote) = host.map_or(("", "", ""), |host| (";host=\"", host, "\""));
    [before, text, after, named, host, quote, ";proto=", protocol.as_str()].concat()
}

/// An address as it is written. One of IPv4 goes with every request, and the standard library's way of writing it takes ten
/// times as long.
fn text_of(address: IpAddr) -> String {
    let IpAddr::V4(address) = address else { return address.to_string() };
    let mut text = String::with_capacity("255.255.255.255".len());
    for (place, octet) in address.octets().into_iter().enumerate() {
        if place > 0 {
            text.push('.');
        }
        for (least, unit) in [(100, 100), (10, 10), (0, 1)] {
            if octet >= least {
                text.push(char::from(b'0' + octet / unit % 10));
            }
        }
    }
    text
}

fn listed(before: String, ours: &str) -> HeaderValue {
    let list = if before.is_empty() { ours.to_owned() } else { before + ", " + ours };
    HeaderValue::try_from(list).expect("what came as a field value stays one")
}

/// A parameter of an element, out of its quotes.
fn parameter(element: &str, name: &str) -> Option<String> {
    split_outside_quotes(element, ';').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        let value = value.trim();
        let plain = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
        key.trim().eq_ignore_ascii_case(name).then(|| plain.replace('\\', ""))
    })
}

fn split_outside_quotes(text: &str, mark: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |letter| {
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => return letter == mark && !quoted,
        }
        false
    })
}

/// What strangers claim, and the twins with underscores that some servers read as the same field (CVE-2024-45614),
/// whoever sends those.
fn remove_claims(headers: &mut HeaderMap, is_believed: bool) {
    let is_claim = |name: &HeaderName| {
        let name = name.as_str();
        if name.contains('_') {
            let twin = name.replace('_', "-");
            CLAIMS.contains(&twin.as_str()) || OURS.contains(&twin.as_str())
        } else {
            !is_believed && CLAIMS.contains(&name)
        }
    };
    let claims: Vec<HeaderName> = headers.keys().filter(|name| is_claim(name)).cloned().collect();
    for name in claims {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests;
