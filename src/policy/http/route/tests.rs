use super::*;

const RULES: Rules<'_> = Rules {
    by_origin: false,
    query: QueryRule::Key,
    credentials: CredentialsRule::Bypass,
    webhooks: Some("/_anteroom/webhooks"),
    routes: Routes::ALL,
};
const LIST: &str = "/public/api/v1/inboxes/in/contacts/co/conversations";

fn route(method: &str, target: &str, headers: &[(&str, &str)]) -> Route {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
    }
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    classify(&method, &target.parse().unwrap(), &map, RULES)
}

fn contact(contact: &str) -> Target {
    Target::Contact(Source { inbox: "in".into(), contact: contact.into() })
}

fn itself(contact: &str) -> Target {
    Target::Identity(Source { inbox: "in".into(), contact: contact.into() })
}

#[test]
fn only_the_canonical_route_is_shared() {
    assert_eq!(route("GET", LIST, &[]), Route::Read(Key::new("in", "co", None)));
    assert_eq!(route("HEAD", LIST, &[]), Route::Read(Key::new("in", "co", None)));
    let spelt = LIST.replace("co/", "c%6F/");
    assert_eq!(route("GET", &spelt, &[]), Route::Read(Key::new("in", "co", None)));
    let query = format!("{LIST}?a=1");
    assert_eq!(route("GET", &query, &[]), Route::Read(Key::new("in", "co", Some("a=1"))));
    for alias in [
        "/public/api/v1/inboxes/in/contacts/co/conversations/",
        "/public/api/v1/inboxes/in/contacts/co/conversations.json",
        "/public/api/v1//inboxes/in/contacts/co/conversations",
        "/public/api/v1/./inboxes/in/contacts/co/conversations",
        "/x/../public/api/v1/inboxes/in/contacts/co/conversations",
        "/public/%61pi/v1/inboxes/in/contacts/co/conversations",
    ] {
        let expected = Route::Bypass(Key::new("in", "co", None), BypassReason::Alias);
        assert_eq!(route("GET", alias, &[]), expected, "{alias}");
    }
    for raw in ["a.b", "a%2Fb", "a%", "%2E%2E", "a%00b", "a%FF"] {
        let found = route("GET", &LIST.replace("co/", &format!("{raw}/")), &[]);
        assert!(!matches!(found, Route::Read(_)), "{raw}: {found:?}");
    }
}

#[test]
fn credentials_bypass_unless_ignored() {
    for (name, reason) in [
        ("authorization", BypassReason::Authorization),
        ("cookie", BypassReason::Cookie),
        ("api-access-token", BypassReason::AccessToken),
        ("api_access_token", BypassReason::AccessToken),
    ] {
        assert_eq!(route("GET", LIST, &[(name, "x")]), Route::Bypass(Key::new("in", "co", None), reason), "{name}");
    }
    let query = format!("{LIST}?api%5Faccess_token=x");
    assert!(matches!(route("GET", &query, &[]), Route::Bypass(_, BypassReason::AccessToken)));
    let headers = HeaderMap::from_iter([(header::COOKIE, "a=b".parse().unwrap())]);
    let ignored = classify(
        &Method::GET,
        &LIST.parse().unwrap(),
        &headers,
        Rules { credentials: CredentialsRule::Ignore, ..RULES },
    );
    assert!(matches!(ignored, Route::Read(_)));
}

#[test]
fn a_write_is_recognised_in_every_spelling() {
    for (method, path) in [
        ("POST", "/public/api/v1/inboxes/in/contacts/co/conversations"),
        ("POST", "/public/api/v1/inboxes/in/contacts/co/conversations/7/messages"),
        ("POST", "//public/api//v1/inboxes/in/contacts/co/conversations/7/messages/"),
        ("POST", "/public/api/v1/inboxes/in/contacts/co/conversations/7/update_last_seen.json"),
        ("POST", "/a/../public/api/v1/inboxes/in/contacts/%63o/conversations/7/toggle_status"),
        ("PATCH", "/public/api/v1/inboxes/in/contacts/co"),
        ("PUT", "/public%2Fapi%2Fv1%2Finboxes%2Fin%2Fcontacts%2Fco"),
        ("DELETE", "/public/api/v1/inboxes/in/contacts/co"),
        ("PURGE", "/public/api/v1/inboxes/in/contacts/co"),
        ("GET", "/public/api/v1/inboxes/in/contacts/co?identifier_hash=1"),
        ("HEAD", "/public/api/v1/inboxes/in/contacts/co?a=b&identifier%5Fhash=1"),
    ] {
        let Route::Write(targets) = route(method, path, &[]) else { panic!("{method} {path}") };
        assert!(targets.contains(&contact("co")) || targets == [itself("co")], "{method} {path}: {targets:?}");
    }
    assert!(matches!(route("GET", LIST, &[("x-http-method-override", "POST")]), Route::Write(_)));
    let path = "/public/api/v1/inboxes/in/contacts/co";
    assert!(matches!(route("GET", path, &[("content-length", "20")]), Route::Write(_)));
}

