"""What the origin serves: lists of a wanted size, made of tests/fixtures/payload/list-typical.json."""

import copy
import gzip
import hashlib
import json
import os
import random

FIXTURE = os.path.join(os.path.dirname(__file__), "../../tests/fixtures/payload/list-typical.json")
# The name is part of the inbox's identifier in the path, and so chooses the file.
SIZES = {"tiny": 0, "1k": 1 << 10, "12k": 12 << 10, "200k": 200 << 10}
WORDS = "the order has left our house today and comes by post please tell us when you are at home thanks".split()

# As Rails sends them; no Set-Cookie, no Date of the application's own.
FIELDS = {
    "vary": "Origin",
    "x-runtime": "0.021181",
    "x-frame-options": "SAMEORIGIN",
    "x-content-type-options": "nosniff",
    "x-xss-protection": "0",
    "x-download-options": "noopen",
    "x-permitted-cross-domain-policies": "none",
    "referrer-policy": "strict-origin-when-cross-origin",
}
# The application says "max-age=0, private, must-revalidate" of a list too. No peer would keep that.
SHARED = "public, max-age=86400"
PRIVATE = "max-age=0, private, must-revalidate"


def encoded(conversations):
    return json.dumps(conversations, ensure_ascii=False, separators=(",", ":")).encode()


def tiny(conversation):
    """The least that keeps to the contract: no messages, a contact who has told nothing."""
    conversation["messages"] = []
    conversation["contact"].update(additional_attributes={}, custom_attributes={}, label_list=[])
    return encoded([conversation])


def payload(size):
    """A list of exactly so many bytes: messages are added, and the last one is filled with words."""
    with open(FIXTURE, encoding="utf-8") as file:
        first = json.load(file)[0]
    if size == 0:
        return tiny(first)
    messages = [one for one in first["messages"] if one["content"]]
    words = random.Random(size)
    first["messages"] = []
    if size < 4096:
        # There is hardly room for anything but one message without a sender.
        first["contact"].update(additional_attributes={}, custom_attributes={})
        messages = [messages[1]]
    while True:
        one = copy.deepcopy(messages[len(first["messages"]) % len(messages)])
        one["id"] += 10 * len(first["messages"])
        one["content"] = ""
        first["messages"].append(one)
        room = size - len(encoded([first]))
        if room < 0:
            raise SystemExit(f"a list of {size} bytes is too small for a message")
        last = room < 3000
        wanted = room if last else 60 + words.randrange(200)
        one["content"] = text(words, wanted)
        if last:
            return encoded([first])


def text(words, size):
    out = ""
    while len(out) < size:
        out += words.choice(WORDS) + (f" {words.randrange(10_000)} " if words.random() < 0.2 else " ")
    return out[:size]


def etag(body):
    return f'W/"{hashlib.sha256(body).hexdigest()[:32]}"'


class Payload:
    """A body in its forms."""

    def __init__(self, name):
        self.name = name
        self.body = payload(SIZES[name])
        self.messages = encoded(json.loads(self.body)[0]["messages"])
        self.gzipped = gzip.compress(self.body, 6, mtime=0)
        self.etag = etag(self.body)

    def path(self, number="@@@@@@@@"):
        """Of the list of one contact; load.c puts a number for the signs."""
        return f"/public/api/v1/inboxes/peers{self.name}/contacts/9b9d46b9-8542-43f5-8077-0000{number}/conversations"

    def passed(self, number="@@@@@@@@"):
        """Of messages as an agent reads them, which nobody keeps."""
        return f"/api/v1/accounts/peers{self.name}/conversations/{number}/messages"

    def answer(self, gzipped=False, not_modified=False):
        """What the floor sends: the bytes of a hit."""
        body = b"" if not_modified else self.gzipped if gzipped else self.body
        fields = dict(FIELDS, etag=self.etag, age="7", date="Thu, 01 Jan 2026 00:00:00 GMT")
        fields["cache-control"] = PRIVATE
        fields["cache-status"] = "floor; hit; ttl=3600"
        if not not_modified:
            fields["content-type"] = "application/json; charset=utf-8"
            fields["content-length"] = str(len(body))
        if gzipped:
            fields["content-encoding"] = "gzip"
        status = "304 Not Modified" if not_modified else "200 OK"
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body
