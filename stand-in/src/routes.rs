//! Which route a path is, in every form in which the real router takes it.

use http::{HeaderMap, Method};
use percent_encoding::percent_decode_str;

/// A contact as addressed by a path, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Who {
    pub(super) inbox: String,
    pub(super) source: String,
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    ShowInbox(String),
    CreateContact(String),
    ShowContact(Who),
    UpdateContact(Who),
    List(Who),
    CreateConversation(Who),
    ShowConversation(Who, i64),
    ToggleStatus(Who, i64),
    ToggleTyping(Who, i64),
    UpdateLastSeen(Who, i64),
    Messages(Who, i64),
    CreateMessage(Who, i64),
    UpdateMessage(Who, i64, i64),
    ShowSurvey(String),
    AnswerSurvey(String),
    AgentMessage(i64),
    AgentStatus(i64),
    Health,
    Version,
    Download(u64),
    Upload,
    Cable,
}

impl Route {
    /// The contact in the path.
    pub(super) fn who(&self) -> Option<&Who> {
        match self {
            Self::ShowContact(who)
            | Self::UpdateContact(who)
            | Self::List(who)
            | Self::CreateConversation(who)
            | Self::ShowConversation(who, _)
            | Self::ToggleStatus(who, _)
            | Self::ToggleTyping(who, _)
            | Self::UpdateLastSeen(who, _)
            | Self::Messages(who, _)
            | Self::CreateMessage(who, _)
            | Self::UpdateMessage(who, _, _) => Some(who),
            _ => None,
        }
    }

    /// Whether answering it changes the data (a GET of a contact may: it counts as a read until it does).
    pub(super) fn is_write(&self) -> bool {
        !matches!(
            self,
            Self::ShowInbox(_)
                | Self::ShowContact(_)
                | Self::List(_)
                | Self::ShowConversation(..)
                | Self::Messages(..)
                | Self::ShowSurvey(_)
                | Self::Health
                | Self::Version
                | Self::Download(_)
                | Self::Cable
        )
    }
}

/// The method that is executed: a POST may ask for another one, and HEAD is GET.
pub(super) fn effective_method(method: &Method, headers: &HeaderMap, in_form: Option<&str>) -> Method {
    if method == Method::HEAD {
        return Method::GET;
    }
    let wanted = in_form.or_else(|| headers.get("x-http-method-override").and_then(|it| it.to_str().ok()));
    let wanted = wanted.filter(|_| method == Method::POST).map(str::to_uppercase);
    wanted.and_then(|it| Method::from_bytes(it.as_bytes()).ok()).unwrap_or_else(|| method.clone())
}

/// The segments of a raw path: slashes collapsed, `.json` dropped, decoded. A raw dot matches no route.
fn segments(path: &str) -> Option<Vec<String>> {
    let mut raw: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    if let Some(last) = raw.last_mut() {
        *last = last.strip_suffix(".json").unwrap_or(last);
    }
    let decode = |segment: &&str| {
        let decoded = percent_decode_str(segment).decode_utf8().ok()?;
        (!segment.contains('.')).then(|| decoded.into_owned())
    };
    raw.iter().map(decode).collect()
}

/// Whether CORS applies to this path: `/public/api/*` only.
pub(super) fn is_public(path: &str) -> bool {
    let mut parts = path.split('/').filter(|segment| !segment.is_empty());
    parts.next() == Some("public") && parts.next() == Some("api")
}

