//! A running stand-in, as tests and the demonstration hold it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderName, HeaderValue};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::account::INBOX;
use super::data::World;
use super::faults::Fault;
use super::log::{Gate, Matcher, Point, Seen};
use super::options::Options;
use super::shared::Shared;
use super::{deliver, seed, serve};

/// A running stand-in. It ends, with all its connections, when this is dropped.
pub struct StandIn {
    pub(super) shared: Arc<Shared>,
    address: SocketAddr,
    /// Ends when the port is closed; `None` while it is.
    accepting: Mutex<Option<JoinHandle<()>>>,
}

impl StandIn {
    /// Binds and serves in the background of the current runtime.
    pub async fn start(options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind(options.address).await?;
        let address = listener.local_addr()?;
        let mut world = World::new(format!("http://{address}"));
        world.behind = options.behind;
        seed::open(&mut world);
        let shared = Arc::new(Shared::new(world, options));
        let accepting = shared.tasks.spawn(serve::accept(Arc::clone(&shared), listener));
        shared.tasks.spawn(deliver::send(Arc::clone(&shared)));
        Ok(Self { shared, address, accepting: Mutex::new(Some(accepting)) })
    }

    /// Goes down like a process that was killed: every connection ends, and the port refuses new ones. What the account
    /// holds stays for [`come_back`](Self::come_back).
    pub async fn go_down(&self) {
        let accepting = self.accepting.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.shared.up().cancel();
        if let Some(accepting) = accepting {
            // The port is closed when the task has ended, however it did.
            let _ = accepting.await;
        }
    }

    /// Comes back after [`go_down`](Self::go_down), at the same address.
    pub async fn come_back(&self) -> io::Result<()> {
        let listener = TcpListener::bind(self.address).await?;
        self.shared.rise();
        let accepting = self.shared.tasks.spawn(serve::accept(Arc::clone(&self.shared), listener));
        *self.accepting.lock().unwrap_or_else(PoisonError::into_inner) = Some(accepting);
        Ok(())
    }

    /// Ends everything and waits until it has ended: the port refuses connections after that.
    pub async fn stop(self) {
        self.shared.stopping.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens, as a URL without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The path of a contact's conversation list in [`INBOX`].
    pub fn list_path(source_id: &str) -> String {
        format!("/public/api/v1/inboxes/{INBOX}/contacts/{source_id}/conversations")
    }

    /// Connections accepted so far.
    pub fn seen_connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Closes every connection on which no request is under way: the other side finds it dead.
    pub fn close_idle_connections(&self) {
        self.shared.close_idle.send_replace(());
    }

    /// Every request so far, in order of arrival.
    pub fn requests(&self) -> Vec<Seen> {
        self.shared.log.read(<[Seen]>::to_vec)
    }

    /// How often the list of a contact was asked for.
    pub fn list_requests(&self, source_id: &str) -> usize {
        let list = Matcher::list_of(source_id);
        self.shared.log.read(|all| all.iter().filter(|seen| list.matches(seen)).count())
    }

    /// Waits until a condition on the requests so far holds. Fails the test after 20 s, naming `what`.
    pub async fn wait_for(&self, what: &str, condition: impl Fn(&[Seen]) -> bool) {
        self.shared.log.wait_for(what, condition).await;
    }

    /// Sets up a gate for the requests that match. It holds what the application answers; files, sockets, and what
    /// the rate limiter or a fault answers instead, do not come to it.
    pub fn hold(&self, point: Point, matcher: Matcher) -> Gate {
        self.shared.gates.hold(format!("requests at {point:?}"), (point, matcher))
    }

    /// Switches a fault on: for the conversation list, or for writes if it is about what comes after one.
    pub fn fault(&self, fault: Fault) {
        self.fault_on(fault, fault.usual());
    }

    /// Switches a fault on for the requests that match.
    pub fn fault_on(&self, fault: Fault, matcher: Matcher) {
        self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner).add(fault, matcher, None);
    }

    /// Lets the next `times` requests that match suffer a fault; after that all is well again.
    pub fn fault_times(&self, fault: Fault, matcher: Matcher, times: usize) {
        self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner).add(fault, matcher, Some(times));
    }

    /// Switches all faults off. Requests that hang already go on hanging.
    pub fn clear_faults(&self) {
        self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Puts one more header on every answer from now on. Panics if it is not a valid header.
    pub fn set_response_header(&self, name: &str, value: &str) {
        let name = HeaderName::try_from(name).expect("a header name");
        let value = HeaderValue::try_from(value).expect("a header value");
        self.shared.extra_headers.lock().unwrap_or_else(PoisonError::into_inner).append(name, value);
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.shared.stopping.cancel();
    }
}

impl fmt::Debug for StandIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StandIn").field("address", &self.address).finish_non_exhaustive()
    }
}
