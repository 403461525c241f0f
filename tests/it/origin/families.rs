//! The families of cases that caches are compared by, each a table: times and ages however they are written, every status,
//! which fields a 304 changes, writes, choices, parts.

use std::time::Duration;

use super::Fields;
use super::steps::{
    Asked, AskedWith, Body, Case, Expect, HOUR, Hit, HitWith, NOTHING, Stage, StandsIn, Status, Step, Told, With,
    answered, by, first, of_status, then, with,
};

/// A table's rows are made when it is played, and stay.
fn kept<T>(values: Vec<T>) -> &'static [T] {
    values.leak()
}

fn fields(of: &[(&'static str, &'static str)]) -> Fields {
    kept(of.to_vec())
}

/// A time, so many seconds from now.
fn at(seconds: i64) -> &'static str {
    let now = anteroom::engine::clock::wall();
    let span = Duration::from_secs(seconds.unsigned_abs());
    httpdate::fmt_http_date(if seconds < 0 { now - span } else { now + span }).leak()
}

/// The same, written otherwise.
fn rewritten(seconds: i64, how: impl Fn(&str) -> String) -> &'static str {
    how(at(seconds)).leak()
}

/// The same as RFC 850 has it.
fn rfc850(seconds: i64) -> &'static str {
    let long = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
    rewritten(seconds, |time| {
        let [day, date, month, year, clock, _] = time.split(' ').collect::<Vec<_>>()[..] else { unreachable!() };
        let day = long.iter().find(|long| long.starts_with(&day[..3])).unwrap();
        format!("{day}, {date}-{month}-{} {clock} GMT", &year[2..])
    })
}

/// Each answer, and whether it is used again.
async fn play_lifetimes(rows: &[(&[(&'static str, &'static str)], bool)]) {
    let stage = Stage::with("").await;
    for (number, (says, is_fresh)) in rows.iter().enumerate() {
        let expects: &[Expect] = if *is_fresh { &[Hit] } else { &[Asked] };
        let steps = [first(fields(says)), then(0, NOTHING, expects)];
        stage.play_one(&format!("{says:?}"), &format!("lifetime-{number}"), &steps).await;
    }
}

/// RFC 9111 sections 1.2.2, 4.2.1, 5.2 and 5.2.3.
#[tokio::test]
async fn directives_are_read_however_they_are_written() {
    let mut rows: Vec<(Vec<(&str, &str)>, bool)> = Vec::new();
    for (value, is_fresh) in [
        ("max-age=2147483647", true),
        ("max-age=2147483648", true),
        ("max-age=2147483649", true),
        ("max-age=99999999999999999999999", true),
        ("max-age=0003600", true),
        ("max-age=\"3600\"", true),
        ("MAX-AGE=3600", true),
        ("mAx-AgE=3600, x", true),
        (" , ,max-age=3600 , ,", true),
        ("foo=bar, max-age=3600", true),
        ("foo=\"bar, baz\",max-age=3600", true),
        ("foo=\"max-age=0\", max-age=3600", true),
        ("foo=\"max-age=3600\", max-age=0", false),
        ("foo=\"a, max-age=3600\"", false),
        ("foo=\"a\\\", max-age=3600\"", false),
        ("max-age=3600, no-storing, private-ish", true),
        ("max-age=-1", false),
        ("max-age=-3600", false),
        ("max-age=3600.0", false),
        ("max-age=3600s", false),
        ("max-age=a3600", false),
        ("max-age=0x3600", false),
        ("max-age='3600'", false),
        ("max-age= 3600", false),
        ("max-age =3600", false),
        ("max-age", false),
        ("max-age=", false),
        ("max-age=0, max-age=3600", false),
        ("max-age=3600, s-maxage=0", false),
        ("max-age=0, s-maxage=3600", true),
        ("private=\"x-a\", max-age=3600", true),
        ("PRIVATE, max-age=3600", false),
        ("No-Store, max-age=3600", false),
        ("NO-CACHE, max-age=3600", false),
        ("no-store=\"x\", max-age=3600", false),
    ] {
        rows.push((vec![("cache-control", value)], is_fresh));
    }
    rows.push((vec![("cache-control", "foo"), ("cache-control", "max-age=3600")], true));
    rows.push((vec![("cache-control", "max-age=3600"), ("cache-control", "no-store")], false));
    rows.push((vec![("cache-control", "max-age=3600"), ("pragma", "no-cache")], true));
    rows.push((vec![("cache-control", "max-age=3600"), ("warning", "110 - \"Response is Stale\"")], true));
    // RFC 9213 section 2.
    for (value, is_fresh) in [
        ("max-age=3600", true),
        ("max-age=3600;foo=bar, baz", true),
        ("max-age=0", false),
        ("no-store", false),
        ("private, max-age=3600", false),
        ("s-maxage=3600, max-age=0", true),
        ("MaX-aGe=3600", false),
        ("max-age=\"3600\"", false),
        ("max-age=3600.5", false),
        ("max-age = 3600", false),
        ("max-age=3600, foo=&", false),
    ] {
        rows.push((vec![("cdn-cache-control", value), ("cache-control", "max-age=0")], is_fresh));
    }
    rows.push((
        vec![("cdn-cache-control", "max-age=0"), ("cache-control", "max-age=3600"), ("expires", at(3600))],
        false,
    ));
    rows.push((vec![("cdn-cache-control", "max-age=3600"), ("cache-control", "no-store"), ("expires", "0")], true));
    let rows: Vec<_> = rows.iter().map(|(fields, is_fresh)| (&fields[..], *is_fresh)).collect();
    play_lifetimes(&rows).await;
}

