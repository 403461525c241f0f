//! Bytes on a socket: requests that hyper's client would not send, and upstreams that a test scripts byte for byte.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// How long a test waits for bytes before it fails; longer than any jump of the clock.
const PATIENCE: Duration = Duration::from_secs(240);

/// One end of a connection.
pub struct Talk {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

/// A request or an answer as it came.
#[derive(Debug, Clone)]
pub struct Message {
    /// Start line and fields, without the empty line.
    pub head: String,
    /// Without its chunks' framing.
    pub body: Vec<u8>,
    /// What came after the last chunk.
    pub trailers: String,
    /// Whether the body came to its end as the head said.
    pub whole: bool,
}

impl Message {
    pub fn start_line(&self) -> &str {
        self.head.lines().next().expect("a start line")
    }

    pub fn status(&self) -> u16 {
        self.start_line().split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status")
    }

    /// All values of a field.
    pub fn fields(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }

    /// The only value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        let fields = self.fields(name);
        assert!(fields.len() < 2, "{name} came {} times", fields.len());
        fields.first().copied()
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }
}

impl Talk {
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// To the listener at a URL.
    pub async fn to(url: &str) -> Self {
        let address = url.strip_prefix("http://").expect("a plain URL");
        Self::new(TcpStream::connect(address).await.expect("a connection"))
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("the other side takes it");
    }

    /// Reads more; false is the end, in order or not.
    async fn more(&mut self) -> bool {
        let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.buffer));
        matches!(read.await.expect("bytes, or the end"), Ok(read) if read > 0)
    }

    /// Reads up to and without a mark.
    async fn until(&mut self, mark: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.buffer.windows(mark.len()).position(|found| found == mark) {
                let read = self.buffer.drain(..at).collect();
                self.buffer.drain(..mark.len());
                return Some(read);
            }
            if !self.more().await {
                return None;
            }
        }
    }

    pub async fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < length {
            if !self.more().await {
                return None;
            }
        }
        Some(self.buffer.drain(..length).collect())
    }

    /// Everything up to the end of the connection.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.buffer)
    }

    /// A head, without the empty line; `None` if the connection ends first.
    pub async fn head(&mut self) -> Option<String> {
        let head = self.until(b"\r\n\r\n").await?;
        Some(String::from_utf8_lossy(&head).into_owned())
    }

    /// A request or an answer, whole or as far as it came.
    pub async fn message(&mut self) -> Option<Message> {
        self.message_to("GET").await
    }

    /// The answer to a request with this method.
    pub async fn message_to(&mut self, method: &str) -> Option<Message> {
        let head = self.head().await?;
        Some(self.rest_of(head, method).await)
    }

    /// What belongs to a head that was read.
    pub async fn rest_of(&mut self, head: String, method: &str) -> Message {
        let mut message = Message { head, body: Vec::new(), trailers: String::new(), whole: true };
        let is_answer = message.head.starts_with("HTTP/");
        let bodiless = is_answer && (method == "HEAD" || matches!(message.status(), 100..200 | 204 | 304));
        if bodiless {
            return message;
        }
        if message.field("transfer-encoding").is_some() {
            self.chunks(&mut message).await;
        } else if let Some(length) = message.field("content-length") {
            let length = length.parse().expect("a length");
            while self.buffer.len() < length && self.more().await {}
            message.whole = self.buffer.len() >= length;
            message.body = self.buffer.drain(..length.min(self.buffer.len())).collect();
        } else if is_answer {
            message.body = self.rest().await;
        }
        message
    }

    /// Reads an answer with a length or in chunks, and keeps nothing of its body; it must be a whole 200.
    pub async fn skip_message(&mut self) {
        let head = self.head().await.expect("an answer");
        let mut message = Message { head, body: Vec::new(), trailers: String::new(), whole: true };
        assert_eq!(message.status(), 200, "{}", message.head);
        if message.field("transfer-encoding").is_some() {
            self.chunks(&mut message).await;
            assert!(message.whole, "an answer that broke off");
            return;
        }
        let mut left: usize = message.field("content-length").expect("a length").parse().expect("a number");
        while left > 0 {
            let here = left.min(self.buffer.len());
            self.buffer.drain(..here);
            left -= here;
            assert!(left == 0 || self.more().await, "{left} bytes are missing");
        }
    }

    async fn chunks(&mut self, message: &mut Message) {
        message.whole = false;
        while let Some(size) = self.until(b"\r\n").await {
            let size = std::str::from_utf8(&size).expect("hex").split(';').next().expect("a size").trim();
            let size = usize::from_str_radix(size, 16).expect("hex");
            if size == 0 {
                while let Some(line) = self.until(b"\r\n").await {
                    if line.is_empty() {
                        message.whole = true;
                        return;
                    }
                    message.trailers.push_str(std::str::from_utf8(&line).expect("text"));
                    message.trailers.push('\n');
                }
                return;
            }
            let Some(mut chunk) = self.exactly(size + 2).await else {
                message.body.append(&mut self.buffer);
                return;
            };
            chunk.truncate(size);
            message.body.append(&mut chunk);
        }
    }
}

/// Sends bytes to a URL's listener on a connection of their own and reads one answer.
pub async fn exchange(url: &str, request: impl AsRef<[u8]>) -> Message {
    let mut talk = Talk::to(url).await;
    talk.send(&request).await;
    let method = String::from_utf8_lossy(request.as_ref()).split(' ').next().unwrap_or_default().to_owned();
    talk.message_to(&method).await.expect("an answer")
}

/// An upstream whose connections a test scripts. It ends when it is dropped.
pub struct Scripted {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<Message>>>,
    accepting: JoinHandle<()>,
}

impl Scripted {
    /// Each connection is handed to `script`, with its number.
    pub async fn start<F>(script: impl Fn(usize, Talk) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::start_at("127.0.0.1:0", script).await
    }

    /// The same at an address of one's choice.
    pub async fn start_at<F>(address: &str, script: impl Fn(usize, Talk) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.expect("loopback can be bound");
        let address = listener.local_addr().expect("an address");
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let number = counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(script(number, Talk::new(stream)));
            }
        });
        Self { address, connections, requests: Arc::default(), accepting }
    }

    /// Every request gets the same answer; [`Self::requests`] has them.
    pub async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = Arc::new(answer.into());
        let requests: Arc<Mutex<Vec<Message>>> = Arc::default();
        let seen = requests.clone();
        let mut this = Self::start(move |_, mut talk| {
            let (answer, seen) = (answer.clone(), seen.clone());
            async move {
                while let Some(request) = talk.message().await {
                    seen.lock().expect("no panic").push(request);
                    talk.send(&*answer).await;
                }
            }
        })
        .await;
        this.requests = requests;
        this
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Requests of an upstream that is [`Self::answering`].
    pub fn requests(&self) -> Vec<Message> {
        self.requests.lock().expect("no panic").clone()
    }

    pub fn last_request(&self) -> Message {
        self.requests().pop().expect("a request came")
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
