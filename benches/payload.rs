//! The pass over a list against other ways to do the same: `cargo bench --bench payload`.
//!
//! Prints ratios, not times: on a shared machine only what ran side by side can be compared. Each round runs every way
//! once, in turn; a ratio is the median over the rounds of the two times in one round.

#![expect(clippy::disallowed_methods, reason = "a benchmark measures time; nothing here decides by it")]
#![expect(clippy::print_stdout, reason = "it is a program that prints")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use anteroom::policy::payload::{PayloadSettings, Trim, Validate, apply, json_schema};
use anteroom::policy::resource::ReadKind;
use bytes::Bytes;
use serde::de::IgnoredAny;
use serde_json::Value;

const NEWEST: usize = 20;
const DROPPED: [&str; 4] =
    ["contact.email", "contact.phone_number", "messages.sender.email", "messages.attachments.extension"];

/// A list of about `size` bytes: the conversations of the samples over and over, with ids of their own, and messages
/// enough to have some to leave out.
fn list(size: usize) -> Bytes {
    let samples = [
        include_str!("../tests/fixtures/payload/list-typical.json"),
        include_str!("../tests/fixtures/payload/list-edge-cases.json"),
        include_str!("../tests/fixtures/payload/list-older-server.json"),
    ];
    let mut conversations: Vec<Value> = Vec::new();
    for sample in samples {
        conversations.extend(serde_json::from_str::<Vec<Value>>(sample).expect("a list"));
    }
    let mut out = b"[".to_vec();
    for id in 1.. {
        let mut conversation = conversations[id % conversations.len()].clone();
        conversation["id"] = Value::from(1_000_000 - id);
        conversation["uuid"] = Value::from(format!("00000000-0000-4000-8000-{id:012}"));
        let messages = conversation["messages"].as_array_mut().expect("an array");
        let few = messages.clone();
        while !few.is_empty() && messages.len() < 40 {
            messages.extend(few.iter().cloned());
        }
        for (place, message) in messages.iter_mut().enumerate() {
            message["created_at"] = Value::from(1_780_000_000 + place);
        }
        serde_json::to_writer(&mut out, &conversation).expect("memory takes it");
        if out.len() >= size {
            break;
        }
        out.push(b',');
    }
    out.push(b']');
    Bytes::from(out)
}

/// The same rules on a tree, as one would write them.
fn edit(list: &mut Value, newest: bool, drop: bool) {
    let conversations = list.as_array_mut().expect("an array");
    let remove = |object: &mut Value, key: &str| {
        if let Some(object) = object.as_object_mut() {
            object.remove(key);
        }
    };
    for conversation in conversations {
        if drop {
            remove(&mut conversation["contact"], "email");
            remove(&mut conversation["contact"], "phone_number");
        }
        let messages = conversation["messages"].as_array_mut().expect("an array");
        if newest {
            messages.drain(..messages.len().saturating_sub(NEWEST));
        }
        for message in messages.iter_mut().filter(|_| drop) {
            if let Some(sender) = message.get_mut("sender") {
                remove(sender, "email");
            }
            for attachment in message.get_mut("attachments").and_then(Value::as_array_mut).into_iter().flatten() {
                remove(attachment, "extension");
            }
        }
    }
}

fn by_tree(body: &[u8], newest: bool, drop: bool) -> Vec<u8> {
    let mut list: Value = serde_json::from_slice(body).expect("valid");
    edit(&mut list, newest, drop);
    serde_json::to_vec(&list).expect("plain data")
}

fn settings(newest: bool, drop: bool) -> PayloadSettings {
    let dropped: Vec<String> = DROPPED.iter().filter(|_| drop).map(|path| (*path).to_owned()).collect();
    let trim = Trim::compile(newest.then_some(NEWEST), &[], &dropped, false).expect("valid rules");
    PayloadSettings { validate: Validate::Report, trim }
}

/// A way to do the work, to be called over and over.
type Way<'a> = (&'static str, Box<dyn Fn() + 'a>);

