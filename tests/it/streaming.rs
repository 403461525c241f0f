//! Bodies are streamed both ways: no more of one is in memory than is under way, and a slow reader slows the sender.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anteroom_stand_in::{Options, StandIn};
use http_body_util::BodyExt;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use crate::support::child::Program;
use crate::support::raw::{Scripted, Talk};
use crate::support::{Proxy, client, get, request, spawn};

const MIB: usize = 1024 * 1024;
const BODY: usize = 50 * MIB;
/// What the program may take above what it takes idle while such a body passes.
const ALLOWANCE: u64 = 16 * MIB as u64;

#[tokio::test]
async fn an_upload_and_a_download_of_50_mib_take_no_memory_to_speak_of() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let program = Program::serve(&stand_in.url(), "").await;
    get(&format!("{}/x", program.url)).await;
    let idle = program.memory("VmRSS");

    let block: Vec<u8> = (0..=255).cycle().take(MIB).collect();
    let mut hash = Sha256::new();
    for _ in 0..BODY / MIB {
        hash.update(&block);
    }
    let hash: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    for framing in ["content-length", "chunked"] {
        let mut upload = Talk::to(&program.url).await;
        let field = if framing == "chunked" {
            "transfer-encoding: chunked".to_owned()
        } else {
            format!("content-length: {BODY}")
        };
        upload.send(format!("POST /rails/active_storage/direct_uploads HTTP/1.1\r\nhost: h\r\n{field}\r\n\r\n")).await;
        for _ in 0..BODY / MIB {
            if framing == "chunked" {
                upload.send(format!("{MIB:x}\r\n")).await;
            }
            upload.send(&block).await;
            if framing == "chunked" {
                upload.send("\r\n").await;
            }
        }
        if framing == "chunked" {
            upload.send("0\r\n\r\n").await;
        }
        let answer = upload.message().await.unwrap();
        assert!(answer.text().contains(&hash) && answer.text().contains(&BODY.to_string()), "{}", answer.text());
    }

    let url = format!("{}/rails/active_storage/disk/{BODY}", program.url);
    let mut download = client().request(request("GET", &url, &[], "")).await.unwrap().into_body();
    let mut length = 0;
    while let Some(frame) = download.frame().await {
        for byte in frame.unwrap().into_data().unwrap() {
            assert_eq!(usize::from(byte), length % 251);
            length += 1;
        }
    }
    assert_eq!(length, BODY);

    let peak = program.memory("VmHWM");
    assert!(peak < idle + ALLOWANCE, "idle {idle}, peak {peak}");
}

/// Sends until the other side takes no more for as long as the proxy needs to answer `probe` twenty times; gives how
/// many bytes went.
async fn until_it_is_full(sent: &AtomicUsize, probe: &str) -> usize {
    loop {
        let before = sent.load(Ordering::SeqCst);
        for _ in 0..20 {
            get(probe).await;
        }
        if before > 0 && sent.load(Ordering::SeqCst) == before {
            return before;
        }
    }
}

/// What the sockets on the way hold; the kernel may grow each buffer to several MiB.
const ON_THE_WAY: usize = 32 * MIB;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_stops_the_upstream() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = sent.clone();
    let upstream = Scripted::start(move |_, mut talk| {
        let sent = counted.clone();
        async move {
            let request = talk.message().await.unwrap();
            if request.head.starts_with("GET /probe") {
                talk.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
                return;
            }
            talk.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 10 * ON_THE_WAY)).await;
            let block = vec![7; 64 * 1024];
            while talk.stream.write_all(&block).await.is_ok() {
                sent.fetch_add(block.len(), Ordering::SeqCst);
            }
        }
    })
    .await;
    let program = Program::serve(&upstream.url(), "").await;
    let idle = program.memory("VmRSS");
    let mut client = Talk::to(&program.url).await;
    client.send("GET /x HTTP/1.1\r\nhost: h\r\n\r\n").await;
    client.head().await.unwrap();
    let sent = until_it_is_full(&sent, &format!("{}/probe", program.url)).await;
    assert!(sent < ON_THE_WAY, "{sent} bytes were sent though nobody reads");
    let peak = program.memory("VmHWM");
    assert!(peak < idle + ALLOWANCE, "idle {idle}, peak {peak}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_does_not_read_stops_the_client() {
    let upstream = Scripted::start(move |_, mut talk| async move {
        let head = talk.head().await.unwrap();
        if head.starts_with("GET /probe") {
            talk.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
            return;
        }
        std::future::pending::<()>().await;
    })
    .await;
    let program = Program::serve(&upstream.url(), "").await;
    let idle = program.memory("VmRSS");
    let mut client = Talk::to(&program.url).await;
    client.send(format!("PUT /x HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n", 10 * ON_THE_WAY)).await;
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = sent.clone();
    let sending = spawn(async move {
        let block = vec![7; 64 * 1024];
        while client.stream.write_all(&block).await.is_ok() {
            counted.fetch_add(block.len(), Ordering::SeqCst);
        }
    });
    let sent = until_it_is_full(&sent, &format!("{}/probe", program.url)).await;
    assert!(sent < ON_THE_WAY, "{sent} bytes were taken though nobody reads");
    let peak = program.memory("VmHWM");
    assert!(peak < idle + ALLOWANCE, "idle {idle}, peak {peak}");
    sending.abort();
}

/// Bytes that the system holds for the other side of a connection on this machine, from `/proc/net/tcp`.
fn held_by_the_system(from: u16, to: u16) -> u64 {
    let connections = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let ends = [format!(":{from:04X}"), format!(":{to:04X}")];
    let found = connections.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let queues = found.filter(|parts| parts[1].ends_with(&ends[0]) && parts[2].ends_with(&ends[1]));
    queues.map(|parts| u64::from_str_radix(parts[4].split(':').next().unwrap(), 16).unwrap()).sum()
}

/// Else thousands of them would use up what TCP may hold on the whole machine, and anybody's connections are reset.
#[tokio::test]
async fn the_system_holds_little_for_who_does_not_read_a_large_hit() {
    let list = format!("[{{\"pad\":\"{}\"}}]", "x".repeat(8 * MIB));
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", list.len());
    let upstream = Scripted::answering(format!("{answer}{list}")).await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    assert_eq!(proxy.list("large").await.body.len(), list.len());
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut slow = Talk::new(socket.connect(proxy.url.trim_start_matches("http://").parse().unwrap()).await.unwrap());
    slow.send(format!("GET {} HTTP/1.1\r\nhost: h\r\n\r\n", StandIn::list_path("large"))).await;
    // Its first bytes are here, so the rest is written as far as it goes.
    slow.stream.readable().await.unwrap();
    let (ours, theirs) = (slow.stream.peer_addr().unwrap().port(), slow.stream.local_addr().unwrap().port());
    for _ in 0..100 {
        // Others are served meanwhile, so the writer has had its turns.
        assert_eq!(get(&format!("{}/live", proxy.admin)).await.status, 200);
    }
    let held = held_by_the_system(ours, theirs);
    assert!((1..512 * 1024).contains(&held), "{held} bytes");
    slow.skip_message().await;
}
