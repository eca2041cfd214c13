// The room: connects the connection, the message log, the people and the composer with each other.

import {
  actions as composer,
  closeDrafts,
  completions,
  insertMention,
  openDrafts,
  setTimedOut,
  showSize,
  startWhisper,
} from "./composer.js";
import { Connection } from "./connection.js";
import { confirmDialog } from "./dialog.js";
import { $, closest } from "./dom.js";
import {
  actions as log,
  addDivider,
  addMessage,
  addNotice,
  addOlder,
  clearLog,
  deleteMessage,
  jumpToLatest,
  removeRow,
  setConversation,
  setOlder,
  setOwnName,
  startEpoch,
  suppressAnnouncements,
} from "./message-log.js";
import { guardBack, setInRoom } from "./navigation.js";
import { notify, showUnread } from "./notifications.js";
import { onPersonMenu, showPeople } from "./people.js";
import { connectMenus, openMessageMenu, openPersonMenu } from "./people-menu.js";
import { Sender } from "./sender.js";
import "./settings-panel.js";
import { showStatus } from "./status.js";
import { saveLasting } from "./storage.js";

const section = $("room");
const messageInput = $("message-input");

/** @type {string | null} */
let me = null; // this member's name as the server writes it; null before the join
let isModerator = false;
/** @type {HTMLElement | null} */
let lossNotice = null; // shown until the connection is back
/** @type {HTMLElement | null} */
let backHint = null;

const url = new URL(".", location.href);
url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
const connection = new Connection(url.href, {
  onState(state, retryAt) {
    showStatus(state, retryAt, lossNotice !== null);
    sender.showStates();
  },

  onJoined(answer) {
    $("password").value = "";
    if (lossNotice) removeRow(lossNotice);
    lossNotice = null;
    if (section.hidden) showRoom(true);
    const isFirst = startEpoch(answer.epoch);
    openDrafts(connection.name);
    if (isFirst) suppressAnnouncements();
    else if (answer.recovered !== true) addDivider("Some messages may be missing here");
    for (const message of answer.messages) show(message, !isFirst);
    if (isFirst) setOlder(answer.more);
    sender.onJoined(answer);
    showSize();
  },

  onOlder({ messages, more }) {
    for (const message of messages) sender.confirmOlder(message);
    addOlder(() => messages.forEach((/** @type {any} */ message) => show(message, false)), more);
  },

  onJoinRejected(reason, needsPassword) {
    const name = connection.name || undefined;
    showRoom(false);
    room.onLeft({
      reason: sender.hasUnsent ? `${reason} Your unsent messages have been kept.` : reason,
      name,
      needsPassword,
    });
  },

  onDisconnected(code, reason) {
    const closed = reason ? `Connection closed (${reason}).` : "Connection lost.";
    const cause = code === 1001 ? "The server has shut down or is restarting." : closed;
    lossNotice = addNotice("connection", `${cause} Messages you write are sent once you're back.`);
  },

  onRemoved(reason, joinError) {
    if (lossNotice) removeRow(lossNotice);
    lossNotice = null;
    addNotice("connection", joinError || `You've been removed from the room${reason ? `: ${reason}` : "."}`);
  },

  onMessage(message) {
    const { type, content } = message;
    if (type === "ack") sender.confirm(message);
    else if (type === "error") sender.onError(message) || addNotice(type, content);
    else if (type === "user_list") updateMembers(content);
    else if (type === "command_list") completions.commands = content;
    else if (type === "deleted") deleteMessage(message.id);
    else show(message, true);
  },
});
const sender = new Sender(connection);

export const room = {
  /** @type {(rejection?: { reason: string, name?: string, needsPassword?: boolean }) => void} */
  onLeft: () => {},

  /** @param {string} name @param {string} password */
  join(name, password) {
    me = null;
    connection.join(name, password, sender.position(name));
  },

  // After a reload.
  resume() {
    openDrafts(connection.resume((name) => sender.position(name)));
    showRoom(true);
  },
};

/**
 * Shows a message that may come from the history.
 * @param {any} message
 * @param {boolean} isNew whether it counts as unread
 */
function show(message, isNew) {
  if (sender.confirm(message)) return;
  const { type, content: text, id, time } = message;
  if (type === "public" || type === "private") {
    const isWhisper = type === "private";
    const author = isWhisper ? message.from : message.username;
    const isOwn = author === me;
    const row = addMessage({ id, sender: author, text, time, isOwn, recipient: isWhisper ? message.to : null, isNew });
    if (row && isNew && !isOwn) notify({ sender: author, text, isWhisper, isMention: row.matches(".mentions-me") });
  } else if (type === "system") {
    addNotice(type, text, id, time);
  }
}

