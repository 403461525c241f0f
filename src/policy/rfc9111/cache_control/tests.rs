use super::*;
use crate::policy::http::fields::map;

fn answer(lines: &[&'static str]) -> ResponseDirectives {
    ResponseDirectives::of(&lines.iter().map(|line| (header::CACHE_CONTROL, HeaderValue::from_static(line))).collect())
}

fn request(line: &'static str) -> RequestDirectives {
    RequestDirectives::of(&map(&[("cache-control", line)]))
}

#[expect(clippy::unnecessary_wraps, reason = "as it is read")]
const fn of(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

/// Sections 1.2.2, 4.2.1 and 5.2.
#[test]
fn a_number_is_read_or_is_zero() {
    for (line, max_age) in [
        ("max-age=10", of(10)),
        ("MAX-AGE=10", of(10)),
        (" max-age=10 ", of(10)),
        (",,max-age=10,", of(10)),
        ("max-age=\"10\"", of(10)),
        ("max-age=0010", of(10)),
        ("max-age=2147483648", Some(LONGEST)),
        ("max-age=99999999999999999999999999", Some(LONGEST)),
        ("max-age=-1", of(0)),
        ("max-age=+1", of(0)),
        ("max-age=1.5", of(0)),
        ("max-age='10'", of(0)),
        ("max-age=1a", of(0)),
        ("max-age=", of(0)),
        ("max-age", of(0)),
        ("max-age=\"\"", of(0)),
        ("max-age=\"10", of(0)),
        ("max-age = 10", of(0)),
        ("max-age= 10", of(0)),
        ("max-age =10", of(0)),
        ("max-age=10;", of(0)),
        ("max-age=10 20", of(0)),
        ("max-age=10, max-age=20", of(10)),
        ("max-age=20, max-age=10", of(10)),
        ("max-age=20, max-age=x", of(0)),
        ("x-max-age=10", None),
        ("max-age-x=10", None),
        ("x=\"max-age=10\"", None),
        ("x=\"a\\\", max-age=10\"", None),
        ("x=\"a\", max-age=10", of(10)),
        ("x=\"a, max-age=10", of(10)),
        ("x max-age=10", None),
        ("", None),
    ] {
        assert_eq!(answer(&[line]).max_age, max_age, "{line}");
    }
    assert_eq!(answer(&["max-age=20", "public", "max-age=10"]).max_age, of(10), "several lines are one list");
    let strange =
        HeaderMap::from_iter([(header::CACHE_CONTROL, HeaderValue::from_bytes(b"x=\xff, max-age=10").unwrap())]);
    assert_eq!(ResponseDirectives::of(&strange).max_age, of(10));
}

/// Section 5.2.2.
#[test]
fn what_forbids_counts_however_it_is_written() {
    assert_eq!(answer(&["foo, bar=1"]), ResponseDirectives::default(), "5.2.3: unknown ones are ignored");
    for line in ["no-store", "No-Store", "no-store=1", "no-store =x", "a=\"b, no-store", "max-age=10;, no-store"] {
        assert!(answer(&[line]).no_store, "{line}");
    }
    for line in ["a=\"no-store\"", "no-store-x", "x-no-store"] {
        assert!(!answer(&[line]).no_store, "{line}");
    }
    let all = answer(&["public, must-revalidate, proxy-revalidate, must-understand, s-maxage=1"]);
    assert!(all.public && all.must_revalidate && all.proxy_revalidate && all.must_understand);
    let stale = answer(&["stale-while-revalidate=5, stale-if-error=7, stale-if-error=6"]);
    assert_eq!((stale.stale_while_revalidate, stale.stale_if_error), (of(5), of(6)));
    for line in ["must-revalidate", "proxy-revalidate", "s-maxage=10", "s-maxage=x"] {
        assert!(answer(&[line]).forbids_stale(), "{line}");
    }
    assert!(!answer(&["max-age=10, public"]).forbids_stale());
}

/// Sections 5.2.2.4 and 5.2.2.7: with names it is about these fields, in both forms of an argument.
#[test]
fn a_directive_with_names_is_about_these_fields() {
    let fields =
        |names: &[&'static str]| Restriction::Fields(names.iter().map(|name| HeaderName::from_static(name)).collect());
    for (line, expected) in [
        ("no-cache", Restriction::Whole),
        ("no-cache=\"Set-Cookie\"", fields(&["set-cookie"])),
        ("no-cache=set-cookie", fields(&["set-cookie"])),
        ("no-cache=\"a, B ,\"", fields(&["a", "b"])),
        ("no-cache=a, no-cache=b", fields(&["a", "b"])),
        ("no-cache=a, no-cache", Restriction::Whole),
        ("no-cache, no-cache=a", Restriction::Whole),
        ("no-cache=", Restriction::Whole),
        ("no-cache=\"\"", Restriction::Whole),
        ("no-cache=\"a b\"", Restriction::Whole),
        ("no-cache=\"a", Restriction::Whole),
        ("max-age=1", Restriction::Nothing),
    ] {
        let found = answer(&[line]);
        assert_eq!((found.no_cache, found.private), (expected.clone(), Restriction::Nothing), "{line}");
        let private = answer(&[line.replace("no-cache", "private").leak()]);
        assert_eq!((private.private, private.no_cache), (expected, Restriction::Nothing), "{line}");
    }
}

/// Section 5.2.1.
#[test]
fn a_request_says_what_it_would_have() {
    assert_eq!(request("nothing-to-see-here"), RequestDirectives::default());
    assert!(request("No-Cache").no_cache && request("no-store").no_store && request("only-if-cached").only_if_cached);
    for (line, max_age, max_stale, min_fresh) in [
        ("max-age=0", of(0), None, None),
        ("max-age=x", of(0), None, None),
        ("max-stale", None, Some(LONGEST), None),
        ("max-stale=5", None, of(5), None),
        ("max-stale=5, max-stale", None, of(5), None),
        ("max-stale=x", None, of(0), None),
        ("min-fresh=5", None, None, of(5)),
        ("min-fresh=5, min-fresh=6", None, None, of(6)),
        ("min-fresh=x", None, None, Some(LONGEST)),
    ] {
        let expected = RequestDirectives { max_age, max_stale, min_fresh, ..RequestDirectives::default() };
        assert_eq!(request(line), expected, "{line}");
    }
}

/// Section 5.4.
#[test]
fn pragma_counts_only_where_there_is_no_cache_control() {
    for (fields, no_cache) in [
        (&[("pragma", "no-cache")][..], true),
        (&[("pragma", "foo, No-Cache")], true),
        (&[("pragma", "foo")], false),
        (&[("pragma", "no-cache"), ("cache-control", "max-stale")], false),
        (&[("pragma", "no-cache"), ("cache-control", "")], false),
        (&[], false),
    ] {
        assert_eq!(RequestDirectives::of(&map(fields)).no_cache, no_cache, "{fields:?}");
    }
}
