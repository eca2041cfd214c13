// The entry point: connects the join form, the message log, the member list and the composer to the server.

import { completions, quoteName, setDraft } from "./composer.js";
import { Connection } from "./connection.js";
import { $ } from "./dom.js";
import { showMembers } from "./member-list.js";
import { addMessage, addNotice, clearLog, jumpToLatest, setDeliveryState } from "./message-log.js";

const MAX_PENDING = 50; // messages

const [joinForm, nameInput, room, messageInput] = ["join-form", "name", "room", "message-input"].map($);

let me = null; // this member's name as the server writes it; null before the join
let isTimedOut = false;
let wasModerator = false; // at any time since the last join
let disconnectedAt = 0; // ms
let pending = []; // messages written while offline: { content, row }
let lastSent = null; // { content, row }; row is null for a command

const url = new URL(".", location.href);
url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
const connection = new Connection(url.href, {
  onState(state, seconds) {
    $("status").textContent = {
      idle: "Not connected",
      connecting: "Connecting…",
      online: "Connected",
      backoff: `Retrying in ${Math.max(1, Math.round(seconds))} s`,
      "name-in-use": "Your name is still in use. Waiting for it…",
    }[state];
    $("status").dataset.state = state;
    $("retry").hidden = state !== "backoff";
    $("join").disabled = me === null && state === "connecting";
  },

  onJoined(isRejoin) {
    if (!isRejoin) {
      showRoom(true);
    } else {
      const seconds = Math.round((Date.now() - disconnectedAt) / 1000);
      addNotice("connection", `Reconnected after ${seconds} s. Messages from others in that time aren't shown.`);
      if (wasModerator) addNotice("connection", "You're no longer a moderator. Use /login to become one again.");
    }
    wasModerator = false;
  },

  onJoinRejected(reason) {
    showRoom(false);
    $("join-error").textContent = reason;
    nameInput.setAttribute("aria-invalid", "true");
    nameInput.select();
  },

  onDisconnected(code, reason) {
    disconnectedAt = Date.now();
    const cause = {
      1001: "The server has shut down or is restarting.",
      1009: "That message was longer than the server accepts.",
    }[code] ?? (reason ? `Connection closed (${reason}).` : "Connection lost.");
    const effect = "The last messages you sent may be lost; new ones will be sent once you're back.";
    addNotice("connection", `${cause} Reconnecting… ${effect}`);
    if (code === 1009 && lastSent) {
      if (lastSent.row) setDeliveryState(lastSent.row, "Not sent: too long");
      if (messageInput.value === "") setDraft(lastSent.content);
    }
  },

  onMessage({ type, content, timestamp = "", ...message }) {
    syncClock(timestamp);
    if (type === "public") {
      addMessage({ sender: message.username, text: content, time: timestamp });
    } else if (type === "private") {
      const { from, to } = message;
      addMessage({ sender: from, text: content, time: timestamp, isOwn: from === me, recipient: to });
    } else if (type === "system" || type === "error") {
      addNotice(type, content);
    } else if (type === "user_list") {
      updateMembers(content);
    } else if (type === "command_list") {
      completions.commands = content;
    }
  },
});

// --- Joining and leaving

// localStorage throws where the browser blocks storage.
try {
  nameInput.value = localStorage.getItem("name") ?? "";
} catch {}
showRoom(false);

joinForm.addEventListener("submit", (event) => {
  event.preventDefault();
  $("join-error").textContent = "";
  nameInput.removeAttribute("aria-invalid");
  me = null;
  connection.join(nameInput.value.trim());
});

$("leave").addEventListener("click", () => {
  connection.leave();
  pending = [];
  clearLog();
  showRoom(false);
});

$("retry").addEventListener("click", () => connection.retryOrProbe());

function showRoom(isJoined) {
  if (!isJoined) me = null;
  joinForm.hidden = isJoined;
  for (const id of ["room", "members-button", "leave"]) $(id).hidden = !isJoined;
  showDrawer(false);
  (isJoined ? messageInput : nameInput).focus();
}

// --- Members

function updateMembers(users) {
  // The list is in join order, so a new member comes last.
  if (me === null) {
    me = users.at(-1).username;
    try {
      localStorage.setItem("name", me);
    } catch {}
  }
  showMembers(users, me);
  completions.present = users.map((user) => user.username);
  completions.names = completions.present.filter((name) => name !== me);
  const self = users.find((user) => user.username === me);
  wasModerator ||= self?.is_mod ?? false;
  isTimedOut = self?.is_timed_out ?? false;
  messageInput.placeholder = isTimedOut ? "You're timed out and can only read for now" : "Message, or / for commands";
  if (!isTimedOut) sendPending();
}

function startWhisper(name) {
  showDrawer(false);
  const draft = messageInput.value.startsWith("/") ? "" : messageInput.value;
  setDraft(`/whisper ${quoteName(name)} ${draft}`);
  messageInput.focus();
}

$("member-list").addEventListener("click", ({ target }) => {
  const button = target.closest("button");
  if (button) startWhisper(button.dataset.name);
});

$("log").addEventListener("click", ({ target }) => {
  showDrawer(false);
  if (target.dataset.name && target.dataset.name !== me) startWhisper(target.dataset.name);
});

// On a narrow screen the member list is a drawer.
function showDrawer(isOpen) {
  room.classList.toggle("drawer-open", isOpen);
  $("members-button").setAttribute("aria-expanded", isOpen);
}

const isDrawerOpen = () => room.classList.contains("drawer-open");

$("members-button").addEventListener("click", () => {
  showDrawer(!isDrawerOpen());
  if (isDrawerOpen()) $("member-list").querySelector("button")?.focus();
});

addEventListener("keydown", ({ key }) => {
  if (key === "Escape" && isDrawerOpen()) {
    showDrawer(false);
    $("members-button").focus();
  }
});

// --- Sending

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const content = messageInput.value.trim();
  if (content === "") return;
  const error = submit(content);
  if (error) addNotice("error", `${error} Your text is still in the message box.`);
  else setDraft("");
  jumpToLatest();
});

// Returns an error message, or null on success.
function submit(content) {
  if (isTimedOut) return "You're timed out and can only read for now.";
  if (content.startsWith("/")) {
    if (!connection.send({ type: "command", content })) return "Commands can't be sent while you're offline.";
    lastSent = { content, row: null };
  } else {
    if (pending.length >= MAX_PENDING) return "Too many messages are waiting to be sent.";
    sendPublic(content, addMessage({ sender: me, text: content, time: serverTime(), isOwn: true }));
  }
  return null;
}

function sendPublic(content, row) {
  lastSent = { content, row };
  if (connection.send({ type: "public", content })) return;
  setDeliveryState(row, "Not sent yet");
  pending.push(lastSent);
}

function sendPending() {
  const messages = pending;
  pending = [];
  for (const { content, row } of messages) {
    setDeliveryState(row, "");
    sendPublic(content, row);
  }
}

// The user's own messages are not echoed, so their timestamp is the server's time as estimated here.
let clockOffset = 0; // ms

const serverTime = () => new Date(Date.now() + clockOffset).toTimeString().slice(0, 8);

function syncClock(timestamp) {
  const [hours, minutes, seconds] = timestamp.split(":").map(Number);
  if (seconds >= 0) clockOffset = new Date().setHours(hours, minutes, seconds) - Date.now();
}
