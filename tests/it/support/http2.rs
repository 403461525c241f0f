//! HTTP/2 from a client's side: by the h2 crate where it allows what a test wants to send, else frame by frame.

use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use http::{HeaderMap, Method, Request, Response};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::Answer;

/// How long a test waits for a frame before it fails; longer than any jump of the clock.
const PATIENCE: Duration = Duration::from_secs(240);

/// A connection with prior knowledge, or out of TLS.
pub struct Http2 {
    pub requests: SendRequest<Bytes>,
    /// Ends with the connection.
    pub driving: JoinHandle<Result<(), h2::Error>>,
    authority: String,
}

impl Http2 {
    /// To the listener at a URL, plain.
    pub async fn to(url: &str) -> Self {
        Self::with(url, &h2::client::Builder::new()).await
    }

    /// The same, with settings of the client's own.
    pub async fn with(url: &str, builder: &h2::client::Builder) -> Self {
        let address = url.strip_prefix("http://").expect("a plain URL");
        let stream = TcpStream::connect(address).await.expect("a connection");
        Self::over(stream, address, builder).await
    }

    /// Over any stream of bytes.
    pub async fn over<S>(stream: S, authority: &str, builder: &h2::client::Builder) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (requests, connection) = builder.handshake(stream).await.expect("HTTP/2");
        Self { requests, driving: tokio::spawn(connection), authority: authority.to_owned() }
    }

    /// A request for a path.
    pub fn request(&self, method: &str, path: &str, fields: &[(&str, &str)]) -> Request<()> {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let request = Request::builder().method(method).uri(format!("http://{}{path}", self.authority));
        let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(()).expect("a request")
    }

    /// Sends a request and gives the head of the answer.
    pub async fn head(&self, request: Request<()>, body: Option<Bytes>) -> Result<Response<RecvStream>, h2::Error> {
        let mut requests = self.requests.clone().ready().await?;
        let (answer, mut sending) = requests.send_request(request, body.is_none())?;
        if let Some(body) = body {
            sending.send_data(body, true)?;
        }
        answer.await
    }

    /// Sends a request and reads the whole answer; its trailers are put behind its fields.
    pub async fn send(&self, request: Request<()>, body: Option<Bytes>) -> Result<Answer, h2::Error> {
        let (head, body) = self.head(request, body).await?.into_parts();
        let (body, trailers) = rest(body).await?;
        let mut headers = head.headers;
        headers.extend(trailers);
        Ok(Answer { status: head.status, headers, body })
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[]).await
    }

    pub async fn get_with(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.send(self.request("GET", path, fields), None).await.expect("an answer")
    }
}

/// The rest of a body, and its trailers.
pub async fn rest(mut body: RecvStream) -> Result<(Bytes, HeaderMap), h2::Error> {
    let mut read = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        read.extend_from_slice(&data);
    }
    let trailers = body.trailers().await?;
    Ok((read.into(), trailers.unwrap_or_default()))
}

/// Kinds of frames (RFC 9113 section 6).
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
/// Flags.
pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// A frame as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The code of `RST_STREAM` or `GOAWAY`.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }
}

/// A connection whose frames a test writes itself.
pub struct Frames<S = TcpStream> {
    pub stream: S,
}

impl Frames {
    /// With prior knowledge; the preface and empty settings are sent.
    pub async fn to(url: &str) -> Self {
        let address = url.strip_prefix("http://").expect("a plain URL");
        let stream = TcpStream::connect(address).await.expect("a connection");
        let mut this = Self { stream };
        this.stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("the other side takes it");
        this.write(SETTINGS, 0, 0, &[]).await;
        this
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Frames<S> {
    /// False if the other side takes nothing more.
    pub async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.stream.write_all(&frame(kind, flags, stream, payload)).await.is_ok()
    }

    /// The next frame; none at the end of the connection, in order or not.
    pub async fn read(&mut self) -> Option<Frame> {
        let reading = async {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).await.ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            self.stream.read_exact(&mut payload).await.ok()?;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
            Some(Frame { kind: head[3], flags: head[4], stream, payload })
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("a frame, or the end")
    }

    /// The next frame of one of these kinds; settings are acknowledged on the way.
    pub async fn next(&mut self, kinds: &[u8]) -> Option<Frame> {
        loop {
            let frame = self.read().await?;
            if frame.kind == SETTINGS && !frame.has(ACK) {
                self.write(SETTINGS, ACK, 0, &[]).await;
            }
            if kinds.contains(&frame.kind) {
                return Some(frame);
            }
        }
    }

    /// Reads to the end; gives the code of the last `GOAWAY`, if there was one.
    pub async fn goaway(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some(frame) = self.next(&[GOAWAY]).await {
            code = Some(frame.code());
        }
        code
    }

    /// What becomes of a request: its status, or the end of its stream or of the connection.
    pub async fn outcome(&mut self, stream: u32) -> Outcome {
        while let Some(frame) = self.next(&[HEADERS, RST_STREAM, GOAWAY]).await {
            match frame.kind {
                GOAWAY => return Outcome::Gone(frame.code()),
                _ if frame.stream != stream => {}
                RST_STREAM => return Outcome::Reset(frame.code()),
                _ => return Outcome::Answered(status(&frame.payload)),
            }
        }
        Outcome::Gone(u32::MAX)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Answered(u16),
    Reset(u32),
    Gone(u32),
}

/// The status at the beginning of the first block of fields of a connection, as the static table has it (RFC 7541
/// appendix A); zero if it is another.
fn status(block: &[u8]) -> u16 {
    // The size of the table may be said first.
    let block = block.iter().skip_while(|byte| **byte & 0xe0 == 0x20);
    match block.clone().next() {
        Some(0x88) => 200,
        Some(0x89) => 204,
        Some(0x8a) => 206,
        Some(0x8b) => 304,
        Some(0x8c) => 400,
        Some(0x8d) => 404,
        Some(0x8e) => 500,
        _ => 0,
    }
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A block of fields, each as a literal that is in no table and not coded (RFC 7541 section 6.2.2).
pub fn block<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        literal(&mut block, name.as_ref());
        literal(&mut block, value.as_ref());
    }
    block
}

fn literal(block: &mut Vec<u8>, text: &[u8]) {
    let mut left = text.len();
    if left < 0x7f {
        block.push(u8::try_from(left).expect("short"));
    } else {
        block.push(0x7f);
        left -= 0x7f;
        while left >= 0x80 {
            block.push(u8::try_from(left % 0x80).expect("short") | 0x80);
            left /= 0x80;
        }
        block.push(u8::try_from(left).expect("short"));
    }
    block.extend_from_slice(text);
}
