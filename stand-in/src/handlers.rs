//! One answer for each route, from the data of this moment.

use std::sync::PoisonError;

use http::{HeaderMap, StatusCode};

use super::account::ACCOUNT;
use super::data::{Conversation, Missing, Sender, Status, World};
use super::http::Reply;
use super::json::{Value, json};
use super::params::{File, Params};
use super::render;
use super::routes::{Route, Who};
use super::shared::Shared;
use super::stamps::hex;
use super::writes::Draft;

/// What a handler gives back: the answer, and how many messages had to be read for it.
pub(super) struct Answer {
    pub(super) reply: Reply,
    pub(super) messages: usize,
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self { reply, messages: 0 }
    }
}

/// Answers a routed request that needs nothing but the data. `reordered` turns the list around.
pub(super) fn answer(
    shared: &Shared,
    route: &Route,
    headers: &HeaderMap,
    params: &Params,
    reordered: bool,
) -> Result<Answer, Missing> {
    let world = &mut *shared.world.lock().unwrap_or_else(PoisonError::into_inner);
    let reply = match route {
        Route::List(who) => return list(world, who, reordered),
        Route::ShowInbox(inbox) => Reply::json(render::inbox(world.inbox(inbox)?)),
        Route::CreateContact(inbox) => create_contact(shared, world, inbox, params)?,
        Route::ShowContact(who) => show_contact(shared, world, who, params)?,
        Route::UpdateContact(who) => update_contact(shared, world, who, params)?,
        Route::CreateConversation(who) => {
            let inbox_id = world.inbox(&who.inbox)?.id;
            let attributes = params.get("custom_attributes").cloned().unwrap_or_else(|| json!({}));
            let id = world.create_conversation(inbox_id, &who.source, attributes)?;
            Reply::json(render::conversation(world, at(world, id)?))
        }
        Route::ShowConversation(who, id) => {
            let conversation = find(world, who, *id)?;
            let (reply, messages) =
                (Reply::json(render::conversation(world, conversation)), conversation.messages.len());
            return Ok(Answer { reply, messages });
        }
        Route::ToggleStatus(who, id) => {
            find(world, who, *id)?;
            world.set_status(*id, Status::Resolved)?;
            Reply::json(render::conversation(world, at(world, *id)?))
        }
        Route::ToggleTyping(who, id) => {
            find(world, who, *id)?;
            if let Some(on @ ("on" | "off")) = params.text("typing_status").as_deref() {
                world.tell_typing(*id, &Sender::Contact, on == "on");
            }
            Reply::empty()
        }
        Route::UpdateLastSeen(who, id) => {
            find(world, who, *id)?;
            world.contact_saw(*id)?;
            Reply::empty()
        }
        Route::Messages(who, id) => {
            let before = params.text("before").and_then(|it| it.parse().ok());
            let reply = Reply::json(render::messages(world, find(world, who, *id)?, before));
            return Ok(Answer { reply, messages: 20 });
        }
        Route::CreateMessage(who, id) => create_message(world, who, *id, params)?,
        Route::UpdateMessage(who, id, message) => update_message(world, who, *id, *message, params)?,
        Route::ShowSurvey(uuid) => {
            let (id, survey) = survey(world, uuid)?;
            Reply::json(csat(world, id, survey)?)
        }
        Route::AnswerSurvey(uuid) => answer_survey(world, uuid, params)?,
        Route::AgentMessage(id) => agent(shared, headers, || agent_message(world, *id, params))?,
        Route::AgentStatus(id) => agent(shared, headers, || agent_status(world, *id, params))?,
        Route::Health => Reply::json(render::to_json(&json!({ "status": "woot" }))),
        Route::Version => Reply::json(render::to_json(&json!({ "version": "4.14.2", "queue_services": "ok" }))),
        Route::Download(_) | Route::Upload | Route::Cable => return Err(Missing),
    };
    Ok(reply.into())
}

fn at(world: &World, id: i64) -> Result<&Conversation, Missing> {
    world.conversations.get(&id).ok_or(Missing)
}

fn find<'a>(world: &'a World, who: &Who, id: i64) -> Result<&'a Conversation, Missing> {
    world.conversation(world.inbox(&who.inbox)?.id, &who.source, id)
}

