//! A real Redis for a test, on a socket of its own: asked, stopped, emptied, and gone when the test is. `REDIS_SERVER` names
//! another program than `redis-server`: Valkey, or another version.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::tls::Certificate;

const PATIENCE: Duration = Duration::from_secs(30);

/// What the user of a proxy has to be allowed.
const MAY: &str = "evalsha eval script info time publish subscribe hgetall hset hdel del xadd xrange \
                   strlen getrange get set pexpire";

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

    /// A Sentinel on this port, one of three, that watches over the primary on another port, "shop", and waits a second for it.
    pub async fn start_sentinel(port: u16, primary: u16) -> Self {
        Self::start_sentinel_with(&format!("port {port}\n"), primary).await
    }

    /// The same by TLS, for whose clients and servers this certificate stands.
    pub async fn start_sentinel_with_tls(certificate: &Certificate, port: u16, primary: u16) -> Self {
        let mut config = "port 0\ntls-replication yes\n".to_owned();
        for argument in by_tls(certificate, port) {
            let is_name = argument.starts_with("--");
            config.push_str(argument.trim_start_matches('-'));
            config.push(if is_name { ' ' } else { '\n' });
        }
        Self::start_sentinel_with(&config, primary).await
    }

    async fn start_sentinel_with(listens: &str, primary: u16) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = format!(
            "{listens}unixsocket redis.sock\nsentinel monitor shop 127.0.0.1 {primary} 2\n\
             sentinel down-after-milliseconds shop 1000\nsentinel failover-timeout shop 3000\n"
        );
        // It writes down what it learns.
        std::fs::write(folder.path().join("sentinel.conf"), config).expect("a file");
        let child = spawn(&folder, &["sentinel.conf", "--sentinel"]);
        let mut this = Self { folder, child, more: Vec::new() };
        this.is_up().await;
        this
    }

    /// One that a certificate stands for, on a port of its own, for a user with a password; and its URL.
    pub async fn start_with_tls(certificate: &Certificate) -> (Self, String) {
        let port = free_port();
        // As docs/scale.md says that it may be.
        let user = [
            "--user",
            "anteroom",
            "on",
            ">hush",
            "~{anteroom}:*",
            "~anteroom:1:*",
            "&{anteroom}:*",
            "-@all",
            "+@connection",
        ];
        let may: Vec<String> = MAY.split(' ').map(|command| format!("+{command}")).collect();
        let may: Vec<&str> = may.iter().map(String::as_str).collect();
        let tls = by_tls(certificate, port);
        let tls: Vec<&str> = tls.iter().map(String::as_str).collect();
        let this = Self::start(&[&tls[..], &user, &may].concat()).await;
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

    /// A command, and the first line of its answer; of a text that has a length, the first line of the text.
    pub async fn ask(&self, command: &str) -> String {
        let asking = async {
            let mut stream = BufReader::new(UnixStream::connect(self.socket()).await?);
            stream.write_all(format!("{command}\r\n").as_bytes()).await?;
            let mut line = String::new();
            stream.read_line(&mut line).await?;
            if line.starts_with('$') {
                line.clear();
                stream.read_line(&mut line).await?;
            }
            std::io::Result::Ok(line.trim_end().to_owned())
        };
        tokio::time::timeout(PATIENCE, asking).await.expect("an answer").unwrap_or_else(|error| error.to_string())
    }

    /// What a script says that gives a text.
    pub async fn run(&self, script: &str) -> String {
        self.ask(&format!("EVAL \"{script}\" 0")).await
    }

    /// Asks again and again until this is how the answer begins.
    pub async fn says(&self, command: &str, beginning: &str) {
        let asking = async {
            while !self.ask(command).await.starts_with(beginning) {
                tokio::task::yield_now().await;
            }
        };
        let said = tokio::time::timeout(PATIENCE, asking).await;
        assert!(said.is_ok(), "{command} is {} and not {beginning}", self.ask(command).await);
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

/// The arguments of a server that listens so.
pub fn by_tls(certificate: &Certificate, port: u16) -> Vec<String> {
    let [cert, key, authority] =
        [certificate.certificate(), certificate.key(), certificate.authority()].map(|path| path.display().to_string());
    let arguments = [
        ("--tls-port", port.to_string()),
        ("--tls-cert-file", cert),
        ("--tls-key-file", key),
        ("--tls-ca-cert-file", authority),
        ("--tls-auth-clients", "no".to_owned()),
    ];
    arguments.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
}

/// A signal to a process.
pub async fn signal(id: u32, name: &str) {
    let status = Command::new("kill").args([format!("-{name}"), id.to_string()]).status().await;
    assert!(status.expect("kill").success());
}

/// A port that nobody has, nor the one 10,000 above, which a node of a cluster takes too.
pub fn free_port() -> u16 {
    // Below those that the system gives away, or another test has it before the server does; and each but once.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let at = NEXT.fetch_add(1, Ordering::Relaxed) + u16::try_from(std::process::id() % 40).expect("few") * 150;
        let free = 15_000 + at % 6_000;
        let is_free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        if is_free(free) && is_free(free + 10_000) {
            return free;
        }
    }
}

fn run(folder: &tempfile::TempDir, more: &[String]) -> Child {
    let usual = ["--port", "0", "--unixsocket", "redis.sock", "--save", "", "--appendonly", "no"];
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    spawn(folder, &[&usual, &more[..]].concat())
}

fn spawn(folder: &tempfile::TempDir, arguments: &[&str]) -> Child {
    let mut command = Command::new(std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into()));
    command.args(arguments).current_dir(folder.path()).kill_on_drop(true).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("redis-server is installed")
}
