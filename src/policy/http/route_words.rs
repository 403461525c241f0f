//! What a request is and by which rule, in words: for `anteroom explain`, and for whoever is refused.

use http::StatusCode;

use super::key::{Key, QueryRule};
use super::route::{BypassReason, CredentialsRule, Refusal, Route, Rules, Target};
use crate::policy::resource::ReadKind;

/// What a request is, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// In a word, from a closed set.
    pub kind: &'static str,
    /// By which rule.
    pub rule: String,
    /// What is part of the key, if it is a list; none of it is said, for it holds a credential.
    pub key: Vec<String>,
}

/// What a request is.
pub fn told(route: &Route, rules: &Rules<'_>) -> Told {
    let (kind, rule, key) = match route {
        Route::Read(key) => (kind_of(key), of_read(key, rules), Some(key)),
        Route::Cached(key) => {
            let rule = "path as it is published, cached as its answers say (cache.ttl = \"origin\", RFC 9111)";
            ("cached", format!("the {}'s {rule}", name_of(key)), Some(key))
        }
        Route::Bypass(key, reason) => ("bypass", of_bypass(name_of(key), *reason), Some(key)),
        Route::Write(targets) => {
            let targets: Vec<&str> = targets.iter().map(of_target).collect();
            (
                "write",
                format!("it may change {}, so it is passed on and puts that out of date", targets.join(", and ")),
                None,
            )
        }
        Route::Preflight => {
            ("preflight", "OPTIONS of a path that is read, as browsers send it before they do".into(), None)
        }
        Route::Webhook => ("webhook", "POST to webhook.path".into(), None),
        Route::Tunnel => ("tunnel", "a WebSocket handshake, on a path that means nothing else".into(), None),
        Route::Pass(Some(_)) => (
            "pass",
            "it is below a contact, and none of what is answered from memory: passed on untouched".into(),
            None,
        ),
        Route::Pass(None) => ("pass", "nothing that is kept or changed here: passed on untouched".into(), None),
        Route::Refuse(refusal) => ("refused", refused(*refusal).detail.into(), None),
    };
    Told { kind, rule, key: key.map(|key| of_key(key, rules)).unwrap_or_default() }
}

/// What a key's read gives, in a word.
fn name_of(key: &Key) -> &'static str {
    match key.read() {
        ReadKind::Conversations => "list",
        ReadKind::Conversation => "conversation",
        ReadKind::Messages => "page of messages",
        ReadKind::Contact => "contact",
    }
}

/// The same, as the kind of a request.
fn kind_of(key: &Key) -> &'static str {
    if key.read() == ReadKind::Messages { "messages" } else { name_of(key) }
}

fn of_read(key: &Key, rules: &Rules<'_>) -> String {
    let credentials = match rules.credentials {
        CredentialsRule::Bypass => "and no credentials",
        CredentialsRule::Ignore => "and credentials count for nothing (cache.credentials = \"ignore\")",
    };
    format!("GET or HEAD of the {}'s path as it is published, {credentials}: looked up and shared", name_of(key))
}

fn of_bypass(name: &str, reason: BypassReason) -> String {
    let what = match reason {
        BypassReason::Authorization => "with an Authorization field",
        BypassReason::Cookie => "with a Cookie field",
        BypassReason::AccessToken => "with an API access token",
        BypassReason::Alias => {
            return format!("another spelling of the {name}'s path than the published one: passed on, not shared");
        }
        BypassReason::Origin => return "the upstream tells origins apart, and this one cannot be compared".into(),
    };
    format!(
        "the {name} {what}: it may be meant for one alone, so it is passed on, not shared (cache.credentials = \"bypass\")"
    )
}

fn of_target(target: &Target) -> &'static str {
    match target {
        Target::Contact(_) => "what is under a contact",
        Target::Identity(_) => "a contact itself",
        Target::DisplayId { .. } => "a conversation by its display id",
        Target::Creation { .. } => "who a new contact of an inbox is",
        Target::Csat { .. } => "a conversation by its uuid",
        Target::AccountConversation { .. } => "a conversation through the account API",
        Target::AccountContact { .. } => "a contact through the account API",
        Target::Account { .. } => "something of an account, as its body says",
    }
}

fn of_key(key: &Key, rules: &Rules<'_>) -> Vec<String> {
    let mut parts = vec!["inbox".to_owned(), "contact".to_owned()];
    parts.extend(key.resource().conversation().map(|display| format!("conversation {display}")));
    match (key.query(), rules.query) {
        (Some(query), _) => parts.push(format!("query of {} bytes, as it was sent", query.len())),
        (None, QueryRule::Key) => parts.push("no query".into()),
        (None, QueryRule::Ignore) => parts.push("whatever the query is (cache.query = \"ignore\")".into()),
    }
    parts.extend(key.host().map(|host| format!("host {host} (upstream.host = \"client\")")));
    parts.extend(key.origin().map(|_| "origin, since the upstream tells origins apart".to_owned()));
    parts
}

/// How a refusal is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its status.
    pub status: StatusCode,
    /// Why, for whoever asked.
    pub detail: &'static str,
    /// Why, for the log.
    pub word: &'static str,
    /// The methods that are allowed, if it is about that.
    pub allow: Option<&'static str>,
}

