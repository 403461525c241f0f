//! What the fuzzers share: samples, mutated twice over. First by value (one value takes another's place, so that most
//! stay JSON and reach the rules), then, in every second one, by byte. Every input follows from the seed.
#![allow(dead_code, unreachable_pub, reason = "each fuzzer uses its part")]

/// What mutations put in: values at the edges of the contract and of JSON.
pub const VALUES: [&str; 28] = [
    "null",
    "true",
    "0",
    "-1",
    "1.0",
    "1e3",
    "1e400",
    "18446744073709551615",
    "18446744073709551616",
    "\"\"",
    "\"7\"",
    "\"contact\"",
    "\"cont\\u0061ct\"",
    "\"open\"",
    "\"resolved\"",
    "\"\\ud83d\\ude00\"",
    "\"\\u003c\"",
    "[]",
    "{}",
    "[[]]",
    "[null]",
    "{\"id\":5,\"type\":\"contact\"}",
    "{\"type\":\"contact\",\"\\u0069d\":6}",
    "{\"id\":1,\"id\":2}",
    "{\"status\":\"open\",\"status\":\"pending\"}",
    "{\"messages\":[{},{\"created_at\":3},{}]}",
    "\"é\"",
    "[{\"email\":1}]",
];

const BYTES: &[u8] = b"{}[]\":,\\u0019-+.eE ntf\n\t\x00\x1f\x7f\x80\xc3\xed\xf0\xff";

/// xorshift64*: small, and the same everywhere.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(high).expect("31 bits") % sides
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.roll(from.len())]
    }
}

/// A valid list and where its values are.
pub struct Seed {
    pub json: Vec<u8>,
    values: Vec<(usize, usize)>,
}

impl Seed {
    pub fn new(json: &str) -> Seed {
        let mut seed = Seed { json: json.into(), values: Vec::new() };
        seed.value(0);
        seed
    }

    /// Notes the value that starts here and those in it; gives its end. Keys are noted too, which makes odd inputs.
    fn value(&mut self, start: usize) -> usize {
        let mut at = start + 1;
        match self.json[start] {
            b'"' => {
                while self.json[at] != b'"' {
                    at += if self.json[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'{' | b'[' => {
                while !matches!(self.json[at], b'}' | b']') {
                    at = if matches!(self.json[at], b',' | b':') { at + 1 } else { self.value(at) };
                }
                at += 1;
            }
            _ => {
                while at < self.json.len() && !matches!(self.json[at], b',' | b'}' | b']') {
                    at += 1;
                }
            }
        }
        self.values.push((start, at));
        at
    }
}

pub fn mutated(dice: &mut Dice, seeds: &[Seed]) -> Vec<u8> {
    let seed = dice.pick(seeds);
    let mut places: Vec<(usize, usize)> = (0..dice.roll(5)).map(|_| *dice.pick(&seed.values)).collect();
    places.sort_unstable();
    let mut bytes = seed.json.clone();
    let mut untouched = bytes.len();
    for &(start, end) in places.iter().rev().filter(|(start, _)| *start > 0) {
        if end > untouched {
            continue; // the value around one that was replaced
        }
        let donor = dice.pick(seeds);
        let value = match dice.roll(3) {
            0 => {
                let (start, end) = *dice.pick(&donor.values);
                donor.json[start..end].to_vec()
            }
            1 => [seed.json[start..end].to_vec(), b",".to_vec(), seed.json[start..end].to_vec()].concat(),
            _ => dice.pick(&VALUES).as_bytes().to_vec(),
        };
        bytes.splice(start..end, value);
        untouched = start;
    }
    for _ in 0..[0, 0, 0, 1, 1, 2][dice.roll(6)] {
        let at = dice.roll(bytes.len());
        match dice.roll(6) {
            0 => bytes[at] = *dice.pick(BYTES),
            1 => bytes.insert(at, *dice.pick(BYTES)),
            2 => bytes[at] ^= 1 << dice.roll(8),
            3 => drop(bytes.drain(at..(at + 1 + dice.roll(8)).min(bytes.len()))),
            4 => bytes.truncate(at.max(1)),
            _ => drop(bytes.splice(at..at, vec![*dice.pick(b"[{"); dice.roll(200)])),
        }
        if bytes.is_empty() {
            bytes.push(b'[');
        }
    }
    bytes
}

pub fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().map_or(default, |text| text.parse().expect("a number"))
}
