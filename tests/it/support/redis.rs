//! A real Redis for a test, on a socket of its own: asked, stopped, emptied, and gone when the test is.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::tls::Certificate;

const PATIENCE: Duration = Duration::from_secs(30);

/// A running server.
pub struct Redis {
    folder: tempfile::TempDir,
    child: Child,
    more: Vec<String>,
}

impl Redis {
    /// One that keeps nothing on disk; `more` are arguments of the server.
    pub async fn start(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let more: Vec<String> = more.iter().map(|&argument| argument.to_owned()).collect();
        let child = run(&folder, &more);
        let mut this = Self { folder, child, more };
        this.is_up().await;
        this
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    /// One that a certificate stands for, on a port of its own, for a user with a password; and its URL.
    pub async fn start_with_tls(certificate: &Certificate) -> (Self, String) {
        let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
        let [cert, key, authority] = [certificate.certificate(), certificate.key(), certificate.authority()]
            .map(|path| path.display().to_string());
        let user = ["--user", "anteroom", "on", ">hush", "~{anteroom}:*", "~anteroom:1:*", "&{anteroom}:*", "+@all"];
        let tls = ["--tls-port", &port.to_string(), "--tls-cert-file", &cert, "--tls-key-file", &key];
        let authority = ["--tls-ca-cert-file", &authority, "--tls-auth-clients", "no"];
        let this = Self::start(&[&tls[..], &authority, &user].concat()).await;
        (this, format!("rediss://anteroom@localhost:{port}/2"))
    }

    /// `replicas.redis`.
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// What a proxy needs to share through it; `more` is more TOML.
    pub fn settings(&self, more: &str) -> String {
        let url = self.url();
        format!("replicas.redis = \"{url}\"\nreplicas.secret = \"0123456789abcdef0123456789abcdef\"\n{more}")
    }

    /// A command, and the first line of its answer.
    pub async fn ask(&self, command: &str) -> String {
        let asking = async {
            let mut stream = BufReader::new(UnixStream::connect(self.socket()).await?);
            stream.write_all(format!("{command}\r\n").as_bytes()).await?;
            let mut line = String::new();
            stream.read_line(&mut line).await?;
            std::io::Result::Ok(line.trim_end().to_owned())
        };
        tokio::time::timeout(PATIENCE, asking).await.expect("an answer").unwrap_or_else(|error| error.to_string())
    }

    /// What a script says that gives a text.
    pub async fn run(&self, script: &str) -> String {
        let asking = async {
            let mut stream = BufReader::new(UnixStream::connect(self.socket()).await?);
            stream.write_all(format!("EVAL \"{script}\" 0\r\n").as_bytes()).await?;
            let mut line = String::new();
            stream.read_line(&mut line).await?;
            assert!(line.starts_with('$'), "{line}");
            line.clear();
            stream.read_line(&mut line).await?;
            std::io::Result::Ok(line.trim_end().to_owned())
        };
        tokio::time::timeout(PATIENCE, asking).await.expect("an answer").expect("a text")
    }

    /// All that it holds, as it would write it to a disk.
    pub async fn dump(&self) -> Vec<u8> {
        assert_eq!(self.ask("SAVE").await, "+OK");
        std::fs::read(self.folder.path().join("dump.rdb")).expect("a file")
    }

    /// SIGSTOP, SIGCONT or SIGKILL.
    pub async fn signal(&self, name: &str) {
        signal(self.child.id().expect("it runs"), name).await;
    }

    /// Another process in its place, without anything of it.
    pub async fn restart(&mut self) {
        self.signal("KILL").await;
        self.restart_dead().await;
    }

    /// The same, after it was killed.
    pub async fn restart_dead(&mut self) {
        self.child.wait().await.expect("it ends");
        self.child = run(&self.folder, &self.more);
        self.is_up().await;
    }

    async fn is_up(&mut self) {
        let up = async {
            while self.ask("PING").await != "+PONG" {
                assert!(self.child.try_wait().expect("a child").is_none(), "redis-server has ended");
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, up).await.expect("redis-server starts");
    }
}

/// A signal to a process.
pub async fn signal(id: u32, name: &str) {
    let status = Command::new("kill").args([format!("-{name}"), id.to_string()]).status().await;
    assert!(status.expect("kill").success());
}

fn run(folder: &tempfile::TempDir, more: &[String]) -> Child {
    let mut command = Command::new("redis-server");
    command.args(["--port", "0", "--unixsocket", "redis.sock", "--save", "", "--appendonly", "no"]).args(more);
    command.current_dir(folder.path()).kill_on_drop(true).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("redis-server is installed")
}
