//! The scan against `serde_json`, and where it stops.

use super::*;

fn whole(text: &[u8]) -> Scan<()> {
    let mut cursor = Cursor::new(text);
    cursor.skip()?;
    cursor.end()
}

#[test]
fn accepts_and_refuses_as_serde_json_does() {
    let deep = |n: usize| [vec![b'['; n], vec![b']'; n]].concat();
    let mut cases: Vec<Vec<u8>> = vec![deep(126), deep(127), deep(128), deep(100_000), vec![b'['; 1_000_000]];
    #[rustfmt::skip]
    let texts: &[&[u8]] = &[
        b"", b" ", b"[", b"[1", b"[1,", b"[1,]", b"[,1]", b"[1 2]", b"[1]x", b"[1] \n", b"{}", b"{,}",
        b"{\"a\"}", b"{\"a\":}", b"{\"a\":1,}", b"{\"a\":1 \"b\":2}", b"{a:1}", b"{\"a\":1}}", b"nul", b"null",
        b"nulls", b"tru", b"True", b"false", b"0", b"00", b"01", b"-", b"-0", b"-01", b"+1", b"1.", b".5",
        b"1.0", b"1.e1", b"1e", b"1e+", b"1e-5", b"1E5", b"0e0", b"1.5E+3", b"0x1", b"NaN", b"--1",
        b"123456789012345678901234567890", b"\"", b"\"\"", b"\"a", b"\"\\", b"\"\\\"", b"\"\\\"\"", b"\"\\x\"",
        b"\"\\u12\"", b"\"\\u12g4\"", b"\"\\u0000\"", b"\"\\ud83d\\ude00\"", b"\"\\uD83D", b"\"\\uD83D\\",
        b"\"\x1f\"", b"\"\x7f\"", b"\"\x00\"", b"\"tab\t\"", "\"é\u{1F600}\u{2028}\"".as_bytes(), b"\"\xff\"",
        b"\"\xc3\"", b"\"\xed\xa0\x80\"", b"\"\xc0\x80\"", b"\xef\xbb\xbf1", b"\"12345678\x01\"",
        b"\"1234567\\\"89\"", b"\"12345678\xe9\"", b"[\"\\/\\b\\f\\r\\t\"]", b"/*c*/1", b"[1]\x00",
    ];
    cases.extend(texts.iter().map(|text| text.to_vec()));
    for case in cases {
        let theirs = serde_json::from_slice::<serde_json::Value>(&case);
        let shown = String::from_utf8_lossy(&case[..case.len().min(60)]).into_owned();
        assert_eq!(whole(&case).is_ok(), theirs.is_ok(), "{shown}: {theirs:?}");
    }
}

#[test]
fn numbers_beyond_floats_are_numbers() {
    assert_eq!(whole(b"[1e400,-1e999]"), Ok(()));
}

#[test]
fn halves_of_surrogate_pairs_are_json_alone_too() {
    for text in
        [r#""\ud83d""#, r#""\ude00""#, r#""\uDE00\uD83D""#, r#""\ud83d\n""#, r#""\ud83d\u0041x""#, r#"{"\udead":1}"#]
    {
        assert_eq!(whole(text.as_bytes()), Ok(()), "{text}");
    }
    for (text, why) in
        [(r#""\ud83d\x""#, Why::Malformed), (r#""\ud83g""#, Why::Malformed), (r#""\ud83d\u"#, Why::Truncated)]
    {
        assert_eq!(whole(text.as_bytes()), Err(why), "{text}");
    }
}

#[test]
fn tells_cut_off_from_malformed() {
    let body = br#"[{"a":"x\n\u00e9\ud83d\ude00","b":[-1.5e3,true,false,null,{}]}]"#;
    for end in 0..body.len() {
        assert_eq!(whole(&body[..end]), Err(Why::Truncated), "cut after {end} bytes");
    }
    assert_eq!(whole(body), Ok(()));
    assert_eq!(whole(b"[tru!]"), Err(Why::Malformed));
}

#[test]
fn a_stop_is_found_at_every_offset() {
    for offset in 0..20 {
        for stop in [b'"', b'\\', 0x00, 0x1f] {
            for filler in [b'a', b' ', b'!', b'#', b'[', b']', 0x7f, 0x80, 0xff] {
                let mut bytes = vec![filler; 24];
                bytes[offset] = stop;
                let mut cursor = Cursor::new(&bytes);
                let seen = cursor.pass_plain();
                assert_eq!(cursor.at, offset, "{stop:#x} among {filler:#x}");
                assert_eq!(seen & HIGH != 0, filler >= 0x80 && offset > 0);
            }
        }
    }
}
