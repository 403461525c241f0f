//! The memory of a pass: what it allocates on top of the body it is given is at most the list it returns, 16 bytes per
//! kept conversation and message, and 64 KiB. A program of its own, because the allocator that counts is the program's.

use std::alloc::System;

use anteroom::policy::payload::{PayloadSettings, Trim, Validate, apply};
use bytes::Bytes;
use cap::Cap;

/// Refuses what goes beyond its limit, which ends the program: more exact than looking at it from outside.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

fn samples() -> Vec<String> {
    let compact = |sample: &str| sample.parse::<serde_json::Value>().expect("valid").to_string();
    let typical = compact(include_str!("fixtures/payload/list-typical.json"));
    let edge_cases = compact(include_str!("fixtures/payload/list-edge-cases.json"));
    let elements = |list: &str| list[1..list.len() - 1].to_owned();
    let many = vec![format!("{},{}", elements(&typical), elements(&edge_cases)); 400].join(",");
    let messages = |message: &str, n: usize| vec![message; n].join(",");
    // Hostile: messages of two bytes, in one conversation; the status after them; times that fall.
    let tiny = format!(r#"{{"status":"open","messages":[{}]}}"#, messages("{}", 300_000));
    let late = format!(r#"{{"messages":[{}],"status":"resolved"}}"#, messages("{}", 300_000));
    let falling: Vec<String> = (0..50_000).rev().map(|time| format!(r#"{{"created_at":{time}}}"#)).collect();
    let falling = format!(r#"{{"status":"open","messages":[{}]}}"#, falling.join(","));
    let ids: Vec<String> =
        (0..50_000).map(|id| format!(r#"{{"id":{},"contact":{{"id":{id}}}}}"#, 50_000 - id)).collect();
    [many, tiny, late, falling, ids.join(",")].map(|elements| format!("[{elements}]")).to_vec()
}

fn settings(messages: Option<usize>, statuses: &[&str], drop: &[&str], sort: bool) -> PayloadSettings {
    let owned = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
    let trim = Trim::compile(messages, &owned(statuses), &owned(drop), sort).expect("valid rules");
    PayloadSettings { validate: Validate::Report, trim }
}

#[test]
fn a_pass_stays_within_its_memory() {
    let rules = [
        settings(None, &[], &[], false),
        settings(None, &[], &["contact.email", "messages.sender.email"], false),
        settings(None, &["open"], &[], true),
        settings(Some(20), &[], &[], false),
        settings(Some(1), &["open"], &["messages.sender", "contact"], true),
        settings(Some(100_000), &["open"], &["uuid"], true),
        settings(Some(1_000_000), &[], &["inbox_id"], true),
    ];
    for body in samples().into_iter().map(Bytes::from) {
        for settings in &rules {
            let (kept, length) = {
                let outcome = apply(&body, settings).expect("a list");
                let list: Vec<serde_json::Value> = serde_json::from_slice(&outcome.body).expect("a list");
                let messages = |one: &serde_json::Value| one["messages"].as_array().map_or(0, Vec::len);
                let kept = list.len() + list.iter().map(messages).sum::<usize>();
                (kept, outcome.body.len())
            };
            let limit = ALLOCATOR.allocated() + length + 16 * kept + 64 * 1024;
            ALLOCATOR.set_limit(limit).expect("more than is in use");
            let outcome = apply(&body, settings);
            ALLOCATOR.set_limit(usize::MAX).expect("no limit");
            assert_eq!(outcome.expect("a list").body.len(), length);
        }
    }
}
