//! A real Prometheus reads the metrics of proxies, one well and others each with a fault of its own: every expression
//! of the dashboard and of the rules tells something.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anteroom_stand_in::{Fault, Matcher, Options, Shape, StandIn, Webhook};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::support::child::Program;
use crate::support::raw::{Scripted, exchange};
use crate::support::{Proxy, both, get, get_with, post, request, send};

/// Within this time every expression has to have data.
const PATIENCE: Duration = Duration::from_secs(180);

/// What only a fault makes true, and the fault that this test causes.
const ONLY_BY_A_FAULT: [(&str, &str); 33] = [
    ("AnteroomDown", "a listener that answers nothing"),
    ("AnteroomRestarts", "a proxy that is killed and started three times"),
    ("AnteroomNotReady", "a proxy that drains for ten minutes"),
    ("AnteroomFailing", "an upstream that closes every connection"),
    ("AnteroomUpstreamFailing", "an upstream that closes every connection"),
    ("AnteroomUpstreamLeftAlone", "an upstream that closes every connection"),
    ("AnteroomFetchesFailing", "an upstream that closes every connection"),
    ("AnteroomUpstreamSlow", "an upstream that takes seven seconds"),
    ("AnteroomFetchesQueue", "an upstream that never answers, and one fetch at once"),
    ("AnteroomCrowded", "an upstream that never answers, and few places to wait"),
    ("AnteroomReadersGiveUp", "an upstream that never answers, and little patience"),
    ("AnteroomFetchDropped", "counted by hand: no fault from outside makes a fetch panic"),
    ("AnteroomOldAnswers", "an upstream that answers once and then closes every connection"),
    ("AnteroomContractBroken", "an upstream whose lists lack nearly everything"),
    ("AnteroomNoLists", "an upstream that redirects every list"),
    ("AnteroomBypassed", "readers who send a cookie"),
    ("AnteroomHelpsLittle", "readers none of whom asks what another asked"),
    ("AnteroomWritesUnattributed", "writes to an upstream that tells no contact"),
    ("AnteroomWebhooksSilent", "messages after which no webhook comes"),
    ("AnteroomWebhooksRefused", "a stranger who sends what is not signed"),
    ("AnteroomWebhooksUnread", "a stranger who sends too much"),
    ("AnteroomEventsLost", "agents who answer while no webhook comes"),
    ("AnteroomStaleFromTheStart", "counted by hand: no upstream here forgets what it has shown"),
    ("AnteroomCacheTooSmall", "readers none of whom asks what another asked, and little memory"),
    ("AnteroomFewFileDescriptors", "a proxy that may open no more than it has open"),
    ("AnteroomTurnsClientsAway", "an upstream that never answers, and room for one request"),
    ("AnteroomReloadFailed", "a file of settings with a mistake"),
    ("AnteroomCertificateEnds", "set by hand: no certificate here ends so soon"),
    ("AnteroomLogLinesLost", "a standard error that is full"),
    ("AnteroomReplicaAlone", "a replica whose Redis is not there"),
    ("AnteroomWritesUntold", "writes through a replica whose Redis is not there"),
    ("AnteroomWritesWait", "counted by hand: no replica here stands still"),
    ("AnteroomFailoverUnsafe", "set by hand: no Redis here fails over"),
];

/// A Prometheus, gone when the test is.
struct Prometheus {
    url: String,
    _child: Child,
    _folder: tempfile::TempDir,
    _reading: JoinHandle<()>,
}

