//! How addresses to listen on are read and written.

use toml::Value;

use super::listen::ListenAddress;
use super::shown::shown;
use super::values::Form;

/// One address, or a list of them.
pub(super) const ADDRESSES: Form<Vec<ListenAddress>> = Form::open(read, |addresses| match &addresses[..] {
    [one] => Value::from(one.to_string()).to_string(),
    all => Value::from(all.iter().map(ToString::to_string).collect::<Vec<_>>()).to_string(),
});

fn read(value: &Value) -> Result<Vec<ListenAddress>, String> {
    const WRITE: &str = "write \"127.0.0.1:8080\", \"unix:/run/anteroom.sock\", or a list of such";
    let one = |value: &Value| {
        let read = value.as_str().and_then(ListenAddress::read);
        read.ok_or_else(|| format!("{} is no address to listen on; {WRITE}", shown(value)))
    };
    match value {
        Value::Array(list) if list.is_empty() => Err(format!("the list is empty; {WRITE}")),
        Value::Array(list) => list.iter().map(one).collect(),
        value => Ok(vec![one(value)?]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_ports_sockets_or_lists_of_them() {
        let tcp = |text: &str| ListenAddress::Tcp(text.parse().unwrap());
        let unix = |text: &str| ListenAddress::Unix(text.into());
        for (text, expected) in [
            ("'127.0.0.1:80'", vec![tcp("127.0.0.1:80")]),
            ("['127.0.0.1:80', '[::1]:0']", vec![tcp("127.0.0.1:80"), tcp("[::1]:0")]),
            ("['unix:/run/a.sock']", vec![unix("/run/a.sock")]),
        ] {
            let value: toml::Table = format!("v = {text}").parse().unwrap();
            let addresses = read(&value["v"]).unwrap();
            assert_eq!(addresses, expected);
            let shown: toml::Table = format!("v = {}", (ADDRESSES.show)(&addresses)).parse().unwrap();
            assert_eq!(read(&shown["v"]).unwrap(), expected, "what is shown can be read");
        }
        for wrong in ["'localhost:80'", "'unix:a.sock'", "[]", "7", "['127.0.0.1:80', 7]"] {
            let value: toml::Table = format!("v = {wrong}").parse().unwrap();
            assert!(read(&value["v"]).is_err(), "{wrong}");
        }
    }
}
