//! Memory is bounded by bytes in fact: what the settings allow and a fixed allowance, whatever passes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anteroom_stand_in::StandIn;
use tokio::io::AsyncWriteExt;

use crate::support::child::Program;
use crate::support::raw::{Scripted, Talk};

const MIB: u64 = 1024 * 1024;
const SETTINGS: &str =
    "cache.memory = \"64MiB\"\ncache.fetch_memory = \"64MiB\"\ncache.ttl = \"9m\"\nlog.level = \"warn\"\n";
/// `cache.memory` and `cache.fetch_memory` together.
const ALLOWED: u64 = 128 * MIB;
/// What the program may take besides: itself and its fixed tables (25 MiB), what is remembered of 200,000 sources at
/// most (25 MiB), buffers of connections, and what the allocator keeps of small answers that went.
const ALLOWANCE: u64 = 128 * MIB;

const KEYS: usize = 100_000;
const LARGE: usize = 300;
const LARGE_BODY: usize = 16 * 1024 * 1024;
const CLIENTS: usize = 6;

/// A list of one conversation whose one message fills it up to `length`.
fn list(length: usize) -> Vec<u8> {
    let head =
        r#"[{"id":7,"uuid":"4b1f7a0e-6f1c-4d0a-9a55-0d3c8b7f1a11","contact":{"id":42},"messages":[{"id":1,"content":""#;
    let tail = r#""}]}]"#;
    let filler = length.saturating_sub(head.len() + tail.len());
    format!("{head}{}{tail}", "x".repeat(filler)).into_bytes()
}

/// Answers every list, without looking: large ones to contacts named `large`, with a length or in chunks by turns.
async fn upstream() -> Scripted {
    let large = Arc::new(list(LARGE_BODY));
    let small = list(500);
    let fields = "HTTP/1.1 200 OK\r\ncontent-type: application/json; charset=utf-8\r\netag: W/\"a\"\r\n\
                  cache-control: max-age=0, private, must-revalidate\r\nvary: Origin\r\naccess-control-allow-origin: *\r\n";
    let small = [format!("{fields}content-length: {}\r\n\r\n", small.len()).into_bytes(), small].concat();
    let turn = Arc::new(AtomicUsize::new(0));
    Scripted::start(move |_, mut talk| {
        let (large, small, turn) = (large.clone(), small.clone(), turn.clone());
        async move {
            while let Some(head) = talk.head().await {
                if !head.contains("/contacts/large") {
                    talk.send(&small).await;
                } else if turn.fetch_add(1, Ordering::Relaxed) % 2 == 0 {
                    talk.send(format!("{fields}content-length: {}\r\n\r\n", large.len())).await;
                    talk.send(&*large).await;
                } else {
                    talk.send(format!("{fields}transfer-encoding: chunked\r\n\r\n")).await;
                    for chunk in large.chunks(256 * 1024) {
                        talk.send(format!("{:x}\r\n", chunk.len())).await;
                        talk.send(chunk).await;
                        talk.send("\r\n").await;
                    }
                    talk.send("0\r\n\r\n").await;
                }
            }
        }
    })
    .await
}

