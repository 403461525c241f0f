//! Upgraded connections (WebSocket), copied both ways until one side ends, both are silent, or the drain comes.

use std::future::{pending, ready};
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant as TokioInstant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::clock;

/// One direction's buffer, in bytes.
const BUFFER: usize = 16 * 1024;
/// How long a side may take the last bytes when a tunnel ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// Copies both ways; a side that ends its sending is passed on as an end of sending. Returns when both have ended,
/// nothing has passed either way for `silence`, `drained` is cancelled, or a connection breaks.
///
/// `hear` is given every piece of what the upstream sends before a byte of it goes to the client; if it says so, the piece
/// is `held` first.
pub async fn copy<H: Future<Output = ()>>(
    client: impl AsyncRead + AsyncWrite,
    upstream: impl AsyncRead + AsyncWrite,
    silence: Duration,
    drained: CancellationToken,
    hear: impl FnMut(&[u8]) -> bool,
    held: impl Fn() -> H,
) -> io::Result<()> {
    let last = Last(Mutex::new(clock::now()));
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_upstream, mut to_upstream) = tokio::io::split(upstream);
    let both = async {
        tokio::try_join!(
            one_way(&mut from_client, &mut to_upstream, &last, |_| false, ready::<()>),
            one_way(&mut from_upstream, &mut to_client, &last, hear, |()| held()),
        )
        .map(drop)
    };
    let result = tokio::select! {
        result = both => result,
        () = silent_for(silence, &last) => Ok(()),
        () = drained.cancelled() => Ok(()),
    };
    // Both sides learn of the end in order, not by a broken connection.
    let farewell = async { tokio::join!(to_client.shutdown(), to_upstream.shutdown()) };
    let _ = tokio::time::timeout(FAREWELL, farewell).await;
    result
}

/// When something last passed. Locked for a copy of an instant, by one task.
struct Last(Mutex<Instant>);

impl Last {
    fn is_now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = clock::now();
    }

    fn get(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn one_way<H: Future<Output = ()>>(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    last: &Last,
    mut hear: impl FnMut(&[u8]) -> bool,
    held: impl Fn(()) -> H,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await?;
        last.is_now();
        if read == 0 {
            return to.shutdown().await;
        }
        if hear(&buffer[..read]) {
            held(()).await;
        }
        to.write_all(&buffer[..read]).await?;
        to.flush().await?;
        last.is_now();
    }
}

async fn silent_for(limit: Duration, last: &Last) {
    loop {
        let Some(until) = last.get().checked_add(limit) else { return pending().await };
        if clock::now() >= until {
            return;
        }
        sleep_until(TokioInstant::from_std(until)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;

    #[tokio::test]
    async fn bytes_pass_both_ways_until_both_sides_have_ended() {
        let (mut client, near) = duplex(64);
        let (far, mut upstream) = duplex(64);
        let tunnel = tokio::spawn(async move {
            copy(near, far, Duration::from_secs(60), CancellationToken::new(), |_| false, || ready(())).await
        });
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut asked = String::new();
        upstream.read_to_string(&mut asked).await.unwrap();
        upstream.write_all(b"answer").await.unwrap();
        drop(upstream);
        let mut answered = String::new();
        client.read_to_string(&mut answered).await.unwrap();
        assert_eq!((asked.as_str(), answered.as_str()), ("question", "answer"));
        tunnel.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn who_does_not_read_makes_the_other_side_wait() {
        let ((mut client, near), (far, mut upstream)) = (duplex(64), duplex(64));
        let tunnel = tokio::spawn(async move {
            copy(near, far, Duration::from_secs(60), CancellationToken::new(), |_| false, || ready(())).await
        });
        for way in [&mut client, &mut upstream] {
            let mut taken = 0;
            let pouring = async {
                loop {
                    taken += way.write(&[0; 64]).await.unwrap();
                }
            };
            // Whatever can be taken is, long before a timer of a minute fires.
            tokio::select! {
                biased;
                () = pouring => {}
                () = async { for _ in 0..10_000 { tokio::task::yield_now().await } } => {}
            }
            // Two pipes, and what is in the hand between them.
            assert!((64..=3 * 64).contains(&taken), "{taken} bytes were taken");
        }
        tunnel.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_the_drain_end_a_tunnel() {
        let began = clock::now();
        let ((_client, near), (far, _upstream)) = (duplex(64), duplex(64));
        copy(near, far, Duration::from_secs(60), CancellationToken::new(), |_| false, || ready(())).await.unwrap();
        assert_eq!(clock::now() - began, Duration::from_secs(60));
        let ((_client, near), (far, _upstream)) = (duplex(64), duplex(64));
        let drained = CancellationToken::new();
        drained.cancel();
        copy(near, far, Duration::from_secs(60), drained, |_| false, || ready(())).await.unwrap();
    }
}
