//! What a message may repeat of a value that is wrong. A secret gets into the wrong line sooner or later, and messages
//! get into logs, tickets and chats: what looks like one is masked.

use toml::Value;

use crate::policy::secret::MASK;

/// Longer texts belong to no setting.
const LONGEST: usize = 80;
/// The most letters and digits in a row that a word or a number has.
const LONGEST_RUN: usize = 20;

/// A value as a message repeats it.
pub(super) fn shown(value: &Value) -> String {
    masked(value).to_string()
}

/// A text as a message repeats it, without quotes.
pub(super) fn shown_text(text: &str) -> &str {
    if looks_like_a_secret(text) { MASK } else { text }
}

fn masked(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::from(shown_text(text)),
        Value::Array(values) => Value::Array(values.iter().map(masked).collect()),
        Value::Table(entries) => {
            Value::Table(entries.iter().map(|(key, value)| (shown_text(key).to_owned(), masked(value))).collect())
        }
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => value.clone(),
    }
}

/// Whether a text could be a secret, or hold one: a token, a password, a field of a request, a URL with a password.
/// Better too often than once too little: the message still says which setting is wrong, and what to write.
pub(super) fn looks_like_a_secret(text: &str) -> bool {
    let count = |mark: char| text.matches(mark).count();
    let is_path_or_name = text.contains(['/', '.', '_', ',']);
    text.len() > LONGEST
        || text.contains(|letter: char| "@!$^&*|\\;`~<>".contains(letter))
        // `Authorization: Bearer ...`, and phrases.
        || text.contains(": ")
        || count(' ') > 1
        || count('-') > 2 && !is_path_or_name
        || text.split(|letter: char| !letter.is_alphanumeric()).any(is_random)
}

/// Whether a row of letters and digits is neither a word, nor a number, nor an amount such as `500ms`.
fn is_random(run: &str) -> bool {
    let digits = run.bytes().filter(u8::is_ascii_digit).count();
    let (length, letters) = (run.chars().count(), run.chars().count() - digits);
    let leading = run.bytes().take_while(u8::is_ascii_digit).count();
    let is_amount = leading == digits && letters <= 4;
    let is_one_case = |run: &str| !run.contains(char::is_uppercase) || !run.contains(char::is_lowercase);
    let is_word =
        digits == 0 && (is_one_case(run) || is_one_case(&run[run.chars().next().map_or(0, char::len_utf8)..]));
    digits > LONGEST_RUN || !is_amount && (length > LONGEST_RUN || !is_word && length >= 6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_masked_and_what_a_setting_could_mean_is_not() {
        for secret in [
            "hunter2",
            "s3cret",
            "correct horse battery staple",
            "correct-horse-battery-staple",
            "tr0ub4dor&3",
            "pa$$word",
            "Bearer abc: x",
            "Authorization: Basic eDp5",
            "https://joe:secret@a/",
            "sk_live_51H8xYz",
            "eyJhbGciOiJIUzI1NiJ9",
            "hmUxdYZ7nFu4KqJ8sT2vWbXc",
            "4f53cda18c2baa0c",
            "AbCdEfGhIj",
            "550e8400-e29b-41d4-a716-446655440000",
            "deadbeefdeadbeefdeadbeef",
            "1234567890123456789012",
            "/run/4f53cda18c2b",
        ] {
            assert!(looks_like_a_secret(secret), "{secret}");
        }
        for plain in [
            "15x",
            "500 ms",
            "-1s",
            "256MB",
            "1.5GiB",
            "9180",
            "127.0.0.1:99999",
            "[::1]:x",
            "localhost:8080",
            "strict",
            "info,anterom=debug",
            "Inof",
            "chat.example.com",
            "https://chat.example.com/",
            "http://h:80/a/b",
            "ftp://h",
            "/run/secrets/anteroom-admin-token",
            "ANTEROOM_SECRET",
            "contact.emial",
            "messages.sender.phone_nubmer",
            "br, gzip",
            "stale_while_revalidat",
            "",
        ] {
            assert!(!looks_like_a_secret(plain), "{plain}");
        }
    }

    #[test]
    fn values_are_masked_piece_by_piece() {
        let value: toml::Table = toml::from_str("a = [\"15x\", \"hunter2\", 3, { hunter2 = 4 }]").expect("TOML");
        assert_eq!(shown(&value["a"]), "[\"15x\", \"***\", 3, { \"***\" = 4 }]");
    }
}
