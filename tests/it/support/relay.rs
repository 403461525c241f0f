//! An address that is known before it is known where it leads.

use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream};

/// Hands every connection on to wherever it is told to by then.
pub struct Relay {
    pub url: String,
    to: Arc<Mutex<String>>,
}

impl Relay {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound");
        let url = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
        let to = Arc::new(Mutex::new(String::new()));
        let target = to.clone();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let address = target.lock().expect("no panic").trim_start_matches("http://").to_owned();
                tokio::spawn(async move {
                    // Before it is told, whoever comes is sent away.
                    if let Ok(mut there) = TcpStream::connect(address).await {
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut there).await;
                    }
                });
            }
        });
        Self { url, to }
    }

    pub fn leads_to(&self, url: &str) {
        url.clone_into(&mut self.to.lock().expect("no panic"));
    }
}
