// The WebSocket and the session. When the connection is lost, it reconnects and takes back its place in the room.

import { load, save } from "./storage.js";

/**
 * "idle": no one has joined, or a password is missing; "unresponsive": no answer, but the connection may be good;
 * "backoff": until the next attempt; "replaced": the session was taken over, as by a copy of this tab; "removed": by a
 * moderator.
 * @typedef {"idle" | "connecting" | "online" | "unresponsive" | "backoff" | "name-in-use" | "replaced" | "removed"} State
 * @typedef {{ epoch: string, since: number }} Position the newest message received
 *
 * @typedef {object} Listener
 * @property {() => void} onState the state has changed
 * @property {(message: any) => void} onMessage any message but `history`. On a first join, user_list and command_list
 *   precede onJoined(); on a resume, user_list may follow it
 * @property {(answer: any) => void} onJoined the `history` that answers a join
 * @property {(answer: any) => void} onOlder the `history` that answers requestOlder()
 * @property {(reason: string, needsPassword: boolean) => void} onJoinRejected the join failed and is not retried
 * @property {(code: number, reason: string) => void} onDisconnected the connection of a member was lost and is retried
 * @property {(reason: string, joinError: string) => void} onRemoved by a moderator, who may also keep the member out
 *   (`joinError`). It is not retried
 */

const PAGE_LENGTH = 50; // messages
const MIN_BACKOFF_MS = 1_000; // doubled with each failure
const MAX_BACKOFF_MS = 30_000;
const CONNECT_TIMEOUT_MS = 15_000;
// How many times, and how far apart, a join is retried while the name is in use. A place kept for longer than 40 s is not
// waited for.
const NAME_RETRIES = 8;
const NAME_RETRY_MS = 5_000;
// Scripts cannot see pings, so a silent connection is tested with an empty history request: rarely while the page is
// hidden, to spare batteries. Without an answer, the page says so soon, but gives a slow line more time before it gives
// up the connection.
const SILENCE_MS = 2_000;
const HIDDEN_SILENCE_MS = 15_000;
const ANSWER_MS = 2_000;
const GIVE_UP_MS = 10_000;
const TICK_MS = 250;
// Close codes
const LEAVING = 1000;
const LOST = 1006;
const POLICY = 1008; // removed by a moderator, unless the reason contains TOO_SLOW
const REPLACED = 4001; // another connection has taken the place
const TOO_SLOW = "HANDSHAKE_TIMEOUT";
// The error that answers a join. A name and the reason of a ban may contain the word as well.
const ASKS_FOR_PASSWORD = /^(?!You are banned|.* is in use).*\bpassword/i;

const url = new URL(".", location.href.replace("http", "ws"));
/** @type {Listener} */
let listener;
/** @type {WebSocket | null} */
let socket = null;
/** @type {State} */
export let state = "idle";
export let deadline = Infinity; // in ms; when it has passed, tick() does what the state demands
export let name = ""; // as the server writes it, once it is known
export let maxMessageBytes = Infinity;
/** @type {Position | null} */
export let position = null;
/** @type {string | null} */
let session = null; // the secret that takes back the place
let password = ""; // in memory only, for a join after the session has ended
let wasMember = false; // under this name, on this or an earlier socket
let joinError = ""; // the answer to the last join
let nameRetries = 0;
let failures = 0;
/** @type {((answer: any) => void)[]} */
let callbacks = []; // for the answers to requests for history
let probedAt = 0; // in ms; 0: no answer is awaited
let receivedAt = 0; // in ms

/** @param {Listener} newListener */
export function listen(newListener) {
  listener = newListener;
}

/**
 * The answer contains what was said after the position, if there is one.
 * @param {string} newName @param {string} newPassword may be empty @param {Position | null} lastPosition
 */
export function join(newName, newPassword, lastPosition) {
  if (newName !== name) reset();
  const place = load("place");
  if (place?.name === newName) session ??= place.session;
  position ??= lastPosition;
  [name, password] = [newName, newPassword];
  if (socket?.readyState === WebSocket.OPEN) sendJoin();
  else open();
}

/** After a reload: takes back this tab's place. @param {(name: string) => Position | null} lastPosition */
export function resume(lastPosition) {
  ({ name, session } = load("session"));
  position = lastPosition(name);
  wasMember = true;
  open();
}

/**
 * Without a connection, the server doesn't learn of it: it keeps the place for a while, and only this tab gets the name.
 * @param {boolean} keepsPlace
 */
export function leave(keepsPlace) {
  if (keepsPlace) save("place", { name, session });
  close(true);
  reset();
}

export const isOnline = () => state === "online" || state === "unresponsive";

/** Returns whether the message was sent. Nothing is queued here. @param {object} message */
export function send(message) {
  if (isOnline()) socket?.send(JSON.stringify(message));
  return isOnline();
}

/** Requests the page before this message, and returns whether it could. @param {number | undefined} id */
export function requestOlder(id) {
  return request({ before: id, limit: PAGE_LENGTH }, listener.onOlder);
}

// Tests the connection, or reconnects now.
export function check() {
  if (state === "unresponsive") onClose();
  if (state === "backoff") open();
  else test();
}