/// Reads lists named `name` and a number below `count`, by several clients at once.
async fn read(program: &Program, name: &'static str, count: usize) {
    let next = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (url, next) = (program.url.clone(), next.clone());
            tokio::spawn(async move {
                let mut talk = Talk::to(&url).await;
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let path = StandIn::list_path(&format!("{name}-{number}"));
                    talk.send(format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n")).await;
                    talk.skip_message().await;
                }
            })
        })
        .collect();
    for client in clients {
        client.await.expect("all is read");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_keys_and_300_large_answers_stay_within_the_bound() {
    let upstream = upstream().await;
    let program = Program::serve(&upstream.url(), SETTINGS).await;
    let idle = program.memory("VmRSS");
    read(&program, "small", KEYS).await;
    let keys = program.memory("VmHWM");
    let entries = program.metric("anteroom_cache_entries").await;
    let bytes = program.metric("anteroom_cache_bytes").await;
    read(&program, "large", LARGE).await;
    let large = program.memory("VmHWM");
    println!(
        "resident: {} MiB idle, {} MiB at most after {KEYS} keys ({entries} kept, {} MiB by our count), {} MiB at most after {LARGE} of 16 MiB, {} MiB now",
        idle / MIB,
        keys / MIB,
        bytes / MIB as f64,
        large / MIB,
        program.memory("VmRSS") / MIB,
    );
    assert!(entries > 10_000.0 && bytes <= 64.0 * MIB as f64, "{entries} entries of {bytes} bytes");
    assert!(keys < idle + 64 * MIB + ALLOWANCE, "{keys}");
    assert!(large < ALLOWED + ALLOWANCE, "{large}");
}

/// So many connections at once.
const CROWD: usize = 300;
/// What one connection may hold whose other side takes nothing: a few parts of a body, either way.
const EACH: u64 = 128 * 1024;
/// What is left of a burst when it is over.
const LEFT: u64 = 12 * MIB;

/// An upstream that reads no bodies, and answers `GET` with 4 MiB.
async fn upstream_without_ears() -> Scripted {
    let body = Arc::new(vec![b'x'; 4 << 20]);
    Scripted::start(move |_, mut talk| {
        let body = body.clone();
        async move {
            while let Some(head) = talk.head().await {
                if !head.starts_with("GET") {
                    // Until the test is over.
                    return std::future::pending().await;
                }
                talk.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len())).await;
                // Whoever asked may leave.
                if talk.stream.write_all(&body).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

/// Opens connections that each send a head and then as many bytes as are taken.
async fn crowd(program: &Program, count: usize, head: &str, filler: usize) -> Vec<Talk> {
    let filler = vec![b'x'; filler];
    let mut crowd = Vec::new();
    for _ in 0..count {
        let mut talk = Talk::to(&program.url).await;
        talk.send(head).await;
        let mut sent = 0;
        while sent < filler.len() {
            // What is not taken at once waits in the system's buffers: the program is full.
            let sending = talk.stream.write(&filler[sent..]);
            match tokio::time::timeout(Duration::from_millis(20), sending).await {
                Ok(Ok(written)) => sent += written,
                Ok(Err(_)) | Err(_) => break,
            }
        }
        crowd.push(talk);
    }
    crowd
}

/// Waits until the resident memory grows no more, and gives it.
async fn settled(program: &Program) -> u64 {
    let mut last = 0;
    loop {
        let now = program.memory("VmRSS");
        if now < last + MIB / 4 {
            return now;
        }
        last = now;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// What a crowd holds while it is there; when it has gone, all but a little goes back to the system.
async fn hold(name: &str, count: usize, head: &str, filler: usize) -> u64 {
    let upstream = upstream_without_ears().await;
    let program = Program::serve(&upstream.url(), SETTINGS).await;
    let idle = settled(&program).await;
    let crowd = crowd(&program, count, head, filler).await;
    let taken = settled(&program).await.saturating_sub(idle);
    drop(crowd);
    program.wait_for_metric("anteroom_connections{listener=\"public\"}", |open| open < 0.5).await;
    let began = tokio::time::Instant::now();
    println!("{name}: {} KiB each, {} MiB in all", taken / count as u64 / 1024, taken / MIB);
    while program.memory("VmRSS") > idle + LEFT {
        assert!(began.elapsed() < Duration::from_secs(60), "{} MiB stay", program.memory("VmRSS") / MIB);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("{name}: back within {:?}", began.elapsed());
    taken
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_the_upstream_does_not_read_holds_little() {
    let head = "POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 100000000\r\n\r\n";
    // Fewer: the system's own buffers take megabytes of each first.
    let count = 60;
    let taken = hold("uploads", count, head, 8 << 20).await;
    assert!(taken < count as u64 * 2 * EACH, "{taken}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_its_client_does_not_read_holds_little() {
    let held = hold("readers", CROWD, "GET /x HTTP/1.1\r\nhost: h\r\n\r\n", 0).await;
    assert!(held < CROWD as u64 * EACH, "{held}");
}

/// More than `limits.head_memory` has room for: the rest is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_that_do_not_end_hold_little_together() {
    let count = 1_000;
    let held = hold("heads", count, "GET /x HTTP/1.1\r\nhost: h\r\nx-long: ", 60_000).await;
    assert!(held < 2 * 32 * MIB + count as u64 * 24 * 1024, "{held}");
}
