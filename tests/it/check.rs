//! `anteroom check`, as an integrator meets it.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anteroom_stand_in::{Fault, Options, Shape, StandIn};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use crate::support::child::{Ended, run};
use crate::support::raw::Scripted;

const SAMPLES: [&str; 4] = ["list-typical", "list-edge-cases", "list-older-server", "page-example"];

fn sample(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/payload/{name}.json"));
    path.to_str().unwrap().to_owned()
}

fn text_of(name: &str) -> String {
    std::fs::read_to_string(sample(name)).unwrap()
}

async fn check(arguments: &[&str], input: &str) -> Ended {
    run(&[&["check"], arguments].concat(), &[], input).await
}

fn file(folder: &tempfile::TempDir, name: &str, content: impl AsRef<[u8]>) -> String {
    let path: PathBuf = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

const BROKEN: &str = r#"[{"id":"hush","uuid":"u","inbox_id":2,"contact_last_seen_at":0,"status":"hush","agent_last_seen_at":0,
"messages":[{"id":1,"content":null,"message_type":0,"content_type":"text","content_attributes":{},"created_at":1},
{"id":2,"content":"hush","message_type":"0","content_type":"text","content_attributes":{},"created_at":1,"group":"hush"}],
"contact":null,"group":1}]"#;

#[tokio::test]
async fn the_samples_keep_the_contract_from_a_file_and_from_standard_input() {
    for name in SAMPLES {
        let from_file = check(&[&sample(name)], "").await;
        assert_eq!((from_file.code, &*from_file.stderr), (Some(0), ""), "{name}");
        assert!(from_file.stdout.starts_with("The list keeps the contract.\n"), "{name}: {}", from_file.stdout);
        let from_input = check(&["-"], &text_of(name)).await;
        assert_eq!((from_input.code, from_input.stdout), (Some(0), from_file.stdout), "{name}");
    }
}

/// Read as an integrator would; the whole of it, so that a change of it is seen.
#[tokio::test]
async fn the_report_on_a_list_that_differs() {
    let folder = tempfile::tempdir().unwrap();
    let rules = file(&folder, "trim.toml", "payload.trim.messages_per_conversation = 1\n");
    let ended = check(&["--config", &rules, "-"], BROKEN).await;
    assert_eq!((ended.code, &*ended.stderr), (Some(1), ""));
    let expected = "\
The list differs from the contract, 5 times.

  field                     kind                  count  first at
  id                        wrong_type                1  [0].id
  status                    unknown_enum_value        1  [0].status
  messages.message_type     wrong_type                1  [0].messages[1].message_type
  messages.conversation_id  missing                   2  [0].messages[0].conversation_id

Keys that are not on the published page (allowed), 2 times:

  messages.group        1
  group                 1

  size                     bytes
  as received                367
  after trimming             264
  saved                   28.0 %

Where the bytes are (a field includes what is in it; --json has every field):

  messages                              236   64.3 %
  messages.content_attributes            46   12.5 %
  messages.content_type                  42   11.4 %
  messages.message_type                  34    9.2 %
  messages.content                       30    8.1 %
  messages.created_at                    28    7.6 %
  contact_last_seen_at                   24    6.5 %
  agent_last_seen_at                     22    5.9 %
  status                                 15    4.0 %
  contact                                14    3.8 %
  inbox_id                               12    3.2 %
  messages.id                            12    3.2 %
  id                                     11    2.9 %
  uuid                                   10    2.7 %
";
    let without_gzip = without_gzip(&ended.stdout);
    assert_eq!(without_gzip, expected, "{without_gzip}");
    assert!(include_str!("../../docs/contract.md").contains(&expected[..expected.find("\n\nKeys").unwrap()]));
}

/// A report without its column of compressed sizes: they are the business of the library that compresses.
fn without_gzip(report: &str) -> String {
    let is_size = |line: &str| {
        ["  size ", "  as received ", "  after trimming ", "  saved "].iter().any(|it| line.starts_with(it))
    };
    let lines = report.lines().map(|line| if is_size(line) { &line[..32] } else { line });
    lines.map(|line| format!("{line}\n")).collect()
}

/// The block of a document that begins with this line.
fn block(document: &str, fence: &str, first: &str) -> String {
    let (_, rest) = document.split_once(&format!("```{fence}\n{first}")).expect("the block is there");
    format!("{first}{}", rest.split_once("```").unwrap().0)
}

