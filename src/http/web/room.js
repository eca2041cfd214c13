// The room: ties the connection, the message log, the people and the composer together, and shows the state of the
// connection.

import * as composer from "./composer.js";
import * as connection from "./connection.js";
import { $, closest } from "./dom.js";
import { ask, closeMessage, openMessageMenu, openPersonMenu } from "./menus.js";
import * as log from "./message-log.js";
import { notify, showUnread } from "./notifications.js";
import { showPeople } from "./people.js";
import { saveLasting } from "./storage.js";

const COUNTDOWN_MS = 250; // so that it skips no second
const MAX_BUTTON = 2; // of a mouse; those after it are Back and Forward

const section = $("room");
const peopleButton = $("members-button");

let isModerator = false;
/** @type {Record<"loss" | "back", HTMLElement | null>} */
const hints = { loss: null, back: null }; // in the log

connection.listen({
  onState() {
    showStatus();
    composer.showStates();
  },

  onJoined(answer) {
    $("password").value = "";
    setHint("loss");
    log.setOwnName(connection.name);
    saveLasting("name", connection.name);
    if (section.hidden) showRoom(true);
    const isFirst = log.startEpoch(answer.epoch);
    if (isFirst) log.suppressAnnouncements();
    else if (!answer.recovered) log.addDivider("Some messages may be missing here");
    for (const message of answer.messages) show(message, !isFirst);
    if (isFirst) log.setOlder(answer.more);
    composer.onJoined(answer);
  },

  onOlder({ messages, more }) {
    for (const { txn_id } of messages) composer.discard(txn_id);
    log.addOlder(() => messages.forEach((/** @type {any} */ message) => show(message, false)), more);
  },

  onJoinRejected(reason, needsPassword) {
    showRoom(false);
    const kept = composer.unsent() > 0 ? " Your unsent messages have been kept." : "";
    room.onLeft({ reason: reason + kept, name: connection.name, needsPassword });
  },

  onDisconnected(code, reason) {
    const closed = reason ? `Connection closed (${reason})` : "Connection lost";
    const cause = code === 1001 ? "The server has shut down or is restarting" : closed;
    setHint("loss", `${cause}. Messages you write will be sent once you're back online.`);
  },

  onRemoved(reason, joinError) {
    setHint("loss");
    log.addNotice("connection", joinError || `You've been removed from the room${reason ? `: ${reason}` : "."}`);
  },

  onMessage(message) {
    const { type, content } = message;
    if (type === "ack") composer.confirm(message);
    else if (type === "error") composer.onError(message) || log.addNotice(type, content);
    else if (type === "user_list") updatePeople(content);
    else if (type === "command_list") composer.completions.commands = content;
    else if (type !== "deleted") show(message, true);
    else {
      log.deleteMessage(message.id);
      closeMessage(message.id);
    }
  },
});

export const room = {
  /** @type {(rejection?: { reason: string, name: string, needsPassword: boolean }) => void} */
  onLeft: () => {},

  /** @param {string} name @param {string} password */
  join(name, password) {
    connection.join(name, password, composer.resumePosition(name));
  },

  // After a reload.
  resume() {
    connection.resume(composer.resumePosition);
    composer.openDrafts();
    showRoom(true);
  },
};

/**
 * Shows a message that may come from the history.
 * @param {any} message
 * @param {boolean} isNew whether it counts as unread
 */
function show(message, isNew) {
  if (composer.confirm(message)) return;
  const { type, content: text, id, time, to = null } = message;
  if (type === "system") {
    log.addNotice(type, text, id, time);
  } else if (type === "public" || type === "private") {
    const author = message.from ?? message.username;
    const isOwn = author === connection.name;
    const row = log.addMessage({ id, sender: author, text, time, isOwn, recipient: to, isNew });
    if (!row || !isNew || isOwn) return;
    notify({ sender: author, text, isWhisper: to !== null, isMention: row.matches(".mentions-me") });
  }
}

log.actions.showUnread = showUnread;
log.actions.requestOlder = connection.requestOlder;

$("leave").addEventListener("click", async () => {
  const unsent = composer.unsent();
  const title = unsent === 1 ? "1 message hasn't been sent yet" : `${unsent} messages haven't been sent yet`;
  const text = `Messages you keep will be sent the next time you join as ${connection.name} in this tab.`;
  const choice = unsent && (await ask(title, text, ["Stay", "Leave and keep", "Leave and discard"]));
  if ((unsent && !choice) || section.hidden) return;
  setHint("loss");
  setHint("back");
  composer.leave(choice === 2);
  connection.leave(choice === 1);
  log.clearLog();
  showRoom(false);
  room.onLeft();
});

/** @param {boolean} isJoined */
function showRoom(isJoined) {
  const wasJoined = !section.hidden;
  if (isJoined) $("join-form").hidden = true;
  else isModerator = false;
  for (const node of [section, peopleButton, $("leave")]) node.hidden = !isJoined;
  showDrawer(false);
  if (isJoined) {
    addEntry();
    $("message-input").focus();
  } else if (wasJoined && history.state === "room") {
    history.back();
  }
}

