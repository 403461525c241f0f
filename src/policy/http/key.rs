//! When two requests may share one answer.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::policy::resource::{Part, ReadKind, Resource, page_before};

/// `cache.query`: what the query string does to the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryRule {
    /// Another query is another answer: right for any fork.
    Key,
    /// The upstream reads no query on this route (`api.md` section 3), so it neither parts answers nor is sent on.
    Ignore,
}

/// Which answer a read asks for: what of a contact, inbox, contact (both decoded once), the query as it was sent, the host
/// if the upstream gets the client's, and the reader's origin if the upstream tells origins apart.
///
/// Compared whole, never by hash. `Debug` shows nothing: the contact's identifier is the credential of this API.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// `inbox NUL contact NUL ?query NUL host NUL origin`, the last three empty if there is none. No part holds a NUL, and
    /// an inbox has a name: what is not the list begins with `NUL resource NUL`.
    text: Arc<str>,
}

/// What a decoded path segment may keep when it is written into a path again. A raw dot in an identifier is not
/// routed upstream (`api.md` 6.8), so the dot is encoded like everything else that is not plain.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~');

impl Key {
    /// The key of a list, of readers from whatever origin. `inbox` and `contact` are decoded and hold no NUL
    /// ([`decode_segment`] sees to that); a query holds none either.
    pub fn new(inbox: &str, contact: &str, query: Option<&str>) -> Self {
        Self::of(Resource::Conversations, inbox, contact, query)
    }

    /// The key of anything that is read of a contact.
    pub fn of(resource: Resource, inbox: &str, contact: &str, query: Option<&str>) -> Self {
        debug_assert!(!inbox.contains('\0') && !contact.contains('\0'));
        let mut text = String::with_capacity(inbox.len() + contact.len() + query.map_or(0, str::len) + 5);
        if resource != Resource::Conversations {
            text = format!("\0{}\0", resource.path());
        }
        text.push_str(inbox);
        text.push('\0');
        text.push_str(contact);
        text.push('\0');
        if let Some(query) = query {
            text.push('?');
            text.push_str(query);
        }
        text.push_str("\0\0");
        Self { text: text.into() }
    }

    /// The key of readers who asked this host, for an upstream that gets it (`upstream.host = "client"`).
    #[must_use]
    pub fn for_host(&self, host: &str) -> Self {
        debug_assert!(!host.contains('\0'));
        let (start, inbox, contact, query) = (self.start(), self.part(0), self.part(1), self.part(2));
        let (what, host, origin) = (&self.text[..start], host.to_ascii_lowercase(), self.part(4));
        Self { text: format!("{what}{inbox}\0{contact}\0{query}\0{host}\0{origin}").into() }
    }

    /// The key of readers from one origin, for an upstream that tells origins apart.
    #[must_use]
    pub fn for_origin(&self, origin: &str) -> Self {
        Self { text: format!("{}{origin}", self.text_of_list()).into() }
    }

    /// Which read it is of.
    pub fn read(&self) -> ReadKind {
        // Nearly always: no other key is taken apart on the way of a hit.
        if self.start() == 0 { ReadKind::Conversations } else { self.resource().read() }
    }

    /// What of the contact it is.
    pub fn resource(&self) -> Resource {
        match self.start() {
            0 => Resource::Conversations,
            start => Resource::canonical(self.text[1..start - 1].strip_prefix('/')).unwrap_or(Resource::Conversations),
        }
    }

    /// Which part of what is known of the contact its answers show; none if it is the list, which shows all.
    pub fn shows(&self) -> Option<Part> {
        match self.resource() {
            Resource::Conversations => None,
            Resource::Conversation(_) => Some(Part::Conversation),
            // Whatever is not clearly about older messages may be about the newest.
            Resource::Messages(_) => Some(self.before().map_or(Part::Newest, |_| Part::Before)),
            Resource::Contact => Some(Part::Contact),
        }
    }

    /// Before which message a page of messages is, if it is about older ones.
    pub fn before(&self) -> Option<u64> {
        page_before(self.query()?).filter(|_| self.read() == ReadKind::Messages)
    }

    /// The decoded inbox identifier.
    pub fn inbox(&self) -> &str {
        self.part(0)
    }

    /// The decoded contact identifier (`source_id`): a credential.
    pub fn contact(&self) -> &str {
        self.part(1)
    }

    /// The query as sent, without the question mark.
    pub fn query(&self) -> Option<&str> {
        self.part(2).strip_prefix('?')
    }

