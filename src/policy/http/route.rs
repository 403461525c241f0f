//! What a request is: a read to share, a write and what it touches, or not ours.
//!
//! Strict when sharing: only the exact canonical spelling of a route is cached. Liberal when doubting: a write
//! is recognised in every spelling that some server on the way might take for it.

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use percent_encoding::percent_decode_str;

use super::fields::has_one_of;
use super::key::{Key, QueryRule};
use super::path::{canonical, readings};
use crate::policy::coherence::answer_ids::canonical_uuid;
use crate::policy::resource::{ReadKind, Resource, Routes, leading_number};

/// Rack takes the method from here.
const METHOD_OVERRIDE: HeaderName = HeaderName::from_static("x-http-method-override");
/// Some servers and frameworks take the target from here (IIS, Symfony, Zend), whatever stands in the first line.
const OTHER_TARGETS: [HeaderName; 2] =
    [HeaderName::from_static("x-original-url"), HeaderName::from_static("x-rewrite-url")];
/// The token of the account API, in both spellings.
const ACCESS_TOKEN: HeaderName = HeaderName::from_static("api-access-token");
const ACCESS_TOKEN_TWIN: HeaderName = HeaderName::from_static("api_access_token");

/// `cache.credentials`: what a read with credentials is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialsRule {
    /// It may not be shared: it passes by the cache.
    Bypass,
    /// The upstream reads none on these routes (`api.md` section 9): shared, and the credentials are not sent.
    Ignore,
}

/// The settings that say what a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules<'a> {
    /// `cache.query`.
    pub query: QueryRule,
    /// `cache.credentials`.
    pub credentials: CredentialsRule,
    /// `webhook.path`, if webhooks are received.
    pub webhooks: Option<&'a str>,
    /// `cache.ttl = "origin"`: the answers themselves say whose they are.
    pub by_origin: bool,
    /// `cache.routes`: what else passes through.
    pub routes: Routes,
}

/// What a request is.
#[derive(Debug, PartialEq, Eq)]
pub enum Route {
    /// A read in its canonical spelling: looked up and shared.
    Read(Key),
    /// The same path, where the answers themselves say whether they may be shared (`cache.ttl = "origin"`).
    Cached(Key),
    /// A read that may not be shared, and why. The key is the one it would have had.
    Bypass(Key, BypassReason),
    /// A request that may change lists; never empty.
    Write(Vec<Target>),
    /// A browser asks whether a page may read (a CORS preflight, the Fetch standard), and says no more than that.
    Preflight,
    /// The application tells of an event.
    Webhook,
    /// A WebSocket handshake, on a path that means nothing else.
    Tunnel,
    /// Anything else: passed on untouched. If its answer shows a contact of this source, its id is learned.
    Pass(Option<Source>),
    /// A request that is not passed on.
    Refuse(Refusal),
}

/// Why a read may not be shared. A closed set: these are metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BypassReason {
    /// `Authorization`.
    Authorization,
    /// `Cookie`.
    Cookie,
    /// `Api-Access-Token` or `api_access_token`, as a header or in the query.
    AccessToken,
    /// Another spelling of the route.
    Alias,
    /// The upstream answers readers of different origins differently.
    Origin,
}

impl BypassReason {
    /// All of them, for metrics that exist before they count.
    pub const ALL: [Self; 5] = [Self::Authorization, Self::Cookie, Self::AccessToken, Self::Alias, Self::Origin];

    /// The metric label and the `detail` of `Cache-Status`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Authorization => "authorization",
            Self::Cookie => "cookie",
            Self::AccessToken => "api_access_token",
            Self::Alias => "alias",
            Self::Origin => "origin",
        }
    }
}

/// Why a request is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// CONNECT and TRACE: 405.
    Method,
    /// No `Host`, more than one, or one that is no host (RFC 9112 section 3.2): 400.
    Host,
    /// A target whose form is not the method's: 400.
    Target,
    /// A body in a transfer coding other than chunks: 501.
    Coding,
    /// A body of senseless length: 413.
    TooLong,
    /// Anything but a POST where webhooks come: 405.
    NoWebhook,
    /// It has passed this very instance before (RFC 9110 section 7.6.3): 508.
    Loop,
}