// Also takes the place back from the connection that replaced this one, and joins again after a removal.
export function open() {
  close();
  setState("connecting", CONNECT_TIMEOUT_MS);
  nameRetries = 0;
  socket = new WebSocket(url);
  socket.onopen = sendJoin;
  socket.onmessage = ({ data }) => onMessage(JSON.parse(data));
  socket.onclose = ({ code, reason }) => onClose(code, reason);
}

addEventListener("online", () => (state === "connecting" ? open() : check()));
addEventListener("offline", () => wasMember && socket && onClose());
addEventListener("pageshow", check);
document.addEventListener("visibilitychange", () => document.hidden || check());
setInterval(tick, TICK_MS);

function tick() {
  const now = Date.now();
  const silence = now - Math.max(receivedAt, probedAt);
  if (isOnline()) {
    if (probedAt === 0) {
      if (silence > (document.hidden ? HIDDEN_SILENCE_MS : SILENCE_MS)) test();
    } else if (now - probedAt > GIVE_UP_MS) {
      onClose();
      open(); // at once, as the server may be fine
    } else {
      setState(silence > ANSWER_MS ? "unresponsive" : "online");
    }
  } else if (now > deadline) {
    if (state === "backoff") open();
    else if (joinError) sendJoin();
    else onClose();
  }
}

/** @param {State} newState @param {number} [ms] until the deadline */
function setState(newState, ms = Infinity) {
  deadline = Date.now() + ms;
  if (newState === state) return;
  state = newState;
  listener.onState();
}

function test() {
  if (probedAt === 0 && request({ limit: 0 }, () => (probedAt = 0))) probedAt = Date.now();
}

/** @param {object} fields @param {(answer: any) => void} callback */
function request(fields, callback) {
  const isSent = send({ type: "history", ...fields });
  if (isSent) callbacks.push(callback);
  return isSent;
}

// A session needs no password, which would cost the server a hash.
function sendJoin() {
  setState(state === "name-in-use" ? state : "connecting", CONNECT_TIMEOUT_MS);
  joinError = "";
  const secret = session === null ? { password: password || undefined } : { session }; // undefined is not sent
  socket?.send(JSON.stringify({ type: "join", username: name, history: PAGE_LENGTH, ...secret, ...position }));
}

/** @param {any} message */
function onMessage(message) {
  const { type, id, content } = message;
  receivedAt = Date.now();
  if (isOnline()) {
    setState("online");
    if (position && id > position.since) position = { ...position, since: id };
    if (type === "history") callbacks.shift()?.(message);
    else listener.onMessage(message);
  } else if (type === "history") {
    onJoined(message);
  } else if (type === "error") {
    onJoinError(content);
  } else {
    setState(state, CONNECT_TIMEOUT_MS); // The answer to the join may be long.
    // A new member is the last in the list, which is in join order.
    if (type === "user_list" && session === null) name = content.at(-1).username;
    listener.onMessage(message);
  }
}

/** @param {any} answer */
function onJoined(answer) {
  maxMessageBytes = answer.max_message_bytes ?? Infinity;
  session = answer.session;
  position = { epoch: answer.epoch, since: answer.id };
  save("session", { name, session });
  wasMember = true;
  failures = 0;
  setState("online");
  listener.onJoined(answer);
}

/** @param {string} reason */
function onJoinError(reason) {
  const needsPassword = ASKS_FOR_PASSWORD.test(reason);
  joinError = reason;
  if (needsPassword && password && session !== null) {
    session = null;
    sendJoin();
  } else if (needsPassword && wasMember) {
    // Keeps the position, so that nothing is lost meanwhile.
    setState("idle");
    listener.onJoinRejected(reason, true);
  } else if (wasMember && nameRetries < NAME_RETRIES) {
    nameRetries += 1;
    setState(reason.includes("in use") ? "name-in-use" : state, NAME_RETRY_MS);
  } else {
    rejectJoin(reason, needsPassword); // The socket stays open for another name.
  }
}

function onClose(code = LOST, reason = "") {
  const wasOnline = isOnline();
  close();
  if (state === "idle") return;
  if (code === REPLACED) {
    setState("replaced");
  } else if (code === POLICY && wasMember && !reason.includes(TOO_SLOW)) {
    setState("removed");
    listener.onRemoved(reason, joinError);
  } else if (!wasMember) {
    rejectJoin("Couldn't connect. The server may be unreachable or full. Try again in a moment.");
  } else {
    if (wasOnline) listener.onDisconnected(code, reason);
    const backoff = Math.min(MAX_BACKOFF_MS, MIN_BACKOFF_MS * 2 ** failures);
    failures += 1;
    // Jitter, so that clients do not all reconnect at once after a restart.
    setState("backoff", backoff * (0.5 + Math.random() / 2));
  }
}

/** @param {string} reason */
function rejectJoin(reason, needsPassword = false) {
  listener.onJoinRejected(reason, needsPassword);
  reset();
}

function reset() {
  name = password = "";
  session = position = null;
  wasMember = false;
  failures = 0;
  save("session", null);
  setState("idle");
}

// Later events of the socket are ignored. The server keeps the place of a member that does not leave. Before the first
// answer there is no session to resume with, so it leaves.
function close(isLeaving = !wasMember) {
  callbacks = [];
  probedAt = 0;
  if (!socket) return;
  socket.onopen = socket.onmessage = socket.onclose = null;
  socket.close(isLeaving ? LEAVING : undefined);
  socket = null;
}
