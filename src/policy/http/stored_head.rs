//! The head of an answer in memory, and the heads of the forms it is sent in. Most of it is alike in all answers of one
//! upstream, and is kept once for them all; what is an answer's own (its validator, its date) is packed beside.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::encoding::Coding;
use super::headers::{CACHE_STATUS, X_REQUEST_ID};
use super::own_value::{self, Value};

/// One of the forms an answer is sent in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// The coding of the body.
    pub coding: Option<Coding>,
    /// With the fields for readers from another origin.
    pub cors: bool,
    /// 304: the reader has it already.
    pub not_modified: bool,
}

/// Fields of the content, which a 304 does not have (`api.md` 6.2), and which a 304 of the upstream does not change
/// (RFC 9111 section 3.2).
pub const OF_THE_CONTENT: [HeaderName; 4] =
    [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::CONTENT_RANGE];

/// Fields that hold of one sequence of bytes and of no other (RFC 9530 and its forerunners).
const DIGESTS: [&str; 4] = ["content-digest", "repr-digest", "digest", "content-md5"];

impl Form {
    /// Without coding and in each of three, 304 for the first and for the others; each with and without CORS.
    const COUNT: usize = 12;

    fn index(self) -> usize {
        let content = match self.coding {
            coding if self.not_modified => 4 + usize::from(coding.is_some()),
            coding => coding.map_or(0, |coding| 1 + coding as usize),
        };
        content * 2 + usize::from(self.cors)
    }

    fn has(self, name: &HeaderName) -> bool {
        !(self.not_modified && OF_THE_CONTENT.contains(name)
            || self.coding.is_some() && DIGESTS.contains(&name.as_str()))
    }

    /// A strong validator means one sequence of bytes (RFC 9110 section 8.8.1); a 304 has that of the form it stands for
    /// (section 15.4.5).
    fn validator(self, etag: &[u8]) -> HeaderValue {
        if self.coding.is_some() { weakened(etag) } else { value(etag) }
    }
}

/// What the heads of many answers have in common.
#[derive(Debug)]
pub struct CommonHead {
    /// The fields; of those that differ from answer to answer, the value of the first.
    fields: HeaderMap,
    /// What readers from another origin get besides, if it may be known.
    cors: Option<HeaderMap>,
    /// The head of each form, made when it is first asked for.
    forms: [OnceLock<HeaderMap>; Form::COUNT],
    /// The same as text.
    texts: [OnceLock<Text>; Form::COUNT],
}

/// The head of a form as HTTP/1.1 has it: without what is said anew each time, and without an end.
#[derive(Debug)]
struct Text {
    lines: Box<[u8]>,
    /// Where the value of each name is, if the form has it and there is one: from and to.
    values: Box<[Option<(usize, usize)>]>,
}

impl Text {
    fn field(lines: &mut Vec<u8>, name: &HeaderName, value: &[u8]) -> (usize, usize) {
        lines.extend_from_slice(name.as_str().as_bytes());
        lines.extend_from_slice(b": ");
        let from = lines.len();
        lines.extend_from_slice(value);
        let to = lines.len();
        lines.extend_from_slice(b"\r\n");
        (from, to)
    }
}

impl CommonHead {
    fn form(&self, form: Form) -> HeaderMap {
        let mut head = self.fields.clone();
        for name in self.fields.keys().filter(|name| !form.has(name)) {
            head.remove(name);
        }
        for (name, value) in self.cors.iter().filter(|_| form.cors).flatten() {
            head.append(name.clone(), value.clone());
        }
        if let Some(coding) = form.coding {
            if !form.not_modified {
                head.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
            }
            if let Some(etag) = self.fields.get(header::ETAG) {
                head.insert(header::ETAG, form.validator(etag.as_bytes()));
            }
        }
        for name in [header::AGE, CACHE_STATUS, X_REQUEST_ID] {
            head.insert(name, HeaderValue::from_static(""));
        }
        head
    }

    /// Fields whose values may be an answer's own come first, in the order of their places.
    fn text(&self, form: Form) -> Text {
        let mut head = self.form(form);
        for name in [header::AGE, CACHE_STATUS, X_REQUEST_ID] {
            head.remove(name);
        }
        let mut lines = Vec::new();
        let mut write = |name: &HeaderName, values: &HeaderMap| {
            let mut places = values.get_all(name).iter().map(|value| Text::field(&mut lines, name, value.as_bytes()));
            let first = places.next();
            places.for_each(drop);
            first
        };
        let values = self.fields.keys().map(|name| write(name, &head)).collect();
        for name in self.fields.keys() {
            head.remove(name);
        }
        for name in head.keys() {
            write(name, &head);
        }
        Text { lines: lines.into(), values }
    }

    /// Bytes it holds in memory, about, with the heads of a few forms.
    fn weight(&self) -> usize {
        const HEADS: usize = 4;
        let fields =
            |map: &HeaderMap| map.iter().map(|(name, value)| name.as_str().len() + value.len() + 100).sum::<usize>();
        HEADS * (fields(&self.fields) + self.cors.as_ref().map_or(0, fields))
    }
}

