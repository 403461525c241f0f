//! A stream of bytes as HTTP/2 sees it: what passes is counted, and what belongs to heads that have not ended is known.
//! The h2 crate bounds each head, and knows nothing of those of other connections, nor of time.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::progress::Progress;

/// What a client says first (RFC 9113 section 3.4).
const PREFACE: usize = 24;
/// What every frame begins with (section 4.1).
const FRAME_HEAD: usize = 9;
/// Kinds of frames that heads are made of, and the flag of the last one (sections 6.2 and 6.10).
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// Where in the frames the reading is.
struct Frames {
    /// Bytes of the preface or of a frame that are still to come.
    left: usize,
    /// They belong to a head, and whether it ends with them.
    of_head: Option<bool>,
    head: [u8; FRAME_HEAD],
    read: usize,
}

/// What of a head has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Part(usize),
    End,
}

impl Frames {
    fn new() -> Self {
        Self { left: PREFACE, of_head: None, head: [0; FRAME_HEAD], read: 0 }
    }

    fn came(&mut self, mut bytes: &[u8], mut seen: impl FnMut(Seen)) {
        while !bytes.is_empty() {
            let taken = if self.left > 0 {
                let taken = self.left.min(bytes.len());
                self.left -= taken;
                self.of_head.inspect(|_| seen(Seen::Part(taken)));
                taken
            } else {
                let taken = (FRAME_HEAD - self.read).min(bytes.len());
                self.head[self.read..self.read + taken].copy_from_slice(&bytes[..taken]);
                self.read += taken;
                if self.read < FRAME_HEAD {
                    return;
                }
                self.read = 0;
                let [high, middle, low, kind, flags, ..] = self.head;
                self.left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                self.of_head = matches!(kind, HEADERS | CONTINUATION).then_some(flags & END_HEADERS != 0);
                self.of_head.inspect(|_| seen(Seen::Part(FRAME_HEAD)));
                taken
            };
            bytes = &bytes[taken..];
            if self.left == 0 && self.of_head == Some(true) {
                self.of_head = None;
                seen(Seen::End);
            }
        }
    }
}

/// A client's stream of bytes.
pub(super) struct Counted<S> {
    io: S,
    moved: Arc<AtomicU64>,
    progress: Arc<Progress>,
    frames: Frames,
    head_timeout: Duration,
    /// Until when the head that has begun must end.
    slow: Option<Pin<Box<Sleep>>>,
}

impl<S> Counted<S> {
    /// `moved` counts what passes; `head_timeout` is for each head.
    pub(super) fn new(io: S, moved: Arc<AtomicU64>, progress: Arc<Progress>, head_timeout: Duration) -> Self {
        Self { io, moved, progress, frames: Frames::new(), head_timeout, slow: None }
    }

    fn count(&self, bytes: usize) {
        self.moved.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts what belongs to a head. False if there is no room for it.
    fn heads_have_room(&mut self, bytes: &[u8]) -> bool {
        let (progress, slow, mut has_room) = (&self.progress, &mut self.slow, true);
        self.frames.came(bytes, |seen| match seen {
            Seen::Part(length) => has_room &= progress.head_came(length as u64),
            Seen::End => {
                progress.head_ended();
                // Each head has its own time.
                *slow = None;
            }
        });
        has_room
    }

    /// Nothing comes: that is the end if the head that has begun takes too long.
    fn poll_slow(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.progress.has_half_a_head() {
            return Poll::Pending;
        }
        let limit = self.head_timeout;
        let slow = self.slow.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(slow.as_mut().poll(context));
        self.progress.head_is_late();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let Poll::Ready(result) = Pin::new(&mut self.io).poll_read(context, buffer) else {
            return self.poll_slow(context);
        };
        let read = &buffer.filled()[before..];
        self.count(read.len());
        if !self.heads_have_room(read) {
            self.progress.head_is_refused();
            return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
        }
        Poll::Ready(result)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(context, data);
        if let Poll::Ready(Ok(written)) = result {
            self.count(written);
        }
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(context, data);
        if let Poll::Ready(Ok(written)) = result {
            self.count(written);
        }
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let [.., middle, low] = length.to_be_bytes();
        [vec![0, middle, low, kind, flags, 0, 0, 0, 1], vec![7; length]].concat()
    }

    #[test]
    fn heads_are_counted_from_their_first_byte_to_their_last_however_they_are_cut() {
        let whole = [
            vec![b'P'; PREFACE],
            frame(4, 0, 6),
            frame(HEADERS, 1, 100),
            frame(CONTINUATION, 0, 0),
            frame(CONTINUATION, END_HEADERS, 300),
            frame(0, END_HEADERS, 1000),
            frame(HEADERS, END_HEADERS | 1, 0),
            frame(HEADERS, 0, 5),
        ]
        .concat();
        for piece in [1, 2, 7, 64, 10_000] {
            let (mut frames, mut open, mut heads) = (Frames::new(), 0, Vec::new());
            for bytes in whole.chunks(piece) {
                frames.came(bytes, |seen| match seen {
                    Seen::Part(length) => open += length,
                    Seen::End => heads.push(std::mem::take(&mut open)),
                });
            }
            assert_eq!((heads, open), (vec![3 * FRAME_HEAD + 400, FRAME_HEAD], FRAME_HEAD + 5), "{piece}");
        }
    }
}
