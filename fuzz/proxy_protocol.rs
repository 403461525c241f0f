//! The header of the PROXY protocol, against a reading byte by byte.

use std::net::{IpAddr, SocketAddr};

use anteroom::server::proxy_protocol::{Told, read};

use super::mutator::{Dice, number};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const LINES: [&str; 14] = [
    "PROXY TCP4 192.0.2.1 10.0.0.1 4660 80\r\n",
    "PROXY TCP6 2001:db8::1 ::2 7 80\r\n",
    "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
    "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
    "PROXY UNKNOWN\r\n",
    "PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n",
    "PROXY TCP4 192.0.2.1 10.0.0.1 4660 80\n",
    "PROXY TCP4 192.0.2.1 10.0.0.1 4660 80 \r\n",
    "PROXY TCP4  192.0.2.1 10.0.0.1 4660 80\r\n",
    "PROXY TCP4 ::1 ::1 1 1\r\n",
    "PROXY TCP4 192.0.2.1 10.0.0.1 70000 80\r\n",
    "PROXY UDP4 192.0.2.1 10.0.0.1 1 1\r\n",
    "GET / HTTP/1.1\r\n",
    "PROXY ",
];

/// A header of version 2 whose parts are likely right.
fn second_version(dice: &mut Dice) -> Vec<u8> {
    let command = *dice.pick(&[0x21, 0x21, 0x21, 0x20, 0x22, 0x11]);
    let family = *dice.pick(&[0x11, 0x11, 0x21, 0x21, 0x31, 0x00, 0x12, 0x41]);
    let addresses = [0, 12, 36, 216][match family >> 4 {
        1 => 1,
        2 => 2,
        3 => 3,
        _ => 0,
    }];
    let mut payload: Vec<u8> = (0..addresses).map(|_| u8::try_from(dice.roll(256)).expect("a byte")).collect();
    for _ in 0..dice.roll(3) {
        let value: Vec<u8> = (0..dice.roll(9)).map(|_| u8::try_from(dice.roll(4)).expect("a byte")).collect();
        payload.push(*dice.pick(&[0x20, 0x20, 0x01, 0x04, 0xee]));
        payload.extend(u16::try_from(value.len()).expect("short").to_be_bytes());
        payload.extend(value);
    }
    let length = match dice.roll(8) {
        0 => u16::try_from(dice.roll(65_536)).expect("two bytes"),
        _ => u16::try_from(payload.len()).expect("short"),
    };
    [SIGNATURE, &[command, family], &length.to_be_bytes(), &payload].concat()
}

fn input(dice: &mut Dice) -> Vec<u8> {
    let mut bytes = if dice.roll(2) == 0 { dice.pick(&LINES).as_bytes().to_vec() } else { second_version(dice) };
    for _ in 0..[0, 0, 0, 1, 2][dice.roll(5)] {
        let at = dice.roll(bytes.len());
        match dice.roll(4) {
            0 => bytes[at] = u8::try_from(dice.roll(256)).expect("a byte"),
            1 => bytes.insert(at, *dice.pick(b" \r\n\0P14:.")),
            2 => drop(bytes.drain(at..(at + 1 + dice.roll(5)).min(bytes.len()))),
            _ => bytes.truncate(at.max(1)),
        }
        if bytes.is_empty() {
            bytes.push(b'P');
        }
    }
    bytes.extend_from_slice(&b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"[..dice.roll(28)]);
    bytes
}

/// What a header says, and where it ends; nothing if it is none.
fn opinion(bytes: &[u8]) -> Option<(Told, usize)> {
    let Some(rest) = bytes.strip_prefix(SIGNATURE) else { return first_line(bytes) };
    let [command, family, high, low, payload @ ..] = rest else { return None };
    let length = usize::from(*high) * 256 + usize::from(*low);
    if length + 16 > 4096 {
        return None;
    }
    let payload = payload.get(..length)?;
    let addresses = match family {
        0x00..=0x02 => 0,
        0x10..=0x12 => 12,
        0x20..=0x22 => 36,
        0x30..=0x32 => 216,
        _ => return None,
    };
    // Whose family is not told has nothing that could be read, notes neither.
    let readable = if family >> 4 == 0 { &[] } else { payload.get(addresses..)? };
    let (addresses, mut notes) = (payload.get(..addresses)?, readable);
    if *command != 0x20 && *command != 0x21 {
        return None;
    }
    let client = match (*command, addresses) {
        (0x20, _) => None,
        (_, [a, b, c, d, _, _, _, _, high, low, ..]) if addresses.len() == 12 => {
            Some((IpAddr::from([*a, *b, *c, *d]), u16::from_be_bytes([*high, *low])))
        }
        (_, all) if all.len() == 36 => {
            let address: [u8; 16] = all[..16].try_into().expect("sixteen bytes");
            Some((IpAddr::from(address), u16::from_be_bytes([all[32], all[33]])))
        }
        _ => None,
    };
    let mut over_tls = false;
    while let [kind, high, low, rest @ ..] = notes {
        let length = usize::from(*high) * 256 + usize::from(*low);
        let value = rest.get(..length)?;
        over_tls |= *kind == 0x20 && value.first().is_some_and(|bits| bits % 2 == 1);
        notes = &rest[length..];
    }
    notes.is_empty().then_some((Told { client: client.map(SocketAddr::from), over_tls }, 16 + length))
}

fn first_line(bytes: &[u8]) -> Option<(Told, usize)> {
    let end = bytes.iter().take(107).position(|byte| *byte == b'\n')? + 1;
    let line = bytes[..end].strip_suffix(b"\r\n")?;
    if line.contains(&b'\r') {
        return None;
    }
    let line = String::from_utf8_lossy(line);
    let parts: Vec<&str> = line.split(' ').collect();
    let client = match parts[..] {
        ["PROXY", "UNKNOWN", ..] => None,
        ["PROXY", family @ ("TCP4" | "TCP6"), from, to, from_port, to_port] => {
            let address = |text: &str| text.parse::<IpAddr>().ok().filter(|it| it.is_ipv4() == (family == "TCP4"));
            let port = |text: &str| text.parse::<u16>().ok().filter(|port| port.to_string() == text);
            let _ = (address(to)?, port(to_port)?);
            Some(SocketAddr::from((address(from)?, port(from_port)?)))
        }
        _ => return None,
    };
    Some((Told { client, over_tls: false }, end))
}

#[test]
fn fuzz_proxy_protocol() {
    let executions = number("ANTEROOM_FUZZ_EXECUTIONS", super::BRIEFLY);
    let mut dice = Dice(number("ANTEROOM_FUZZ_SEED", 0x5eed).max(1));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut understood = 0;
    for execution in 0..executions {
        let input = input(&mut dice);
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut rest = &input[..];
            let told = runtime.block_on(read(&mut rest)).ok();
            let consumed = input.len() - rest.len();
            assert!(consumed <= 4096);
            let opinion = opinion(&input);
            match (told, opinion) {
                (Some(told), Some((opinion, end))) => assert_eq!((told, consumed), (opinion, end)),
                (told, opinion) => {
                    assert_eq!(told, opinion.map(|(told, _)| told));
                }
            }
            told.is_some()
        }));
        let Ok(is_header) = ended else { panic!("execution {execution} on {:?}", String::from_utf8_lossy(&input)) };
        understood += u64::from(is_header);
    }
    assert!(understood * 5 > executions, "{understood} of {executions} inputs were headers");
}
