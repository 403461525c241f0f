//! Trimming, rule by rule.

use super::*;

const LIST: &str = r#"[{"id":9,"status":"open","messages":[{"id":1,"created_at":10},{"id":2,"created_at":20,"sender":{"id":4,"type":"contact","email":"e"}},{"id":3,"created_at":20}],"contact":{"id":6,"email":null}},{"id":3,"status":"resolved","uuid":"u","messages":[]}]"#;

#[test]
fn nothing_taken_away_is_the_same_body() {
    let body = Bytes::from_static(b" [ { \"id\" : 1.50 , \"status\":\"open\" } ] ");
    for settings in [
        trimming(None, &[], "", false),
        trimming(Some(5), &["open"], "uuid contact.email", true),
        trimming(Some(0), &["open", "resolved"], "messages.id", true),
    ] {
        let outcome = apply(&body, &settings).expect("a list");
        assert!(!outcome.changed);
        assert_eq!(outcome.body.as_ptr(), body.as_ptr());
    }
}

#[test]
fn half_a_pair_of_surrogates_stands_as_it_stood() {
    let message = r#"{"content":"cut \ud83d","\udead":"\ude00"}"#;
    let list = format!(r#"[{{"id":1,"status":"\ud83d","messages":[{{"content":"older"}},{message}]}},{{"id":2}}]"#);
    assert!(!check(list.clone()).changed);
    let newest = trimmed(&list, &trimming(Some(1), &[], "contact", true));
    assert_eq!(newest, format!(r#"[{{"id":1,"status":"\ud83d","messages":[{message}]}},{{"id":2}}]"#));
    assert_eq!(trimmed(&list, &trimming(None, &["open"], "", false)), "[]", "it is no status that anybody asks for");
}

#[test]
fn newest_messages_of_each_conversation() {
    let messages = |limit| trimmed(LIST, &trimming(Some(limit), &[], "messages.sender contact status uuid", false));
    assert_eq!(messages(0), r#"[{"id":9,"messages":[]},{"id":3,"messages":[]}]"#);
    assert_eq!(messages(1), r#"[{"id":9,"messages":[{"id":3,"created_at":20}]},{"id":3,"messages":[]}]"#);
    let two = r#"[{"id":9,"messages":[{"id":2,"created_at":20},{"id":3,"created_at":20}]},{"id":3,"messages":[]}]"#;
    assert_eq!(messages(2), two);
    assert_eq!(messages(3).matches("created_at").count(), 3);
}

#[test]
fn newest_goes_by_time_then_place_and_keeps_the_order() {
    for (times, limit, kept) in [
        ("5 4 3 2 1", 2, "5 4"),
        ("1 5 2 4 3", 3, "5 4 3"),
        ("7 7 7 7", 2, "7 7"),
        ("1 x 2 x 0", 3, "1 2 0"),
        ("x x 1", 2, "x 1"),
        ("-3 -1 -2", 2, "-1 -2"),
        ("1e1 9 8.5", 2, "1e1 9"),
        ("\"30\" 4 5", 2, "\"30\" 5"),
        ("9223372036854775807 1e300 5", 1, "1e300"),
    ] {
        let list = |times: &str| {
            let message = |time: &str| {
                if time == "x" { r#"{"created_at":null}"#.to_owned() } else { format!(r#"{{"created_at":{time}}}"#) }
            };
            format!(r#"[{{"messages":[{}]}}]"#, times.split(' ').map(message).collect::<Vec<_>>().join(","))
        };
        assert_eq!(trimmed(&list(times), &trimming(Some(limit), &[], "", false)), list(kept), "{limit} of {times}");
    }
}

#[test]
fn a_time_named_twice_is_the_last_one() {
    let list =
        r#"[{"messages":[{"created_at":9,"created_at":null},{"created_at":2},{"created_at":[],"created_at":3}]}]"#;
    let kept = r#"[{"messages":[{"created_at":2},{"created_at":[],"created_at":3}]}]"#;
    assert_eq!(trimmed(list, &trimming(Some(2), &[], "", false)), kept);
}

#[test]
fn statuses_wherever_the_status_stands() {
    let open = trimming(Some(1), &["open", "snoozed"], "", false);
    for (list, kept) in [
        (
            r#"[{"status":"open"},{"status":"resolved"},{"status":"snoozed"}]"#,
            r#"[{"status":"open"},{"status":"snoozed"}]"#,
        ),
        (r#"[{"messages":[1,2],"status":"resolved"},{"status":"open"}]"#, r#"[{"status":"open"}]"#),
        (r#"[{"messages":[1,2],"status":"open"}]"#, r#"[{"messages":[2],"status":"open"}]"#),
        (r#"[{"messages":[1,2],"x":{"status":"open"}}]"#, "[]"),
        (r#"[{"status":1},{},null,{"status":null},{"status":"OPEN"}]"#, "[]"),
        // The last one counts, as for any client.
        (r#"[{"status":"open","messages":[1,2],"status":"resolved"}]"#, "[]"),
        (r#"[{"status":"resolved","messages":[],"st\u0061tus":"op\u0065n"}]"#, ""),
        (r#"[{"messages":[1,2],"status":"open","status":5}]"#, "[]"),
        (
            r#"[{"messages":[1,2],"messages":[3,4],"status":"open"}]"#,
            r#"[{"messages":[2],"messages":[4],"status":"open"}]"#,
        ),
    ] {
        assert_eq!(trimmed(list, &open), if kept.is_empty() { list } else { kept });
    }
}

#[test]
fn a_status_after_the_messages_counts_whatever_the_limit() {
    for (list, newest) in [
        (r#"[{"status":"resolved","messages":[1,2],"status":"open"},{"status":"open","messages":[3]}]"#, true),
        (r#"[{"status":"resolved","messages":[1],"messages":[2],"status":"open","messages":[]}]"#, true),
        (r#"[{"messages":[1,2],"status":"open","status":"resolved"}]"#, false),
        (r#"[{"status":"open","messages":[1,2],"status":null}]"#, false),
    ] {
        for limit in [1, 2, 5_000, 1_000_000] {
            let expected = model::parse(list).trim(Some(limit), &["open"], "", false).write();
            assert_eq!(trimmed(list, &trimming(Some(limit), &["open"], "", false)), expected, "{limit}");
            assert_eq!(expected != "[]", newest);
        }
    }
}

#[test]
fn fields_go_at_every_level_and_the_rest_stands() {
    let list = r#"[{"id":1,"messages":[{"attachments":[null,{"id":2,"meta":{"a":1e400,"b":{"c":"\u003c"}}}],"content":"\u00e9"}],"contact":{"e":1}}]"#;
    for (drop, kept) in [
        (
            "id",
            r#"[{"messages":[{"attachments":[null,{"id":2,"meta":{"a":1e400,"b":{"c":"\u003c"}}}],"content":"\u00e9"}],"contact":{"e":1}}]"#,
        ),
        ("messages", r#"[{"id":1,"contact":{"e":1}}]"#),
        ("messages.attachments", r#"[{"id":1,"messages":[{"content":"\u00e9"}],"contact":{"e":1}}]"#),
        (
            "messages.attachments.id",
            r#"[{"id":1,"messages":[{"attachments":[null,{"meta":{"a":1e400,"b":{"c":"\u003c"}}}],"content":"\u00e9"}],"contact":{"e":1}}]"#,
        ),
        (
            "messages.attachments.meta.b.c contact",
            r#"[{"id":1,"messages":[{"attachments":[null,{"id":2,"meta":{"a":1e400,"b":{}}}],"content":"\u00e9"}]}]"#,
        ),
        (
            "messages.attachments.meta.a contact.e?",
            r#"[{"id":1,"messages":[{"attachments":[null,{"id":2,"meta":{"b":{"c":"\u003c"}}}],"content":"\u00e9"}],"contact":{}}]"#,
        ),
    ] {
        assert_eq!(trimmed(list, &trimming(None, &[], drop, false)), kept, "{drop}");
    }
    // Keys with escapes, keys named twice, values of another type than the contract's.
    let odd = r#"[{"\u0069d":1,"contact":[{"email":1},[{"email":2,"x":3}]],"contact":"y","id":2,"messages":{"id":5}}]"#;
    let kept = r#"[{"contact":[{},[{"x":3}]],"contact":"y","messages":{}}]"#;
    assert_eq!(trimmed(odd, &trimming(Some(1), &[], "id contact.email messages.id", false)), kept);
}

#[test]
fn white_space_goes_only_with_what_it_stood_beside() {
    let list = "[ { \"id\" : 1 , \"uuid\" : \"u\" , \"contact\" : { \"email\" : [ 1 ,  2 ] } } ]";
    let kept = trimmed(list, &trimming(None, &[], "uuid", false));
    assert_eq!(kept, r#"[{ "id" : 1 , "contact" : { "email" : [ 1 ,  2 ] } }]"#);
    let kept = trimmed(list, &trimming(None, &[], "id contact", false));
    assert_eq!(kept, r#"[{ "uuid" : "u" }]"#);
}

#[test]
fn conversations_by_id() {
    // An id named twice, the last time as something else, is none: the last one counts.
    let list = r#"[{"id":20},{"x":1},{"id":"3"},{"id":1.5},{"id":0,"\u0069d":[]},{"id":3,"y":2},5]"#;
    let sorted = r#"[{"id":"3"},{"id":3,"y":2},{"id":20},{"x":1},{"id":1.5},{"id":0,"\u0069d":[]},5]"#;
    assert_eq!(trimmed(list, &trimming(None, &[], "", true)), sorted);
}

#[test]
fn scopes_and_violations_are_of_the_list_before_trimming() {
    let everything = trimming(Some(0), &["pending"], "id uuid contact messages", true);
    let outcome = apply(&Bytes::from(LIST), &everything).expect("a list");
    assert_eq!(&outcome.body[..], b"[]");
    let untrimmed = check(LIST);
    assert_eq!(outcome.scopes, untrimmed.scopes);
    assert_eq!((outcome.scopes.contacts, outcome.scopes.display_ids), (vec![4, 6], vec![3, 9]));
    assert_eq!(outcome.scopes.uuids, ["u"]);
    assert_eq!(outcome.violations.total(), untrimmed.violations.total());
}

/// Whoever leaves a field out of lists does not find it in what another read gives.
#[test]
fn other_reads_lose_what_the_list_loses_and_no_conversation() {
    let of = |read, body: &str, settings: &PayloadSettings| {
        let outcome = apply_to(read, &Bytes::from(body.to_owned()), settings).expect("what it gives");
        assert_eq!(outcome.changed, outcome.body != body, "{body}");
        String::from_utf8(outcome.body.to_vec()).expect("UTF-8")
    };
    for (name, sample) in SAMPLES {
        let list: Value = sample.parse().expect("valid");
        for drop in [
            "",
            "uuid",
            "messages.sender",
            "contact.email messages.sender.email",
            "messages.attachments.meta contact.id",
        ] {
            for limit in [None, Some(0), Some(1), Some(1000)] {
                let settings = trimming(limit, &["snoozed"], drop, true);
                let alike = trimming(limit, &[], drop, false);
                for conversation in list.as_array().expect("a list") {
                    let whole = conversation.to_string();
                    let expected = trimmed(&format!("[{whole}]"), &alike);
                    assert_eq!(
                        format!("[{}]", of(ReadKind::Conversation, &whole, &settings)),
                        expected,
                        "{name}: {drop}"
                    );
                    let all: Value =
                        trimmed(&format!("[{whole}]"), &trimming(None, &[], drop, false)).parse().expect("valid");
                    let page = of(ReadKind::Messages, &conversation["messages"].to_string(), &settings);
                    assert_eq!(
                        page.parse::<Value>().expect("valid"),
                        all[0]["messages"],
                        "{name}: {drop}: pages stay long"
                    );
                }
            }
        }
    }
    let settings = trimming(Some(1), &[], "contact.email contact.name messages.id", false);
    let contact = of(ReadKind::Contact, CONTACT_EXAMPLE, &settings);
    assert_eq!(contact, r#"{"source_id":"s","pubsub_token":"t","id":42,"phone_number":null}"#);
    let gone = trimming(None, &[], "contact messages", false);
    assert_eq!(of(ReadKind::Contact, CONTACT_EXAMPLE, &gone), CONTACT_EXAMPLE, "it is what was asked for");
    assert_eq!(of(ReadKind::Messages, r#"[ {"id":1} ]"#, &gone), r#"[ {"id":1} ]"#);
}