/** Replaces the hint of this kind in the log; without a text, removes it. @param {"loss" | "back"} kind @param {string} [text] */
function setHint(kind, text) {
  const row = hints[kind];
  if (row) log.removeRow(row);
  hints[kind] = text ? log.addNotice("connection", text) : null;
}

// --- The state of the connection

$("retry").addEventListener("click", connection.check);
$("rejoin").addEventListener("click", connection.open);
setInterval(showCountdown, COUNTDOWN_MS);

function showStatus() {
  const { state } = connection;
  const loss = navigator.onLine ? "Connection lost" : "You're offline";
  $("status").dataset.state = state;
  $("status-text").textContent = {
    idle: "Not connected",
    connecting: hints.loss ? `${loss}. Reconnecting…` : "Connecting…",
    online: "Connected",
    unresponsive: "Offline: the server isn't responding",
    backoff: `${loss}. Retrying`,
    "name-in-use": "Your name is in use. Waiting for it…",
    replaced: "Open in another tab",
    removed: "Removed",
  }[state];
  $("retry").hidden = state !== "backoff" && state !== "unresponsive";
  $("rejoin").hidden = state !== "replaced" && state !== "removed";
  $("rejoin").textContent = state === "removed" ? "Join again" : "Use here";
  showCountdown();
}

// Outside of what screen readers announce.
function showCountdown() {
  const seconds = Math.max(1, Math.ceil((connection.deadline - Date.now()) / 1000));
  $("countdown").textContent = connection.state === "backoff" ? `in ${seconds} s` : "";
}

// --- People

/** @param {import("./people.js").Person[]} users */
function updatePeople(users) {
  showPeople(users, connection.name);
  composer.completions.names = users.map((user) => user.username);
  const self = users.find((user) => user.username === connection.name);
  if (isModerator && !self?.is_mod) {
    log.addNotice("connection", "You're no longer a moderator. To become one again, use /login.");
  }
  isModerator = self?.is_mod ?? false;
  if (isModerator) import("./moderation.js").catch(() => {}); // early, for the menus
  composer.setTimedOut(self?.is_timed_out ?? false);
}

log.actions.openMenu = openMessageMenu;
// The result is in the log or the message box.
addEventListener("click", (event) => closest(event, "[role=menuitem]") && closeDrawer(), { capture: true });

$("log").addEventListener("click", () => showDrawer(false));
for (const box of [$("log"), $("member-list")]) {
  box.addEventListener("click", (event) => {
    const name = closest(event, "[data-name]");
    if (name) openPersonMenu(name.dataset.name ?? "", name);
  });
}

/**
 * On a narrow screen, the list of people is a drawer.
 * @param {boolean} isOpen
 */
function showDrawer(isOpen) {
  section.classList.toggle("drawer-open", isOpen);
  peopleButton.ariaExpanded = String(isOpen);
}

peopleButton.addEventListener("click", () => {
  if (closeDrawer()) return;
  showDrawer(true);
  /** @type {HTMLElement | null} */
  const person = $("member-list").querySelector('[tabindex="0"]');
  person?.focus();
});

addEventListener("keydown", ({ key }) => {
  if (key === "Escape" && !document.querySelector("dialog[open], :popover-open")) closeDrawer();
});

// Returns whether it was open.
function closeDrawer() {
  const isOpen = section.classList.contains("drawer-open");
  showDrawer(false);
  if (isOpen) peopleButton.focus();
  return isOpen;
}

// --- The Back button: the room has an entry in the browser's history, which Back uses up. First it closes what is open,
// then it shows a hint, and only the next one leaves the page.

addEventListener("popstate", () => {
  if (section.hidden) return;
  if (history.state === "room") setHint("back");
  else if (closeTop()) addEntry();
  else setHint("back", "Press Back again to leave the page.");
});
// Not before: to keep pages from trapping users, browsers skip entries that were added before the user did anything.
addEventListener("pointerdown", ({ button }) => button <= MAX_BUTTON && addEntry(), { capture: true });
addEventListener("keydown", ({ key, altKey, ctrlKey, metaKey }) => {
  // Alt+Left is Back as well.
  if (!altKey && !ctrlKey && !metaKey && !key.startsWith("Browser")) addEntry();
});

function addEntry() {
  if (section.hidden || history.state === "room") return;
  history.pushState("room", "");
  setHint("back");
}

// Returns whether there was anything to close.
function closeTop() {
  /** @type {HTMLDialogElement | null} */
  const dialog = document.querySelector("dialog[open]");
  /** @type {HTMLElement | null} */
  const popover = document.querySelector(":popover-open");
  dialog?.close();
  popover?.hidePopover();
  return dialog || popover || closeDrawer();
}
