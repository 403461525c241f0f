//! The forms one answer is sent in: encodings, ETag, 304, CORS.

use std::ops::Deref;
use std::time::{Duration, UNIX_EPOCH};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode, Version};
use siphasher::sip128::SipHasher13;

use super::encoding::Coding;
use super::headers::{CACHE_STATUS, X_REQUEST_ID, append_via, expose, has_origin, remove_hop_by_hop};
use super::kept_body::KeptBody;
use super::pieces::Pieces;
use super::stored_head::{Form, OF_THE_CONTENT, StoredHead, remove_digests, weakened};

/// An answer made ready to be sent any number of times. The head of each form is made when it is first asked for.
#[derive(Debug)]
pub struct Prepared {
    /// 200, or another status that is authoritative.
    pub status: StatusCode,
    /// The whole body.
    pub body: KeptBody,
    /// What every form has.
    head: StoredHead,
    /// The validator by which the upstream knows what this was made from, if it is not that of the head.
    upstream_etag: Option<Box<Box<[u8]>>>,
}

/// What an answer is prepared from.
pub struct Received {
    /// The upstream's status.
    pub status: StatusCode,
    /// The upstream's head.
    pub head: HeaderMap,
    /// The whole body; the head is that of the body without coding, or in the one that the head names.
    pub body: KeptBody,
    /// The version the upstream spoke.
    pub version: Version,
    /// When it was received, as a `Date` (RFC 9110 section 6.6.1: the upstream sends none).
    pub date: HeaderValue,
    /// The fetch was made for readers from one origin only.
    pub for_one_origin: bool,
    /// Lists are offered in codings.
    pub has_codings: bool,
}

/// Fields that are made anew for every answer, or belong to one request only.
const NOT_KEPT: [HeaderName; 7] = [
    header::AGE,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::SET_COOKIE,
    CACHE_STATUS,
    X_REQUEST_ID,
    HeaderName::from_static("x-runtime"),
];

impl Prepared {
    /// Makes ready what the upstream answered to a shared fetch, which had an `Origin`.
    pub fn new(received: Received) -> Self {
        let Received { status, mut head, body, version, date, for_one_origin, has_codings } = received;
        let encoded = head.contains_key(header::CONTENT_ENCODING);
        remove_hop_by_hop(&mut head);
        for name in &NOT_KEPT {
            head.remove(name);
        }
        let mut cors = split_cors(&mut head, for_one_origin);
        cors.iter_mut().for_each(expose);
        let mut upstream_etag = None;
        if encoded {
            remove_digests(&mut head);
            if let Some(etag) = head.get(header::ETAG) {
                upstream_etag = Some(boxed(etag.as_bytes()));
                let etag = weakened(etag.as_bytes());
                head.insert(header::ETAG, etag);
            }
        }
        if has_codings {
            vary_by_coding(&mut head);
        }
        head.entry(header::DATE).or_insert(date);
        append_via(&mut head, version);
        Self { status, head: StoredHead::new(&head, cors.as_ref()), body, upstream_etag }
    }

    /// The same answer as it was made ready elsewhere: fields and fields for readers from another origin, and the upstream's
    /// validator of it if it is another one than the fields have.
    pub fn again(
        status: StatusCode,
        fields: &HeaderMap,
        cors: Option<&HeaderMap>,
        upstream_etag: Option<&[u8]>,
        body: KeptBody,
    ) -> Self {
        Self { status, body, head: StoredHead::new(fields, cors), upstream_etag: upstream_etag.map(boxed) }
    }

    /// The fields that every form has.
    pub fn fields(&self) -> HeaderMap {
        self.head.fields()
    }

    /// The fields that readers from another origin get besides, if that is known.
    pub fn cors(&self) -> Option<&HeaderMap> {
        self.head.cors()
    }

    /// The upstream's validator of it, if it is another one than the fields have.
    pub fn own_upstream_etag(&self) -> Option<&[u8]> {
        self.upstream_etag.as_deref().map(|etag| &**etag)
    }

    /// The same, with what its head has in common with others kept once: `share` knows the others.
    #[must_use]
    pub fn sharing(mut self, share: impl FnOnce(StoredHead) -> StoredHead) -> Self {
        self.head = share(self.head);
        self
    }

    /// The body is no longer the upstream's: it has a validator of our own, from [`own_etag`].
    #[must_use]
    pub fn made_anew(mut self, etag: HeaderValue) -> Self {
        let mut head = self.head.fields();
        let before = head.insert(header::ETAG, etag);
        self.upstream_etag =
            self.upstream_etag.or_else(|| Some(boxed(before.as_ref().map_or(&[][..], HeaderValue::as_bytes))));
        // It says when the upstream's body changed, not when ours did (RFC 9110 section 8.8.2.2).
        head.remove(header::LAST_MODIFIED);
        remove_digests(&mut head);
        self.head = StoredHead::new(&head, self.head.cors());
        self
    }

