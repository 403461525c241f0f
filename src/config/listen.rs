//! Where clients connect: ports and Unix sockets.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use toml::Value;

use super::shown::shown;
use super::values::Form;

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

    fn read(text: &str) -> Option<Self> {
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

/// One address, or a list of them.
pub(super) const ADDRESSES: Form<Vec<ListenAddress>> = Form::open(read, |addresses| match &addresses[..] {
    [one] => Value::from(one.to_string()).to_string(),
    all => Value::from(all.iter().map(ToString::to_string).collect::<Vec<_>>()).to_string(),
});

fn read(value: &Value) -> Result<Vec<ListenAddress>, String> {
    const WRITE: &str = "write \"127.0.0.1:8080\", \"unix:/run/anteroom.sock\", or a list of such";
    let one = |value: &Value| {
        let read = value.as_str().and_then(ListenAddress::read);
        read.ok_or_else(|| format!("{} is no address to listen on; {WRITE}", shown(value)))
    };
    match value {
        Value::Array(list) if list.is_empty() => Err(format!("the list is empty; {WRITE}")),
        Value::Array(list) => list.iter().map(one).collect(),
        value => Ok(vec![one(value)?]),
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
    fn addresses_are_ports_sockets_or_lists_of_them() {
        let tcp = |text: &str| ListenAddress::Tcp(text.parse().unwrap());
        let unix = |text: &str| ListenAddress::Unix(text.into());
        for (text, expected) in [
            ("'127.0.0.1:80'", vec![tcp("127.0.0.1:80")]),
            ("['127.0.0.1:80', '[::1]:0']", vec![tcp("127.0.0.1:80"), tcp("[::1]:0")]),
            ("['unix:/run/a.sock']", vec![unix("/run/a.sock")]),
        ] {
            let value: toml::Table = format!("v = {text}").parse().unwrap();
            let addresses = read(&value["v"]).unwrap();
            assert_eq!(addresses, expected);
            let shown: toml::Table = format!("v = {}", (ADDRESSES.show)(&addresses)).parse().unwrap();
            assert_eq!(read(&shown["v"]).unwrap(), expected, "what is shown can be read");
        }
        for wrong in ["'localhost:80'", "'unix:a.sock'", "[]", "7", "['127.0.0.1:80', 7]"] {
            let value: toml::Table = format!("v = {wrong}").parse().unwrap();
            assert!(read(&value["v"]).is_err(), "{wrong}");
        }
    }

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
