// Existing clients, unchanged but for the host: the npm SDK and the published page's own curl line.
//
// Run by `make test-clients`, which installs the SDK into build/clients and names the program in ANTEROOM.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

const folder = fileURLToPath(new URL("../../build/clients/", import.meta.url));
const { default: ChatwootClient } = createRequire(folder)("@figuro/chatwoot-sdk");

const contactIdentifier = "visitor-a";
let program, proxy, standIn, inboxIdentifier;

before(async () => {
  program = spawn(process.env.ANTEROOM, ["demo", "--no-acts", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  for await (const line of createInterface({ input: program.stdout })) {
    standIn ??= line.match(/^stand-in for the API on (\S+)/)?.[1];
    proxy ??= line.match(/^listening on (\S+)/)?.[1];
    inboxIdentifier ??= line.match(/\/inboxes\/([^/]+)\//)?.[1];
    if (standIn && proxy && inboxIdentifier) break;
  }
});

after(() => program.kill());

const sdk = (basePath, more = {}) => new ChatwootClient({ config: { basePath, ...more } }).client;
const list = (client, contact = contactIdentifier) =>
  client.conversations.list({ inboxIdentifier, contactIdentifier: contact });

test("the SDK reads the same list through the proxy as from the API", async () => {
  const direct = await list(sdk(standIn));
  assert.ok(direct.length > 0);
  assert.deepEqual(await list(sdk(proxy)), direct);
  assert.deepEqual(await list(sdk(proxy)), direct, "the second time too, from memory");
});

test("the SDK with a token works, and sees no older list than another reader", async () => {
  const direct = await list(sdk(standIn));
  assert.deepEqual(await list(sdk(proxy, { with_credentials: true, credentials: "include", token: "t" })), direct);
});

test("a message written through the SDK is in the next list it reads", async () => {
  const client = sdk(proxy);
  const [conversation] = (await list(client)).filter(({ status }) => status === "open");
  const content = `is it there? ${Date.now()}`;
  await client.messages.create({
    inboxIdentifier,
    contactIdentifier,
    conversationId: conversation.id,
    data: { content, echo_id: "1" },
  });
  const contents = (await list(client)).flatMap(({ messages }) => messages.map((message) => message.content));
  assert.ok(contents.includes(content));
});

test("the SDK reads messages and the contact through the proxy as from the API, from memory too", async () => {
  const [{ id: conversationId }] = await list(sdk(standIn));
  const who = { inboxIdentifier, contactIdentifier };
  const reads = [
    (client) => client.messages.list({ ...who, conversationId }),
    (client) => client.contacts.get(who),
  ];
  for (const read of reads) {
    const direct = await read(sdk(standIn));
    for (let times = 0; times < 2; times += 1) assert.deepEqual(await read(sdk(proxy)), direct);
  }
  // The SDK has no call for one conversation; pages ask for it themselves.
  const path = `/public/api/v1/inboxes/${inboxIdentifier}/contacts/${contactIdentifier}`;
  for (const below of [`/conversations/${conversationId}`, `/conversations/${conversationId}/messages`, ""]) {
    const direct = await (await fetch(standIn + path + below)).json();
    const answers = [await fetch(proxy + path + below), await fetch(proxy + path + below)];
    assert.match(answers[1].headers.get("cache-status"), /^anteroom; hit/);
    for (const answer of answers) assert.deepEqual(await answer.json(), direct);
  }
});

test("a message written through the SDK is in the next page of messages it reads", async () => {
  const client = sdk(proxy);
  const [{ id: conversationId }] = await list(client);
  const who = { inboxIdentifier, contactIdentifier, conversationId };
  await client.messages.list(who);
  const content = `is it there, too? ${Date.now()}`;
  await client.messages.create({ ...who, data: { content } });
  assert.equal((await client.messages.list(who)).at(-1).content, content);
});

test("a contact and a conversation created through the SDK can be read at once", async () => {
  const client = sdk(proxy);
  const contact = await client.contacts.create({ inboxIdentifier, data: { name: "New", email: "new@example.test" } });
  assert.deepEqual(await list(client, contact.source_id), []);
  await client.conversations.create({ inboxIdentifier, contactIdentifier: contact.source_id });
  assert.equal((await list(client, contact.source_id)).length, 1);
});

test("an unknown contact is the API's own 404, to the SDK an error with that status", async () => {
  await assert.rejects(list(sdk(proxy), "nobody"), ({ status, body }) => {
    assert.equal(status, 404);
    assert.deepEqual(body, { status: 404, error: "Not Found" });
    return true;
  });
});

test("the published page's curl line works with the host replaced", () => {
  const path = `/public/api/v1/inboxes/${inboxIdentifier}/contacts/${contactIdentifier}/conversations`;
  const curl = (host) => execFileSync("curl", ["--silent", "--request", "GET", "--url", `${host}${path}`]).toString();
  assert.equal(curl(proxy), curl(standIn));
  assert.equal(curl(proxy), curl(standIn));
});
