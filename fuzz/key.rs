//! When two requests may share an answer, against an opinion that reads bytes.

use anteroom::policy::http::key::{Key, QueryRule};
use anteroom::policy::http::route::{CredentialsRule, Route, Rules, classify};
use anteroom::policy::resource::Routes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use super::mutator::{Dice, number};

const METHODS: [&str; 8] = ["GET", "GET", "GET", "GET", "HEAD", "POST", "OPTIONS", "PURGE"];
const SEGMENTS: [&str; 26] = [
    "a",
    "b",
    "A",
    "ab",
    "a%62",
    "%61",
    "%61%62",
    "%2561",
    "a:b",
    "a%3Ab",
    "a%3ab",
    "a+b",
    "a%20b",
    "caf%C3%A9",
    "~",
    "%7e",
    "%2e",
    "..",
    ".",
    "a.b",
    "a%2Eb",
    "a%2Fb",
    "a%00",
    "a%",
    "%ff",
    "a;x=1",
];
const QUERIES: [&str; 19] = [
    "",
    "?",
    "?a",
    "?a=1",
    "?a=2",
    "?A=1",
    "?%61=1",
    "?a=1&b",
    "?api_access_token=t",
    "?%61pi_access_token=t",
    "?api_access_token[]=t",
    "?x;api_access_token=t",
    "?+api_access_token=t",
    "?xapi_access_token=t",
    "??",
    "?a/conversations",
    "?before=9",
    "?identifier_hash=h",
    "?a=1&[identifier%5Fhash]=h",
];
/// What is read of a contact, and what is not quite that.
const BELOW: [&str; 12] = [
    "/conversations",
    "/conversations",
    "/conversations",
    "/conversations/7",
    "/conversations/7/messages",
    "/conversations/8/messages",
    "",
    "",
    "/",
    "/conversations/07",
    "/conversations/7x/messages",
    "/messages",
];
const FIELDS: [(&str, &str); 16] = [
    ("cookie", "a=1"),
    ("authorization", "Bearer x"),
    ("api_access_token", "t"),
    ("api-access-token", "t"),
    ("x-http-method-override", "DELETE"),
    ("accept", "text/html"),
    ("accept-encoding", "gzip"),
    ("if-none-match", "\"a\""),
    ("x-forwarded-host", "evil.test"),
    ("x-original-url", "/other"),
    ("x-rewrite-url", "/other"),
    ("range", "bytes=0-1"),
    ("cache-control", "no-cache"),
    ("content-length", "5"),
    ("upgrade", "websocket"),
    ("x-auth-token", "t"),
];
const HOSTS: [&str; 4] = ["a.test", "A.test", "b.test", "a.test:80"];
const ORIGINS: [&str; 3] = ["https://a.test", "https://A.test", "null"];
const BYTES: &[u8] = b"/%?&=;.+_~ac12EF\\|[]@:\x7f";

#[derive(Clone, Debug, PartialEq)]
struct Asked {
    method: String,
    target: String,
    fields: Vec<(&'static str, &'static str)>,
    host: Option<&'static str>,
    origin: Option<&'static str>,
}

impl Asked {
    fn new(dice: &mut Dice) -> Self {
        let (inbox, contact) = (dice.pick(&SEGMENTS[..]), dice.pick(&SEGMENTS[..]));
        let mut target =
            format!("/public/api/v1/inboxes/{inbox}/contacts/{contact}{}{}", dice.pick(&BELOW), dice.pick(&QUERIES));
        for _ in 0..[0, 0, 0, 1, 2][dice.roll(5)] {
            mutate(dice, &mut target);
        }
        let fields = (0..[0, 0, 1, 2][dice.roll(4)]).map(|_| *dice.pick(&FIELDS)).collect();
        let mut some = |names: &[&'static str]| (dice.roll(2) == 0).then(|| *dice.pick(names));
        let (host, origin) = (some(&HOSTS), some(&ORIGINS));
        Self { method: (*dice.pick(&METHODS)).to_owned(), target, fields, host, origin }
    }

    /// Another one that differs a little.
    fn sibling(&self, dice: &mut Dice) -> Self {
        let mut sibling = self.clone();
        match dice.roll(6) {
            0 => (*dice.pick(&METHODS)).clone_into(&mut sibling.method),
            1 => sibling.fields.push(*dice.pick(&FIELDS)),
            2 => sibling.host = Some(*dice.pick(&HOSTS)),
            3 => sibling.origin = Some(*dice.pick(&ORIGINS)),
            4 => respell(dice, &mut sibling.target),
            _ => mutate(dice, &mut sibling.target),
        }
        sibling
    }

    fn read(&self) -> Option<(Method, Uri, HeaderMap)> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        Some((self.method.parse().ok()?, self.target.parse().ok()?, headers))
    }

