//! `Cache-Control`, of answers and of requests (RFC 9111 section 5.2), out of whatever was sent as one.
//!
//! Read for the worst: what forbids counts however it is written, what permits counts only if it is written well. A number
//! that is none is zero (section 4.2.1: "caches are encouraged to consider responses that have invalid freshness information
//! to be stale"); of several the smallest counts, which is no later than the first one; one too large to count is 2^31.

use std::borrow::Cow;
use std::time::Duration;

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};

/// The most seconds that anybody counts (section 1.2.2).
pub const LONGEST: Duration = Duration::from_secs(1 << 31);

/// What a directive such as `no-cache` or `private` is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Restriction {
    /// It is not there.
    #[default]
    Nothing,
    /// These fields.
    Fields(Vec<HeaderName>),
    /// The answer.
    Whole,
}

impl Restriction {
    /// What both restrict.
    fn and(&mut self, argument: Option<&[u8]>) {
        let named = argument.and_then(field_names);
        *self = match (std::mem::take(self), named) {
            (Self::Nothing, Some(fields)) => Self::Fields(fields),
            (Self::Fields(mut fields), Some(more)) => {
                fields.extend(more);
                Self::Fields(fields)
            }
            _ => Self::Whole,
        };
    }

    /// The fields that it names.
    pub fn fields(&self) -> &[HeaderName] {
        match self {
            Self::Fields(fields) => fields,
            Self::Nothing | Self::Whole => &[],
        }
    }
}

/// The directives of an answer (section 5.2.2, and RFC 5861). Unknown ones are ignored (section 5.2.3).
#[expect(clippy::struct_excessive_bools, reason = "each is a directive of its own")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseDirectives {
    /// `no-store`.
    pub no_store: bool,
    /// `no-cache`: may not be used without validation.
    pub no_cache: Restriction,
    /// `private`: not for a cache that many share.
    pub private: Restriction,
    /// `public`.
    pub public: bool,
    /// `must-revalidate`: never used stale.
    pub must_revalidate: bool,
    /// `proxy-revalidate`: the same for a cache that many share.
    pub proxy_revalidate: bool,
    /// `must-understand`: stored only by who knows what the status asks of a cache; `no-store` is then for the others.
    pub must_understand: bool,
    /// `max-age`.
    pub max_age: Option<Duration>,
    /// `s-maxage`: the same for a cache that many share, and never used stale.
    pub s_maxage: Option<Duration>,
    /// `stale-while-revalidate`: so long after it became stale.
    pub stale_while_revalidate: Option<Duration>,
    /// `stale-if-error`: so long after it became stale.
    pub stale_if_error: Option<Duration>,
}

impl ResponseDirectives {
    /// Those of an answer's `Cache-Control`.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for line in headers.get_all(header::CACHE_CONTROL) {
            for directive in Directive::all(line) {
                found.add(&directive);
            }
        }
        found
    }

    fn add(&mut self, directive: &Directive<'_>) {
        match &*directive.name {
            "no-store" => self.no_store = true,
            "no-cache" => self.no_cache.and(directive.argument),
            "private" => self.private.and(directive.argument),
            "public" => self.public = true,
            "must-revalidate" => self.must_revalidate = true,
            "proxy-revalidate" => self.proxy_revalidate = true,
            "must-understand" => self.must_understand = true,
            "max-age" => smallest(&mut self.max_age, directive.seconds()),
            "s-maxage" => smallest(&mut self.s_maxage, directive.seconds()),
            "stale-while-revalidate" => smallest(&mut self.stale_while_revalidate, directive.seconds()),
            "stale-if-error" => smallest(&mut self.stale_if_error, directive.seconds()),
            _ => {}
        }
    }

    /// Whether nothing of it may ever be used stale by a cache that many share (sections 5.2.2.2, 5.2.2.8 and 5.2.2.10).
    pub fn forbids_stale(&self) -> bool {
        self.must_revalidate || self.proxy_revalidate || self.s_maxage.is_some()
    }
}

/// The directives of a request (section 5.2.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestDirectives {
    /// `no-cache`: not without validation.
    pub no_cache: bool,
    /// `no-store`: neither the request nor its answer.
    pub no_store: bool,
    /// `only-if-cached`: 504 rather than a request to the upstream.
    pub only_if_cached: bool,
    /// `max-age`: no older than that.
    pub max_age: Option<Duration>,
    /// `max-stale`: stale, but not longer than that.
    pub max_stale: Option<Duration>,
    /// `min-fresh`: fresh for as long from now on.
    pub min_fresh: Option<Duration>,
}

