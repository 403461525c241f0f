use bytes::Bytes;

use super::*;

fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}

fn received(fields: &[(&'static str, &'static str)]) -> Received {
    Received {
        status: StatusCode::OK,
        head: map(fields),
        body: Bytes::from_static(b"[1]").into(),
        version: Version::HTTP_11,
        date: HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT"),
        for_one_origin: false,
        has_codings: false,
    }
}

/// A head without what is set for each answer.
fn head_of(mut response: Response<Pieces>) -> HeaderMap {
    for name in ["age", "cache-status", "x-request-id"] {
        assert_eq!(response.headers_mut().remove(name).as_ref().map(HeaderValue::as_bytes), Some(&b""[..]), "{name}");
    }
    std::mem::take(response.headers_mut())
}

fn prepared(fields: &[(&'static str, &'static str)]) -> Prepared {
    Prepared::new(received(fields))
}

const STOCK: &[(&str, &str)] = &[
    ("content-type", "application/json; charset=utf-8"),
    ("etag", "W/\"abc\""),
    ("vary", "Origin"),
    ("x-runtime", "0.1"),
    ("x-request-id", "leader"),
    ("set-cookie", "a=b"),
    ("connection", "keep-alive"),
    ("access-control-allow-origin", "*"),
    ("access-control-max-age", "7200"),
];

#[test]
fn what_belongs_to_one_request_is_not_kept() {
    let response = prepared(STOCK).respond(&Method::GET, &map(&[]), None);
    let expected = map(&[
        ("content-type", "application/json; charset=utf-8"),
        ("etag", "W/\"abc\""),
        ("vary", "Origin"),
        ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("via", "1.1 anteroom"),
    ]);
    assert_eq!(*response.body().joined(), *b"[1]");
    assert_eq!(head_of(response), expected);
}

#[test]
fn readers_with_an_origin_get_the_cors_fields_and_others_do_not() {
    for (name, expected) in [("origin", true), ("x-origin", true), ("accept", false)] {
        let response = prepared(STOCK).respond(&Method::GET, &map(&[(name, "https://a.test")]), None);
        assert_eq!(response.headers().contains_key("access-control-allow-origin"), expected, "{name}");
    }
}

#[test]
fn answers_that_differ_by_origin_are_not_for_readers_with_one() {
    let origin = map(&[("origin", "https://a.test")]);
    assert!(prepared(STOCK).serves(&origin));
    for fields in [
        &[("access-control-allow-origin", "https://a.test")][..],
        &[("access-control-allow-origin", "*"), ("access-control-allow-credentials", "true")],
        &[],
    ] {
        assert!(!prepared(fields).serves(&origin), "{fields:?}");
        assert!(prepared(fields).serves(&map(&[])), "{fields:?}");
    }
}

fn is_held(kept: &HeaderMap, asked: &HeaderMap) -> bool {
    is_not_modified(|name| kept.get(name).map(HeaderValue::as_bytes), asked)
}

/// RFC 9110 section 13.1.2: weak comparison, lists, `*`.
#[test]
fn if_none_match() {
    for (asked, etag, expected) in [
        ("W/\"abc\"", "W/\"abc\"", true),
        ("\"abc\"", "W/\"abc\"", true),
        ("W/\"abc\"", "\"abc\"", true),
        ("\"x\", W/\"abc\" , \"y\"", "W/\"abc\"", true),
        ("\"a,b\", \"abc\"", "\"abc\"", true),
        ("\"a,b\"", "\"a,b\"", true),
        (" * ", "W/\"abc\"", true),
        ("\"ab\"", "W/\"abc\"", false),
        ("abc", "W/\"abc\"", false),
        ("\"abc", "W/\"abc\"", false),
        ("", "W/\"abc\"", false),
        ("w/\"abc\"", "W/\"abc\"", false),
    ] {
        let kept = map(&[("etag", etag)]);
        let asked_fields = map(&[("if-none-match", asked)]);
        assert_eq!(is_held(&kept, &asked_fields), expected, "{asked} against {etag}");
    }
    assert!(is_held(&map(&[]), &map(&[("if-none-match", "*")])));
    assert!(!is_held(&map(&[]), &map(&[("if-none-match", "\"a\"")])), "nothing to compare with");
}

/// RFC 9110 section 13.1.3: only without `If-None-Match`.
#[test]
fn if_modified_since() {
    let kept = map(&[("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"), ("etag", "\"a\"")]);
    for (since, expected) in
        [("Sun, 06 Nov 1994 08:49:37 GMT", true), ("Sun, 06 Nov 1994 08:49:36 GMT", false), ("yesterday", false)]
    {
        assert_eq!(is_held(&kept, &map(&[("if-modified-since", since)])), expected, "{since}");
    }
    let both = map(&[("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT"), ("if-none-match", "\"b\"")]);
    assert!(!is_held(&kept, &both));
    assert!(!is_held(&map(&[]), &map(&[("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT")])));
}