log.showUnread = showUnread;
log.requestOlder = (id) => connection.requestOlder(id);

$("leave").addEventListener("click", async () => {
  const { unsent } = sender;
  const choice = unsent === 0 ? "leave" : await confirmDialog({
    title: unsent === 1 ? "1 message hasn't been sent yet" : `${unsent} messages haven't been sent yet`,
    text: `What you keep is sent the next time you join as ${connection.name} in this tab.`,
    actions: [
      { label: "Stay", value: "" },
      { label: "Leave and keep", value: "keep" },
      { label: "Leave and discard", value: "discard", isDanger: true },
    ],
  });
  if (choice === null || section.hidden) return;
  sender.leave(choice === "keep");
  closeDrafts(choice === "discard");
  connection.leave(choice === "keep");
  clearLog();
  lossNotice = null;
  showRoom(false);
  room.onLeft();
});

$("retry").addEventListener("click", () => connection.check());
$("rejoin").addEventListener("click", () => connection.rejoin());

/** @param {boolean} isJoined */
function showRoom(isJoined) {
  me = isJoined ? connection.name : null;
  setOwnName(me);
  if (!isJoined) isModerator = false;
  if (isJoined) $("join-form").hidden = true;
  for (const id of ["room", "members-button", "leave"]) $(id).hidden = !isJoined;
  setInRoom(isJoined);
  showDrawer(false);
  if (isJoined) messageInput.focus();
}

// --- Members

/** @param {import("./people.js").Person[]} users */
function updateMembers(users) {
  if (me === null) {
    me = connection.name ?? "";
    setOwnName(me);
    saveLasting("name", me);
  }
  showPeople(users, me);
  completions.present = users.map((user) => user.username);
  completions.names = completions.present.filter((name) => name !== me);
  const self = users.find((user) => user.username === me);
  if (isModerator && !self?.is_mod) {
    addNotice("connection", "You're no longer a moderator. To become one again, use /login.");
  }
  isModerator = self?.is_mod ?? false;
  sender.isTimedOut = self?.is_timed_out ?? false;
  setTimedOut(sender.isTimedOut);
  sender.sendWaiting();
}

connectMenus({
  run: inRoom((command) => {
    const error = sender.submit(command.trim(), null);
    if (error) addNotice("error", error);
  }),
  whisper: inRoom(startWhisper),
  mention: inRoom(insertMention),
  showWhispers: inRoom(setConversation),
});
onPersonMenu(openPersonMenu);
log.openMenu = openMessageMenu;

/** @param {(commandOrName: string) => void} action its result is in the log or the message box */
function inRoom(action) {
  return (/** @type {string} */ commandOrName) => {
    if (isDrawerOpen()) closeDrawer();
    action(commandOrName);
  };
}

$("log").addEventListener("click", (event) => {
  showDrawer(false);
  const name = closest(event, "[data-name]");
  if (name) openPersonMenu(name.dataset.name ?? "", name);
});

/**
 * On a narrow screen the member list is a drawer.
 * @param {boolean} isOpen
 */
function showDrawer(isOpen) {
  section.classList.toggle("drawer-open", isOpen);
  $("members-button").setAttribute("aria-expanded", String(isOpen));
}

const isDrawerOpen = () => section.classList.contains("drawer-open");

$("members-button").addEventListener("click", () => {
  showDrawer(!isDrawerOpen());
  /** @type {HTMLElement | null} */
  const person = $("member-list").querySelector('[tabindex="0"]');
  if (isDrawerOpen()) person?.focus();
});

addEventListener("keydown", ({ key }) => {
  if (key === "Escape" && isDrawerOpen() && !document.querySelector("dialog[open], :popover-open")) closeDrawer();
});

function closeDrawer() {
  showDrawer(false);
  $("members-button").focus();
}

// --- The Back button

guardBack(closeTop, showBackHint);

// Returns whether there was anything to close.
function closeTop() {
  /** @type {HTMLDialogElement | null} */
  const dialog = document.querySelector("dialog[open]");
  /** @type {HTMLElement | null} */
  const popover = document.querySelector(":popover-open");
  if (dialog) dialog.close();
  else if (popover) popover.hidePopover();
  else if (isDrawerOpen()) closeDrawer();
  else return false;
  return true;
}

/** @param {boolean} isShown */
function showBackHint(isShown) {
  if (backHint) removeRow(backHint);
  backHint = isShown ? addNotice("connection", "Press Back again to leave the page.") : null;
}

// --- Sending

composer.send = (text, recipient) => {
  const error = sender.submit(text, recipient);
  if (error) addNotice("error", `${error} Your text is still in the message box.`);
  jumpToLatest();
  return error === null;
};
composer.excess = (text, recipient) => sender.excess(text, recipient);
