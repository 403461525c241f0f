//! Log lines on their way out: put down by whoever logs, written by a thread of its own.
//!
//! Nothing about serving depends on where they go. A line never waits and never fails: if the buffer is full, or a
//! write fails, lines are lost and counted, and the next one that can be written says so.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::IntCounter;
use tracing_subscriber::fmt::MakeWriter;

/// The most that waits to be written, in bytes.
const ROOM: usize = 4 * 1024 * 1024;
/// The most that is written at once, unless one line is longer.
const BATCH: usize = 64 * 1024;
/// How long a reader that takes nothing just now is left alone.
const PAUSE: Duration = Duration::from_millis(10);

/// Where log lines are put down.
#[derive(Clone)]
pub struct LogLines(Arc<Shared>);

struct Shared {
    waiting: Mutex<Waiting>,
    /// There is something to write.
    more: Condvar,
    /// All is written, or lost.
    all: Condvar,
    lost: IntCounter,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<Box<[u8]>>,
    bytes: usize,
    /// The thread has lines in its hands.
    writing: bool,
    /// Lost since it was last told.
    untold: u64,
}

impl LogLines {
    /// Begins the thread that writes to `out`; `lost` counts the lines that never came out.
    ///
    /// # Errors
    /// If the system has no thread left.
    pub fn to(mut out: impl Write + Send + 'static, lost: IntCounter) -> io::Result<Self> {
        let (waiting, more, all) = (Mutex::default(), Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { waiting, more, all, lost });
        let lines = Self(shared.clone());
        std::thread::Builder::new().name("log".into()).spawn(move || {
            loop {
                let batch = shared.next_batch();
                let lost = write_batch(&mut out, &batch);
                if let Some(told) = shared.written(lost) {
                    // This line goes the way of all others.
                    tracing::warn!(count = told, "log lines were lost: they could not be written, or not fast enough");
                }
            }
        })?;
        Ok(lines)
    }

    /// Waits until every line is written or lost, but no longer than `limit`; says whether none is left.
    pub fn flush(&self, limit: Duration) -> bool {
        let waiting = self.0.lock();
        let is_left = |waiting: &mut Waiting| waiting.writing || !waiting.lines.is_empty();
        let (_waiting, waited) =
            self.0.all.wait_timeout_while(waiting, limit, is_left).unwrap_or_else(PoisonError::into_inner);
        !waited.timed_out()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, line: &[u8]) {
        let mut waiting = self.lock();
        if waiting.bytes + line.len() > ROOM {
            waiting.untold += 1;
            drop(waiting);
            self.lost.inc();
            return;
        }
        waiting.bytes += line.len();
        waiting.lines.push_back(line.into());
        drop(waiting);
        self.more.notify_one();
    }

    /// Waits for lines; takes some.
    fn next_batch(&self) -> Vec<Box<[u8]>> {
        let waiting = self.lock();
        let mut waiting =
            self.more.wait_while(waiting, |waiting| waiting.lines.is_empty()).unwrap_or_else(PoisonError::into_inner);
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(line) = waiting.lines.front()
            && (batch.is_empty() || bytes + line.len() <= BATCH)
        {
            bytes += line.len();
            batch.extend(waiting.lines.pop_front());
        }
        waiting.bytes -= bytes;
        waiting.writing = true;
        batch
    }

    /// A batch has been written, but for those that were lost. Says how many are to be told of.
    fn written(&self, lost: u64) -> Option<u64> {
        self.lost.inc_by(lost);
        let mut waiting = self.lock();
        waiting.untold += lost;
        waiting.writing = false;
        let told = if lost == 0 { std::mem::take(&mut waiting.untold) } else { 0 };
        if waiting.lines.is_empty() {
            self.all.notify_all();
        }
        (told > 0).then_some(told)
    }
}