/// How a refusal is answered.
pub fn refused(refusal: Refusal) -> Refused {
    let (status, detail, word) = match refusal {
        Refusal::Method => (StatusCode::METHOD_NOT_ALLOWED, "CONNECT and TRACE are not served", "method"),
        Refusal::Host => (StatusCode::BAD_REQUEST, "a request has exactly one Host field, which is a host", "host"),
        Refusal::Target => (StatusCode::BAD_REQUEST, "the target does not have the form of its method", "target"),
        Refusal::Coding => (StatusCode::NOT_IMPLEMENTED, "the only transfer coding is chunked", "coding"),
        Refusal::TooLong => (StatusCode::PAYLOAD_TOO_LARGE, "no body is that long", "length"),
        Refusal::NoWebhook => (StatusCode::METHOD_NOT_ALLOWED, "webhooks are sent here with POST", "method"),
        Refusal::Loop => (StatusCode::LOOP_DETECTED, "upstream.url leads back to this proxy", "loop"),
    };
    let allow = match refusal {
        Refusal::Method => Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
        Refusal::NoWebhook => Some("POST"),
        Refusal::Host | Refusal::Target | Refusal::Coding | Refusal::TooLong | Refusal::Loop => None,
    };
    Refused { status, detail, word, allow }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, Method};

    use super::*;
    use crate::policy::http::route::classify;
    use crate::policy::resource::Routes;

    const RULES: Rules<'_> = Rules {
        query: QueryRule::Key,
        credentials: CredentialsRule::Bypass,
        webhooks: Some("/_anteroom/webhooks"),
        by_origin: false,
        routes: Routes::ALL,
    };
    const CONTACT: &str = "/public/api/v1/inboxes/an-inbox/contacts/somebody";

    fn asked(method: &str, path: &str, fields: &[(&str, &str)], rules: Rules<'_>) -> Told {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        told(&classify(&method, &path.parse().unwrap(), &headers, rules), &rules)
    }

    #[test]
    fn every_kind_of_request_has_its_word_and_its_rule() {
        let handshake: &[(&str, &str)] = &[
            ("upgrade", "websocket"),
            ("connection", "upgrade"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let preflight: &[(&str, &str)] = &[("origin", "https://a.test"), ("access-control-request-method", "GET")];
        for (method, path, fields, kind, rule) in [
            ("GET", "/conversations", &[][..], "list", "and no credentials: looked up"),
            ("HEAD", "/conversations", &[], "list", "as it is published"),
            ("GET", "/conversations", &[("cookie", "a=b")], "bypass", "Cookie"),
            ("GET", "/conversations", &[("authorization", "Basic x")], "bypass", "Authorization"),
            ("GET", "/conversations?api_access_token=x", &[], "bypass", "API access token"),
            ("GET", "/conversations/", &[], "bypass", "another spelling"),
            ("POST", "/conversations/7/messages", &[], "write", "what is under a contact, and a conversation"),
            ("PATCH", "", &[], "write", "a contact itself"),
            ("OPTIONS", "/conversations", preflight, "preflight", "OPTIONS"),
            ("GET", "/conversations/7", &[], "conversation", "the conversation's path as it is published"),
            (
                "GET",
                "/conversations/7/messages",
                &[("cookie", "a=b")],
                "bypass",
                "the page of messages with a Cookie field",
            ),
            ("GET", "", &[], "contact", "the contact's path"),
            ("GET", "/", &[], "bypass", "another spelling of the contact's path"),
            ("GET", "/conversations/7/else", &[], "pass", "below a contact"),
            ("TRACE", "", &[], "refused", "CONNECT and TRACE"),
        ] {
            let told = asked(method, &format!("{CONTACT}{path}"), fields, RULES);
            assert!(told.kind == kind && told.rule.contains(rule), "{method} {path}: {told:?}");
            assert!(!format!("{told:?}").contains("somebody"), "{told:?}");
        }
        assert_eq!(asked("GET", "/cable", handshake, RULES).kind, "tunnel");
        assert_eq!(asked("POST", "/_anteroom/webhooks", &[], RULES).kind, "webhook");
        assert_eq!(asked("GET", "/_anteroom/webhooks", &[], RULES).rule, "webhooks are sent here with POST");
        assert_eq!(asked("GET", "/app", &[], RULES).kind, "pass");
    }

    #[test]
    fn what_is_part_of_the_key_is_told_and_not_said() {
        let ignoring = Rules {
            query: QueryRule::Ignore,
            credentials: CredentialsRule::Ignore,
            webhooks: None,
            by_origin: false,
            routes: Routes::of(&[ReadKind::Conversations]),
        };
        let path = format!("{CONTACT}/conversations?page=2");
        assert_eq!(asked("GET", &path, &[], RULES).key, ["inbox", "contact", "query of 6 bytes, as it was sent"]);
        let page = format!("{CONTACT}/conversations/7/messages?before=9");
        assert_eq!(asked("GET", &page, &[], RULES).key[2..], ["conversation 7", "query of 8 bytes, as it was sent"]);
        assert_eq!(asked("GET", &page, &[], ignoring).kind, "pass", "cache.routes is without it");
        let told = asked("GET", &path, &[("cookie", "a=b")], ignoring);
        assert_eq!((told.kind, told.key[2].as_str()), ("list", "whatever the query is (cache.query = \"ignore\")"));
        assert!(told.rule.contains("cache.credentials = \"ignore\""), "{}", told.rule);
        let key = Key::new("in", "co", None).for_host("chat.test").for_origin("https://a.test");
        let told = of_key(&key, &RULES);
        assert!(told[2] == "no query" && told[3].contains("chat.test") && told[4].contains("origin"), "{told:?}");
    }
}
