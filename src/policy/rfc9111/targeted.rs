//! Directives for this kind of cache alone (RFC 9213): `CDN-Cache-Control`, a dictionary of structured fields (RFC 9651).
//!
//! Where there is one that can be read, `Cache-Control` and `Expires` say nothing (section 2.1). One that is empty or cannot be
//! read is not there.

use http::{HeaderMap, HeaderName};
use sfv::{BareItem, Dictionary, ListEntry, Parser};
use std::time::Duration;

use super::cache_control::{LONGEST, ResponseDirectives, Restriction, field_names};

/// The field for caches that a server has put before itself.
const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

/// The directives for this cache, if there are some.
pub fn directives(headers: &HeaderMap) -> Option<ResponseDirectives> {
    let lines: Vec<&[u8]> = headers.get_all(CDN_CACHE_CONTROL).iter().map(http::HeaderValue::as_bytes).collect();
    if lines.is_empty() {
        return None;
    }
    let members: Dictionary = Parser::new(&lines.join(&b", "[..])).parse().ok()?;
    if members.is_empty() {
        return None;
    }
    let mut found = ResponseDirectives::default();
    for (name, entry) in &members {
        // Parameters are ignored (section 2.1), and so is what no directive is made of.
        if let ListEntry::Item(item) = entry {
            add(&mut found, name.as_str(), &item.bare_item);
        }
    }
    Some(found)
}

/// One directive. One whose value is of another kind is not that directive: nobody may make a number of what is none.
fn add(found: &mut ResponseDirectives, name: &str, value: &BareItem) {
    let is_on = matches!(value, BareItem::Boolean(true));
    let restriction = || match value {
        BareItem::Boolean(false) => Restriction::Nothing,
        BareItem::String(names) => {
            field_names(names.as_str().as_bytes()).map_or(Restriction::Whole, Restriction::Fields)
        }
        _ => Restriction::Whole,
    };
    match name {
        "no-store" => found.no_store = !matches!(value, BareItem::Boolean(false)),
        "no-cache" => found.no_cache = restriction(),
        "private" => found.private = restriction(),
        "public" => found.public = is_on,
        "must-revalidate" => found.must_revalidate = is_on,
        "proxy-revalidate" => found.proxy_revalidate = is_on,
        "must-understand" => found.must_understand = is_on,
        "max-age" => found.max_age = seconds(value),
        "s-maxage" => found.s_maxage = seconds(value),
        "stale-while-revalidate" => found.stale_while_revalidate = seconds(value),
        "stale-if-error" => found.stale_if_error = seconds(value),
        _ => {}
    }
}

/// A number of seconds; a negative one is none at all.
fn seconds(value: &BareItem) -> Option<Duration> {
    let BareItem::Integer(number) = value else { return None };
    let number = u64::try_from(i64::from(*number)).unwrap_or(0);
    Some(Duration::from_secs(number).min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::http::fields::map;

    fn read(lines: &[&'static str]) -> Option<ResponseDirectives> {
        directives(&lines.iter().map(|line| (CDN_CACHE_CONTROL, http::HeaderValue::from_static(line))).collect())
    }

    /// RFC 9213 section 2.1.
    #[test]
    fn a_field_that_is_empty_or_cannot_be_read_is_not_there() {
        for line in [
            "",
            " ",
            "max-age=3600,",
            "Max-Age=3600",
            "max-age =3600",
            "max-age= 3600",
            "max-age=\"x",
            "max-age=-",
            "&",
        ] {
            assert_eq!(read(&[line]), None, "{line}");
        }
        assert_eq!(directives(&map(&[("cache-control", "max-age=1")])), None);
        assert_eq!(read(&["foo"]), Some(ResponseDirectives::default()), "it is there, though it says nothing");
    }

    /// RFC 9213 section 2.2: what is of another kind is not consumed.
    #[test]
    fn directives_are_of_their_kinds() {
        for (line, max_age) in [
            ("max-age=10", Some(10)),
            ("max-age=10;x=y", Some(10)),
            ("max-age=0010", Some(10)),
            ("max-age=-10", Some(0)),
            ("max-age=999999999999999", Some(1 << 31)),
            ("max-age=10.5", None),
            ("max-age=\"10\"", None),
            ("max-age=ten", None),
            ("max-age=(10)", None),
            ("max-age", None),
            ("max-age=10, max-age=20", Some(20)),
            ("foo=\"max-age=10\"", None),
        ] {
            assert_eq!(read(&[line]).unwrap().max_age, max_age.map(Duration::from_secs), "{line}");
        }
        assert!(read(&["max-age=10", "no-store"]).unwrap().no_store);
        assert!(!read(&["no-store=?0"]).unwrap().no_store);
        assert_eq!(read(&["no-cache"]).unwrap().no_cache, Restriction::Whole);
        let named = Restriction::Fields(vec![http::header::SET_COOKIE]);
        assert_eq!(read(&["no-cache=\"set-cookie\""]).unwrap().no_cache, named);
        assert_eq!(read(&["private=?1"]).unwrap().private, Restriction::Whole);
        let all = read(&["public, must-revalidate, proxy-revalidate, must-understand, s-maxage=1"]).unwrap();
        assert!(all.public && all.must_revalidate && all.proxy_revalidate && all.must_understand);
        let stale = read(&["stale-while-revalidate=1, stale-if-error=2"]).unwrap();
        let seconds = |number| Some(Duration::from_secs(number));
        assert_eq!((stale.stale_while_revalidate, stale.stale_if_error), (seconds(1), seconds(2)));
    }
}
