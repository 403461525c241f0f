//! What a hit and a pass-through cost over loopback, as ratios against a bare hyper responder that sends the same
//! bytes, and what the ledger's check adds to a hit. All in one run, in rounds that take turns, by medians: absolute
//! times mean little on shared machines.
#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark prints and measures")]

mod support;

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Instant;

use anteroom::policy::coherence::ledger::{Ledger, PLACES, Scope};
use anteroom::policy::http::key::Key;
use anteroom::policy::resource::{ReadKind, Resource};
use anteroom_stand_in::{INBOX, Shape, StandIn};
use support::{ROUNDS, ask, bare, both, connect, median, round};

async fn compare(stand_in: &StandIn, proxy: SocketAddr, size: usize, read: ReadKind) {
    let source = format!("bench-{size}");
    if read == ReadKind::Conversations {
        stand_in.seed(&source, Shape { conversations: 1, messages: 1, bytes: size });
    }
    let list = path(stand_in, &source, read);
    let passed = format!("{list}?api_access_token=none");
    let mut client = connect(proxy).await;
    ask(&mut client, &list, &[]).await;
    let (mut head, body) = ask(&mut client, &list, &[]).await;
    assert!(head["cache-status"].as_bytes().starts_with(b"anteroom; hit"), "not a hit");
    head.remove("date");
    let bare = bare(head, body.clone()).await;
    let stand_in = stand_in.addr();
    let (mut baseline, mut hit, mut not_modified, mut direct, mut pass) = (vec![], vec![], vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        baseline.push(round(bare, &list, &[]).await);
        hit.push(round(proxy, &list, &[]).await);
        not_modified.push(round(proxy, &list, &[("if-none-match", "*")]).await);
        direct.push(round(stand_in, &passed, &[]).await);
        pass.push(round(proxy, &passed, &[]).await);
    }
    let (baseline, hit, not_modified) = (median(baseline), median(hit), median(not_modified));
    let (direct, pass) = (median(direct), median(pass));
    println!("{}, body of {:>7} bytes, per request:", read.words(), body.len());
    println!("  bare responder      {baseline:8.1} us   1.00");
    println!("  hit                 {hit:8.1} us   {:.2} of the bare responder", hit / baseline);
    println!("  hit, 304            {not_modified:8.1} us   {:.2} of the bare responder", not_modified / baseline);
    println!("  stand-in, direct    {direct:8.1} us");
    let added = (pass - direct) / baseline;
    println!("  pass-through        {pass:8.1} us   adds {added:.2} bare responders to the stand-in's own time");
}

/// The path of a read of a source that has one conversation.
fn path(stand_in: &StandIn, source: &str, read: ReadKind) -> String {
    let conversation = u64::try_from(stand_in.conversation_ids(source)[0]).expect("an id");
    let resource = match read {
        ReadKind::Conversations => Resource::Conversations,
        ReadKind::Conversation => Resource::Conversation(conversation),
        ReadKind::Messages => Resource::Messages(conversation),
        ReadKind::Contact => Resource::Contact,
    };
    Key::of(resource, INBOX, source, None).path_and_query()
}

/// What the one rule costs a hit: the check of a typical answer's places.
fn ledger(hit: f64) {
    let ledger = Ledger::new(PLACES, [1, 2]);
    let scopes = [Scope::Source("a"), Scope::Inbox("b"), Scope::List("c"), Scope::Contact(42)];
    let mut places: Vec<_> = scopes.iter().map(|scope| ledger.place(scope)).collect();
    for id in 0..4 {
        places.push(ledger.place(&Scope::AccountConversation(7, id)));
    }
    let noted = ledger.now();
    let times = 1_000_000_u32;
    let began = Instant::now();
    for _ in 0..times {
        black_box(ledger.is_current(black_box(noted), black_box(&places)));
    }
    let check = began.elapsed().as_secs_f64() * 1e9 / f64::from(times);
    println!("the ledger's check of {} places: {check:.1} ns, {:.3} % of a hit", places.len(), check / hit / 10.0);
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (stand_in, proxy) = both().await;
        for size in [100, 11_000, 200_000] {
            compare(&stand_in, proxy, size, ReadKind::Conversations).await;
        }
        for read in &ReadKind::ALL[1..] {
            compare(&stand_in, proxy, 11_000, *read).await;
        }
        let path = StandIn::list_path("bench-11000");
        let hit = round(proxy, &path, &[]).await;
        ledger(hit);
    });
}