    /// The key, as the proxy makes it.
    fn key(&self, rules: Rules<'_>) -> Option<Key> {
        let (method, uri, headers) = self.read()?;
        let Route::Read(mut key) = classify(&method, &uri, &headers, rules) else { return None };
        if let Some(host) = self.host {
            key = key.for_host(host);
        }
        Some(self.origin.map_or_else(|| key.clone(), |origin| key.for_origin(origin)))
    }
}

fn mutate(dice: &mut Dice, target: &mut String) {
    let mut bytes = std::mem::take(target).into_bytes();
    let at = 1 + dice.roll(bytes.len() - 1);
    match dice.roll(4) {
        0 => bytes[at] = *dice.pick(BYTES),
        1 => bytes.insert(at, *dice.pick(BYTES)),
        2 => drop(bytes.drain(at..(at + 1 + dice.roll(9)).min(bytes.len()))),
        _ => bytes[at] ^= 0x20,
    }
    *target = String::from_utf8_lossy(&bytes).into_owned();
    if target.len() < 2 {
        target.push_str("//");
    }
}

/// One letter as what it is in percents.
fn respell(dice: &mut Dice, target: &mut String) {
    let at = 1 + dice.roll(target.len() - 1);
    if target.is_char_boundary(at) && target.as_bytes()[at].is_ascii_alphanumeric() {
        let byte = target.as_bytes()[at];
        target.replace_range(at..=at, &format!("%{byte:02x}"));
    }
}

/// What the answer to a request that may be shared depends on.
#[derive(Debug, PartialEq, Eq)]
struct Parts {
    below: Vec<u8>,
    inbox: Vec<u8>,
    contact: Vec<u8>,
    query: Option<Vec<u8>>,
    host: Option<String>,
    origin: Option<&'static str>,
}

/// A segment byte for byte, or nothing if anybody might read it otherwise.
fn plain(raw: &[u8]) -> Option<Vec<u8>> {
    let mut read = Vec::new();
    let mut rest = raw;
    while let [first, after @ ..] = rest {
        rest = match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                read.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
                after
            }
            (b'%' | b'.', _) => return None,
            _ => {
                read.push(*first);
                after
            }
        };
    }
    let is_plain =
        !read.is_empty() && !read.iter().any(|byte| [0, b'/'].contains(byte)) && read != b"." && read != b"..";
    (is_plain && std::str::from_utf8(&read).is_ok()).then_some(read)
}

/// What of a contact, inbox, contact and query.
type Named = (Vec<u8>, Vec<u8>, Vec<u8>, Option<Vec<u8>>);

/// What a target names, if it is a read as published.
fn named(target: &[u8]) -> Option<Named> {
    let target = target.split(|byte| *byte == b'#').next()?;
    let question = target.iter().position(|byte| *byte == b'?');
    let (path, query) = question.map_or((target, None), |at| (&target[..at], Some(target[at + 1..].to_vec())));
    let segments: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    let [b"", b"public", b"api", b"v1", b"inboxes", inbox, b"contacts", contact, ref below @ ..] = segments[..] else {
        return None;
    };
    let is_number = |id: &[u8]| (1..=18).contains(&id.len()) && id[0] != b'0' && id.iter().all(u8::is_ascii_digit);
    match below {
        [] | [b"conversations"] => {}
        [b"conversations", id] | [b"conversations", id, b"messages"] if is_number(id) => {}
        _ => return None,
    }
    Some((below.join(&b'/'), plain(inbox)?, plain(contact)?, query))
}

/// Whether a word stands in a query in any spelling: more than any server would find.
fn mentions(query: &[u8], word: &str) -> bool {
    let mut text = String::from_utf8_lossy(query).into_owned();
    for _ in 0..2 {
        text = percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned();
    }
    text.contains(word)
}

