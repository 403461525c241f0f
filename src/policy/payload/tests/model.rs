//! The same rules, the slow and obvious way: a tree of raw tokens, edited, and written out. What the pass makes of a list
//! without white space must be this, byte for byte.

use serde_json::value::RawValue;

/// JSON with its keys and scalars as they stand.
#[derive(Clone, Debug)]
pub(super) enum Tree {
    Object(Vec<(String, Tree)>),
    Array(Vec<Tree>),
    Scalar(String),
}

/// Members in their order, keys as raw tokens: `serde_json`'s own maps would sort them and resolve escapes.
struct Members(Vec<(Box<RawValue>, Box<RawValue>)>);

impl<'de> serde::Deserialize<'de> for Members {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Members, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Members;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

pub(super) fn parse(json: &str) -> Tree {
    match json.trim_start().as_bytes()[0] {
        b'{' => {
            let Members(members) = serde_json::from_str(json).expect("valid");
            Tree::Object(members.into_iter().map(|(key, value)| (key.get().to_owned(), parse(value.get()))).collect())
        }
        b'[' => {
            let elements: Vec<Box<RawValue>> = serde_json::from_str(json).expect("valid");
            Tree::Array(elements.into_iter().map(|element| parse(element.get())).collect())
        }
        _ => Tree::Scalar(json.trim().to_owned()),
    }
}

fn name(key: &str) -> String {
    serde_json::from_str(key).expect("a key")
}

impl Tree {
    pub(super) fn write(&self) -> String {
        let joined = |parts: Vec<String>| parts.join(",");
        match self {
            Tree::Object(members) => {
                let parts = members.iter().map(|(key, value)| format!("{key}:{}", value.write())).collect();
                format!("{{{}}}", joined(parts))
            }
            Tree::Array(elements) => format!("[{}]", joined(elements.iter().map(Tree::write).collect())),
            Tree::Scalar(raw) => raw.clone(),
        }
    }

    /// The last value of a key, as any client reads it.
    fn get(&self, wanted: &str) -> Option<&Tree> {
        let Tree::Object(members) = self else { return None };
        members.iter().rev().find(|(key, _)| name(key) == wanted).map(|(_, value)| value)
    }

    fn number(&self, wanted: &str) -> Option<u64> {
        match self.get(wanted)? {
            Tree::Scalar(raw) => raw.trim_matches('"').parse().ok(),
            _ => None,
        }
    }

    /// A time, in whatever spelling of a number.
    fn time(&self, wanted: &str) -> Option<i64> {
        let Tree::Scalar(raw) = self.get(wanted)? else { return None };
        let raw = raw.trim_matches('"');
        #[expect(clippy::cast_possible_truncation, reason = "saturates, which keeps the order")]
        raw.parse().ok().or_else(|| raw.parse::<f64>().ok().filter(|time| !time.is_nan()).map(|time| time as i64))
    }

    fn drop(&mut self, path: &[&str]) {
        match self {
            Tree::Array(elements) => elements.iter_mut().for_each(|element| element.drop(path)),
            Tree::Object(members) if path.len() == 1 => members.retain(|(key, _)| name(key) != path[0]),
            Tree::Object(members) => {
                members
                    .iter_mut()
                    .filter(|(key, _)| name(key) == path[0])
                    .for_each(|(_, value)| value.drop(&path[1..]));
            }
            Tree::Scalar(_) => {}
        }
    }

    /// Whether the path leads to anything.
    pub(super) fn has(&self, path: &[&str]) -> bool {
        match self {
            Tree::Array(elements) => elements.iter().any(|element| element.has(path)),
            Tree::Object(members) => members
                .iter()
                .filter(|(key, _)| name(key) == path[0])
                .any(|(_, value)| path.len() == 1 || value.has(&path[1..])),
            Tree::Scalar(_) => false,
        }
    }

    /// Every scalar, in order.
    pub(super) fn scalars<'t>(&'t self, all: &mut Vec<&'t str>) {
        match self {
            Tree::Object(members) => members.iter().for_each(|(_, value)| value.scalars(all)),
            Tree::Array(elements) => elements.iter().for_each(|element| element.scalars(all)),
            Tree::Scalar(raw) => all.push(raw),
        }
    }

    /// The trim rules, in the simplest order.
    pub(super) fn trim(mut self, messages: Option<usize>, statuses: &[&str], drop: &str, sort: bool) -> Tree {
        let Tree::Array(conversations) = &mut self else { panic!("a list") };
        let status = |conversation: &Tree| match conversation.get("status") {
            Some(Tree::Scalar(raw)) => serde_json::from_str::<String>(raw).ok(),
            _ => None,
        };
        if !statuses.is_empty() {
            conversations.retain(|one| status(one).is_some_and(|status| statuses.contains(&status.as_str())));
        }
        if sort {
            conversations.sort_by_key(|one| one.number("id").unwrap_or(u64::MAX)); // stable
        }
        if let Some(limit) = messages {
            for conversation in conversations.iter_mut() {
                let Tree::Object(members) = conversation else { continue };
                for (_, value) in members.iter_mut().filter(|(key, _)| name(key) == "messages") {
                    let Tree::Array(all) = value else { continue };
                    let mut newest: Vec<usize> = (0..all.len()).collect();
                    newest.sort_by_key(|&i| std::cmp::Reverse((all[i].time("created_at"), i)));
                    newest.truncate(limit);
                    newest.sort_unstable();
                    *all = newest.into_iter().map(|i| all[i].clone()).collect();
                }
            }
        }
        for path in drop.split_whitespace() {
            let path: Vec<&str> = path.trim_end_matches('?').split('.').collect();
            for conversation in conversations.iter_mut() {
                conversation.drop(&path);
            }
        }
        self
    }
}
