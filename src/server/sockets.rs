//! The sockets that clients connect to: opened here, or handed over by systemd or by the process before this one.

use std::env;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdTcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use nix::libc;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio_util::either::Either;

use crate::config::ListenAddress;

/// A client's socket.
pub(super) type Accepted = Either<TcpStream, UnixStream>;

/// Whom a client of a Unix socket counts as: it is on this machine.
const THIS_MACHINE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// How many connections may wait to be accepted, as far as the system allows (`net.core.somaxconn`): what finds no room in a
/// burst is tried again a second later, or reset.
const BACKLOG: u32 = 65_535;

/// What the system holds of an answer beyond what the client lets it send. Else it would take megabytes for each who reads
/// slowly, and once all of TCP's memory is used (`net.ipv4.tcp_mem`), it resets anybody's connections.
const UNSENT: u32 = 128 * 1024;

/// What the names of handed-over sockets are, in `LISTEN_FDNAMES`; any other name is one for clients.
const ADMIN: &str = "admin";
const READY: &str = "ready";

/// A socket that is listened on.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// The path of a Unix socket; the file goes with its listener, unless that lives on in another process.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    ours: bool,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.ours {
            // It may have been removed by somebody else: that is what is wanted.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Listener {
    /// Opens a socket.
    ///
    /// # Errors
    /// Which address could not be had, and why.
    pub(super) fn bind(address: &ListenAddress) -> io::Result<Self> {
        let bound = match address {
            ListenAddress::Tcp(address) => bind_port(*address).map(Self::Tcp),
            ListenAddress::Unix(path) => bind_path(path),
        };
        bound.map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))
    }

    /// The next client and its address.
    pub(super) async fn accept(&self) -> io::Result<(Accepted, SocketAddr)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Small answers leave at once.
                let _ = stream.set_nodelay(true);
                let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT);
                Ok((Either::Left(stream), peer))
            }
            Self::Unix(listener, _) => Ok((Either::Right(listener.accept().await?.0), THIS_MACHINE)),
        }
    }

    /// Where it is, in fact.
    pub(super) fn address(&self) -> io::Result<ListenAddress> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(ListenAddress::Tcp),
            Self::Unix(_, file) => Ok(ListenAddress::Unix(file.path.clone())),
        }
    }

    /// The same socket once more, for another process.
    pub(super) fn handed_over(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Tcp(listener) => listener.as_fd().try_clone_to_owned(),
            Self::Unix(listener, _) => listener.as_fd().try_clone_to_owned(),
        }
    }

    /// Its file belongs to somebody else from now on.
    pub(super) fn give_up_file(&mut self) {
        if let Self::Unix(_, file) = self {
            file.ours = false;
        }
    }
}

fn bind_port(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Or the port would be taken for a minute after the one before has ended.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A socket that a process has left behind is replaced; one that somebody listens on is not, nor is any other file.
fn bind_path(path: &Path) -> io::Result<Listener> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let is_left = is_socket
        && StdUnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    if is_left {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    Ok(Listener::Unix(listener, SocketFile { path: path.to_owned(), ours: true }))
}

/// What was handed over: by systemd (`sd_listen_fds(3)`), or by the process that this one follows.
#[derive(Debug, Default)]
pub struct Inherited {
    pub(super) public: Vec<Listener>,
    pub(super) admin: Option<TcpListener>,
    /// Where the process before this one waits to be told that all is well.
    pub(super) ready: Option<StdUnixStream>,
}

impl Inherited {
    /// Takes what there is. To be called once, within a runtime, before anything is started.
    ///
    /// # Errors
    /// If one of them is of no use.
    pub fn take() -> io::Result<Self> {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut sockets = ListenFd::from_env();
        let mut inherited = Self::default();
        for index in 0..sockets.len() {
            match names.next().unwrap_or_default() {
                ADMIN => inherited.admin = sockets.take_tcp_listener(index)?.map(tcp).transpose()?,
                READY => {
                    inherited.ready =
                        sockets.take_custom(index, libc::AF_UNIX, libc::SOCK_STREAM, "unix stream socket")?;
                }
                _ => inherited.public.extend(public(&mut sockets, index)?),
            }
        }
        Ok(inherited)
    }

    /// The process before this one, if this one takes over.
    pub fn before(&mut self) -> Option<Before> {
        self.ready.take().map(Before)
    }
}

/// The process before this one, which waits to be told that all is well.
pub struct Before(StdUnixStream);

impl Before {
    /// Tells it: from now on this one serves.
    pub fn told(mut self) {
        // It may have been killed meanwhile.
        let _ = self.0.write_all(&[1]);
    }
}

/// A socket for clients: one of TCP, or else one with a path.
fn public(sockets: &mut ListenFd, index: usize) -> io::Result<Option<Listener>> {
    match sockets.take_tcp_listener(index) {
        Ok(listener) => listener.map(|listener| tcp(listener).map(Listener::Tcp)).transpose(),
        Err(_) => sockets.take_unix_listener(index)?.map(unix).transpose(),
    }
}

fn tcp(listener: StdTcpListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

fn unix(listener: StdUnixListener) -> io::Result<Listener> {
    listener.set_nonblocking(true)?;
    let path = listener.local_addr()?.as_pathname().map(Path::to_owned).unwrap_or_default();
    // systemd removes its sockets itself; after a take-over it is the first process of all that leaves the file.
    Ok(Listener::Unix(UnixListener::from_std(listener)?, SocketFile { path, ours: false }))
}

/// The environment that tells a process which sockets it is given, from descriptor 3 on.
pub(super) fn told_of(public: usize) -> [(&'static str, String); 2] {
    let names = vec!["public"; public].into_iter().chain([ADMIN, READY]).collect::<Vec<_>>();
    [("LISTEN_FDS", names.len().to_string()), ("LISTEN_FDNAMES", names.join(":"))]
}
