//! Content codings: RFC 9110 sections 8.4, 12.5.3 and 12.5.5.

use std::io::{Read, Write};

use anteroom::engine::memory::taken;
use anteroom::policy::http::encoding::Coding;
use anteroom::policy::http::key::Key;
use anteroom_stand_in::{INBOX, Shape};
use bytes::Bytes;
use http::StatusCode;

use super::{Asked, in_coding, json_with, list};
use crate::support::raw::Scripted;
use crate::support::script::{answer, json};
use crate::support::{Answer, Proxy, both, get_with, post, request, send, settings, spawn};

const CODINGS: [&str; 3] = ["gzip", "br", "zstd"];
const LONG: Shape = Shape { conversations: 10, messages: 10, bytes: 2000 };

fn decoded(answer: &Answer) -> Vec<u8> {
    let mut plain = Vec::new();
    match answer.header("content-encoding") {
        None => plain.extend_from_slice(&answer.body),
        Some("gzip") => drop(flate2::read::GzDecoder::new(&*answer.body).read_to_end(&mut plain).unwrap()),
        Some("br") => drop(brotli::Decompressor::new(&*answer.body, 4096).read_to_end(&mut plain).unwrap()),
        Some("zstd") => plain = zstd::stream::decode_all(&*answer.body).unwrap(),
        Some(other) => panic!("{other}"),
    }
    plain
}

fn encoded(coding: &str, plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match coding {
        "gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(&mut out, flate2::Compression::fast());
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap();
        }
        "br" => brotli::CompressorWriter::new(&mut out, 4096, 4, 20).write_all(plain).unwrap(),
        "zstd" => out = zstd::stream::encode_all(plain, 1).unwrap(),
        other => panic!("{other}"),
    }
    out
}

async fn asking(proxy: &Proxy, source: &str, accepted: &str) -> Answer {
    get_with(&proxy.list_url(source), &[("accept-encoding", accepted)]).await
}

fn vary(answer: &Answer) -> Vec<&str> {
    answer.headers.get_all("vary").iter().map(|vary| vary.to_str().unwrap()).collect()
}

fn key(source: &str) -> Key {
    Key::new(INBOX, source, None)
}

/// RFC 9110 sections 8.4 and 12.5.5; section 9.3.2 for `HEAD`.
#[tokio::test]
async fn each_coding_decodes_to_the_plain_body_and_says_so() {
    let (stand_in, proxy) = both("").await;
    stand_in.seed("long", LONG);
    for source in ["visitor-a", "visitor-b", "long"] {
        let plain = proxy.list(source).await;
        assert_eq!(plain.header("content-encoding"), None);
        for coding in CODINGS {
            let coded = asking(&proxy, source, coding).await;
            assert!(coded.is_hit(), "{}", coded.cache_status());
            assert_eq!(coded.header("content-encoding"), Some(coding));
            assert!(coded.body.len() < plain.body.len() / 2, "{coding}: {}", coded.body.len());
            assert!(decoded(&coded) == stand_in.list_body(source), "{source} in {coding}");
            assert_eq!(coded.header("content-length"), Some(coded.body.len().to_string().as_str()));
            assert_eq!(
                (vary(&coded), vary(&plain)),
                (vec!["Origin", "Accept-Encoding"], vec!["Origin", "Accept-Encoding"])
            );
            let head = send(request("HEAD", &proxy.list_url(source), &[("accept-encoding", coding)], "")).await;
            assert_eq!(head.body.len(), 0);
            for name in ["content-length", "content-encoding", "etag", "vary", "content-type"] {
                assert_eq!(head.header(name), coded.header(name), "{name}");
            }
        }
        assert_eq!(stand_in.list_requests(source), 1);
    }
}

/// The reader that begins the fetch and those that join it get their own forms of it.
#[tokio::test]
async fn a_miss_is_answered_in_the_coding_asked_for() {
    let (stand_in, proxy) = both("").await;
    let miss = asking(&proxy, "visitor-a", "gzip, deflate, br, zstd").await;
    assert!(miss.cache_status().contains("stored"));
    assert_eq!(
        (miss.header("content-encoding"), decoded(&miss).as_slice()),
        (Some("zstd"), &*stand_in.list_body("visitor-a"))
    );
}