/// RFC 9111 sections 4.2, 4.2.3, 5.1 and 5.3; RFC 9110 section 5.6.7.
#[tokio::test]
async fn times_and_ages_are_read_however_they_are_written() {
    let asctime = |time: &str| {
        let [day, date, month, year, clock, _] = time.split(' ').collect::<Vec<_>>()[..] else { unreachable!() };
        format!("{} {month} {:>2} {clock} {year}", &day[..3], date.trim_start_matches('0'))
    };
    let mut rows: Vec<(Vec<(&str, &str)>, bool)> = Vec::new();
    for (expires, is_fresh) in [
        (at(3600), true),
        (rfc850(3600), true),
        (rewritten(3600, asctime), true),
        (rewritten(3600, str::to_uppercase), true),
        (rewritten(3600, str::to_lowercase), true),
        ("Thu, 06 Nov 2994 08:49:37 GMT", true),
        (at(0), false),
        (at(-3600), false),
        (rewritten(3600, |time| time.replace("GMT", "UTC")), false),
        (rewritten(3600, |time| time.replace("GMT", "AEST")), false),
        (rewritten(3600, |time| time.replace(" GMT", "")), false),
        (rewritten(3600, |time| time.replace(',', "")), false),
        (rewritten(3600, |time| time.replace(' ', "  ")), false),
        (rewritten(3600, |time| time.replace(':', ".")), false),
        (rewritten(3600, |time| time.replace(", ", "-")), false),
        ("Thu, 6 Nov 2994 08:49:37 GMT", false),
        ("Thu, 06 Nov 94 08:49:37 GMT", false),
        ("Thu, 06 Nov 2994 8:49:37 GMT", false),
        ("0", false),
        ("-1", false),
        ("3600", false),
        ("", false),
    ] {
        rows.push((vec![("expires", expires)], is_fresh));
    }
    rows.push((vec![("expires", at(3600)), ("expires", at(7200))], false));
    rows.push((vec![("expires", at(-60)), ("date", at(-3600))], true));
    rows.push((vec![("expires", at(3600)), ("date", at(3700))], false));
    rows.push((vec![("expires", at(3600)), ("date", at(0)), ("age", "3601")], false));
    for (age, is_fresh) in [
        ("0", true),
        ("3599", true),
        ("3600", false),
        ("2147483647", false),
        ("2147483648", false),
        ("99999999999999999999999", false),
        ("7200, 0", false),
        ("0, 7200", true),
        ("x, 7200", true),
        ("7200, x", false),
        ("-7200", true),
        ("7200.5", true),
        ("7200;x=y", true),
        ("7200s", true),
        ("x", true),
        ("", true),
    ] {
        rows.push((vec![("cache-control", "max-age=3600"), ("age", age)], is_fresh));
    }
    rows.push((vec![("cache-control", "max-age=3600"), ("age", "0"), ("age", "7200")], true));
    rows.push((vec![("cache-control", "max-age=3600"), ("age", "7200"), ("age", "0")], false));
    rows.push((vec![("last-modified", at(-36_000))], true));
    rows.push((vec![("last-modified", rewritten(-36_000, str::to_lowercase))], true));
    rows.push((vec![("last-modified", at(60))], false));
    rows.push((vec![("last-modified", at(-36_000)), ("expires", "0")], false));
    let rows: Vec<_> = rows.iter().map(|(fields, is_fresh)| (&fields[..], *is_fresh)).collect();
    play_lifetimes(&rows).await;
}

