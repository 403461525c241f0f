//! The PROXY protocol, versions 1 and 2: a proxy in front that does not speak HTTP says whose connection this is.

use std::io;
use std::net::{IpAddr, SocketAddr};

use ppp::{v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt};

/// What a header of version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version and command, family and protocol, length.
const V2_HEAD: usize = 16;
/// The longest that is read: addresses and a few notes beside them.
const V2_LONGEST: usize = 4096;
/// The longest line of version 1, with its end.
const V1_LONGEST: usize = 107;
/// A note of version 2 on the client's TLS, and the bit that says that there was some.
const TLS_NOTE: u8 = 0x20;
const OVER_TLS: u8 = 0x01;

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// The client; `None`: the proxy speaks for itself, or does not know.
    pub client: Option<SocketAddr>,
    /// Whether the client used TLS, as far as that is told.
    pub over_tls: bool,
}

/// Reads the header, and not a byte more.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] if it is none, and those of the stream.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Told> {
    let mut header = vec![0; SIGNATURE.len()];
    stream.read_exact(&mut header).await?;
    if header == SIGNATURE {
        header.resize(V2_HEAD, 0);
        stream.read_exact(&mut header[SIGNATURE.len()..]).await?;
        let length = V2_HEAD + usize::from(u16::from_be_bytes([header[14], header[15]]));
        if length > V2_LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        header.resize(length, 0);
        stream.read_exact(&mut header[V2_HEAD..]).await?;
        return told_by_v2(&header).ok_or_else(|| io::ErrorKind::InvalidData.into());
    }
    // The end of a line is not known before it comes; the shortest line is longer than what has been read.
    while !header.ends_with(b"\n") && header.starts_with(b"PROXY ") && header.len() < V1_LONGEST {
        header.push(stream.read_u8().await?);
    }
    told_by_v1(&header).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn told_by_v1(line: &[u8]) -> Option<Told> {
    let text = line.strip_suffix(b"\r\n").filter(|text| !text.contains(&b'\r'))?;
    // What comes after this word is to be ignored, whatever it is.
    if text.strip_prefix(b"PROXY UNKNOWN").is_some_and(|rest| rest.is_empty() || rest.starts_with(b" ")) {
        return Some(Told { client: None, over_tls: false });
    }
    let header = v1::Header::try_from(line).ok()?;
    let client = match header.addresses {
        v1::Addresses::Unknown => None,
        v1::Addresses::Tcp4(of) => Some((IpAddr::V4(of.source_address), of.source_port).into()),
        v1::Addresses::Tcp6(of) => Some((IpAddr::V6(of.source_address), of.source_port).into()),
    };
    Some(Told { client, over_tls: false })
}

fn told_by_v2(header: &[u8]) -> Option<Told> {
    let header = v2::Header::try_from(header).ok()?;
    let client = match (header.command, header.addresses) {
        (v2::Command::Proxy, v2::Addresses::IPv4(of)) => Some((IpAddr::V4(of.source_address), of.source_port).into()),
        (v2::Command::Proxy, v2::Addresses::IPv6(of)) => Some((IpAddr::V6(of.source_address), of.source_port).into()),
        _ => None,
    };
    let mut over_tls = false;
    for note in header.tlvs() {
        let note = note.ok()?;
        over_tls |= note.kind == TLS_NOTE && note.value.first().is_some_and(|bits| bits & OVER_TLS != 0);
    }
    Some(Told { client, over_tls })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn told(bytes: &[u8]) -> (Option<Told>, usize) {
        let mut rest = bytes;
        let told = read(&mut rest).await.ok();
        (told, rest.len())
    }

    /// A header of version 2, made by hand.
    fn v2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[0x20 | command, family], &length, payload].concat()
    }

    #[tokio::test]
    async fn the_client_is_told_and_what_follows_is_left() {
        let client = |text: &str, over_tls| Told { client: Some(text.parse().unwrap()), over_tls };
        let nobody = Told { client: None, over_tls: false };
        let v4 = [192, 0, 2, 1, 10, 0, 0, 1, 0x12, 0x34, 0, 80];
        let mut v6 = [0; 36];
        v6[15] = 1;
        v6[32..34].copy_from_slice(&[0, 7]);
        let tls = [&v4[..], &[0x20, 0, 5, 1, 0, 0, 0, 0]].concat();
        let plain = [&v4[..], &[0x20, 0, 5, 0, 0, 0, 0, 0]].concat();
        for (header, expected) in [
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 4660 80\r\n".to_vec(), client("192.0.2.1:4660", false)),
            (b"PROXY TCP6 ::1 ::2 7 80\r\n".to_vec(), client("[::1]:7", false)),
            (b"PROXY UNKNOWN\r\n".to_vec(), nobody),
            (b"PROXY UNKNOWN whatever 1 2 3\r\n".to_vec(), nobody),
            (b"PROXY UNKNOWN ffff::1  or whatever it likes \xff\r\n".to_vec(), nobody),
            (v2(1, 0x11, &v4), client("192.0.2.1:4660", false)),
            (v2(1, 0x21, &v6), client("[::1]:7", false)),
            (v2(1, 0x11, &tls), client("192.0.2.1:4660", true)),
            (v2(1, 0x11, &plain), client("192.0.2.1:4660", false)),
            (v2(0, 0x00, &[]), nobody),
            (v2(0, 0x11, &v4), nobody),
        ] {
            let rest = b"GET / HTTP/1.1\r\n";
            let bytes = [&header[..], rest].concat();
            assert_eq!(told(&bytes).await, (Some(expected), rest.len()), "{header:?}");
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused_soon() {
        let endless = [b"PROXY TCP4 ".as_slice(), &[b'1'; 5000]].concat();
        let huge = [&SIGNATURE[..], &[0x21, 0x11, 0xff, 0xff], &vec![0; 70_000]].concat();
        for bytes in [
            b"GET / HTTP/1.1\r\nhost: h\r\n\r\n".as_slice(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 99999 80\r\n",
            b"PROXY TCP4 ::1 ::1 1 80\r\n",
            b"PROXY UNKNOWN \n",
            b"PROXY UNKNOWN a\rb\r\n",
            b"PROXY UNKNOWNS\r\n",
            b"PROXY TCP4 192.0.2.1\r\n",
            b"proxy TCP4 192.0.2.1 10.0.0.1 4660 80\r\n",
            b"PROXY",
            b"",
            &endless,
            &huge,
            &v2(1, 0x11, &[1, 2, 3]),
            &v2(7, 0x11, &[0; 12]),
            &v2(1, 0x11, &[&[0; 12][..], &[0x20, 0xff, 0xff]].concat()),
        ] {
            let (told, left) = told(bytes).await;
            assert_eq!(told, None, "{bytes:?}");
            assert!(bytes.len() - left <= 4096);
        }
    }
}