#[test]
fn a_304_has_no_content_fields_and_head_no_body() {
    let response = prepared(STOCK).respond(&Method::GET, &map(&[("if-none-match", "\"abc\"")]), None);
    assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
    assert!(response.body().is_empty());
    assert!(!response.headers().contains_key("content-length") && !response.headers().contains_key("content-type"));
    assert_eq!(response.headers()["etag"], "W/\"abc\"");
    let response = prepared(STOCK).respond(&Method::HEAD, &map(&[]), None);
    assert_eq!((response.headers()["content-length"].as_bytes(), response.body().len()), (&b"3"[..], 0));
}

#[test]
fn validators_made_from_the_body() {
    for (etag, expected) in [
        ("W/\"4f53cda18c2baa0c0354bb5f9a3ecbe5\"", true),
        ("\"strong\"", true),
        ("W/\"v17\"", false),
        ("W/\"4f53cda18c2baa0c0354bb5f9a3ecbeg\"", false),
        ("odd", false),
    ] {
        assert_eq!(is_made_from_body(&HeaderValue::from_static(etag)), expected, "{etag}");
    }
}

#[test]
fn an_answer_for_one_origin_has_what_the_upstream_gave_it() {
    let fields = &[("access-control-allow-origin", "https://a.test"), ("access-control-allow-credentials", "true")];
    let answer = Prepared::new(Received { for_one_origin: true, ..received(fields) });
    let response = answer.respond(&Method::GET, &map(&[("origin", "https://a.test")]), None);
    assert_eq!(response.headers()["access-control-allow-origin"], "https://a.test");
}

/// RFC 9110 sections 8.4, 8.8.1 and 12.5.5.
#[test]
fn an_encoded_form_says_so_and_its_validator_is_weak() {
    let encoded = || Some((Some(Coding::Gzip), Bytes::from_static(b"zz").into()));
    for (etag, expected) in [("\"strong\"", "W/\"strong\""), ("W/\"weak\"", "W/\"weak\"")] {
        let received = received(&[("etag", etag), ("vary", "Origin")]);
        let answer = Prepared::new(Received { has_codings: true, ..received });
        let response = answer.respond(&Method::GET, &map(&[]), encoded());
        assert_eq!(response.headers()["content-encoding"], "gzip");
        assert_eq!(*response.body().joined(), *b"zz");
        let head = answer.respond(&Method::HEAD, &map(&[]), encoded());
        assert_eq!((head.headers()["content-length"].as_bytes(), head.body().len()), (&b"2"[..], 0));
        assert_eq!(response.headers()["etag"], expected);
        let plain = answer.respond(&Method::GET, &map(&[]), None);
        assert_eq!(plain.headers()["etag"], etag);
        for response in [&response, &plain] {
            let vary: Vec<_> = response.headers().get_all("vary").iter().collect();
            assert_eq!(vary, ["Origin", "Accept-Encoding"]);
        }
        // Whoever holds it in one form holds it in all.
        let asked = map(&[("if-none-match", expected)]);
        let response = answer.respond(&Method::GET, &asked, encoded());
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
        assert!(!response.headers().contains_key("content-encoding") && response.body().is_empty());
    }
}

/// RFC 9111 sections 3.2 and 4.3.4.
#[test]
fn a_304_of_the_upstream_refreshes_fields_but_not_the_content() {
    let answer = prepared(STOCK);
    let update = map(&[
        ("cache-control", "max-age=9"),
        ("x-new", "1"),
        ("content-type", "text/html"),
        ("content-length", "0"),
        ("etag", "W/\"other\""),
        ("set-cookie", "a=b"),
        ("x-request-id", "other"),
        ("access-control-allow-origin", "*"),
    ]);
    let later = HeaderValue::from_static("Mon, 07 Nov 1994 08:49:37 GMT");
    let response =
        answer.refreshed(update, Version::HTTP_11, later).respond(&Method::GET, &map(&[("origin", "x")]), None);
    let expected = map(&[
        ("content-type", "application/json; charset=utf-8"),
        ("etag", "W/\"abc\""),
        ("vary", "Origin"),
        ("date", "Mon, 07 Nov 1994 08:49:37 GMT"),
        ("cache-control", "max-age=9"),
        ("x-new", "1"),
        ("via", "1.1 anteroom"),
        ("access-control-allow-origin", "*"),
        ("access-control-max-age", "7200"),
        ("access-control-expose-headers", "Age, Cache-Status, X-Request-Id"),
    ]);
    assert_eq!(*response.body().joined(), *b"[1]");
    assert_eq!(head_of(response), expected);
}

#[test]
fn a_changed_body_has_a_validator_of_its_own_and_the_upstreams_for_the_upstream() {
    let answer = prepared(STOCK).made_anew(own_etag(b"[2]"));
    let own = answer.respond(&Method::GET, &map(&[]), None).headers()["etag"].clone();
    assert!(is_made_from_body(&own) && own.as_bytes().starts_with(b"W/"), "{own:?}");
    assert_eq!(answer.upstream_etag(), Some(HeaderValue::from_static("W/\"abc\"")));
    assert!(answer.is_held_by(&HeaderMap::from_iter([(header::IF_NONE_MATCH, own)])));
    assert!(!answer.is_held_by(&map(&[("if-none-match", "W/\"abc\"")])), "that is another body");
    assert_eq!(prepared(&[]).made_anew(own_etag(b"[2]")).upstream_etag(), None);
}
