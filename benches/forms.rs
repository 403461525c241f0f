//! What a hit costs in each of its forms, as ratios against a bare hyper responder that sends the same bytes. All in one
//! run, in rounds that take turns, by medians.
#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark prints and measures")]

mod support;

use std::net::SocketAddr;

use anteroom_stand_in::{Shape, StandIn};
use support::{Fields, ROUNDS, ask, bare, both, connect, median, round};

const FORMS: [(&str, Fields); 5] = [
    ("identity", &[]),
    ("gzip", &[("accept-encoding", "gzip")]),
    ("br", &[("accept-encoding", "br")]),
    ("zstd", &[("accept-encoding", "zstd")]),
    ("304", &[("if-none-match", "*")]),
];

/// A contact whose list is about so long, of texts that do not compress to nothing.
fn seed(stand_in: &StandIn, size: usize) -> String {
    let source = format!("forms-{size}");
    let messages = (size / 1000).max(1);
    stand_in.seed(&source, Shape { conversations: 1, messages, bytes: 100 });
    StandIn::list_path(&source)
}

async fn compare(stand_in: &StandIn, proxy: SocketAddr, size: usize) {
    let path = seed(stand_in, size);
    let mut client = connect(proxy).await;
    let (_, plain) = ask(&mut client, &path, &[]).await;
    println!("a list of {} bytes, per request:", plain.len());
    let mut bares = Vec::new();
    for (name, fields) in FORMS {
        ask(&mut client, &path, fields).await;
        let (mut head, body) = ask(&mut client, &path, fields).await;
        let coding = head.get("content-encoding").map(|coding| coding.to_str().expect("a name"));
        assert_eq!(coding, Some(name).filter(|name| !matches!(*name, "identity" | "304")));
        head.remove("date");
        bares.push((bare(head, body.clone()).await, body.len()));
    }
    let mut times = vec![(Vec::new(), Vec::new()); FORMS.len()];
    for _ in 0..ROUNDS {
        for (((_, fields), (bare, _)), (baseline, hit)) in FORMS.iter().zip(&bares).zip(&mut times) {
            baseline.push(round(*bare, &path, fields).await);
            hit.push(round(proxy, &path, fields).await);
        }
    }
    for (((name, _), (_, sent)), (baseline, hit)) in FORMS.iter().zip(&bares).zip(times) {
        let (baseline, hit) = (median(baseline), median(hit));
        println!("  {name:<10} {sent:>7} bytes  bare {baseline:7.1} us  hit {hit:7.1} us  {:.2}", hit / baseline);
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (stand_in, proxy) = both().await;
        for size in [2_000, 12_000, 200_000] {
            compare(&stand_in, proxy, size).await;
        }
    });
}
