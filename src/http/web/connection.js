// The WebSocket and the session. When the connection is lost, it reconnects and takes back its place in the room.

import { load, save } from "./storage.js";

/**
 * "unresponsive": no answer, but the connection may be good; "backoff": until the next attempt; "replaced": the session
 * was taken over, as by a copy of this tab; "removed": by a moderator.
 * @typedef {"idle" | "connecting" | "online" | "unresponsive" | "backoff" | "name-in-use" | "replaced" | "removed"} State
 *
 * @typedef {object} Listener
 * @property {(state: State, retryAt?: number) => void} onState `retryAt`: the end of a backoff, in ms
 * @property {(message: any) => void} onMessage any message but `history`. On a first join, user_list and command_list
 *   precede onJoined(); on a resume, user_list may follow it
 * @property {(answer: any) => void} onJoined the `history` that answers a join
 * @property {(answer: any) => void} onOlder the `history` that answers requestOlder()
 * @property {(reason: string, needsPassword: boolean) => void} onJoinRejected the join failed and is not retried
 * @property {(code: number, reason: string) => void} onDisconnected the connection of a member was lost and is retried
 * @property {(reason: string, joinError: string) => void} onRemoved by a moderator, who may also keep the member out
 *   (`joinError`). It is not retried
 *
 * @typedef {import("./outbox.js").Position} Position
 */

const PAGE_LENGTH = 50; // messages
const MIN_BACKOFF_MS = 1_000; // doubled with each failure
const MAX_BACKOFF_MS = 30_000;
const CONNECT_TIMEOUT_MS = 15_000;
// How often, and how long apart, a join is retried while the name is in use. A place kept for longer than 40 s is not
// waited for.
const NAME_RETRIES = 8;
const NAME_RETRY_MS = 5_000;
// Scripts cannot see pings, so a silent connection is tested with an empty history request: rarely while the page is
// hidden, to spare batteries, and after several slow answers, as on a slow line or where the server limits the rate. (A
// single one may have been the end of an outage.)
const SILENCE_MS = 2_000;
const LONG_SILENCE_MS = 15_000;
const SLOW_ANSWER_MS = 1_000;
const SLOW_ANSWERS = 4;
// Without an answer, the page says so soon, but gives a slow line more time before it gives up the connection.
const ANSWER_MS = 2_000;
const GIVE_UP_MS = 10_000;
const MAX_PROBE_MS = 15_000; // with other messages before the answer
const TICK_MS = 250;
const SLEEP_MS = 30_000; // a longer time between two ticks means that the computer slept
const NORMAL_CLOSE = 1000; // close code: the member leaves
const REPLACED = 4001; // close code: another connection has taken the place
const POLICY = 1008; // close code: removed by a moderator, unless the reason contains TOO_SLOW
const TOO_SLOW = "HANDSHAKE_TIMEOUT";
// The error that answers a join. A name and the reason of a ban may contain the word as well.
const ASKS_FOR_PASSWORD = /^(?!You are banned|.* is in use).*\bpassword/i;

export class Connection {
  maxMessageBytes = Infinity;
  #url;
  #listener;
  /** @type {WebSocket | null} */
  #socket = null;
  /** @type {string | null} */
  #name = null;
  /** @type {string | null} */
  #session = null; // the secret that takes back the place
  /** @type {string | null} */
  #password = null; // in memory only, for a join after the session has ended
  #sentPassword = false; // with the last join
  /** @type {Position | null} */
  #position = null; // the newest message received
  #isMember = false;
  #wasMember = false; // under this name, on this or an earlier socket
  #isHeld = false; // reconnects only when the user asks for it
  #joinError = ""; // on this socket
  /** @type {("probe" | "older")[]} */
  #requests = []; // for history, not yet answered
  #failures = 0;
  #nameRetries = 0;
  #timer = 0; // for the response to a connect or join, or for the next retry
  // Times in ms.
  #probedAt = 0; // 0: no answer is awaited
  #receivedAt = 0;
  #tickedAt = Date.now();
  #slowAnswers = 0; // to the last tests
  #isResponsive = true;