/// RFC 9111 sections 3 and 4.2.2; RFC 9110 section 15.1.
#[tokio::test]
async fn every_status_is_used_again_as_long_as_it_is_fresh() {
    const UNCHANGED: Fields = &[("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")];
    let stage = Stage::with("").await;
    let about_a_request = [206, 304, 412, 416, 428, 429, 431, 511];
    // All that RFC 9110 knows, and some that nobody does.
    let is_tried =
        |status: &u16| (*status < 600 && (status % 100 < 20 || status % 50 == 49)) || status.is_multiple_of(111);
    for status in (200..1000).filter(is_tried).filter(|status| !about_a_request.contains(status)) {
        let heuristic: &[Expect] = match status {
            200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501 => &[Hit],
            _ => &[Asked],
        };
        let status_of = |says| of_status(status, says);
        for (kind, says, expects) in [
            ("fresh", HOUR, &[Hit][..]),
            ("stale", &[("cache-control", "max-age=0")], &[Asked]),
            ("unchanged", UNCHANGED, heuristic),
        ] {
            let steps = [status_of(says), Step { status, says, ..then(0, NOTHING, expects) }];
            stage.play_one(&format!("{status} {kind}"), &format!("{kind}-{status}"), &steps).await;
        }
    }
    for status in about_a_request {
        let steps = [of_status(if status == 304 { 200 } else { status }, &[]), then(0, NOTHING, &[Asked])];
        stage.play_one(&status.to_string(), &format!("never-{status}"), &steps).await;
    }
}

const UPDATES: &[Case] = &[
    (
        "what a 304 does not have stays",
        &[
            first(&[("cache-control", "max-age=10"), ("etag", "\"a\""), ("x-test", "1")]),
            answered(304, &[("etag", "\"a\"")], then(20, NOTHING, &[Asked, With("x-test", Some("1"))])),
            then(5, NOTHING, &[HitWith("x-test", Some("1"))]),
        ],
    ),
    (
        "no field of one hop comes by it",
        &[
            first(&[("cache-control", "max-age=10"), ("etag", "\"a\"")]),
            answered(
                304,
                &[("etag", "\"a\""), ("connection", "x-hop"), ("x-hop", "1"), ("keep-alive", "timeout=5")],
                then(20, NOTHING, &[Asked]),
            ),
            then(0, NOTHING, &[HitWith("x-hop", None), HitWith("keep-alive", None)]),
        ],
    ),
];

