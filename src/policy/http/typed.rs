//! A request as somebody types it, to have it explained.

use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, header};

/// The head of a request with these lines of fields, such as `Cookie: a=b`.
///
/// # Errors
/// What is wrong with it. Nothing of it is repeated: it holds a credential.
pub fn head(method: &str, path: &str, lines: &[String]) -> Result<Parts, &'static str> {
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| "that is no method")?;
    let is_path = path.starts_with('/') && !path.contains('#');
    let request = Request::builder().method(method).uri(if is_path { path } else { "" });
    let request = request.body(()).map_err(|_| "that is no path: it begins with a slash, as after the host")?;
    let (mut head, ()) = request.into_parts();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or("a header is a name, a colon and a value")?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| "that is no name of a header")?;
        let value = HeaderValue::from_str(value.trim()).map_err(|_| "that is no value of a header")?;
        head.headers.try_append(name, value).map_err(|_| "there are too many headers")?;
    }
    if !head.headers.contains_key(header::HOST) {
        // Nobody types it, and every client sends it.
        head.headers.insert(header::HOST, HeaderValue::from_static("localhost"));
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_a_request_or_is_told_to_be_none_without_repeating_it() {
        let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        let typed = head("PATCH", "/a?b", &lines(&["Cookie: a: b", "x:y", "X:z"])).unwrap();
        assert_eq!((typed.method.as_str(), typed.uri.to_string().as_str()), ("PATCH", "/a?b"));
        assert_eq!(
            (&typed.headers["cookie"], &typed.headers["host"]),
            (&"a: b".parse().unwrap(), &"localhost".parse().unwrap())
        );
        assert_eq!(typed.headers.get_all("x").iter().count(), 2);
        assert_eq!(head("GET", "/", &lines(&["Host: a", "Host: b"])).unwrap().headers.len(), 2);
        for (method, path, line, said) in [
            ("G T", "/", "", "no method"),
            ("", "/", "", "no method"),
            ("GET", "hush", "", "no path"),
            ("GET", "", "", "no path"),
            ("GET", "https://chat.test/hush", "", "no path"),
            ("GET", "/hush hush", "", "no path"),
            ("GET", "/hush#hush", "", "no path"),
            ("GET", "/", "hush", "a colon"),
            ("GET", "/", "hush hush: c", "no name"),
            ("GET", "/", "a: hush\nhush", "no value"),
        ] {
            let lines: Vec<String> = lines(&[line]).into_iter().filter(|line| !line.is_empty()).collect();
            let told = head(method, path, &lines).map(|_| ()).expect_err(path);
            assert!(told.contains(said) && !told.contains("hush"), "{told}");
        }
    }
}
