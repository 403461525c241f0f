//! Looking fields up.

use http::{HeaderMap, HeaderName};

/// Whether a head has one of these fields. By comparing: names that the HTTP library has no number for cost more to hash than
/// to compare with the few that a request has.
pub fn has_one_of(headers: &HeaderMap, names: &[HeaderName]) -> bool {
    headers.keys().any(|name| names.contains(name))
}

/// A head of these fields, for tests; of a name that comes twice it has both.
#[cfg(test)]
pub(crate) fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(*name, http::HeaderValue::from_static(value));
    }
    map
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;

    #[test]
    fn a_field_is_found_by_any_of_its_names() {
        let headers = map(&[("host", "h"), ("origin", "")]);
        let other = HeaderName::from_static("x-other");
        assert!(has_one_of(&headers, &[other.clone(), header::ORIGIN]));
        assert!(!has_one_of(&headers, &[other, header::COOKIE]) && !has_one_of(&headers, &[]));
    }
}
