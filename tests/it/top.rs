//! `anteroom top` and `GET /top`: who asks most, by hashes, and nothing is counted but while somebody watches.

use anteroom_stand_in::{Options, StandIn};
use http::StatusCode;
use serde_json::Value;

use crate::support::child::{Program, run};
use crate::support::{both, get, get_with, post, spawn};

#[tokio::test]
async fn who_asks_most_is_told_while_somebody_watches() {
    let (_stand_in, proxy) = both("").await;
    proxy.list("visitor-a").await;
    let top = &proxy.state.observation.top;
    assert!(!top.is_watched());
    let url = format!("{}/top?seconds=1", proxy.admin);
    let watching = spawn(async move { get(&url).await });
    while !top.is_watched() {
        tokio::task::yield_now().await;
    }
    for _ in 0..3 {
        proxy.list("visitor-a").await;
    }
    get_with(&proxy.list_url("visitor-b"), &[("cookie", "a=b")]).await;
    post(&format!("{}/131/messages", proxy.list_url("visitor-a")), r#"{"content":"Hello"}"#).await;
    let length = proxy.list("visitor-a").await.body.len();
    get(&format!("{}/elsewhere", proxy.url)).await;
    let answer = watching.await.unwrap();
    let told: Value = serde_json::from_slice(&answer.body).unwrap();
    assert!(!answer.text().contains("visitor"), "{told}");
    assert_eq!((&told["requests"], &told["skipped"]), (&6.into(), &0.into()), "{told}");
    let contacts = told["contacts"]["first"].as_array().unwrap();
    assert_eq!((contacts.len(), &told["contacts"]["counted"], &told["inboxes"]["counted"]), (2, &2.into(), &1.into()));
    // Three hits, a write, and the miss after it; and one past the cache.
    assert_eq!((&contacts[0]["requests"], &contacts[0]["misses"]), (&5.into(), &1.into()));
    assert!(contacts[0]["bytes"].as_u64().unwrap() > 4 * length as u64 - 4000, "{told}");
    assert_eq!((&contacts[1]["requests"], &contacts[1]["misses"]), (&1.into(), &1.into()));
    assert_eq!(told["inboxes"]["first"][0]["requests"], 6);
    assert!(!top.is_watched(), "nobody pays when nobody watches");
    for wrong in ["seconds=0", "seconds=100", "second=1", "x"] {
        assert_eq!(get(&format!("{}/top?{wrong}", proxy.admin)).await.status, StatusCode::BAD_REQUEST);
    }
}

/// Whoever watches may leave: the counting ends with the connection.
#[tokio::test]
async fn who_leaves_does_not_watch_on() {
    let (_stand_in, proxy) = both("").await;
    let top = &proxy.state.observation.top;
    let url = format!("{}/top?seconds=60", proxy.admin);
    let watching = spawn(async move { get(&url).await });
    while !top.is_watched() {
        tokio::task::yield_now().await;
    }
    watching.abort();
    while top.is_watched() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_command_tells_by_the_hashes_of_the_log() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let program = Program::serve(&stand_in.url(), "log.hits = 1.0").await;
    let list = format!("{}{}", program.url, StandIn::list_path("visitor-a"));
    let reading = spawn(async move {
        loop {
            get(&list).await;
        }
    });
    let told = run(&["top", "--admin", &program.admin, "--once", "--seconds", "1"], &[], "").await;
    assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""), "{told:?}");
    assert!(
        told.stdout.contains(" requests below a contact within 1 s (")
            && told.stdout.contains("1 contact in 1 inbox\n"),
        "{told:?}"
    );
    let row = told.stdout.lines().skip_while(|line| !line.starts_with("contact ")).nth(1).unwrap();
    let hash = row.split_whitespace().next().unwrap();
    program.wait_for_stderr(&format!("\"contact\":\"{hash}\"")).await;
    assert!(!told.stdout.contains('\x1b') && !told.stdout.contains("visitor-a"));
    let json = run(&["top", "--admin", &program.admin, "--once", "--seconds", "1", "--json"], &[], "").await;
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["contacts"]["first"][0]["hash"], hash);
    reading.abort();
    let nobody = run(&["top", "--admin", "127.0.0.1:1", "--once"], &[], "").await;
    assert!(nobody.code == Some(1) && nobody.stderr.contains("cannot be asked"), "{nobody:?}");
}