/// A contact as one inbox knows it. `Debug` is for tests; nothing logs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The inbox identifier, decoded.
    pub inbox: String,
    /// The contact identifier, decoded: a credential.
    pub contact: String,
}

/// What a write may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Something under a contact.
    Contact(Source),
    /// A contact itself: afterwards its source may be another's, and other sources, too (`api.md` section 2: a `PATCH`
    /// merges contacts).
    Identity(Source),
    /// A conversation under a contact, by its display id in the account of the inbox.
    DisplayId {
        /// The inbox identifier, decoded.
        inbox: String,
        /// The conversation's display id.
        display: u64,
    },
    /// A contact is created in this inbox: who it is, its request and its answer tell.
    Creation {
        /// The inbox identifier, decoded.
        inbox: String,
    },
    /// A CSAT answer, by the conversation's uuid.
    Csat {
        /// The conversation's uuid.
        uuid: String,
    },
    /// A conversation, by account and display id, through the account API.
    AccountConversation {
        /// The account's id.
        account: u64,
        /// The conversation's display id.
        display: u64,
    },
    /// A contact, by its id, through the account API.
    AccountContact {
        /// The contact's id.
        id: u64,
    },
    /// Something of an account, through the account API: what it is, its request and its answer tell.
    Account {
        /// The account's id.
        account: u64,
    },
}

/// What a request is, by its head alone.
pub fn classify(method: &Method, uri: &Uri, headers: &HeaderMap, rules: Rules<'_>) -> Route {
    if *method == Method::CONNECT || *method == Method::TRACE {
        return Route::Refuse(Refusal::Method);
    }
    if rules.webhooks == Some(uri.path()) {
        return if *method == Method::POST { Route::Webhook } else { Route::Refuse(Refusal::NoWebhook) };
    }
    let Rules { query, credentials, by_origin, routes, .. } = rules;
    let overridden = has_one_of(headers, &[METHOD_OVERRIDE]);
    let reads = (*method == Method::GET || *method == Method::HEAD) && !overridden;
    let safe = (reads || *method == Method::OPTIONS) && !overridden;
    let canonical = canonical(uri.path()).filter(|(.., resource)| routes.has(resource.read()));
    if let Some((inbox, contact, resource)) = &canonical
        && reads
        && !(*resource == Resource::Contact && may_verify(headers, uri.query()))
    {
        let key = Key::of(*resource, inbox, contact, query_of(*resource, uri.query(), query));
        if by_origin {
            return Route::Cached(key);
        }
        return match credential(headers, uri.query()) {
            Some(reason) if credentials == CredentialsRule::Bypass => Route::Bypass(key, reason),
            _ => Route::Read(key),
        };
    }
    // RFC 9110 section 9.3.7: answers to OPTIONS are not cacheable.
    if *method == Method::OPTIONS && safe && !by_origin && canonical.is_some() && is_preflight(headers, uri.query()) {
        return Route::Preflight;
    }
    let mut targets = Vec::new();
    let (mut source, mut alias) = (None, None);
    for segments in readings(uri.path()) {
        let segments: Vec<&str> = segments.iter().map(|segment| &**segment).collect();
        if !safe {
            for target in write_targets(&segments) {
                if !targets.contains(&target) {
                    targets.push(target);
                }
            }
        } else if let ["public", "api", "v1", "inboxes", inbox, "contacts", contact, rest @ ..] = &segments[..] {
            let found = Source { inbox: (*inbox).to_owned(), contact: (*contact).to_owned() };
            if reads && rest.is_empty() && may_verify(headers, uri.query()) {
                let target = Target::Contact(found);
                if !targets.contains(&target) {
                    targets.push(target);
                }
                continue;
            }
            if reads
                && let Some(resource) = Resource::aliased(rest).filter(|resource| routes.has(resource.read()))
                && !contact.contains('\0')
                && !inbox.contains('\0')
            {
                let reason = credential(headers, uri.query()).unwrap_or(BypassReason::Alias);
                let key = Key::of(resource, inbox, contact, query_of(resource, uri.query(), query));
                // Of a contact's own path the last reading is without what Rails takes for a format.
                if alias.is_none() || resource == Resource::Contact {
                    alias = Some(Route::Bypass(key, reason));
                }
            } else if *method == Method::GET {
                source = source.or(Some(found));
            }
        }
    }
    if !targets.is_empty() {
        Route::Write(targets)
    } else if let Some(alias) = alias {
        alias
    } else if *method == Method::GET && reads && source.is_none() && is_websocket_handshake(headers) {
        Route::Tunnel
    } else {
        Route::Pass(source)
    }
}

