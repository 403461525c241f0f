//! Reads what stands at the end of some paths in a JSON text, in one pass, and skips the rest.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Keys from the outermost object to a value.
pub(super) type Path = &'static [&'static str];

/// What stands at the end of some paths; of two members with one name the later one, as most readers have it.
pub(super) struct Found<'a> {
    paths: &'static [Path],
    values: Vec<Option<Json<'a>>>,
}

impl<'a> Found<'a> {
    /// Reads a text once. `None`: it is not one JSON value. A value of another kind than the path has it loses what is
    /// below it alone.
    pub(super) fn in_text(text: &'a str, paths: &'static [Path]) -> Option<Self> {
        let mut values = vec![None; paths.len()];
        let mut reading = serde_json::Deserializer::from_str(text);
        let through: Vec<usize> = (0..paths.len()).collect();
        Looking { paths, through: &through, depth: 0, values: &mut values }.deserialize(&mut reading).ok()?;
        reading.end().ok()?;
        Some(Self { paths, values })
    }

    pub(super) fn below(&self, start: Path) -> Below<'_, 'a> {
        Below { found: self, start }
    }
}

/// What was found below the end of a path.
#[derive(Clone, Copy)]
pub(super) struct Below<'f, 'a> {
    found: &'f Found<'a>,
    start: Path,
}

impl<'a> Below<'_, 'a> {
    /// What stands at the end of a path from there, which is one of those that were looked for.
    pub(super) fn at(self, path: &[&str]) -> Option<Json<'a>> {
        let number = self.found.paths.iter().position(|known| known.strip_prefix(self.start) == Some(path));
        debug_assert!(number.is_some(), "nobody looked for {path:?}");
        self.found.values[number?]
    }
}

/// A JSON value as it stands in the text.
#[derive(Clone, Copy)]
pub(super) struct Json<'a>(pub(super) &'a str);

impl Json<'_> {
    /// A string, or a number as one.
    pub(super) fn text(self) -> Option<String> {
        if self.0.starts_with('"') { serde_json::from_str(self.0).ok() } else { self.id().map(|id| id.to_string()) }
    }

    /// A whole number, or a string of one.
    pub(super) fn id(self) -> Option<u64> {
        self.0.trim_matches('"').parse().ok()
    }

    /// Milliseconds since 1970.
    pub(super) fn time(self) -> Option<u64> {
        crate::policy::coherence::times::from_json(self.0)
    }
}

/// Reads a value through which some of the paths lead, this many keys from the outermost object.
struct Looking<'l, 'a> {
    paths: &'static [Path],
    through: &'l [usize],
    depth: usize,
    values: &'l mut [Option<Json<'a>>],
}

impl<'a> DeserializeSeed<'a> for Looking<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Looking<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { paths, through, depth, values } = self;
        while let Some(lead) = map.next_key_seed(Key { paths, through, depth })? {
            // Of an earlier member with this name nothing counts.
            for &number in &lead {
                values[number] = None;
            }
            match lead[..] {
                [] => drop(map.next_value::<IgnoredAny>()?),
                [number] if paths[number].len() == depth + 1 => {
                    values[number] = Some(Json(map.next_value::<&RawValue>()?.get()));
                }
                _ => map.next_value_seed(Looking { paths, through: &lead, depth: depth + 1, values })?,
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// A key: gives those of the paths that lead on through it, or end at it.
struct Key<'l> {
    paths: &'static [Path],
    through: &'l [usize],
    depth: usize,
}

impl<'a> DeserializeSeed<'a> for Key<'_> {
    type Value = Vec<usize>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Vec<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Vec<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Vec<usize>, E> {
        let leads = |number: &usize| self.paths[*number].get(self.depth) == Some(&key);
        Ok(self.through.iter().copied().filter(leads).collect())
    }
}