  /** @param {string} url @param {Listener} listener */
  constructor(url, listener) {
    this.#url = url;
    this.#listener = listener;
    addEventListener("online", () => (this.#isMember ? this.check() : this.#reopen()));
    addEventListener("offline", () => this.#wasMember && this.#socket && this.#onClose(1006, ""));
    addEventListener("pageshow", () => this.check());
    document.addEventListener("visibilitychange", () => document.hidden || this.check());
    setInterval(() => this.#tick(), TICK_MS);
  }

  // As the server writes it, once it is known.
  get name() {
    return this.#name ?? "";
  }

  // While it is online.
  get position() {
    return /** @type {Position} */ (this.#position);
  }

  get isOnline() {
    return this.#isMember && this.#socket?.readyState === WebSocket.OPEN;
  }

  /**
   * The answer contains what was said after the position, if there is one.
   * @param {string} name @param {string} password may be empty @param {Position | null} position
   */
  join(name, password, position) {
    if (name !== this.#name) this.#reset();
    const place = load("place");
    if (place?.name === name) this.#session ??= place.session;
    this.#position ??= position;
    this.#name = name;
    this.#password = password;
    this.#isHeld = false;
    if (this.#socket?.readyState === WebSocket.OPEN) this.#sendJoin();
    else this.#open();
  }

  /** After a reload: takes back this tab's place. Returns the name. @param {(name: string) => Position | null} position */
  resume(position) {
    const { name, session } = load("session");
    [this.#name, this.#session, this.#position] = [name, session, position(name)];
    this.#wasMember = true;
    this.#open();
    return name;
  }

  /**
   * Without a connection, the server keeps the place for a while, and the name is in use until this tab takes it back.
   * @param {boolean} keepsPlace
   */
  leave(keepsPlace) {
    if (keepsPlace) save("place", { name: this.#name, session: this.#session });
    this.#close(true);
    this.#reset();
    this.#listener.onState("idle");
  }

  /** Returns whether the message was sent. Nothing is queued here. @param {object} message */
  send(message) {
    if (!this.isOnline) return false;
    this.#socket?.send(JSON.stringify(message));
    return true;
  }

  /** Requests the page before this message, and returns whether it could. @param {number | undefined} id */
  requestOlder(id) {
    return this.#request("older", { before: id, limit: PAGE_LENGTH });
  }

  // Takes the place back from the connection that replaced this one, or joins again after a removal.
  rejoin() {
    this.#isHeld = false;
    this.#reopen();
  }

  // Reconnects now, or tests the connection. One that does not answer is given up.
  check() {
    if (this.#socket === null) this.#reopen();
    else if (this.#isResponsive) this.test();
    else this.#giveUp();
  }

  test() {
    if (this.#probedAt === 0 && this.#request("probe", { limit: 0 })) this.#probedAt = Date.now();
  }

  #tick() {
    const now = Date.now();
    const hasSlept = now - this.#tickedAt > SLEEP_MS;
    this.#tickedAt = now;
    if (hasSlept) this.check();
    if (!this.#isMember) return;
    const silence = now - Math.max(this.#receivedAt, this.#probedAt);
    if (this.#probedAt === 0) {
      const isRare = document.hidden || this.#slowAnswers >= SLOW_ANSWERS;
      if (silence > (isRare ? LONG_SILENCE_MS : SILENCE_MS)) this.test();
    } else if (silence > GIVE_UP_MS || now - this.#probedAt > MAX_PROBE_MS) {
      this.#giveUp();
    } else {
      this.#showResponsive(silence < ANSWER_MS);
    }
  }

  /** @param {boolean} isResponsive */
  #showResponsive(isResponsive) {
    if (isResponsive === this.#isResponsive) return;
    this.#isResponsive = isResponsive;
    this.#listener.onState(isResponsive ? "online" : "unresponsive");
  }

  /** @param {"probe" | "older"} purpose @param {object} fields */
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
    this.#socket?.send(JSON.stringify({ type: "join", username: this.#name, ...options }));
    this.#startTimeout();
  }

  /** @param {string} data */
  #onMessage(data) {
    this.#receivedAt = Date.now();
    this.#showResponsive(true);
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
    if (this.#isMember && this.#position && id > this.#position.since) this.#position.since = id;
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

  /** @param {any} answer */
  #onJoined(answer) {
    clearTimeout(this.#timer);
    this.maxMessageBytes = answer.max_message_bytes ?? Infinity;
    this.#session = answer.session;
    this.#position = { epoch: answer.epoch, since: answer.id };
    save("session", { name: this.#name, session: this.#session });
    this.#isMember = this.#wasMember = true;
    this.#failures = 0;
    this.#joinError = "";
    this.#listener.onState("online");
    this.#listener.onJoined(answer);
  }

  /** @param {any} answer */
  #onHistory(answer) {
    if (this.#requests.shift() === "older") {
      this.#listener.onOlder(answer);
      return;
    }
    this.#slowAnswers = Date.now() - this.#probedAt > SLOW_ANSWER_MS ? this.#slowAnswers + 1 : 0;
    this.#probedAt = 0;
  }

  /** @param {string} reason */
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

  /** @param {string} reason */
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

  /** @param {number} code @param {string} reason */
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
    this.#listener.onState("backoff", Date.now() + delay);
    this.#setTimer(delay, () => this.#open());
  }

  #giveUp() {
    this.#onClose(1006, "");
    this.#reopen(); // at once, as the server may be fine
  }

  /** @param {State} state */
  #hold(state) {
    clearTimeout(this.#timer);
    this.#isHeld = true;
    this.#listener.onState(state);
  }

  /** @param {string} reason */
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
    this.#requests = [];
    this.#probedAt = this.#slowAnswers = 0;
    this.#isResponsive = true;
    this.#isMember = false;
    if (this.#socket) {
      this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
      if (isLeaving) this.#socket.close(NORMAL_CLOSE);
      else this.#socket.close();
      this.#socket = null;
    }
  }

  #startTimeout() {
    this.#setTimer(CONNECT_TIMEOUT_MS, () => this.#onClose(1006, ""));
  }

  /** @param {number} ms @param {() => void} callback */
  #setTimer(ms, callback) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(callback, ms);
  }
}
