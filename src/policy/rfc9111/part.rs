//! Parts of an answer (RFC 9110 section 14): which is asked for, which one came, and whether one has the other in it.

use http::header::{self, HeaderMap, HeaderValue};

/// Which part is asked for, of an answer of so many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of it: nobody asks for a part, or in a way that any server may answer with the whole.
    Whole,
    /// From this byte to this one.
    Part(u64, u64),
    /// None that there is.
    NoPart,
}

impl Wanted {
    /// What a request asks for (section 14.1.2). What cannot be read, is in another unit, or is several parts, is answered with
    /// the whole.
    pub fn of(asked: &HeaderMap, length: u64) -> Self {
        let mut lines = asked.get_all(header::RANGE).iter();
        let (Some(line), None) = (lines.next().and_then(|line| line.to_str().ok()), lines.next()) else {
            return Self::Whole;
        };
        let Some((first, last)) = spec(line).and_then(|spec| limits(spec, length)) else { return Self::Whole };
        if first >= length { Self::NoPart } else { Self::Part(first, last.min(length - 1)) }
    }
}

/// The only range of a line.
fn spec(line: &str) -> Option<&str> {
    let (unit, set) = line.split_once('=')?;
    let mut specs = set.split(',').map(str::trim).filter(|spec| !spec.is_empty());
    let only = specs.next().filter(|_| specs.next().is_none());
    only.filter(|_| unit.trim().eq_ignore_ascii_case("bytes"))
}

/// First and last byte of a range; more than there is, if it is beyond the end.
fn limits(spec: &str, length: u64) -> Option<(u64, u64)> {
    match spec.split_once('-')? {
        ("", suffix) => match number(suffix)? {
            0 => Some((u64::MAX, u64::MAX)),
            suffix => Some((length.saturating_sub(suffix), u64::MAX)),
        },
        (first, "") => Some((number(first)?, u64::MAX)),
        (first, last) => Some((number(first)?, number(last)?)).filter(|(first, last)| first <= last),
    }
}

fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

/// A part that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its first byte.
    pub first: u64,
    /// Its last byte.
    pub last: u64,
    /// Bytes of the whole.
    pub of: u64,
}

impl Extent {
    /// The part that a 206 says it is (section 14.4); none if it does not say of how much, or is several.
    pub fn of(head: &HeaderMap) -> Option<Self> {
        let mut lines = head.get_all(header::CONTENT_RANGE).iter();
        let (line, None) = (lines.next()?.to_str().ok()?, lines.next()) else { return None };
        let (unit, range) = line.trim().split_once(' ')?;
        let (range, of) = range.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let extent = Self { first: number(first.trim())?, last: number(last)?, of: number(of)? };
        let makes_sense = extent.first <= extent.last && extent.last < extent.of;
        Some(extent).filter(|_| makes_sense && unit.eq_ignore_ascii_case("bytes"))
    }

    /// Its bytes.
    pub fn length(&self) -> u64 {
        self.last - self.first + 1
    }

    /// Whether another part lies in it.
    pub fn has(&self, other: Self) -> bool {
        self.of == other.of && self.first <= other.first && other.last <= self.last
    }

    /// Both together, if nothing is missing between them (RFC 9110 section 15.3.7.3).
    pub fn with(self, other: Self) -> Option<Self> {
        let touches = self.first <= other.last + 1 && other.first <= self.last + 1;
        let both = Self { first: self.first.min(other.first), last: self.last.max(other.last), of: self.of };
        (touches && self.of == other.of).then_some(both)
    }

    /// Whether it is the whole.
    pub fn is_whole(&self) -> bool {
        self.length() == self.of
    }

    /// What is missing of the whole, as a `Range` (RFC 9110 section 14.2); none if that is nothing, or two parts.
    pub fn rest(&self) -> Option<String> {
        match (self.first, self.last) {
            (0, last) if last + 1 < self.of => Some(format!("bytes={}-", last + 1)),
            (first, last) if first > 0 && last + 1 == self.of => Some(format!("bytes=0-{}", first - 1)),
            _ => None,
        }
    }

    /// Whether a request asks for a part that is in it.
    pub fn has_what_is_asked(&self, asked: &HeaderMap) -> bool {
        matches!(Wanted::of(asked, self.of), Wanted::Part(first, last) if self.first <= first && last <= self.last)
    }
}

/// Asks for what is missing of a stored part, if it is still of the same bytes, and else for the whole (RFC 9110 section
/// 13.1.5).
pub fn ask_for_rest(stored: &HeaderMap, part: Extent, request: &mut HeaderMap) {
    let rest = part.rest().and_then(|rest| HeaderValue::try_from(rest).ok());
    if let (Some(rest), Some(tag)) = (rest, strong_tag(stored)) {
        request.insert(header::RANGE, rest);
        request.insert(header::IF_RANGE, tag.clone());
    }
}

/// Whether two heads are of parts of the same bytes: they share a strong validator (RFC 9110 section 15.3.7.3).
pub fn is_same(one: &HeaderMap, other: &HeaderMap) -> bool {
    strong_tag(one).is_some_and(|tag| strong_tag(other) == Some(tag))
}

