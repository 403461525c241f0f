//! What a list costs in memory beyond its own bytes: the resident memory of the process when 100,000 lists are kept, and
//! the store's own account of it. Each size is measured by a process of its own, with the allocator of the program.
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::process::Command;
use std::sync::Arc;

use anteroom::config::{self, Flags, SettingsFile};
use anteroom::engine::clock;
use anteroom::engine::metrics::Metrics;
use anteroom::engine::store::Entry;
use anteroom::policy::coherence::ledger::Scope;
use anteroom::policy::http::key::Key;
use anteroom::policy::http::representation::{Prepared, Received};
use anteroom::state::State;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const LISTS: u32 = 100_000;

/// What a Rails server sends (`api.md` section 6.1).
const HEAD: [(&str, &str); 11] = [
    ("x-frame-options", "SAMEORIGIN"),
    ("x-xss-protection", "0"),
    ("x-content-type-options", "nosniff"),
    ("x-download-options", "noopen"),
    ("x-permitted-cross-domain-policies", "none"),
    ("referrer-policy", "strict-origin-when-cross-origin"),
    ("content-type", "application/json; charset=utf-8"),
    ("vary", "Origin"),
    ("cache-control", "max-age=0, private, must-revalidate"),
    ("access-control-allow-origin", "*"),
    ("access-control-max-age", "7200"),
];

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

async fn keep(state: &State, list: u32, size: usize) {
    let mut head = HeaderMap::new();
    for (name, value) in HEAD {
        head.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    head.insert("etag", HeaderValue::try_from(format!("W/\"{list:032x}\"")).expect("a validator"));
    let mut body = state.cache.memory.room(Some(size as u64), u64::MAX).await;
    body.push(&vec![b'x'; size]).expect("there is room");
    let received = Received {
        status: StatusCode::OK,
        head,
        body: state.cache.memory.kept(body.finish()).into(),
        version: Version::HTTP_11,
        date: clock::http_date(),
        for_one_origin: false,
        has_codings: true,
    };
    let key = Key::new("hmUxdYZ7nFu4KqJ8sT2vWbXc", &format!("9b9d46b9-8542-43f5-8077-{list:012}"), None);
    let invalidation = &state.invalidation;
    let mut places = invalidation.path_places(&key).to_vec();
    let scopes = [Scope::Contact(list.into()), Scope::AccountConversation(7, list.into())];
    places.extend(scopes.map(|scope| invalidation.ledger.place(&scope)));
    let answer = Prepared::new(received).sharing(|head| state.cache.heads.share(head));
    let noted = invalidation.ledger.now();
    let entry = Entry::new(answer, clock::now(), noted, places.into(), state.active().fingerprint);
    state.cache.store.put(key, Arc::new(entry));
}

/// Bytes of each list beyond its body, resident and by the store's account.
async fn measure(size: usize) -> (f64, f64) {
    let text = "upstream.url = \"http://127.0.0.1:9\"\ncache.memory = \"8GiB\"\ncache.ttl = \"1h\"\ncache.stale_if_error = \"2h\"";
    let none = std::iter::empty::<(String, String)>();
    let file = SettingsFile::Text("bench.toml".into(), text.to_owned());
    let config = config::load(file, &Flags::default(), none).expect("settings").config;
    let state = State::new(config, Arc::new(Metrics::new())).expect("a proxy");
    keep(&state, LISTS, size).await;
    let before = resident();
    for list in 0..LISTS {
        keep(&state, list, size).await;
    }
    let (count, account) = state.cache.store.size();
    assert_eq!(count, u64::from(LISTS) + 1);
    #[expect(clippy::cast_precision_loss, reason = "a few gigabytes")]
    let beyond = |bytes: u64| bytes as f64 / f64::from(LISTS) - size as f64;
    (beyond(resident() - before), beyond(account))
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    if let Some(size) = std::env::var("SIZE").ok().and_then(|size| size.parse().ok()) {
        let (resident, account) = runtime.block_on(measure(size));
        println!("list of {size:>6} bytes: {resident:6.0} bytes beyond the body; by the store's account {account:6.0}");
        return;
    }
    for size in [1_000, 1_024, 12_000, 12_288, 20_000] {
        let program = std::env::current_exe().expect("a program");
        let status = Command::new(program).env("SIZE", size.to_string()).status().expect("it runs");
        assert!(status.success());
    }
}
