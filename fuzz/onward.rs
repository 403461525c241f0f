//! The fields that go on to the upstream, against what has to be left of each.

use std::net::{IpAddr, Ipv4Addr};

use anteroom::policy::http::client::{Client, ForwardSettings, HostRule, Protocol, ProtocolRule, Side, TrustedProxies};
use anteroom::policy::http::framing::{Content, frame_request};
use anteroom::policy::http::onward::{Hop, onward};
use anteroom::policy::http::via::Instance;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};

use super::mutator::{Dice, number};

/// Names besides.
const OTHERS: [&str; 23] = [
    "content-length",
    "content_length",
    "transfer_encoding",
    "host",
    "x_forwarded_for",
    "x_forwarded-for",
    "x-forwarded_host",
    "x_real_ip",
    "client_ip",
    "x_forwarded_proto",
    "x-request-id",
    "x_request_id",
    "x_http_method_override",
    "via",
    "cookie",
    "authorization",
    "api_access_token",
    "x-own",
    "x_own",
    "accept",
    "content-type",
    "x-auth-token",
    "x-1",
];
const VALUES: [&str; 24] = [
    "",
    "close",
    "keep-alive",
    "x-own",
    "X-OWN, cookie",
    "host, content-length",
    "x-forwarded-for, via, x-request-id",
    "Forwarded",
    "upgrade",
    "websocket",
    "chunked",
    "gzip, chunked",
    "5",
    "0",
    "5, 6",
    "10.0.0.1",
    "10.0.0.1, 192.0.2.7",
    "for=10.0.0.1;proto=https;host=evil.test",
    "for=\"a,b;c\"",
    "https",
    "evil.test",
    "evil.test, front.test",
    "\"",
    "a\\",
];
/// Names of one connection only.
const OF_A_CONNECTION: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "transfer-encoding",
    "upgrade",
    "expect",
];
/// Names that say who somebody is.
const CLAIMS: [&str; 12] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-scheme",
    "x-forwarded-ssl",
    "x-forwarded-server",
    "x-real-ip",
    "x-client-ip",
    "client-ip",
];
/// Names of which there is one value, made here.
const MADE: [&str; 6] =
    ["host", "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-request-id"];
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const TRUSTED: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9));

/// All names that fields may have here.
fn names() -> Vec<&'static str> {
    [&OF_A_CONNECTION[..], &CLAIMS, &OTHERS].concat()
}

fn fields(dice: &mut Dice) -> Vec<(String, Vec<u8>)> {
    let mut fields = Vec::new();
    for _ in 0..dice.roll(9) {
        let mut value = dice.pick(&VALUES).as_bytes().to_vec();
        if dice.roll(4) == 0 {
            value.extend_from_slice(b", ");
            value.extend_from_slice(dice.pick(&names()).as_bytes());
        }
        if dice.roll(6) == 0 && !value.is_empty() {
            let at = dice.roll(value.len());
            value[at] = *dice.pick(b",;= \t\"\\[]:\xff\x80aZ0");
        }
        fields.push(((*dice.pick(&names())).to_owned(), value));
    }
    fields
}

/// The values of a name, in order.
fn values<'a>(fields: &'a [(String, Vec<u8>)], name: &str) -> Vec<&'a [u8]> {
    fields.iter().filter(|(found, _)| found == name).map(|(_, value)| &value[..]).collect()
}

