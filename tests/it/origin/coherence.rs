//! The ledger stands above what answers say: writes, purges and webhooks; and RFC 9111 section 4.4.

use std::time::Duration;

use http::StatusCode;

use super::{Both, Fields, ORIGIN, plain, with_fields};
use crate::support::script::{answer, json};
use crate::support::{jump, request, send, settings};

const HOUR: Fields = &[("cache-control", "max-age=3600")];

/// A write through the proxy puts out of date what is stored, whatever its fields say.
#[tokio::test]
async fn a_successful_write_puts_its_target_out_of_date() {
    for (method, status, is_fresh) in [
        ("POST", 200, false),
        ("PUT", 204, false),
        ("DELETE", 200, false),
        ("PATCH", 303, false),
        ("M-SEARCH", 200, false),
        ("POST", 404, true),
        ("OPTIONS", 200, true),
    ] {
        let both = Both::saying("", move |number, request| {
            if request.method() == "GET" { plain(200, HOUR, &number.to_string()) } else { plain(status, &[], "") }
        })
        .await;
        both.get(&[]).await;
        let written = both.ask(method, "a", &[]).await;
        assert_eq!(written.status.as_u16(), status, "{method}");
        let read = both.get(&[]).await;
        assert_eq!((read.is_hit(), read.text() == "1"), (is_fresh, is_fresh), "{method} {status}");
    }
}

/// A write of which nobody can say whose it was puts out of date what is its contact's, and nobody else's; and the list is not asked
/// for on its behalf, since anything may be in its place.
#[tokio::test]
async fn a_write_concerns_its_contact_alone() {
    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = asked.clone();
    let script = crate::support::script::Script::start(move |request| {
        log.lock().unwrap().push(format!("{} {}", request.method(), request.uri().path().rsplit('/').next().unwrap()));
        let is_list = request.uri().path().ends_with("/conversations");
        if is_list { plain(200, HOUR, "x") } else { plain(403, &[], "") }
    })
    .await;
    let proxy = crate::support::Proxy::in_front_of(&script.url, ORIGIN).await;
    for source in ["a", "b"] {
        crate::support::get(&proxy.list_url(source)).await;
    }
    send(request("POST", &proxy.list_url("a"), &[], "")).await;
    assert!(crate::support::get(&proxy.list_url("b")).await.is_hit());
    assert!(!crate::support::get(&proxy.list_url("a")).await.is_hit());
    let asked = asked.lock().unwrap();
    assert_eq!(
        asked[2..],
        ["POST conversations", "GET a", "GET conversations"],
        "the contact is asked for, then the reader's list"
    );
}

/// Section 4.4: "MAY invalidate" what the answer names, "MUST NOT" if its origin differs.
#[tokio::test]
async fn what_the_answer_to_a_write_names_is_out_of_date() {
    for (name, host, is_fresh) in
        [("location", "", false), ("content-location", "", false), ("location", "http://elsewhere.test", true)]
    {
        let both = Both::saying("", move |number, request| {
            if request.method() == "GET" {
                return plain(200, HOUR, &number.to_string());
            }
            let named = format!("{host}{}", anteroom_stand_in::StandIn::list_path("b"));
            let mut answer = plain(201, &[], "");
            answer.headers_mut().insert(name, named.parse().unwrap());
            answer
        })
        .await;
        both.ask("GET", "b", &[]).await;
        both.ask("POST", "a", &[]).await;
        assert_eq!(both.ask("GET", "b", &[]).await.is_hit(), is_fresh, "{name} {host}");
    }
}