#[tokio::test]
async fn the_figures_in_the_document_are_those_of_its_rules() {
    let document = include_str!("../../docs/contract.md");
    let folder = tempfile::tempdir().unwrap();
    let rules = file(&folder, "trim.toml", block(document, "toml", "[payload.trim]"));
    let ended = check(&["--config", &rules, &sample("list-typical")], "").await;
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
    assert_eq!(without_gzip(&ended.stdout), without_gzip(&block(document, "text", "The list keeps the contract.")));
    let attributes =
        ["contact", "messages.sender"].map(|it| format!("\"{it}.additional_attributes\", \"{it}.custom_attributes\""));
    let rules = file(&folder, "attributes.toml", format!("payload.trim.drop = [{}]", attributes.join(", ")));
    let ended = check(&["--config", &rules, &sample("list-typical")], "").await;
    assert!(ended.stdout.contains(" 8 871 ") && ended.stdout.contains(" 20.4 %"), "{}", ended.stdout);
}

#[tokio::test]
async fn the_report_for_machines() {
    let ended = check(&["--json", "-"], BROKEN).await;
    let report: Value = ended.stdout.parse().unwrap();
    assert_eq!((ended.code, &report["keeps_contract"], &report["not_a_list"]), (Some(1), &false.into(), &Value::Null));
    assert_eq!(report["violations"][3]["field"], "messages.conversation_id");
    assert_eq!(report["violations"][3]["kind"], "missing");
    assert_eq!(report["violations"][3]["count"], 2);
    assert_eq!(report["violations"][3]["example"], "[0].messages[0].conversation_id");
    assert_eq!((&report["unknown_keys"], &report["trimmed"]), (&2.into(), &Value::Null));
    assert_eq!(report["received"]["bytes"], BROKEN.len());
    assert!(!ended.stdout.contains("hush"), "{}", ended.stdout);

    let folder = tempfile::tempdir().unwrap();
    let rules = file(&folder, "trim.toml", "[payload]\nvalidate = \"off\"\n[payload.trim]\ndrop = [\"messages\"]\n");
    let ended = check(&["--json", "--config", &rules, &sample("list-typical")], "").await;
    let report: Value = ended.stdout.parse().unwrap();
    assert_eq!(
        (ended.code, &report["keeps_contract"]),
        (Some(0), &true.into()),
        "checked, whatever the proxy would do"
    );
    assert_eq!(report["received"]["bytes"], text_of("list-typical").len());
    assert!(report["trimmed"]["bytes"].as_u64().unwrap() < 3000, "{report}");
    let fields = report["fields"].as_array().unwrap();
    assert!(fields.len() > 30 && fields[0]["field"] == "id" && fields[0]["bytes"].is_u64(), "{fields:?}");
}

