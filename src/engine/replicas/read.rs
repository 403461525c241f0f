//! What Redis says, read: whatever is not of the script's form is nothing.

use redis::Value;

use crate::policy::coherence::ledger::PLACES;
use crate::policy::replicas::exchange::{Began, Entry, Hint, Position, Reply};
use crate::policy::replicas::wire::{Item, decode};

/// A member's name and its batch.
const NAME: usize = 16;

/// The reply of the script; its form stands at its end.
pub(super) fn reply(value: Value) -> Option<Reply> {
    let Value::Array(fields) = value else { return None };
    let fields: [Value; 14] = fields.try_into().ok()?;
    let [epoch, began, seq, tag, settled, ripe, own, entries, behind, members, unknown, disagrees, now, clock] = fields;
    let own = number(&own)?;
    let seq = number(&seq)?;
    Some(Reply {
        epoch: bytes(&epoch)?.try_into().ok()?,
        began: match bytes(&began)? {
            b"missing" => Some(Began::Missing),
            b"run" => Some(Began::Run),
            b"ahead" => Some(Began::Ahead),
            b"tag" => Some(Began::Tag),
            _ => None,
        },
        last: Position { seq, tag: if seq == 0 { 0 } else { mark(bytes(&tag)?).unwrap_or_default() } },
        settled: number(&settled)?,
        ripe: number(&ripe)? == 1,
        own: (own > 0).then_some(own),
        entries: triples(entries)?,
        behind: pairs(behind)?,
        members: u32::try_from(number(&members)?).ok()?,
        unknown: number(&unknown)? == 1,
        disagrees: number(&disagrees)? == 1,
        now: number(&now)?,
        clock: number(&clock)?,
    })
}

/// A message of a script.
pub(super) fn hint(message: &[u8]) -> Option<Hint> {
    let (kind, rest) = message.split_first()?;
    if *kind == b'l' {
        return Some(Hint::Landed(rest.try_into().ok()?));
    }
    let (epoch, rest) = rest.split_at_checked(16)?;
    let (tag, rest) = rest.split_at_checked(8)?;
    let (epoch, tag) = (epoch.try_into().ok()?, mark(tag)?);
    match kind {
        b'a' => {
            let (member, rest) = rest.split_at_checked(NAME)?;
            let (seq, batch) = rest.split_at_checked(16)?;
            let at = Position { seq: digits(seq)?, tag };
            Some(Hint::Appended(epoch, Entry { at, member: member.try_into().ok()?, items: items(batch) }))
        }
        b's' => Some(Hint::Settled(epoch, Position { seq: digits(rest)?, tag })),
        _ => None,
    }
}

fn triples(value: Value) -> Option<Vec<Entry>> {
    let Value::Array(values) = value else { return None };
    let entry = |triple: &[Value]| {
        let [seq, tag, told] = triple else { return None };
        let (member, batch) = bytes(told)?.split_at_checked(NAME)?;
        let at = Position { seq: number(seq)?, tag: mark(bytes(tag)?)? };
        Some(Entry { at, member: member.try_into().ok()?, items: items(batch) })
    };
    values.chunks(3).map(entry).collect()
}

fn pairs(value: Value) -> Option<Vec<([u8; NAME], u64)>> {
    let Value::Array(values) = value else { return None };
    values.chunks(2).map(|pair| Some((bytes(pair.first()?)?.try_into().ok()?, number(pair.get(1)?)?))).collect()
}

fn items(batch: &[u8]) -> Vec<Item> {
    decode(batch, u32::try_from(PLACES).unwrap_or(u32::MAX))
}

fn mark(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

fn number(value: &Value) -> Option<u64> {
    digits(bytes(value)?)
}

fn digits(bytes: &[u8]) -> Option<u64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Nil),
            any::<i64>().prop_map(Value::Int),
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(Value::BulkString),
            (0..3_u8).prop_map(|number| Value::BulkString(number.to_string().into())),
            Just(Value::BulkString(vec![7; 16])),
        ];
        leaf.prop_recursive(2, 40, 14, |inner| proptest::collection::vec(inner, 0..14).prop_map(Value::Array))
    }

    proptest! {
        #[test]
        fn nothing_that_redis_says_is_too_much(value in value(), message in proptest::collection::vec(any::<u8>(), 0..80), kind in 0..4_usize) {
            let _ = reply(value);
            let mut message = message;
            if let Some(first) = message.first_mut() {
                *first = b"asl?"[kind];
            }
            let _ = hint(&message);
        }
    }
}