/// The query as far as it is part of a key. Of those that the API is known to read, one is of a route that is shared.
fn query_of(resource: Resource, query: Option<&str>, rule: QueryRule) -> Option<&str> {
    let reads_it = || resource.read() == ReadKind::Messages && has_parameter(query, "before");
    query.filter(|_| rule == QueryRule::Key || reads_it())
}

/// Whether a read of a contact may write (`api.md` section 2): it may carry a hash, which verifies.
fn may_verify(headers: &HeaderMap, query: Option<&str>) -> bool {
    has_identifier_hash(query) || has_body(headers)
}

/// Whether a `GET` is the whole of a WebSocket handshake (RFC 6455 section 4.2.1), the only upgrade that is tunnelled: with
/// a key and a version, and without a body. Anything less is what it would be without the field.
fn is_websocket_handshake(headers: &HeaderMap) -> bool {
    let only = |name| {
        let mut values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
        values.next().filter(|_| values.next().is_none())
    };
    switches_to_websocket(headers)
        && !has_body(headers)
        && only(header::SEC_WEBSOCKET_VERSION) == Some(b"13")
        // 16 bytes in base64.
        && only(header::SEC_WEBSOCKET_KEY).is_some_and(|key| key.len() == 24)
}

/// Whether a request asks for a switch to WebSocket, or an answer agrees to it.
pub fn switches_to_websocket(headers: &HeaderMap) -> bool {
    let has = |name, token: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
    };
    has(header::UPGRADE, "websocket") && has(header::CONNECTION, "upgrade")
}

/// Whether this is a preflight as browsers send it: one origin, one method, at most one list of fields, and neither
/// credentials nor a body. Anything else is asked for its sender alone.
fn is_preflight(headers: &HeaderMap, query: Option<&str>) -> bool {
    let count = |name| headers.get_all(name).iter().count();
    count(header::ORIGIN) == 1
        && count(header::ACCESS_CONTROL_REQUEST_METHOD) == 1
        && count(header::ACCESS_CONTROL_REQUEST_HEADERS) <= 1
        && credential(headers, query).is_none()
        && !has_body(headers)
}

/// Whether a request has what RFC 9111 section 3.5 says of `Authorization`: that, or a token of this API.
pub fn has_authorization(headers: &HeaderMap, query: Option<&str>) -> bool {
    has_one_of(headers, &[header::AUTHORIZATION, ACCESS_TOKEN, ACCESS_TOKEN_TWIN])
        || has_parameter(query, "api_access_token")
}

fn credential(headers: &HeaderMap, query: Option<&str>) -> Option<BypassReason> {
    if headers.contains_key(header::AUTHORIZATION) {
        Some(BypassReason::Authorization)
    } else if headers.contains_key(header::COOKIE) {
        Some(BypassReason::Cookie)
    } else if has_one_of(headers, &[ACCESS_TOKEN, ACCESS_TOKEN_TWIN]) || has_parameter(query, "api_access_token") {
        Some(BypassReason::AccessToken)
    } else {
        None
    }
}

fn has_identifier_hash(query: Option<&str>) -> bool {
    has_parameter(query, "identifier_hash")
}

