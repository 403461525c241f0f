// What the labels of the metrics are called here. What is not listed is shown as it is.

export const OUTCOMES = {
  hit: "hit|from memory",
  stale: "stale|refreshed",
  joined: "joined|waited",
  miss: "miss|fetched",
  bypass: "bypass|not shared",
  pass: "pass|anything else",
  write: "write|",
  webhook: "webhook|",
  refused: "refused|not sent on",
  failed: "failed|no answer",
};

export const RESULTS = {
  connect: "no connection",
  timeout: "too late",
  reset: "closed without an answer",
  malformed: "not HTTP",
  client: "the client's body broke off",
};

export const ENDS = {
  answered: "answered",
  too_large: "too large to keep",
  not_storable: "may not be shared",
  upstream_error: "an error of the upstream",
  deadline: "too late",
  breaks_contract: "breaks the contract",
  refused: "refused to the one who asked",
  not_sent: "not sent: everybody had left",
  spared: "not sent: the upstream is spared",
  superseded: "overtaken by a newer one",
  dropped: "dropped by a fault",
  waiter_deadline: "readers who gave up waiting",
};

export const REASONS = {
  authorization: "Authorization",
  cookie: "Cookie",
  api_access_token: "an API access token",
  alias: "another spelling of the path",
  origin: "an origin that cannot be compared",
};

export const SOURCES = {
  write: "writes that passed",
  webhook: "webhooks",
  cable: "events in WebSockets",
  purge: "purges",
  flight: "fetches that were overtaken",
  bypass: "lists that passed and differed",
};

export const WEBHOOKS = {
  outdated: "lists are out of date",
  no_change: "changes no list",
  unattributed: "names no list that was found",
  malformed: "genuine, but no event",
  unsigned: "not signed",
  bad_signature: "wrong signature",
  too_old: "signed too long ago",
  too_large: "too long",
  cut_short: "broke off",
  crowded: "too many at once",
};

export const EVENTS = {
  off: ["Not set up", "Agents' answers are seen when the TTL has passed; see webhook.secrets."],
  none_yet: ["Set up, none has come yet", ""],
  arriving: ["Arriving", ""],
  silent: ["Silent", "A message must have caused one, and none came."],
};

export const CAUSES = { size: "for want of room", replaced: "replaced by newer", explicit: "removed", expired: "too old" };

export const KINDS = {
  missing: "missing",
  wrong_type: "another type",
  unknown_enum_value: "a value that is not on the page",
  null: "null",
};

export const LISTS = {
  keeps_contract: "keep it",
  differs: "differ",
  not_a_list: "are no list",
  unchecked: "were not compared",
};
