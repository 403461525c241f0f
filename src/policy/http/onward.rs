//! What of a client's fields goes on towards the upstream with what passes.

use http::header::{self, HeaderValue};
use http::uri::Authority;
use http::{HeaderMap, Version};

use super::client::{Client, HostRule};
use super::headers::remove_hop_by_hop;
use super::via::Instance;

/// What this proxy says of itself and of the request.
#[derive(Clone, Copy, Debug)]
pub struct Hop<'a> {
    /// The upstream's own authority.
    pub base: &'a Authority,
    /// `upstream.host`.
    pub host: &'a HostRule,
    /// The request's id.
    pub request_id: &'a HeaderValue,
    /// Which proxy this is.
    pub instance: Instance,
    /// The version in which the client spoke.
    pub version: Version,
}

/// The fields of a request as the upstream gets them, but for those that frame its body: what meant the client's
/// connection stays here, nobody claims to be another, and all else is as it was sent.
pub fn onward(received: &HeaderMap, client: &Client, hop: Hop<'_>) -> HeaderMap {
    let mut fields = received.clone();
    remove_hop_by_hop(&mut fields);
    // This side has answered it already, when the body was first asked for.
    fields.remove(header::EXPECT);
    client.tell(&mut fields, hop.base, hop.host, hop.request_id);
    hop.instance.append_to(&mut fields, hop.version);
    fields
}