fn has_parameter(query: Option<&str>, name: &str) -> bool {
    query.is_some_and(|query| {
        query.split(['&', ';']).any(|pair| {
            let found = pair.split('=').next().unwrap_or_default();
            // `name[]`, `name[x]` and `[name]` reach the same parameter in Rack.
            let found = percent_decode_str(found).decode_utf8_lossy();
            let found = found.trim_start_matches(|char: char| char == '+' || char.is_whitespace());
            found.trim_start_matches(['[', ']']).split(['[', ']']).next() == Some(name)
        })
    })
}

/// Whether a request asks for what its first line names, and says no more: without a body, and without another target. Else
/// what comes may be the answer to that, and nobody else's.
pub fn is_plain(headers: &HeaderMap) -> bool {
    !has_body(headers) && !names_another_target(headers)
}

/// Whether some servers may take the target from elsewhere than the first line.
pub fn names_another_target(headers: &HeaderMap) -> bool {
    has_one_of(headers, &OTHER_TARGETS)
}

/// Whether a request is of the method and the path of its first line, whoever reads it.
pub fn is_itself(headers: &HeaderMap) -> bool {
    !has_one_of(headers, &[METHOD_OVERRIDE]) && !has_one_of(headers, &OTHER_TARGETS)
}

/// Whether a request announces a body (RFC 9112 section 6.3).
pub fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0")
}

/// What a write on this path may change. `toggle_typing` changes no list (`api.md` section 2).
fn write_targets(segments: &[&str]) -> Vec<Target> {
    let one = |target| vec![target];
    match segments {
        ["public", "api", "v1", "inboxes", inbox, "contacts"] => one(Target::Creation { inbox: (*inbox).to_owned() }),
        ["public", "api", "v1", "inboxes", _, "contacts", _, "conversations", _, "toggle_typing"] => Vec::new(),
        ["public", "api", "v1", "inboxes", inbox, "contacts", contact, rest @ ..] => {
            let source = Source { inbox: (*inbox).to_owned(), contact: (*contact).to_owned() };
            let [first, below @ ..] = rest else { return one(Target::Identity(source)) };
            if *first != "conversations" && !first.starts_with("conversations.") {
                return one(Target::Identity(source));
            }
            let display = below.first().and_then(|display| leading_number(display));
            let display = display.map(|display| Target::DisplayId { inbox: source.inbox.clone(), display });
            [Target::Contact(source)].into_iter().chain(display).collect()
        }
        ["public", "api", "v1", "csat_survey", uuid] => one(Target::Csat { uuid: canonical_uuid(uuid) }),
        ["api", "v1", "accounts", account, rest @ ..] => {
            leading_number(account).and_then(|account| account_target(account, rest)).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

/// What a write of the account API may change. Searches are sent with `POST`, too, and change nothing.
fn account_target(account: u64, rest: &[&str]) -> Option<Target> {
    match rest {
        ["conversations" | "contacts" | "bulk_actions"] | ["actions", "contact_merge"] | ["macros", _, "execute"] => {
            Some(Target::Account { account })
        }
        ["conversations", display, ..] => {
            Some(Target::AccountConversation { account, display: leading_number(display)? })
        }
        ["contacts", id, ..] => Some(Target::AccountContact { id: leading_number(id)? }),
        _ => None,
    }
}

/// What the final status of a write says of what it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It changed nothing.
    Nothing,
    /// It is done.
    Committed,
    /// It may have done something, or do it later.
    Unclear,
}

/// What a write did, by its final status. Refusals that come before anything is done change nothing; a 422 may come
/// after something was done (`api.md` section 2: a hash is accepted, then the rest is not).
pub fn effect_of(status: StatusCode) -> Effect {
    match status.as_u16() {
        200..=299 => Effect::Committed,
        400 | 401 | 403 | 404 | 405 | 411 | 413..=415 | 429 | 431 => Effect::Nothing,
        _ => Effect::Unclear,
    }
}

#[cfg(test)]
mod tests;
