//! Which of several answers is the one for a request (RFC 9111 section 4.1).

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue};

use super::cache_control::members;

/// The most fields that an answer may differ by, and the most bytes of them that are kept of the request.
const MOST_FIELDS: usize = 16;
const MOST_BYTES: usize = 4096;

/// Fields whose members are alike in any case (RFC 9110 sections 8.4.1, 12.5.2 and 12.5.4), and in any order: what is liked
/// better has a weight, and that the first one is "cannot be relied upon" (section 12.5.4).
const PREFERENCES: [HeaderName; 3] = [header::ACCEPT_ENCODING, header::ACCEPT_LANGUAGE, header::ACCEPT_CHARSET];
/// Fields that are no lists, so that a comma in them is only a comma.
const NO_LISTS: [HeaderName; 9] = [
    header::AUTHORIZATION,
    header::COOKIE,
    header::DATE,
    header::FROM,
    header::IF_MODIFIED_SINCE,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    header::REFERER,
    header::USER_AGENT,
];

/// Fields of a request that this proxy makes, or changes, on its way: the upstream has seen others than the client sent, so
/// nothing that differs by them is for anybody else.
const OURS: [&str; 13] = [
    "connection",
    "expect",
    "forwarded",
    "host",
    "te",
    "upgrade",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
];

/// What of a request chose an answer: the fields that `Vary` names, as they were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chosen(Box<[(HeaderName, Value)]>);

/// A field as it was sent, without what makes no difference; none if it was not.
type Value = Option<Box<[u8]>>;