/// Writes lines together; gives how many did not come out whole.
fn write_batch(out: &mut impl Write, batch: &[Box<[u8]>]) -> u64 {
    let bytes = batch.concat();
    let mut written = 0;
    while written < bytes.len() {
        match out.write(&bytes[written..]) {
            Ok(0) => break,
            Ok(more) => written += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(PAUSE),
            Err(_) => break,
        }
    }
    let ends = batch.iter().scan(0, |end, line| {
        *end += line.len();
        Some(*end)
    });
    ends.filter(|end| *end > written).count() as u64
}

/// One line of one event.
pub struct Line<'a>(&'a Shared);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogLines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const LONG_ENOUGH: Duration = Duration::from_secs(60);

    fn counter() -> IntCounter {
        IntCounter::new("lost", "lost").unwrap()
    }

    /// Each write waits for what becomes of it.
    struct Scripted {
        script: Receiver<Result<(), ErrorKind>>,
        came: Sender<Vec<u8>>,
    }

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.script.recv().unwrap_or(Ok(()))?;
            let _ = self.came.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    type Script = Sender<Result<(), ErrorKind>>;

    fn scripted() -> (LogLines, IntCounter, Script, Receiver<Vec<u8>>) {
        let ((say, script), (came, comes)) = (channel(), channel());
        let lost = counter();
        (LogLines::to(Scripted { script, came }, lost.clone()).unwrap(), lost, say, comes)
    }

    fn put(lines: &LogLines, text: &str) {
        lines.make_writer().write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn lines_come_out_whole_and_in_order() {
        let (lines, lost, say, comes) = scripted();
        drop(say);
        let expected: String = (0..10_000).map(|number| format!("line {number}\n")).collect();
        for line in expected.split_inclusive('\n') {
            put(&lines, line);
        }
        assert!(lines.flush(LONG_ENOUGH));
        let came: Vec<u8> = comes.try_iter().flatten().collect();
        assert!(came == expected.as_bytes());
        assert_eq!(lost.get(), 0);
    }

    #[test]
    fn where_nothing_is_read_lines_are_lost_and_nobody_waits() {
        let (lines, lost, say, comes) = scripted();
        // The thread has the first in its hands, and is not let go on.
        for _ in 0..ROOM / 1024 + 100 {
            put(&lines, &"x".repeat(1024));
        }
        assert!((36..=100).contains(&lost.get()), "{}", lost.get());
        assert!(!lines.flush(Duration::from_millis(1)), "a flush has an end");
        drop(say);
        assert!(lines.flush(LONG_ENOUGH));
        assert!(comes.try_iter().map(|piece| piece.len()).sum::<usize>() >= ROOM);
    }

    #[test]
    fn a_write_that_fails_loses_its_lines_and_the_next_one_is_tried() {
        let (lines, lost, say, comes) = scripted();
        say.send(Err(ErrorKind::StorageFull)).unwrap();
        put(&lines, "first\n");
        assert!(lines.flush(LONG_ENOUGH));
        assert_eq!(lost.get(), 1);
        say.send(Err(ErrorKind::WouldBlock)).unwrap();
        say.send(Ok(())).unwrap();
        put(&lines, "second\n");
        assert!(lines.flush(LONG_ENOUGH));
        assert_eq!(comes.try_iter().flatten().collect::<Vec<u8>>(), b"second\n");
        assert_eq!(lost.get(), 1);
    }

    #[test]
    fn of_a_batch_that_broke_off_only_what_did_not_come_out_is_lost() {
        struct Three(usize);
        impl Write for Three {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let taken = bytes.len().min(self.0);
                self.0 -= taken;
                if taken == 0 { Err(ErrorKind::StorageFull.into()) } else { Ok(taken) }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let batch: Vec<Box<[u8]>> = ["ab\n", "cd\n", "ef\n"].map(|line| line.as_bytes().into()).into();
        for (room, lost) in [(0, 3), (2, 3), (3, 2), (7, 1), (9, 0)] {
            assert_eq!(write_batch(&mut Three(room), &batch), lost, "{room}");
        }
    }
}
