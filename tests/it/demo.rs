//! `anteroom demo`: its acts claim what the counters say, and it says so when they do not.

use std::path::PathBuf;
use std::time::Duration;

use anteroom_stand_in::{Fault, StandIn};
use http::StatusCode;
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::support::child::{Program, run};
use crate::support::get;
use crate::support::redis::Redis;

/// Every act, in the order in which they are played.
const ACTS: [&str; 13] = [
    "miss",
    "hit",
    "304",
    "write",
    "read after it",
    "1,000 readers",
    "webhook",
    "WebSocket",
    "other reads",
    "upstream killed",
    "stale-if-error",
    "write meanwhile",
    "its return",
];

/// What it says until a line that begins like this, with that line.
async fn until(program: &mut Program, beginning: &str) -> String {
    let mut said = String::new();
    loop {
        let line = program.line().await.unwrap_or_else(|| panic!("it ended without {beginning:?}:\n{said}"));
        said.push_str(&line);
        said.push('\n');
        if line.starts_with(beginning) {
            return said;
        }
    }
}

/// The line of an act.
fn line_of<'a>(said: &'a str, act: &str) -> &'a str {
    let beginning = format!("  {act} ");
    said.lines().find(|line| line.starts_with(&beginning)).unwrap_or_else(|| panic!("no {act:?}:\n{said}"))
}

/// The number before a word.
fn number(line: &str, word: &str) -> u64 {
    let before = line.split(word).next().unwrap_or_default().trim_end();
    before
        .rsplit([' ', '('])
        .next()
        .and_then(|digits| digits.parse().ok())
        .unwrap_or_else(|| panic!("{word:?}: {line}"))
}

#[tokio::test]
async fn the_acts_are_played_and_the_counters_say_the_same() {
    let mut program = Program::demo_with(&[], &[]).await;
    let said = until(&mut program, "Every claim held").await;
    let played: Vec<_> = said.lines().filter(|line| line.contains(" ms  ")).collect();
    assert_eq!(played.len(), ACTS.len(), "{said}");
    for (line, act) in played.iter().zip(ACTS) {
        assert!(line.starts_with(&format!("  {act} ")), "{act}: {line}");
    }
    assert!(!said.contains("NOT HOLD"), "{said}");
    let crowd = line_of(&said, "1,000 readers");
    let [asks, wait, find] = ["asks", "wait with", "find it"].map(|word| number(crowd, word));
    assert_eq!((asks, asks + wait + find), (1, 1000), "{crowd}");

    // Nobody has asked since: what it told is all there is to count.
    let metrics = program.metrics().await;
    let count = |name: &str| -> u64 {
        let series = metrics.lines().filter(|line| line.starts_with(name));
        series.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    };
    let end = said.lines().last().unwrap();
    assert_eq!(number(end, "upstream requests"), count("anteroom_upstream_requests_total{"), "{end}");
    let from_memory =
        ["hit", "joined"].map(|it| count(&format!("anteroom_requests_total{{method=\"GET\",outcome=\"{it}\"")));
    let stood_in = count("anteroom_stale_if_error_total ");
    assert!(stood_in > 0);
    assert_eq!(number(end, "lists from memory"), from_memory.iter().sum::<u64>() + stood_in, "{end}\n{metrics}");
    assert_eq!(count("anteroom_requests_total{method=\"POST\",outcome=\"failed\""), 1);
    program.signal("INT").await;
    assert_eq!(program.ended().await.code(), Some(0));
}

/// Settings are obeyed; what they make untrue is not claimed.
#[tokio::test]
async fn a_claim_that_does_not_hold_is_told() {
    let nothing_kept = [("ANTEROOM_CACHE__TTL", "0s"), ("ANTEROOM_CACHE__STALE_WHILE_REVALIDATE", "0s")];
    let mut program = Program::demo_with(&[], &nothing_kept).await;
    let said = until(&mut program, "  hit ").await;
    assert!(line_of(&said, "hit").contains("DID NOT HOLD: the same list from memory"), "{said}");
    let said = said + &until(&mut program, "  1,000 readers ").await;
    assert!(!line_of(&said, "miss").contains("DID NOT HOLD"), "{said}");
    // In the middle of the acts, with a thousand readers behind and a WebSocket ahead.
    program.signal("INT").await;
    assert_eq!(program.ended().await.code(), Some(0));
}

#[tokio::test]
async fn with_a_long_ttl_the_act_that_would_take_as_long_is_left_out() {
    let mut program = Program::demo_with(&[], &[("ANTEROOM_CACHE__TTL", "10m")]).await;
    let said = until(&mut program, "Every claim held").await;
    assert!(line_of(&said, "stale-if-error").contains("left out: the settings let a list be used for 602 s"), "{said}");
}

