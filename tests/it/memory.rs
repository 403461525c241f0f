//! Memory is bounded by bytes in fact: what the settings allow and a fixed allowance, whatever passes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anteroom_stand_in::StandIn;

use crate::support::child::Program;
use crate::support::raw::{Scripted, Talk};

const MIB: u64 = 1024 * 1024;
const SETTINGS: &str =
    "cache.memory = \"64MiB\"\ncache.fetch_memory = \"64MiB\"\ncache.ttl = \"9m\"\nlog.level = \"warn\"\n";
/// `cache.memory` and `cache.fetch_memory` together.
const ALLOWED: u64 = 128 * MIB;
/// What the program may take besides: itself and its fixed tables (25 MiB), what it has learned of 200,000 sources at
/// most (40 MiB), buffers of connections, and what the allocator keeps of small answers that went.
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
