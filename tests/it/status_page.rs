//! The status page in a real browser, and `/status` behind it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anteroom_stand_in::{Options, StandIn, Webhook};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::support::browser::Browser;
use crate::support::child::Program;
use crate::support::{both, get, get_with, post, request, send};

/// A phone, a laptop, a large screen.
const SIZES: [[u32; 2]; 3] = [[360, 800], [1280, 900], [1920, 1080]];

async fn status(admin: &str) -> Value {
    serde_json::from_slice(&get(&format!("{admin}/status")).await.body).expect("JSON")
}

/// Readers, and now and then somebody who writes, until they are told to stop.
struct Visitors {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Visitors {
    fn come(proxy: &str, readers: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let visit = |reader: usize| {
            let (stop, proxy) = (stop.clone(), proxy.to_owned());
            tokio::spawn(async move {
                let mut turn = reader;
                while !stop.load(Ordering::Relaxed) {
                    turn += 1;
                    let list = format!(
                        "{proxy}{}",
                        StandIn::list_path(if turn.is_multiple_of(3) { "visitor-b" } else { "visitor-a" })
                    );
                    get(&list).await;
                    match turn % 193 {
                        5 => drop(get_with(&list, &[("cookie", "theme=dark")]).await),
                        11 => drop(get(&format!("{list}?page={turn}")).await),
                        _ if turn % 151 == 7 => {
                            let list = format!("{proxy}{}", StandIn::list_path("visitor-a"));
                            post(&format!("{list}/131/messages"), r#"{"content":"Hello"}"#).await;
                        }
                        _ => {}
                    }
                    tokio::time::sleep(Duration::from_millis(12)).await;
                }
            })
        };
        Self { tasks: (0..readers).map(visit).collect(), stop }
    }

    async fn go(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

/// Width and height of a PNG.
fn size_of(png: &[u8]) -> [u32; 2] {
    assert_eq!(&png[1..4], b"PNG");
    [16, 20].map(|at| u32::from_be_bytes(png[at..at + 4].try_into().unwrap()))
}

/// Whether a part of the page shows something that matches.
fn shows(id: &str, pattern: &str) -> String {
    format!("new RegExp({}).test(document.getElementById({}).innerText)", Value::from(pattern), Value::from(id))
}

/// Where pictures are kept, to be looked at.
fn keep(name: &str, png: &[u8]) {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("status-page");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(name), png).unwrap();
}

/// The picture in the README, of a proxy that has been busy for two minutes (`make screenshot`): readers come and go.
async fn take_picture(browser: &mut Browser, program: &Program, path: PathBuf) {
    browser.prefer_dark(false).await;
    browser.resize(SIZES[1]).await;
    browser.evaluate("document.activeElement.blur(); document.querySelector('details[open]').open = false").await;
    for readers in [2, 5, 9, 12, 9, 4, 6, 10, 7, 3] {
        let visitors = Visitors::come(&program.url, readers);
        tokio::time::sleep(Duration::from_secs(12)).await;
        visitors.go().await;
    }
    std::fs::write(path, browser.screenshot().await).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_shows_what_the_proxy_does_at_every_size() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let secret = "webhook.secrets = [\"known to both\"]\ncache.ttl = \"2s\"\nadmin.token = \"hush-hush\"\nlog.level = \"info,[a|b]=info\"";
    let program = Program::serve(&stand_in.url(), secret).await;
    stand_in
        .send_webhooks_to(Webhook::account(format!("{}/_anteroom/webhooks", program.url)).signed_with("known to both"));
    let visitors = Visitors::come(&program.url, 3);
    let mut browser = Browser::start().await;
    browser.open(&format!("{}/", program.admin), SIZES[1]).await;
    browser.wait_until("document.body.dataset.state === 'ready'").await;
    for (id, pattern) in [
        ("tile-hits", r"^[0-9.]+\s*%$"),
        ("tile-requests", r"^[1-9][0-9.]*\s*/s$"),
        ("tile-hit", r"^[0-9.]+\s*(µs|ms)$"),
        ("tile-miss", r"^[0-9.]+\s*(µs|ms)$"),
        ("tile-cache-more", r"of 256 MiB; [1-9]\d* lists"),
        ("requests", r"hit\s*from memory\s+[1-9]"),
        ("bypass", r"Cookie\s+[1-9]"),
        ("fetches", r"answered\s+[1-9]"),
        ("outdated", r"writes that passed\s+[1-9]"),
        ("webhooks", r"Arriving\. The last one came"),
        ("webhooks", r"lists are out of date\s+[1-9]"),
        ("upstream", r"2xx\s+[1-9]"),
        ("about-version", &format!("^{} ", env!("CARGO_PKG_VERSION"))),
        ("settings", r#"cache\.ttl\s+"2s"\s+.*anteroom\.toml:2"#),
        ("settings", r#"webhook\.secrets\s+\["\*\*\*"\]"#),
        ("settings", r#"log\.level\s+"info,\[a\|b\]=info""#),
        ("settings", r#"upstream\.url\s+"http://127\.0\.0\.1:\d+"\s+--upstream"#),
    ] {
        browser.wait_until(&shows(id, pattern)).await;
    }
    // Two lines of the legend, and two of the chart.
    browser.wait_until("document.querySelectorAll('#chart-requests path.line').length === 4").await;
    for size in SIZES {
        for dark in [false, true] {
            browser.prefer_dark(dark).await;
            browser.resize(size).await;
            browser.wait_until(&format!("innerWidth === {}", size[0])).await;
            let wide = browser.evaluate("document.documentElement.scrollWidth - innerWidth").await;
            assert_eq!(wide, 0, "nothing sticks out at {size:?}");
            let png = browser.screenshot().await;
            assert_eq!(size_of(&png), size);
            assert!(png.len() > 15_000, "an empty page: {} bytes", png.len());
            keep(&format!("{}-{}.png", size[0], if dark { "dark" } else { "light" }), &png);
        }
    }
    // By keyboard one goes back in time.
    browser.evaluate("document.querySelector('#chart-requests svg[tabindex]').focus()").await;
    browser.wait_until(&shows("chart-requests", "now: of clients")).await;
    browser.press("ArrowLeft", 37).await;
    browser.wait_until(&shows("chart-requests", r"\d s ago: of clients [1-9]")).await;
    browser.evaluate("document.querySelector('#chart-requests details').open = true").await;
    browser.wait_until(&shows("chart-requests", r"When\s+of clients\s+to the upstream\s+0 s ago\s+[1-9]")).await;
    // What nobody looks at asks nothing.
    let hide = "Object.defineProperty(document, 'hidden', { value: HIDDEN, configurable: true }); \
                document.dispatchEvent(new Event('visibilitychange'))";
    browser.evaluate(&hide.replace("HIDDEN", "true")).await;
    // What is on its way ends, then there is nothing for as long as two more questions would take.
    browser.evaluate("new Promise((go) => setTimeout(go, 500))").await;
    let asked = browser.asked.len();
    browser.evaluate("new Promise((go) => setTimeout(go, 2200))").await;
    assert_eq!(browser.asked.len(), asked, "{:?}", browser.asked.last());
    browser.evaluate(&hide.replace("HIDDEN", "false")).await;
    browser.evaluate("new Promise((go) => setTimeout(go, 500))").await;
    assert!(browser.asked.len() > asked, "it asks at once when somebody looks again");
    let text = browser.evaluate("document.documentElement.outerHTML").await;
    for secret in ["known to both", "hush-hush", "visitor-a"] {
        assert!(!text.as_str().unwrap().contains(secret), "{secret}");
    }
    if let Some(path) = std::env::var_os("SCREENSHOT") {
        take_picture(&mut browser, &program, PathBuf::from(path)).await;
    }
    assert_eq!(browser.complaints, Vec::<String>::new());
    let outside: Vec<&String> =
        browser.asked.iter().filter(|url| !url.starts_with(&program.admin) && !url.starts_with("data:")).collect();
    assert!(outside.is_empty() && browser.asked.len() > 4, "{outside:?}");
    visitors.go().await;
}

/// Every text of the page stands out from what is behind it (WCAG 2.2, 1.4.3), and gives those that do not.
const FAINT: &str = r#"(() => {
    const channels = (color) => color.match(/[\d.]+/g).map(Number);
    const light = ([red, green, blue]) => [red, green, blue]
        .map((part) => part / 255)
        .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
        .reduce((all, part, at) => all + part * [0.2126, 0.7152, 0.0722][at], 0);
    const behind = (element) => {
        for (; element; element = element.parentElement) {
            const [red, green, blue, alpha = 1] = channels(getComputedStyle(element).backgroundColor);
            if (alpha === 1) return [red, green, blue];
        }
        return [255, 255, 255];
    };
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const faint = [];
    let seen = 0;
    for (let text = texts.nextNode(); text; text = texts.nextNode()) {
        const element = text.parentElement;
        if (!text.data.trim() || !element.checkVisibility() || element.closest("noscript, style, script")) continue;
        seen += 1;
        const style = getComputedStyle(element);
        const [ink, ground] = [light(channels(element.closest("svg") ? style.fill : style.color)), light(behind(element))];
        const contrast = (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
        for (let part = element; part; part = part.parentElement) {
            if (getComputedStyle(part).opacity !== "1") faint.push(`${text.data.trim()}: seen through`);
        }
        if (contrast < 4.5) faint.push(`${text.data.trim()}: ${contrast.toFixed(2)}`);
    }
    return seen > 60 ? faint : ["only " + seen + " texts were looked at"];
})()"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_says_what_is_wrong_in_the_words_of_the_log() {
    let upstream = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let json = "log.format = \"json\"\ndrain.notice = \"0s\"";
    // Where nobody else takes the port while it is down.
    let mut program = Program::serve_at("127.0.0.9:0", &format!("http://{upstream}"), json).await;
    let mut browser = Browser::start().await;
    browser.open(&format!("{}/", program.admin), SIZES[0]).await;
    // Just started: nothing has been counted, and nothing is made up.
    browser.wait_until("document.body.dataset.state === 'ready'").await;
    for (id, pattern) in [
        ("tile-hits", "^–$"),
        ("chart-ratio", "Nothing to show yet"),
        ("requests", "^No requests yet$"),
        ("upstream", "Nothing was asked of it yet"),
        ("webhooks", "Not set up"),
    ] {
        browser.wait_until(&shows(id, pattern)).await;
    }
    keep("started.png", &browser.screenshot().await);
    // The upstream fails.
    let answer = get(&format!("{}{}", program.url, StandIn::list_path("visitor-a"))).await;
    assert_eq!(answer.status, 502);
    browser.wait_until("document.body.dataset.state === 'failing'").await;
    let told = status(&program.admin).await["upstream"]["last_error"].clone();
    program.wait_for_stderr("it refused the connection").await;
    let log = program.stderr();
    let warned = log.lines().find(|line| line.contains("\"WARN\"") && line.contains("it refused")).unwrap();
    let line: Value = serde_json::from_str(warned).unwrap();
    assert_eq!((&told["words"], &told["class"]), (&line["message"], &line["error"]));
    let words = told["words"].as_str().unwrap();
    browser.wait_until(&format!("document.getElementById('alarms').textContent.includes({})", told["words"])).await;
    browser.wait_until(&format!("document.getElementById('upstream').innerText.includes({})", told["words"])).await;
    assert!(words.contains(&upstream.to_string()));
    for dark in [false, true] {
        browser.prefer_dark(dark).await;
        assert_eq!(browser.evaluate(FAINT).await, serde_json::json!([]), "dark: {dark}");
    }
    keep("trouble.png", &browser.screenshot().await);
    assert_eq!(browser.complaints, Vec::<String>::new());
    // It is gone, and comes back.
    let address = program.admin.trim_start_matches("http://").to_owned();
    program.signal("KILL").await;
    program.ended().await;
    browser.wait_until("document.body.dataset.state === 'silent'").await;
    browser.wait_until(&shows("alarms", "has not answered since")).await;
    assert_eq!(browser.evaluate(FAINT).await, serde_json::json!([]));
    keep("silent.png", &browser.screenshot().await);
    let again = Program::serve_at(&address, &format!("http://{upstream}"), json).await;
    browser.wait_until("document.body.dataset.state === 'ready'").await;
    browser.wait_until(&shows("requests", "^No requests yet$")).await;
    drop(again);
}

/// Readers of the screen, and of JSON, find what they need.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_part_of_the_page_has_a_name() {
    let (_stand_in, proxy) = both("").await;
    proxy.list("visitor-a").await;
    let mut browser = Browser::start().await;
    browser.open(&format!("{}/", proxy.admin), SIZES[1]).await;
    browser.wait_until("document.body.dataset.state === 'ready'").await;
    let tree = browser.accessibility().await;
    let nodes = tree.as_array().unwrap();
    let named = |node: &&Value| !node["name"]["value"].as_str().unwrap_or_default().is_empty();
    let of_role = |role: &str| nodes.iter().filter(|node| node["role"]["value"] == role).collect::<Vec<_>>();
    for (role, least) in
        [("banner", 1), ("main", 1), ("navigation", 1), ("contentinfo", 1), ("region", 10), ("status", 1)]
    {
        assert!(of_role(role).len() >= least, "{role}: {}", of_role(role).len());
    }
    for role in ["image", "img", "region", "link", "checkbox", "heading", "navigation", "table"] {
        for node in of_role(role) {
            // A table has its name from the heading of its part.
            assert!(role == "table" || named(&node), "{role} without a name: {node}");
        }
    }
    assert_eq!(of_role("image").len() + of_role("img").len(), 3, "one for each chart");
}

#[tokio::test]
async fn the_json_is_as_documented_and_the_page_may_load_nothing_from_elsewhere() {
    let (_stand_in, proxy) = both("webhook.secrets = [\"abracadabra\"]").await;
    proxy.list("visitor-a").await;
    proxy.list("visitor-a").await;
    let told = status(&proxy.admin).await;
    assert_eq!(
        (&told["format"], &told["requests"]["hit"], &told["requests"]["miss"]),
        (&1.into(), &1.into(), &1.into())
    );
    assert_eq!((&told["cache"]["entries"], &told["webhooks"]["state"]), (&1.into(), &"none_yet".into()));
    let counts = told["latency"]["counts"]["hit"].as_array().unwrap();
    assert_eq!(counts.iter().filter_map(Value::as_u64).sum::<u64>(), 1);
    assert_eq!(counts.len(), told["latency"]["bounds_s"].as_array().unwrap().len() + 1);
    let manual = include_str!("../../docs/status.md");
    // What is counted by a word has the words of the metrics.
    let by_word = ["requests", "limits_reached", "not_shared", "out_of_date_by", "settings"];
    for (name, value) in told.as_object().unwrap() {
        assert!(manual.contains(&format!("`{name}`")), "docs/status.md lacks {name}");
        let below = value.as_object().filter(|_| !by_word.contains(&name.as_str()));
        for name in below.into_iter().flat_map(|below| below.keys()) {
            assert!(manual.contains(&format!("`{name}`")), "docs/status.md lacks {name}");
        }
    }
    let page = get(&format!("{}/", proxy.admin)).await;
    assert!(page.header("content-type").unwrap().starts_with("text/html"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'"),
        "{policy}"
    );
    for path in
        ["page.css", "page.js", "charts.js", "words.js", "docs/operating.md", "docs/metrics.md", "docs/status.md"]
    {
        let file = get_with(&format!("{}/{path}", proxy.admin), &[("accept-encoding", "gzip")]).await;
        assert_eq!((file.status.as_u16(), file.header("content-encoding")), (200, Some("gzip")), "{path}");
        assert_eq!(
            (file.header("cache-control"), file.header("x-content-type-options")),
            (Some("no-store"), Some("nosniff"))
        );
    }
    for (method, path, status) in
        [("POST", "/", 405), ("DELETE", "/status", 405), ("GET", "/page", 404), ("GET", "/purge", 405)]
    {
        let answer = send(request(method, &format!("{}{path}", proxy.admin), &[], "")).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path}");
    }
}

/// A page of another site could let its own name lead to this machine, and read what is read here.
#[tokio::test]
async fn by_a_strangers_name_nothing_is_read_but_what_programs_ask_for() {
    let (_stand_in, proxy) = both("admin.token = \"hush-hush\"").await;
    let by_name = |path: &'static str, name: &'static str| {
        let url = format!("{}{path}", proxy.admin);
        async move { get_with(&url, &[("host", name)]).await.status.as_u16() }
    };
    for path in ["/", "/page.js", "/status", "/top?seconds=1", "/docs/status.md"] {
        assert_eq!(by_name(path, "evil.test:9180").await, 421, "{path}");
        assert_eq!(by_name(path, "localhost:9180").await, 200, "{path}");
        let embedded = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "script")];
        assert_eq!(get_with(&format!("{}{path}", proxy.admin), &embedded).await.status.as_u16(), 403, "{path}");
    }
    for path in ["/metrics", "/live", "/ready"] {
        assert_eq!(by_name(path, "anteroom.example.com").await, 200, "{path}");
    }
    let fields = [("host", "anteroom.example.com"), ("authorization", "Bearer hush-hush")];
    let question = r#"{"method": "GET", "path": "/"}"#;
    let explained = send(request("POST", &format!("{}/explain", proxy.admin), &fields, question)).await;
    assert_eq!(explained.status.as_u16(), 200);
}