/// By the API's own word nothing is kept, so nothing of the kind is claimed.
#[tokio::test]
async fn where_the_answers_say_how_they_are_cached_no_acts_are_played() {
    let mut program = Program::demo_with(&[], &[("ANTEROOM_CACHE__TTL", "origin")]).await;
    let said = until(&mut program, "Ctrl-C ends it.").await;
    assert!(said.contains("by the API's own word") && said.contains("# A miss.\n"), "{said}");
    assert!(!said.contains("stale-if-error"), "{said}");
    let list = format!("{}{}", program.url, StandIn::list_path("visitor-a"));
    assert_eq!((get(&list).await.status, get(&list).await.cache_status().contains("hit")), (StatusCode::OK, false));
}

#[tokio::test]
async fn it_takes_a_file_of_settings() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.toml");
    std::fs::write(&file, "[cache]\nttl = \"7s\"\n[admin]\ntoken = \"hush-hush\"\n").unwrap();
    let mut program = Program::demo_with(&["--no-acts", "--config", file.to_str().unwrap()], &[]).await;
    until(&mut program, "Ctrl-C ends it.").await;
    let purged =
        run(&["purge", "--admin", &program.admin, "--all"], &[("ANTEROOM_ADMIN__TOKEN", "hush-hush")], "").await;
    assert_eq!(purged.code, Some(0), "{purged:?}");
    std::fs::write(&file, "[cache]\nttl = \"soon\"\n").unwrap();
    let refused = run(&["demo", "--config", file.to_str().unwrap()], &[], "").await;
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("cache.ttl"), "{refused:?}");
}

#[tokio::test]
async fn a_taken_port_says_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--listen", "--admin"] {
        let other = if flag == "--listen" { "--admin" } else { "--listen" };
        let ended = run(&["demo", flag, &address, other, "127.0.0.1:0"], &[], "").await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        for part in [&address, flag, "port 0"] {
            assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
        }
    }
}

#[tokio::test]
async fn help_and_completions_know_every_fault() {
    let help = run(&["demo", "--help"], &[("COLUMNS", "100")], "").await.stdout;
    let [bash, zsh, fish] = ["bash", "zsh", "fish"];
    for (name, _, about) in Fault::ALL {
        assert!(help.contains(&format!("- {name}:")), "{name}: {help}");
        assert!(help.split_whitespace().collect::<Vec<_>>().join(" ").contains(about), "{about}: {help}");
    }
    for shell in [bash, zsh, fish] {
        let script = run(&["completions", shell], &[], "").await.stdout;
        assert!(Fault::ALL.iter().all(|(name, ..)| script.contains(name)), "{shell}");
    }
    let refused = run(&["demo", "--fault", "fire"], &[], "").await;
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("truncate-chunked"), "{}", refused.stderr);
}

/// The lines that it prints, run as they stand, by the real curl.
#[tokio::test]
async fn the_curl_lines_show_what_they_promise() {
    // So slow is nobody that four seconds are over before the next line.
    let mut program = Program::demo_with(&["--no-acts"], &[("ANTEROOM_CACHE__TTL", "1h")]).await;
    let said = until(&mut program, "Ctrl-C ends it.").await;
    let variable = said.lines().find(|line| line.starts_with("list=")).unwrap();
    let lines: Vec<_> = said.lines().filter(|line| line.starts_with("curl ")).collect();
    assert!(lines.iter().all(|line| line.len() < 160), "{lines:?}");
    let curl = async |line: &str| {
        let shell = Command::new("sh").args(["-c", &format!("{variable}\n{line}")]).output().await.unwrap();
        assert_ne!(shell.status.code(), Some(127), "curl is missing: install the package \"curl\"");
        assert_eq!(shell.status.code(), Some(0), "{line}: {}", String::from_utf8_lossy(&shell.stderr));
        String::from_utf8(shell.stdout).unwrap()
    };
    let whole = |line: &str| line.replace(" -o/dev/null", "");
    let status = |answer: &str| {
        let line = answer.lines().find_map(|line| line.strip_prefix("cache-status: ")).unwrap_or_default();
        (answer.split(' ').nth(1).unwrap_or_default().to_owned(), line.to_owned())
    };
    let [read, known, write, agent] = lines[..] else { panic!("{lines:?}") };
    let (code, first) = status(&curl(read).await);
    assert!(code == "200" && first.starts_with("anteroom; fwd=uri-miss"), "{first}");
    let (code, second) = status(&curl(read).await);
    assert!(code == "200" && second.starts_with("anteroom; hit"), "{second}");
    assert_eq!(status(&curl(known).await).0, "304");
    assert_eq!(status(&curl(write).await).0, "200");
    let answer = curl(&whole(read)).await;
    assert!(answer.contains("Is anybody there?") && status(&answer).1.starts_with("anteroom; fwd=stale"), "{answer}");
    assert_eq!(status(&curl(agent).await).0, "200");
    // A webhook takes its time.
    let shown = async { while !curl(&whole(read)).await.contains("We are here.") {} };
    assert!(tokio::time::timeout(Duration::from_secs(20), shown).await.is_ok());
    program.signal("INT").await;
    assert_eq!(program.ended().await.code(), Some(0));
}

