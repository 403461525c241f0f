//! `anteroom explain` and `POST /explain`: why a request is answered from memory, or is not. What it says would happen is
//! what then happens.

use std::time::Duration;

use anteroom::policy::coherence::causes::Cause;
use anteroom_stand_in::{Fault, INBOX, Matcher, Point, StandIn, Webhook};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

use crate::support::child::{Program, run};
use crate::support::script::{Script, answer};
use crate::support::{Answer, Proxy, both, get, get_with, jump, post, reading, request, send};

const TOKEN: &str = "admin.token = \"let-me-in\"\n";

async fn ask(proxy: &Proxy, question: &Value) -> Answer {
    let token = [("authorization", "Bearer let-me-in")];
    send(request("POST", &format!("{}/explain", proxy.admin), &token, &question.to_string())).await
}

async fn explained(proxy: &Proxy, method: &str, path: &str, headers: &[&str]) -> Value {
    let answer = ask(proxy, &json!({ "method": method, "path": path, "headers": headers })).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert!(!answer.text().contains("visitor-a"), "{}", answer.text());
    serde_json::from_slice(&answer.body).unwrap()
}

/// Explains the list of a contact, then asks for it; gives both.
async fn explained_and_asked(proxy: &Proxy, fields: &[(&str, &str)]) -> (Value, Answer) {
    let lines: Vec<String> = fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let told = explained(proxy, "GET", &StandIn::list_path("visitor-a"), &lines).await;
    let answer = get_with(&proxy.list_url("visitor-a"), fields).await;
    (told, answer)
}

/// What is said of `Cache-Status` is how the real one begins: what only the upstream's answer tells comes after it.
fn assert_came_true(told: &Value, answer: &Answer) {
    let foreseen = told["now"]["cache_status"].as_str().unwrap();
    let parts = |field: &str| field.split("; ").map(str::to_owned).collect::<Vec<_>>();
    let came = parts(answer.cache_status());
    for part in parts(foreseen) {
        assert!(came.contains(&part), "{foreseen} was said of {}", answer.cache_status());
    }
}