/// RFC 9111 sections 3.2 and 4.3.4.
#[tokio::test]
async fn a_304_changes_every_field_but_those_of_the_bytes() {
    let stage = Stage::with("").await;
    for validator in [("etag", "\"a\""), ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")] {
        for (name, before, after, is_changed) in [
            ("x-test", "1", "2", true),
            ("content-foo", "1", "2", true),
            ("content-type", "text/plain", "text/plain;charset=utf-8", true),
            ("content-location", "/a", "/b", true),
            ("content-language", "de", "en", true),
            ("content-security-policy", "default-src 'self'", "default-src 'none'", true),
            ("content-disposition", "inline", "attachment", true),
            ("set-cookie", "a=b", "a=c", true),
            ("server", "a", "b", true),
            ("date", "Sun, 06 Nov 1994 09:49:37 GMT", "Sun, 06 Nov 1994 10:49:37 GMT", true),
            ("x-frame-options", "deny", "sameorigin", true),
            ("content-encoding", "x-a", "x-b", false),
            ("content-range", "bytes 0-3/8", "bytes 0-4/9", false),
        ] {
            let of = |value| fields(&[("cache-control", "max-age=10"), validator, (name, value)]);
            let sees = if is_changed { after } else { before };
            let expects = kept(vec![Asked, Status(200), With(name, Some(sees)), Body("text")]);
            let again = kept(vec![HitWith(name, Some(sees)), With("content-length", Some("4"))]);
            let asked: [Step; 3] =
                [first(of(before)), answered(304, of(after), then(20, NOTHING, expects)), then(0, NOTHING, again)];
            // What says for how long it is fresh is among what changes.
            stage.play_one(&format!("{name} by {}", validator.0), &format!("{}-{name}", validator.0), &asked).await;
        }
    }
    stage.play(UPDATES).await;
}

/// RFC 9111 section 4.4.
#[tokio::test]
async fn a_write_puts_its_target_out_of_date_if_it_succeeds() {
    let stage = Stage::with("").await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "FOO"] {
        for (status, expects) in [
            (200, &[Asked][..]),
            (201, &[Asked]),
            (204, &[Asked]),
            (302, &[Asked]),
            (502, &[Asked]),
            (504, &[Asked]),
            (0, &[Asked]),
            (400, &[Hit]),
            (404, &[Hit]),
            (409, &[Hit]),
            (500, &[Hit]),
            (503, &[Hit]),
        ] {
            let write = by(method, answered(status, NOTHING, then(0, NOTHING, &[])));
            let steps = [first(HOUR), write, then(0, NOTHING, expects)];
            stage.play_one(&format!("{method} {status}"), &format!("{method}-{status}"), &steps).await;
        }
    }
}

const FOO: Fields = &[("cache-control", "max-age=3600"), ("vary", "foo"), ("etag", "\"f\"")];
const BAR: Fields = &[("cache-control", "max-age=3600"), ("vary", "bar"), ("etag", "\"b\"")];
const FOO_1: Fields = &[("foo", "1")];
const FOO_2: Fields = &[("foo", "2")];
const BAR_1: Fields = &[("foo", "9"), ("bar", "1")];

