//! Fuzzing of the pass over lists: `make fuzz`, on the stable toolchain.
//!
//! The number of executions is fixed and every input follows from the seed, so that a run can be repeated:
//! `ANTEROOM_FUZZ_EXECUTIONS` and `ANTEROOM_FUZZ_SEED`. Not guided by coverage. Under plain `cargo test` it runs briefly.

mod mutator;

use anteroom::policy::payload::{PayloadSettings, Trim, Validate, apply, scopes};
use bytes::Bytes;
use mutator::{Dice, Seed, mutated, number};
use serde_json::Value;

const BRIEFLY: u64 = 10_000;

fn seeds() -> Vec<Seed> {
    let samples = [
        include_str!("../tests/fixtures/payload/page-example.json"),
        include_str!("../tests/fixtures/payload/list-typical.json"),
        include_str!("../tests/fixtures/payload/list-edge-cases.json"),
        include_str!("../tests/fixtures/payload/list-older-server.json"),
    ];
    let halves = r#"[{"status":"\ud83d","contact":{"name":"\ude00","\udead":[]},"messages":[{"content":"a\ud83d"}]}]"#;
    let mut seeds = vec![Seed::new("[]"), Seed::new(halves), Seed::new(r#"[{"id":2,"messages":[{},{}]},{"id":1}]"#)];
    for sample in samples {
        let list: Vec<Value> = serde_json::from_str(sample).expect("valid");
        seeds.push(Seed::new(&Value::from(list.clone()).to_string()));
        // Single conversations are quicker, and a mutation more likely hits what matters.
        seeds.extend(list.into_iter().map(|one| Seed::new(&Value::from(vec![one]).to_string())));
    }
    seeds
}

fn settings() -> Vec<PayloadSettings> {
    type Rules<'a> = (Option<usize>, &'a [&'a str], &'a [&'a str], bool);
    let rules: [Rules<'_>; 7] = [
        (None, &[], &[], false),
        (Some(2), &[], &[], false),
        (Some(1), &["open"], &["uuid", "contact"], true),
        (None, &["resolved", "pending"], &["messages.sender.email", "messages.attachments.meta.first_name"], false),
        (Some(0), &[], &["id", "messages.created_at"], true),
        (Some(3), &["open", "snoozed"], &["messages.content_attributes.items.title", "messages.x?"], true),
        (None, &[], &["messages", "contact.custom_attributes.nested"], true),
    ];
    let owned = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
    let compiled = |(messages, statuses, drop, sort)| Trim::compile(messages, &owned(statuses), &owned(drop), sort);
    rules.map(|rules| PayloadSettings { validate: Validate::Report, trim: compiled(rules).expect("valid") }).to_vec()
}

/// What must hold for any input.
fn examine(input: &Bytes, settings: &PayloadSettings) {
    let theirs = serde_json::from_slice::<Value>(input);
    let outcome = match (apply(input, settings), &theirs) {
        (Ok(outcome), Err(error)) => {
            // A number too large for a float is a number all the same, and half of a surrogate pair is JSON.
            let told = error.to_string();
            let legal = ["out of range", "lone leading surrogate", "unexpected end of hex escape"];
            assert!(legal.iter().any(|why| told.contains(why)), "accepted in spite of {error}");
            outcome
        }
        (Ok(outcome), Ok(value)) => {
            assert!(value.is_array());
            outcome
        }
        (Err(why), theirs) => {
            assert!(!theirs.as_ref().is_ok_and(Value::is_array), "refused: {why}");
            assert_eq!(scopes(input), Err(why));
            return;
        }
    };
    assert_eq!(scopes(input).as_ref(), Ok(&outcome.scopes));
    assert_eq!(outcome.violations.is_empty(), outcome.violations.total() == 0);
    assert_eq!(outcome.changed, outcome.body.as_ptr() != input.as_ptr());
    assert!(outcome.body.len() <= input.len());
    let again = apply(&outcome.body, settings).expect("what comes out is a list");
    assert!(!again.changed, "trimming twice is trimming once");
    if !settings.trim.is_none() && theirs.is_ok() {
        serde_json::from_slice::<Vec<Value>>(&outcome.body).expect("what comes out is JSON");
    }
}

#[test]
fn fuzz_the_pass() {
    let executions = number("ANTEROOM_FUZZ_EXECUTIONS", BRIEFLY);
    let mut dice = Dice(number("ANTEROOM_FUZZ_SEED", 0x5eed).max(1));
    let (seeds, settings) = (seeds(), settings());
    let mut lists = 0;
    for execution in 0..executions {
        let input = Bytes::from(mutated(&mut dice, &seeds));
        let settings = dice.pick(&settings);
        let ended = std::panic::catch_unwind(|| examine(&input, settings));
        assert!(ended.is_ok(), "execution {execution}, {:?}, on {:?}", settings.trim, String::from_utf8_lossy(&input));
        lists += u64::from(scopes(&input).is_ok());
    }
    // A mutator that makes only rubbish would test nothing but the refusal.
    assert!(lists * 4 > executions, "{lists} of {executions} inputs were lists");
}
