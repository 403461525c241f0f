//! What is shared and what is not: only the canonical route, without credentials, whole answers of the right form.

use anteroom_stand_in::{Fault, INBOX, Matcher, StandIn};
use http::StatusCode;

use crate::support::raw::{Scripted, exchange};
use crate::support::{Proxy, both, get, get_with, request, send};

/// `api.md` 6.8: the upstream answers some of these like the list, and each passes as it was spelt.
#[tokio::test]
async fn other_spellings_of_the_route_pass_byte_for_byte_and_are_never_kept() {
    let (stand_in, proxy) = both("").await;
    stand_in.seed("a.b", anteroom_stand_in::Shape { conversations: 1, messages: 1, bytes: 10 });
    let list = StandIn::list_path("visitor-a");
    let spellings = [
        (format!("{list}/"), 200),
        (format!("{list}.json"), 200),
        (format!("/{list}"), 200),
        (list.replace("/contacts/", "//contacts/"), 200),
        (list.replace("conversations", "conversation%73"), 200),
        (list.replace("/public/", "/publi%63/"), 200),
        (StandIn::list_path("a.b"), 404),
        (StandIn::list_path("visitor-a%2F"), 404),
        (StandIn::list_path("visitor-a%2Fb"), 404),
        (StandIn::list_path("visitor-a%00"), 404),
        (StandIn::list_path("%2E%2E"), 404),
        (StandIn::list_path("visitor-a%zz"), 404),
        (StandIn::list_path("visitor-a%FF"), 404),
    ];
    for (count, (path, status)) in spellings.iter().enumerate() {
        let before = stand_in.requests().len();
        for _ in 0..2 {
            let answer = exchange(&proxy.url, format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n")).await;
            let cache_status = answer.field("cache-status").unwrap();
            assert!(!cache_status.contains("hit") && !cache_status.contains("stored"), "{path}: {cache_status}");
            if *status == 200 {
                assert_eq!(answer.status(), 200, "{path}");
                assert_eq!(cache_status, "anteroom; fwd=bypass; fwd-status=200; detail=alias", "{path}");
            }
        }
        let passed: Vec<_> = stand_in.requests()[before..].iter().map(|seen| seen.target.clone()).collect();
        assert_eq!(passed.iter().filter(|target| *target == path).count(), 2, "{count} {path}: {passed:?}");
    }
    assert_eq!(proxy.state.cache.store.size().0, 0);
    // An encoded dot is canonical.
    let encoded = proxy.list_url("a%2Eb");
    assert_eq!(get(&encoded).await.status, StatusCode::OK);
    assert!(get(&encoded).await.is_hit());
}

#[tokio::test]
async fn requests_with_credentials_pass_by_the_cache_and_are_counted() {
    let (stand_in, proxy) = both("").await;
    let url = proxy.list_url("visitor-a");
    get(&url).await;
    for (name, value, reason) in [
        ("authorization", "Bearer x", "authorization"),
        ("cookie", "a=b", "cookie"),
        ("api-access-token", "x", "api_access_token"),
        ("api_access_token", "x", "api_access_token"),
    ] {
        let before = stand_in.list_requests("visitor-a");
        let answer = get_with(&url, &[(name, value)]).await;
        assert_eq!(answer.cache_status(), format!("anteroom; fwd=bypass; fwd-status=200; detail={reason}"), "{name}");
        assert_eq!(stand_in.list_requests("visitor-a"), before + 1);
        assert_eq!(stand_in.requests().last().unwrap().headers[name], value, "it is sent on");
    }
    let in_query = get(&format!("{url}?api_access_token=x")).await;
    assert!(in_query.cache_status().ends_with("detail=api_access_token"));
    for (reason, count) in [("authorization", 1.0), ("cookie", 1.0), ("api_access_token", 3.0)] {
        let metric = format!("anteroom_cache_bypass_total{{reason=\"{reason}\"}}");
        assert!((proxy.metric(&metric).await - count).abs() < 0.1, "{reason}");
    }
    assert!(get(&url).await.is_hit(), "what is kept stays");
}

#[tokio::test]
async fn credentials_that_the_upstream_ignores_are_shared_and_not_sent() {
    let (stand_in, proxy) = both("cache.credentials = \"ignore\"").await;
    let url = proxy.list_url("visitor-a");
    let fields =
        [("authorization", "Bearer x"), ("cookie", "a=b"), ("api-access-token", "x"), ("api_access_token", "x")];
    assert!(get_with(&url, &fields).await.cache_status().contains("stored"));
    for field in fields {
        assert!(get_with(&url, &[field]).await.is_hit(), "{field:?}");
        assert!(!stand_in.requests()[0].headers.contains_key(field.0), "{field:?}");
    }
    assert_eq!(stand_in.requests().len(), 1);
}

/// `coherence.md`, "A shared fetch": built from the key and an allow-list.
#[tokio::test]
async fn a_shared_fetch_has_nothing_of_whoever_led_it() {
    let upstream = Scripted::answering(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nvary: Origin\r\n\r\n[]",
    )
    .await;
    let proxy = Proxy::in_front_of(&upstream.url(), "cache.credentials = \"ignore\"").await;
    exchange(
        &proxy.url,
        "GET /public/api/v1/inboxes/in/contacts/phone%3a1/conversations?a=%20b HTTP/1.1\r\nhost: front.test\r\n\
         cookie: a=b\r\nauthorization: Bearer x\r\nrange: bytes=0-1\r\nif-none-match: \"a\"\r\nif-match: \"b\"\r\n\
         if-modified-since: Sat, 29 Oct 1994 19:43:31 GMT\r\nif-range: \"c\"\r\nx-custom: 1\r\nx-forwarded-for: 192.0.2.7\r\n\
         x-forwarded-host: forged.test\r\nforwarded: for=192.0.2.7\r\nx-request-id: mine\r\norigin: https://shop.test\r\n\
         accept: text/html\r\naccept-encoding: gzip, br\r\naccept-language: de\r\nuser-agent: u\r\nreferer: r\r\n\
         cache-control: no-cache\r\npragma: no-cache\r\ncontent-type: application/json\r\nexpect: 100-continue\r\n\
         content-length: 4\r\n\r\nbody",
    )
    .await;
    let seen = upstream.requests().into_iter().find(|seen| seen.head.contains("/conversations")).unwrap();
    assert_eq!(seen.start_line(), "GET /public/api/v1/inboxes/in/contacts/phone%3A1/conversations?a=%20b HTTP/1.1");
    let mut names: Vec<_> =
        seen.head.lines().skip(1).map(|line| line.split(':').next().unwrap().to_lowercase()).collect();
    names.sort();
    let allowed =
        ["accept", "accept-encoding", "host", "origin", "via", "x-forwarded-for", "x-forwarded-proto", "x-request-id"];
    assert_eq!(names, allowed);
    assert_eq!(seen.text(), "");
    assert_eq!(seen.field("accept-encoding"), Some("identity"));
    assert_eq!(seen.field("accept"), Some("application/json"));
    // For whom, as on any other request: behind another front the upstream would else see one client only.
    assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.field("host"), Some(upstream.address.to_string().as_str()));
    assert_eq!(seen.field("origin"), Some(upstream.url().as_str()));
    assert_ne!(seen.field("x-request-id"), Some("mine"));
}

