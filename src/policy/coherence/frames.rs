//! The text messages of a WebSocket, read from its bytes as they pass (RFC 6455 section 5).
//!
//! One direction, server to client, in pieces of any size. Nothing is held back and nothing is changed: whoever feeds
//! this reader forwards the same bytes. What it does not understand it lets be, and finds the next message again as
//! long as the lengths of frames can be told.

/// Text messages up to this many bytes are read; the memory of one reader is bounded by twice as much, and none is kept
/// between messages.
pub const LONGEST: usize = 1 << 20;

/// The longest head of a frame: two bytes, a length in eight, a mask of four.
const HEAD: usize = 14;
/// Control frames are not longer (section 5.5).
const CONTROL: u64 = 125;

/// What has passed.
#[derive(Debug, PartialEq, Eq)]
pub enum Passed<'a> {
    /// A text message, whole.
    Text(&'a str),
    /// A text message that is too long, of an extension (compressed, section 5.2), masked (clients must refuse it,
    /// section 5.1) or not UTF-8. Or, once, the end of all reading: these are no frames.
    NotUnderstood,
}

/// A reader of one direction.
#[derive(Default)]
pub struct Frames {
    reading: Reading,
    message: Message,
}

/// Where in a frame the stream is.
enum Reading {
    /// In a head, of which these bytes are known.
    Head([u8; HEAD], usize),
    /// In a payload.
    Payload { left: u64, is: Part },
    /// Where the next frame begins cannot be told any more.
    Lost,
}

impl Default for Reading {
    fn default() -> Self {
        Self::Head([0; HEAD], 0)
    }
}

/// What a frame is a part of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Of the message that is on its way; the last one or not.
    Message { last: bool },
    /// Of nothing: a control frame may stand between the frames of a message (section 5.4).
    Control,
}

/// The message that is on its way.
#[derive(Default)]
enum Message {
    /// The next frame begins one.
    #[default]
    Between,
    /// Text, and what came of it in earlier pieces.
    Text(Vec<u8>),
    /// Binary, or a text that is not understood.
    Unread,
}