/// Every act of several that share through Redis, in the order in which they are played.
const FLEET_ACTS: [&str; 12] = [
    "together",
    "misses",
    "hits",
    "write",
    "read elsewhere",
    "Redis killed",
    "read alone",
    "write alone",
    "read elsewhere",
    "its return",
    "write again",
    "read elsewhere",
];

/// A machine that is busy elsewhere is no failure of Redis.
const PATIENT: [(&str, &str); 5] = [
    ("ANTEROOM_REPLICAS__LEASE", "4s"),
    ("ANTEROOM_REPLICAS__TIMEOUT", "1s"),
    ("ANTEROOM_REPLICAS__ASK_WITHIN", "2s"),
    ("ANTEROOM_REPLICAS__TELL_WITHIN", "2s"),
    ("ANTEROOM_CACHE__TTL", "1m"),
];

/// The socket of the demonstration's own Redis.
fn socket_of(said: &str) -> PathBuf {
    PathBuf::from(said.lines().find_map(|line| line.strip_prefix("redis-server on ")).expect("it says where"))
}

#[tokio::test]
async fn replicas_play_acts_of_their_own_and_the_counters_say_the_same() {
    let mut program = Program::demo_with(&["--replicas", "2"], &PATIENT).await;
    let socket = socket_of(&program.said);
    let said = until(&mut program, "Every claim held").await;
    let played: Vec<_> = said.lines().filter(|line| line.contains(" ms  ")).collect();
    assert_eq!(played.len(), FLEET_ACTS.len(), "{said}");
    for (line, act) in played.iter().zip(FLEET_ACTS) {
        assert!(line.starts_with(&format!("  {act} ")), "{act}: {line}");
    }
    assert!(!said.contains("NOT HOLD"), "{said}");
    let other = said.lines().find(|line| line.starts_with("replica 2 on ")).expect("the other one");
    let admin = other.rsplit(' ').next().unwrap();
    let both = program.metrics().await + "\n" + &get(&format!("{admin}metrics")).await.text();
    let count = |name: &str| -> u64 {
        let series = both.lines().filter(|line| line.starts_with(name));
        series.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    };
    let end = said.lines().last().unwrap();
    assert_eq!(number(end, "upstream requests"), count("anteroom_upstream_requests_total{"), "{end}");
    assert_eq!(
        number(end, "lists from memory"),
        count("anteroom_requests_total{method=\"GET\",outcome=\"hit\""),
        "{end}"
    );
    assert_eq!(count("anteroom_writes_untold_total "), 1);
    assert_eq!(count("anteroom_replicas_state{state=\"leased\"}"), 2);
    program.signal("INT").await;
    assert_eq!(program.ended().await.code(), Some(0));
    assert!(!socket.parent().unwrap().exists(), "nothing of Redis is left");
}

#[tokio::test]
async fn a_redis_of_its_own_ends_with_the_demonstration_however_that_ends() {
    let program = Program::demo_with(&["--replicas", "2", "--no-acts"], &[]).await;
    let socket = socket_of(&program.said);
    assert!(std::os::unix::net::UnixStream::connect(&socket).is_ok());
    program.signal("KILL").await;
    let gone = async {
        while std::os::unix::net::UnixStream::connect(&socket).is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("nobody listens there any more");
    std::fs::remove_dir_all(socket.parent().unwrap()).unwrap();
}

#[tokio::test]
async fn a_redis_that_is_somebody_s_is_not_killed() {
    let redis = Redis::start(&[]).await;
    let mut program = Program::demo_with(&["--replicas", "3", "--redis", &redis.url()], &PATIENT).await;
    let said = until(&mut program, "Every claim held").await;
    assert!(said.contains("(left out: what happens while Redis is gone"), "{said}");
    let three = line_of(&said, "together");
    assert!(three.contains("3 replicas share"), "{three}");
    assert_eq!(
        redis.ask("EXISTS {anteroom-demo}:1:fleet {anteroom}:1:fleet").await,
        ":1",
        "another fleet than a real one"
    );
    program.signal("INT").await;
    assert_eq!(program.ended().await.code(), Some(0));
}

#[tokio::test]
async fn without_a_redis_it_says_what_to_install() {
    let ended = run(&["demo", "--replicas", "2"], &[("PATH", "/nowhere")], "").await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("apt install redis-server") && ended.stderr.contains("--redis"), "{}", ended.stderr);
    for (arguments, part) in
        [(["--replicas", "1"], "2..=8"), (["--replicas", "9"], "2..=8"), (["--redis", "redis://h"], "--replicas")]
    {
        let ended = run(&[&["demo"], &arguments[..]].concat(), &[], "").await;
        assert!(ended.code == Some(2) && ended.stderr.contains(part), "{ended:?}");
    }
}