impl Chosen {
    /// What chose the answer with this head, by the request it was given to. None if nobody can say (`*`), or it is more
    /// than is kept: such an answer is never the one for another request.
    pub fn of(answer: &HeaderMap, asked: &HeaderMap) -> Option<Self> {
        let mut names: Vec<HeaderName> = Vec::new();
        for line in answer.get_all(header::VARY) {
            for name in members(line.as_bytes()) {
                // `*` is a token, and so would be a name.
                let is_told = |name: &HeaderName| name != "*" && !OURS.contains(&name.as_str());
                let name = HeaderName::from_bytes(name).ok().filter(is_told)?;
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        let chosen: Vec<_> = names.into_iter().map(|name| (normalised(asked, &name), name)).collect();
        let bytes: usize = chosen.iter().map(|(value, _)| value.as_ref().map_or(0, |value| value.len())).sum();
        let fits = chosen.len() <= MOST_FIELDS && bytes <= MOST_BYTES;
        fits.then(|| Self(chosen.into_iter().map(|(value, name)| (name, value)).collect()))
    }

    /// Whether it would be chosen for this request, too.
    pub fn matches(&self, asked: &HeaderMap) -> bool {
        self.0.iter().all(|(name, value)| match (value, asked.contains_key(name)) {
            (None, false) => true,
            (Some(value), true) => normalised(asked, name).is_some_and(|asked| asked == *value),
            _ => false,
        })
    }

    /// Whether it is chosen whatever a request says.
    pub fn is_for_all(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes that it holds.
    pub fn weight(&self) -> usize {
        self.0
            .iter()
            .map(|(_, value)| size_of::<(HeaderName, Value)>() + value.as_ref().map_or(0, |value| value.len()))
            .sum()
    }

    /// What a request has of the fields that chose this one, as a text: requests with the same text are given the same.
    pub fn text_of(&self, asked: &HeaderMap) -> String {
        let mut text = String::new();
        for (name, _) in &self.0 {
            let value =
                normalised(asked, name).map_or_else(|| "-".to_owned(), |value| format!("={}", value.escape_ascii()));
            text.push_str(name.as_str());
            text.push_str(&value);
            text.push('\n');
        }
        text
    }
}

/// A field of a request without what makes no difference: lines are one list, white space about its commas is none, and case
/// and order where the field has none. Elsewhere the order of members may mean something.
fn normalised(asked: &HeaderMap, name: &HeaderName) -> Value {
    let mut lines = asked.get_all(name).iter().map(HeaderValue::as_bytes).peekable();
    lines.peek()?;
    let value = if NO_LISTS.contains(name) {
        lines.map(<[u8]>::trim_ascii).collect::<Vec<_>>().join(&b","[..])
    } else if PREFERENCES.contains(name) {
        let mut preferences: Vec<Vec<u8>> = lines.flat_map(members).map(preference).collect();
        preferences.sort_unstable();
        preferences.join(&b","[..])
    } else {
        lines.flat_map(members).collect::<Vec<_>>().join(&b","[..])
    };
    Some(value.into())
}

/// A preference without white space about its `;` (RFC 9110 section 12.4.2 allows it), in lower case.
fn preference(member: &[u8]) -> Vec<u8> {
    let parts: Vec<&[u8]> = member.split(|byte| *byte == b';').map(<[u8]>::trim_ascii).collect();
    parts.join(&b";"[..]).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::http::fields::map;

    type Fields = &'static [(&'static str, &'static str)];

    fn chosen(vary: &'static str, asked: Fields) -> Option<Chosen> {
        Chosen::of(&map(&[("vary", vary)]), &map(asked))
    }

    /// Section 4.1.
    #[test]
    fn an_answer_is_for_requests_with_the_same_fields() {
        let first: Fields = &[("foo", "1"), ("bar", "a, b"), ("other", "x")];
        for (vary, asked, matches) in [
            ("Foo", &[("foo", "1")][..], true),
            ("FOO", &[("foo", "1"), ("bar", "z")], true),
            ("foo", &[("foo", "2")], false),
            ("foo", &[], false),
            ("foo, bar", &[("foo", "1"), ("bar", "a, b")], true),
            ("foo,bar", &[("foo", "1"), ("bar", "a,b")], true),
            (" foo , , bar", &[("foo", " 1"), ("bar", "a"), ("bar", " b")], true),
            ("foo, bar", &[("foo", "1"), ("bar", "b, a")], false),
            ("foo, bar", &[("foo", "1"), ("bar", "A, b")], false),
            ("foo, bar", &[("foo", "1")], false),
            ("baz", &[], true),
            ("baz", &[("baz", "")], false),
            ("foo, baz", &[("foo", "1"), ("baz", "1")], false),
            ("", &[], true),
        ] {
            assert_eq!(chosen(vary, first).unwrap().matches(&map(asked)), matches, "{vary}: {asked:?}");
        }
        assert!(chosen("", first).unwrap().is_for_all() && !chosen("foo", first).unwrap().is_for_all());
        let lines = Chosen::of(&map(&[("vary", "foo"), ("vary", "bar")]), &map(first)).unwrap();
        assert!(lines.matches(&map(&[("foo", "1"), ("bar", "a,b")])) && !lines.matches(&map(&[("foo", "1")])));
    }

    /// Section 4.1: `*` always fails to match, among others too; and who the client is, the upstream knows from us.
    #[test]
    fn what_differs_by_everything_is_for_nobody_else() {
        for vary in ["*", "foo, *", "*, foo", " * ", "X-Forwarded-For", "foo, forwarded", "host"] {
            assert_eq!(chosen(vary, &[]), None, "{vary}");
        }
        for vary in ["a b", "foo, \"", "(x)"] {
            assert_eq!(chosen(vary, &[]), None, "what cannot be read may be anything: {vary}");
        }
        let many: String = (0..=MOST_FIELDS).map(|at| format!("x-{at},")).collect();
        assert_eq!(Chosen::of(&map(&[("vary", many.leak())]), &HeaderMap::new()), None);
        let long = "x".repeat(MOST_BYTES + 1);
        assert_eq!(chosen("foo", vec![("foo", &*long.leak())].leak()), None);
    }

    /// Section 4.1: what is known to mean the same. A comma means a list only where there is one.
    #[test]
    fn what_means_the_same_is_the_same() {
        for (name, one, other, same) in [
            ("accept-language", "en-GB, de;q=0.5", "EN-gb,de;q=0.5", true),
            ("accept-language", "en;q=0.5, de", "de,en; q=0.5", true),
            ("accept-language", "en, de", "de, en", true),
            ("accept-language", "en, de;q=0.5", "en;q=0.5, de", false),
            ("accept-encoding", "gzip, br", "br, gzip", true),
            ("x-kind", "a, b", "b, a", false),
            ("accept-encoding", "GZIP", "gzip", true),
            ("x-kind", "A", "a", false),
            ("user-agent", "a, b", "a,b", false),
            ("cookie", "a=1", "a=2", false),
            ("accept", "\"a, b\"", "\"a,b\"", false),
        ] {
            let answer = map(&[("vary", name)]);
            let [one, other] = [one, other]
                .map(|value| HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))]));
            let chosen = Chosen::of(&answer, &one).unwrap();
            assert_eq!(chosen.matches(&other), same, "{name}");
            assert_eq!(chosen.text_of(&one) == chosen.text_of(&other), same, "{name}");
        }
    }
}