/// Of what is out of date only a validator that is made from the body says whether it still holds.
#[tokio::test]
async fn what_is_out_of_date_is_asked_for_by_a_validator_that_would_have_changed() {
    for (fields, asks) in [
        (
            &[("cache-control", "max-age=3600"), ("etag", "\"a\""), ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")]
                [..],
            Some("\"a\""),
        ),
        (&[("cache-control", "max-age=3600"), ("etag", "W/\"a\"")], None),
        (&[("cache-control", "max-age=3600"), ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")], None),
    ] {
        let both = Both::always(fields).await;
        both.get(&[]).await;
        both.ask("POST", "a", &[]).await;
        let answer = both.get(&[]).await;
        assert!(answer.cache_status().starts_with("anteroom; fwd=stale; fwd-status=200"), "{}", answer.cache_status());
        let seen = both.last();
        assert_eq!((seen.header("if-none-match"), seen.header("if-modified-since")), (asks, None), "{fields:?}");
    }
}

/// Nothing that is out of date stands in for an error.
#[tokio::test]
async fn what_is_out_of_date_does_not_stand_in() {
    let both = Both::saying("", |number, request| match (request.method().as_str(), number) {
        ("GET", 1) => plain(200, HOUR, "1"),
        ("GET", _) => plain(503, &[], "3"),
        _ => plain(200, &[], ""),
    })
    .await;
    both.get(&[]).await;
    both.ask("POST", "a", &[]).await;
    let answer = both.get(&[]).await;
    assert_eq!((answer.status, answer.text().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "3"));
}

/// A write to a contact reaches the lists that name it, though they are asked for by another of its identifiers.
#[tokio::test]
async fn a_list_is_out_of_date_with_whom_it_names() {
    const LIST: &str = r#"[{"id":7,"contact":{"id":42},"messages":[]}]"#;
    for (more, kept) in [("payload.validate = \"off\"\n", true), ("", true)] {
        let settings = format!("cache.ttl = \"origin\"\ncache.settle = \"0s\"\n{more}webhook.unsigned_token = \"t\"\n");
        let script = crate::support::script::Script::start(|_| with_fields(json(LIST), HOUR)).await;
        let proxy = crate::support::Proxy::in_front_of(&script.url, &settings).await;
        let list = || async { crate::support::get(&proxy.list_url("a")).await };
        list().await;
        assert_eq!(list().await.is_hit(), kept);
        let told = r#"{"event":"contact_updated","id":42,"account":{"id":1}}"#;
        let hook = format!("{}/_anteroom/webhooks?token=t", proxy.url);
        assert_eq!(send(request("POST", &hook, &[], told)).await.status, 204);
        assert_eq!(list().await.cache_status(), "anteroom; fwd=stale; fwd-status=200; stored; ttl=3600");
    }
}

/// With `payload.validate` anything that is no list passes, and is not kept in the place of one; with `enforce` it does not pass.
#[tokio::test]
async fn the_contract_holds_where_it_is_asked_for() {
    for (validate, status, kept) in [("off", 200, true), ("report", 200, false), ("enforce", 502, false)] {
        let settings = format!("cache.ttl = \"origin\"\npayload.validate = \"{validate}\"\n");
        let script =
            crate::support::script::Script::start(|_| with_fields(answer(200, "application/json", "{}"), HOUR)).await;
        let proxy = crate::support::Proxy::in_front_of(&script.url, &settings).await;
        for again in [false, true] {
            let answer = crate::support::get(&proxy.list_url("a")).await;
            assert_eq!((answer.status.as_u16(), answer.is_hit()), (status, again && kept), "{validate}");
        }
    }
}

/// A reload changes who says how long answers are fresh; what was kept as the other said is gone.
#[tokio::test]
async fn a_reload_changes_who_says() {
    let both = Both::saying("", |_, request| {
        let is_there = request.uri().path().contains("/contacts/a/");
        if is_there { plain(200, &[("cache-control", "no-store")], "") } else { plain(404, &[], "") }
    })
    .await;
    let reload = |more: &str| both.proxy.state.reload(settings(&both.script.url, more)).unwrap();
    let stored = || (both.proxy.state.cache.store.size().0, both.proxy.state.cache.responses.size().0);
    for _ in 0..2 {
        reload(ORIGIN);
        assert!(!both.get(&[]).await.is_hit() && !both.get(&[]).await.is_hit());
        reload("cache.ttl = \"1h\"\ncache.negative_ttl = \"1h\"");
        both.ask("GET", "nobody", &[]).await;
        assert!(both.ask("GET", "nobody", &[]).await.is_hit());
        assert_eq!(stored(), (1, 0));
        reload(ORIGIN);
        assert_eq!(stored(), (0, 0));
        both.ask("GET", "nobody", &[]).await;
        assert_eq!(stored(), (0, 1));
        reload("");
        assert_eq!(stored(), (0, 0));
    }
}

/// A purge lets go of it; and it is not used as if nothing had been.
#[tokio::test]
async fn what_is_purged_is_gone() {
    let both = Both::saying("admin.token = \"t\"\n", |number, _| {
        plain(200, &[("cache-control", "max-age=10")], &number.to_string())
    })
    .await;
    both.get(&[]).await;
    assert_eq!(both.proxy.state.cache.responses.size().0, 1);
    let purge = |body: &'static str| {
        send(request("POST", &format!("{}/purge", both.proxy.admin), &[("authorization", "Bearer t")], body))
    };
    let purged = purge(r#"{"contact":"a"}"#).await;
    assert!(purged.status == 200 && purged.text().contains("\"lists\":1"), "{}", purged.text());
    assert_eq!(both.proxy.state.cache.responses.size().0, 0);
    assert_eq!(both.get(&[]).await.cache_status(), "anteroom; fwd=uri-miss; fwd-status=200; stored; ttl=10");
    jump(Duration::from_secs(1)).await;
    purge(r#"{"all":true}"#).await;
    assert_eq!(both.get(&[]).await.cache_status(), "anteroom; fwd=uri-miss; fwd-status=200; stored; ttl=10");
}

/// What an answer to `HEAD` says of what is stored makes it no newer: neither before nor while it is asked for may a write be
/// overlooked.
#[tokio::test]
async fn an_answer_to_head_brings_nothing_back_that_is_out_of_date() {
    let both = Both::saying("", move |number, request| {
        if request.method() == "POST" { plain(200, &[], "") } else { plain(200, HOUR, &number.to_string()) }
    })
    .await;
    both.get(&[]).await;
    assert!(both.get(&[]).await.is_hit());
    both.ask("POST", "a", &[]).await;
    let head = both.ask("HEAD", "a", &[]).await;
    assert_eq!(head.status, StatusCode::OK);
    let read = both.get(&[]).await;
    assert!(!read.is_hit() && read.text() != "1", "{}", read.text());
}

/// What a stranger says beside the first line decides nothing for others.
#[tokio::test]
async fn the_answer_to_another_target_is_nobody_elses() {
    let both = Both::always(HOUR).await;
    for (source, name) in [("a", "x-original-url"), ("b", "X-Rewrite-URL")] {
        let mine = both.ask("GET", source, &[(name, "/elsewhere")]).await;
        let theirs = both.ask("GET", source, &[]).await;
        assert_ne!(mine.text(), theirs.text(), "{name}");
    }
}

/// Section 3.5, and what a client says of himself: an answer to his `HEAD` gives others nothing.
#[tokio::test]
async fn what_one_client_gets_for_head_is_not_given_to_others() {
    let both = Both::saying("", |_, request| {
        let mut answer = plain(200, HOUR, "1");
        if request.method() == "HEAD" {
            answer.headers_mut().insert("set-cookie", "session=alice".parse().unwrap());
        }
        answer
    })
    .await;
    both.get(&[]).await;
    for fields in [
        &[("authorization", "x"), ("if-match", "*")][..],
        &[("x-original-url", "/elsewhere"), ("if-match", "*")],
        &[("if-match", "*")],
    ] {
        assert_eq!(both.ask("HEAD", "a", fields).await.status, StatusCode::OK);
        let read = both.get(&[]).await;
        assert!(read.is_hit() && read.header("set-cookie").is_none(), "{fields:?}");
    }
}

/// A 304 of another target says nothing of this one.
#[tokio::test]
async fn a_304_of_another_target_brings_nothing_back() {
    const TAGGED: Fields = &[("cache-control", "max-age=3600"), ("etag", "\"1\"")];
    let both = Both::saying("", move |number, request| {
        if request.method() == "POST" {
            plain(200, &[], "")
        } else if request.headers().contains_key("x-original-url") && request.headers().contains_key("if-none-match") {
            super::not_modified(TAGGED)
        } else {
            plain(200, if number == 1 { TAGGED } else { HOUR }, &number.to_string())
        }
    })
    .await;
    both.get(&[]).await;
    both.ask("POST", "a", &[]).await;
    both.get(&[("x-original-url", "/elsewhere")]).await;
    let read = both.get(&[]).await;
    assert_ne!(read.text(), "1");
}

/// What a client has taken out of his request on the way chooses nothing: the upstream did not see it.
#[tokio::test]
async fn a_field_that_the_upstream_was_not_shown_chooses_no_answer() {
    const BY_TENANT: Fields = &[("cache-control", "max-age=3600"), ("vary", "x-tenant")];
    let both = Both::saying("", |_, request| {
        let tenant = request.headers().get("x-tenant").map_or("none", |tenant| tenant.to_str().unwrap());
        plain(200, BY_TENANT, tenant)
    })
    .await;
    assert_eq!(both.get(&[("connection", "x-tenant"), ("x-tenant", "7")]).await.text(), "none");
    assert_eq!(both.get(&[("x-tenant", "7")]).await.text(), "7");
}

/// A list of which it cannot be told whom it is about is not kept: no event would reach it.
#[tokio::test]
async fn a_list_that_cannot_be_looked_into_is_not_kept() {
    for (status, fields) in [
        (200, &[("content-encoding", "deflate")][..]),
        // It is not in it.
        (200, &[("content-encoding", "gzip")]),
        (203, &[]),
        (206, &[("content-range", "bytes 0-1/9")]),
        (200, &[("content-type", "application/vnd.api+json")]),
    ] {
        let both = Both::saying("", move |_, _| {
            let mut list = with_fields(answer(status, "application/json", "[]"), HOUR);
            for (name, value) in fields {
                list.headers_mut().insert(*name, value.parse().unwrap());
            }
            list
        })
        .await;
        both.get(&[]).await;
        assert!(!both.get(&[]).await.is_hit(), "{status} {fields:?}");
    }
}
