//! Who is believed, and what the upstream is told.

use super::*;

fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(*name, HeaderValue::from_static(value));
    }
    map
}

fn settings(trusted: &[&str]) -> ForwardSettings {
    let trusted = TrustedProxies(trusted.iter().map(|network| network.parse().unwrap()).collect());
    ForwardSettings { trusted, protocol: ProtocolRule::Client, host: HostRule::Upstream }
}

fn client(peer: &str, fields: &[(&'static str, &'static str)], settings: &ForwardSettings) -> (Client, HeaderMap) {
    let headers = map(fields);
    let side = Side { peer: peer.parse().unwrap(), protocol: Protocol::Http };
    let client = Client::of(&headers, side, headers.get("host").cloned(), settings);
    (client, headers)
}

fn told(peer: &str, fields: &[(&'static str, &'static str)], settings: &ForwardSettings) -> HeaderMap {
    let (client, mut headers) = client(peer, fields, settings);
    let base = Authority::from_static("up.test:3000");
    client.tell(&mut headers, &base, &settings.host, &HeaderValue::from_static("abc"));
    headers
}

#[test]
fn what_a_stranger_claims_is_replaced() {
    let headers = told(
        "2001:db8::1",
        &[
            ("host", "front.test"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "forged.test"),
            ("forwarded", "for=10.0.0.1;proto=https"),
            ("x-real-ip", "10.0.0.1"),
            ("x-forwarded-port", "443"),
            ("x-forwarded-prefix", "/x"),
            ("x-forwarded-ssl", "on"),
            ("client-ip", "10.0.0.1"),
            ("x_forwarded_for", "10.0.0.1"),
            ("x_real-ip", "10.0.0.1"),
            ("x-kept", "1"),
        ],
        &settings(&["192.0.2.0/24"]),
    );
    let expected = map(&[
        ("x-kept", "1"),
        ("host", "up.test:3000"),
        ("x-forwarded-for", "2001:db8::1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "front.test"),
        ("forwarded", "for=\"[2001:db8::1]\";host=\"front.test\";proto=http"),
        ("x-request-id", "abc"),
    ]);
    assert_eq!(headers, expected);
}

#[test]
fn what_a_trusted_proxy_says_is_believed_and_added_to() {
    let headers = told(
        "192.0.2.7",
        &[
            ("host", "inner.test"),
            ("x-forwarded-for", "203.0.113.9, 192.0.2.8"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "chat.example"),
            ("x-forwarded-port", "443"),
            ("x_forwarded_proto", "http"),
        ],
        &settings(&["192.0.2.0/24"]),
    );
    let expected = map(&[
        ("x-forwarded-port", "443"),
        ("host", "up.test:3000"),
        ("x-forwarded-for", "203.0.113.9, 192.0.2.8, 192.0.2.7"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "chat.example"),
        ("forwarded", "for=203.0.113.9, for=192.0.2.8, for=192.0.2.7;host=\"chat.example\";proto=https"),
        ("x-request-id", "abc"),
    ]);
    assert_eq!(headers, expected);
}

#[test]
fn forwarded_alone_is_enough() {
    let settings = settings(&["::1/128"]);
    let fields = [
        ("host", "a"),
        ("forwarded", "for=\"[2001:db8::9]:4711\";proto=https;host=\"b:1\", for=10.0.0.1;Proto=HTTPS;host=c"),
    ];
    let (client, _) = client("::1", &fields, &settings);
    assert_eq!((client.protocol, client.host.as_ref().unwrap().as_bytes()), (Protocol::Https, &b"c"[..]));
    assert_eq!(client.forwarded_for, "2001:db8::9, 10.0.0.1, ::1");
    assert_eq!(client.address, "10.0.0.1".parse::<IpAddr>().unwrap());
}

#[test]
fn the_client_is_the_last_address_that_no_trusted_proxy_has() {
    let settings = settings(&["10.0.0.0/8", "fd00::/8"]);
    for (peer, list, expected) in [
        ("203.0.113.1", "198.51.100.1", "203.0.113.1"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "6.6.6.6, 198.51.100.1, 10.2.3.4", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1:5000, fd00::1", "198.51.100.1"),
        ("10.0.0.1", "[2001:db8::2]:99", "2001:db8::2"),
        ("10.0.0.1", "::ffff:198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", "unknown, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
    ] {
        let (client, _) = client(peer, &[("x-forwarded-for", list)], &settings);
        assert_eq!(client.address, expected.parse::<IpAddr>().unwrap(), "{list} by {peer}");
    }
}

#[test]
fn nonsense_of_a_trusted_proxy_is_not_passed_on_as_truth() {
    let settings = settings(&["10.0.0.0/8"]);
    let fields =
        [("host", "a"), ("x-forwarded-proto", "gopher"), ("x-forwarded-host", "b c"), ("x-forwarded-for", ", ,")];
    let (client, _) = client("10.0.0.1", &fields, &settings);
    assert_eq!((client.protocol, client.host.as_ref().unwrap().as_bytes()), (Protocol::Http, &b"a"[..]));
    assert_eq!(client.forwarded_for, "10.0.0.1");
}

#[test]
fn the_operator_has_the_last_word_on_protocol_and_host() {
    let mut settings = settings(&[]);
    settings.protocol = ProtocolRule::Fixed(Protocol::Https);
    for (host, expected) in [
        (HostRule::Upstream, "up.test:3000"),
        (HostRule::Client, "front.test"),
        (HostRule::Name(Authority::from_static("chat.example")), "chat.example"),
    ] {
        settings.host = host;
        let headers = told("203.0.113.1", &[("host", "front.test"), ("x-forwarded-proto", "http")], &settings);
        assert_eq!(headers["host"], expected);
        assert_eq!(headers["x-forwarded-host"], "front.test");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["forwarded"], "for=203.0.113.1;host=\"front.test\";proto=https");
    }
}

#[test]
fn a_client_of_ipv4_is_told_as_one() {
    let side = Side::from("[::ffff:203.0.113.5]:7".parse::<SocketAddr>().unwrap());
    assert_eq!(side.peer.to_string(), "203.0.113.5");
}

#[test]
fn of_ipv6_the_network_is_one_client() {
    for (address, network) in [("203.0.113.9", "203.0.113.9"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::")] {
        assert_eq!(network_of(address.parse().unwrap()), network.parse::<IpAddr>().unwrap());
    }
}

#[test]
fn addresses_are_written_as_everywhere() {
    for address in [[0, 0, 0, 0], [1, 9, 10, 19], [99, 100, 101, 110], [199, 200, 209, 255], [255, 250, 90, 5]] {
        let address = IpAddr::from(address);
        assert_eq!(text_of(address), address.to_string());
    }
    let address: IpAddr = "2001:db8::1".parse().unwrap();
    assert_eq!(text_of(address), "2001:db8::1");
}