    /// When it was made by the clock of whoever made it, in milliseconds since 1970, rounded down to a second.
    pub fn made_at(&self) -> Option<u64> {
        u64::try_from(date_of(self.head.get(&header::DATE).as_deref())?.as_millis()).ok()
    }

    /// The same answer after the upstream has said with a 304 that it still holds: the fields that came with it, at
    /// this `date`, replace the kept ones, except those of the content and the validators (RFC 9111 sections 3.2 and 4.3.4).
    #[must_use]
    pub fn refreshed(&self, mut update: HeaderMap, version: Version, date: HeaderValue) -> Self {
        remove_hop_by_hop(&mut update);
        for name in NOT_KEPT.iter().chain(&OF_THE_CONTENT).chain(&[header::ETAG, header::LAST_MODIFIED, header::VARY]) {
            update.remove(name);
        }
        // The kept ones were given for the same origin.
        drop(split_cors(&mut update, true));
        // The kept one is older than the answer is now, and the next cache would count from it.
        update.entry(header::DATE).or_insert(date);
        append_via(&mut update, version);
        let mut head = self.head.fields();
        for name in update.keys() {
            head.remove(name);
        }
        for (name, value) in &update {
            head.append(name.clone(), value.clone());
        }
        Self {
            status: self.status,
            head: StoredHead::new(&head, self.head.cors()),
            body: self.body.clone(),
            upstream_etag: self.upstream_etag.clone(),
        }
    }

    /// Whether this reader may have it: one from another origin may not, if the upstream tells origins apart.
    pub fn serves(&self, asked: &HeaderMap) -> bool {
        self.head.is_for_all_origins() || !has_origin(asked)
    }

    /// Whether readers of every origin may have it.
    pub fn is_for_all_origins(&self) -> bool {
        self.head.is_for_all_origins()
    }

    /// The validator by which the upstream knows what this was made from.
    pub fn upstream_etag(&self) -> Option<HeaderValue> {
        let etag = match self.own_upstream_etag() {
            Some(own) => HeaderValue::from_bytes(own),
            None => HeaderValue::from_bytes(&self.head.get(&header::ETAG)?),
        };
        etag.ok().filter(|etag| !etag.is_empty())
    }

    /// Whether this reader has it already: then no body is sent, in whatever coding.
    pub fn is_held_by(&self, asked: &HeaderMap) -> bool {
        self.status == StatusCode::OK && is_not_modified(|name| self.head.get(name), asked)
    }