#[test]
fn doubtful_identifiers_touch_every_reading() {
    let Route::Write(targets) = route("PATCH", "/public/api/v1/inboxes/in/contacts/a%2Eb", &[]) else { panic!() };
    assert_eq!(targets, [itself("a.b"), itself("a")]);
    let path = "/public/api/v1/inboxes/in/contacts/a%2Fb/conversations";
    let Route::Write(targets) = route("POST", path, &[]) else { panic!() };
    assert_eq!(targets, [contact("a/b"), itself("a")]);
}

#[test]
fn other_writes_name_what_they_touch() {
    let write = |path: &str| match route("POST", path, &[]) {
        Route::Write(targets) => targets,
        other => panic!("{path}: {other:?}"),
    };
    assert_eq!(write("/public/api/v1/inboxes/in/contacts.json"), [Target::Creation { inbox: "in".into() }]);
    assert_eq!(write("/public/api/v1/csat_survey/AB-C"), [Target::Csat { uuid: "ab-c".into() }]);
    let conversation = [Target::AccountConversation { account: 7, display: 131 }];
    assert_eq!(write("/api/v1/accounts/7/conversations/131/messages"), conversation);
    assert_eq!(write("/api/v1/accounts/7/contacts/42"), [Target::AccountContact { id: 42 }]);
    let path = "/public/api/v1/inboxes/in/contacts/co/conversations/131/update_last_seen";
    assert_eq!(write(path), [contact("co"), Target::DisplayId { inbox: "in".into(), display: 131 }]);
    for path in ["conversations", "contacts", "bulk_actions", "actions/contact_merge", "macros/3/execute"] {
        assert_eq!(write(&format!("/api/v1/accounts/7/{path}")), [Target::Account { account: 7 }], "{path}");
    }
}

