//! `anteroom check`: how a list, or what another read gives, differs from the published page, what trimming saves, and where its bytes are.
//!
//! An integrator can use it alone, on a saved answer of their own server. The report names paths and counts, never a
//! value, so that it can be shown to others.

use std::fmt::{self, Write as _};
use std::io;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use serde::de::IgnoredAny;

use crate::policy::payload::{self, NotAList, PayloadSettings, Validate};
use crate::policy::resource::ReadKind;

/// How many fields [`render_text`] shows of those that hold the most bytes; [`render_json`] has all.
const HEAVIEST: usize = 15;

/// What was found in one body.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Which read it was taken for.
    pub route: &'static str,
    /// Whether it is a list, or what that read gives, that keeps the contract: exit code 0.
    pub keeps_contract: bool,
    /// Why it is no list, if it is none; then nothing else is known of it but its size.
    pub not_a_list: Option<String>,
    /// What differs, in the order of the contract.
    pub violations: Vec<Differing>,
    /// How many keys are not on the published page. They are no violation.
    pub unknown_keys: u64,
    /// The first different ones of them.
    pub unknown_key_names: Vec<Counted>,
    /// The body as received.
    pub received: Sizes,
    /// The body after trimming, if the settings trim.
    pub trimmed: Option<Sizes>,
    /// Bytes per field as received, in the order of the contract. What contains others includes them.
    pub fields: Vec<Weighed>,
}

/// One field that differs in one way.
#[derive(Clone, Debug, Serialize)]
pub struct Differing {
    /// Its path, array levels unwritten.
    pub field: &'static str,
    /// `missing`, `wrong_type`, `unknown_enum_value` or `null`.
    pub kind: &'static str,
    /// How often.
    pub count: u64,
    /// Where first.
    pub example: Option<String>,
}

/// A path and how often it occurs.
#[derive(Clone, Debug, Serialize)]
pub struct Counted {
    /// The path; its last part is the server's.
    pub path: String,
    /// How often.
    pub count: u64,
}

/// A field and its share of the body.
#[derive(Clone, Debug, Serialize)]
pub struct Weighed {
    /// Its path, array levels unwritten.
    pub field: &'static str,
    /// How many bytes its keys and values take up.
    pub bytes: u64,
}

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Sizes {
    /// As it is.
    pub bytes: usize,
    /// Compressed.
    pub gzip: u64,
}

/// Which read gives such a body, as far as its beginning tells; a list if it tells nothing.
pub fn read_of(body: &[u8]) -> ReadKind {
    #[derive(serde::Deserialize)]
    struct Keys {
        message_type: Option<IgnoredAny>,
        source_id: Option<IgnoredAny>,
        messages: Option<IgnoredAny>,
        uuid: Option<IgnoredAny>,
    }
    // Of an array, too, the keys would be read, by their order.
    let is_object = body.trim_ascii_start().starts_with(b"{");
    if let Ok(keys) = serde_json::from_slice::<Keys>(body)
        && is_object
    {
        return match keys {
            Keys { messages: Some(_), .. } | Keys { uuid: Some(_), .. } => ReadKind::Conversation,
            Keys { source_id: Some(_), .. } => ReadKind::Contact,
            _ => ReadKind::Conversations,
        };
    }
    let elements = serde_json::from_slice::<Vec<Keys>>(body).unwrap_or_default();
    match elements.first() {
        Some(Keys { message_type: Some(_), messages: None, .. }) => ReadKind::Messages,
        _ => ReadKind::Conversations,
    }
}

/// Checks, weighs and trims one body that this read gave. It is always checked, whatever `payload.validate` says.
pub fn report(read: ReadKind, body: &Bytes, settings: &PayloadSettings) -> Report {
    let settings = PayloadSettings { validate: Validate::Report, trim: settings.trim.clone() };
    let (outcome, weights) = match payload::weigh(read, body, &settings) {
        Ok(found) => found,
        Err(why) => return no_list(read, body, why),
    };
    let violations: Vec<Differing> = outcome
        .violations
        .iter()
        .map(|violation| Differing {
            field: violation.field,
            kind: violation.kind.as_str(),
            count: violation.count,
            example: violation.example.map(str::to_owned),
        })
        .collect();
    let unknown = outcome.unknown_keys;
    Report {
        route: read.label(),
        keeps_contract: violations.is_empty(),
        not_a_list: None,
        violations,
        unknown_keys: unknown.total,
        unknown_key_names: unknown.names.into_iter().map(|(path, count)| Counted { path, count }).collect(),
        received: Sizes::of(body),
        trimmed: (!settings.trim.is_none()).then(|| Sizes::of(&outcome.body)),
        fields: weights.into_iter().map(|(field, bytes)| Weighed { field, bytes }).collect(),
    }
}