#[tokio::test]
async fn what_would_happen_is_what_happens() {
    let (stand_in, proxy) = both(&format!("{TOKEN}cache.ttl = \"20s\"\ncache.stale_while_revalidate = \"10s\"")).await;
    // Nothing is kept.
    let (told, answer) = explained_and_asked(&proxy, &[]).await;
    assert_eq!((&told["kind"], &told["kept"], &told["now"]["outcome"]), (&"list".into(), &Value::Null, &"miss".into()));
    assert_came_true(&told, &answer);
    // A hit.
    let (told, answer) = explained_and_asked(&proxy, &[]).await;
    let kept = &told["kept"];
    assert_eq!(
        (&told["now"]["outcome"], &kept["current"], &kept["freshness"]),
        (&"hit".into(), &true.into(), &"fresh".into())
    );
    assert_eq!((&kept["bytes"], &kept["status"]), (&answer.body.len().into(), &200.into()));
    assert_eq!((kept["ttl_s"].as_f64(), kept["served_until_s"].as_f64()), (Some(20.0), Some(30.0)));
    assert_came_true(&told, &answer);
    // Nothing was counted by asking.
    assert!(
        (proxy.metric("anteroom_requests_total{method=\"GET\",outcome=\"hit\",status_class=\"2xx\"}").await - 1.0)
            .abs()
            < 0.1
    );
    // The forms that were made.
    get_with(&proxy.list_url("visitor-a"), &[("accept-encoding", "gzip")]).await;
    let told = explained(&proxy, "GET", &StandIn::list_path("visitor-a"), &[]).await;
    assert_eq!(told["kept"]["forms"][0]["coding"], "gzip");
    assert!(told["kept"]["forms"][0]["bytes"].as_u64().unwrap() < told["kept"]["bytes"].as_u64().unwrap());
    // With a cookie, and by another spelling.
    let (told, answer) = explained_and_asked(&proxy, &[("cookie", "a=b")]).await;
    assert_eq!(
        (&told["kind"], &told["now"]["outcome"], &told["kept"]["status"]),
        (&"bypass".into(), &"bypass".into(), &200.into())
    );
    assert_came_true(&told, &answer);
    // A write.
    let messages = format!("{}/131/messages", StandIn::list_path("visitor-a"));
    let told = explained(&proxy, "POST", &messages, &[]).await;
    assert!(told["kind"] == "write" && told["rule"].as_str().unwrap().contains("what is under a contact"), "{told}");
    let written = post(&format!("{}{messages}", proxy.url), r#"{"content":"Hello"}"#).await;
    assert_came_true(&told, &written);
    let (told, answer) = explained_and_asked(&proxy, &[]).await;
    let first = &told["kept"]["out_of_date_by"][0];
    assert_eq!((&told["kept"]["current"], &first["by"]), (&false.into(), &"write".into()), "{told}");
    assert_eq!((&told["now"]["outcome"], first["ago_s"].as_f64().unwrap() < 10.0), (&"miss".into(), true));
    assert!(
        told["kept"]["out_of_date_by"]
            .as_array()
            .unwrap()
            .iter()
            .any(|change| change["what"] == "something under its contact identifier")
    );
    assert_came_true(&told, &answer);
    // A fetch that is under way.
    let gate = stand_in.hold(Point::AfterReading, Matcher::list_of("visitor-a"));
    proxy.state.invalidation.outdate_all(Cause::Purge);
    let leader = reading(&proxy, "visitor-a");
    gate.arrived(1).await;
    let told = explained(&proxy, "GET", &StandIn::list_path("visitor-a"), &[]).await;
    let first = &told["kept"]["out_of_date_by"][0];
    assert_eq!((&told["under_way"], &told["now"]["outcome"]), (&true.into(), &"joined".into()));
    assert_eq!((&first["what"], &first["by"]), (&"everything".into(), &"purge".into()));
    let follower = reading(&proxy, "visitor-a");
    proxy.wait_for_metric("anteroom_waiters", 2.0).await;
    gate.release_all();
    leader.await.unwrap();
    assert_came_true(&told, &follower.await.unwrap());
}

#[tokio::test]
async fn what_is_old_is_told_with_its_age_and_what_it_is_still_good_for() {
    let (stand_in, proxy) = both(&format!("{TOKEN}cache.ttl = \"20s\"\ncache.stale_while_revalidate = \"10s\"")).await;
    proxy.list("visitor-a").await;
    stand_in.fault(Fault::Error);
    jump(Duration::from_secs(21)).await;
    let (told, answer) = explained_and_asked(&proxy, &[]).await;
    assert_eq!((&told["now"]["outcome"], &told["kept"]["freshness"]), (&"stale".into(), &"stale".into()));
    assert!((-2..=-1).contains(&told["kept"]["ttl_left_s"].as_i64().unwrap()), "{told}");
    assert_came_true(&told, &answer);
    // The refresh behind has failed.
    proxy.wait_for_metric("anteroom_flight_ends_total{end=\"upstream_error\"}", 1.0).await;
    proxy.wait_for_metric("anteroom_flights", 0.0).await;
    let told = explained(&proxy, "GET", &StandIn::list_path("visitor-a"), &[]).await;
    assert_eq!(told["kept"]["refetch_failed"], true);
    jump(Duration::from_secs(20)).await;
    let told = explained(&proxy, "GET", &StandIn::list_path("visitor-a"), &[]).await;
    assert_eq!((&told["kept"]["freshness"], &told["now"]["outcome"]), (&"only_on_error".into(), &"miss".into()));
    assert!(told["now"]["why"].as_str().unwrap().contains("asked again within a budget"), "{told}");
    assert!(proxy.list("visitor-a").await.cache_status().ends_with("detail=upstream-failing"));
    // That was an attempt: now there is a pause.
    let (told, answer) = explained_and_asked(&proxy, &[]).await;
    assert_eq!((&told["now"]["outcome"], &told["kept"]["status"]), (&"stale".into(), &200.into()), "{told}");
    assert_came_true(&told, &answer);
    stand_in.clear_faults();
    jump(Duration::from_secs(570)).await;
    let (told, answer) = explained_and_asked(&proxy, &[]).await;
    assert_eq!(
        (&told["kept"]["freshness"], &told["now"]["why"]),
        (&"too_old".into(), &"what is kept is too old".into())
    );
    assert_came_true(&told, &answer);
}

#[tokio::test]
async fn who_put_a_list_out_of_date_is_told() {
    let (stand_in, proxy) = both(&format!("{TOKEN}webhook.secrets = [\"known to both\"]\n")).await;
    stand_in
        .send_webhooks_to(Webhook::account(format!("{}/_anteroom/webhooks", proxy.url)).signed_with("known to both"));
    proxy.list("visitor-a").await;
    stand_in.agent_message("visitor-a", "We are here.");
    let counted = "anteroom_invalidations_total{source=\"webhook\"}";
    let waiting = async {
        while proxy.metric(counted).await < 1.0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("the webhook comes");
    let (told, answer) = explained_and_asked(&proxy, &[]).await;
    let changes = told["kept"]["out_of_date_by"].as_array().unwrap();
    assert!(changes.iter().all(|change| change["by"] == "webhook" && change["words"] == "a webhook"), "{told}");
    assert!(changes.iter().any(|change| change["what"] == "its contact"), "{told}");
    assert_came_true(&told, &answer);
    // A purge leaves nothing, and is told all the same.
    let token = [("authorization", "Bearer let-me-in")];
    let body = json!({ "contact": "visitor-a" }).to_string();
    send(request("POST", &format!("{}/purge", proxy.admin), &token, &body)).await;
    let told = explained(&proxy, "GET", &StandIn::list_path("visitor-a"), &[]).await;
    assert_eq!(told["kept"], Value::Null);
    assert!(told["changes"].as_array().unwrap().iter().any(|change| change["by"] == "purge"), "{told}");
}

#[tokio::test]
async fn explaining_takes_the_token_and_a_question_that_can_be_read() {
    let (_stand_in, proxy) = both(TOKEN).await;
    let question = json!({ "method": "GET", "path": StandIn::list_path("visitor-a") });
    let url = format!("{}/explain", proxy.admin);
    let anonymous = send(request("POST", &url, &[], &question.to_string())).await;
    assert_eq!((anonymous.status.as_u16(), anonymous.header("www-authenticate")), (401, Some("Bearer")));
    assert_eq!(get(&url).await.status, StatusCode::METHOD_NOT_ALLOWED);
    let (_stand_in, closed) = both("").await;
    assert_eq!(ask(&closed, &question).await.status, StatusCode::FORBIDDEN);
    for (question, said) in [
        (json!({ "method": "GET" }), "say {"),
        (json!({ "method": "GET", "path": "/", "more": 1 }), "say {"),
        (json!({ "method": "G T", "path": "/" }), "no method"),
        (json!({ "method": "GET", "path": "visitor-a" }), "no path"),
        (json!({ "method": "GET", "path": "https://chat.test/visitor-a" }), "no path"),
        (json!({ "method": "GET", "path": "/a b" }), "no path"),
        (json!({ "method": "GET", "path": "/", "headers": ["visitor-a"] }), "a colon"),
        (json!({ "method": "GET", "path": "/", "headers": ["a b: c"] }), "no name"),
        (json!({ "method": "GET", "path": "/", "headers": ["a: b\nc"] }), "no value"),
    ] {
        let answer = ask(&proxy, &question).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{question}");
        assert!(answer.text().contains(said) && !answer.text().contains("visitor-a"), "{question}: {}", answer.text());
    }
    // A request that would be refused is explained, too.
    let told = explained(&proxy, "GET", "/", &["Host: a", "Host: b"]).await;
    assert_eq!((&told["kind"], &told["now"]["cache_status"]), (&"refused".into(), &"anteroom; detail=host".into()));
}

#[tokio::test]
async fn the_command_asks_a_running_proxy_or_the_settings_alone() {
    let stand_in = StandIn::start(anteroom_stand_in::Options::default()).await.unwrap();
    let program = Program::serve(&stand_in.url(), TOKEN).await;
    get(&format!("{}{}", program.url, StandIn::list_path("visitor-a"))).await;
    let file = program.settings_file();
    let settings = ["--config", file.to_str().unwrap(), "--admin", &program.admin];
    let path = "/public/api/v1/inboxes/{inbox}/contacts/{contact}/conversations";
    let identifiers = format!("{INBOX}\nvisitor-a\n");
    let told = run(&[&["explain"], &settings[..], &["GET", path]].concat(), &[], &identifiers).await;
    assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""), "{told:?}");
    let bytes = stand_in.list_body("visitor-a").len();
    for line in [
        "kind    list\n",
        &format!("kept    200, {bytes} bytes\n"),
        "state   current and fresh\n",
        "now     hit: it is kept, fresh and current\n        Cache-Status: anteroom; hit; ttl=",
    ] {
        assert!(told.stdout.contains(line), "no {line:?} in\n{}", told.stdout);
    }
    assert!(!format!("{told:?}").contains("visitor-a") && !told.stdout.contains(INBOX));
    // The hashes are those of the log.
    let hash = told.stdout.split("contact ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    get(&format!("{}{}?once", program.url, StandIn::list_path("visitor-a"))).await;
    program.wait_for_stderr(&hash).await;
    let json =
        run(&[&["explain"], &settings[..], &["--json", "GET", path, "Cookie: x"]].concat(), &[], &identifiers).await;
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(
        (&json["kind"], &json["now"]["cache_status"]),
        (&"bypass".into(), &"anteroom; fwd=bypass; detail=cookie".into())
    );
    // Without a proxy.
    let deserted = ["--config", file.to_str().unwrap(), "--admin", "127.0.0.1:1"];
    let alone = run(&[&["explain"], &deserted[..], &["GET", path]].concat(), &[], &identifiers).await;
    assert_eq!(alone.code, Some(1));
    assert!(alone.stderr.contains("cannot be asked") && alone.stderr.contains("the settings alone"), "{alone:?}");
    let offline =
        run(&["explain", "--offline", "GET", "-"], &[], &format!("{}\n", StandIn::list_path("visitor-a"))).await;
    assert_eq!((offline.code, offline.stdout.as_str()), (Some(0), alone.stdout.as_str()), "{offline:?}");
    assert!(
        offline.stdout.starts_with("kind    list\nrule    GET or HEAD") && !offline.stdout.contains("now"),
        "{offline:?}"
    );
    let ignoring = [("ANTEROOM_CACHE__CREDENTIALS", "ignore")];
    let offline = run(&["explain", "--offline", "GET", path, "Cookie: x"], &ignoring, &identifiers).await;
    assert!(offline.stdout.contains("credentials count for nothing"), "{offline:?}");
    // What the proxy refuses is refused here, too.
    for (fields, said) in [
        (&["Host: a", "Host: b"][..], "exactly one Host"),
        (&["Transfer-Encoding: gzip"], "transfer coding"),
        (&["Content-Length: 99999999999999"], "no body is that long"),
    ] {
        let offline = run(&[&["explain", "--offline", "GET", path], fields].concat(), &[], &identifiers).await;
        assert!(offline.stdout.starts_with("kind    refused\n") && offline.stdout.contains(said), "{offline:?}");
    }
    // What answers and is none is no mistake of whoever asks.
    let other = Script::start(|_| answer(200, "application/json", "{\"status\": \"ok\"}")).await;
    for arguments in [&["explain", "GET", "/"][..], &["top", "--once", "--seconds", "1"], &["purge", "--all"]] {
        let arguments = [arguments, &["--admin", &other.url]].concat();
        let asked = run(&arguments, &[("ANTEROOM_ADMIN__TOKEN", "let-me-in")], "").await;
        assert!(
            asked.code == Some(1) && asked.stderr.contains("is not the private listener"),
            "{arguments:?}: {asked:?}"
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let two_tokens = folder.path().join("token");
    std::fs::write(&two_tokens, "let-me-in\nvisitor-a\n").unwrap();
    let two_tokens = two_tokens.to_str().unwrap();
    for (arguments, input, said) in [
        (&["GET", path][..], identifiers.as_str(), "needs --token-file"),
        (&["--offline", "GET", path], "one line\n", "no line for everything"),
        (&["--offline", "GET", "visitor-a"], "", "begins with a slash"),
        (&["--offline", "GET", "/", "visitor-a"], "", "a colon"),
        (&["--token-file", two_tokens, "GET", "/"], "", "it holds 2 lines"),
    ] {
        let wrong = run(&[&["explain", "--admin", &program.admin], arguments].concat(), &[], input).await;
        assert_eq!(wrong.code, Some(2), "{wrong:?}");
        assert!(wrong.stderr.contains(said) && !wrong.stderr.contains("visitor-a"), "{wrong:?}");
    }
}

/// Where the answers themselves say how they are cached.
#[tokio::test]
async fn by_the_terms_of_the_answers_too_what_would_happen_is_what_happens() {
    let script = Script::start(|_| {
        let mut list = answer(200, "text/plain", "whatever");
        for (name, value) in [("cache-control", "max-age=20, stale-while-revalidate=10"), ("vary", "x-choice")] {
            list.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        list
    })
    .await;
    let settings = format!("{TOKEN}cache.ttl = \"origin\"\ncache.settle = \"0s\"\npayload.validate = \"off\"");
    let proxy = Proxy::in_front_of(&script.url, &settings).await;
    let choosing = [("x-choice", "other")];
    for (fields, jumped, outcome) in
        [(&[][..], 0, "miss"), (&[], 0, "hit"), (&choosing, 0, "miss"), (&choosing, 0, "hit"), (&[], 25, "stale")]
    {
        jump(Duration::from_secs(jumped)).await;
        let (told, answer) = explained_and_asked(&proxy, fields).await;
        assert_eq!((&told["kind"], &told["now"]["outcome"]), (&"cached".into(), &outcome.into()), "{fields:?}");
        assert_came_true(&told, &answer);
        if outcome == "hit" {
            // But for the milliseconds that the fetch took.
            let seconds = |name: &str| told["kept"][name].as_f64().map(f64::round);
            assert_eq!((seconds("ttl_s"), seconds("served_until_s")), (Some(20.0), Some(30.0)));
        }
    }
}

/// What a client wants, a fetch under way, and an upstream that has just failed.
#[tokio::test]
async fn by_the_terms_of_the_answers_what_the_client_wants_is_reckoned_with() {
    let settings = format!("{TOKEN}cache.ttl = \"origin\"\ncache.client_directives = \"obey\"\ncache.settle = \"0s\"");
    let (stand_in, proxy) = both(&settings).await;
    // What the application says beside it is for others (RFC 9213).
    stand_in.set_response_header("cdn-cache-control", "max-age=20, stale-if-error=600");
    proxy.list("visitor-a").await;
    for (wanted, why) in
        [("no-cache", "wants the upstream"), ("no-cache, only-if-cached", "would have to be asked for")]
    {
        let (told, answer) = explained_and_asked(&proxy, &[("cache-control", wanted)]).await;
        assert!(told["now"]["why"].as_str().unwrap().contains(why), "{told}");
        assert_came_true(&told, &answer);
    }
    // A write, and a fetch that is under way.
    post(&format!("{}/131/messages", proxy.list_url("visitor-a")), r#"{"content":"Hello"}"#).await;
    let gate = stand_in.hold(Point::AfterReading, Matcher::list_of("visitor-a"));
    let leader = reading(&proxy, "visitor-a");
    gate.arrived(1).await;
    let told = explained(&proxy, "GET", &StandIn::list_path("visitor-a"), &[]).await;
    assert_eq!((&told["under_way"], &told["now"]["outcome"]), (&true.into(), &"joined".into()), "{told}");
    assert_eq!(told["kept"]["out_of_date_by"][0]["by"], "write");
    let follower = reading(&proxy, "visitor-a");
    proxy.wait_for_metric("anteroom_waiters", 2.0).await;
    gate.release_all();
    leader.await.unwrap();
    assert_came_true(&told, &follower.await.unwrap());
    // An upstream that fails, and the pause after it.
    stand_in.fault(Fault::Error);
    jump(Duration::from_secs(21)).await;
    assert!(proxy.list("visitor-a").await.cache_status().ends_with("detail=upstream-failing"));
    let (told, answer) = explained_and_asked(&proxy, &[]).await;
    assert_eq!(
        (&told["now"]["outcome"], &told["kept"]["freshness"]),
        (&"stale".into(), &"only_on_error".into()),
        "{told}"
    );
    assert_came_true(&told, &answer);
}

/// A preflight, a limit on rates, a body that is too long, and an upstream that would not be asked.
#[tokio::test]
async fn what_limits_and_an_upstream_that_is_spared_make_of_it_is_told() {
    let settings = format!(
        "{TOKEN}cache.ttl = \"20s\"\nlimits.rate = 1\nlimits.burst = 3\nlimits.hit_rate = 1\nlimits.hit_burst = 1\nlimits.body = \"1KiB\"\nupstream.requests_per_minute = 4"
    );
    let (_stand_in, proxy) = both(&settings).await;
    let path = StandIn::list_path("visitor-a");
    let asks = [("origin", "https://site.test"), ("access-control-request-method", "GET")];
    let lines = asks.map(|(name, value)| format!("{name}: {value}"));
    let lines = lines.each_ref().map(String::as_str);
    for (outcome, why) in [("pass", "nothing is kept"), ("hit", "is kept")] {
        let told = explained(&proxy, "OPTIONS", &path, &lines).await;
        assert!(told["now"]["outcome"] == outcome && told["now"]["why"].as_str().unwrap().contains(why), "{told}");
        assert_came_true(&told, &send(request("OPTIONS", &proxy.list_url("visitor-a"), &asks, "")).await);
    }
    // Looking takes nothing: one of three is gone. The next hit is the second within a second, of which one is allowed.
    proxy.list("visitor-a").await;
    let (told, answer) = explained_and_asked(&proxy, &[]).await;
    assert_eq!(
        (&told["now"]["cache_status"], answer.status),
        (&"anteroom; detail=rate".into(), StatusCode::TOO_MANY_REQUESTS)
    );
    assert!(
        told["now"]["why"].as_str().unwrap().contains("limits.hit_rate") && told["kept"]["status"] == 200,
        "{told}"
    );
    let (told, answer) = explained_and_asked(&proxy, &[("cookie", "a=b")]).await;
    assert_eq!(told["now"]["outcome"], "bypass", "{told}");
    assert_came_true(&told, &answer);
    let (told, answer) = explained_and_asked(&proxy, &[("cookie", "a=b")]).await;
    assert_eq!((&told["now"]["outcome"], answer.status), (&"refused".into(), StatusCode::TOO_MANY_REQUESTS), "{told}");
    assert!(told["now"]["why"].as_str().unwrap().contains("limits.rate"), "{told}");
    let told = explained(&proxy, "POST", &format!("{path}/131/messages"), &["Content-Length: 1025"]).await;
    assert!(told["now"]["why"].as_str().unwrap().contains("limits.body"), "{told}");
    // Three were sent; for reads that is all of four, since a part is kept for writes.
    jump(Duration::from_secs(5)).await;
    let (told, answer) = explained_and_asked(&proxy, &[("cookie", "a=b")]).await;
    assert_eq!((&told["now"]["outcome"], answer.status), (&"failed".into(), StatusCode::SERVICE_UNAVAILABLE), "{told}");
    assert_came_true(&told, &answer);
    let told = explained(&proxy, "POST", &format!("{path}/131/messages"), &[]).await;
    assert_eq!(told["now"]["outcome"], "write", "{told}");
    // What is kept stands in when it is no longer good enough, and else there is a 503.
    jump(Duration::from_secs(35)).await;
    let (told, answer) = explained_and_asked(&proxy, &[]).await;
    assert!(told["now"]["outcome"] == "stale" && told["now"]["why"].as_str().unwrap().contains("stands in"), "{told}");
    assert_came_true(&told, &answer);
    let told = explained(&proxy, "GET", &StandIn::list_path("visitor-b"), &[]).await;
    assert_came_true(&told, &proxy.list("visitor-b").await);
    assert!(told["now"]["why"].as_str().unwrap().contains("requests_per_minute"), "{told}");
}

/// The same upstream, where the answers say how they are cached.
#[tokio::test]
async fn by_the_terms_of_the_answers_an_upstream_that_is_spared_is_told_of() {
    let settings = format!("{TOKEN}cache.ttl = \"origin\"\ncache.settle = \"0s\"\nupstream.requests_per_minute = 2");
    let (stand_in, proxy) = both(&settings).await;
    stand_in.set_response_header("cdn-cache-control", "max-age=1, stale-if-error=600");
    proxy.list("visitor-a").await;
    jump(Duration::from_secs(3)).await;
    let (told, answer) = explained_and_asked(&proxy, &[]).await;
    assert!(told["now"]["outcome"] == "stale" && told["now"]["why"].as_str().unwrap().contains("stands in"), "{told}");
    assert_came_true(&told, &answer);
    let told = explained(&proxy, "GET", &StandIn::list_path("visitor-b"), &[]).await;
    assert_eq!(told["now"]["outcome"], "failed", "{told}");
    assert_came_true(&told, &proxy.list("visitor-b").await);
}

/// A part of it is kept, and more is asked for: what is kept is told.
#[tokio::test]
async fn by_the_terms_of_the_answers_a_part_that_is_kept_is_told() {
    let script = Script::start(|_| {
        let mut part = answer(206, "text/plain", "what");
        for (name, value) in [("cache-control", "max-age=20"), ("etag", "\"a\""), ("content-range", "bytes 0-3/8")] {
            part.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        part
    })
    .await;
    let settings = format!(
        "{TOKEN}cache.ttl = \"origin\"\ncache.settle = \"0s\"\ncache.settle_unknown = \"0s\"\npayload.validate = \"off\""
    );
    let proxy = Proxy::in_front_of(&script.url, &settings).await;
    let part = [("range", "bytes=0-3")];
    get_with(&proxy.list_url("visitor-a"), &part).await;
    let (told, answer) = explained_and_asked(&proxy, &part).await;
    assert_eq!(told["now"]["outcome"], "hit", "{told}");
    assert_came_true(&told, &answer);
    let told = explained(&proxy, "GET", &StandIn::list_path("visitor-a"), &[]).await;
    assert!(told["now"]["why"].as_str().unwrap().contains("not all that is asked for"), "{told}");
    assert_eq!((&told["kept"]["status"], &told["kept"]["bytes"]), (&206.into(), &4.into()), "{told}");
}