/// Times of each way, one per round.
fn measure(ways: &[Way<'_>], rounds: usize, calls: u32) -> Vec<Vec<Duration>> {
    let mut times = vec![Vec::new(); ways.len()];
    for round in 0..=rounds {
        for (i, (_, way)) in ways.iter().enumerate() {
            let start = Instant::now();
            (0..calls).for_each(|_| way());
            let took = start.elapsed() / calls;
            if round > 0 {
                times[i].push(took); // the first round warms up
            }
        }
    }
    times
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

fn ratio(above: &[Duration], below: &[Duration]) -> f64 {
    median(above.iter().zip(below).map(|(a, b)| a.as_secs_f64() / b.as_secs_f64()).collect())
}

fn compare(name: &str, body: &Bytes, rounds: usize, calls: u32) {
    let validator = jsonschema::validator_for(&json_schema(ReadKind::Conversations)).expect("a valid schema");
    let tree: Value = serde_json::from_slice(body).expect("valid");
    let (check, newest, drop, both) =
        (settings(false, false), settings(true, false), settings(false, true), settings(true, true));
    let pass = |settings: &PayloadSettings| {
        black_box(apply(black_box(body), settings).expect("a list"));
    };
    // Both ways must do the same work, or the comparison is none.
    let ours: Value = serde_json::from_slice(&apply(body, &both).expect("a list").body).expect("valid");
    assert_eq!(ours, serde_json::from_slice::<Value>(&by_tree(body, true, true)).expect("valid"));
    assert!(apply(body, &both).expect("a list").violations.is_empty());

    let by_tree = |newest, drop| {
        black_box(by_tree(black_box(body), newest, drop));
    };
    let ways: Vec<Way<'_>> = vec![
        ("check", Box::new(|| pass(&check))),
        ("check + newest messages", Box::new(|| pass(&newest))),
        ("check + dropped fields", Box::new(|| pass(&drop))),
        ("check + both", Box::new(|| pass(&both))),
        ("tree, newest messages", Box::new(|| by_tree(true, false))),
        ("tree, dropped fields", Box::new(|| by_tree(false, true))),
        ("tree, both", Box::new(|| by_tree(true, true))),
        (
            "IgnoredAny",
            Box::new(|| {
                black_box(serde_json::from_slice::<IgnoredAny>(black_box(body)).expect("valid"));
            }),
        ),
        ("jsonschema on a parsed tree", Box::new(|| assert!(validator.is_valid(black_box(&tree))))),
        (
            "jsonschema, with parsing",
            Box::new(|| assert!(validator.is_valid(&serde_json::from_slice(black_box(body)).expect("valid")))),
        ),
    ];
    let times = measure(&ways, rounds, calls);
    println!("{name}: {} bytes, {rounds} rounds of {calls}", body.len());
    for ((way, _), times) in ways.iter().zip(&times) {
        let seconds = median(times.iter().map(Duration::as_secs_f64).collect());
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = body.len() as f64 / 1e6 / seconds;
        println!("  {way:28} {:>10.3} ms  {rate:>7.0} MB/s", seconds * 1e3);
    }
    println!("  times as fast as a tree, edited and written (target 3.5):");
    for (ours, tree) in [(1, 4), (2, 5), (3, 6)] {
        println!("    {:28} {:.2}", ways[ours].0, ratio(&times[tree], &times[ours]));
    }
    println!("  times the time of IgnoredAny (target at most 2.5):");
    for (ours, (way, _)) in ways.iter().enumerate().take(4) {
        println!("    {way:28} {:.2}", ratio(&times[ours], &times[7]));
    }
    println!("  times as fast as the jsonschema crate on a tree parsed beforehand, and with the parsing:");
    for ours in [0, 3] {
        let name = ways[ours].0;
        println!("    {name:28} {:.2} {:.2}", ratio(&times[8], &times[ours]), ratio(&times[9], &times[ours]));
    }
}

fn main() {
    compare("1 MB", &list(1_000_000), 15, 10);
    compare("40 MB", &list(40_000_000), 5, 1);
}
