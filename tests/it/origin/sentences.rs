//! RFC 9111 sentence by sentence: what it says that caches MUST or SHOULD do, or MUST NOT, each as a few requests.

use super::Fields;
use super::steps::{
    Asked, AskedWith, Case, HOUR, Hit, HitWith, NOTHING, Stage, StandsIn, Status, answered, by, first, of_status, then,
};

const DATED: Fields =
    &[("cache-control", "max-age=3600"), ("etag", "\"a\""), ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")];
const SHORT: Fields =
    &[("cache-control", "max-age=10"), ("etag", "\"a\""), ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")];

const CASES: &[Case] = &[
    // 3: "A cache MUST NOT store a response to a request unless: ..."
    ("3: the request method is understood", &[by("POST", first(HOUR)), then(0, NOTHING, &[Asked])]),
    ("3: the response status code is final", &[first(HOUR), then(0, NOTHING, &[Hit])]),
    (
        "3: the no-store cache directive is not present",
        &[first(&[("cache-control", "no-store, max-age=3600")]), then(0, NOTHING, &[Asked])],
    ),
    (
        "3: if the cache is shared: private is not present",
        &[first(&[("cache-control", "private, max-age=3600")]), then(0, NOTHING, &[Asked])],
    ),
    (
        "3: if the cache is shared: Authorization is not present",
        &[answered(200, HOUR, then(0, &[("authorization", "Basic x")], &[Asked])), then(0, NOTHING, &[Asked])],
    ),
    (
        "3: a public response directive",
        &[
            of_status(599, &[("cache-control", "public"), ("expires", "Thu, 06 Nov 2994 08:49:37 GMT")]),
            then(0, NOTHING, &[Hit]),
        ],
    ),
    (
        "3: an Expires header field",
        &[of_status(302, &[("expires", "Thu, 06 Nov 2994 08:49:37 GMT")]), then(0, NOTHING, &[Hit])],
    ),
    ("3: a max-age response directive", &[of_status(302, HOUR), then(0, NOTHING, &[Hit])]),
    (
        "3: an s-maxage response directive",
        &[of_status(302, &[("cache-control", "s-maxage=3600")]), then(0, NOTHING, &[Hit])],
    ),
    (
        "3: a status code that is defined as heuristically cacheable",
        &[of_status(404, &[("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")]), then(0, NOTHING, &[Hit])],
    ),
    (
        "3: none of these",
        &[of_status(302, &[("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")]), then(0, NOTHING, &[Asked])],
    ),
    // 3.1
    (
        "3.1: MUST include all received response header fields, including unrecognized ones",
        &[first(&[("cache-control", "max-age=9"), ("x-new", "1")]), then(0, NOTHING, &[HitWith("x-new", Some("1"))])],
    ),
    (
        "3.1: Connection and the fields that it names",
        &[
            first(&[("cache-control", "max-age=9"), ("connection", "x-hop"), ("x-hop", "1")]),
            then(0, NOTHING, &[HitWith("x-hop", None)]),
        ],
    ),
    (
        "3.1: Proxy-Authentication-Info",
        &[
            first(&[("cache-control", "max-age=9"), ("proxy-authentication-info", "x")]),
            then(0, NOTHING, &[HitWith("proxy-authentication-info", None)]),
        ],
    ),
    // 3.2
    (
        "3.2: MUST add each header field in the provided response",
        &[
            first(SHORT),
            answered(
                304,
                &[("etag", "\"a\""), ("x-new", "1"), ("cache-control", "max-age=99")],
                then(20, NOTHING, &[Asked]),
            ),
            then(0, NOTHING, &[HitWith("x-new", Some("1"))]),
        ],
    ),
    (
        "3.2: replacing field values that are already present",
        &[
            first(&[("cache-control", "max-age=10"), ("etag", "\"a\""), ("x", "1")]),
            answered(304, &[("x", "2"), ("cache-control", "max-age=99")], then(20, NOTHING, &[Asked])),
            then(0, NOTHING, &[HitWith("x", Some("2"))]),
        ],
    ),
    (
        "3.2: but for Content-Length",
        &[
            first(SHORT),
            answered(304, &[("cache-control", "max-age=99")], then(20, NOTHING, &[Asked])),
            then(0, NOTHING, &[HitWith("content-length", Some("4"))]),
        ],
    ),
    // 3.3
    (
        "3.3: MUST NOT send a partial response without 206",
        &[
            answered(
                206,
                &[("cache-control", "max-age=9"), ("content-range", "bytes 0-3/8")],
                then(0, &[("range", "bytes=0-3")], &[Asked]),
            ),
            then(0, NOTHING, &[Asked]),
        ],
    ),
    (
        "3.3: a request for the part that is stored",
        &[
            answered(
                206,
                &[("cache-control", "max-age=9"), ("content-range", "bytes 0-3/8")],
                then(0, &[("range", "bytes=0-3")], &[Asked]),
            ),
            then(0, &[("range", "bytes=1-2")], &[HitWith("content-range", Some("bytes 1-2/8"))]),
        ],
    ),
    // 3.5
    (
        "3.5: must-revalidate, public, s-maxage",
        &[
            answered(
                200,
                &[("cache-control", "must-revalidate, max-age=9")],
                then(0, &[("authorization", "Basic x")], &[Asked]),
            ),
            then(0, NOTHING, &[Hit]),
        ],
    ),
    // 4: "MUST NOT reuse a stored response unless: ..."
    ("4: the presented request method allows it: HEAD by GET", &[first(HOUR), by("HEAD", then(0, NOTHING, &[Hit]))]),
    (
        "4: the request header fields nominated by the stored response match",
        &[
            answered(200, &[("cache-control", "max-age=9"), ("vary", "foo")], then(0, &[("foo", "1")], &[Asked])),
            then(0, &[("foo", "2")], &[Asked]),
        ],
    ),
    (
        "4: no no-cache, unless it is successfully validated",
        &[
            first(&[("cache-control", "no-cache, max-age=9"), ("etag", "\"a\"")]),
            then(0, NOTHING, &[AskedWith("if-none-match", Some("\"a\""))]),
        ],
    ),
    ("4: fresh", &[first(SHORT), then(5, NOTHING, &[Hit])]),
    (
        "4: or allowed to be served stale",
        &[first(&[("cache-control", "max-age=10, stale-while-revalidate=60")]), then(20, NOTHING, &[Hit])],
    ),
    ("4: or successfully validated", &[first(SHORT), then(20, NOTHING, &[Asked])]),
    (
        "4: MUST generate an Age header field",
        &[first(&[("cache-control", "max-age=999"), ("age", "70")]), then(20, NOTHING, &[HitWith("age", Some("90"))])],
    ),
    ("4: MUST write through requests with unsafe methods", &[first(HOUR), by("POST", then(0, NOTHING, &[Asked]))]),
    // 4.1
    (
        "4.1: `*` always fails to match",
        &[first(&[("cache-control", "max-age=9"), ("vary", "*")]), then(0, NOTHING, &[Asked])],
    ),
    ("4.1: absent in both", &[first(&[("cache-control", "max-age=9"), ("vary", "foo")]), then(0, NOTHING, &[Hit])]),
    (
        "4.1: absent in one",
        &[first(&[("cache-control", "max-age=9"), ("vary", "foo")]), then(0, &[("foo", "1")], &[Asked])],
    ),
    (
        "4.1: white space is added or removed",
        &[
            answered(200, &[("cache-control", "max-age=9"), ("vary", "foo")], then(0, &[("foo", "1,2")], &[Asked])),
            then(0, &[("foo", "1 , 2")], &[Hit]),
        ],
    ),
    (
        "4.1: lines of the same field are combined",
        &[
            answered(200, &[("cache-control", "max-age=9"), ("vary", "foo")], then(0, &[("foo", "1, 2")], &[Asked])),
            then(0, &[("foo", "1"), ("foo", "2")], &[Hit]),
        ],
    ),
    // 4.2
    (
        "4.2: MUST NOT be used before its lifetime is known: past Expires",
        &[first(&[("expires", "Sun, 06 Nov 1994 08:49:37 GMT")]), then(0, NOTHING, &[Asked])],
    ),
    (
        "4.2.1: s-maxage before max-age",
        &[first(&[("cache-control", "s-maxage=0, max-age=99")]), then(0, NOTHING, &[Asked])],
    ),
    (
        "4.2.1: max-age before Expires",
        &[first(&[("cache-control", "max-age=99"), ("expires", "0")]), then(0, NOTHING, &[Hit])],
    ),
    (
        "4.2.1: invalid freshness information is stale",
        &[first(&[("cache-control", "max-age=never")]), then(0, NOTHING, &[Asked])],
    ),
    (
        "4.2.1: the most restrictive directive is honored",
        &[first(&[("cache-control", "max-age=0, max-age=99")]), then(0, NOTHING, &[Asked])],
    ),
    (
        "4.2.2: MUST NOT use heuristics when an explicit expiration time is present",
        &[
            first(&[("cache-control", "max-age=0"), ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")]),
            then(0, NOTHING, &[Asked]),
        ],
    ),
    (
        "4.2.3: the age that it had counts",
        &[first(&[("cache-control", "max-age=99"), ("age", "99")]), then(0, NOTHING, &[Asked])],
    ),
    (
        "4.2.4: MUST NOT generate a stale response if it is prohibited",
        &[
            first(&[("cache-control", "max-age=10, must-revalidate, stale-while-revalidate=99")]),
            then(20, NOTHING, &[Asked]),
        ],
    ),
    ("4.2.4: MUST NOT unless it is disconnected or explicitly permitted", &[first(SHORT), then(20, NOTHING, &[Asked])]),
    ("4.2.4: disconnected", &[first(SHORT), answered(0, NOTHING, then(20, NOTHING, &[StandsIn]))]),
    // 4.3
    (
        "4.3.1: MUST send the relevant entity tags",
        &[first(SHORT), then(20, NOTHING, &[AskedWith("if-none-match", Some("\"a\""))])],
    ),
    (
        "4.3.1: SHOULD send the Last-Modified value",
        &[first(SHORT), then(20, NOTHING, &[AskedWith("if-modified-since", Some("Sun, 06 Nov 1994 08:49:37 GMT"))])],
    ),
    (
        "4.3.2: MUST NOT evaluate what only applies to an origin server",
        &[first(DATED), then(0, &[("if-match", "\"b\"")], &[AskedWith("if-match", Some("\"b\""))])],
    ),
    (
        "4.3.2: If-None-Match",
        &[
            first(DATED),
            then(0, &[("if-none-match", "\"a\"")], &[Status(304)]),
            then(0, &[("if-none-match", "\"b\"")], &[Status(200)]),
        ],
    ),
    (
        "4.3.2: SHOULD generate a 304 if it was modified before",
        &[first(DATED), then(0, &[("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT")], &[Status(304)])],
    ),
    (
        "4.3.2: If-Modified-Since is ignored beside If-None-Match",
        &[
            first(DATED),
            then(
                0,
                &[("if-modified-since", "Thu, 06 Nov 2994 08:49:37 GMT"), ("if-none-match", "\"b\"")],
                &[Status(200)],
            ),
        ],
    ),
    (
        "4.3.2: If-Range",
        &[
            first(DATED),
            then(0, &[("range", "bytes=0-1"), ("if-range", "\"a\"")], &[Status(206)]),
            then(0, &[("range", "bytes=0-1"), ("if-range", "\"b\"")], &[Status(200)]),
        ],
    ),
    (
        "4.3.3: 304: it can be updated and reused",
        &[first(SHORT), answered(304, SHORT, then(20, NOTHING, &[Status(200)])), then(5, NOTHING, &[Hit])],
    ),
    (
        "4.3.3: a full response MUST be used",
        &[
            first(SHORT),
            answered(404, &[("cache-control", "max-age=99")], then(20, NOTHING, &[Status(404)])),
            then(5, NOTHING, &[Status(404)]),
        ],
    ),
    (
        "4.3.3: a 5xx: forwarded, or a stored one as if there had been none",
        &[first(SHORT), answered(503, NOTHING, then(20, NOTHING, &[Status(200)])), then(900, NOTHING, &[Asked])],
    ),
    (
        "4.3.4: another strong validator MUST NOT update",
        &[first(SHORT), answered(304, &[("etag", "\"b\""), ("x", "2")], then(20, NOTHING, &[Asked]))],
    ),
    (
        "4.3.5: SHOULD update by HEAD",
        &[
            first(SHORT),
            by(
                "HEAD",
                answered(200, &[("etag", "\"a\""), ("cache-control", "max-age=99")], then(20, NOTHING, &[Asked])),
            ),
            then(0, NOTHING, &[Hit]),
        ],
    ),
    (
        "4.3.5: SHOULD consider the stored response to be stale",
        &[
            first(SHORT),
            by(
                "HEAD",
                answered(200, &[("etag", "\"b\""), ("cache-control", "max-age=99")], then(20, NOTHING, &[Asked])),
            ),
            then(0, NOTHING, &[Asked]),
        ],
    ),
    // 4.4
    (
        "4.4: MUST invalidate the target URI",
        &[first(HOUR), by("PUT", then(0, NOTHING, &[Asked])), then(0, NOTHING, &[Asked])],
    ),
    (
        "4.4: by methods whose safety is unknown",
        &[first(HOUR), by("M-SEARCH", then(0, NOTHING, &[Asked])), then(0, NOTHING, &[Asked])],
    ),
    // 5
    (
        "5.1: SHOULD use the first member of Age",
        &[first(&[("cache-control", "max-age=99"), ("age", "0, 99")]), then(0, NOTHING, &[Hit])],
    ),
    (
        "5.1: SHOULD ignore an invalid Age",
        &[first(&[("cache-control", "max-age=99"), ("age", "99x")]), then(0, NOTHING, &[Hit])],
    ),
    (
        "5.2: directives are compared case-insensitively",
        &[first(&[("cache-control", "MaX-aGe=99")]), then(0, NOTHING, &[Hit])],
    ),
    (
        "5.2: recipients SHOULD accept both forms of an argument",
        &[first(&[("cache-control", "max-age=\"99\"")]), then(0, NOTHING, &[Hit])],
    ),
    (
        "5.2.2.2: MUST NOT reuse without validation",
        &[
            first(&[("cache-control", "max-age=10, must-revalidate")]),
            answered(0, NOTHING, then(20, NOTHING, &[Status(504)])),
        ],
    ),
    (
        "5.2.2.3: must-understand: stored where the status is understood",
        &[first(&[("cache-control", "must-understand, no-store, max-age=9")]), then(0, NOTHING, &[Hit])],
    ),
    (
        "5.2.2.3: must-understand: MUST NOT where it is not",
        &[of_status(299, &[("cache-control", "must-understand, max-age=9")]), then(0, NOTHING, &[Asked])],
    ),
    (
        "5.2.2.4: qualified no-cache: the fields MUST NOT be sent",
        &[
            first(&[("cache-control", "max-age=9, no-cache=\"x-a\""), ("x-a", "1")]),
            then(0, NOTHING, &[HitWith("x-a", None)]),
        ],
    ),
    (
        "5.2.2.7: qualified private: MUST NOT store the fields",
        &[
            first(&[("cache-control", "max-age=9, private=\"x-a\""), ("x-a", "1")]),
            then(0, NOTHING, &[HitWith("x-a", None)]),
        ],
    ),
    (
        "5.2.2.8: proxy-revalidate",
        &[
            first(&[("cache-control", "max-age=10, proxy-revalidate")]),
            answered(0, NOTHING, then(20, NOTHING, &[Status(504)])),
        ],
    ),
    (
        "5.2.2.10: s-maxage incorporates proxy-revalidate",
        &[first(&[("cache-control", "s-maxage=10")]), answered(0, NOTHING, then(20, NOTHING, &[Status(504)]))],
    ),
    (
        "5.2.3: MUST ignore unrecognized cache directives",
        &[first(&[("cache-control", "private-ish, no-storing, max-age=99")]), then(0, NOTHING, &[Hit])],
    ),
    (
        "5.3: MUST interpret invalid dates, especially 0, as in the past",
        &[first(&[("expires", "0")]), then(0, NOTHING, &[Asked])],
    ),
    (
        "5.3: MUST ignore Expires if there is max-age",
        &[
            first(&[("cache-control", "max-age=0"), ("expires", "Thu, 06 Nov 2994 08:49:37 GMT")]),
            then(0, NOTHING, &[Asked]),
        ],
    ),
    (
        "5.4: Pragma of a response is not specified",
        &[first(&[("cache-control", "max-age=99"), ("pragma", "no-cache")]), then(0, NOTHING, &[Hit])],
    ),
    // 7, and the others
    (
        "7.3: Set-Cookie does not inhibit caching",
        &[
            first(&[("cache-control", "max-age=99"), ("set-cookie", "a=b")]),
            then(0, NOTHING, &[HitWith("set-cookie", Some("a=b"))]),
        ],
    ),
    (
        "RFC 5861 4: stale-if-error",
        &[
            first(&[("cache-control", "max-age=10, stale-if-error=5000")]),
            answered(500, NOTHING, then(4000, NOTHING, &[Status(200)])),
        ],
    ),
    (
        "RFC 9213 2.1: MUST ignore Cache-Control and Expires",
        &[first(&[("cdn-cache-control", "max-age=99"), ("cache-control", "no-store")]), then(0, NOTHING, &[Hit])],
    ),
    (
        "RFC 9213 2.1: a field that cannot be parsed MUST be ignored",
        &[first(&[("cdn-cache-control", "max-age="), ("cache-control", "max-age=99")]), then(0, NOTHING, &[Hit])],
    ),
];

#[tokio::test]
async fn every_sentence_holds() {
    Stage::with("").await.play(CASES).await;
}