/// One body in memory for each coding, however many ask at once, and all of them get it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_coding_is_made_once_and_counted() {
    let (stand_in, proxy) = both("").await;
    stand_in.seed("long", LONG);
    proxy.list("long").await;
    for coding in CODINGS {
        let (free, (_, weight)) = (proxy.state.cache.memory.free(), proxy.state.cache.store.size());
        let url = proxy.list_url("long");
        let readers: Vec<_> = (0..40)
            .map(|_| {
                let url = url.clone();
                spawn(async move { get_with(&url, &[("accept-encoding", coding)]).await })
            })
            .collect();
        let mut bodies = Vec::new();
        for reader in readers {
            let answer = reader.await.unwrap();
            assert_eq!(answer.header("content-encoding"), Some(coding), "whoever comes meanwhile waits for it");
            bodies.push(answer.body);
        }
        assert!(bodies.iter().all(|body| *body == bodies[0]), "{coding}");
        let length = bodies[0].len() as u64;
        let memory = &proxy.state.cache.memory;
        assert_eq!(free - memory.free(), length.next_multiple_of(1024), "{coding}");
        let (added, taken) =
            (proxy.state.cache.store.size().1 - weight, taken(&memory.keep(&bodies[0]).unwrap()) as u64);
        assert!((taken..taken + 512).contains(&added), "{coding}: {added} for {taken} and where they are kept");
    }
    let told = proxy.metric("anteroom_cache_bytes").await;
    #[expect(clippy::cast_precision_loss, reason = "a few hundred thousand bytes")]
    let weighed = proxy.state.cache.store.size().1 as f64;
    assert!((told - weighed).abs() < 0.1, "{told}");
}