#[test]
fn what_is_a_write_is_decided_after_the_upstreams_own_routing() {
    let write = |path: &str| match route("PATCH", path, &[]) {
        Route::Write(targets) => targets,
        other => panic!("{path}: {other:?}"),
    };
    let conversation = [Target::AccountConversation { account: 7, display: 12 }];
    for path in ["7/conversations/12-x/toggle_status", "7-a/conversations/12.json", "07/conversations/12/"] {
        assert_eq!(write(&format!("/api/v1/accounts/{path}")), conversation, "{path}");
    }
    let csat = [Target::Csat { uuid: "0f0e0d0c-0b0a-4908-8706-050403020100".into() }];
    for uuid in [
        "0f0e0d0c-0b0a-4908-8706-050403020100",
        "0F0E0D0C0B0A49088706050403020100",
        "%7B0f0e0d0c-0b0a-4908-8706-050403020100%7D",
        "0f0e-0d0c-0b0a-4908-8706-0504-0302-0100",
        "0f0e0d0c0b0a49088706050403020100.json",
    ] {
        assert!(write(&format!("/public/api/v1/csat_survey/{uuid}")).contains(&csat[0]), "{uuid}");
    }
    let contact_path = "/public/api/v1/inboxes/in/contacts/co";
    for query in [
        "[identifier_hash]=h",
        "%5Bidentifier_hash%5D=h",
        "identifier_hash[]=h",
        "a=1&+identifier_hash=h",
        "[[identifier_hash]]=h",
    ] {
        assert_eq!(route("GET", &format!("{contact_path}?{query}"), &[]), Route::Write(vec![contact("co")]), "{query}");
    }
    let upgrade = [("upgrade", "websocket"), ("connection", "upgrade")];
    let hashed = format!("{contact_path}?identifier_hash=h");
    for path in [&hashed, LIST, "/public/api/v1/inboxes/in/contacts/co/conversations.json", contact_path] {
        assert_eq!(route("GET", path, &upgrade), route("GET", path, &[]), "{path}");
    }
    let handshake = [
        ("host", "front.test"),
        ("upgrade", "websocket"),
        ("connection", "upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    for path in [&hashed, LIST, contact_path] {
        assert_eq!(route("GET", path, &handshake), route("GET", path, &[]), "{path}");
    }
    assert_eq!(route("GET", "/cable", &handshake), Route::Tunnel);
    let below = write("/public/api/v1/inboxes/in/contacts/co/conversations.json");
    assert_eq!(below, [contact("co")], "what is below a contact does not merge it");
}

#[test]
fn the_final_status_says_what_a_write_did() {
    for (statuses, effect) in [
        (&[200, 201, 204][..], Effect::Committed),
        (&[400, 401, 403, 404, 405, 411, 413, 414, 415, 429, 431], Effect::Nothing),
        (&[301, 302, 308, 402, 408, 409, 410, 422, 499, 500, 502, 503, 504], Effect::Unclear),
    ] {
        for status in statuses {
            assert_eq!(effect_of(StatusCode::from_u16(*status).unwrap()), effect, "{status}");
        }
    }
}

#[test]
fn a_handshake_is_a_tunnel_only_where_it_means_nothing_else() {
    let handshake = [
        ("upgrade", "WebSocket"),
        ("connection", "keep-alive, Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    assert_eq!(route("GET", "/cable", &handshake), Route::Tunnel);
    for without in 0..handshake.len() {
        let mut less = handshake.to_vec();
        less.remove(without);
        assert_eq!(route("GET", "/cable", &less), Route::Pass(None), "{without}");
    }
    for (more, tunnel) in [
        (("content-length", "0"), true),
        (("content-length", "1"), false),
        (("transfer-encoding", "chunked"), false),
        (("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="), false),
        (("sec-websocket-version", "13"), false),
        (("x-http-method-override", "POST"), false),
    ] {
        let headers: Vec<_> = handshake.iter().copied().chain([more]).collect();
        assert_eq!(route("GET", "/cable", &headers) == Route::Tunnel, tunnel, "{more:?}");
    }
    for (method, target) in [
        ("GET", LIST),
        ("HEAD", LIST),
        ("GET", "/public/api/v1/inboxes/in/contacts/co/conversations.json"),
        ("GET", "/public/api/v1/inboxes/in/contacts/co"),
        ("GET", "/public/api/v1/inboxes/in/contacts/co?identifier_hash=h"),
        ("GET", "/public/api/v1/inboxes/in/contacts/co/conversations/7/messages"),
        ("GET", "/_anteroom/webhooks"),
        ("POST", "/cable"),
        ("HEAD", "/cable"),
        ("OPTIONS", "/cable"),
    ] {
        assert_eq!(route(method, target, &handshake), route(method, target, &[]), "{method} {target}");
    }
}

#[test]
fn the_rest_passes() {
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/public/api/v1/inboxes/in"),
        ("POST", "/rails/active_storage/direct_uploads"),
        ("POST", "/public/api/v1/inboxes/in/contacts/co/conversations/7/toggle_typing"),
        ("OPTIONS", LIST),
        ("POST", "/api/v1/accounts/x/conversations/131/messages"),
    ] {
        assert_eq!(route(method, path, &[]), Route::Pass(None), "{method} {path}");
    }
    let learning = Route::Pass(Some(Source { inbox: "in".into(), contact: "co".into() }));
    assert_eq!(route("GET", "/public/api/v1/inboxes/in/contacts/co/conversations/7/else", &[]), learning);
    assert_eq!(route("GET", "/", &[("upgrade", "h2c"), ("connection", "upgrade")]), Route::Pass(None));
    assert_eq!(route("TRACE", "/", &[]), Route::Refuse(Refusal::Method));
    let preflight = [("origin", "https://a.test"), ("access-control-request-method", "GET")];
    assert_eq!(route("OPTIONS", LIST, &preflight), Route::Preflight);
    assert_eq!(route("OPTIONS", LIST, &preflight[..1]), Route::Pass(None));
    for more in [
        ("cookie", "a=b"),
        ("origin", "https://b.test"),
        ("access-control-request-method", "PUT"),
        ("content-length", "1"),
    ] {
        assert_eq!(route("OPTIONS", LIST, &[preflight[0], preflight[1], more]), Route::Pass(None), "{more:?}");
    }
    assert_eq!(route("OPTIONS", "/cable", &preflight), Route::Pass(None));
}