fn list(world: &World, who: &Who, reordered: bool) -> Result<Answer, Missing> {
    let mut conversations = world.list(world.inbox(&who.inbox)?.id, &who.source)?;
    if reordered {
        conversations.reverse();
    }
    let messages = conversations.iter().map(|it| it.messages.len()).sum();
    Ok(Answer { reply: Reply::json(render::list(world, &conversations)), messages })
}

/// What the hash of a request says. Only some routes of a contact look at it.
enum Hash {
    None,
    Right,
    Wrong,
}

fn hash(shared: &Shared, params: &Params) -> Hash {
    match params.text("identifier_hash") {
        None => Hash::None,
        Some(hash) if hash == shared.identifier_hash => Hash::Right,
        Some(_) => Hash::Wrong,
    }
}

/// A right hash verifies a source id; false is a wrong one, which the real service takes as an exception.
fn check_hash(
    shared: &Shared,
    world: &mut World,
    inbox_id: i64,
    source_id: &str,
    params: &Params,
) -> Result<bool, Missing> {
    world.contact_inbox(inbox_id, source_id)?;
    match hash(shared, params) {
        Hash::None => Ok(true),
        Hash::Right => world.verify(inbox_id, source_id).map(|()| true),
        Hash::Wrong => Ok(false),
    }
}

fn create_contact(shared: &Shared, world: &mut World, inbox: &str, params: &Params) -> Result<Reply, Missing> {
    let inbox_id = world.inbox(inbox)?.id;
    if matches!(hash(shared, params), Hash::Wrong) {
        return Ok(Reply::broken());
    }
    let source_id = world.create_contact(inbox_id, params.text("source_id"), params.contact());
    check_hash(shared, world, inbox_id, &source_id, params)?;
    contact_reply(world, inbox_id, &source_id)
}

fn contact_reply(world: &World, inbox_id: i64, source_id: &str) -> Result<Reply, Missing> {
    let contact_inbox = world.contact_inbox(inbox_id, source_id)?;
    let contact = world.contacts.get(&contact_inbox.contact_id).ok_or(Missing)?;
    Ok(Reply::json(render::contact(source_id, contact_inbox, contact)))
}

fn show_contact(shared: &Shared, world: &mut World, who: &Who, params: &Params) -> Result<Reply, Missing> {
    let inbox_id = world.inbox(&who.inbox)?.id;
    if !check_hash(shared, world, inbox_id, &who.source, params)? {
        return Ok(Reply::broken());
    }
    contact_reply(world, inbox_id, &who.source)
}

fn update_contact(shared: &Shared, world: &mut World, who: &Who, params: &Params) -> Result<Reply, Missing> {
    let inbox_id = world.inbox(&who.inbox)?.id;
    if !check_hash(shared, world, inbox_id, &who.source, params)? {
        return Ok(Reply::broken());
    }
    let id = world.update_contact(inbox_id, &who.source, params.contact())?;
    Ok(Reply::json(render::to_json(world.contacts.get(&id).ok_or(Missing)?)))
}

fn message_reply(world: &World, id: i64, message_id: i64) -> Result<Reply, Missing> {
    let conversation = at(world, id)?;
    let message = conversation.messages.iter().find(|it| it.id == message_id).ok_or(Missing)?;
    Ok(Reply::json(render::message(world, conversation, message)))
}

fn create_message(world: &mut World, who: &Who, id: i64, params: &Params) -> Result<Reply, Missing> {
    find(world, who, id)?;
    let content = params.text("content");
    if content.as_ref().is_some_and(|text| text.chars().count() > 150_000) {
        let rule = "Validation failed: Content is too long (maximum is 150000 characters)";
        return Ok(Reply::invalid(rule, "content"));
    }
    if params.files.len() > 15 {
        return Ok(Reply::invalid("Validation failed: Attachments exceeded maximum allowed", "attachments"));
    }
    let attachments = params.files.iter().map(|file| attachment(world, file)).collect();
    let message_id = world.contact_message(id, content, attachments)?;
    message_reply(world, id, message_id)
}