/// RFC 9111 section 4.1.
const CHOICES: &[Case] = &[
    (
        "variants are kept beside each other",
        &[
            answered(200, FOO, with("one", then(0, FOO_1, &[Asked]))),
            answered(200, FOO, with("two", then(0, FOO_2, &[Asked, Told("fwd=vary-miss")]))),
            then(0, FOO_1, &[Hit, Body("one")]),
            then(0, FOO_2, &[Hit, Body("two")]),
            then(0, NOTHING, &[Asked]),
        ],
    ),
    (
        "answers that are chosen by different fields are kept beside each other",
        &[
            answered(200, FOO, with("foo", then(0, FOO_1, &[Asked]))),
            answered(200, BAR, with("bar", then(0, BAR_1, &[Asked]))),
            then(0, FOO_1, &[Hit, Body("foo")]),
            then(0, BAR_1, &[Hit, Body("bar")]),
        ],
    ),
    (
        "SHOULD choose the one with a valid Vary",
        &[
            with("usual", first(HOUR)),
            answered(200, FOO, with("one", then(4000, FOO_1, &[Asked]))),
            answered(200, HOUR, with("usual", then(0, NOTHING, &[Asked]))),
            then(0, FOO_1, &[Hit, Body("one")]),
            then(0, FOO_2, &[Hit, Body("usual")]),
        ],
    ),
    (
        "an answer takes the place of what such a request was given before, whatever chooses it",
        &[
            answered(200, &[("cache-control", "max-age=10"), ("vary", "foo")], with("old", then(0, FOO_1, &[Asked]))),
            answered(200, HOUR, with("new", then(20, FOO_1, &[Asked]))),
            then(0, FOO_1, &[Hit, Body("new")]),
            then(0, FOO_2, &[Hit, Body("new")]),
        ],
    ),
    (
        "a question about a variant has its tag and the fields that chose it",
        &[
            answered(
                200,
                &[("cache-control", "max-age=10"), ("vary", "foo"), ("etag", "\"1\"")],
                with("one", then(0, FOO_1, &[Asked])),
            ),
            answered(
                200,
                &[("cache-control", "max-age=10"), ("vary", "foo"), ("etag", "\"2\"")],
                with("two", then(0, FOO_2, &[AskedWith("if-none-match", None)])),
            ),
            answered(
                304,
                FOO_304,
                then(20, FOO_1, &[AskedWith("if-none-match", Some("\"1\"")), AskedWith("foo", Some("1")), Body("one")]),
            ),
            then(0, FOO_1, &[Hit, Body("one")]),
            then(0, FOO_2, &[AskedWith("if-none-match", Some("\"2\""))]),
        ],
    ),
    (
        "members are the same in any order where the order means nothing",
        &[
            answered(
                200,
                &[("cache-control", "max-age=9"), ("vary", "Accept-Language")],
                then(0, &[("accept-language", "en, de;q=0.5")], &[Asked]),
            ),
            then(0, &[("accept-language", "DE; q=0.5,en")], &[Hit]),
            then(0, &[("accept-language", "de")], &[Asked]),
        ],
    ),
];
const FOO_304: Fields = &[("cache-control", "max-age=3600"), ("vary", "foo"), ("etag", "\"1\"")];

#[tokio::test]
async fn each_request_gets_what_is_chosen_for_it() {
    Stage::with("").await.play(CHOICES).await;
}

const BEGIN: Fields = &[
    ("cache-control", "max-age=3600"),
    ("etag", "\"a\""),
    ("content-range", "bytes 0-4/10"),
    ("content-digest", "x"),
    ("x-a", "1"),
];
const END: Fields =
    &[("cache-control", "max-age=3600"), ("etag", "\"a\""), ("content-range", "bytes 5-9/10"), ("x-a", "2")];
const MIDDLE: Fields =
    &[("cache-control", "max-age=3600"), ("etag", "\"a\""), ("content-range", "bytes 3-6/10"), ("x-a", "3")];
const OTHER: Fields = &[("cache-control", "max-age=3600"), ("etag", "\"b\"")];
const OTHER_END: Fields = &[("cache-control", "max-age=3600"), ("etag", "\"b\""), ("content-range", "bytes 5-9/10")];
const WEAK_BEGIN: Fields = &[("cache-control", "max-age=3600"), ("etag", "W/\"a\""), ("content-range", "bytes 0-4/10")];

/// What is asked for first in the cases of parts.
const fn part(range: Fields, says: Fields, body: &'static str) -> Step {
    answered(206, says, with(body, then(0, range, &[Asked, Status(206)])))
}
const FROM_0: Fields = &[("range", "bytes=0-4")];
const FROM_5: Fields = &[("range", "bytes=5-9")];
const FROM_3: Fields = &[("range", "bytes=3-6")];
const WHOLE_HIT: &[Expect] =
    &[Hit, Status(200), Body("0123456789"), With("content-range", None), With("content-length", Some("10"))];

