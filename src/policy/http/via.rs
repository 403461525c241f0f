//! `Via` towards the upstream (RFC 9110 section 7.6.3): which Anterooms a request has passed, so that one that comes
//! back is seen.

use std::fmt::Write;

use http::header::{self, HeaderValue};
use http::{HeaderMap, Version};

use super::headers::{DIGITS, hex};

/// The most Anterooms that a shared fetch says it comes from: more do not stand in a row.
const LONGEST_CHAIN: usize = 8;
/// What an entry of ours has before and after the name of its instance, which is a comment.
const BEFORE: &str = " anteroom (";
const AFTER: &str = ")";

/// Which of all Anterooms this is: a name that nobody else has or can guess, and that clients are not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instance(u64);

impl Instance {
    /// One by this number, which has to be random.
    pub fn new(random: u64) -> Self {
        Self(random)
    }

    /// Whether this instance has passed on what this request was made from: then it would go round and round.
    pub fn has_passed(self, headers: &HeaderMap) -> bool {
        if !headers.contains_key(header::VIA) {
            return false;
        }
        let name = hex(self.0);
        entries(headers).any(|entry| instance_of(entry).is_some_and(|passed| passed.as_bytes() == name))
    }

    /// Adds this instance to a request for the upstream, with the version in which the client spoke.
    pub fn append_to(self, headers: &mut HeaderMap, version: Version) {
        let version = match version {
            Version::HTTP_10 => "1.0",
            Version::HTTP_2 => "2.0",
            _ => "1.1",
        };
        let entry = [version.as_bytes(), BEFORE.as_bytes(), &hex(self.0), AFTER.as_bytes()].concat();
        headers.append(header::VIA, HeaderValue::try_from(entry).expect("digits are a header value"));
    }
}

/// The Anterooms that a client's request has passed, as a shared fetch on its behalf names them: no other word of the
/// client's gets into it.
pub fn chain(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut chain = String::new();
    for name in entries(headers).filter_map(instance_of).take(LONGEST_CHAIN) {
        let separator = if chain.is_empty() { "" } else { ", " };
        write!(chain, "{separator}1.1{BEFORE}{name}{AFTER}").ok()?;
    }
    if chain.is_empty() { None } else { HeaderValue::try_from(chain).ok() }
}

/// The entries of `Via`. A comma inside another's comment parts what is no entry of ours anyhow.
fn entries(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::VIA).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// The name of the instance, if an entry is one of ours.
fn instance_of(entry: &str) -> Option<&str> {
    let (version, rest) = entry.split_once(BEFORE)?;
    let name = rest.strip_suffix(AFTER)?;
    let is_name = name.len() == DIGITS && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (matches!(version, "1.0" | "1.1" | "2.0") && is_name).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn via(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (header::VIA, HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn an_instance_knows_what_it_has_passed_on_and_no_other_does() {
        let (this, other) = (Instance::new(0xab), Instance::new(0xac));
        let mut headers = via(&["1.0 fred, 1.1 p.example.net"]);
        assert!(!this.has_passed(&headers));
        this.append_to(&mut headers, Version::HTTP_11);
        assert_eq!(headers.get_all(header::VIA).iter().next_back().unwrap(), "1.1 anteroom (00000000000000ab)");
        assert!(this.has_passed(&headers) && !other.has_passed(&headers));
        other.append_to(&mut headers, Version::HTTP_10);
        assert!(this.has_passed(&headers) && other.has_passed(&headers));
        // As others may join the lines.
        assert!(this.has_passed(&via(&["1.1 nginx, 1.1 anteroom (00000000000000ab),1.1 x"])));
        assert!(!this.has_passed(&via(&["1.1 anteroom", "1.1 anteroom ()", "1.1 other (00000000000000ab)"])));
    }

    #[test]
    fn of_a_clients_via_a_shared_fetch_has_the_anterooms_alone() {
        assert_eq!(chain(&via(&["1.1 nginx", "1.1 anteroom", "1.1 anteroom (so much for that)"])), None);
        let headers =
            via(&["1.1 nginx (x), 1.0 anteroom (00000000000000ab)", "1.1 anteroom (00000000000000cd), 1.1 z"]);
        assert_eq!(chain(&headers).unwrap(), "1.1 anteroom (00000000000000ab), 1.1 anteroom (00000000000000cd)");
        let many = vec!["1.1 anteroom (00000000000000ab)"; 100];
        assert_eq!(chain(&via(&many)).unwrap().to_str().unwrap().split(',').count(), LONGEST_CHAIN);
    }
}