/// Whether a parameter stands in a query as Rack reads it.
fn has_parameter(query: &[u8], word: &str) -> bool {
    query.split(|byte| [b'&', b';'].contains(byte)).any(|pair| {
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
        let name: Vec<u8> = name.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
        let name = percent_encoding::percent_decode(&name).decode_utf8_lossy().into_owned();
        let name = name.trim_start_matches(' ').trim_start_matches(['[', ']']);
        let name = name.strip_suffix(']').filter(|_| !name.contains('[')).unwrap_or(name);
        name == word || name.strip_prefix(word).is_some_and(|rest| rest.starts_with('['))
    })
}

/// The opinion: what the answer depends on if it may be shared, and whether that is beyond doubt.
fn opinion(asked: &Asked) -> (Option<Parts>, bool) {
    let reads = ["GET", "HEAD"].contains(&asked.method.as_str());
    let telling = ["cookie", "authorization", "api_access_token", "api-access-token", "x-http-method-override"];
    let is_told = asked.fields.iter().any(|(name, _)| telling.contains(name));
    let Some((below, inbox, contact, query)) = named(asked.target.as_bytes()) else { return (None, true) };
    let text = query.clone().unwrap_or_default();
    let has_token = has_parameter(&text, "api_access_token");
    // A contact itself may be verified by its read.
    let is_itself = below.is_empty();
    let verifies = is_itself
        && (has_parameter(&text, "identifier_hash") || asked.fields.iter().any(|(name, _)| *name == "content-length"));
    let is_certain = (has_token || !mentions(&text, "api_access_token"))
        && (verifies || !is_itself || !mentions(&text, "identifier_hash"));
    if !reads || is_told || has_token || verifies {
        return (None, is_certain);
    }
    let host = asked.host.map(str::to_lowercase);
    (Some(Parts { below, inbox, contact, query, host, origin: asked.origin }), is_certain)
}

const RULES: Rules<'_> = Rules {
    query: QueryRule::Key,
    credentials: CredentialsRule::Bypass,
    webhooks: Some("/_anteroom/webhooks"),
    by_origin: false,
    routes: Routes::ALL,
};

#[test]
fn fuzz_key_and_route() {
    let executions = number("ANTEROOM_FUZZ_EXECUTIONS", super::BRIEFLY);
    let mut dice = Dice(number("ANTEROOM_FUZZ_SEED", 0x5eed).max(1));
    let (mut shared, mut alike) = (0, 0);
    for execution in 0..executions {
        let one = Asked::new(&mut dice);
        let other = one.sibling(&mut dice);
        let ended = std::panic::catch_unwind(|| {
            if one.read().is_none() || other.read().is_none() {
                return (0, 0); // no target, so no request
            }
            let (keys, opinions) = ([one.key(RULES), other.key(RULES)], [opinion(&one), opinion(&other)]);
            for (key, (parts, is_certain)) in keys.iter().zip(&opinions) {
                let Some(key) = key else {
                    assert!(parts.is_none() || !is_certain, "it may be shared: {parts:?}");
                    continue;
                };
                let parts = parts.as_ref().expect("it may not be shared");
                assert_eq!((key.inbox().as_bytes(), key.contact().as_bytes()), (&parts.inbox[..], &parts.contact[..]));
                assert_eq!(key.query().map(str::as_bytes), parts.query.as_deref());
                // The fetch asks for what the key says, and for nothing else.
                let asked = named(key.path_and_query().as_bytes()).expect("a read is asked for");
                assert_eq!(
                    asked,
                    (parts.below.clone(), parts.inbox.clone(), parts.contact.clone(), parts.query.clone())
                );
                key.path_and_query().parse::<Uri>().expect("it can be asked for");
            }
            let [Some(first), Some(second)] = &keys else { return (u64::from(keys[0].is_some()), 0) };
            assert_eq!(first == second, opinions[0].0 == opinions[1].0, "{opinions:?}");
            assert_eq!(first.text_of_list() == second.text_of_list(), {
                let without = |parts: &Option<Parts>| {
                    parts.as_ref().map(|it| {
                        (it.below.clone(), it.inbox.clone(), it.contact.clone(), it.query.clone(), it.host.clone())
                    })
                };
                without(&opinions[0].0) == without(&opinions[1].0)
            });
            (1, u64::from(first == second))
        });
        let Ok((list, same)) = ended else { panic!("execution {execution} on {one:?} and {other:?}") };
        shared += list;
        alike += same;
    }
    // A mutator that makes only rubbish would test nothing but the refusal.
    assert!(shared * 20 > executions && alike * 200 > executions, "{shared} lists, {alike} alike, of {executions}");
}