/// RFC 9111 sections 3.3 and 3.4; RFC 9110 sections 14 and 15.3.7.
const PARTS: &[Case] = &[
    (
        "the rest of a part is asked for",
        &[
            part(FROM_0, BEGIN, "01234"),
            answered(
                206,
                END,
                with(
                    "56789",
                    then(
                        0,
                        NOTHING,
                        &[
                            AskedWith("range", Some("bytes=5-")),
                            AskedWith("if-range", Some("\"a\"")),
                            Status(200),
                            Body("0123456789"),
                            With("content-range", None),
                            With("content-digest", None),
                            With("x-a", Some("2")),
                            Told("fwd=partial; fwd-status=206; stored"),
                        ],
                    ),
                ),
            ),
            then(0, NOTHING, WHOLE_HIT),
            then(0, &[("range", "bytes=4-5")], &[Hit, Status(206), Body("45")]),
        ],
    ),
    (
        "the beginning of a part is asked for",
        &[
            part(FROM_5, END, "56789"),
            answered(
                206,
                BEGIN,
                with("01234", then(0, NOTHING, &[AskedWith("range", Some("bytes=0-4")), Body("0123456789")])),
            ),
            then(0, NOTHING, WHOLE_HIT),
        ],
    ),
    (
        "parts of different bytes are not put together",
        &[
            part(FROM_0, BEGIN, "01234"),
            // Whoever wants the whole gets the whole.
            answered(
                200,
                OTHER,
                with(
                    "abcdefghij",
                    then(0, NOTHING, &[AskedWith("range", Some("bytes=5-")), Status(200), Body("abcdefghij")]),
                ),
            ),
            then(0, NOTHING, &[Hit, Body("abcdefghij")]),
            then(0, FROM_0, &[Hit, Body("abcde")]),
        ],
    ),
    (
        "a weak validator puts nothing together",
        &[
            part(FROM_0, WEAK_BEGIN, "01234"),
            answered(200, OTHER, then(0, NOTHING, &[AskedWith("range", None), AskedWith("if-range", None)])),
        ],
    ),
    (
        "parts that clients ask for come together",
        &[
            part(FROM_0, BEGIN, "01234"),
            part(FROM_3, MIDDLE, "3456"),
            then(
                0,
                &[("range", "bytes=2-6")],
                &[Hit, Status(206), Body("23456"), With("content-range", Some("bytes 2-6/10")), With("x-a", Some("3"))],
            ),
            part(FROM_5, END, "56789"),
            then(0, NOTHING, WHOLE_HIT),
        ],
    ),
    (
        "parts with a gap are kept beside each other",
        &[
            part(FROM_0, BEGIN, "01234"),
            part(
                &[("range", "bytes=7-9")],
                &[("cache-control", "max-age=3600"), ("etag", "\"a\""), ("content-range", "bytes 7-9/10")],
                "789",
            ),
            then(0, &[("range", "bytes=-2")], &[Hit, Body("89")]),
            then(0, &[("range", "bytes=1-3")], &[Hit, Body("123")]),
            answered(206, NOTHING, then(0, &[("range", "bytes=4-7")], &[AskedWith("range", Some("bytes=4-7"))])),
        ],
    ),
    (
        "a part of another takes the place of one",
        &[
            part(FROM_0, BEGIN, "01234"),
            part(FROM_5, OTHER_END, "fghij"),
            then(0, FROM_5, &[Hit, Body("fghij")]),
            answered(206, BEGIN, with("01234", then(0, FROM_0, &[Asked]))),
        ],
    ),
    (
        "a part that is fresh is used though the whole is stale",
        &[
            with("0123456789", first(&[("cache-control", "max-age=10")])),
            answered(
                206,
                &[("cache-control", "max-age=3600"), ("content-range", "bytes 0-4/10")],
                with("01234", then(20, FROM_0, &[Asked, Status(206)])),
            ),
            then(0, FROM_0, &[Hit, Status(206), Body("01234")]),
            then(0, NOTHING, &[Asked]),
        ],
    ),
    (
        "a digest of the content is not that of a part of it",
        &[
            with(
                "0123456789",
                first(&[
                    ("cache-control", "max-age=99"),
                    ("content-digest", "d"),
                    ("content-md5", "m"),
                    ("repr-digest", "r"),
                ]),
            ),
            then(0, NOTHING, &[HitWith("content-digest", Some("d")), With("content-md5", Some("m"))]),
            then(
                0,
                FROM_0,
                &[HitWith("content-digest", None), With("content-md5", None), With("repr-digest", Some("r"))],
            ),
        ],
    ),
];