    /// The host that was asked, if it is part of the key.
    pub fn host(&self) -> Option<&str> {
        Some(self.part(3)).filter(|host| !host.is_empty())
    }

    /// The only origin whose readers it is for.
    pub fn origin(&self) -> Option<&str> {
        Some(self.part(4)).filter(|origin| !origin.is_empty())
    }

    /// The text that the keys of all origins share, and no other list's.
    pub fn text_of_list(&self) -> &str {
        &self.text[..self.text.len() - self.part(4).len()]
    }

    /// All of it, and no other key's: a credential.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Bytes of its text.
    pub fn weight(&self) -> usize {
        self.text.len()
    }

    /// Path and query of a shared fetch: made from the key alone, so that every spelling asks the upstream alike.
    pub fn path_and_query(&self) -> String {
        let mut path = format!("{}{}", self.contact_path(), self.resource().path());
        if let Some(query) = self.query() {
            path.push('?');
            path.push_str(query);
        }
        path
    }

    /// Path of the contact itself.
    pub fn contact_path(&self) -> String {
        contact_path(self.inbox(), self.contact())
    }

    /// Where its first part begins.
    fn start(&self) -> usize {
        match self.text.strip_prefix('\0') {
            None => 0,
            Some(what) => what.bytes().position(|byte| byte == 0).map_or(0, |end| end + 2),
        }
    }

    fn part(&self, index: usize) -> &str {
        let mut rest = &self.text[self.start()..];
        for _ in 0..index {
            rest = rest.bytes().position(|byte| byte == 0).map_or("", |end| &rest[end + 1..]);
        }
        if index == 4 {
            return rest;
        }
        rest.bytes().position(|byte| byte == 0).map_or(rest, |end| &rest[..end])
    }
}

/// An identifier as one step of a path.
pub fn encode_segment(identifier: &str) -> String {
    utf8_percent_encode(identifier, SEGMENT).to_string()
}

/// Path of a contact, from decoded identifiers.
pub fn contact_path(inbox: &str, contact: &str) -> String {
    let inbox = utf8_percent_encode(inbox, SEGMENT);
    let contact = utf8_percent_encode(contact, SEGMENT);
    format!("/public/api/v1/inboxes/{inbox}/contacts/{contact}")
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(***)")
    }
}

/// Whether a text can be an inbox's or a contact's identifier: what [`decode_segment`] can give, of a sane length, and no
/// line of something else.
pub fn is_identifier(text: &str) -> bool {
    const LONGEST: usize = 1024;
    let is_step = !text.trim().is_empty() && text != "." && text != "..";
    is_step && text.len() <= LONGEST && !text.contains(|char: char| char == '/' || char.is_control())
}

/// A path segment as the upstream reads it, or nothing if two parties might read it differently: empty, invalid
/// percent sequences, invalid UTF-8, NUL, an encoded slash, a raw dot, decoded `.` and `..` (`api.md` 6.8).
pub fn decode_segment(raw: &str) -> Option<Cow<'_, str>> {
    if !raw.is_empty() && raw.bytes().all(is_plain) {
        return Some(raw.into());
    }
    if raw.is_empty() || raw.contains('.') || !percent_sequences_are_valid(raw) {
        return None;
    }
    let decoded = percent_decode_str(raw).decode_utf8().ok()?;
    if decoded.contains(['\0', '/']) || decoded == "." || decoded == ".." {
        return None;
    }
    Some(decoded)
}

/// Whether a byte of a segment stands for itself, whoever reads it.
fn is_plain(byte: u8) -> bool {
    const PLAIN: [bool; 256] = {
        let mut plain = [false; 256];
        let mut byte = 0_u8;
        while byte < 128 {
            plain[byte as usize] =
                byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~' | b':' | b'@' | b'+');
            byte += 1;
        }
        plain
    };
    PLAIN[usize::from(byte)]
}

