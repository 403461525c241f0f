//! Both ends of a connection in one thread, so that what happens on it happens in the same order each time: a proxy on a
//! Unix socket, a client that sends bytes it had before, and an upstream that does the same.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anteroom::server::listeners::Server;
use anteroom::state::State;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};

/// More than any head and body here.
const WHOLE: usize = 64 * 1024;

/// Serves from a Unix socket, which is there when this returns.
pub(super) async fn serve(state: Arc<State>, socket: &Path) {
    let settings = state.active().config.server.clone();
    let server = Server::bind(state, settings).await.expect("a socket");
    assert!(socket.exists(), "it listens elsewhere");
    tokio::spawn(server.run(std::future::pending()));
}

/// Asks so many times over one connection, one after another. The answer's body is this, and `Cache-Status` begins so; all
/// of it is looked at the first time only, since that is counted, too.
pub(super) async fn ask(socket: &Path, path: &str, body: &[u8], status: &str, times: u32) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: bench.test\r\n\r\n");
    let status = format!("\r\ncache-status: {status}");
    let mut stream = UnixStream::connect(socket).await.expect("a connection");
    let mut buffer = vec![0; WHOLE];
    for time in 0..times {
        stream.write_all(request.as_bytes()).await.expect("an open connection");
        let mut read = 0;
        while !buffer[..read].ends_with(&body[body.len() - 64..]) {
            let more = stream.read(&mut buffer[read..]).await.expect("an answer");
            assert!(more > 0, "the connection ended");
            read += more;
        }
        if time > 0 {
            continue;
        }
        let (head, rest) = buffer[..read].split_at(read - body.len());
        assert!(rest == body, "another body");
        assert!(head.windows(status.len()).any(|part| part == status.as_bytes()), "{}", head.escape_ascii());
    }
}

/// An upstream that gives everybody the same body.
pub(super) async fn answering(body: &'static [u8]) -> SocketAddr {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json; charset=utf-8\r\ncontent-length: {}\r\n\
        etag: W/\"5c4f5a3b1f2e9d7c8b6a5f4e3d2c1b0a\"\r\ncache-control: max-age=0, private, must-revalidate\r\n\
        x-request-id: 5c4f5a3b1f2e9d7c8b6a5f4e3d2c1b0a\r\ndate: Thu, 26 Nov 2026 22:00:00 GMT\r\n\r\n",
        body.len()
    );
    let answer = [head.as_bytes(), body].concat();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            stream.set_nodelay(true).expect("a socket option");
            let answer = answer.clone();
            tokio::spawn(async move {
                let (mut buffer, mut read) = (vec![0; WHOLE], 0);
                while let Ok(more @ 1..) = stream.read(&mut buffer[read..]).await {
                    read += more;
                    if buffer[..read].ends_with(b"\r\n\r\n") {
                        read = 0;
                        stream.write_all(&answer).await.expect("a reader");
                    }
                }
            });
        }
    });
    address
}
