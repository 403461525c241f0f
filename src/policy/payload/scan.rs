//! JSON by the byte: a cursor that moves over a body and refuses whatever is not JSON.
//!
//! It accepts what `serde_json` accepts as a `Value` (same depth limit, same rules for UTF-8), and two things more, since
//! nothing here makes values of them: a number may be too large for a float, and half of a surrogate pair may stand alone
//! in an escape (RFC 8259 section 8.2). Nothing is copied and nothing allocated.

use super::not_a_list::Why;
use super::token::Text;

/// How many arrays and objects may stand in one another: one less than this, as in `serde_json`. Also what keeps the
/// recursion over hostile bodies within the stack.
pub const DEPTH_LIMIT: u8 = 128;

/// What a step of the scan gives; where it failed is where the cursor stands.
pub(super) type Scan<T> = Result<T, Why>;

/// A place in a body.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    room: u8,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes, at: 0, room: DEPTH_LIMIT }
    }

    /// The offset of the next byte.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Goes to an offset where a value is known to start.
    pub(super) fn jump(&mut self, at: usize) {
        self.at = at;
    }

    pub(super) fn since(&self, start: usize) -> &'a [u8] {
        &self.bytes[start..self.at]
    }

    /// The string that started there and has just been passed.
    pub(super) fn text_since(&self, start: usize, escaped: bool) -> Text<'a> {
        Text { token: self.since(start), escaped }
    }

    /// The next byte that is not white space, which stays unread.
    #[inline]
    pub(super) fn peek(&mut self) -> Scan<u8> {
        loop {
            match self.bytes.get(self.at) {
                Some(&byte) if byte > b' ' => return Ok(byte), // nearly always: servers send no white space
                Some(b' ' | b'\n' | b'\t' | b'\r') => self.at += 1,
                Some(_) => return Err(Why::Malformed),
                None => return Err(Why::Truncated),
            }
        }
    }

    /// Nothing but white space may be left.
    pub(super) fn end(&mut self) -> Scan<()> {
        match self.peek() {
            Err(Why::Truncated) => Ok(()),
            _ => Err(Why::Trailing),
        }
    }

    /// Enters an object. True: a key follows; false: it was empty.
    #[inline]
    pub(super) fn first_key(&mut self) -> Scan<bool> {
        self.enter()?;
        match self.peek()? {
            b'"' => Ok(true),
            b'}' => Ok(self.leave()),
            _ => Err(Why::Malformed),
        }
    }

    /// After a member. True: another key follows; false: the object is over.
    #[inline]
    pub(super) fn next_key(&mut self) -> Scan<bool> {
        match self.peek()? {
            b',' => {
                self.at += 1;
                if self.peek()? == b'"' { Ok(true) } else { Err(Why::Malformed) }
            }
            b'}' => Ok(self.leave()),
            _ => Err(Why::Malformed),
        }
    }

    /// Enters an array. True: an element follows.
    #[inline]
    pub(super) fn first_element(&mut self) -> Scan<bool> {
        self.enter()?;
        Ok(if self.peek()? == b']' { self.leave() } else { true })
    }

    /// After an element. True: another follows.
    #[inline]
    pub(super) fn next_element(&mut self) -> Scan<bool> {
        match self.peek()? {
            b',' => {
                self.at += 1;
                self.peek()?;
                Ok(true)
            }
            b']' => Ok(self.leave()),
            _ => Err(Why::Malformed),
        }
    }

    fn enter(&mut self) -> Scan<()> {
        self.at += 1;
        self.room -= 1;
        if self.room == 0 { Err(Why::TooDeep) } else { Ok(()) }
    }

    fn leave(&mut self) -> bool {
        self.at += 1;
        self.room += 1;
        false
    }

    /// Between key and value; gives the value's first byte.
    #[inline]
    pub(super) fn colon(&mut self) -> Scan<u8> {
        if self.peek()? != b':' {
            return Err(Why::Malformed);
        }
        self.at += 1;
        self.peek()
    }

    /// Takes the key if it is spelt exactly so; most keys are the ones that are expected, so most are not scanned.
    #[inline]
    pub(super) fn key_is(&mut self, name: &str) -> bool {
        let rest = &self.bytes[self.at + 1..];
        let found = rest.get(name.len()) == Some(&b'"') && rest.starts_with(name.as_bytes());
        if found {
            self.at += name.len() + 2;
        }
        found
    }

    /// Passes over one value of any kind.
    pub(super) fn skip(&mut self) -> Scan<()> {
        match self.peek()? {
            b'"' => self.string().map(|_escaped| ()),
            b'{' => {
                let mut more = self.first_key()?;
                while more {
                    self.string()?;
                    self.colon()?;
                    self.skip()?;
                    more = self.next_key()?;
                }
                Ok(())
            }
            b'[' => {
                let mut more = self.first_element()?;
                while more {
                    self.skip()?;
                    more = self.next_element()?;
                }
                Ok(())
            }
            _ => self.scalar(),
        }
    }

    /// Passes over a value that has been passed before, so that only its end needs to be found.
    #[inline]
    pub(super) fn skip_known(&mut self) {
        match self.bytes.get(self.at) {
            Some(b'"') => drop(self.skip_known_string()),
            Some(b'{' | b'[') => self.skip_known_container(),
            _ => {
                while let Some(b'0'..=b'9' | b'a'..=b'z' | b'+' | b'-' | b'.' | b'E') = self.bytes.get(self.at) {
                    self.at += 1;
                }
            }
        }
    }

    fn skip_known_container(&mut self) {
        let mut depth = 0_u32;
        while let Some(&byte) = self.bytes.get(self.at) {
            if byte == b'"' {
                self.skip_known_string();
                continue;
            }
            self.at += 1;
            match byte | 0x20 {
                b'{' => depth += 1, // or `[`: they differ in this bit only
                b'}' if depth == 1 => return,
                b'}' => depth -= 1,
                _ => {}
            }
        }
    }

    /// The same for a string. True: it holds an escape.
    #[inline]
    pub(super) fn skip_known_string(&mut self) -> bool {
        let mut escaped = false;
        self.at += 1;
        loop {
            while let Some(chunk) = self.bytes[self.at..].first_chunk::<8>() {
                let word = u64::from_le_bytes(*chunk);
                let stops = (equal(word, b'"') | equal(word, b'\\')) & HIGH;
                if stops != 0 {
                    self.at += (stops.trailing_zeros() / 8) as usize;
                    break;
                }
                self.at += 8;
            }
            match self.bytes.get(self.at) {
                Some(b'\\') => {
                    escaped = true;
                    self.at += 2;
                }
                Some(b'"') | None => break,
                Some(_) => self.at += 1, // among the last eight bytes of the body
            }
        }
        self.at += 1;
        escaped
    }

    /// Passes over a number, `true`, `false` or `null`.
    pub(super) fn scalar(&mut self) -> Scan<()> {
        match self.bytes.get(self.at) {
            Some(b'-' | b'0'..=b'9') => self.number().map(|_| ()),
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            Some(_) => Err(Why::Malformed),
            None => Err(Why::Truncated),
        }
    }

    fn word(&mut self, word: &[u8]) -> Scan<()> {
        let rest = &self.bytes[self.at..];
        if rest.starts_with(word) {
            self.at += word.len();
            Ok(())
        } else {
            Err(if word.starts_with(rest) { Why::Truncated } else { Why::Malformed })
        }
    }

    /// Passes over a number. True: it is written as an integer.
    #[inline]
    pub(super) fn number(&mut self) -> Scan<bool> {
        if self.bytes.get(self.at) == Some(&b'-') {
            self.at += 1;
        }
        if self.bytes.get(self.at) == Some(&b'0') {
            self.at += 1; // and no further digit: JSON has no leading zeros
        } else {
            self.digits()?;
        }
        let mut integer = true;
        if self.bytes.get(self.at) == Some(&b'.') {
            integer = false;
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            integer = false;
            self.at += 1;
            if let Some(b'+' | b'-') = self.bytes.get(self.at) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(integer)
    }

    /// One digit or more.
    #[inline]
    fn digits(&mut self) -> Scan<()> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.bytes.get(self.at) {
            self.at += 1;
        }
        match self.bytes.get(self.at) {
            _ if self.at > start => Ok(()),
            Some(_) => Err(Why::Malformed),
            None => Err(Why::Truncated),
        }
    }

    /// Reads a string, the cursor being on its opening quote.
    pub(super) fn text(&mut self) -> Scan<Text<'a>> {
        let start = self.at;
        let escaped = self.string()?;
        Ok(self.text_since(start, escaped))
    }

    /// Passes over a string, the cursor being on its opening quote. True: it holds an escape.
    #[inline]
    pub(super) fn string(&mut self) -> Scan<bool> {
        let start = self.at;
        let mut escaped = false;
        let mut high_bits = 0;
        self.at += 1;
        loop {
            high_bits |= self.pass_plain();
            match self.bytes.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err(Why::Malformed), // a bare control character
                None => return Err(Why::Truncated),
            }
        }
        self.at += 1;
        // Outside strings a byte above 0x7f is malformed anyway, so this is all the UTF-8 there is to check.
        if high_bits & HIGH != 0 && std::str::from_utf8(self.since(start)).is_err() {
            self.at = start;
            return Err(Why::NotUtf8);
        }
        Ok(escaped)
    }

    /// Moves to the next quote, backslash or control character, eight bytes at a time. Gives the bytes passed over, laid
    /// upon one another, so that their high bits can be looked at once.
    #[inline]
    fn pass_plain(&mut self) -> u64 {
        let mut seen = 0;
        while let Some(chunk) = self.bytes[self.at..].first_chunk::<8>() {
            let word = u64::from_le_bytes(*chunk);
            let stops = (less_than_space(word) | equal(word, b'"') | equal(word, b'\\')) & HIGH;
            if stops != 0 {
                // Borrows run upwards only, so the lowest stop is a true one.
                let before = stops.trailing_zeros() / 8;
                self.at += before as usize;
                return seen | (word & !(u64::MAX << (before * 8)));
            }
            seen |= word;
            self.at += 8;
        }
        while let Some(&byte) = self.bytes.get(self.at) {
            if byte < b' ' || byte == b'"' || byte == b'\\' {
                break;
            }
            seen |= u64::from(byte);
            self.at += 1;
        }
        seen
    }

    /// Passes over an escape. Whether halves of a surrogate pair come together does not matter: alone, too, they are JSON
    /// (RFC 8259 section 8.2).
    fn escape(&mut self) -> Scan<()> {
        match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') => self.unit(),
            Some(_) => Err(Why::Malformed),
            None => Err(Why::Truncated),
        }
    }

    /// Passes over `\uXXXX`.
    fn unit(&mut self) -> Scan<()> {
        for i in 2..6 {
            let digit = self.bytes.get(self.at + i).ok_or(Why::Truncated)?;
            if !digit.is_ascii_hexdigit() {
                return Err(Why::Malformed);
            }
        }
        self.at += 6;
        Ok(())
    }
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// The high bit of each byte below 0x20 (and perhaps of bytes above such a one).
#[inline]
const fn less_than_space(word: u64) -> u64 {
    word.wrapping_sub(ONES * 0x20) & !word
}

/// The high bit of each byte equal to this one (and perhaps of bytes above such a one).
#[inline]
const fn equal(word: u64, byte: u8) -> u64 {
    let zero_where_equal = word ^ (ONES * byte as u64);
    zero_where_equal.wrapping_sub(ONES) & !zero_where_equal
}

#[cfg(test)]
mod tests;