/// Each fault once: what its client gets, and that the next reader does not get it.
#[tokio::test]
async fn nothing_broken_or_strange_is_kept() {
    let (stand_in, proxy) = both("upstream.fetch_timeout = \"300ms\"").await;
    for (fault, status) in [
        (Fault::Truncate, 502),
        (Fault::TruncateChunked, 502),
        (Fault::CloseDelimited, 200),
        (Fault::Html, 200),
        (Fault::WrongShape, 200),
        (Fault::Error, 500),
        (Fault::Unavailable, 503),
        (Fault::Throttle, 429),
        (Fault::Reset, 502),
        (Fault::Hang, 504),
        (Fault::HangBody, 504),
    ] {
        // A contact of its own, so that nothing kept stands in.
        let source = format!("faulty-{fault}");
        stand_in.seed(&source, anteroom_stand_in::Shape { conversations: 3, messages: 3, bytes: 200 });
        stand_in.fault_on(fault, Matcher::list_of(&source));
        let first = get_with(&proxy.list_url(&source), &[("origin", "https://shop.test")]).await;
        stand_in.clear_faults();
        assert_eq!(first.status.as_u16(), status, "{fault}: {}", first.cache_status());
        assert!(!first.cache_status().contains("stored"), "{fault}: {}", first.cache_status());
        // What a front server answers has no CORS, with the proxy or without.
        if ![Fault::Unavailable, Fault::Html].contains(&fault) {
            assert_eq!(first.header("access-control-allow-origin"), Some("*"), "{fault}");
        }
        if fault == Fault::CloseDelimited {
            assert_eq!(first.body, stand_in.list_body(&source), "it passes all the same");
        }
        let second = proxy.list(&source).await;
        assert!(second.status == StatusCode::OK && second.body == stand_in.list_body(&source), "{fault}");
        assert!(!second.is_hit(), "{fault}");
        if fault != Fault::CloseDelimited {
            assert!(proxy.list(&source).await.is_hit(), "{fault}: and all is well again");
        }
    }
}

