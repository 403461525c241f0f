//! A Redis for a demonstration: `redis-server` on a socket of its own, which keeps nothing and ends with the demonstration,
//! however that ends.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long it may take to start.
const STARTING: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
const PROGRAM: &str = "redis-server";

/// What a shell does: it is in nobody's process group, so that Ctrl-C does not end the server before the replicas have left
/// it, and the end of its input, which comes with our own end at the latest, is the server's.
const GUARDED: &str = "redis-server \"$@\" < /dev/null & server=$!; read -r _; kill -KILL $server; wait $server";

/// A Redis of our own.
pub(super) struct Redis {
    folder: PathBuf,
    guard: Option<Child>,
}

impl Redis {
    /// Makes room for one. `name` is nobody else's.
    ///
    /// # Errors
    /// What has to be installed, or why there is no room.
    pub(super) fn prepare(name: &str) -> Result<Self, String> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        if !std::env::split_paths(&path).any(|folder| folder.join(PROGRAM).is_file()) {
            return Err(format!(
                "there is no {PROGRAM} on the PATH: install Redis (Debian and Ubuntu: apt install redis-server), or name a \
                 Redis that runs with --redis redis://HOST:PORT"
            ));
        }
        let folder = std::env::temp_dir().join(format!("anteroom-demo-{name}"));
        let made = DirBuilder::new().mode(0o700).create(&folder);
        made.map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(Self { folder, guard: None })
    }

    /// Where it listens.
    pub(super) fn socket(&self) -> PathBuf {
        self.folder.join("redis.sock")
    }

    /// Starts it, empty, and waits until it answers.
    pub(super) async fn start(&mut self) -> Result<(), String> {
        let failed = |error: io::Error| format!("{PROGRAM} cannot be started: {error}");
        let mut command = Command::new("sh");
        command.args([
            "-c",
            GUARDED,
            "sh",
            "--port",
            "0",
            "--unixsocket",
            "redis.sock",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        command.args(["--logfile", "redis.log"]).current_dir(&self.folder).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        self.guard = Some(command.spawn().map_err(failed)?);
        let socket = self.socket();
        let up = async {
            while UnixStream::connect(&socket).is_err() {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        tokio::time::timeout(STARTING, up).await.map_err(|_| {
            let log = std::fs::read_to_string(self.folder.join("redis.log")).unwrap_or_default();
            format!("{PROGRAM} does not answer: {}", log.lines().last().unwrap_or("it says nothing"))
        })
    }

    /// Kills it: it has no time to say anything to anybody.
    pub(super) fn kill(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            // What cannot be waited for has ended.
            let _ = guard.wait();
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
        // It is ours alone, and in a folder for what may be lost.
        let _ = std::fs::remove_dir_all::<&Path>(&self.folder);
    }
}
