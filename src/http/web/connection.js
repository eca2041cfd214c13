// The WebSocket and the session. When the connection is lost, it reconnects and takes back its place in the room.
//
// It calls these methods of its listener:
//   onState(state, seconds)      "idle", "connecting", "online", "backoff" (retry in `seconds`), "name-in-use",
//                                "replaced" (the session was taken over, as by a copy of this tab) or "removed" (by a
//                                moderator)
//   onMessage(message)           any message but `history`. On a first join, user_list and command_list precede
//                                onJoined(); on a resume, user_list may follow it
//   onJoined(answer)             the `history` that answers a join
//   onOlder(answer)              the `history` that answers requestOlder()
//   onJoinRejected(reason, needsPassword)  the join failed and is not retried
//   onDisconnected(code, reason) the connection of a member was lost and is retried
//   onRemoved(reason, joinError) a moderator has removed the member, or keeps it out (`joinError`). It is not retried

import { load, save } from "./storage.js";

const PAGE_LENGTH = 50; // messages
const MIN_BACKOFF_MS = 1_000; // doubled with each failure
const MAX_BACKOFF_MS = 30_000;
const CONNECT_TIMEOUT_MS = 15_000;
// How often, and how long apart, a join is retried while the name is in use. A place kept for longer than 40 s is not
// waited for.
const NAME_RETRIES = 8;
const NAME_RETRY_MS = 5_000;
// Scripts cannot see pings, so a silent connection is tested with an empty history request.
const MAX_SILENCE_MS = 15_000;
const PROBE_TIMEOUT_MS = 5_000;
const MAX_PROBE_MS = 15_000; // with other messages before the answer, as on a slow connection
const NORMAL_CLOSE = 1000; // close code: the member leaves
const REPLACED = 4001; // close code: another connection has taken the place
const POLICY = 1008; // close code: removed by a moderator, unless the reason contains TOO_SLOW
const TOO_SLOW = "HANDSHAKE_TIMEOUT";
// The error that answers a join. A name and the reason of a ban may contain the word as well.
const ASKS_FOR_PASSWORD = /^(?!You are banned|.* is in use).*\bpassword/i;

export class Connection {
  #url;
  #listener;
  #socket = null;
  #name = null;
  #session = null; // the secret that takes back the place
  #password = null; // in memory only, for a join after the session has ended
  #sentPassword = false; // with the last join
  #position = null; // { epoch, since }: the newest message received
  #isMember = false;
  #wasMember = false; // under this name, on this or an earlier socket
  #isHeld = false; // reconnects only when the user asks for it
  #joinError = ""; // on this socket
  #requests = []; // for history, not yet answered: "probe" or "older"
  #failures = 0;
  #nameRetries = 0;
  #timer = 0; // for the response to a connect or join, or for the next retry
  #probeTimer = 0;
  #probedAt = 0; // ms
  #receivedAt = 0; // ms