impl Prometheus {
    /// Reads these listeners every second, and has the rules.
    async fn start(targets: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards/anteroom.rules.yml");
        let addresses: Vec<&str> = targets.iter().map(|url| instance(url)).collect();
        let config = serde_json::json!({
            "global": { "scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s" },
            "rule_files": [rules],
            "scrape_configs": [{ "job_name": "anteroom", "static_configs": [{ "targets": addresses }] }],
        });
        // JSON is YAML.
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, config.to_string()).unwrap();
        let mut child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg("--web.listen-address=127.0.0.1:0")
            .kill_on_drop(true)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("Debian's package prometheus is installed");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (mut said, mut url) = (String::new(), String::new());
        while !said.contains("Server is ready to receive web requests") {
            let line = lines.next_line().await.unwrap().unwrap_or_else(|| panic!("it ended: {said}"));
            let address = line.split_once("msg=\"Listening on\"").and_then(|(_, rest)| rest.split_once("address="));
            if let Some((_, address)) = address {
                url = format!("http://{}", address.trim());
            }
            said.push_str(&line);
            said.push('\n');
        }
        // It may not block on a full pipe.
        let reading = tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { url, _child: child, _folder: folder, _reading: reading }
    }

    async fn ask(&self, path: &str) -> Value {
        let answer = get(&format!("{}{path}", self.url)).await;
        serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("{path}: {}", answer.text()))
    }

    /// The samples that an expression gives, without those that are no number.
    async fn samples(&self, expression: &str) -> Vec<Value> {
        let query = utf8_percent_encode(expression, NON_ALPHANUMERIC);
        let answer = self.ask(&format!("/api/v1/query?query={query}")).await;
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        let mut samples = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        samples.retain(|sample| sample["value"][1] != "NaN");
        samples
    }

    async fn wait_for(&self, expression: &str) {
        let waiting = async {
            while self.samples(expression).await.is_empty() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "{expression} never gave anything");
    }

    /// The rules it has read: name and expression, by type.
    async fn rules(&self, kind: &str) -> BTreeMap<String, String> {
        let waiting = async {
            loop {
                let answer = self.ask("/api/v1/rules").await;
                let groups = answer["data"]["groups"].as_array().cloned().unwrap_or_default();
                if !groups.is_empty() {
                    return groups;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let groups = tokio::time::timeout(PATIENCE, waiting).await.expect("rules");
        let rules = groups.iter().flat_map(|group| group["rules"].as_array().unwrap());
        let rules = rules.filter(|rule| rule["type"] == kind);
        rules.map(|rule| (text(&rule["name"]), text(&rule["query"]))).collect()
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}

/// As Prometheus names a listener.
fn instance(url: &str) -> &str {
    url.strip_prefix("http://").unwrap()
}

fn dashboard() -> Value {
    serde_json::from_str(include_str!("../../dashboards/anteroom.json")).unwrap()
}

/// Every expression of the dashboard, with Grafana's variables replaced as Grafana would.
fn shown_expressions() -> Vec<(String, String)> {
    let dashboard = dashboard();
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            found.push((text(&panel["title"]), text(&target["expr"])));
        }
    }
    for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
        found.push((text(&annotation["name"]), text(&annotation["expr"])));
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        if variable["type"] == "query" {
            let query = text(&variable["definition"]);
            let (metric, label) =
                query.strip_prefix("label_values(").unwrap().trim_end_matches(')').split_once(", ").unwrap();
            found.push((text(&variable["name"]), format!("count by ({label}) ({metric})")));
        }
    }
    for (title, expression) in &mut found {
        *expression = expression.replace("$__rate_interval", "1m").replace("$instance", ".+");
        assert!(!expression.contains('$'), "{title}: a variable that Grafana would replace: {expression}");
    }
    found
}