/// What files begin with that were saved as they came over the wire, compressed.
const GZIP: &[u8] = &[0x1f, 0x8b];

fn no_list(read: ReadKind, body: &Bytes, why: NotAList) -> Report {
    let why = if body.starts_with(GZIP) { "compressed with gzip, unpack it first".to_owned() } else { why.to_string() };
    Report {
        route: read.label(),
        keeps_contract: false,
        not_a_list: Some(why),
        violations: Vec::new(),
        unknown_keys: 0,
        unknown_key_names: Vec::new(),
        received: Sizes::of(body),
        trimmed: None,
        fields: Vec::new(),
    }
}

impl Sizes {
    fn of(body: &[u8]) -> Sizes {
        let mut encoder = GzEncoder::new(Counter(0), Compression::default());
        let counted = io::Write::write_all(&mut encoder, body).and_then(|()| encoder.finish());
        Sizes { bytes: body.len(), gzip: counted.expect("counting cannot fail").0 }
    }
}

/// Counts what is written to it; a body need not be held twice to know how it compresses.
struct Counter(u64);

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The report for machines.
pub fn render_json(report: &Report) -> String {
    serde_json::to_string_pretty(report).expect("plain data") + "\n"
}

/// The contract of a read as JSON Schema, for `--schema`.
pub fn schema_json(read: ReadKind) -> String {
    serde_json::to_string_pretty(&payload::json_schema(read)).expect("plain data") + "\n"
}

/// The report for people.
pub fn render_text(report: &Report) -> String {
    report.to_string()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.not_a_list {
            Some(why) => writeln!(f, "This is not {}: {why}.", words(self.route))?,
            None if self.keeps_contract => writeln!(f, "The {} keeps the contract.", name(self.route))?,
            None => self.write_violations(f)?,
        }
        self.write_unknown_keys(f)?;
        self.write_sizes(f)?;
        self.write_weights(f)
    }
}

impl Report {
    fn write_violations(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times: u64 = self.violations.iter().map(|violation| violation.count).sum();
        writeln!(f, "The {} differs from the contract, {}.\n", name(self.route), plural(times, "time"))?;
        let width = widest(self.violations.iter().map(|violation| violation.field), "field");
        writeln!(f, "  {:width$}  {:18}  {:>7}  first at", "field", "kind", "count")?;
        for Differing { field, kind, count, example } in &self.violations {
            let example = example.as_deref().unwrap_or("-");
            writeln!(f, "  {field:width$}  {kind:18}  {:>7}  {example}", grouped(*count))?;
        }
        Ok(())
    }

    fn write_unknown_keys(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.unknown_keys == 0 {
            return Ok(());
        }
        let times = plural(self.unknown_keys, "time");
        writeln!(f, "\nKeys that are not on the published page (allowed), {times}:\n")?;
        let width = widest(self.unknown_key_names.iter().map(|name| name.path.as_str()), "");
        let mut shown = 0;
        for Counted { path, count } in &self.unknown_key_names {
            writeln!(f, "  {path:width$}  {:>7}", grouped(*count))?;
            shown += count;
        }
        if shown < self.unknown_keys {
            writeln!(f, "  {:width$}  {:>7}", "others", grouped(self.unknown_keys - shown))?;
        }
        Ok(())
    }

    fn write_sizes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n  {:16}  {:>12}  {:>12}", "size", "bytes", "gzip")?;
        let mut line = |name: &str, bytes: &str, gzip: &str| writeln!(f, "  {name:16}  {bytes:>12}  {gzip:>12}");
        let Sizes { bytes, gzip } = self.received;
        line("as received", &grouped(bytes as u64), &grouped(gzip))?;
        if let Some(trimmed) = self.trimmed {
            line("after trimming", &grouped(trimmed.bytes as u64), &grouped(trimmed.gzip))?;
            let saved = |before: u64, after: u64| format!("{} %", percent(before.saturating_sub(after), before));
            line("saved", &saved(bytes as u64, trimmed.bytes as u64), &saved(gzip, trimmed.gzip))?;
        }
        Ok(())
    }

    fn write_weights(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut heaviest: Vec<&Weighed> = self.fields.iter().collect();
        heaviest.sort_by_key(|field| std::cmp::Reverse(field.bytes)); // stable: the contract's order among equals
        heaviest.truncate(HEAVIEST);
        if heaviest.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nWhere the bytes are (a field includes what is in it; --json has every field):\n")?;
        let width = widest(heaviest.iter().map(|field| field.field), "");
        for Weighed { field, bytes } in heaviest {
            let share = percent(*bytes, self.received.bytes as u64);
            writeln!(f, "  {field:width$}  {:>12}  {share:>5} %", grouped(*bytes))?;
        }
        Ok(())
    }
}