  constructor(url, listener) {
    this.#url = url;
    this.#listener = listener;
    addEventListener("online", () => (this.#isMember ? this.check() : this.#reopen()));
    addEventListener("offline", () => this.#wasMember && this.#socket && this.#onClose(1006, ""));
    addEventListener("pageshow", () => this.check());
    document.addEventListener("visibilitychange", () => document.hidden || this.check());
    let checkedAt = Date.now();
    setInterval(() => {
      const isSilent = this.#isMember && Date.now() - this.#receivedAt > MAX_SILENCE_MS;
      const hasSlept = Date.now() - checkedAt > 30_000; // the computer, as the clock jumped
      if (isSilent || hasSlept) this.check();
      checkedAt = Date.now();
    }, 1_000);
  }

  // As the server writes it, once it is known.
  get name() {
    return this.#name;
  }

  get position() {
    return this.#position;
  }

  get isOnline() {
    return this.#isMember && this.#socket.readyState === WebSocket.OPEN;
  }

  // `password` may be empty.
  join(name, password) {
    if (name !== this.#name) this.#reset();
    this.#name = name;
    this.#password = password;
    this.#isHeld = false;
    if (this.#socket?.readyState === WebSocket.OPEN) this.#sendJoin();
    else this.#open();
  }

  // After a reload: takes back this tab's place, and returns whether it has one. The answer contains what was said
  // after the position, if there is one.
  resume(position) {
    const stored = load("session");
    if (!stored) return false;
    ({ name: this.#name, session: this.#session } = stored);
    this.#position = position;
    this.#wasMember = true;
    this.#open();
    return true;
  }

  leave() {
    this.#close(true);
    this.#reset();
    this.#listener.onState("idle");
  }

  // Returns whether the message was sent. Nothing is queued here.
  send(message) {
    if (!this.isOnline) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  // Requests the page before the message with this id, and returns whether it could.
  requestOlder(id) {
    return this.#request("older", { before: id, limit: PAGE_LENGTH });
  }

  // Takes the place back from the connection that replaced this one, or joins again after a removal.
  rejoin() {
    this.#isHeld = false;
    this.#reopen();
  }

  // Reconnects now, or checks that the connection still works.
  check() {
    if (this.#socket === null) {
      this.#reopen();
    } else if (!this.#probeTimer && this.#request("probe", { limit: 0 })) {
      this.#probedAt = Date.now();
      this.#awaitProbe();
    }
  }

  #request(purpose, fields) {
    const isSent = this.send({ type: "history", ...fields });
    if (isSent) this.#requests.push(purpose);
    return isSent;
  }

  #reopen() {
    if (this.#name !== null && !this.#isHeld) this.#open();
  }

  #open() {
    this.#close();
    this.#joinError = "";
    this.#listener.onState("connecting");
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    this.#startTimeout();
    socket.onopen = () => {
      this.#nameRetries = 0;
      this.#sendJoin();
    };
    socket.onmessage = ({ data }) => this.#onMessage(data);
    socket.onclose = ({ code, reason }) => this.#onClose(code, reason);
  }

  // A session needs no password, which would cost the server a hash.
  #sendJoin(withPassword = this.#session === null) {
    this.#sentPassword = withPassword;
    const session = this.#session ?? undefined; // undefined fields are not sent
    const password = (withPassword && this.#password) || undefined;
    const options = { password, history: PAGE_LENGTH, session, ...this.#position };
    this.#socket.send(JSON.stringify({ type: "join", username: this.#name, ...options }));
    this.#startTimeout();
  }

  #onMessage(data) {
    this.#receivedAt = Date.now();
    if (this.#probeTimer && Date.now() - this.#probedAt < MAX_PROBE_MS) this.#awaitProbe();
    if (!this.#isMember) this.#startTimeout(); // the answer to the join may be long
    let message;
    try {
      message = JSON.parse(data);
    } catch {
      return;
    }
    const { type, id } = message;
    if (type === "history" && !this.#isMember) {
      this.#onJoined(message);
      return;
    }
    if (this.#isMember && id > this.#position.since) this.#position.since = id;
    if (type === "history") {
      this.#onHistory(message);
    } else if (this.#isMember || type !== "error") {
      // A new member is the last in the list, which is in join order.
      if (type === "user_list" && this.#session === null) this.#name = message.content.at(-1).username;
      this.#listener.onMessage(message);
    } else {
      this.#onJoinError(message.content);
    }
  }

  #onJoined(answer) {
    clearTimeout(this.#timer);
    this.#session = answer.session;
    this.#position = { epoch: answer.epoch, since: answer.id };
    save("session", { name: this.#name, session: this.#session });
    this.#isMember = this.#wasMember = true;
    this.#failures = 0;
    this.#joinError = "";
    this.#listener.onState("online");
    this.#listener.onJoined(answer);
  }

  #onHistory(answer) {
    if (this.#requests.shift() === "probe") this.#stopProbe();
    else this.#listener.onOlder(answer);
  }

  #onJoinError(reason) {
    this.#joinError = reason;
    if (ASKS_FOR_PASSWORD.test(reason)) {
      this.#onPasswordNeeded(reason);
    } else if (this.#wasMember && this.#nameRetries < NAME_RETRIES) {
      this.#nameRetries += 1;
      if (reason.includes("in use")) this.#listener.onState("name-in-use");
      this.#setTimer(NAME_RETRY_MS, () => this.#sendJoin());
    } else {
      // The socket stays open for another name.
      clearTimeout(this.#timer);
      this.#rejectJoin(reason);
    }
  }

  #onPasswordNeeded(reason) {
    if (this.#password && !this.#sentPassword) {
      this.#sendJoin(true);
    } else if (this.#wasMember) {
      // Keeps the position, so that nothing is lost meanwhile.
      this.#hold("idle");
      this.#listener.onJoinRejected(reason, true);
    } else {
      clearTimeout(this.#timer);
      this.#rejectJoin(reason, true);
    }
  }

  #onClose(code, reason) {
    const wasJoined = this.#isMember;
    this.#close();
    if (this.#name === null || this.#isHeld) return;
    if (code === REPLACED) {
      this.#hold("replaced");
      return;
    }
    if (code === POLICY && !reason.includes(TOO_SLOW) && this.#wasMember) {
      this.#hold("removed");
      this.#listener.onRemoved(reason, this.#joinError);
      return;
    }
    if (!this.#wasMember) {
      this.#rejectJoin("Couldn't connect. The server may be unreachable or full. Try again in a moment.");
      return;
    }
    if (wasJoined) this.#listener.onDisconnected(code, reason);
    const backoff = Math.min(MAX_BACKOFF_MS, MIN_BACKOFF_MS * 2 ** this.#failures);
    this.#failures += 1;
    // Jitter, so that clients do not all reconnect at once after a restart.
    const delay = backoff * (0.5 + Math.random() / 2);
    this.#listener.onState("backoff", delay / 1000);
    this.#setTimer(delay, () => this.#open());
  }

  #onProbeTimeout() {
    this.#onClose(1006, "");
    this.#reopen(); // at once, as the server may be fine
  }

  #hold(state) {
    clearTimeout(this.#timer);
    this.#isHeld = true;
    this.#listener.onState(state);
  }

  #rejectJoin(reason, needsPassword = false) {
    this.#reset();
    this.#listener.onState("idle");
    this.#listener.onJoinRejected(reason, needsPassword);
  }

  #reset() {
    this.#name = this.#session = this.#position = this.#password = null;
    this.#wasMember = this.#isHeld = false;
    this.#failures = 0;
    save("session", null);
  }

  // Later events of the socket are ignored. The server keeps the place of a member that does not leave. Before the
  // first answer there is no session to resume with, so it leaves.
  #close(isLeaving = !this.#wasMember) {
    clearTimeout(this.#timer);
    this.#stopProbe();
    this.#requests = [];
    this.#isMember = false;
    if (this.#socket) {
      this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
      if (isLeaving) this.#socket.close(NORMAL_CLOSE);
      else this.#socket.close();
      this.#socket = null;
    }
  }

  #awaitProbe() {
    clearTimeout(this.#probeTimer);
    this.#probeTimer = setTimeout(() => this.#onProbeTimeout(), PROBE_TIMEOUT_MS);
  }

  #stopProbe() {
    clearTimeout(this.#probeTimer);
    this.#probeTimer = 0;
  }

  #startTimeout() {
    this.#setTimer(CONNECT_TIMEOUT_MS, () => this.#onClose(1006, ""));
  }

  #setTimer(ms, callback) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(callback, ms);
  }
}