impl Frames {
    /// Reads the next bytes, and tells what came to its end with them.
    pub fn pass(&mut self, mut piece: &[u8], mut tell: impl FnMut(Passed<'_>)) {
        loop {
            match &mut self.reading {
                Reading::Lost => return,
                Reading::Head(head, known) => {
                    let Some((byte, rest)) = piece.split_first() else { return };
                    piece = rest;
                    // The length of a head is at most that of the array.
                    if let Some(place) = head.get_mut(*known) {
                        *place = *byte;
                        *known += 1;
                    }
                    if *known >= 2 && *known >= length_of(*head) {
                        let head = *head;
                        self.begin(head, &mut tell);
                    }
                }
                Reading::Payload { left, is } => {
                    let here = piece.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    let (payload, rest) = piece.split_at(here);
                    piece = rest;
                    *left -= here as u64;
                    let (whole, is) = (*left == 0, *is);
                    if whole {
                        self.reading = Reading::default();
                    }
                    if let Part::Message { last } = is {
                        self.take(payload, whole && last, &mut tell);
                    }
                    if !whole {
                        return;
                    }
                }
            }
        }
    }

    /// A frame begins.
    fn begin(&mut self, head: [u8; HEAD], tell: &mut impl FnMut(Passed<'_>)) {
        let [first, second, lengths @ ..] = head;
        let (last, extended, masked) = (first & 0x80 != 0, first & 0x70 != 0, second & 0x80 != 0);
        let in_bytes = |bytes: &[u8]| bytes.iter().fold(0, |length, byte| length << 8 | u64::from(*byte));
        let left = match second & 0x7f {
            126 => in_bytes(&lengths[..2]),
            127 => in_bytes(&lengths[..8]),
            short => u64::from(short),
        };
        let between = matches!(self.message, Message::Between);
        let is = match first & 0x0f {
            0 if !between => Part::Message { last },
            1 if between => {
                self.message = Message::Text(Vec::new());
                Part::Message { last }
            }
            2 if between => {
                self.message = Message::Unread;
                Part::Message { last }
            }
            8..=10 if last && left <= CONTROL => Part::Control,
            _ => return self.lose(tell),
        };
        if left > i64::MAX as u64 {
            return self.lose(tell);
        }
        if let (Part::Message { .. }, Message::Text(read)) = (is, &self.message)
            && (extended || masked || left > (LONGEST - read.len()) as u64)
        {
            self.message = Message::Unread;
            tell(Passed::NotUnderstood);
        }
        self.reading = Reading::Payload { left, is };
    }

    /// Takes what came of a message.
    fn take(&mut self, payload: &[u8], ended: bool, tell: &mut impl FnMut(Passed<'_>)) {
        let mut told = |text: &[u8]| tell(std::str::from_utf8(text).map_or(Passed::NotUnderstood, Passed::Text));
        match &mut self.message {
            // Most messages come in one piece: nothing is copied.
            Message::Text(read) if ended && read.is_empty() => told(payload),
            Message::Text(read) => {
                read.extend_from_slice(payload);
                if ended {
                    told(read);
                }
            }
            Message::Unread | Message::Between => {}
        }
        if ended {
            self.message = Message::Between;
        }
    }

    fn lose(&mut self, tell: &mut impl FnMut(Passed<'_>)) {
        (self.reading, self.message) = (Reading::Lost, Message::Between);
        tell(Passed::NotUnderstood);
    }
}

/// How long a head is, by its second byte (section 5.2).
fn length_of([_, second, ..]: [u8; HEAD]) -> usize {
    let length = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    2 + length + if second & 0x80 == 0 { 0 } else { 4 }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use tokio_tungstenite::tungstenite;
    use tungstenite::protocol::frame::Frame;
    use tungstenite::protocol::frame::coding::{Data, OpCode};
    use tungstenite::protocol::{Role, WebSocketConfig};

    use super::*;

    /// What a reader tells of these pieces: `None` is not understood.
    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Option<String>> {
        let (mut frames, mut told) = (Frames::default(), Vec::new());
        for piece in pieces {
            frames.pass(piece, |passed| {
                told.push(match passed {
                    Passed::Text(text) => Some(text.to_owned()),
                    Passed::NotUnderstood => None,
                });
            });
        }
        told
    }

    /// A frame by hand: the first byte, and a payload in the shortest form of length.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            short @ 0..126 => frame.push(u8::try_from(short).unwrap()),
            middle @ 126..0x1_0000 => {
                frame.push(126);
                frame.extend(u16::try_from(middle).unwrap().to_be_bytes());
            }
            long => {
                frame.push(127);
                frame.extend((long as u64).to_be_bytes());
            }
        }
        frame.extend(payload);
        frame
    }

    #[test]
    fn frames_are_read_as_the_rfc_has_them() {
        let long = "x".repeat(70_000);
        let next = frame(0x81, b"next");
        let some = |text: &str| Some(text.to_owned());
        for (what, stream, expected) in [
            ("nothing", vec![], vec![]),
            ("a text", frame(0x81, b"Hello"), vec![some("Hello")]),
            ("an empty text", frame(0x81, b""), vec![some("")]),
            ("125 bytes", frame(0x81, &long.as_bytes()[..125]), vec![some(&long[..125])]),
            ("126 bytes", frame(0x81, &long.as_bytes()[..126]), vec![some(&long[..126])]),
            ("65535 bytes", frame(0x81, &long.as_bytes()[..65_535]), vec![some(&long[..65_535])]),
            ("65536 bytes", frame(0x81, &long.as_bytes()[..65_536]), vec![some(&long[..65_536])]),
            (
                "a length in more bytes than needed",
                [&[0x81, 126, 0, 2][..], b"hi", &next].concat(),
                vec![some("hi"), some("next")],
            ),
            ("the same in eight", [&[0x81, 127, 0, 0, 0, 0, 0, 0, 0, 2][..], b"hi"].concat(), vec![some("hi")]),
            ("half a text", frame(0x81, b"Hello")[..4].to_vec(), vec![]),
            ("two", [frame(0x81, b"one"), next.clone()].concat(), vec![some("one"), some("next")]),
            (
                "fragments with a ping and a close between",
                [frame(0x01, b"Hel"), frame(0x89, b"ping"), frame(0x00, b""), frame(0x88, b""), frame(0x80, b"lo")]
                    .concat(),
                vec![some("Hello")],
            ),
            ("a letter cut in two", [frame(0x01, b"\xc3"), frame(0x80, b"\xa9")].concat(), vec![some("é")]),
            ("a binary message", [frame(0x82, b"\xff"), next.clone()].concat(), vec![some("next")]),
            (
                "a binary message in fragments",
                [frame(0x02, b"a"), frame(0x80, b"b"), next.clone()].concat(),
                vec![some("next")],
            ),
            ("ping, pong, close", [frame(0x89, b"a"), frame(0x8a, b""), frame(0x88, b"\x03\xe8")].concat(), vec![]),
            ("compressed", [frame(0xc1, b"\xca\x48"), next.clone()].concat(), vec![None, some("next")]),
            (
                "compressed, in fragments",
                [frame(0x41, b"\xca"), frame(0x80, b"\x48"), next.clone()].concat(),
                vec![None, some("next")],
            ),
            (
                "an extension in a later fragment",
                [frame(0x01, b"a"), frame(0xa0, b"b"), next.clone()].concat(),
                vec![None, some("next")],
            ),
            ("a compressed binary message", [frame(0xc2, b"a"), next.clone()].concat(), vec![some("next")]),
            ("a control frame of an extension", [frame(0xd9, b"a"), next.clone()].concat(), vec![some("next")]),
            ("masked", [&[0x81, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2][..], &next].concat(), vec![None, some("next")]),
            ("a masked ping", [&[0x89, 0x80, 1, 2, 3, 4][..], &next].concat(), vec![some("next")]),
            ("not UTF-8", [frame(0x81, b"\xff\xfe"), next.clone()].concat(), vec![None, some("next")]),
            ("half a letter", [frame(0x81, b"a\xc3"), next.clone()].concat(), vec![None, some("next")]),
            ("a reserved opcode", [frame(0x83, b"a"), next.clone()].concat(), vec![None]),
            ("a reserved control opcode", [frame(0x8b, b"a"), next.clone()].concat(), vec![None]),
            ("a continuation of nothing", [frame(0x80, b"a"), next.clone()].concat(), vec![None]),
            ("a text within a text", [frame(0x01, b"a"), next.clone(), next.clone()].concat(), vec![None]),
            (
                "a binary message within a text",
                [frame(0x01, b"a"), frame(0x82, b"b"), next.clone()].concat(),
                vec![None],
            ),
            ("a control frame in fragments", [frame(0x09, b"a"), next.clone()].concat(), vec![None]),
            ("a long control frame", [frame(0x89, &[0; 126]), next.clone()].concat(), vec![None]),
            (
                "a length with its first bit set",
                [&[0x81, 127, 0x80, 0, 0, 0, 0, 0, 0, 2][..], b"hi", &next].concat(),
                vec![None],
            ),
            ("no WebSocket at all", b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![None]),
        ] {
            assert_eq!(read([&stream[..]]), expected, "{what}");
            assert_eq!(read(stream.chunks(1)), expected, "{what}, byte by byte");
        }
    }

    #[test]
    fn what_is_too_long_passes_and_the_next_is_read() {
        let longest = vec![b'x'; LONGEST];
        let (next, one) = (frame(0x81, b"next"), frame(0x80, b"x"));
        for (what, stream, first_is_read) in [
            ("just not too long", [frame(0x81, &longest), next.clone()].concat(), true),
            ("one byte more", [frame(0x81, &[&longest[..], b"x"].concat()), next.clone()].concat(), false),
            ("just not too long in all", [frame(0x01, &longest[1..]), one.clone(), next.clone()].concat(), true),
            ("too long in all", [frame(0x01, &longest), one, next.clone()].concat(), false),
            (
                "too long and on and on",
                [frame(0x01, &longest), frame(0x00, &longest), frame(0x80, &longest), next].concat(),
                false,
            ),
        ] {
            for size in [stream.len(), 16 * 1024, 1013] {
                let told = read(stream.chunks(size));
                assert_eq!(told.len(), 2, "{what}");
                assert_eq!((told[0].is_some(), told[1].as_deref()), (first_is_read, Some("next")), "{what}");
            }
        }
    }

    #[test]
    fn memory_is_that_of_the_message_on_its_way_and_none_between() {
        let kept = |frames: &Frames| match &frames.message {
            Message::Text(read) => read.capacity(),
            Message::Between | Message::Unread => 0,
        };
        let mut frames = Frames::default();
        let mut most = 0;
        let long = frame(0x81, &vec![b'x'; 8 * LONGEST]);
        let stream =
            [frame(0x01, &vec![b'x'; LONGEST]), frame(0x80, b"x"), long, frame(0x81, &vec![b'x'; LONGEST])].concat();
        for piece in stream.chunks(16 * 1024) {
            frames.pass(piece, |_| ());
            most = most.max(kept(&frames));
        }
        assert!((LONGEST / 2..=2 * LONGEST).contains(&most), "{most}");
        assert_eq!(kept(&frames), 0);
        // A length that is only said takes nothing.
        frames.pass(&[0x81, 127, 0, 0, 0, 0, 0, 15, 0, 0], |_| ());
        assert_eq!(kept(&frames), 0);
        assert!(size_of::<Frames>() <= 64, "{}", size_of::<Frames>());
    }

    /// Frames as tungstenite writes them: mostly messages in a few fragments, now and then a frame out of place.
    fn written() -> impl Strategy<Value = Vec<u8>> {
        let bytes = |frames: Vec<Frame>| {
            let mut bytes = Vec::new();
            for frame in frames {
                frame.format(&mut bytes).unwrap();
            }
            bytes
        };
        let texts = || prop_oneof![8 => "[a-zé🚚]{0,40}", 1 => "[a-z]{126,140}", 1 => "[a-z]{65500,65600}"];
        let fragments = vec((texts(), any::<bool>()), 1..4);
        let message = (fragments, proptest::bool::weighted(0.9)).prop_map(|(fragments, is_text)| {
            let (count, begins) = (fragments.len(), if is_text { Data::Text } else { Data::Binary });
            let frames = fragments.into_iter().enumerate().flat_map(|(number, (text, ping))| {
                let opcode = if number == 0 { begins } else { Data::Continue };
                let fragment = Frame::message(text.into_bytes(), OpCode::Data(opcode), number + 1 == count);
                ping.then(|| Frame::ping("ping")).into_iter().chain([fragment])
            });
            frames.collect()
        });
        let opcodes = prop_oneof![Just(Data::Text), Just(Data::Binary), Just(Data::Continue)];
        let stray = (opcodes, texts(), any::<bool>())
            .prop_map(|(opcode, text, last)| vec![Frame::message(text.into_bytes(), OpCode::Data(opcode), last)]);
        prop_oneof![12 => message, 1 => stray].prop_map(bytes)
    }

    /// The text messages that tungstenite's client reads, and whether it read to the end and refused nothing.
    fn by_tungstenite(stream: &[u8]) -> (Vec<String>, bool) {
        struct Stream<'a>(&'a [u8]);
        impl std::io::Read for Stream<'_> {
            fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
                self.0.read(into)
            }
        }
        impl std::io::Write for Stream<'_> {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let config = WebSocketConfig::default().max_message_size(Some(LONGEST)).max_frame_size(Some(LONGEST));
        let mut socket = tungstenite::WebSocket::from_raw_socket(Stream(stream), Role::Client, Some(config));
        let mut read = Vec::new();
        loop {
            match socket.read() {
                Ok(tungstenite::Message::Text(text)) => read.push(text.to_string()),
                Ok(_) => {}
                Err(error) => {
                    let end = tungstenite::error::ProtocolError::ResetWithoutClosingHandshake;
                    return (read, matches!(error, tungstenite::Error::Protocol(why) if why == end));
                }
            }
        }
    }

    fn in_pieces<'a>(mut stream: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        for size in sizes.iter().cycle() {
            if stream.is_empty() {
                break;
            }
            let (piece, rest) = stream.split_at((*size).min(stream.len()));
            pieces.push(piece);
            stream = rest;
        }
        pieces
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

        #[test]
        fn any_split_gives_the_same_messages_and_tungstenite_reads_the_same(
            frames in vec(written(), 0..12),
            flips in vec((any::<proptest::sample::Index>(), any::<u8>()), 0..3),
            sizes in vec(1_usize..400, 1..8),
        ) {
            let mut stream = frames.concat();
            for (at, byte) in flips {
                if !stream.is_empty() {
                    let at = at.index(stream.len());
                    stream[at] = byte;
                }
            }
            let whole = read([&stream[..]]);
            prop_assert_eq!(&read(in_pieces(&stream, &sizes)), &whole);
            let (theirs, to_the_end) = by_tungstenite(&stream);
            // It stops at what breaks the rules; some of that does not lose the framing, and is passed over here.
            let ours: Vec<_> = whole.iter().take_while(|told| told.is_some()).flatten().collect();
            prop_assert!(ours.len() >= theirs.len() && ours.iter().zip(&theirs).all(|(ours, theirs)| *ours == theirs));
            // A frame that breaks the rules is known by its head here, and there only once all of it has come.
            let more = &whole[whole.len().min(theirs.len())..];
            prop_assert!(!to_the_end || more.is_empty() || *more == [None], "{:?} and {:?}", whole, theirs);
        }

        #[test]
        fn any_bytes_in_any_pieces_are_read_without_a_panic(
            stream in vec(any::<u8>(), 0..400),
            sizes in vec(1_usize..40, 1..8),
        ) {
            prop_assert_eq!(read(in_pieces(&stream, &sizes)), read([&stream[..]]));
        }
    }
}
