//! Parts of an answer (RFC 9110 section 14): which is asked for, which one came, and whether one has the other in it.

use http::header::{self, HeaderMap};

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
        let (Some(line), None) = (lines.next().and_then(|line| line.to_str().ok()), lines.next()) else { return Self::Whole };
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

    /// Whether a request asks for a part that is in it.
    pub fn has_what_is_asked(&self, asked: &HeaderMap) -> bool {
        matches!(Wanted::of(asked, self.of), Wanted::Part(first, last) if self.first <= first && last <= self.last)
    }
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
        for (range, has) in [("bytes=2-5", true), ("bytes=3-4", true), ("bytes=1-5", false), ("bytes=2-6", false), ("bytes=2-", false), ("bytes=-5", false)] {
            assert_eq!(extent.has_what_is_asked(&map(&[("range", range)])), has, "{range}");
        }
        assert!(!extent.has_what_is_asked(&map(&[])));
        let end = Extent { first: 5, last: 9, of: 10 };
        assert!(end.has_what_is_asked(&map(&[("range", "bytes=-5")])) && end.has_what_is_asked(&map(&[("range", "bytes=7-")])));
    }
}