/// What a read gives, with an article.
fn words(route: &str) -> &'static str {
    ReadKind::ALL.into_iter().find(|read| read.label() == route).unwrap_or(ReadKind::Conversations).words()
}

/// The same without one.
fn name(route: &str) -> &'static str {
    words(route).trim_start_matches("a ")
}

fn widest<'a>(texts: impl Iterator<Item = &'a str>, title: &str) -> usize {
    texts.map(|text| text.chars().count()).max().unwrap_or(0).max(title.len())
}

fn plural(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// A share with one decimal, by whole numbers: the digits are the same everywhere.
fn percent(part: u64, whole: u64) -> String {
    let thousandths = part.saturating_mul(1000).checked_div(whole).unwrap_or(0);
    format!("{}.{}", thousandths / 10, thousandths % 10)
}

/// `1234567` as `1 234 567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(' ');
        }
        out.write_char(digit).expect("a string takes it");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::payload::Trim;

    const TYPICAL: &[u8] = include_bytes!("../../tests/fixtures/payload/list-typical.json");

    fn plain(body: &'static [u8]) -> Report {
        report(ReadKind::Conversations, &Bytes::from_static(body), &PayloadSettings::default())
    }

    #[test]
    fn a_list_that_differs() {
        let body = br#"[{"id":"1","uuid":"secret","inbox_id":2,"contact_last_seen_at":0,"status":"asleep","agent_last_seen_at":0,"messages":[],"contact":null,"group":1},{"id":3}]"#;
        let found = plain(body);
        assert!(!found.keeps_contract);
        let text = render_text(&found);
        let expected = "\
The list differs from the contract, 9 times.

  field                 kind                  count  first at
  id                    wrong_type                1  [0].id
  uuid                  missing                   1  [1].uuid
  inbox_id              missing                   1  [1].inbox_id
  contact_last_seen_at  missing                   1  [1].contact_last_seen_at
  status                missing                   1  [1].status
  status                unknown_enum_value        1  [0].status
  agent_last_seen_at    missing                   1  [1].agent_last_seen_at
  messages              missing                   1  [1].messages
  contact               missing                   1  [1].contact

Keys that are not on the published page (allowed), 1 time:

  group        1
";
        assert!(text.starts_with(expected), "{text}");
        assert!(!text.contains("secret") && !text.contains("asleep") && !render_json(&found).contains("asleep"));
    }

    #[test]
    fn sizes_before_and_after_trimming() {
        let found = plain(TYPICAL);
        assert!(found.keeps_contract && found.trimmed.is_none());
        let trim = Trim::compile(Some(1), &[], &["contact".to_owned()], false).expect("valid");
        let settings = PayloadSettings { validate: Validate::Off, trim };
        let found = report(ReadKind::Conversations, &Bytes::from_static(TYPICAL), &settings);
        let trimmed = found.trimmed.expect("rules");
        assert!(trimmed.bytes < found.received.bytes && trimmed.gzip < found.received.gzip);
        let text = render_text(&found);
        assert!(text.starts_with("The list keeps the contract.\n"), "{text}");
        assert!(text.contains("\n  after trimming ") && text.contains("\n  saved "), "{text}");
        assert!(text.contains("\n  messages.sender "), "{text}");
    }

    #[test]
    fn what_is_no_list() {
        let found = plain(b"<html>");
        assert!(!found.keeps_contract);
        assert!(render_text(&found).starts_with("This is not a list: not a JSON array, at byte 0.\n"));
    }

    #[test]
    fn json_for_machines() {
        let value: serde_json::Value = render_json(&plain(b"[{}]")).parse().expect("valid JSON");
        assert_eq!(value["keeps_contract"], false);
        assert_eq!(value["violations"][0]["field"], "id");
        assert_eq!(value["violations"][0]["kind"], "missing");
        assert_eq!(value["violations"][0]["example"], "[0].id");
        assert_eq!(value["received"]["bytes"], 4);
        let schema: serde_json::Value = schema_json(ReadKind::Conversations).parse().expect("valid JSON");
        assert_eq!(schema["items"]["properties"]["status"]["enum"][3], "snoozed");
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1 000", "1 234 567"]);
        assert_eq!((percent(1, 3), percent(0, 0)), ("33.3".to_owned(), "0.0".to_owned()));
    }
}
