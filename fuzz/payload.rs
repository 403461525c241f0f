//! Fuzzing of the pass over lists: `make fuzz`, on the stable toolchain.
//!
//! Inputs are the samples, mutated twice over: first by value (one value takes another's place, so that most stay JSON
//! and reach the rules), then, in every second one, by byte. The number of executions is fixed and every input follows
//! from the seed, so that a run can be repeated: `ANTEROOM_FUZZ_EXECUTIONS` and `ANTEROOM_FUZZ_SEED`. Not guided by
//! coverage. Under plain `cargo test` it runs briefly.

use anteroom::policy::payload::{PayloadSettings, Trim, Validate, apply, scopes};
use bytes::Bytes;
use serde_json::Value;

const BRIEFLY: u64 = 10_000;

/// What mutations put in: values at the edges of the contract and of JSON.
const VALUES: [&str; 28] = [
    "null",
    "true",
    "0",
    "-1",
    "1.0",
    "1e3",
    "1e400",
    "18446744073709551615",
    "18446744073709551616",
    "\"\"",
    "\"7\"",
    "\"contact\"",
    "\"cont\\u0061ct\"",
    "\"open\"",
    "\"resolved\"",
    "\"\\ud83d\\ude00\"",
    "\"\\u003c\"",
    "[]",
    "{}",
    "[[]]",
    "[null]",
    "{\"id\":5,\"type\":\"contact\"}",
    "{\"type\":\"contact\",\"\\u0069d\":6}",
    "{\"id\":1,\"id\":2}",
    "{\"status\":\"open\",\"status\":\"pending\"}",
    "{\"messages\":[{},{\"created_at\":3},{}]}",
    "\"é\"",
    "[{\"email\":1}]",
];

const BYTES: &[u8] = b"{}[]\":,\\u0019-+.eE ntf\n\t\x00\x1f\x7f\x80\xc3\xed\xf0\xff";

/// xorshift64*: small, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(high).expect("31 bits") % sides
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.roll(from.len())]
    }
}

/// A valid list and where its values are.
struct Seed {
    json: Vec<u8>,
    values: Vec<(usize, usize)>,
}

impl Seed {
    fn new(json: &str) -> Seed {
        let mut seed = Seed { json: json.into(), values: Vec::new() };
        seed.value(0);
        seed
    }

    /// Notes the value that starts here and those in it; gives its end. Keys are noted too, which makes odd inputs.
    fn value(&mut self, start: usize) -> usize {
        let mut at = start + 1;
        match self.json[start] {
            b'"' => {
                while self.json[at] != b'"' {
                    at += if self.json[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'{' | b'[' => {
                while !matches!(self.json[at], b'}' | b']') {
                    at = if matches!(self.json[at], b',' | b':') { at + 1 } else { self.value(at) };
                }
                at += 1;
            }
            _ => {
                while at < self.json.len() && !matches!(self.json[at], b',' | b'}' | b']') {
                    at += 1;
                }
            }
        }
        self.values.push((start, at));
        at
    }
}

fn seeds() -> Vec<Seed> {
    let samples = [
        include_str!("../tests/fixtures/payload/page-example.json"),
        include_str!("../tests/fixtures/payload/list-typical.json"),
        include_str!("../tests/fixtures/payload/list-edge-cases.json"),
        include_str!("../tests/fixtures/payload/list-older-server.json"),
    ];
    let mut seeds = vec![Seed::new("[]"), Seed::new(r#"[{"id":2,"messages":[{},{}]},{"id":1}]"#)];
    for sample in samples {
        let list: Vec<Value> = serde_json::from_str(sample).expect("valid");
        seeds.push(Seed::new(&Value::from(list.clone()).to_string()));
        // Single conversations are quicker, and a mutation more likely hits what matters.
        seeds.extend(list.into_iter().map(|one| Seed::new(&Value::from(vec![one]).to_string())));
    }
    seeds
}

fn mutated(dice: &mut Dice, seeds: &[Seed]) -> Vec<u8> {
    let seed = dice.pick(seeds);
    let mut places: Vec<(usize, usize)> = (0..dice.roll(5)).map(|_| *dice.pick(&seed.values)).collect();
    places.sort_unstable();
    let mut bytes = seed.json.clone();
    let mut untouched = bytes.len();
    for &(start, end) in places.iter().rev().filter(|(start, _)| *start > 0) {
        if end > untouched {
            continue; // the value around one that was replaced
        }
        let donor = dice.pick(seeds);
        let value = match dice.roll(3) {
            0 => {
                let (start, end) = *dice.pick(&donor.values);
                donor.json[start..end].to_vec()
            }
            1 => [seed.json[start..end].to_vec(), b",".to_vec(), seed.json[start..end].to_vec()].concat(),
            _ => dice.pick(&VALUES).as_bytes().to_vec(),
        };
        bytes.splice(start..end, value);
        untouched = start;
    }
    for _ in 0..[0, 0, 0, 1, 1, 2][dice.roll(6)] {
        let at = dice.roll(bytes.len());
        match dice.roll(6) {
            0 => bytes[at] = *dice.pick(BYTES),
            1 => bytes.insert(at, *dice.pick(BYTES)),
            2 => bytes[at] ^= 1 << dice.roll(8),
            3 => drop(bytes.drain(at..(at + 1 + dice.roll(8)).min(bytes.len()))),
            4 => bytes.truncate(at.max(1)),
            _ => drop(bytes.splice(at..at, vec![*dice.pick(b"[{"); dice.roll(200)])),
        }
        if bytes.is_empty() {
            bytes.push(b'[');
        }
    }
    bytes
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
            // A number too large for a float is a number all the same.
            assert!(error.to_string().contains("out of range"), "accepted in spite of {error}");
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

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().map_or(default, |text| text.parse().expect("a number"))
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
