// The room: connects the connection, the message log, the people and the composer with each other.

import { completions, quoteName, setDraft } from "./composer.js";
import { Connection } from "./connection.js";
import { $ } from "./dom.js";
import {
  addDivider,
  addMessage,
  addNotice,
  addOlder,
  clearLog,
  deleteMessage,
  jumpToLatest,
  onOlderWanted,
  onUnread,
  removeRow,
  setOlder,
  setOwnName,
  startEpoch,
  suppressAnnouncements,
} from "./message-log.js";
import { showMembers } from "./people.js";
import { Sender } from "./sender.js";
import { saveLasting } from "./storage.js";

const [section, messageInput] = ["room", "message-input"].map($);

let me = null; // this member's name as the server writes it; null before the join
let isModerator = false;
let lossNotice = null; // shown until the connection is back

const url = new URL(".", location.href);
url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
const connection = new Connection(url.href, {
  onState(state, seconds) {
    const loss = navigator.onLine ? "Connection lost" : "You're offline";
    $("status").textContent = {
      idle: "Not connected",
      connecting: lossNotice ? `${loss}. Reconnecting…` : "Connecting…",
      online: "Connected",
      backoff: `${loss}. Retrying in ${Math.max(1, Math.round(seconds))} s`,
      "name-in-use": "Your name is in use. Waiting for it…",
      replaced: "Open in another tab",
      removed: "Removed",
    }[state];
    $("status").dataset.state = state;
    $("retry").hidden = state !== "backoff";
    $("rejoin").hidden = state !== "replaced" && state !== "removed";
    $("rejoin").textContent = state === "removed" ? "Join again" : "Use here";
    sender.showStates();
  },

  onJoined(answer) {
    $("password").value = "";
    if (lossNotice) removeRow(lossNotice);
    lossNotice = null;
    if (section.hidden) showRoom(true);
    const isFirst = startEpoch(answer.epoch);
    if (isFirst) suppressAnnouncements();
    else if (answer.recovered !== true) addDivider("Some messages may be missing here");
    for (const message of answer.messages) show(message, !isFirst);
    if (isFirst) setOlder(answer.more);
    sender.onJoined(answer);
  },

  onOlder({ messages, more }) {
    messages.forEach((message) => sender.confirmOlder(message));
    addOlder(() => messages.forEach((message) => show(message, false)), more);
  },

  onJoinRejected(reason, needsPassword) {
    const name = connection.name ?? undefined;
    showRoom(false);
    room.onLeft({
      reason: sender.hasUnsent ? `${reason} Your unsent messages have been kept.` : reason,
      name,
      needsPassword,
    });
  },

  onDisconnected(code, reason) {
    const cause = {
      1001: "The server has shut down or is restarting.",
      1009: "That message was longer than the server accepts.",
    }[code] ?? (reason ? `Connection closed (${reason}).` : "Connection lost.");
    if (code === 1009) {
      addNotice("connection", cause);
      sender.onTooLong();
    } else {
      lossNotice = addNotice("connection", `${cause} Messages you write are sent once you're back.`);
    }
  },

  onRemoved(reason, joinError) {
    if (lossNotice) removeRow(lossNotice);
    lossNotice = null;
    addNotice("connection", joinError || `You've been removed from the room${reason ? `: ${reason}` : "."}`);
  },

  onMessage(message) {
    const { type, content } = message;
    if (type === "ack") sender.onAck(message);
    else if (type === "error") sender.onError(message) || addNotice(type, content);
    else if (type === "user_list") updateMembers(content);
    else if (type === "command_list") completions.commands = content;
    else if (type === "deleted") deleteMessage(message.id);
    else show(message, true);
  },
});
const sender = new Sender(connection);

export const room = {
  onLeft: () => {}, // called with the rejection of a join, if that is the reason

  join(name, password) {
    me = null;
    connection.join(name, password);
  },

  // After a reload.
  resume() {
    connection.resume(sender.position);
    showRoom(true);
  },
};

// Shows a message that may come from the history. `isNew`: it counts as unread.
function show(message, isNew) {
  if (sender.confirm(message)) return;
  const { type, content: text, id, time } = message;
  if (type === "public") {
    const { username } = message;
    addMessage({ id, sender: username, text, time, isOwn: username === me, isNew });
  } else if (type === "private") {
    const { from, to } = message;
    addMessage({ id, sender: from, text, time, isOwn: from === me, recipient: to, isNew });
  } else if (type === "system") {
    addNotice(type, text, id, time);
  }
}

onUnread(({ count }) => {
  document.title = count > 0 ? `(${count}) TinyChat` : "TinyChat";
});

onOlderWanted((id) => connection.requestOlder(id));

$("leave").addEventListener("click", () => {
  connection.leave();
  sender.clear();
  clearLog();
  setDraft("");
  lossNotice = null;
  showRoom(false);
  room.onLeft();
});

$("retry").addEventListener("click", () => connection.check());
$("rejoin").addEventListener("click", () => connection.rejoin());

function showRoom(isJoined) {
  me = isJoined ? connection.name : null;
  setOwnName(me);
  if (!isJoined) isModerator = false;
  if (isJoined) $("join-form").hidden = true;
  for (const id of ["room", "members-button", "leave"]) $(id).hidden = !isJoined;
  showDrawer(false);
  if (isJoined) messageInput.focus();
}

// --- Members

function updateMembers(users) {
  if (me === null) {
    me = connection.name;
    setOwnName(me);
    saveLasting("name", me);
  }
  showMembers(users, me);
  completions.present = users.map((user) => user.username);
  completions.names = completions.present.filter((name) => name !== me);
  const self = users.find((user) => user.username === me);
  if (isModerator && !self?.is_mod) {
    addNotice("connection", "You're no longer a moderator. Use /login to become one again.");
  }
  isModerator = self?.is_mod ?? false;
  sender.isTimedOut = self?.is_timed_out ?? false;
  messageInput.placeholder = sender.isTimedOut
    ? "You're timed out and can only read for now"
    : "Message, or / for commands";
  sender.sendWaiting();
}

function startWhisper(name) {
  showDrawer(false);
  const draft = messageInput.value.trimStart().startsWith("/") ? "" : messageInput.value;
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
  section.classList.toggle("drawer-open", isOpen);
  $("members-button").setAttribute("aria-expanded", isOpen);
}

const isDrawerOpen = () => section.classList.contains("drawer-open");

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
  const error = sender.submit(content);
  if (error) addNotice("error", `${error} Your text is still in the message box.`);
  else setDraft("");
  jumpToLatest();
});