    /// The answer to one reader: 200 or 304, with CORS if the request has an origin, without a body for `HEAD`.
    /// It has the body as it is kept, unless another form is given: in a coding that the reader takes, or in none. For a
    /// 304 its bytes do not matter.
    ///
    /// Its head has `Age`, `Cache-Status` and the request's id as empty fields, to be set; the length is the body's.
    pub fn respond(
        &self,
        method: &Method,
        asked: &HeaderMap,
        other: Option<(Option<Coding>, Pieces)>,
    ) -> Response<Pieces> {
        let not_modified = self.is_held_by(asked);
        let (coding, body) = other.unwrap_or_else(|| (self.body.coding(), self.body.kept().clone()));
        let form = Form { coding, cors: self.is_for_all_origins() && has_origin(asked), not_modified };
        let mut head = self.head.form(form);
        let is_head = *method == Method::HEAD;
        if !not_modified && (is_head || body.is_empty()) {
            // What GET would send (RFC 9110 section 8.6).
            let length = if coding.is_none() { self.body.length() } else { body.len() };
            head.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        let mut response = Response::new(if not_modified || is_head { Pieces::default() } else { body });
        *response.status_mut() = if not_modified { StatusCode::NOT_MODIFIED } else { self.status };
        *response.headers_mut() = head;
        response
    }

    /// The head of a form as lines of HTTP/1.1, without `Age`, `Cache-Status`, the request's id and a length.
    pub fn write_head(&self, form: Form, out: &mut Vec<u8>) {
        self.head.write(form, out);
    }

    /// Whether a reader with this `If-None-Match` has it already: as [`Self::is_held_by`].
    pub fn is_held_as(&self, if_none_match: &[u8]) -> bool {
        self.status == StatusCode::OK && matches_weakly(if_none_match, self.head.get(&header::ETAG).as_deref())
    }

    /// Bytes that its head holds in memory, about.
    pub fn weight(&self) -> usize {
        self.head.weight() + self.upstream_etag.as_ref().map_or(0, |etag| etag.len())
    }
}

/// Twice: few answers have one, and each has the room for it.
fn boxed(etag: &[u8]) -> Box<Box<[u8]>> {
    Box::new(etag.into())
}

fn vary_by_coding(head: &mut HeaderMap) {
    let mut fields = head.get_all(header::VARY).iter().filter_map(|vary| vary.to_str().ok());
    if !fields.any(|vary| vary.split(',').any(|name| name.trim().eq_ignore_ascii_case("accept-encoding"))) {
        head.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

/// Takes the CORS fields out of a head; gives them if they are the same for every origin, or for the one asked for.
fn split_cors(head: &mut HeaderMap, for_one_origin: bool) -> Option<HeaderMap> {
    let names: Vec<HeaderName> =
        head.keys().filter(|name| name.as_str().starts_with("access-control-")).cloned().collect();
    let mut cors = HeaderMap::with_capacity(names.len());
    for name in names {
        for value in head.get_all(&name) {
            cors.append(name.clone(), value.clone());
        }
        head.remove(&name);
    }
    let open = cors.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).is_some_and(|origin| origin == "*");
    let for_all = open && !cors.contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS);
    (for_all || for_one_origin).then_some(cors)
}

/// Leaves of the CORS fields of an answer that goes to one reader those that this one would have got; false if that
/// is not known, because the upstream was asked for another origin and tells origins apart.
pub fn suit_origin(head: &mut HeaderMap, asked: &HeaderMap, for_one_origin: bool) -> bool {
    let cors = split_cors(head, for_one_origin);
    if has_origin(asked) {
        let is_known = cors.is_some();
        head.extend(cors.into_iter().flatten());
        is_known
    } else {
        true
    }
}

/// Whether the client has this answer already (RFC 9110 section 13.2.2: `If-None-Match` first, else
/// `If-Modified-Since`). `kept` gives the fields of the answer.
pub fn is_not_modified<V: Deref<Target = [u8]>>(kept: impl Fn(&HeaderName) -> Option<V>, asked: &HeaderMap) -> bool {
    if asked.contains_key(header::IF_NONE_MATCH) {
        let etag = kept(&header::ETAG);
        return asked
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .any(|list| matches_weakly(list.as_bytes(), etag.as_deref()));
    }
    let Some(since) = asked.get(header::IF_MODIFIED_SINCE) else { return false };
    match (date_of(Some(since.as_bytes())), date_of(kept(&header::LAST_MODIFIED).as_deref())) {
        (Some(since), Some(modified)) => modified <= since,
        _ => false,
    }
}

/// The time that a field tells, since 1970.
fn date_of(field: Option<&[u8]>) -> Option<Duration> {
    let date = httpdate::parse_http_date(std::str::from_utf8(field?).ok()?).ok()?;
    date.duration_since(UNIX_EPOCH).ok()
}

/// Weak comparison with a list of entity tags; `*` means whatever there is (RFC 9110 sections 8.8.3.2 and 13.1.2).
fn matches_weakly(list: &[u8], etag: Option<&[u8]>) -> bool {
    if list.trim_ascii() == b"*" {
        return true;
    }
    let Some(etag) = etag else { return false };
    let wanted = etag.strip_prefix(b"W/").unwrap_or(etag);
    let mut rest = list;
    // A comma may stand inside the quotes, so the list is walked tag by tag.
    loop {
        let Some(start) = rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b',')) else { return false };
        rest = &rest[start..];
        let tag = rest.strip_prefix(b"W/").unwrap_or(rest);
        if tag.first() != Some(&b'"') {
            return false;
        }
        let Some(end) = tag[1..].iter().position(|byte| *byte == b'"') else { return false };
        if tag[..end + 2] == *wanted {
            return true;
        }
        rest = &tag[end + 2..];
    }
}

/// A weak validator of our own, from a hash that every replica makes alike. Reads the whole body.
pub fn own_etag(body: &[u8]) -> HeaderValue {
    let hash = u128::from(SipHasher13::new().hash(body));
    HeaderValue::try_from(format!("W/\"{hash:032x}\"")).expect("hex digits are a header value")
}

/// Whether a validator is made from the body alone: a strong one, or the hash that the upstream's framework makes
/// (`W/` and 32 hex digits, `api.md` 6.1). Only such a one may revalidate an answer that is known to be out of date.
pub fn is_made_from_body(etag: &HeaderValue) -> bool {
    match etag.as_bytes() {
        [b'W', b'/', b'"', hash @ .., b'"'] => hash.len() == 32 && hash.iter().all(u8::is_ascii_hexdigit),
        [b'"', .., b'"'] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
