//! JSON whose objects keep the order of their keys, as the real service's do.
//!
//! `serde_json` can do so too, but by a feature that holds for the whole program: the proxy would be another one with
//! the stand-in built in than without it.

use std::fmt;
use std::ops::{Index, IndexMut};

use indexmap::IndexMap;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Number;

/// An object.
pub(super) type Map = IndexMap<String, Value>;

/// Any JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Value {
    #[default]
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    Array(Vec<Value>),
    Object(Map),
}

impl Value {
    /// What `value` is in JSON: written and read again, for the stand-in need not be quick.
    pub(super) fn of(value: &(impl Serialize + ?Sized)) -> Self {
        let text = serde_json::to_vec(value).expect("plain data serialises into memory");
        serde_json::from_slice(&text).expect("just written")
    }

    /// The other way round.
    pub(super) fn read<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_str(&self.to_string())
    }

    /// The value of a key, if this is an object that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.as_object()?.get(key)
    }

    pub(super) fn as_object(&self) -> Option<&Map> {
        if let Self::Object(map) = self { Some(map) } else { None }
    }

    pub(super) fn as_object_mut(&mut self) -> Option<&mut Map> {
        if let Self::Object(map) = self { Some(map) } else { None }
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    pub(super) fn as_f64(&self) -> Option<f64> {
        if let Self::Number(number) = self { number.as_f64() } else { None }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}

/// As compact text.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

/// What is not there is null.
impl Index<&str> for Value {
    type Output = Self;

    fn index(&self, key: &str) -> &Self {
        self.get(key).unwrap_or(&Self::Null)
    }
}

/// A key that is not there is added, and whatever is no object becomes one.
impl IndexMut<&str> for Value {
    fn index_mut(&mut self, key: &str) -> &mut Self {
        if !matches!(self, Self::Object(_)) {
            *self = Self::Object(Map::new());
        }
        let Self::Object(map) = self else { unreachable!("made one") };
        map.entry(key.to_owned()).or_default()
    }
}

/// What is not there is null.
impl Index<usize> for Value {
    type Output = Self;

    fn index(&self, place: usize) -> &Self {
        let Self::Array(items) = self else { return &Self::Null };
        items.get(place).unwrap_or(&Self::Null)
    }
}

impl PartialEq<str> for Value {
    fn eq(&self, text: &str) -> bool {
        self.as_str() == Some(text)
    }
}

impl PartialEq<&str> for Value {
    fn eq(&self, text: &&str) -> bool {
        self == *text
    }
}

/// JSON as it is written: `json!({ "id": id, "tags": [], "team": null })`.
macro_rules! json {
    (@put $map:ident) => {};
    (@put $map:ident $key:tt : null $(, $($rest:tt)*)?) => {
        $map.insert($key.to_owned(), $crate::json::Value::Null);
        $crate::json::json!(@put $map $($($rest)*)?);
    };
    (@put $map:ident $key:tt : { $($inner:tt)* } $(, $($rest:tt)*)?) => {
        $map.insert($key.to_owned(), $crate::json::json!({ $($inner)* }));
        $crate::json::json!(@put $map $($($rest)*)?);
    };
    (@put $map:ident $key:tt : [ $($inner:tt)* ] $(, $($rest:tt)*)?) => {
        $map.insert($key.to_owned(), $crate::json::json!([ $($inner)* ]));
        $crate::json::json!(@put $map $($($rest)*)?);
    };
    (@put $map:ident $key:tt : $value:expr $(, $($rest:tt)*)?) => {
        $map.insert($key.to_owned(), $crate::json::Value::of(&$value));
        $crate::json::json!(@put $map $($($rest)*)?);
    };
    ({}) => { $crate::json::Value::Object($crate::json::Map::new()) };
    ({ $($inner:tt)+ }) => {{
        let mut map = $crate::json::Map::new();
        $crate::json::json!(@put map $($inner)+);
        $crate::json::Value::Object(map)
    }};
    ([ $($item:expr),* $(,)? ]) => { $crate::json::Value::Array(vec![$($crate::json::Value::of(&$item)),*]) };
    ($value:expr) => { $crate::json::Value::of(&$value) };
}
pub(super) use json;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_their_order_through_writing_and_reading() {
        let (one, text) = (1, r#"{"z":null,"a":[1,1.0,"x"],"m":{"z":true,"b":{}},"b":-1}"#);
        let made = json!({ "z": null, "a": [one, 1.0, "x"], "m": { "z": true, "b": {} }, "b": -one });
        assert_eq!(made.to_string(), text);
        let read: Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(read.to_string(), text);
        assert_eq!(Value::of(&read), made);
    }

    #[test]
    fn what_is_not_there_is_null_and_can_be_put_there() {
        let mut value = json!({ "b": 1 });
        assert!(value["a"]["b"].is_null() && value["b"][0].is_null());
        value["a"]["c"] = json!("x");
        assert_eq!((value.to_string().as_str(), &value["a"]["c"]), (r#"{"b":1,"a":{"c":"x"}}"#, &json!("x")));
        assert!(value["a"]["c"] == "x");
    }
}
