//! What systemd is told: the start, the watchdog, a process that takes over, the end. A real one: `make service-check`.

use std::process::Stdio;
use std::time::Duration;

use anteroom_stand_in::{Options, StandIn};
use tokio::net::UnixDatagram;
use tokio::process::Command;

/// What the program says to its service manager.
struct Told(UnixDatagram);

impl Told {
    async fn message(&self) -> String {
        let mut bytes = [0; 256];
        let received = tokio::time::timeout(Duration::from_secs(30), self.0.recv(&mut bytes));
        let length = received.await.expect("it says something").expect("a datagram");
        String::from_utf8_lossy(&bytes[..length]).trim().to_owned()
    }

    /// Waits for a message that begins so; gives its rest.
    async fn until(&self, begin: &str) -> String {
        loop {
            if let Some(rest) = self.message().await.strip_prefix(begin) {
                return rest.to_owned();
            }
        }
    }

    /// Forgets what has been said.
    fn forget(&self) {
        while self.0.try_recv(&mut [0; 256]).is_ok() {}
    }
}

async fn signal(name: &str, id: u32) {
    let sent = Command::new("kill").args(["-s", name, &id.to_string()]).status().await;
    assert!(sent.expect("kill is a program").success());
}

#[tokio::test]
async fn the_service_manager_hears_of_the_start_the_watchdog_a_take_over_and_the_end() {
    let stand_in = StandIn::start(Options::default()).await.expect("a stand-in");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify.sock");
    let told = Told(UnixDatagram::bind(&path).expect("a socket"));
    // As systemd does, the shell says for which process the watchdog is.
    let mut command = Command::new("sh");
    command.args(["-c", "WATCHDOG_PID=$$ exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_anteroom"), "serve"]);
    command.args(["--upstream", &stand_in.url(), "--admin", "127.0.0.1:0", "--listen", "127.0.0.1:0"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000").env("ANTEROOM_DRAIN__NOTICE", "0s");
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn().expect("a shell");

    told.until("READY=1").await;
    told.until("WATCHDOG=1").await;
    signal("USR2", child.id().expect("it runs")).await;
    let next = told.until("MAINPID=").await.parse().expect("a process id");
    assert!(child.wait().await.expect("it ends").success());
    told.forget();
    told.until("WATCHDOG=1").await;
    signal("TERM", next).await;
    told.until("STOPPING=1").await;
}
