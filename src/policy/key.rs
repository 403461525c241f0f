//! When two requests may share one answer.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// `cache.query`: what the query string does to the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryRule {
    /// Another query is another answer: right for any fork.
    Key,
    /// The upstream reads no query on this route (`api.md` section 3), so it neither parts answers nor is sent on.
    Ignore,
}

/// Which answer a list request asks for: inbox, contact (both decoded once) and the query as it was sent.
///
/// Compared whole, never by hash. `Debug` shows nothing: the contact's identifier is the credential of this API.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// `inbox NUL contact`, then `NUL query` if there was a `?`. Decoded segments hold no NUL.
    text: Arc<str>,
}

/// What a decoded path segment may keep when it is written into a path again. A raw dot in an identifier is not
/// routed upstream (`api.md` 6.8), so the dot is encoded like everything else that is not plain.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~');

impl Key {
    /// The only constructor. `inbox` and `contact` are decoded and hold no NUL ([`decode_segment`] sees to that).
    pub fn new(inbox: &str, contact: &str, query: Option<&str>) -> Self {
        debug_assert!(!inbox.contains('\0') && !contact.contains('\0'));
        let mut text = String::with_capacity(inbox.len() + contact.len() + query.map_or(0, str::len) + 2);
        text.push_str(inbox);
        text.push('\0');
        text.push_str(contact);
        if let Some(query) = query {
            text.push('\0');
            text.push_str(query);
        }
        Self { text: text.into() }
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
        self.text.splitn(3, '\0').nth(2)
    }

    /// All of it, as one text that no other key has.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Path and query of a shared fetch: made from the key alone, so that every spelling asks the upstream alike.
    pub fn path_and_query(&self) -> String {
        let mut path = format!("{}/conversations", self.contact_path());
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

    fn part(&self, index: usize) -> &str {
        self.text.splitn(3, '\0').nth(index).unwrap_or_default()
    }
}

/// Path of a contact, from decoded identifiers.
pub fn contact_path(inbox: &str, contact: &str) -> String {
    let inbox = utf8_percent_encode(inbox, SEGMENT);
    let contact = utf8_percent_encode(contact, SEGMENT);
    format!("/public/api/v1/inboxes/{inbox}/contacts/{contact}")
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(***)")
    }
}

/// A path segment as the upstream reads it, or nothing if two parties might read it differently: empty, invalid
/// percent sequences, invalid UTF-8, NUL, an encoded slash, a raw dot, decoded `.` and `..` (`api.md` 6.8).
pub fn decode_segment(raw: &str) -> Option<String> {
    if raw.is_empty() || raw.contains('.') || !percent_sequences_are_valid(raw) {
        return None;
    }
    let decoded = percent_decode_str(raw).decode_utf8().ok()?;
    if decoded.contains(['\0', '/']) || decoded == "." || decoded == ".." {
        return None;
    }
    Some(decoded.into_owned())
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
        let key = Key::new("in", "co", Some("a\0b"));
        assert_eq!((key.inbox(), key.contact(), key.query()), ("in", "co", Some("a\0b")));
        assert_eq!(Key::new("in", "co", None).query(), None);
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
    fn debug_shows_no_identifier() {
        assert_eq!(format!("{:?}", Key::new("in", "co", None)), "Key(***)");
    }
}