#[tokio::test]
async fn parts_serve_whom_they_are_enough_for_and_come_together() {
    Stage::with("").await.play(PARTS).await;
}

/// RFC 9111 section 4.3, and what an error of the upstream leaves possible.
const VALIDATION: &[Case] = &[
    (
        "only the upstream judges If-Match: nothing stands in",
        &[
            first(&[("cache-control", "max-age=10"), ("etag", "\"a\"")]),
            answered(503, NOTHING, then(20, &[("if-match", "\"b\"")], &[Asked, Status(503)])),
            answered(
                503,
                NOTHING,
                then(20, &[("if-unmodified-since", "Sun, 06 Nov 1994 08:49:37 GMT")], &[Asked, Status(503)]),
            ),
            answered(503, NOTHING, then(20, NOTHING, &[StandsIn])),
        ],
    ),
    (
        "the same strong date is about it, whatever its tag is by now",
        &[
            first(&[
                ("cache-control", "max-age=10"),
                ("etag", "\"a\""),
                ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ]),
            answered(
                304,
                &[
                    ("cache-control", "max-age=99"),
                    ("etag", "\"b\""),
                    ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
                ],
                then(20, NOTHING, &[Asked, Status(200), With("etag", Some("\"b\""))]),
            ),
            then(0, NOTHING, &[HitWith("etag", Some("\"b\""))]),
        ],
    ),
    (
        "a client's question is answered after ours",
        &[
            first(&[("cache-control", "max-age=10"), ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")]),
            answered(
                304,
                &[("cache-control", "max-age=99")],
                then(20, &[("if-modified-since", "Sunday, 06-Nov-94 08:49:37 GMT")], &[Asked, Status(304)]),
            ),
            then(0, &[("if-modified-since", "Sun Nov  6 08:49:38 1994")], &[Hit, Status(304)]),
            then(0, &[("if-none-match", "*")], &[Hit, Status(304)]),
        ],
    ),
];

#[tokio::test]
async fn what_is_stale_is_asked_about() {
    Stage::with("").await.play(VALIDATION).await;
}

/// RFC 9111 section 5.2.1.5, and RFC 5861 section 3.
const NOT_STORED: &[Case] = &[
    (
        "nothing of it is stored, not even what is asked for behind",
        &[
            with("old", first(&[("cache-control", "max-age=10, stale-while-revalidate=99"), ("etag", "\"a\"")])),
            answered(
                200,
                HOUR,
                with("new", then(20, &[("cache-control", "no-store")], &[Asked, Told("detail=no-store")])),
            ),
            answered(200, HOUR, with("newer", then(0, NOTHING, &[Asked, Body("newer")]))),
        ],
    ),
    (
        "what is stored stays, if the upstream says that it still holds",
        &[
            with("old", first(&[("cache-control", "max-age=10"), ("etag", "\"a\"")])),
            answered(304, HOUR, then(20, &[("cache-control", "no-store")], &[Asked, Body("old")])),
            answered(304, HOUR, then(0, NOTHING, &[AskedWith("if-none-match", Some("\"a\"")), Body("old")])),
            then(0, NOTHING, &[Hit]),
        ],
    ),
];

#[tokio::test]
async fn what_a_client_does_not_want_stored_is_not_stored() {
    Stage::with("cache.client_directives = \"obey\"").await.play(NOT_STORED).await;
}