fn attachment(world: &mut World, file: &File) -> Value {
    let id = world.next_id();
    let major = file.content_type.split('/').next().unwrap_or_default();
    let file_type = if matches!(major, "image" | "audio" | "video") { major } else { "file" };
    let signed = hex(format!("blob {id}").as_bytes());
    let data_url = format!("{}/rails/active_storage/blobs/redirect/{signed}/{}", world.frontend, file.name);
    let thumb_url = if file_type == "image" { data_url.replace("blobs", "representations") } else { String::new() };
    let mut attachment = json!({
        "id": id, "message_id": null, "file_type": file_type, "account_id": ACCOUNT,
        "extension": file.name.rsplit_once('.').map(|(_, extension)| extension),
        "content_type": file.content_type, "data_url": data_url, "thumb_url": thumb_url,
        "file_size": file.length, "width": null, "height": null,
    });
    if file_type == "audio" {
        attachment["transcribed_text"] = json!("");
    }
    attachment
}

fn update_message(world: &mut World, who: &Who, id: i64, message: i64, params: &Params) -> Result<Reply, Missing> {
    find(world, who, id)?;
    // Without values the real service trips over its own error handler.
    let Some(values) = params.get("submitted_values").cloned() else { return Ok(Reply::broken()) };
    world.submit(id, message, values)?;
    message_reply(world, id, message)
}

/// The last survey of the conversation with this uuid.
fn survey(world: &World, uuid: &str) -> Result<(i64, i64), Missing> {
    let conversation = world.conversations.values().find(|it| it.uuid == uuid).ok_or(Missing)?;
    let survey = conversation.messages.iter().rev().find(|it| it.content_type == "input_csat").ok_or(Missing)?;
    Ok((conversation.id, survey.id))
}

fn csat(world: &World, id: i64, survey: i64) -> Result<bytes::Bytes, Missing> {
    let conversation = at(world, id)?;
    let survey = conversation.messages.iter().find(|it| it.id == survey).ok_or(Missing)?;
    Ok(render::csat(world.inbox_by_id(conversation.inbox_id)?, conversation, survey))
}

fn answer_survey(world: &mut World, uuid: &str, params: &Params) -> Result<Reply, Missing> {
    const FORTNIGHT: i64 = 14 * 24 * 3600;
    let (id, survey) = survey(world, uuid)?;
    let now = world.now_seconds();
    let asked = at(world, id)?.messages.iter().find(|it| it.id == survey).map_or(now, |it| it.created_at);
    if now - asked > FORTNIGHT {
        let body = json!({ "error": "You cannot update the CSAT survey after 14 days" });
        return Ok(Reply::refused(StatusCode::UNPROCESSABLE_ENTITY, &body));
    }
    let values = params.get("message").and_then(|it| it.get("submitted_values")).cloned();
    let Some(values) = values else { return Ok(Reply::broken()) };
    world.submit(id, survey, values)?;
    Ok(Reply::json(csat(world, id, survey)?))
}

/// The account API wants a token.
fn agent(shared: &Shared, headers: &HeaderMap, act: impl FnOnce() -> Result<Reply, Missing>) -> Result<Reply, Missing> {
    let token = headers.get("api_access_token").or_else(|| headers.get("api-access-token"));
    if token.is_some_and(|token| token.as_bytes() == shared.agent_token.as_bytes()) {
        return act();
    }
    let body = json!({ "errors": ["You need to sign in or sign up before continuing."] });
    Ok(Reply::refused(StatusCode::UNAUTHORIZED, &body))
}

fn agent_message(world: &mut World, id: i64, params: &Params) -> Result<Reply, Missing> {
    let agent = world.agents.keys().next().copied().ok_or(Missing)?;
    let content = params.text("content").unwrap_or_default();
    let message_id = if params.text("message_type").as_deref() == Some("incoming") {
        world.contact_message(id, Some(content), Vec::new())?
    } else {
        let private = params.text("private").as_deref() == Some("true");
        world.add_message(id, Draft { private, ..Draft::text(&content, 1, Sender::Agent(agent)) })?
    };
    let conversation = at(world, id)?;
    let message = conversation.messages.iter().find(|it| it.id == message_id).ok_or(Missing)?;
    Ok(Reply::json(render::to_json(&render::message_event(world, conversation, message))))
}

fn agent_status(world: &mut World, id: i64, params: &Params) -> Result<Reply, Missing> {
    let toggled = if at(world, id)?.status == Status::Resolved { Status::Open } else { Status::Resolved };
    let wanted = params.get("status").cloned().and_then(|it| it.read().ok());
    let status = wanted.unwrap_or(toggled);
    world.set_status(id, status)?;
    let payload = json!({ "success": true, "conversation_id": id, "current_status": status });
    Ok(Reply::json(render::to_json(&json!({ "meta": {}, "payload": payload }))))
}
