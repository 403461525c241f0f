//! Looking fields up.

use http::{HeaderMap, HeaderName};

/// Whether a head has one of these fields. By comparing: names that the HTTP library has no number for cost more to hash than
/// to compare with the few that a request has.
pub fn has_one_of(headers: &HeaderMap, names: &[HeaderName]) -> bool {
    headers.keys().any(|name| names.contains(name))
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header};

    use super::*;

    #[test]
    fn a_field_is_found_by_any_of_its_names() {
        let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("h")), (header::ORIGIN, HeaderValue::from_static(""))]);
        let other = HeaderName::from_static("x-other");
        assert!(has_one_of(&headers, &[other.clone(), header::ORIGIN]));
        assert!(!has_one_of(&headers, &[other, header::COOKIE]) && !has_one_of(&headers, &[]));
    }
}