#[tokio::test]
async fn a_good_answer_stands_in_for_a_fault() {
    let (stand_in, proxy) =
        both("upstream.fetch_timeout = \"300ms\"\ncache.ttl = \"0s\"\ncache.stale_while_revalidate = \"0s\"").await;
    let good = proxy.list("visitor-a").await.body;
    for fault in [
        Fault::Truncate,
        Fault::TruncateChunked,
        Fault::Error,
        Fault::Unavailable,
        Fault::Throttle,
        Fault::Reset,
        Fault::HangBody,
    ] {
        // The proxy knows nothing of it; without it the upstream would answer 304, which nothing can truncate.
        stand_in.agent_message("visitor-a", "one more");
        stand_in.fault(fault);
        let answer = proxy.list("visitor-a").await;
        assert!(answer.status == StatusCode::OK && answer.body == good, "{fault}: {}", answer.cache_status());
        assert!(
            answer.is_hit() && answer.cache_status().ends_with("detail=upstream-failing"),
            "{fault}: {}",
            answer.cache_status()
        );
        stand_in.clear_faults();
        crate::support::jump(std::time::Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn a_cookie_is_never_shared() {
    let (stand_in, proxy) = both("").await;
    stand_in.fault(Fault::SetCookie);
    for _ in 0..2 {
        assert_eq!(proxy.list("visitor-a").await.header("set-cookie"), None);
    }
    assert_eq!(stand_in.list_requests("visitor-a"), 1);
    // Whoever asks alone gets what the upstream gave.
    let own = get_with(&proxy.list_url("visitor-a"), &[("cookie", "a=b")]).await;
    assert!(own.header("set-cookie").is_some());
}

#[tokio::test]
async fn good_answers_of_another_form_are_kept() {
    let (stand_in, proxy) = both("").await;
    for (fault, source) in [(Fault::Chunked, "visitor-a"), (Fault::NoEtag, "visitor-b")] {
        stand_in.fault(fault);
        proxy.list(source).await;
        let second = proxy.list(source).await;
        assert!(second.is_hit(), "{fault}");
        assert_eq!(second.body, stand_in.list_body(source), "{fault}");
        stand_in.clear_faults();
    }
}

#[tokio::test]
async fn an_answer_over_the_limit_passes_whole_and_unkept() {
    let (stand_in, proxy) = both("cache.max_body = \"64KiB\"").await;
    stand_in.seed("big", anteroom_stand_in::Shape { conversations: 10, messages: 10, bytes: 2000 });
    let expected = stand_in.list_body("big");
    assert!(expected.len() > 100_000);
    for fault in [None, Some(Fault::Chunked)] {
        if let Some(fault) = fault {
            stand_in.fault(fault);
        }
        for _ in 0..2 {
            let answer = proxy.list("big").await;
            assert!(answer.body == expected && !answer.cache_status().contains("stored"), "{}", answer.cache_status());
        }
        let head = send(request("HEAD", &proxy.list_url("big"), &[], "")).await;
        assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
    }
    assert_eq!(proxy.state.cache.store.size().0, 0);
    proxy.wait_for_metric("anteroom_upstream_in_flight", 0.0).await;
    // Nobody who left in the middle keeps a place.
    assert_eq!(proxy.state.upstream.in_flight.free(), 32);
}

/// An answer for one reader whose reader has left must not hold its connection or its place among the fetches.
#[tokio::test]
async fn a_private_answer_whose_reader_left_holds_nothing() {
    let (stand_in, proxy) = both("cache.max_body = \"64KiB\"\nupstream.max_in_flight = 1").await;
    stand_in.seed("big", anteroom_stand_in::Shape { conversations: 10, messages: 10, bytes: 2000 });
    let gate = stand_in.hold(anteroom_stand_in::Point::AfterReading, Matcher::list_of("big"));
    let mut client = crate::support::raw::Talk::to(&proxy.url).await;
    client.send(format!("GET {} HTTP/1.1\r\nhost: h\r\n\r\n", StandIn::list_path("big"))).await;
    gate.arrived(1).await;
    drop(client);
    let left = "anteroom_requests_total{method=\"GET\",outcome=\"failed\",status_class=\"4xx\"}";
    proxy.wait_for_metric(left, 1.0).await;
    gate.release_all();
    proxy.wait_for_metric("anteroom_upstream_in_flight", 0.0).await;
    assert!(proxy.list("visitor-a").await.cache_status().contains("stored"));
}

#[tokio::test]
async fn inboxes_do_not_share() {
    let (stand_in, proxy) = both("").await;
    let here = proxy.list("visitor-b").await;
    let there = get(&proxy.list_url("visitor-b").replace(INBOX, anteroom_stand_in::OTHER_INBOX)).await;
    assert_eq!((here.status, there.status), (StatusCode::OK, StatusCode::OK));
    assert_ne!(here.body, there.body);
    assert_eq!(stand_in.list_requests("visitor-b"), 2);
}