/// The entity tag, if it means the same bytes (RFC 9110 section 8.8.1).
pub fn strong_tag(fields: &HeaderMap) -> Option<&HeaderValue> {
    fields.get(header::ETAG).filter(|tag| tag.as_bytes().starts_with(b"\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::http::fields::map;

    /// RFC 9110 sections 14.1.2, 14.2 and 15.5.17.
    #[test]
    fn a_part_is_what_was_asked_for() {
        for (range, expected) in [
            ("bytes=0-4", Wanted::Part(0, 4)),
            ("Bytes=0-4", Wanted::Part(0, 4)),
            ("bytes= 0-4 ,", Wanted::Part(0, 4)),
            ("bytes=5-", Wanted::Part(5, 9)),
            ("bytes=5-100", Wanted::Part(5, 9)),
            ("bytes=9-9", Wanted::Part(9, 9)),
            ("bytes=-3", Wanted::Part(7, 9)),
            ("bytes=-100", Wanted::Part(0, 9)),
            ("bytes=0-99999999999999999999999", Wanted::Part(0, 9)),
            ("bytes=10-", Wanted::NoPart),
            ("bytes=10-20", Wanted::NoPart),
            ("bytes=99999999999999999999999-", Wanted::NoPart),
            ("bytes=-0", Wanted::NoPart),
            ("bytes=4-0", Wanted::Whole),
            ("bytes=0-1,4-5", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=", Wanted::Whole),
            ("bytes=5", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("bytes 0-4", Wanted::Whole),
            ("lines=0-4", Wanted::Whole),
        ] {
            assert_eq!(Wanted::of(&map(&[("range", range)]), 10), expected, "{range}");
        }
        assert_eq!(Wanted::of(&map(&[("range", "bytes=0-1"), ("range", "bytes=0-1")]), 10), Wanted::Whole);
        assert_eq!(Wanted::of(&map(&[]), 10), Wanted::Whole);
    }

    /// RFC 9110 section 15.3.7.3.
    #[test]
    fn parts_without_a_gap_make_one() {
        let extent = |(first, last)| Extent { first, last, of: 10 };
        for (one, other, both, rest) in [
            ((0, 3), (4, 9), Some((0, 9)), [Some("bytes=4-"), Some("bytes=0-3")]),
            ((2, 5), (4, 7), Some((2, 7)), [None, None]),
            ((0, 9), (4, 4), Some((0, 9)), [None, None]),
            ((0, 3), (5, 9), None, [Some("bytes=4-"), Some("bytes=0-4")]),
        ] {
            let (one, other) = (extent(one), extent(other));
            assert_eq!([one.with(other), other.with(one)], [both.map(extent); 2], "{one:?} {other:?}");
            assert_eq!(
                [one, other].map(|part| part.rest()).each_ref().map(Option::as_deref),
                rest,
                "{one:?} {other:?}"
            );
            assert_eq!(one.with(other).is_some_and(|both| both.is_whole()), both == Some((0, 9)));
            assert_eq!(one.has(other), both == Some((one.first, one.last)));
        }
        assert_eq!(extent((0, 3)).with(Extent { first: 4, last: 9, of: 11 }), None, "of another whole");
        for (one, other, expected) in
            [("\"a\"", "\"a\"", true), ("\"a\"", "\"b\"", false), ("W/\"a\"", "W/\"a\"", false), ("a", "a", false)]
        {
            assert_eq!(is_same(&map(&[("etag", one)]), &map(&[("etag", other)])), expected, "{one} {other}");
        }
        assert!(!is_same(&map(&[]), &map(&[])));
    }

    /// RFC 9110 section 14.4.
    #[test]
    fn a_part_that_came_says_which_it_is() {
        for (said, expected) in [
            ("bytes 0-4/10", Some(Extent { first: 0, last: 4, of: 10 })),
            ("Bytes 5-9/10", Some(Extent { first: 5, last: 9, of: 10 })),
            ("bytes 0-4/*", None),
            ("bytes */10", None),
            ("bytes 5-4/10", None),
            ("bytes 5-10/10", None),
            ("bytes=0-4/10", None),
            ("lines 0-4/10", None),
            ("", None),
        ] {
            assert_eq!(Extent::of(&map(&[("content-range", said)])), expected, "{said}");
        }
        assert_eq!(Extent::of(&map(&[])), None);
        let extent = Extent { first: 2, last: 5, of: 10 };
        assert_eq!(extent.length(), 4);
        for (range, has) in [
            ("bytes=2-5", true),
            ("bytes=3-4", true),
            ("bytes=1-5", false),
            ("bytes=2-6", false),
            ("bytes=2-", false),
            ("bytes=-5", false),
        ] {
            assert_eq!(extent.has_what_is_asked(&map(&[("range", range)])), has, "{range}");
        }
        assert!(!extent.has_what_is_asked(&map(&[])));
        let end = Extent { first: 5, last: 9, of: 10 };
        assert!(
            end.has_what_is_asked(&map(&[("range", "bytes=-5")]))
                && end.has_what_is_asked(&map(&[("range", "bytes=7-")]))
        );
    }
}
