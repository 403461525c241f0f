//! Parameters of a request: query, JSON, form or multipart, all as one JSON object as Rails sees them.

use http::{HeaderMap, header};
use percent_encoding::percent_decode_str;

use super::json::{Map, Value};
use super::writes::ContactFields;

/// What the client sent.
pub(super) struct Params {
    values: Map,
    /// Files of a multipart body: name and content type and length.
    pub(super) files: Vec<File>,
}

/// An uploaded file: only what its attachment shows.
pub(super) struct File {
    pub(super) name: String,
    pub(super) content_type: String,
    pub(super) length: usize,
}

/// A JSON body that is not JSON.
pub(super) struct Unreadable;

impl Params {
    /// Reads everything that can hold parameters.
    pub(super) fn read(query: Option<&str>, headers: &HeaderMap, body: &[u8]) -> Result<Self, Unreadable> {
        let mut params = Self { values: Map::new(), files: Vec::new() };
        params.read_form(query.unwrap_or_default());
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
        if content_type.starts_with("multipart/form-data") {
            if let Some((_, boundary)) = content_type.split_once("boundary=") {
                let boundary = boundary.split(';').next().unwrap_or_default().trim_matches('"');
                params.read_multipart(boundary, body);
            }
        } else if content_type.starts_with("application/x-www-form-urlencoded") {
            params.read_form(&String::from_utf8_lossy(body));
        } else if content_type.contains("json")
            && !body.is_empty()
            && let Value::Object(values) = serde_json::from_slice(body).map_err(|_| Unreadable)?
        {
            params.values.extend(values);
        }
        Ok(params)
    }

    fn read_form(&mut self, form: &str) {
        for pair in form.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |text: &str| {
                let spaced = text.replace('+', " ");
                percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
            };
            self.put(&decode(name), decode(value));
        }
    }

    /// `a[b][c]` is nesting, as in Rails; arrays are not needed here.
    fn put(&mut self, name: &str, value: String) {
        let mut keys = name.split(['[', ']']).filter(|key| !key.is_empty());
        let mut place = self.values.entry(keys.next().unwrap_or_default().to_owned()).or_default();
        for key in keys {
            place = &mut place[key];
        }
        *place = Value::String(value);
    }

    fn read_multipart(&mut self, boundary: &str, body: &[u8]) {
        let delimiter = format!("\r\n--{boundary}");
        // The first delimiter has no line break before it.
        let body = [b"\r\n", body].concat();
        for part in split(&body, delimiter.as_bytes()).into_iter().skip(1) {
            let Some(end) = find(part, b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&part[..end]).into_owned();
            let content = &part[end + 4..];
            let parameter = |name: &str| {
                let (_, rest) = head.split_once(&format!(" {name}=\""))?;
                rest.split_once('"').map(|(value, _)| value.to_owned())
            };
            let Some(name) = parameter("name") else { continue };
            if let Some(file_name) = parameter("filename") {
                let content_type = head.lines().find_map(|line| {
                    let (header, value) = line.split_once(':')?;
                    header.eq_ignore_ascii_case("content-type").then(|| value.trim().to_owned())
                });
                let content_type = content_type.unwrap_or_else(|| "application/octet-stream".to_owned());
                self.files.push(File { name: file_name, content_type, length: content.len() });
            } else {
                self.put(&name, String::from_utf8_lossy(content).into_owned());
            }
        }
    }

    /// A parameter of any type.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    /// A parameter as text; a number counts as its digits.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        match self.values.get(name)? {
            Value::String(text) => Some(text.clone()),
            Value::Null => None,
            other => Some(other.to_string()),
        }
    }

    /// What it says about a contact.
    pub(super) fn contact(&self) -> ContactFields {
        ContactFields {
            identifier: self.text("identifier"),
            email: self.text("email"),
            name: self.text("name"),
            phone_number: self.text("phone_number"),
            custom_attributes: self.get("custom_attributes").and_then(Value::as_object).cloned(),
        }
    }
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

fn split<'a>(mut bytes: &'a [u8], delimiter: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    while let Some(at) = find(bytes, delimiter) {
        parts.push(&bytes[..at]);
        bytes = &bytes[at + delimiter.len()..];
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::super::json::json;
    use super::*;

    fn read(content_type: &'static str, body: &str) -> Params {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
        Params::read(Some("q=1"), &headers, body.as_bytes()).ok().expect("readable")
    }

    #[test]
    fn content_comes_as_json_form_or_multipart() {
        let multipart = "--B\r\nContent-Disposition: form-data; name=\"content\"\r\n\r\nhé & you\r\n--B\r\n\
            Content-Disposition: form-data; name=\"attachments[]\"; filename=\"a.png\"\r\nContent-Type: image/png\r\n\
            \r\nPNG\r\n--B--\r\n";
        for params in [
            read("application/json", "{\"content\":\"hé & you\"}"),
            read("application/x-www-form-urlencoded", "content=h%C3%A9+%26+you"),
            read("multipart/form-data; boundary=B", multipart),
        ] {
            assert_eq!(params.text("content").as_deref(), Some("hé & you"));
            assert_eq!(params.text("q").as_deref(), Some("1"));
        }
        let file = &read("multipart/form-data; boundary=\"B\"", multipart).files[0];
        assert_eq!((file.name.as_str(), file.content_type.as_str(), file.length), ("a.png", "image/png", 3));
    }

    #[test]
    fn brackets_nest() {
        let params = read("application/x-www-form-urlencoded", "custom_attributes[plan]=pro");
        assert_eq!(params.get("custom_attributes"), Some(&json!({"plan": "pro"})));
    }
}
