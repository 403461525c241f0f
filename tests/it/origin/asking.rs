//! RFC 9111 section 5.2.1 with `cache.client_directives = "obey"`, and what goes to the upstream: with others, or alone.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::{Both, Fields, ORIGIN, not_modified, plain};
use crate::support::raw::Scripted;
use crate::support::script::Script;
use crate::support::{Proxy, get_with, jump, spawn};

const HOUR: Fields = &[("cache-control", "max-age=3600")];

/// The fetch has the end-to-end fields of whoever asked.
#[tokio::test]
async fn the_upstream_gets_the_fields_of_whoever_asked() {
    let both = Both::always(HOUR).await;
    let asked = [
        ("accept-language", "de"),
        ("cookie", "a=b"),
        ("x-own", "1"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("origin", "https://a.test"),
    ];
    both.get(&asked).await;
    let seen = both.last();
    for (name, value) in [("accept-language", "de"), ("cookie", "a=b"), ("x-own", "1"), ("origin", "https://a.test")] {
        assert_eq!(seen.header(name), Some(value));
    }
    assert_eq!((seen.header("x-hop"), seen.header("accept-encoding")), (None, None));
    assert!(seen.header("via").unwrap().starts_with("1.1 anteroom ("));
}

/// Conditions and parts of the client's own go on where there is nothing stored, and not where what is stored is asked about.
#[tokio::test]
async fn a_question_of_the_clients_own_goes_on_if_there_is_none_of_ours() {
    let both = Both::saying("", |_, request| match request.headers().get("if-none-match") {
        Some(tag) if tag == "\"a\"" => not_modified(&[("etag", "\"a\""), ("cache-control", "max-age=10")]),
        Some(_) => not_modified(&[]),
        None => plain(200, &[("etag", "\"a\""), ("cache-control", "max-age=10")], "0123"),
    })
    .await;
    let own = both.get(&[("if-none-match", "\"mine\"")]).await;
    assert_eq!((own.status.as_u16(), both.last().header("if-none-match")), (304, Some("\"mine\"")));
    assert_eq!(own.cache_status(), "anteroom; fwd=uri-miss; fwd-status=304; detail=not-whole");
    both.get(&[]).await;
    jump(Duration::from_secs(15)).await;
    let part = both.get(&[("range", "bytes=1-2"), ("if-none-match", "\"mine\"")]).await;
    assert_eq!((part.status.as_u16(), part.text().as_str()), (206, "12"));
    assert_eq!((both.last().header("if-none-match"), both.last().header("range")), (Some("\"a\""), None));
    jump(Duration::from_secs(15)).await;
    let held = both.get(&[("if-none-match", "\"x\", \"a\"")]).await;
    assert_eq!(
        (held.status.as_u16(), held.cache_status()),
        (304, "anteroom; fwd=stale; fwd-status=304; stored; ttl=10")
    );
    assert_eq!(both.asked(), 4);
}

/// Section 5.2.1: nothing of it without the setting, all of it with it.
#[tokio::test]
async fn what_a_client_asks_for_is_done_if_it_is_obeyed() {
    const OBEY: &str = "cache.client_directives = \"obey\"\n";
    for (fields, later, reason) in [
        (&[("cache-control", "no-cache")][..], 5, "request"),
        (&[("cache-control", "max-age=0")], 5, "request"),
        (&[("cache-control", "max-age=4")], 5, "request"),
        (&[("cache-control", "min-fresh=10")], 5, "request"),
        (&[("pragma", "no-cache")], 5, "request"),
        (&[("cache-control", "x"), ("pragma", "no-cache")], 5, "hit"),
        (&[("cache-control", "max-age=9")], 5, "hit"),
        (&[("cache-control", "max-stale=10")], 15, "hit"),
        (&[("cache-control", "max-stale=1")], 15, "stale"),
        (&[], 15, "stale"),
    ] {
        for obey in [true, false] {
            let both =
                Both::saying(if obey { OBEY } else { "" }, |_, _| plain(200, &[("cache-control", "max-age=10")], "x"))
                    .await;
            both.get(&[]).await;
            jump(Duration::from_secs(later)).await;
            let told = both.get(fields).await.cache_status().to_owned();
            let expected = if obey {
                reason
            } else if later < 10 {
                "hit"
            } else {
                "stale"
            };
            assert!(told.contains(expected), "{fields:?} {obey}: {told}");
        }
    }
    let both = Both::saying(OBEY, |_, _| plain(200, HOUR, "x")).await;
    let only = [("cache-control", "only-if-cached")];
    let none = both.get(&only).await;
    assert_eq!((none.status.as_u16(), none.cache_status(), both.asked()), (504, "anteroom; detail=only-if-cached", 0));
    let unkept = both.get(&[("cache-control", "no-store")]).await;
    assert_eq!(unkept.cache_status(), "anteroom; fwd=uri-miss; fwd-status=200; detail=no-store");
    both.get(&[]).await;
    assert!(both.get(&only).await.is_hit());
}

/// Readers, all of whom are asking before the upstream answers one of them; what each was told.
async fn crowd(fields: Fields, asked: &'static [Fields]) -> (Vec<String>, usize) {
    let gate = Arc::new(Semaphore::new(0));
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = count.clone();
    let upstream = Script::gated(gate.clone(), move |_| {
        counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        plain(200, fields, "x")
    })
    .await;
    let proxy = Proxy::in_front_of(&upstream.url, ORIGIN).await;
    let url = proxy.list_url("a");
    let mut readers = Vec::new();
    for (number, asked) in asked.iter().enumerate() {
        let url = url.clone();
        readers.push(spawn(async move { get_with(&url, asked).await }));
        proxy.wait_for_metric("anteroom_waiters", (number + 1) as f64).await;
    }
    gate.add_permits(Semaphore::MAX_PERMITS >> 4);
    let mut told = Vec::new();
    for reader in readers {
        told.push(reader.await.unwrap().cache_status().to_owned());
    }
    (told, count.load(std::sync::atomic::Ordering::SeqCst))
}

/// Section 4: requests are collapsed, if each of them may be answered with what comes.
#[tokio::test]
async fn those_who_ask_at_once_share_what_they_may_share() {
    const PLAIN: &[Fields] = &[&[], &[], &[]];
    const DIFFERENT: &[Fields] = &[&[("foo", "1")], &[("foo", "2")], &[("foo", "1")], &[("foo", "2")], &[("foo", "2")]];
    let (told, asked) = crowd(HOUR, PLAIN).await;
    assert_eq!((told[0].as_str(), asked), ("anteroom; fwd=uri-miss; fwd-status=200; stored; ttl=3600", 1));
    assert_eq!(told[1..], ["anteroom; fwd=uri-miss; fwd-status=200; collapsed; ttl=3600"; 2]);
    for fields in [
        &[("cache-control", "no-store")][..],
        &[("cache-control", "private, max-age=10")],
        &[("cache-control", "max-age=0")],
        &[("cache-control", "no-cache")],
        &[("cache-control", "max-age=10"), ("vary", "*")],
    ] {
        let (told, asked) = crowd(fields, PLAIN).await;
        assert_eq!(asked, 3, "{fields:?}: {told:?}");
        assert!(told.iter().all(|told| !told.contains("collapsed")), "{fields:?}: {told:?}");
    }
    let (told, asked) = crowd(&[("cache-control", "max-age=10"), ("vary", "foo")], DIFFERENT).await;
    assert_eq!((asked, told[2].contains("collapsed")), (2, true), "{told:?}");
    // Those who want the other one wait for each other when it is known what answers differ by.
    let leads = |told: &&String| told.starts_with("anteroom; fwd=") && !told.contains("collapsed");
    assert_eq!([&told[1], &told[3], &told[4]].into_iter().filter(leads).count(), 1, "{told:?}");
}

/// Section 4: whoever waits for an answer that he may not have is let go when its head tells, whatever its body does.
#[tokio::test]
async fn who_waits_for_nothing_is_let_go_at_the_head() {
    for said in ["max-age=0", "no-cache, max-age=9", "max-age=0, stale-while-revalidate=9"] {
        let gates = || Arc::new(Semaphore::new(0));
        let (heads, body) = (gates(), gates());
        let (held_heads, held_body) = (heads.clone(), body.clone());
        let upstream = Scripted::start(move |number, mut talk| {
            let (heads, body) = (held_heads.clone(), held_body.clone());
            async move {
                let _ = talk.message().await;
                heads.acquire().await.unwrap().forget();
                talk.send(format!("HTTP/1.1 200 OK\r\ncache-control: {said}\r\ncontent-length: 1\r\n\r\n")).await;
                if number == 0 {
                    body.acquire().await.unwrap().forget();
                }
                talk.send(number.to_string()).await;
            }
        })
        .await;
        let proxy = Proxy::in_front_of(&upstream.url(), ORIGIN).await;
        let url = proxy.list_url("a");
        let mut readers = Vec::new();
        for number in 1..=2 {
            let url = url.clone();
            readers.push(spawn(async move { get_with(&url, &[]).await }));
            proxy.wait_for_metric("anteroom_waiters", f64::from(number)).await;
        }
        heads.add_permits(2);
        let second = readers.pop().unwrap().await.unwrap();
        assert!(second.text() == "1" && !second.cache_status().contains("collapsed"), "{}", second.cache_status());
        body.add_permits(1);
        assert_eq!(readers.pop().unwrap().await.unwrap().text(), "0", "{said}");
    }
}