/// Whether `Connection` names it.
fn is_named(fields: &[(String, Vec<u8>)], name: &str) -> bool {
    values(fields, "connection").into_iter().any(|value| {
        // A value that is not text names nobody.
        value.iter().all(|byte| (0x20..0x7f).contains(byte) || *byte == b'\t')
            && value.split(|byte| *byte == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
    })
}

/// What must hold for any fields.
fn examine(sent: &[(String, Vec<u8>)], peer: IpAddr, method: &Method, content: Content) {
    let mut received = HeaderMap::new();
    for (name, value) in sent {
        let name = HeaderName::try_from(name.as_str()).expect("a name");
        received.append(name, HeaderValue::from_bytes(value).expect("a value"));
    }
    let settings = ForwardSettings {
        trusted: TrustedProxies(vec!["10.0.0.0/8".parse().expect("a network")]),
        protocol: ProtocolRule::Client,
        host: HostRule::Upstream,
    };
    let side = Side { peer, protocol: Protocol::Http };
    let client = Client::of(&received, side, Some(HeaderValue::from_static("front.test")), &settings);
    let base = Authority::from_static("api.test:3000");
    let id = HeaderValue::from_static("an-id");
    let instance = Instance::new(7);
    let hop = Hop { base: &base, host: &settings.host, request_id: &id, instance, version: Version::HTTP_11 };
    let mut fields = onward(&received, &client, hop);
    frame_request(method, &mut fields, content);
    let got = |name: &str| fields.get_all(name).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>();

    let is_believed = peer == TRUSTED;
    for name in MADE {
        assert_eq!(got(name).len(), 1, "{name}");
    }
    assert_eq!((got("host")[0], got("x-request-id")[0]), (&b"api.test:3000"[..], &b"an-id"[..]));
    if is_believed {
        assert!(
            got("x-forwarded-for")[0].ends_with(b"10.0.0.9")
                && got("forwarded")[0].ends_with(b"proto=http") | got("forwarded")[0].ends_with(b"proto=https")
        );
    } else {
        assert_eq!(got("x-forwarded-for"), [b"192.0.2.1"]);
        assert_eq!(got("x-forwarded-host"), [b"front.test"]);
        assert_eq!(got("x-forwarded-proto"), [b"http"]);
        assert_eq!(got("forwarded"), [b"for=192.0.2.1;host=\"front.test\";proto=http"]);
    }
    let length: &[&[u8]] = match content {
        Content::Sized(_) => &[b"17"],
        Content::Nothing if ["POST", "PUT", "PATCH"].contains(&method.as_str()) => &[b"0"],
        _ => &[],
    };
    assert_eq!(got("content-length"), length);
    assert_eq!(got("transfer-encoding"), if content == Content::Unsized { vec![&b"chunked"[..]] } else { Vec::new() });
    let via = got("via");
    assert_eq!(via.last(), Some(&&b"1.1 anteroom (0000000000000007)"[..]));
    if !is_named(sent, "via") {
        assert_eq!(via[..via.len() - 1], values(sent, "via"));
    }
    for name in names() {
        let dashed = name.replace('_', "-");
        let framing = ["content-length", "transfer-encoding"];
        let made = MADE.contains(&name) || framing.contains(&name) || name == "via";
        if made {
            continue;
        }
        let is_twin = name.contains('_')
            && (CLAIMS.contains(&dashed.as_str())
                || framing.contains(&dashed.as_str())
                || ["x-request-id", "x-http-method-override"].contains(&dashed.as_str()));
        let goes = OF_A_CONNECTION.contains(&name)
            || is_twin
            || is_named(sent, name)
            || !is_believed && CLAIMS.contains(&name);
        assert_eq!(got(name), if goes { Vec::new() } else { values(sent, name) }, "{name}");
    }
}

#[test]
fn fuzz_onward() {
    let executions = number("ANTEROOM_FUZZ_EXECUTIONS", super::BRIEFLY);
    let mut dice = Dice(number("ANTEROOM_FUZZ_SEED", 0x5eed).max(1));
    for execution in 0..executions {
        let sent = fields(&mut dice);
        let peer = *dice.pick(&[STRANGER, TRUSTED]);
        let method = dice.pick(&[Method::GET, Method::POST, Method::DELETE]).clone();
        let content = *dice.pick(&[Content::Nothing, Content::Sized(17), Content::Unsized]);
        let ended = std::panic::catch_unwind(|| examine(&sent, peer, &method, content));
        let shown: Vec<_> = sent.iter().map(|(name, value)| (name, String::from_utf8_lossy(value))).collect();
        assert!(ended.is_ok(), "execution {execution}: {method} from {peer} with {shown:?}");
    }
}
