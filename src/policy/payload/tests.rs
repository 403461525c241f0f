//! Tests of the pass as a whole; the rooms have their own beside their code.

mod model;
mod properties;
mod tables;
mod trimming;

use bytes::Bytes;
use serde_json::Value;

use super::*;
use crate::policy::resource::ReadKind;

/// The example of the published page.
pub(crate) const PAGE_EXAMPLE: &str = include_str!("../../../tests/fixtures/payload/page-example.json");

/// A contact by itself, as servers show it.
const CONTACT_EXAMPLE: &str =
    r#"{"source_id":"s","pubsub_token":"t","id":42,"name":"n","email":"e@x.test","phone_number":null}"#;

/// Every list that must pass without a violation.
const SAMPLES: [(&str, &str); 4] = [
    ("page-example", PAGE_EXAMPLE),
    ("list-typical", include_str!("../../../tests/fixtures/payload/list-typical.json")),
    ("list-edge-cases", include_str!("../../../tests/fixtures/payload/list-edge-cases.json")),
    ("list-older-server", include_str!("../../../tests/fixtures/payload/list-older-server.json")),
];

/// As servers send it: without white space.
fn compact(json: &str) -> Bytes {
    Bytes::from(json.parse::<Value>().expect("a valid sample").to_string())
}

fn check(body: impl Into<Bytes>) -> Outcome {
    apply(&body.into(), &PayloadSettings::default()).expect("a list")
}

/// The violations as `field kind` pairs, in the order of the contract.
fn found(outcome: &Outcome) -> Vec<(&'static str, &'static str)> {
    outcome.violations.iter().map(|violation| (violation.field, violation.kind.as_str())).collect()
}

/// Settings that trim; `drop` is separated by white space.
fn trimming(messages: Option<usize>, statuses: &[&str], drop: &str, sort: bool) -> PayloadSettings {
    let owned = |all: Vec<&str>| all.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let drop = owned(drop.split_whitespace().collect());
    let trim = Trim::compile(messages, &owned(statuses.to_vec()), &drop, sort).expect("valid rules");
    PayloadSettings { validate: Validate::Report, trim }
}

fn trimmed(body: &str, settings: &PayloadSettings) -> String {
    let outcome = apply(&Bytes::from(body.to_owned()), settings).expect("a list");
    String::from_utf8(outcome.body.to_vec()).expect("UTF-8")
}