fn percent_sequences_are_valid(raw: &str) -> bool {
    let bytes = raw.as_bytes();
    bytes.iter().enumerate().filter(|(_, byte)| **byte == b'%').all(|(at, _)| {
        bytes.get(at + 1).is_some_and(u8::is_ascii_hexdigit) && bytes.get(at + 2).is_some_and(u8::is_ascii_hexdigit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_decoded_once_and_strictly() {
        for (raw, decoded) in [
            ("abc", Some("abc")),
            ("a%62c", Some("abc")),
            ("a:b", Some("a:b")),
            ("a%3Ab", Some("a:b")),
            ("a%3ab", Some("a:b")),
            ("a%2Eb", Some("a.b")),
            ("a%2561", Some("a%61")),
            ("a+b", Some("a+b")),
            ("caf%C3%A9", Some("café")),
            ("", None),
            ("a.b", None),
            ("a%2Fb", None),
            ("%2e%2E", None),
            ("%2e", None),
            ("a%00", None),
            ("a%", None),
            ("a%4", None),
            ("a%zz", None),
            ("a%ff", None),
        ] {
            assert_eq!(decode_segment(raw).as_deref(), decoded, "{raw:?}");
        }
    }

    #[test]
    fn keys_are_equal_only_if_every_part_is() {
        let key = Key::new("in", "co", None);
        assert_eq!(key, Key::new("in", "co", None));
        for other in [
            Key::new("in", "co", Some("")),
            Key::new("in", "co", Some("a=1")),
            Key::new("in", "c", Some("o")),
            Key::new("i", "nco", None),
            Key::new("in", "CO", None),
        ] {
            assert_ne!(key, other);
        }
        let key = Key::new("in", "co", Some("a?b"));
        assert_eq!((key.inbox(), key.contact(), key.query(), key.origin()), ("in", "co", Some("a?b"), None));
        assert_eq!(Key::new("in", "co", None).query(), None);
    }

    #[test]
    fn the_keys_of_all_reads_differ_and_say_what_they_are_of() {
        let all = [
            (Resource::Conversations, None, None),
            (Resource::Conversation(7), None, Some(Part::Conversation)),
            (Resource::Conversation(77), None, Some(Part::Conversation)),
            (Resource::Messages(7), None, Some(Part::Newest)),
            (Resource::Messages(7), Some("before=9"), Some(Part::Before)),
            (Resource::Messages(7), Some("before=9&x"), Some(Part::Newest)),
            (Resource::Contact, None, Some(Part::Contact)),
            (Resource::Contact, Some("before=9"), Some(Part::Contact)),
        ];
        let mut keys = std::collections::HashSet::new();
        for (resource, query, part) in all {
            let key = Key::of(resource, "in", "co", query);
            for key in [key.clone(), key.for_host("H.test"), key.for_host("h.test").for_origin("https://a.test")] {
                assert_eq!(
                    (key.resource(), key.read(), key.shows()),
                    (resource, resource.read(), part),
                    "{resource:?}"
                );
                assert_eq!((key.inbox(), key.contact(), key.query()), ("in", "co", query), "{resource:?}");
                let path = key.path_and_query();
                let path = path.split('?').next().unwrap();
                assert_eq!(path, format!("/public/api/v1/inboxes/in/contacts/co{}", resource.path()));
                assert!(keys.insert(key), "{resource:?}");
            }
            let of_host = key.for_host("h.test");
            assert_eq!((of_host.host(), of_host.for_origin("o").origin()), (Some("h.test"), Some("o")));
        }
    }

    #[test]
    fn keys_of_origins_are_of_one_list() {
        let key = Key::new("in", "co", Some("q"));
        let (a, b) = (key.for_origin("https://a.test"), key.for_origin("https://b.test"));
        assert!(a != b && a != key);
        assert_eq!((a.contact(), a.query(), a.origin()), ("co", Some("q"), Some("https://a.test")));
        assert_eq!(a.for_origin("https://b.test"), b);
        assert_eq!((a.text_of_list(), b.text_of_list()), (key.text_of_list(), key.text_of_list()));
    }

    #[test]
    fn the_path_of_a_fetch_decodes_to_its_key() {
        for contact in ["plain-1_~", "a b", "a:b@c", "a.b", "café", "a%61", "a+b&c=d;e", "x?y#z"] {
            let path = Key::new("in", contact, Some("q=%20")).path_and_query();
            let segments: Vec<_> = path.split(['/', '?']).collect();
            assert_eq!(decode_segment(segments[7]).as_deref(), Some(contact), "{path}");
            assert!(path.ends_with("/conversations?q=%20"), "{path}");
        }
    }

    #[test]
    fn not_every_text_is_an_identifier() {
        for good in ["a", "+1 555", "a.b@c", "phone:+15550100003", "café"] {
            assert!(is_identifier(good), "{good:?}");
        }
        for bad in ["", " ", ".", "..", "a/b", "https://h/contacts/a", "a\nb", "a\0", &"a".repeat(1025)] {
            assert!(!is_identifier(bad), "{bad:?}");
        }
    }

    #[test]
    fn debug_shows_no_identifier() {
        assert_eq!(format!("{:?}", Key::new("in", "co", None)), "Key(***)");
    }
}