/// The head of one answer.
#[derive(Clone, Debug)]
pub struct StoredHead {
    common: Arc<CommonHead>,
    /// The fields whose values are not the common ones: for each the place of its name, and the value.
    /// None if the common part was made for this answer.
    own: Option<Box<[u8]>>,
}

/// The most fields of an answer that are its own.
const MOST_OWN: usize = 8;

impl StoredHead {
    /// A head by itself. `cors`: what readers from another origin get besides, if it may be known.
    pub fn new(fields: &HeaderMap, cors: Option<&HeaderMap>) -> Self {
        let (fields, cors) = (compact(fields), cors.map(compact));
        let common = Arc::new(CommonHead { fields, cors, forms: Default::default(), texts: Default::default() });
        Self { common, own: None }
    }

    /// The same head by what another has in common with it; none if they are too different.
    #[must_use]
    pub fn sharing(&self, common: &Arc<CommonHead>) -> Option<Self> {
        let fields = self.fields();
        if fields.len() != common.fields.len() || self.common.cors != common.cors {
            return None;
        }
        let mut own = Vec::new();
        let mut count = 0;
        for (place, name) in common.fields.keys().enumerate() {
            let (ours, theirs) = (fields.get_all(name), common.fields.get_all(name));
            if ours == theirs {
                continue;
            }
            let (mut ours, mut theirs) = (ours.iter(), theirs.iter());
            let (Some(value), None, Some(_), None) = (ours.next(), ours.next(), theirs.next(), theirs.next()) else {
                return None;
            };
            count += 1;
            own.push(u8::try_from(place).ok().filter(|_| count <= MOST_OWN)?);
            own_value::write(value.as_bytes(), &mut own)?;
        }
        Some(Self { common: common.clone(), own: Some(own.into()) })
    }

    /// What others may have in common with it.
    pub fn common(&self) -> &Arc<CommonHead> {
        &self.common
    }

    /// Whether readers from another origin may have the answer.
    pub fn is_for_all_origins(&self) -> bool {
        self.common.cors.is_some()
    }

    /// The fields for readers from another origin.
    pub fn cors(&self) -> Option<&HeaderMap> {
        self.common.cors.as_ref()
    }

    /// The value of a field; of several the first.
    pub fn get<'s>(&'s self, name: &HeaderName) -> Option<impl Deref<Target = [u8]> + use<'s>> {
        let own = self.own().find(|(own, _)| *own == name).map(|(_, value)| value);
        own.or_else(|| self.common.fields.get(name).map(|value| Value::Text(value.as_bytes())))
    }

    /// All fields.
    pub fn fields(&self) -> HeaderMap {
        let mut fields = self.common.fields.clone();
        for (name, own) in self.own() {
            fields.insert(name.clone(), value(&own));
        }
        fields
    }

    /// The head of a form, with `Age`, `Cache-Status` and the request's id as empty fields, to be set, and without a length.
    pub fn form(&self, form: Form) -> HeaderMap {
        let mut head = self.common.forms[form.index()].get_or_init(|| self.common.form(form)).clone();
        for (name, own) in self.own().filter(|(name, _)| form.has(name)) {
            let own = if *name == header::ETAG { form.validator(&own) } else { value(&own) };
            head.insert(name.clone(), own);
        }
        head
    }

    /// The same as lines of HTTP/1.1, without `Age`, `Cache-Status`, the request's id and a length.
    pub fn write(&self, form: Form, out: &mut Vec<u8>) {
        let common = &self.common;
        let Text { lines, values } = common.texts[form.index()].get_or_init(|| common.text(form));
        let mut written = 0;
        for (place, own) in self.own_places() {
            // The names of a form are in the order of the head.
            let Some((from, to)) = values[place] else { continue };
            out.extend_from_slice(&lines[written..from]);
            let is_weakened = form.coding.is_some() && !own.starts_with(b"W/");
            if is_weakened && common.fields.keys().nth(place) == Some(&header::ETAG) {
                out.extend_from_slice(b"W/");
            }
            out.extend_from_slice(&own);
            written = to;
        }
        out.extend_from_slice(&lines[written..]);
    }

    /// Bytes it holds in memory, about.
    pub fn weight(&self) -> usize {
        self.own.as_ref().map_or_else(|| self.common.weight(), |own| own.len())
    }

    fn own(&self) -> impl Iterator<Item = (&HeaderName, Value<'_>)> {
        self.own_places().filter_map(|(place, value)| Some((self.common.fields.keys().nth(place)?, value)))
    }

    /// Own values with the places of their names, in their order.
    fn own_places(&self) -> impl Iterator<Item = (usize, Value<'_>)> {
        let mut rest = self.own.as_deref().unwrap_or_default();
        std::iter::from_fn(move || {
            let (place, after) = rest.split_first()?;
            let (value, after) = own_value::read(after)?;
            rest = after;
            Some(((*place).into(), value))
        })
    }
}

fn value(bytes: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(bytes).expect("it was one before")
}

/// A validator that does not promise the same bytes (RFC 9110 section 8.8.1).
pub fn weakened(etag: &[u8]) -> HeaderValue {
    if etag.starts_with(b"W/") { value(etag) } else { value(&[b"W/", etag].concat()) }
}