#[tokio::test]
async fn an_answer_that_was_replaced_is_not_put_back_when_it_is_weighed() {
    let (stand_in, proxy) = both("").await;
    proxy.list("visitor-a").await;
    let old = proxy.state.cache.store.get(&key("visitor-a")).unwrap();
    let conversation = stand_in.conversation_ids("visitor-a")[0];
    post(&format!("{}/{conversation}/messages", proxy.list_url("visitor-a")), r#"{"content":"one more"}"#).await;
    let new = proxy.list("visitor-a").await;
    proxy.state.cache.store.reweigh(&key("visitor-a"), &old);
    assert_eq!(proxy.state.cache.store.get(&key("visitor-a")).unwrap().answer.body, new.body.into());
    // Nor if nothing took its place.
    proxy.state.cache.store.forget(&key("visitor-a"), proxy.state.invalidation.ledger.now());
    proxy.state.cache.store.reweigh(&key("visitor-a"), &old);
    assert!(proxy.state.cache.store.get(&key("visitor-a")).is_none());
}

#[tokio::test]
async fn a_short_body_is_sent_as_it_is() {
    let (stand_in, proxy) = both("encoding.min_size = \"1MiB\"").await;
    let plain = asking(&proxy, "visitor-a", "gzip, br, zstd").await;
    assert_eq!((plain.header("content-encoding"), &plain.body), (None, &stand_in.list_body("visitor-a")));
    assert_eq!(vary(&asking(&proxy, "visitor-a", "gzip").await), ["Origin", "Accept-Encoding"]);
}

/// RFC 9110 section 12.5.3: no body without coding for whoever refuses it, unless there is no other.
#[tokio::test]
async fn who_refuses_a_body_without_coding_gets_one_even_if_it_is_longer() {
    let (stand_in, proxy) = both("").await;
    for source in ["visitor-a", "visitor-c"] {
        for coding in CODINGS {
            let coded = asking(&proxy, source, &format!("{coding}, identity;q=0")).await;
            assert_eq!(coded.header("content-encoding"), Some(coding), "{source}");
            assert!(decoded(&coded) == stand_in.list_body(source));
            let any = asking(&proxy, source, &format!("{coding}, *;q=0")).await;
            assert_eq!(any.header("content-encoding"), Some(coding), "{source}");
        }
        let unknown = asking(&proxy, source, "dcb, identity;q=0").await;
        assert_eq!((unknown.status, unknown.header("content-encoding")), (StatusCode::OK, None));
    }
    assert_eq!(asking(&proxy, "visitor-c", "gzip").await.header("content-encoding"), None, "two bytes");
}

#[tokio::test]
async fn without_codings_to_offer_answers_do_not_vary_by_them() {
    let (_stand_in, proxy) = both("encoding.offer = []").await;
    for _ in 0..2 {
        let answer = asking(&proxy, "visitor-a", "gzip, br, zstd").await;
        assert_eq!((answer.header("content-encoding"), vary(&answer)), (None, vec!["Origin"]));
    }
}

/// RFC 9110 section 12.5.5: whatever is sent in a coding says that it varies by it.
#[tokio::test]
async fn answers_from_before_a_reload_that_offers_codings_do_not_lack_vary() {
    let (stand_in, proxy) = both("encoding.offer = []").await;
    asking(&proxy, "visitor-a", "gzip").await;
    proxy.state.reload(settings(&stand_in.url(), "encoding.offer = [\"gzip\"]")).unwrap();
    for _ in 0..2 {
        let answer = asking(&proxy, "visitor-a", "gzip").await;
        assert_eq!(answer.header("content-encoding"), Some("gzip"));
        assert_eq!(vary(&answer), ["Origin", "Accept-Encoding"]);
    }
}

#[tokio::test]
async fn a_trimmed_list_is_coded_as_it_was_trimmed() {
    let (stand_in, proxy) = both("payload.trim.messages_per_conversation = 1").await;
    stand_in.seed("long", LONG);
    let plain = proxy.list("long").await;
    assert!(plain.body.len() < stand_in.list_body("long").len() / 5);
    for coding in CODINGS {
        let coded = asking(&proxy, "long", coding).await;
        assert!(coded.is_hit() && decoded(&coded) == plain.body, "{coding}");
        assert_eq!(coded.header("etag"), plain.header("etag"));
    }
}

/// Encoding may not take all processors: who comes while too much is being made gets the plain body, and says nothing
/// of later readers.
#[tokio::test]
async fn the_plain_body_is_sent_while_too_many_others_are_being_made() {
    let (stand_in, proxy) = both("").await;
    proxy.list("visitor-a").await;
    let state = proxy.state.clone();
    let all = state
        .cache
        .encoding
        .try_acquire_many(u32::try_from(state.cache.encoding.available_permits()).unwrap())
        .unwrap();
    let plain = asking(&proxy, "visitor-a", "gzip").await;
    assert_eq!((plain.header("content-encoding"), &plain.body), (None, &stand_in.list_body("visitor-a")));
    assert_eq!(vary(&plain), ["Origin", "Accept-Encoding"]);
    drop(all);
    assert_eq!(asking(&proxy, "visitor-a", "gzip").await.header("content-encoding"), Some("gzip"));
}

/// RFC 9110 section 8.4: a front of the API may compress though a shared fetch asks it not to.
#[tokio::test]
async fn an_upstream_that_compresses_is_understood() {
    for coding in CODINGS {
        let upstream = Asked::start(move |_| {
            let answer = json_with("", &[("vary", "Accept-Encoding"), ("etag", "\"strong\"")]);
            in_coding(answer, coding, encoded(coding, list(5000).as_bytes()))
        })
        .await;
        let proxy = Proxy::in_front_of(&upstream.script.url, "").await;
        let plain = proxy.list("visitor-a").await;
        assert!(plain.cache_status().contains("stored"), "{coding}: {}", plain.cache_status());
        assert_eq!((plain.header("content-encoding"), &plain.body), (None, &Bytes::from(list(5000))));
        assert_eq!(plain.header("etag"), Some("W/\"strong\""), "these are not the upstream's bytes");
        assert_eq!(upstream.last("accept-encoding").as_deref(), Some("identity"));
        for other in CODINGS {
            let coded = asking(&proxy, "visitor-a", other).await;
            assert!(coded.is_hit() && decoded(&coded) == plain.body, "{coding} {other}");
        }
        assert_eq!((upstream.lists(), vary(&plain)), (1, vec!["Accept-Encoding"]));
    }
}

/// An empty list names nobody: whose it is, the upstream is asked, and that answer may be compressed, too.
#[tokio::test]
async fn an_empty_list_of_an_upstream_that_compresses_is_kept() {
    let script = crate::support::script::Script::start(|request| {
        let body = if request.uri().path().ends_with("/conversations") { "[]" } else { r#"{"id":42}"# };
        in_coding(json(""), "gzip", encoded("gzip", body.as_bytes()))
    })
    .await;
    let proxy = Proxy::in_front_of(&script.url, "").await;
    assert!(proxy.list("visitor-a").await.cache_status().contains("stored"));
    let hit = proxy.list("visitor-a").await;
    assert!(hit.is_hit() && hit.body == "[]", "{}", hit.cache_status());
}

#[tokio::test]
async fn a_bomb_is_passed_on_as_it_came_and_not_unpacked() {
    for coding in CODINGS {
        let bomb = encoded(coding, &vec![b' '; 20 << 20]);
        let sent = bomb.clone();
        let upstream = Asked::start(move |_| in_coding(json(""), coding, sent.clone())).await;
        let proxy = Proxy::in_front_of(&upstream.script.url, "").await;
        let free = proxy.state.cache.memory.free();
        for _ in 0..2 {
            let answer = asking(&proxy, "visitor-a", coding).await;
            assert_eq!((answer.status, answer.header("content-encoding")), (StatusCode::OK, Some(coding)));
            assert!(
                answer.body == bomb && answer.cache_status().ends_with("detail=too_large"),
                "{}",
                answer.cache_status()
            );
        }
        assert_eq!((proxy.state.cache.store.size().0, proxy.state.cache.memory.free()), (0, free));
    }
}

/// What is unpacked is counted like everything else that is collected.
#[tokio::test]
async fn a_body_that_finds_no_memory_to_be_unpacked_in_is_passed_on() {
    let body = encoded("gzip", list(900_000).as_bytes());
    let room_for_it = body.len() as u64 + 100_000;
    let upstream = Asked::start(move |_| in_coding(json(""), "gzip", body.clone())).await;
    let settings = "cache.memory = \"1MiB\"\ncache.fetch_memory = \"1MiB\"\ncache.max_body = \"1MiB\"";
    let proxy = Proxy::in_front_of(&upstream.script.url, settings).await;
    let held = proxy.state.cache.memory.room(Some(proxy.state.cache.memory.free() - room_for_it), 2 << 20).await;
    let passed = asking(&proxy, "visitor-a", "gzip").await;
    assert!(passed.cache_status().ends_with("detail=too_large"), "{}", passed.cache_status());
    assert!(decoded(&passed) == list(900_000).as_bytes());
    drop(held);
}

#[tokio::test]
async fn an_unknown_coding_is_passed_on_and_not_shared() {
    for coding in ["compress", "gzip, br"] {
        let upstream = Asked::start(move |_| in_coding(json(""), coding, b"whatever".to_vec())).await;
        let proxy = Proxy::in_front_of(&upstream.script.url, "").await;
        for _ in 0..2 {
            let answer = asking(&proxy, "visitor-a", "compress").await;
            assert_eq!((answer.header("content-encoding"), &*answer.body), (Some(coding), &b"whatever"[..]));
            assert!(answer.cache_status().ends_with("detail=not_storable"), "{}", answer.cache_status());
        }
        assert_eq!(upstream.lists(), 2);
    }
}

#[tokio::test]
async fn what_cannot_be_decoded_is_a_bad_gateway() {
    for coding in CODINGS {
        let whole = encoded(coding, list(5000).as_bytes());
        for broken in [whole[..whole.len() / 2].to_vec(), b"[] is not encoded".to_vec()] {
            let upstream = Asked::start(move |_| in_coding(json(""), coding, broken.clone())).await;
            let proxy = Proxy::in_front_of(&upstream.script.url, "").await;
            let answer = proxy.list("visitor-a").await;
            assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "{coding}");
            assert_eq!(answer.cache_status(), "anteroom; fwd=uri-miss; detail=malformed");
        }
    }
}

/// An error is shared by all who wait for its fetch, and none of them asked for a coding in it.
#[tokio::test]
async fn an_error_that_was_compressed_can_be_read() {
    for (coding, body, expected) in [
        ("gzip", encoded("gzip", b"{\"status\":500}"), "{\"status\":500}"),
        ("zstd", encoded("zstd", b"{\"status\":500}"), "{\"status\":500}"),
        ("compress", b"whatever".to_vec(), ""),
        ("br", b"not encoded".to_vec(), ""),
    ] {
        let upstream =
            Asked::start(move |_| in_coding(answer(500, "application/json", ""), coding, body.clone())).await;
        let proxy = Proxy::in_front_of(&upstream.script.url, "").await;
        let answer = proxy.list("visitor-a").await;
        assert_eq!((answer.status.as_u16(), answer.header("content-encoding")), (500, None), "{coding}");
        assert_eq!(answer.text(), expected, "{coding}");
    }
}

/// RFC 9659: a sender of this coding needs no larger window than 8 MiB, so no receiver has to find memory for one.
#[tokio::test]
async fn a_window_that_is_too_large_is_malformed() {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(list(5000).as_bytes()).unwrap();
    let body = encoder.finish().unwrap();
    let mut sent = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: zstd\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    sent.extend(body);
    let upstream = Scripted::answering(sent).await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    assert_eq!(proxy.list("visitor-a").await.status, StatusCode::BAD_GATEWAY);
}

/// The cell in which a form is kept is there for each coding of each entry.
#[tokio::test]
async fn what_was_made_is_kept_with_its_entry() {
    let (_stand_in, proxy) = both("").await;
    let coded = asking(&proxy, "visitor-a", "br").await;
    let entry = proxy.state.cache.store.get(&key("visitor-a")).unwrap();
    assert_eq!(entry.coded(Coding::Brotli).get(), Some(&Some(coded.body.into())));
    assert_eq!(entry.coded(Coding::Gzip).get(), None, "nobody asked");
}

/// `cache.compress`: kept in zstd, sent so to whoever takes that, and the same to everybody else as if it were not.
#[tokio::test]
async fn a_list_that_is_kept_in_zstd_is_the_same_for_everybody() {
    let (stand_in, plain) = both("").await;
    let packing = Proxy::of(settings(&stand_in.url(), "cache.compress = \"zstd\"")).await;
    stand_in.seed("long", LONG);
    for source in ["long", "visitor-a"] {
        let whole = plain.list(source).await;
        // A miss first, then hits.
        for accepted in ["identity", "identity", "zstd", "gzip", "br", "gzip;q=0.5, identity", "*"] {
            let (expected, answer) = (asking(&plain, source, accepted).await, asking(&packing, source, accepted).await);
            assert_eq!(answer.header("content-encoding"), expected.header("content-encoding"), "{source} {accepted}");
            assert_eq!(answer.header("etag"), expected.header("etag"), "{source} {accepted}");
            assert_eq!(decoded(&answer), whole.body, "{source} {accepted}");
        }
        let etag = whole.header("etag").expect("a validator");
        for accepted in ["identity", "zstd", "gzip"] {
            let asked = [("accept-encoding", accepted), ("if-none-match", etag)];
            assert_eq!(get_with(&packing.list_url(source), &asked).await.status, StatusCode::NOT_MODIFIED);
        }
        let head = send(request("HEAD", &packing.list_url(source), &[("accept-encoding", "identity")], "")).await;
        assert_eq!((head.header("content-length"), head.body.len()), (Some(&*whole.body.len().to_string()), 0));
    }
    let kept = packing.state.cache.store.get(&key("long")).expect("it is kept");
    assert_eq!(kept.answer.body.coding(), Some(Coding::Zstd));
    assert_eq!(asking(&packing, "long", "zstd").await.body, kept.answer.body.kept().to_bytes(), "sent as it is kept");
}

/// What is unpacked is counted like every other body, and a reader for whom there is no room hears so soon.
#[tokio::test]
async fn an_unpacked_list_is_counted_and_one_without_room_is_refused() {
    let settings =
        "cache.compress = \"zstd\"\ncache.memory = \"1MiB\"\ncache.fetch_memory = \"1MiB\"\ncache.max_body = \"1MiB\"";
    let (stand_in, proxy) = both(settings).await;
    stand_in.seed("long", LONG);
    let whole = asking(&proxy, "long", "identity").await;
    let free = proxy.state.cache.memory.free();
    let all = proxy.state.cache.memory.room_at_once(usize::try_from(free).unwrap(), u64::MAX).expect("it is free");
    let refused = asking(&proxy, "long", "identity").await;
    assert_eq!((refused.status, refused.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, Some("1")));
    assert_eq!(decoded(&asking(&proxy, "long", "zstd").await), whole.body, "what is sent as it is kept needs none");
    drop(all);
    assert_eq!(asking(&proxy, "long", "identity").await.body, whole.body);
    assert_eq!(proxy.state.cache.memory.free(), free);
}
