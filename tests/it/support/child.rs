//! The proxy as a program: started, signalled, asked, and gone when the test is.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinHandle;

use super::get;

/// How long a test waits for a program before it fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running proxy.
pub struct Program {
    pub url: String,
    pub admin: String,
    /// What it said on standard output before the line about its private listener.
    pub said: String,
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: Arc<Mutex<String>>,
    reading: JoinHandle<()>,
    /// Where its file of settings is.
    folder: tempfile::TempDir,
}

/// What a command that has ended left.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// The command itself, deaf to the settings of whoever runs the tests.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anteroom"));
    let ours = std::env::vars().map(|(name, _)| name).filter(|name| name.starts_with("ANTEROOM_"));
    for name in ours.collect::<Vec<_>>() {
        command.env_remove(name);
    }
    command.args(arguments).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command to its end, with text on its standard input.
pub async fn run(arguments: &[&str], variables: &[(&str, &str)], input: &str) -> Ended {
    let folder = tempfile::tempdir().expect("a folder");
    // Away from whatever anteroom.toml lies about.
    let mut child = command(arguments)
        .envs(variables.iter().copied())
        .current_dir(folder.path())
        .spawn()
        .expect("the program is built with its tests");
    // It may end without reading.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes()).await;
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("it ends").expect("output");
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("text"),
        stderr: String::from_utf8(output.stderr).expect("text"),
    }
}

impl Program {
    /// `anteroom serve` in front of an upstream; `settings` is TOML. Returns once it has said where it listens.
    pub async fn serve(upstream: &str, settings: &str) -> Self {
        Self::serve_at("127.0.0.1:0", upstream, settings).await
    }

    /// The same, with a private listener that has been there before.
    pub async fn serve_at(admin: &str, upstream: &str, settings: &str) -> Self {
        Self::serve_into(Stdio::piped(), admin, upstream, settings).await
    }

    /// The same, with standard error somewhere else.
    pub async fn serve_into(stderr: Stdio, admin: &str, upstream: &str, settings: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("anteroom.toml");
        std::fs::write(&file, settings).expect("a file can be written");
        let file = file.to_str().expect("a path in text").to_owned();
        let listen = ["--listen", "127.0.0.1:0", "--admin", admin];
        let mut arguments = vec!["serve", "--config", &file, "--upstream", upstream];
        arguments.extend(listen);
        Self::start(folder, &arguments, stderr).await
    }

    /// `anteroom demo`, with more arguments and these variables.
    pub async fn demo_with(more: &[&str], variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let arguments = [&["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"], more].concat();
        Self::start_with(folder, &arguments, variables, Stdio::piped()).await
    }

    async fn start(folder: tempfile::TempDir, arguments: &[&str], stderr: Stdio) -> Self {
        Self::start_with(folder, arguments, &[], stderr).await
    }

    async fn start_with(
        folder: tempfile::TempDir,
        arguments: &[&str],
        variables: &[(&str, &str)],
        stderr: Stdio,
    ) -> Self {
        let mut command = command(arguments);
        command.envs(variables.iter().copied());
        let mut child = command.current_dir(folder.path()).stderr(stderr).spawn().expect("the program is built");
        let stderr = Arc::new(Mutex::new(String::new()));
        let lines = child.stderr.take().map(|lines| BufReader::new(lines).lines());
        let collected = stderr.clone();
        let reading = tokio::spawn(async move {
            let Some(mut lines) = lines else { return };
            while let Ok(Some(line)) = lines.next_line().await {
                let mut all = collected.lock().expect("no panic");
                all.push_str(&line);
                all.push('\n');
            }
        });
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (url, admin, said) = (String::new(), String::new(), String::new());
        let mut this = Self { url, admin, said, child, stdout, stderr, reading, folder };
        this.url = this.announced("listening on ").await;
        this.admin = this.announced("admin on ").await;
        this
    }