/// Removes the fields that hold of one sequence of bytes.
pub fn remove_digests(head: &mut HeaderMap) {
    for name in DIGESTS {
        head.remove(name);
    }
}

/// A head that holds its own bytes and no more. The values of one that was read from a connection are parts of the
/// connection's buffer, and keep all of it in memory as long as one of them is kept.
pub fn compact(head: &HeaderMap) -> HeaderMap {
    let mut bytes = Vec::with_capacity(head.values().map(HeaderValue::len).sum());
    head.values().for_each(|value| bytes.extend_from_slice(value.as_bytes()));
    let mut bytes = Bytes::from(bytes);
    let mut compacted = HeaderMap::with_capacity(head.len());
    for (name, value) in head {
        let value = HeaderValue::from_maybe_shared(bytes.split_to(value.len())).expect("it was one before");
        compacted.append(name.clone(), value);
    }
    compacted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::http::fields::map;

    const FIRST: &[(&str, &str)] = &[
        ("content-type", "application/json"),
        ("etag", "\"a\""),
        ("vary", "a"),
        ("vary", "b"),
        ("content-digest", "x"),
    ];

    /// Every form of every pair of heads: shared or not, it is the same head.
    #[test]
    fn a_head_that_is_shared_is_the_same_head() {
        let cors = map(&[("access-control-allow-origin", "*")]);
        let first = StoredHead::new(&map(FIRST), Some(&cors));
        let other_order = [FIRST[3], FIRST[1], FIRST[0], FIRST[4], ("vary", "c")];
        for (fields, cors, is_shared) in [
            (FIRST.to_vec(), Some(&cors), true),
            ([&[("content-type", "text/html"), ("etag", "W/\"bcd\"")], &FIRST[2..]].concat(), Some(&cors), true),
            ([&FIRST[..4], &[("content-digest", "")]].concat(), Some(&cors), true),
            ([&[FIRST[0], ("etag", "\"bcd\"")], &FIRST[2..]].concat(), Some(&cors), true),
            (FIRST.to_vec(), None, false),
            (FIRST[1..].to_vec(), Some(&cors), false),
            ([FIRST, &[("age", "1")]].concat(), Some(&cors), false),
            (other_order.to_vec(), Some(&cors), false),
        ] {
            let alone = StoredHead::new(&map(&fields), cors);
            let shared = alone.sharing(first.common());
            assert_eq!(shared.is_some(), is_shared, "{fields:?}");
            let Some(shared) = shared else { continue };
            assert!(shared.weight() < alone.weight());
            assert_eq!(shared.fields(), alone.fields());
            for name in [header::ETAG, header::CONTENT_TYPE, header::VARY, header::AGE] {
                assert_eq!(shared.get(&name).as_deref(), alone.get(&name).as_deref());
            }
            for coding in [None, Some(Coding::Gzip), Some(Coding::Brotli), Some(Coding::Zstd)] {
                for (cors, not_modified) in [(false, false), (false, true), (true, false), (true, true)] {
                    let form = Form { coding, cors, not_modified };
                    assert_eq!(shared.form(form), alone.form(form), "{form:?} of {fields:?}");
                    for head in [&shared, &alone] {
                        let mut lines = Vec::new();
                        head.write(form, &mut lines);
                        assert_eq!(fields_of(&lines), without_ours(head.form(form)), "{form:?} of {fields:?}");
                    }
                }
            }
        }
    }

    /// Fields by name and value, sorted.
    fn fields_of(lines: &[u8]) -> Vec<(String, String)> {
        let lines = std::str::from_utf8(lines).unwrap().split_terminator("\r\n");
        let mut fields: Vec<_> =
            lines.map(|line| line.split_once(": ").unwrap()).map(|(name, value)| (name.into(), value.into())).collect();
        fields.sort();
        fields
    }

    fn without_ours(mut head: HeaderMap) -> Vec<(String, String)> {
        for name in [header::AGE, CACHE_STATUS, X_REQUEST_ID] {
            head.remove(name);
        }
        let mut fields: Vec<_> =
            head.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
        fields.sort();
        fields
    }

    #[test]
    fn a_head_that_is_too_different_is_kept_by_itself() {
        let names: Vec<HeaderName> =
            (0..=MOST_OWN).map(|at| HeaderName::try_from(format!("x-{at}")).unwrap()).collect();
        let all = |value: &'static str| -> HeaderMap {
            names.iter().map(|name| (name.clone(), HeaderValue::from_static(value))).collect()
        };
        let first = StoredHead::new(&all("a"), None);
        let mut other = all("b");
        assert!(StoredHead::new(&other, None).sharing(first.common()).is_none());
        other.insert("x-0", HeaderValue::from_static("a"));
        assert!(StoredHead::new(&other, None).sharing(first.common()).is_some());
        other.insert("x-1", HeaderValue::try_from("b".repeat(1 << 16)).unwrap());
        assert!(StoredHead::new(&other, None).sharing(first.common()).is_none(), "too long");
    }
}