/// Finds the route of a path (without its query).
pub(super) fn find(method: &Method, path: &str) -> Option<Route> {
    let segments = segments(path)?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let get = method == Method::GET;
    let post = method == Method::POST;
    let edit = method == Method::PATCH || method == Method::PUT;
    match segments.as_slice() {
        ["health"] if get => Some(Route::Health),
        ["api"] if get => Some(Route::Version),
        ["cable"] if get => Some(Route::Cable),
        ["rails", "active_storage", "disk", length] if get => length.parse().ok().map(Route::Download),
        ["rails", "active_storage", "direct_uploads"] if post => Some(Route::Upload),
        ["api", "v1", "accounts", _, "conversations", id, "messages"] if post => Some(Route::AgentMessage(number(id))),
        ["api", "v1", "accounts", _, "conversations", id, "toggle_status"] if post => {
            Some(Route::AgentStatus(number(id)))
        }
        ["public", "api", "v1", "csat_survey", uuid] if get => Some(Route::ShowSurvey((*uuid).to_owned())),
        ["public", "api", "v1", "csat_survey", uuid] if edit => Some(Route::AnswerSurvey((*uuid).to_owned())),
        ["public", "api", "v1", "inboxes", inbox] if get => Some(Route::ShowInbox((*inbox).to_owned())),
        ["public", "api", "v1", "inboxes", inbox, "contacts"] if post => {
            Some(Route::CreateContact((*inbox).to_owned()))
        }
        ["public", "api", "v1", "inboxes", inbox, "contacts", source, rest @ ..] => {
            let who = Who { inbox: (*inbox).to_owned(), source: (*source).to_owned() };
            match rest {
                [] if get => Some(Route::ShowContact(who)),
                [] if edit => Some(Route::UpdateContact(who)),
                ["conversations"] if get => Some(Route::List(who)),
                ["conversations"] if post => Some(Route::CreateConversation(who)),
                ["conversations", id] if get => Some(Route::ShowConversation(who, number(id))),
                ["conversations", id, "toggle_status"] if post => Some(Route::ToggleStatus(who, number(id))),
                ["conversations", id, "toggle_typing"] if post => Some(Route::ToggleTyping(who, number(id))),
                ["conversations", id, "update_last_seen"] if post => Some(Route::UpdateLastSeen(who, number(id))),
                ["conversations", id, "messages"] if get => Some(Route::Messages(who, number(id))),
                ["conversations", id, "messages"] if post => Some(Route::CreateMessage(who, number(id))),
                ["conversations", id, "messages", message] if edit => {
                    Some(Route::UpdateMessage(who, number(id), number(message)))
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// An id as the database reads it: text is 0, which no row has.
fn number(segment: &str) -> i64 {
    segment.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(source: &str) -> Route {
        Route::List(Who { inbox: "I".to_owned(), source: source.to_owned() })
    }

    #[test]
    fn every_form_of_a_path_that_the_router_takes() {
        for (path, source) in [
            ("/public/api/v1/inboxes/I/contacts/abc/conversations", "abc"),
            ("/public/api/v1/inboxes/I/contacts/abc/conversations/", "abc"),
            ("//public/api//v1/inboxes/I/contacts/abc/conversations", "abc"),
            ("/public/api/v1/inboxes/I/contacts/abc/conversations.json", "abc"),
            ("/public/api/v1/inboxes/I/contacts/%61bc/conversations", "abc"),
            ("/public/api/v1/inboxes/I/contacts/a%3Ab/conversations", "a:b"),
            ("/public/api/v1/inboxes/I/contacts/a%2Fb/conversations", "a/b"),
            ("/public/api/v1/inboxes/I/contacts/a%2Eb/conversations", "a.b"),
            ("/public/api/v1/inboxes/I/contacts/phone:+1/conversations", "phone:+1"),
        ] {
            assert_eq!(find(&Method::GET, path), Some(list(source)), "{path}");
        }
    }

    #[test]
    fn a_raw_dot_and_a_wrong_verb_have_no_route() {
        assert_eq!(find(&Method::GET, "/public/api/v1/inboxes/I/contacts/a.b/conversations"), None);
        assert_eq!(find(&Method::DELETE, "/public/api/v1/inboxes/I/contacts/a"), None);
        assert_eq!(find(&Method::GET, "/public/api/v1/inboxes"), None);
        assert_eq!(find(&Method::GET, "/public/api/v1/inboxes/I/contacts/%ff/conversations"), None);
    }

    #[test]
    fn only_a_post_can_be_overridden() {
        let mut headers = HeaderMap::new();
        headers.insert("x-http-method-override", "patch".parse().expect("a value"));
        assert_eq!(effective_method(&Method::POST, &headers, None), Method::PATCH);
        assert_eq!(effective_method(&Method::GET, &headers, None), Method::GET);
        assert_eq!(effective_method(&Method::HEAD, &headers, None), Method::GET);
        assert_eq!(effective_method(&Method::POST, &headers, Some("get")), Method::GET);
    }
}
