//! A new process takes over: it is started with the listening sockets of this one, so that no client is ever refused.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use super::sockets::told_of;

/// The first descriptor that is handed over (`SD_LISTEN_FDS_START`).
const FIRST: i32 = 3;
/// How long the new process may take to be ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// The sockets of this process, each once more.
#[derive(Debug)]
pub struct Sockets {
    pub(super) public: Vec<OwnedFd>,
    pub(super) admin: OwnedFd,
}

impl Sockets {
    fn copy(&self) -> io::Result<Vec<OwnedFd>> {
        self.public.iter().chain([&self.admin]).map(OwnedFd::try_clone).collect()
    }
}

/// Starts the program anew, as it was started, with the sockets. Gives its process id once it serves.
///
/// # Errors
/// In words, if it could not be started or ended before it served: then nothing has changed.
pub async fn take_over(sockets: &Sockets) -> Result<u32, String> {
    let mut arguments = std::env::args_os();
    let program = arguments.next().ok_or("the name of the program is not known")?;
    let mut command = std::process::Command::new(program);
    // What the service manager has said to this process alone; without these words it is said to whoever reads it.
    command.args(arguments).envs(told_of(sockets.public.len())).env_remove("LISTEN_PID").env_remove("WATCHDOG_PID");
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(|error| error.to_string())?;
    let mut given = sockets.copy().map_err(|error| error.to_string())?;
    given.push(theirs.into());
    let mappings = (FIRST..).zip(given).map(|(child_fd, parent_fd)| FdMapping { parent_fd, child_fd }).collect();
    command.fd_mappings(mappings).map_err(|error| error.to_string())?;
    let child = command.spawn().map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    // This process must hold no end of theirs, or the end of the new one would not be heard.
    drop(command);
    let id = child.id();
    reap(child);
    let told = async {
        ours.set_nonblocking(true)?;
        UnixStream::from_std(ours)?.read_u8().await
    };
    match tokio::time::timeout(PATIENCE, told).await {
        Ok(Ok(_)) => Ok(id),
        Ok(Err(_)) => Err("the new process ended before it served; its own lines say why".to_owned()),
        Err(_) => Err(format!("the new process (id {id}) did not serve within {PATIENCE:?}; it goes on by itself")),
    }
}

/// Waits for the process's end, so that the system can forget it.
fn reap(mut child: std::process::Child) {
    std::thread::spawn(move || {
        let _ = child.wait();
    });
}
