//! What hyper itself needs: one current-thread runtime, moka with one answer in it, no rule and no metric. What passes goes
//! on by hyper's client, over a connection for each of a client's, which the same task drives; no field is changed. For
//! `make bench-peers` only.
//!
//!     bare h1|h2 BODY GZIPPED ETAG
//!     bare pass PORT
//!
//! BODY and GZIPPED are files, PORT is the origin's; the own port is printed.
#![expect(clippy::print_stdout, reason = "whoever starts it reads the port")]

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, AGE, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue,
    IF_NONE_MATCH, VARY,
};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Connection, SendRequest, handshake};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use moka::sync::Cache;
use tikv_jemallocator::Jemalloc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// The one answer, in its forms.
struct Stored {
    head: HeaderMap,
    plain: Bytes,
    gzipped: Bytes,
}

type Lists = Cache<String, Arc<Stored>>;

fn stored(plain: Bytes, gzipped: Bytes, etag: &str) -> Stored {
    let mut head = HeaderMap::new();
    head.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    head.insert(ETAG, HeaderValue::from_str(etag).expect("an etag"));
    head.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=0, private, must-revalidate"));
    head.insert(VARY, HeaderValue::from_static("Origin, Accept-Encoding"));
    head.insert(AGE, HeaderValue::from_static("7"));
    head.insert("cache-status", HeaderValue::from_static("bare; hit; ttl=3600"));
    head.insert("x-request-id", HeaderValue::from_static("f47ac10b-58cc-4372-a567-0e02b2c3d479"));
    for (name, value) in [
        ("x-frame-options", "SAMEORIGIN"),
        ("x-content-type-options", "nosniff"),
        ("x-xss-protection", "0"),
        ("x-download-options", "noopen"),
        ("x-permitted-cross-domain-policies", "none"),
        ("referrer-policy", "strict-origin-when-cross-origin"),
    ] {
        head.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    Stored { head, plain, gzipped }
}

/// The same answer to whatever is asked, as a 200 or a 304.
fn answer(lists: &Lists, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let stored = lists.get(path).unwrap_or_else(|| {
        let first = lists.get("").expect("the one answer");
        lists.insert(path.to_owned(), first.clone());
        first
    });
    let mut response = Response::new(Full::default());
    *response.headers_mut() = stored.head.clone();
    if request.headers().get(IF_NONE_MATCH).is_some_and(|tag| tag == stored.head[ETAG]) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    let gzip = request.headers().get(ACCEPT_ENCODING).is_some_and(|codings| codings.as_bytes() == b"gzip");
    if gzip {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    *response.body_mut() = Full::new(if gzip { stored.gzipped.clone() } else { stored.plain.clone() });
    response
}

async fn serve(stream: TcpStream, lists: Lists, two: bool) {
    let service = service_fn(move |request| {
        let response = answer(&lists, &request);
        async { Ok::<_, Infallible>(response) }
    });
    let io = TokioIo::new(stream);
    // A client that leaves is no matter here.
    let _ = if two {
        http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await
    } else {
        http1::Builder::new().serve_connection(io, service).await
    };
}

/// A connection to the origin: who sends, and what drives it.
type Origin = (SendRequest<Incoming>, Connection<TokioIo<TcpStream>, Incoming>);

async fn pass(origin: &mut Origin, request: Request<Incoming>) -> hyper::Result<Response<Full<Bytes>>> {
    let (sender, connection) = origin;
    let exchange = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        Ok(Response::from_parts(head, Full::new(body.collect().await?.to_bytes())))
    };
    tokio::select! {
        answer = exchange => answer,
        end = connection => Err(end.expect_err("an answer is due")),
    }
}

async fn serve_passing(stream: TcpStream, port: u16) -> hyper::Result<()> {
    let to = TcpStream::connect(("127.0.0.1", port)).await.expect("the origin");
    to.set_nodelay(true).expect("a socket option");
    let origin = Arc::new(Mutex::new(handshake(TokioIo::new(to)).await?));
    let service = service_fn(move |request| {
        let origin = origin.clone();
        async move { pass(&mut *origin.lock().await, request).await }
    });
    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
}

/// Prints the port, and serves each connection in a task of its own.
fn listen<S: Future<Output: Send> + Send + 'static>(serve: impl Fn(TcpStream) -> S) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        println!("{}", listener.local_addr().expect("an address").port());
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).expect("a socket option");
            tokio::spawn(serve(stream));
        }
    });
}

fn main() {
    // `cargo bench` passes words of its own.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    if let [mode, port] = words.as_slice()
        && mode == "pass"
    {
        let port = port.parse().expect("a port");
        return listen(|stream| serve_passing(stream, port));
    }
    let [protocol, plain, gzipped, etag] = words.as_slice() else {
        println!("this is run by make bench-peers");
        return;
    };
    let read = |path: &String| Bytes::from(std::fs::read(path).expect("a file"));
    let lists = Lists::new(1_000);
    lists.insert(String::new(), Arc::new(stored(read(plain), read(gzipped), etag)));
    let two = protocol == "h2";
    listen(|stream| serve(stream, lists.clone(), two));
}
