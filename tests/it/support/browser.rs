//! A real browser, Debian's Chromium without a window, told what to do by the DevTools protocol. Its own switches
//! `--screenshot` and `--dump-dom` look once, at a time of their own choosing; so a test can wait for facts.

use std::process::Stdio;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// How long a test waits for the browser before it fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// What of the machine the page is not to see, and what a container lacks.
const SWITCHES: [&str; 9] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
];

/// A browser with one page, gone when the test is.
pub struct Browser {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    session: Option<String>,
    sent: u64,
    /// What the page complained about: errors of scripts, of the console, of its policy and of the network.
    pub complaints: Vec<String>,
    /// Every address that the page asked for.
    pub asked: Vec<String>,
    _child: Child,
    _folder: tempfile::TempDir,
    _reading: JoinHandle<()>,
}

impl Browser {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut child = Command::new("chromium")
            .args(SWITCHES)
            .arg(format!("--user-data-dir={}", folder.path().display()))
            .arg("about:blank")
            // Its own settings are in its own folder.
            .env("HOME", folder.path())
            .kill_on_drop(true)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("Debian's package chromium is installed");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let listening = async {
            let mut said = String::new();
            loop {
                let line = lines.next_line().await.expect("text").unwrap_or_else(|| panic!("it ended: {said}"));
                if let Some(url) = line.strip_prefix("DevTools listening on ") {
                    return url.to_owned();
                }
                said.push_str(&line);
            }
        };
        let url = tokio::time::timeout(PATIENCE, listening).await.expect("it listens");
        let reading = tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let (socket, _) = connect_async(url).await.expect("it is listened to");
        let (complaints, asked) = (Vec::new(), Vec::new());
        let mut this = Self {
            socket,
            session: None,
            sent: 0,
            complaints,
            asked,
            _child: child,
            _folder: folder,
            _reading: reading,
        };
        let target = this.call("Target.createTarget", json!({ "url": "about:blank" })).await;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = this.call("Target.attachToTarget", attach).await;
        this.session = session["sessionId"].as_str().map(str::to_owned);
        for part in ["Page", "Runtime", "Log", "Network"] {
            this.call(&format!("{part}.enable"), json!({})).await;
        }
        this
    }

    /// Opens a page in a window of this size.
    pub async fn open(&mut self, url: &str, [width, height]: [u32; 2]) {
        self.resize([width, height]).await;
        self.call("Page.navigate", json!({ "url": url })).await;
        let there = format!("location.href === {} && document.readyState === 'complete'", Value::from(url));
        self.wait_until(&there).await;
    }

    pub async fn resize(&mut self, [width, height]: [u32; 2]) {
        let window = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
        self.call("Emulation.setDeviceMetricsOverride", window).await;
    }

    /// Whether the page shall be dark.
    pub async fn prefer_dark(&mut self, dark: bool) {
        let value = if dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": value }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    /// Presses a key.
    pub async fn press(&mut self, key: &str, code: u32) {
        for kind in ["keyDown", "keyUp"] {
            let event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            self.call("Input.dispatchKeyEvent", event).await;
        }
    }

    /// What an expression gives within the page.
    pub async fn evaluate(&mut self, expression: &str) -> Value {
        let ask = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let told = self.call("Runtime.evaluate", ask).await;
        assert!(told["exceptionDetails"].is_null(), "{expression}: {told}");
        told["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub async fn wait_until(&mut self, expression: &str) {
        let began = tokio::time::Instant::now();
        while self.evaluate(expression).await != true {
            if began.elapsed() > PATIENCE {
                let text = self.evaluate("document.body.innerText").await;
                panic!("{expression} never was true: {:?}\n{}", self.complaints, text.as_str().unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What a screen reader is told: all nodes of the accessibility tree that are not ignored.
    pub async fn accessibility(&mut self) -> Value {
        let mut tree = self.call("Accessibility.getFullAXTree", json!({})).await;
        tree["nodes"].as_array_mut().expect("nodes").retain(|node| node["ignored"] == false);
        tree["nodes"].take()
    }

    /// What the window shows, as PNG.
    pub async fn screenshot(&mut self) -> Vec<u8> {
        let shot = self.call("Page.captureScreenshot", json!({ "format": "png", "optimizeForSpeed": false })).await;
        decode_base64(shot["data"].as_str().expect("a picture"))
    }

    async fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.sent += 1;
        let mut message = json!({ "id": self.sent, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.socket.send(Message::text(message.to_string())).await.expect("it listens");
        loop {
            let told = tokio::time::timeout(PATIENCE, self.socket.next()).await;
            let told =
                told.unwrap_or_else(|_| panic!("no answer to {method}")).expect("it goes on").expect("a message");
            let Ok(mut told) = serde_json::from_str::<Value>(told.to_text().unwrap_or_default()) else { continue };
            if told["id"] == self.sent {
                assert!(told["error"].is_null(), "{method}: {told}");
                return told["result"].take();
            }
            self.hear(&told);
        }
    }

    fn hear(&mut self, event: &Value) {
        let parameters = &event["params"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => self.complaints.push(parameters["exceptionDetails"].to_string()),
            Some("Runtime.consoleAPICalled")
                if ["error", "warning", "assert"].iter().any(|kind| parameters["type"] == *kind) =>
            {
                self.complaints.push(parameters["args"].to_string());
            }
            Some("Log.entryAdded") => self.complaints.push(text(&parameters["entry"]["text"])),
            Some("Network.requestWillBeSent") => self.asked.push(text(&parameters["request"]["url"])),
            _ => {}
        }
    }
}

fn decode_base64(text: &str) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let value = |letter: &u8| LETTERS.iter().position(|known| known == letter);
    let (mut bytes, mut held, mut bits) = (Vec::with_capacity(text.len() / 4 * 3), 0_usize, 0);
    for six in text.as_bytes().iter().filter_map(value) {
        (held, bits) = (held << 6 | six, bits + 6);
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(held >> bits & 0xff).expect("eight bits"));
        }
    }
    bytes
}