#[tokio::test]
async fn what_is_no_list_is_told_and_differs() {
    for (input, expected) in [
        ("", "an empty body"),
        (" \n", "cut off, at byte 2"),
        ("<html>", "not a JSON array, at byte 0"),
        ("{\"status\":404,\"error\":\"Not Found\"}", "not a JSON array, at byte 0"),
        ("[{\"id\":1}", "cut off, at byte 9"),
        ("[] x", "more after its end, at byte 3"),
        ("[nul]", "not valid JSON, at byte 1"),
    ] {
        let ended = check(&["-"], input).await;
        assert_eq!((ended.code, &*ended.stderr), (Some(1), ""), "{input}");
        assert!(ended.stdout.starts_with(&format!("This is not a list: {expected}.\n")), "{}", ended.stdout);
        let report: Value = check(&["--json", "-"], input).await.stdout.parse().unwrap();
        assert_eq!((&report["not_a_list"], &report["keeps_contract"]), (&expected.into(), &false.into()));
    }
    let folder = tempfile::tempdir().unwrap();
    for (name, content, expected) in [
        ("latin", b"[{\"status\":\"caf\xe9\"}]".to_vec(), "a string that is not UTF-8, at byte 11"),
        ("gzip", b"\x1f\x8b\x08".to_vec(), "compressed with gzip, unpack it first"),
        ("zeros", vec![0; 1 << 20], "not valid JSON, at byte 0"),
    ] {
        let ended = check(&[&file(&folder, name, content)], "").await;
        assert_eq!(ended.code, Some(1), "{name}");
        assert!(ended.stdout.starts_with(&format!("This is not a list: {expected}.\n")), "{}", ended.stdout);
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_a_mistake_of_the_caller() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = file(&folder, "wrong.toml", "payload.trim.drop = [\"contact.emial\"]\n");
    let here = folder.path().to_str().unwrap();
    for (arguments, expected) in [
        (&["/no/such/list.json"][..], "anteroom: /no/such/list.json: No such file or directory (os error 2)\n"),
        (&[here], "Is a directory"),
        (&["--config", &wrong, "-"], "did you mean \"contact.email\"?"),
        (&["--config", "/no/such.toml", "-"], "/no/such.toml"),
        (&["ftp://chat.test/hush"], "anteroom: the URL is neither http nor https\n"),
        (
            &["http://user:hush@chat.test/x"],
            "anteroom: the URL has a user name, which would not be sent; leave it out\n",
        ),
        (&["http://chat.test:99999/hush"], "anteroom: the URL has no proper port\n"),
        (&["http://chat test/hush"], "anteroom: the URL cannot be read; write http://HOST/PATH\n"),
        (&["http://"], "anteroom: the URL cannot be read; write http://HOST/PATH\n"),
    ] {
        let ended = check(arguments, "").await;
        assert_eq!((ended.code, &*ended.stdout), (Some(2), ""), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(expected), "{arguments:?}: {}", ended.stderr);
        assert!(!ended.stderr.contains("hush"), "{}", ended.stderr);
    }
    assert_eq!(check(&[], "").await.code, Some(2), "nothing to check");
}

#[tokio::test]
async fn a_list_is_read_from_a_url() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let url = |source: &str| format!("{}{}", stand_in.url(), StandIn::list_path(source));
    for chunked in [false, true] {
        if chunked {
            stand_in.fault(Fault::Chunked);
        }
        let ended = check(&[&url("visitor-b")], "").await;
        assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "no progress where there is no terminal");
        let bytes = stand_in.list_body("visitor-b").len().to_string();
        let bytes = format!("{} {}", &bytes[..bytes.len() - 3], &bytes[bytes.len() - 3..]);
        assert!(ended.stdout.contains(&bytes), "no {bytes} in {}", ended.stdout);
        stand_in.clear_faults();
    }
    let origin = stand_in.url();
    let gone = check(&[&url("nobody")], "").await;
    let expected = format!("anteroom: {origin}: the answer is 404 Not Found, not a list\n");
    assert_eq!((gone.code, gone.stdout, gone.stderr), (Some(1), String::new(), expected));
    stand_in.fault(Fault::Truncate);
    let cut = check(&[&url("visitor-a")], "").await;
    assert_eq!((cut.code, &*cut.stdout), (Some(1), ""), "{}", cut.stderr);
    assert!(cut.stderr.starts_with(&format!("anteroom: {origin}: ")), "{}", cut.stderr);
    stand_in.clear_faults();
    stand_in.fault(Fault::Html);
    let page = check(&[&url("visitor-a")], "").await;
    assert_eq!(page.code, Some(1));
    assert!(page.stdout.starts_with("This is not a list: not a JSON array"), "{}", page.stdout);
    let address = url("visitor-a");
    stand_in.stop().await;
    let refused = check(&[&address], "").await;
    let expected = format!("anteroom: {origin}: it refused the connection\n");
    assert_eq!((refused.code, refused.stdout, refused.stderr), (Some(1), String::new(), expected));
}

#[tokio::test]
async fn an_answer_that_is_encoded_unasked_is_told() {
    let upstream = Scripted::answering(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: br\r\ncontent-length: 2\r\n\r\n[]",
    )
    .await;
    let ended = check(&[&format!("{}/list?page=2", upstream.url())], "").await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.ends_with("the answer is encoded (br), though that was not asked for\n"), "{}", ended.stderr);
    let seen = upstream.last_request();
    assert_eq!(seen.start_line(), "GET /list?page=2 HTTP/1.1");
    assert_eq!(seen.field("host"), Some(&*upstream.address.to_string()));
}

