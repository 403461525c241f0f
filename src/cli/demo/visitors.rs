//! Visitors for a demonstration: they read and write through a proxy at their leisure, so that its metrics show
//! something.

use std::time::Duration;

use anteroom_stand_in::StandIn;
use http::{Method, StatusCode, header};

use super::client::{Answer, Client};

/// Between two requests.
const PACE: Duration = Duration::from_millis(150);
/// Before they try again, if nobody answers.
const TRY_AGAIN: Duration = Duration::from_millis(500);
/// Before they look again whether the stand-in is behind the proxy.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Messages they write in all: lists that grow for ever are no demonstration.
const MESSAGES: usize = 100;
/// Turns between two writes.
const TURNS: usize = 20;

/// Visits for ever. Nothing is written as long as what answers has not the stand-in's list: a proxy in front of a real
/// API is left alone.
pub(super) async fn visit(proxy: Client) {
    let mut turn = 0_usize;
    loop {
        let pause = match take_turn(&proxy, turn).await {
            Ok(StatusCode::OK) => {
                turn = turn.wrapping_add(1);
                PACE
            }
            Ok(_) => LOOK_AGAIN,
            Err(_) => TRY_AGAIN,
        };
        tokio::time::sleep(pause).await;
    }
}

/// One reads the list; now and then somebody asks whether it has changed, or for something else, or writes.
async fn take_turn(proxy: &Client, turn: usize) -> Result<StatusCode, String> {
    let visitor = if turn.is_multiple_of(3) { "visitor-b" } else { "visitor-a" };
    let list = StandIn::list_path(visitor);
    let status = proxy.get(&list).await?.status;
    if status != StatusCode::OK {
        return Ok(status);
    }
    // What becomes of these is the proxy's to tell.
    let _ = match turn % TURNS {
        5 => proxy.ask(Method::GET, &list, &[(header::IF_NONE_MATCH, "*")], "").await,
        10 => proxy.ask(Method::GET, &list, &[(header::COOKIE, "theme=dark")], "").await,
        15 => proxy.get(list.trim_end_matches("/conversations")).await,
        0 => write(proxy, turn / TURNS).await,
        _ => return Ok(status),
    };
    Ok(status)
}

async fn write(proxy: &Client, count: usize) -> Result<Answer, String> {
    let conversation = format!("{}/131", StandIn::list_path("visitor-a"));
    let (path, body) =
        if count < MESSAGES { ("messages", r#"{"content":"Hello"}"#) } else { ("update_last_seen", "{}") };
    proxy.post(&format!("{conversation}/{path}"), body).await
}