/// What readers and writers do all day.
async fn mixed_load(proxy: String) {
    let list = |source: &str| format!("{proxy}{}", StandIn::list_path(source));
    for turn in 0_usize.. {
        let visitor = ["visitor-a", "visitor-b"][turn % 2];
        for _ in 0..8 {
            get(&list(visitor)).await;
        }
        get_with(&list(visitor), &[("if-none-match", "*")]).await;
        get(&format!("{proxy}/profile")).await;
        send(request("HEAD", &list(visitor), &[], "")).await;
        if turn % 4 == 0 {
            get_with(&list(visitor), &[("cookie", "c=1")]).await;
            post(&format!("{}/131/messages", list("visitor-a")), r#"{"content":"Hello"}"#).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Asks for the same thing again and again, whatever comes of it.
async fn persist(url: String, fields: &'static [(&'static str, &'static str)]) {
    loop {
        get_with(&url, fields).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Asks each time for something else, writes, and sends a cookie now and then.
async fn never_twice(list: String) {
    for turn in 0_usize.. {
        get(&format!("{list}?turn={turn}")).await;
        get_with(&list, &[("cookie", "c=1")]).await;
        post(&format!("{list}/131/messages"), r#"{"content":"Hello"}"#).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Of which no byte need come.
const TOO_LARGE: &str = "POST /_anteroom/webhooks HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\
                         content-length: 1048577\r\n\r\n";

/// An agent answers and no webhook tells; the contact writes, and none comes either.
async fn unheard(proxy: String, stand_in: StandIn) {
    let list = format!("{proxy}{}", StandIn::list_path("visitor-a"));
    let webhooks = format!("{proxy}/_anteroom/webhooks");
    post(&format!("{list}/131/messages"), r#"{"content":"Hello"}"#).await;
    loop {
        stand_in.agent_message("visitor-a", "behind the proxy's back");
        tokio::time::sleep(Duration::from_millis(300)).await;
        get(&list).await;
        // Nobody can tell that these are not the application's.
        post(&webhooks, "{}").await;
        exchange(&proxy, TOO_LARGE).await;
    }
}

/// Tasks that end with the test.
struct Busy(Vec<JoinHandle<()>>);

impl Busy {
    fn with(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.push(tokio::spawn(task));
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::too_many_lines, reason = "a list of faults, one after another")]
async fn every_expression_of_the_dashboard_and_the_rules_tells_something() {
    let mut busy = Busy(Vec::new());
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let settings = "cache.ttl = \"1s\"\ncache.settle = \"0s\"\nwebhook.secrets = [\"hush\"]";
    let well = Proxy::start(&stand_in, settings).await;
    stand_in.send_webhooks_to(Webhook::account(format!("{}/_anteroom/webhooks", well.url)).signed_with("hush"));
    busy.with(mixed_load(well.url.clone()));

    // Closes every connection.
    let resetting = StandIn::start(Options::default()).await.unwrap();
    resetting.fault_on(Fault::Reset, Matcher::any());
    let failing = Proxy::start(&resetting, "").await;
    busy.with(persist(failing.list_url("visitor-a"), &[]));

    // Takes seven seconds.
    let slow = Options { slow_by: Duration::from_secs(7), ..Options::default() };
    let slow_stand_in = StandIn::start(slow).await.unwrap();
    slow_stand_in.fault(Fault::Slow);
    let slow = Proxy::start(&slow_stand_in, "cache.ttl = \"1s\"").await;
    for source in ["visitor-a", "visitor-b"] {
        busy.with(persist(slow.list_url(source), &[]));
    }

    // Never answers.
    let silent = StandIn::start(Options::default()).await.unwrap();
    silent.fault(Fault::Hang);
    let hanging = "upstream.max_in_flight = 1\ncache.max_waiters = 3\ncache.wait = \"2s\"";
    let hanging = Proxy::start(&silent, hanging).await;
    for source in ["one", "two", "three"] {
        silent.seed(source, Shape { conversations: 1, messages: 1, bytes: 10 });
        busy.with(persist(hanging.list_url(source), &[]));
    }
    let crowded = Proxy::start(&silent, "limits.requests = 1\ncache.wait = \"2s\"").await;
    for source in ["one", "two"] {
        busy.with(persist(crowded.list_url(source), &[]));
    }
    hanging.state.metrics.flight_ends.with_label_values(&["dropped"]).inc();
    hanging.state.metrics.certificate_not_after.set(1);

    // Two minutes old, nearly empty, and of no known contact.
    let odd_list = r#"[{"id":1,"uuid":7}]"#;
    let odd = Scripted::answering(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nage: 120\r\ncontent-length: {}\r\n\r\n{odd_list}",
        odd_list.len()
    ))
    .await;
    let known = r#"[{"contact":{"id":1}}]"#;
    let aged = Scripted::answering(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nage: 120\r\ncontent-length: {}\r\n\r\n{known}",
        known.len()
    ))
    .await;
    // Answers once.
    let once = StandIn::start(Options::default()).await.unwrap();
    let old = Proxy::start(&once, "cache.ttl = \"0s\"\ncache.stale_while_revalidate = \"0s\"").await;
    assert!(old.list("visitor-a").await.status.is_success());
    once.fault_on(Fault::Reset, Matcher::any());
    busy.with(persist(old.list_url("visitor-a"), &[]));
    let small = "cache.memory = \"64KiB\"\ncache.max_body = \"4KiB\"\ncache.fetch_memory = \"64KiB\"";
    let useless = Proxy::in_front_of(&aged.url(), small).await;
    busy.with(never_twice(useless.list_url("visitor-a")));
    let unattributed = Proxy::in_front_of(&odd.url(), "").await;
    busy.with(never_twice(unattributed.list_url("visitor-a")));

    // Somewhere else.
    let moved = "HTTP/1.1 302 Found\r\nlocation: /app/login\r\ncontent-length: 0\r\n\r\n";
    let moved = Scripted::answering(moved).await;
    let redirected = Proxy::in_front_of(&moved.url(), "").await;
    busy.with(persist(redirected.list_url("visitor-a"), &[]));

    // Waits for webhooks that never come, gets some of strangers and some that say nothing, and lists change unheard.
    let changing = StandIn::start(Options::default()).await.unwrap();
    let untold = "webhook.secrets = [\"hush\"]\nwebhook.unsigned_token = \"t\"\nwebhook.silent_after = \"1s\"\n\
                  cache.ttl_without_events = \"200ms\"\ncache.stale_while_revalidate = \"0s\"";
    let untold = Proxy::start(&changing, untold).await;
    busy.with(unheard(untold.url.clone(), changing));
    untold.state.metrics.untold_changes.with_label_values(&["bug"]).inc();

    // Has no Redis.
    let nowhere =
        "replicas.redis = \"unix:///nowhere/redis.sock\"\nreplicas.secret = \"0123456789abcdef0123456789abcdef\"";
    let lonely = Proxy::start(&stand_in, nowhere).await;
    let seen_by = format!("{}/update_last_seen", lonely.contact_url("visitor-a"));
    busy.with(async move {
        loop {
            send(request("POST", &seen_by, &[], "")).await;
        }
    });
    lonely.state.metrics.replicas.waits[1].observe(1.0);
    lonely.state.metrics.replicas.tier.waited.observe(1.0);
    lonely.state.metrics.replicas.tier.seconds.observe(0.1);
    lonely.state.metrics.replicas.failover_safe.set(0);

    // Processes.
    let cramped = Program::serve(&stand_in.url(), "").await;
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mute = Program::serve_into(full.into(), "127.0.0.1:0", &stand_in.url(), "").await;
    busy.with(persist(format!("{}/x", mute.url), &[]));
    let mistaken = Program::serve(&stand_in.url(), "").await;
    let drains_long = "drain.notice = \"10m\"";
    let draining = Program::serve(&stand_in.url(), drains_long).await;
    // Where nobody else takes the port while it is down.
    let mut restarting = Program::serve_at("127.0.0.9:0", &stand_in.url(), "").await;
    let restarting_at = restarting.admin.clone();
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dead_url = format!("http://{}", dead.local_addr().unwrap());

    let in_process =
        [&well, &lonely, &failing, &slow, &hanging, &old, &useless, &unattributed, &redirected, &untold, &crowded];
    let mut targets: Vec<&str> = in_process.iter().map(|proxy| proxy.admin.as_str()).collect();
    targets.extend(
        [&cramped.admin, &mute.admin, &mistaken.admin, &draining.admin, &restarting_at, &dead_url].map(String::as_str),
    );
    let prometheus = Prometheus::start(&targets).await;

    // Counters that are watched for a change have to be seen before it.
    prometheus.wait_for(&format!("anteroom_ready{{instance=\"{}\"}}", instance(&mistaken.admin))).await;
    prometheus.wait_for(&format!("anteroom_ready{{instance=\"{}\"}}", instance(&hanging.admin))).await;
    hanging.state.metrics.flight_ends.with_label_values(&["dropped"]).inc();
    prometheus.wait_for(&format!("anteroom_ready{{instance=\"{}\"}}", instance(&untold.admin))).await;
    untold.state.metrics.untold_changes.with_label_values(&["bug"]).inc();
    prometheus.wait_for(&format!("anteroom_ready{{instance=\"{}\"}}", instance(&lonely.admin))).await;
    lonely.state.metrics.replicas.waits[1].observe(1.0);
    lonely.state.metrics.replicas.tier.waited.observe(1.0);
    lonely.state.metrics.replicas.tier.seconds.observe(0.1);
    lonely.state.metrics.replicas.failover_safe.set(0);
    std::fs::write(mistaken.settings_file(), "cache.tttl = 1").unwrap();
    mistaken.signal("HUP").await;
    draining.signal("TERM").await;
    let open = cramped.metric("process_open_fds").await;
    let limit = Command::new("prlimit")
        .args(["--pid", &cramped.id().to_string(), &format!("--nofile={}", open + 1.0)])
        .status()
        .await
        .expect("prlimit is a program");
    assert!(limit.success());
    for seen in 1..=3 {
        // Starts are told in whole seconds: two within one would look like none.
        let of = instance(&restarting_at);
        prometheus.wait_for(&format!("time() - process_start_time_seconds{{instance=\"{of}\"}} >= 2")).await;
        restarting.signal("KILL").await;
        restarting.ended().await;
        restarting = Program::serve_at(instance(&restarting_at), &stand_in.url(), "").await;
        let started =
            format!("changes(process_start_time_seconds{{instance=\"{}\"}}[5m]) >= {seen}", instance(&restarting_at));
        prometheus.wait_for(&started).await;
    }

    let alerts = prometheus.rules("alerting").await;
    let listed: BTreeSet<&str> = ONLY_BY_A_FAULT.iter().map(|(name, _)| *name).collect();
    assert_eq!(alerts.keys().map(String::as_str).collect::<BTreeSet<_>>(), listed, "every alert has its fault here");
    let mut waiting = shown_expressions();
    assert!(waiting.len() > 50, "{} expressions", waiting.len());
    waiting.extend(alerts.clone());
    for (name, expression) in prometheus.rules("recording").await {
        waiting.push((name.clone(), name.clone()));
        waiting.push((name, expression));
    }
    let all_told = async {
        while !waiting.is_empty() {
            let mut silent = Vec::new();
            for (name, expression) in std::mem::take(&mut waiting) {
                if prometheus.samples(&expression).await.is_empty() {
                    silent.push((name, expression));
                }
            }
            waiting = silent;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let told = tokio::time::timeout(PATIENCE, all_told).await;
    assert!(told.is_ok(), "these told nothing: {waiting:#?}");

    // Nothing is said against the proxy that is well; only a busy machine can make it look down for a moment.
    for (name, expression) in alerts {
        let but_well = format!("absent(({expression}) and on (instance) up{{instance=\"{}\"}})", instance(&well.admin));
        let against = prometheus.samples(&expression).await;
        let silent = tokio::time::timeout(Duration::from_secs(20), prometheus.wait_for(&but_well)).await;
        assert!(silent.is_ok(), "{name}: {against:?}");
    }
}

/// What can be held of a dashboard without a Grafana.
#[test]
fn every_panel_says_what_it_shows_and_in_which_unit() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let rows: Vec<_> =
        panels.iter().filter(|panel| panel["type"] == "row").map(|panel| text(&panel["title"])).collect();
    assert_eq!(
        rows,
        ["Is it helping?", "Is it right?", "Is the upstream well?", "Is the proxy well?", "Do replicas agree?"]
    );
    let ids: BTreeSet<i64> = panels.iter().map(|panel| panel["id"].as_i64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "ids are different");
    let mut taken = BTreeSet::new();
    for panel in panels {
        let place = |name: &str| panel["gridPos"][name].as_i64().unwrap();
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(x < 24 && taken.insert((x, y)), "{} lies on another", panel["title"]);
            }
        }
        if panel["type"] == "row" {
            continue;
        }
        assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{}", panel["title"]);
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{}", panel["title"]);
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
            assert!(target["legendFormat"].as_str().is_some_and(|legend| !legend.is_empty()), "{}", panel["title"]);
            assert!(text(&target["expr"]).contains("instance=~\"$instance\""), "{}", panel["title"]);
        }
    }
}

/// An operator who is woken finds what to do.
#[test]
fn every_alert_has_a_paragraph_in_the_operating_manual() {
    let rules = include_str!("../../dashboards/anteroom.rules.yml");
    let manual = include_str!("../../docs/operating.md");
    let names: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert_eq!(names.len(), ONLY_BY_A_FAULT.len());
    for name in names {
        assert!(manual.lines().any(|line| line == format!("### {name}")), "docs/operating.md lacks ### {name}");
        let pointer = format!("What to do: docs/operating.md#{}", name.to_lowercase());
        assert!(rules.lines().any(|line| line.trim() == pointer), "{name} does not point to {pointer}");
        let runbook = format!("runbook_url: docs/operating.md#{}", name.to_lowercase());
        assert!(rules.lines().any(|line| line.trim() == runbook), "{name} lacks {runbook}");
    }
}

#[test]
fn every_metric_that_is_shown_or_watched_is_described() {
    let page = include_str!("../../docs/metrics.md");
    let rules = include_str!("../../dashboards/anteroom.rules.yml");
    let dashboard = dashboard().to_string();
    for text in [rules, &dashboard] {
        for word in text.split(|char: char| !char.is_ascii_alphanumeric() && char != '_' && char != ':') {
            let is_metric = (word.starts_with("anteroom_") || word.starts_with("process_")) && !word.contains(':');
            let name = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word);
            assert!(!is_metric || page.contains(&format!("`{name}`")), "{name} is not in docs/metrics.md");
        }
    }
}

/// Both formats tell the same, in gzip too; that a real Prometheus reads the one it asks for, in gzip, is shown above.
#[tokio::test]
async fn metrics_come_in_the_format_and_the_coding_that_is_asked_for() {
    let (_stand_in, proxy) = both("").await;
    proxy.list("visitor-a").await;
    let url = format!("{}/metrics", proxy.admin);
    let plain = get(&url).await;
    assert_eq!(plain.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!((plain.header("content-encoding"), plain.header("vary")), (None, Some("Accept, Accept-Encoding")));
    let of_prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                         text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let open = get_with(&url, &[("accept", of_prometheus)]).await;
    assert_eq!(open.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    let series = |text: &str| -> BTreeSet<String> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.filter_map(|line| Some(line.rsplit_once(' ')?.0.replace(".0\"}", "\"}"))).collect()
    };
    assert_eq!(series(&plain.text()), series(&open.text()));
    assert!(series(&plain.text()).len() > 300);
    let zipped = get_with(&url, &[("accept", of_prometheus), ("accept-encoding", "gzip")]).await;
    assert_eq!(
        (zipped.header("content-encoding"), zipped.header("content-type")),
        (Some("gzip"), open.header("content-type"))
    );
    let mut text = String::new();
    flate2::read::GzDecoder::new(&zipped.body[..]).read_to_string(&mut text).unwrap();
    assert_eq!(series(&text), series(&open.text()));
    assert!(zipped.body.len() * 4 < text.len(), "{} of {}", zipped.body.len(), text.len());
    assert!(text.ends_with("# EOF\n"));
    // The tool's parser is that of the older format.
    let mut check = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    check.stdin.take().unwrap().write_all(&plain.body).await.unwrap();
    let checked = check.wait_with_output().await.unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}