    async fn announced(&mut self, prefix: &str) -> String {
        loop {
            let line = self.line().await;
            let line = line.unwrap_or_else(|| panic!("it ended without \"{prefix}\": {}{}", self.said, self.stderr()));
            if let Some(url) = line.strip_prefix(prefix) {
                return url.to_owned();
            }
            self.said.push_str(&line);
            self.said.push('\n');
        }
    }

    /// The next line of its standard output.
    pub async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = tokio::time::timeout(PATIENCE, self.stdout.read_line(&mut line)).await.expect("it speaks, or ends");
        (read.expect("text") > 0).then(|| line.trim_end().to_owned())
    }

    /// What it has said on standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().expect("no panic").clone()
    }

    /// Waits until it has said something on standard error.
    pub async fn wait_for_stderr(&self, text: &str) {
        let waiting = async {
            while !self.stderr().contains(text) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let told = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(told.is_ok(), "it never said {text:?}, but:\n{}", self.stderr());
    }

    /// Sends it a signal, such as `TERM`.
    pub async fn signal(&self, name: &str) {
        let id = self.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status().await.expect("kill is a program");
        assert!(sent.success(), "the program is gone");
    }

    /// Lets a new process take over from it; gives the new one's id, which is to be given to [`Self::end`].
    pub async fn take_over(&self) -> u32 {
        self.take_over_from(self.id()).await
    }

    /// The same from the process that took over last.
    pub async fn take_over_from(&self, id: u32) -> u32 {
        let taken_over = || {
            let told = self.stderr();
            let lines: Vec<serde_json::Value> =
                told.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            lines
                .iter()
                .filter(|line| line["message"] == "the new process serves")
                .filter_map(|line| line["id"].as_u64())
                .collect::<Vec<_>>()
        };
        let before = taken_over().len();
        let sent =
            Command::new("kill").args(["-s", "USR2", &id.to_string()]).status().await.expect("kill is a program");
        assert!(sent.success(), "the program is gone");
        let waiting = async {
            while taken_over().len() == before {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "nobody took over:\n{}", self.stderr());
        u32::try_from(*taken_over().last().expect("one more")).expect("a process id")
    }

    /// Ends a process that took over.
    pub async fn end(id: u32) {
        let _ = Command::new("kill").args(["-s", "KILL", &id.to_string()]).status().await;
    }

    /// Other settings in its file.
    pub fn write_settings(&self, settings: &str) {
        std::fs::write(self.settings_file(), settings).expect("a file can be written");
    }

    pub fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let Ok(status) = ended else { panic!("it does not end:\n{}", self.stderr()) };
        let _ = (&mut self.reading).await;
        status.expect("a status")
    }

    /// The rest of its standard output, after its end.
    pub async fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).await.expect("text");
        rest
    }

    /// Its file of settings.
    pub fn settings_file(&self) -> PathBuf {
        self.folder.path().join("anteroom.toml")
    }

    /// A line of `/proc/PID/status`, in bytes: `VmHWM` is the peak of resident memory, `VmRSS` what it is now.
    pub fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect("a line of it");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// Lets the peak of resident memory be measured anew from now on.
    pub fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.id()), "5").expect("the peak can be reset");
    }

    pub async fn metrics(&self) -> String {
        get(&format!("{}/metrics", self.admin)).await.text()
    }

    /// The value of a metric; zero if it is not there.
    pub async fn metric(&self, name_and_labels: &str) -> f64 {
        let text = self.metrics().await;
        let value = text.lines().find_map(|line| line.strip_prefix(name_and_labels)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().expect("a metric is a number"))
    }

    /// Waits until a metric fits.
    pub async fn wait_for_metric(&self, name_and_labels: &str, fits: impl Fn(f64) -> bool) {
        let waiting = async {
            while !fits(self.metric(name_and_labels).await) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let told = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(told.is_ok(), "{name_and_labels} never fitted: {}", self.metric(name_and_labels).await);
    }
}
