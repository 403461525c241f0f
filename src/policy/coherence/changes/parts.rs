//! Two JSON values of one shape taken apart side by side, as they stand in the text; nothing is made into a tree.

use std::cmp::Ordering;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Conversations, messages of one, or keys of an object that are looked at. A list of a thousand messages already
/// takes the API longer than it has (`api.md` section 3).
const PARTS: usize = 1 << 14;

/// An element of an array, by what names it.
pub(super) struct Part<'a> {
    name: Option<&'a str>,
    pub(super) text: &'a str,
    pub(super) at: usize,
}

impl Part<'_> {
    pub(super) fn is_object(&self) -> bool {
        self.text.starts_with('{')
    }
}

/// How many of these are the first of their array.
pub(super) fn leading(parts: &[Part<'_>]) -> usize {
    let mut places: Vec<usize> = parts.iter().map(|part| part.at).collect();
    places.sort_unstable();
    places.into_iter().enumerate().take_while(|(before, at)| before == at).count()
}

/// Two arrays of things with names, compared; their order does not matter.
pub(super) struct Parts<'a> {
    /// How many there were.
    pub(super) old: usize,
    /// How many there are.
    pub(super) new: usize,
    pub(super) gone: Vec<Part<'a>>,
    pub(super) came: Vec<Part<'a>>,
    pub(super) changed: Vec<(Part<'a>, Part<'a>)>,
}

impl<'a> Parts<'a> {
    /// `None` if one of the two is no array, or a longer one than is looked at. An array that is absent is empty.
    pub(super) fn of(old: &'a str, new: &'a str, names: &[&str]) -> Option<Self> {
        let array = |text: &'a str| if text.is_empty() { Some(Vec::new()) } else { elements(text) };
        let (old, new) = (array(old)?, array(new)?);
        // Most of a list stays as it was: what is alike at both ends is not even named.
        let front = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
        let back = old[front..].iter().rev().zip(new[front..].iter().rev()).take_while(|(old, new)| old == new).count();
        let middle = |all: &[&'a str]| -> Vec<Part<'a>> {
            let middle = all.iter().enumerate().take(all.len() - back).skip(front);
            middle
                .map(|(at, &text)| Part { name: names.iter().find_map(|name| member(text, name)), text, at })
                .collect()
        };
        let by_text = |old: &Part<'_>, new: &Part<'_>| (old.name, old.text).cmp(&(new.name, new.text));
        let (_, gone, came) = pair(middle(&old), middle(&new), by_text);
        let (changed, gone, came) = pair(gone, came, |old, new| old.name.cmp(&new.name));
        Some(Self { old: old.len(), new: new.len(), gone, came, changed })
    }
}

/// The key of a member, what it was and what it is.
pub(super) type Differing<'a> = (String, Option<&'a str>, Option<&'a str>);

/// The members in which two objects differ. `None` if one of the two is no object, or has
/// more than are looked at.
pub(super) fn differing<'a>(old: &'a str, new: &'a str) -> Option<Vec<Differing<'a>>> {
    let (both, gone, came) = pair(members(old)?, members(new)?, |(old, _), (new, _)| old.cmp(new));
    let changed = both.into_iter().filter(|((_, old), (_, new))| old != new);
    let changed = changed.map(|((key, old), (_, new))| (key, Some(old), Some(new)));
    let gone = gone.into_iter().map(|(key, old)| (key, Some(old), None));
    let came = came.into_iter().map(|(key, new)| (key, None, Some(new)));
    Some(changed.chain(gone).chain(came).collect())
}

/// Sorts out what is in both, in the first alone and in the second alone.
fn pair<T>(mut old: Vec<T>, mut new: Vec<T>, order: impl Fn(&T, &T) -> Ordering) -> (Vec<(T, T)>, Vec<T>, Vec<T>) {
    old.sort_by(&order);
    new.sort_by(&order);
    let (mut both, mut gone, mut came) = (Vec::new(), Vec::new(), Vec::new());
    let (mut old, mut new) = (old.into_iter().peekable(), new.into_iter().peekable());
    while let (Some(was), Some(is)) = (old.peek(), new.peek()) {
        match order(was, is) {
            Ordering::Less => gone.extend(old.next()),
            Ordering::Greater => came.extend(new.next()),
            Ordering::Equal => both.extend(old.next().zip(new.next())),
        }
    }
    gone.extend(old);
    came.extend(new);
    (both, gone, came)
}

/// The elements of an array as they stand in the text.
pub(super) fn elements(json: &str) -> Option<Vec<&str>> {
    serde_json::Deserializer::from_str(json).deserialize_seq(Elements).ok()
}

/// The members of an object as they stand in the text; of two with one name the later one, as most readers have it.
fn members(json: &str) -> Option<Vec<(String, &str)>> {
    let mut members = serde_json::Deserializer::from_str(json).deserialize_map(Members).ok()?;
    members.reverse();
    members.sort_by(|(one, _), (other, _)| one.cmp(other));
    members.dedup_by(|(one, _), (other, _)| one == other);
    Some(members)
}

/// One member of an object.
pub(super) fn member<'a>(json: &'a str, name: &str) -> Option<&'a str> {
    serde_json::Deserializer::from_str(json).deserialize_map(Member(name)).ok().flatten()
}

struct Elements;

impl<'a> Visitor<'a> for Elements {
    type Value = Vec<&'a str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        while let Some(element) = seq.next_element::<&RawValue>()? {
            if found.len() == PARTS {
                return Err(A::Error::custom("too many"));
            }
            found.push(element.get());
        }
        Ok(found)
    }
}

struct Members;

impl<'a> Visitor<'a> for Members {
    type Value = Vec<(String, &'a str)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if found.len() == PARTS {
                return Err(A::Error::custom("too many"));
            }
            found.push((key, map.next_value::<&RawValue>()?.get()));
        }
        Ok(found)
    }
}

struct Member<'k>(&'k str);

impl<'a> Visitor<'a> for Member<'_> {
    type Value = Option<&'a str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<String>()? {
            if key == self.0 {
                found = Some(map.next_value::<&RawValue>()?.get());
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}
