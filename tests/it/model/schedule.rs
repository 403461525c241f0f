//! One schedule: a proxy, two installations, clients, and the story of what they did.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anteroom::engine::body::Body;
use anteroom::proxy;
use anteroom::state::State;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::time::Instant;

use super::register::Register;
use super::wire::Wire;

/// How requests reach the proxy.
pub enum Way {
    /// Its request path is called.
    Called,
    /// Over sockets.
    Sockets(Box<Sockets>),
}

/// A client over sockets.
pub struct Sockets {
    pub client: HttpClient<HttpConnector, Body>,
    /// The URL of the proxy.
    pub proxy: String,
    /// How many requests were sent.
    pub sent: Arc<AtomicU64>,
}

/// One schedule.
pub struct Schedule {
    pub state: Arc<State>,
    pub register: Arc<Mutex<Register>>,
    /// The way to the installations, if settings may be loaded anew.
    pub wire: Option<Wire>,
    pub way: Way,
    pub seed: u64,
    /// More settings of its proxy.
    pub settings: String,
    /// What is out of date is served while the upstream fails.
    pub serves_outdated: bool,
    /// Time stands still unless everybody waits: ages are exact.
    pub is_timed: bool,
    world: AtomicUsize,
    moves: AtomicU64,
    began: Instant,
    story: Mutex<Vec<String>>,
    broken: Mutex<Option<String>>,
}

impl Schedule {
    pub fn new(state: Arc<State>, register: Arc<Mutex<Register>>, seed: u64, way: Way) -> Self {
        Self {
            state,
            register,
            wire: None,
            way,
            seed,
            settings: String::new(),
            serves_outdated: false,
            is_timed: true,
            world: AtomicUsize::new(0),
            moves: AtomicU64::new(0),
            began: Instant::now(),
            story: Mutex::default(),
            broken: Mutex::default(),
        }
    }

    /// Which installation is the upstream.
    pub fn world(&self) -> usize {
        self.world.load(Ordering::SeqCst)
    }

    pub fn set_world(&self, world: usize) {
        if self.world.swap(world, Ordering::SeqCst) != world {
            self.moves.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// How often the upstream has become another one.
    pub fn moves(&self) -> u64 {
        self.moves.load(Ordering::SeqCst)
    }

    pub fn register(&self) -> MutexGuard<'_, Register> {
        self.register.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn tell(&self, what: &str) {
        let at = self.began.elapsed().as_millis();
        self.story.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{at:>6} ms  {what}"));
    }

    pub fn broke(&self, how: String) {
        self.tell(&how);
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(how);
    }

    /// What went wrong, with the story until then.
    pub fn broken(&self) -> Option<String> {
        let how = self.broken.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let mut told = format!("seed {}: {how}\n", self.seed);
        for line in &*self.story.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = writeln!(told, "{line}");
        }
        Some(told)
    }

    /// Sends a request; gives status, `Cache-Status` and body, or nothing if that broke off.
    pub async fn send(&self, request: Request<Body>) -> Option<(u16, String, Bytes)> {
        match &self.way {
            Way::Called => {
                let peer = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
                read(proxy::handle::handle(self.state.clone(), peer, request).await).await
            }
            Way::Sockets(sockets) => {
                let Sockets { client, proxy, sent } = &**sockets;
                sent.fetch_add(1, Ordering::Relaxed);
                let mut request = request;
                *request.uri_mut() = format!("{proxy}{}", request.uri()).parse().ok()?;
                read(client.request(request).await.ok()?).await
            }
        }
    }
}

async fn read<B: http_body::Body<Data = Bytes>>(response: Response<B>) -> Option<(u16, String, Bytes)> {
    let (head, body) = response.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    let how = head.headers.get("cache-status").and_then(|how| how.to_str().ok()).unwrap_or_default().to_owned();
    Some((head.status.as_u16(), how, body))
}
