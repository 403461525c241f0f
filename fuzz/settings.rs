//! Settings from a file and from the environment: text of any kind gives settings, or says where it is wrong.

use std::fmt::Write;
use std::path::PathBuf;

use anteroom::config::{Flags, SettingsFile, load};

use super::mutator::{Dice, number};

const VALUES: [&str; 40] = [
    "true",
    "false",
    "0",
    "-1",
    "1",
    "1.5",
    "nan",
    "inf",
    "1e400",
    "9223372036854775807",
    "99999999999999999999",
    "\"\"",
    "\"0s\"",
    "\"1s\"",
    "\"-1s\"",
    "\"99999999999999999999h\"",
    "\"18446744073709551615s\"",
    "\"1h1m\"",
    "\"1 s\"",
    "\"1KiB\"",
    "\"17179869184GiB\"",
    "\"0\"",
    "\"127.0.0.1:0\"",
    "\"[::1]:80\"",
    "\"unix:/tmp/x\"",
    "\"http://h\"",
    "\"https://u:p@h/x\"",
    "\"http://[::1\"",
    "[]",
    "[\"a\"]",
    "[[]]",
    "[1, \"a\"]",
    "{}",
    "{ file = \"/nowhere/x\" }",
    "{ env = \"SECRET\" }",
    "{ env = \"\" }",
    "1979-05-27T07:32:00Z",
    "'''\na\n'''",
    "\"\\u0000\"",
    "\"é\\n\"",
];
const BYTES: &[u8] = b"\"'[]{}=.,#\n\r\t \\0-_aZ\x00\x7f";

struct Line {
    section: String,
    key: String,
    value: String,
}

/// Every setting with its default or its example, as the file that is shipped has them.
fn lines() -> Vec<Line> {
    let mut section = String::new();
    let mut lines = Vec::new();
    for line in include_str!("../config/anteroom.toml").lines() {
        if let Some(name) = line.strip_prefix('[') {
            name.trim_end_matches(']').clone_into(&mut section);
        } else if let Some((key, value)) = line.strip_prefix('#').and_then(|line| line.split_once(" = "))
            && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte.is_ascii_digit())
        {
            lines.push(Line { section: section.clone(), key: key.to_owned(), value: value.to_owned() });
        }
    }
    assert!(lines.len() > 60, "{} settings", lines.len());
    lines
}

fn value<'a>(dice: &mut Dice, line: &'a Line, lines: &'a [Line]) -> &'a str {
    match dice.roll(10) {
        0 => dice.pick::<&'static str>(&VALUES),
        1 => &dice.pick(lines).value,
        _ => &line.value,
    }
}

fn file(dice: &mut Dice, lines: &[Line]) -> String {
    let mut text = String::new();
    if dice.roll(8) > 0 {
        text.push_str("upstream.url = \"https://chat.test\"\n");
    }
    for _ in 0..dice.roll(8) {
        let line = dice.pick(lines);
        let value = value(dice, line, lines);
        let named = if dice.roll(20) == 0 {
            format!("[{}]\n{}", line.section, line.key)
        } else {
            format!("{}.{}", line.section, line.key)
        };
        let _ = writeln!(text, "{named} = {value}");
    }
    for _ in 0..[0, 0, 0, 0, 1, 2][dice.roll(6)] {
        let mut bytes = text.into_bytes();
        if bytes.is_empty() {
            bytes.push(b'\n');
        }
        let at = dice.roll(bytes.len());
        match dice.roll(4) {
            0 => bytes[at] = *dice.pick(BYTES),
            1 => bytes.insert(at, *dice.pick(BYTES)),
            2 => drop(bytes.drain(at..(at + 1 + dice.roll(12)).min(bytes.len()))),
            _ => bytes.truncate(at),
        }
        text = String::from_utf8_lossy(&bytes).into_owned();
    }
    text
}

fn environment(dice: &mut Dice, lines: &[Line]) -> Vec<(String, String)> {
    let mut variables = vec![("SECRET".to_owned(), "from the environment".to_owned())];
    for _ in 0..[0, 0, 1, 3][dice.roll(4)] {
        let line = dice.pick(lines);
        let mut value = value(dice, line, lines);
        if dice.roll(2) == 0 {
            value = value.trim_matches('"');
        }
        let mut name = format!("ANTEROOM_{}__{}", line.section.replace('.', "__"), line.key).to_uppercase();
        if dice.roll(20) == 0 {
            name.push(char::from(*dice.pick(b"_S1")));
        }
        variables.push((name, value.to_owned()));
    }
    variables
}

/// What must hold for any text; gives whether it was settings.
fn examine(text: &str, variables: &[(String, String)]) -> bool {
    let read = |text: &str, variables: &[(String, String)]| {
        load(SettingsFile::Text(PathBuf::from("fuzz.toml"), text.to_owned()), &Flags::default(), variables.to_vec())
    };
    let toml = text.parse::<toml::Table>();
    match read(text, variables) {
        Ok(loaded) => {
            toml.expect("what is no TOML is no settings");
            // What is said to be in force is settings, and the same ones; but secrets are not shown.
            if !loaded.listing().contains("***") {
                let again = read(loaded.listing(), &[]).expect("the listing can be read");
                assert_eq!(again.config, loaded.config);
            }
            true
        }
        Err(mistakes) => {
            let told = mistakes.to_string();
            let lines: Vec<&str> = told.lines().collect();
            let mut in_file = false;
            for line in &lines {
                let Some(mistake) = line.strip_prefix("  ") else {
                    assert!(line.ends_with(" problem") || line.ends_with(" problems"), "{told}");
                    in_file = line.starts_with("fuzz.toml: ");
                    continue;
                };
                if in_file {
                    let number = mistake.strip_prefix("line ").and_then(|rest| rest.split_once(": "));
                    let number: usize = number.expect("a line").0.parse().expect("its number");
                    assert!((1..=text.lines().count().max(1) + 1).contains(&number), "{told}");
                }
            }
            assert!(toml.is_ok() || lines[0].starts_with("fuzz.toml: "), "{told}");
            false
        }
    }
}

#[test]
fn fuzz_settings() {
    // Each is read twice and takes 1 ms: a tenth of the others' number.
    let executions = number("ANTEROOM_FUZZ_EXECUTIONS", super::BRIEFLY) / 10;
    let mut dice = Dice(number("ANTEROOM_FUZZ_SEED", 0x5eed).max(1));
    let lines = lines();
    let mut good = 0;
    for execution in 0..executions {
        let text = file(&mut dice, &lines);
        let variables = environment(&mut dice, &lines);
        let ended = std::panic::catch_unwind(|| examine(&text, &variables));
        let Ok(is_good) = ended else { panic!("execution {execution} on {text:?} with {variables:?}") };
        good += u64::from(is_good);
    }
    assert!(good * 20 > executions, "{good} of {executions} inputs were settings");
}
