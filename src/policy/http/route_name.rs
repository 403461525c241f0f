//! What a path is called in the log: a name from a closed set, since paths hold credentials.

use crate::policy::resource::ReadKind;

/// Where webhooks come.
pub const WEBHOOK: &str = "webhook";
/// What never became a request.
pub const UNREAD: &str = "unread";

/// The name of a path. The names are for people: nothing is decided by them.
pub fn route_name(path: &str) -> &'static str {
    let mut steps = path.split('/').filter(|step| !step.is_empty());
    match (steps.next(), steps.next(), steps.next()) {
        (Some("public"), Some("api"), Some("v1")) => {
            let rest: Vec<&str> = steps.map(|step| step.strip_suffix(".json").unwrap_or(step)).collect();
            public(&rest)
        }
        (Some("api"), ..) => "account_api",
        (Some("cable"), None, None) => "cable",
        (Some("rails"), ..) => "files",
        (Some("widget" | "app" | "packs" | "vite" | "assets"), ..) => "pages",
        _ => "other",
    }
}

fn public(rest: &[&str]) -> &'static str {
    match rest {
        ["inboxes", _] => "inbox",
        ["inboxes", _, "contacts"] => "contacts",
        ["inboxes", _, "contacts", _] => ReadKind::Contact.label(),
        ["inboxes", _, "contacts", _, "conversations"] => ReadKind::Conversations.label(),
        ["inboxes", _, "contacts", _, "conversations", _] => ReadKind::Conversation.label(),
        ["inboxes", _, "contacts", _, "conversations", _, "messages"] => ReadKind::Messages.label(),
        ["inboxes", _, "contacts", _, "conversations", _, "messages", _] => "message",
        ["inboxes", _, "contacts", _, "conversations", _, "toggle_typing"] => "toggle_typing",
        ["inboxes", _, "contacts", _, "conversations", _, "toggle_status"] => "toggle_status",
        ["inboxes", _, "contacts", _, "conversations", _, "update_last_seen"] => "update_last_seen",
        ["csat_survey", _] => "csat_survey",
        _ => "public_api",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_a_name_that_tells_nothing_of_it() {
        let contact = "/public/api/v1/inboxes/i/contacts/c";
        for (path, name) in [
            (contact.to_owned(), "contact"),
            (format!("{contact}/conversations"), "conversations"),
            (format!("{contact}/conversations.json"), "conversations"),
            (format!("/{contact}//conversations/"), "conversations"),
            (format!("{contact}/conversations/7"), "conversation"),
            (format!("{contact}/conversations/7/messages"), "messages"),
            (format!("{contact}/conversations/7/messages/8"), "message"),
            (format!("{contact}/conversations/7/toggle_typing"), "toggle_typing"),
            (format!("{contact}/conversations/7/else"), "public_api"),
            ("/public/api/v1/inboxes/i/contacts".into(), "contacts"),
            ("/public/api/v1/csat_survey/u".into(), "csat_survey"),
            ("/api/v1/accounts/1/conversations".into(), "account_api"),
            ("/cable".into(), "cable"),
            ("/cable/secret".into(), "other"),
            ("/rails/active_storage/blobs/x".into(), "files"),
            ("/".into(), "other"),
            (String::new(), "other"),
            ("/secret".into(), "other"),
        ] {
            assert_eq!(route_name(&path), name, "{path}");
        }
    }
}
