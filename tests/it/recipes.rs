//! The recipes of the documents, as they stand there: only addresses and files are other ones.

use std::fs;
use std::path::Path;

use anteroom_stand_in::{Options, StandIn};
use http::{Request, StatusCode};
use http_body_util::Full;

use crate::support::nginx::Nginx;
use crate::support::tls::Certificate;
use crate::support::{Proxy, get_with};

/// The block of a document that begins like this, with each of these replaced by something else; all have to be there.
fn recipe(document: &str, beginning: &str, changes: &[(&str, &str)]) -> String {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(document)).unwrap();
    let blocks = text.split("```").skip(1).step_by(2);
    let mut block = blocks.filter_map(|block| block.split_once('\n')).map(|(_, block)| block);
    let found = block.find(|block| block.starts_with(beginning));
    let mut found = found.unwrap_or_else(|| panic!("{document} has no block that begins {beginning:?}")).to_owned();
    for (there, here) in changes {
        assert!(found.contains(there), "{document}: {there:?} is not in\n{found}");
        found = found.replace(there, here);
    }
    found
}

/// Reads the list twice through a front; the second time it is a hit, and the API was told of the client once.
async fn works(front: &str, stand_in: &StandIn) {
    let url = format!("{front}{}", StandIn::list_path("visitor-a"));
    // What a client claims to be is nobody's business.
    let first = get_with(&url, &[("x-forwarded-for", "203.0.113.7")]).await;
    assert!(first.status == StatusCode::OK && first.cache_status().starts_with("anteroom; fwd=uri-miss"));
    assert!(get_with(&url, &[]).await.is_hit());
    let [asked] = &stand_in.requests()[..] else { panic!("{:?}", stand_in.requests()) };
    assert_eq!(asked.headers["x-forwarded-proto"], "http");
    assert!(!asked.headers["x-forwarded-for"].to_str().unwrap().contains("203.0.113.7"), "{asked:?}");
}

#[tokio::test]
async fn by_itself_with_tls() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let certificate = Certificate::for_names(&["127.0.0.1"]);
    for readme in ["README.md", "README.pt-BR.md"] {
        let settings = recipe(
            readme,
            "[upstream]",
            &[
                ("https://chat.example.com", &stand_in.url()),
                (
                    "/etc/letsencrypt/live/api.example.com/fullchain.pem",
                    &certificate.certificate().display().to_string(),
                ),
                ("/etc/letsencrypt/live/api.example.com/privkey.pem", &certificate.key().display().to_string()),
            ],
        );
        let proxy = Proxy::with_settings(&settings).await;
        for expected in ["anteroom; fwd=uri-miss", "anteroom; hit"] {
            let url = format!("{}{}", proxy.url.replace("http:", "https:"), StandIn::list_path("visitor-a"));
            let request = Request::get(url).body(Full::default()).unwrap();
            let answer = certificate.client().request(request).await.expect("TLS");
            assert!(answer.headers()["cache-status"].to_str().unwrap().starts_with(expected), "{:?}", answer.headers());
        }
    }
}

#[tokio::test]
async fn behind_nginx_as_the_readme_has_it() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let proxy = Proxy::start(&stand_in, "listen.trusted_proxies = [\"127.0.0.1\"]").await;
    let location = recipe("README.md", "location /public/api/v1/", &[("http://127.0.0.1:8080", &proxy.url)]);
    let nginx = Nginx::with(|address| format!("server {{ listen {address}; {location} }}")).await;
    works(&format!("http://{}", nginx.address), &stand_in).await;
}

#[tokio::test]
async fn behind_nginx_with_chatwoot_beside_as_the_manual_has_it() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let proxy = Proxy::start(&stand_in, "listen.trusted_proxies = [\"127.0.0.1\"]").await;
    let nginx = Nginx::with(|address| {
        recipe(
            "docs/operating.md",
            "upstream anteroom",
            &[
                ("127.0.0.1:8080", proxy.url.trim_start_matches("http://")),
                ("http://127.0.0.1:3000", &stand_in.url()),
                ("listen 443 ssl", &format!("listen {address}")),
            ],
        )
    })
    .await;
    let front = format!("http://{}", nginx.address);
    works(&front, &stand_in).await;
    // The rest goes to Chatwoot itself.
    let page = get_with(&format!("{front}/app"), &[]).await;
    assert!(page.status == StatusCode::NOT_FOUND && page.header("via").is_none(), "{:?}", page.headers);
}