#[tokio::test]
async fn what_any_read_gives_is_known_for_what_it_is() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let list = StandIn::list_path("visitor-a");
    let conversation = stand_in.conversation_ids("visitor-a")[0];
    let contact = list.trim_end_matches("/conversations").to_owned();
    for (path, route, told) in [
        (list.clone(), "conversations", "The list keeps the contract.\n"),
        (format!("{list}/{conversation}"), "conversation", "The conversation keeps the contract.\n"),
        (format!("{list}/{conversation}/messages"), "messages", "The page of messages keeps the contract.\n"),
        (contact, "contact", "The contact keeps the contract.\n"),
    ] {
        let url = format!("{}{path}", stand_in.url());
        let body = crate::support::get(&url).await.text();
        for (arguments, input) in
            [(vec![url.as_str()], ""), (vec!["-"], body.as_str()), (vec!["--route", route, "-"], body.as_str())]
        {
            let ended = check(&arguments, input).await;
            assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{route}: {}", ended.stdout);
            assert!(ended.stdout.starts_with(told), "{}", ended.stdout);
        }
        let schema = check(&["--schema", "--route", route], "").await.stdout;
        let validator = jsonschema::validator_for(&schema.parse().unwrap()).unwrap();
        assert!(validator.is_valid(&body.parse().unwrap()), "{route}");
        let told_otherwise =
            check(&["--route", if route == "contact" { "messages" } else { "contact" }, "-"], &body).await;
        assert_eq!(told_otherwise.code, Some(1), "{}", told_otherwise.stdout);
    }
    let broken = check(&["-"], r#"[{"id":"1","message_type":0}]"#).await;
    assert!(broken.stdout.starts_with("The page of messages differs from the contract, "), "{}", broken.stdout);
    assert!(broken.stdout.contains("  [0].id\n"), "{}", broken.stdout);
    let unknown = check(&["--route", "lists", "-"], "[]").await;
    assert!(
        unknown.code == Some(2) && unknown.stderr.contains("write one of conversations, conversation"),
        "{}",
        unknown.stderr
    );
}

/// A second opinion, from outside: what `--schema` prints is a JSON Schema that says the same as the check.
#[tokio::test]
async fn the_schema_is_json_schema_and_agrees_with_the_check() {
    let ended = check(&["--schema"], "").await;
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
    let schema: Value = ended.stdout.parse().unwrap();
    assert!(jsonschema::meta::is_valid(&schema));
    let validator = jsonschema::validator_for(&schema).unwrap();
    for name in SAMPLES {
        let list: Value = text_of(name).parse().unwrap();
        let errors: Vec<String> = validator.iter_errors(&list).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
    }
    assert!(!validator.is_valid(&BROKEN.parse().unwrap()));
}

fn anteroom(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anteroom"));
    command.args(arguments).kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[tokio::test]
async fn whoever_reads_only_the_first_lines_gets_no_complaint() {
    let path = sample("list-typical");
    for arguments in [&["check", "--schema"][..], &["check", &path], &["check", "--json", &path]] {
        let mut child = anteroom(arguments).spawn().unwrap();
        drop(child.stdout.take());
        let ended = child.wait_with_output().await.unwrap();
        assert_eq!((ended.status.code(), &*ended.stderr), (Some(0), &b""[..]), "{arguments:?}");
    }
    // A report that did not arrive for another reason is not there.
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let ended = anteroom(&["check", &path]).stdout(full).spawn().unwrap().wait_with_output().await.unwrap();
    assert_eq!(ended.status.code(), Some(2));
    assert!(String::from_utf8(ended.stderr).unwrap().starts_with("anteroom: standard output: "));
}

#[tokio::test]
async fn a_long_list_is_checked_from_a_pipe() {
    let list = text_of("list-typical").parse::<Value>().unwrap().to_string();
    let conversations = list.strip_prefix('[').unwrap().strip_suffix(']').unwrap();
    let list = format!("[{}]", vec![conversations; 1000].join(","));
    let mut child = anteroom(&["check", "--json", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let (written, ended) = tokio::join!(
        async {
            let written = input.write_all(list.as_bytes()).await;
            drop(input);
            written
        },
        child.wait_with_output()
    );
    written.unwrap();
    let ended = ended.unwrap();
    let report: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!((ended.status.code(), &report["received"]["bytes"]), (Some(0), &list.len().into()));
    assert_eq!(report["unknown_keys"], 3000);
}

/// `script` gives a program a terminal; without it there is nothing to hold this by.
#[tokio::test]
async fn a_long_download_shows_how_far_it_is_on_a_terminal() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    stand_in.seed("long", Shape { conversations: 10, messages: 20, bytes: 2000 });
    let url = format!("{}{}", stand_in.url(), StandIn::list_path("long"));
    let line = format!("'{}' check '{url}'", env!("CARGO_BIN_EXE_anteroom"));
    let spawned = Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .kill_on_drop(true)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut child) = spawned else { return };
    let mut shown = String::new();
    child.stdout.take().unwrap().read_to_string(&mut shown).await.unwrap();
    assert_eq!(child.wait().await.unwrap().code(), Some(0), "{shown}");
    let kib = stand_in.list_body("long").len() / 1024;
    assert!(shown.contains(&format!("\r[{}] {kib} of {kib} KiB", "#".repeat(30))), "{shown:?}");
    assert!(shown.matches(" KiB").count() < 20, "a line a step: {shown:?}");
    let (_, after) = shown.rsplit_once("\r\x1b[K").expect("the bar is taken away");
    assert!(after.starts_with("The list keeps the contract."), "{after:?}");
}