impl RequestDirectives {
    /// Those of a request; `Pragma: no-cache` counts only if there is no `Cache-Control` (section 5.4).
    pub fn of(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        let mut lines = headers.get_all(header::CACHE_CONTROL).iter().peekable();
        if lines.peek().is_none() {
            let mut pragma = headers.get_all(header::PRAGMA).iter().flat_map(Directive::all);
            found.no_cache = pragma.any(|directive| directive.name == "no-cache");
            return found;
        }
        for directive in lines.flat_map(Directive::all) {
            found.add(&directive);
        }
        found
    }

    fn add(&mut self, directive: &Directive<'_>) {
        match &*directive.name {
            "no-cache" => self.no_cache = true,
            "no-store" => self.no_store = true,
            "only-if-cached" => self.only_if_cached = true,
            "max-age" => smallest(&mut self.max_age, directive.seconds()),
            // Without an argument: however stale.
            "max-stale" if directive.argument.is_none() => smallest(&mut self.max_stale, Some(LONGEST)),
            "max-stale" => smallest(&mut self.max_stale, directive.seconds()),
            // For the worst: what cannot be read asks for more than there is.
            "min-fresh" => {
                let asked = directive.seconds().unwrap_or(LONGEST);
                self.min_fresh = self.min_fresh.max(Some(asked));
            }
            _ => {}
        }
    }
}

/// Of two values the smaller; one that cannot be read is zero.
fn smallest(known: &mut Option<Duration>, found: Option<Duration>) {
    let found = found.unwrap_or_default();
    *known = Some(known.map_or(found, |known| known.min(found)));
}

/// One directive as it was written.
struct Directive<'a> {
    /// In lower case.
    name: Cow<'a, str>,
    /// What is behind the `=`.
    argument: Option<&'a [u8]>,
    /// There is no space about the `=`, where the grammar has none.
    is_tight: bool,
}

impl<'a> Directive<'a> {
    /// The directives of one line.
    fn all(line: &'a HeaderValue) -> impl Iterator<Item = Self> {
        members(line.as_bytes()).filter_map(Self::read)
    }

    fn read(member: &'a [u8]) -> Option<Self> {
        let (name, argument) = match member.iter().position(|byte| *byte == b'=') {
            Some(at) => (&member[..at], Some(&member[at + 1..])),
            None => (member, None),
        };
        let name_alone = name.trim_ascii();
        let is_tight =
            name_alone.len() == name.len() && argument.is_none_or(|argument| argument.trim_ascii() == argument);
        let text = String::from_utf8_lossy(name_alone);
        let name =
            if text.bytes().any(|byte| byte.is_ascii_uppercase()) { text.to_ascii_lowercase().into() } else { text };
        (!name.is_empty()).then_some(Self { name, argument, is_tight })
    }

    /// Its number of seconds (section 1.2.2), in quotes or not; none if it is not a number.
    fn seconds(&self) -> Option<Duration> {
        let argument = self.argument.filter(|_| self.is_tight)?;
        let digits = unquoted(argument).unwrap_or(argument);
        seconds(digits)
    }
}

/// Digits as seconds, at most [`LONGEST`].
pub fn seconds(digits: &[u8]) -> Option<Duration> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = std::str::from_utf8(digits).ok()?.parse().unwrap_or(u64::MAX);
    Some(Duration::from_secs(number).min(LONGEST))
}

/// The names of fields in an argument; none if it is empty or holds anything else.
pub(super) fn field_names(argument: &[u8]) -> Option<Vec<HeaderName>> {
    let names = unquoted(argument).unwrap_or(argument);
    let names = names.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|name| !name.is_empty());
    let names: Vec<HeaderName> = names.map(HeaderName::from_bytes).collect::<Result<_, _>>().ok()?;
    (!names.is_empty()).then_some(names)
}

/// What is between the quotes, if there are two. No directive needs a backslash there; with one it is no number and no name.
fn unquoted(text: &[u8]) -> Option<&[u8]> {
    text.strip_prefix(b"\"")?.strip_suffix(b"\"")
}

/// The members of a list (RFC 9110 section 5.6.1), without the white space about them. A comma between quotes parts
/// nothing; a quote that nothing closes is no quote.
pub fn members(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(list);
    std::iter::from_fn(move || {
        loop {
            let text = rest?;
            let end = end_of_member(text);
            rest = text.get(end + 1..);
            let member = text[..end].trim_ascii();
            if !member.is_empty() {
                return Some(member);
            }
        }
    })
}

/// Where the first member of a list ends.
fn end_of_member(list: &[u8]) -> usize {
    let mut at = 0;
    while at < list.len() {
        match list[at] {
            b',' => return at,
            b'"' => at += end_of_quoted(&list[at..]).unwrap_or(1),
            _ => at += 1,
        }
    }
    list.len()
}

/// How long a quoted string is (RFC 9110 section 5.6.4), quotes included; none if nothing closes it.
fn end_of_quoted(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    while at < text.len() {
        match text[at] {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    None
}

#[cfg(test)]
mod tests;
