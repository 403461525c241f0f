//! Where clients connect: ports and Unix sockets.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// One address of the public listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// A port of an address of this machine.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl ListenAddress {
    /// The address, if it is one of TCP.
    pub fn port(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Whether both cannot be listened on.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(one), Self::Tcp(other)) => overlap(*one, *other),
            (one, other) => one == other,
        }
    }

    pub(super) fn read(text: &str) -> Option<Self> {
        match text.strip_prefix(UNIX) {
            Some(path) => path.starts_with('/').then(|| Self::Unix(path.into())),
            None => text.parse().ok().map(Self::Tcp),
        }
    }
}

const UNIX: &str = "unix:";

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

/// Whether two listeners would want the same port of the same address. `[::]` takes the port for IPv4 as well.
pub(super) fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let takes_all =
        |all: SocketAddr, other: SocketAddr| all.ip().is_unspecified() && (all.is_ipv6() || other.is_ipv4());
    a.port() != 0 && a.port() == b.port() && (a.ip() == b.ip() || takes_all(a, b) || takes_all(b, a))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_that_want_the_same_overlap() {
        for (one, other, expected) in [
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("[::]:80", "0.0.0.0:80", true),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("unix:/a", "unix:/a", true),
            ("unix:/a", "unix:/b", false),
            ("unix:/a", "127.0.0.1:80", false),
        ] {
            let read = |text| ListenAddress::read(text).unwrap();
            assert_eq!(read(one).overlaps(&read(other)), expected, "{one} {other}");
        }
    }
}
