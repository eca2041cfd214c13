// The message log: messages, notices and the number of unread messages.

import { $, avatar, element, setHue } from "./dom.js";
import { linkify } from "./links.js";

const MAX_ROWS = 2000; // the oldest are removed
const GROUPING_WINDOW_MS = 5 * 60_000; // a sender's messages within this time share one header
const APPEND_DELAY_MS = 20; // appends a burst with one layout
const BOTTOM_TOLERANCE_PX = 40;
const EMOJI_ONLY = /^(?:\p{Extended_Pictographic}|\p{Emoji_Modifier}|\p{Regional_Indicator}|[\u200d\ufe0f\s]){1,12}$/u;

const box = $("log");
const jumpButton = $("jump-to-latest");
let queue = []; // rows to append
let appendTimer = 0;
let isPinned = true; // to the bottom
let pinnedTop = 0; // scrollTop after the last scroll to the bottom
let unread = 0;
let divider = null; // above the first unread message
let previous = {}; // the previous message: { group, addedAt }

// Returns the message's row. A message with a recipient is a whisper.
export function addMessage({ sender, text, time, isOwn = false, recipient = null }) {
  const isWhisper = recipient !== null;
  const group = `${isOwn}\n${sender}\n${recipient}`;
  const isGrouped = previous.group === group && Date.now() - previous.addedAt < GROUPING_WINDOW_MS;
  previous = { group, addedAt: Date.now() };

  const name = element("bdi", { class: "name", "data-name": sender }, isOwn ? "You" : sender);
  const header = element("p", { class: "message-header" }, setHue(name, sender));
  if (isWhisper && isOwn) header.append(" whisper to ", element("bdi", {}, recipient));
  else if (isWhisper) header.append(" whispers to you");
  header.append(" ", element("time", {}, time.slice(0, 5)));

  const textClass = `message-text${EMOJI_ONLY.test(text) ? " emoji" : ""}`;
  const body = element("div", {}, header, element("p", { class: textClass, dir: "auto" }, ...linkify(text)));
  const classes = ["message", isOwn && "own", isWhisper && "whisper", isGrouped && "grouped"].filter(Boolean);
  const row = element("div", { class: classes.join(" "), title: time }, isOwn ? "" : avatar(sender), body);
  append(row, !isOwn);
  return row;
}

// Shows a delivery state below one of the user's own messages; "" removes it.
export function setDeliveryState(row, state) {
  row.querySelector(".delivery-state")?.remove();
  if (state !== "") row.lastChild.append(element("p", { class: "delivery-state" }, state));
}

// `kind` is "system", "error" or "connection".
export function addNotice(kind, text) {
  previous = {};
  const body = element("p", {}, kind === "error" ? element("b", {}, "Error: ") : "", ...linkify(text));
  append(element("div", { class: `notice ${kind}` }, body), false);
}

export function jumpToLatest() {
  isPinned = true;
  scrollToBottom();
  updateUnread();
}

export function clearLog() {
  queue = [];
  divider = null;
  previous = {};
  unread = 0;
  box.replaceChildren();
  jumpToLatest();
}

box.addEventListener("scroll", () => {
  isPinned = isAtBottom();
  updateUnread();
});
jumpButton.addEventListener("click", () => {
  jumpToLatest();
  box.focus();
});
addEventListener("focus", updateUnread);
document.addEventListener("visibilitychange", updateUnread);
new ResizeObserver(() => isPinned && scrollToBottom()).observe(box);

function append(row, canBeUnread) {
  if (canBeUnread && !isLatestVisible()) {
    unread += 1;
    if (unread === 1) {
      divider?.remove();
      divider = element("div", { class: "unread-divider", role: "separator", "aria-label": "New" }, "New");
      queue.push(divider);
    }
    showUnread();
  }
  queue.push(row);
  if (queue.length > MAX_ROWS) queue.shift();
  appendTimer ||= setTimeout(appendQueue, APPEND_DELAY_MS);
}

function appendQueue() {
  appendTimer = 0;
  // The user may have scrolled up just now, with the scroll event still to come.
  if (box.scrollTop < pinnedTop - 4 && !isAtBottom()) isPinned = false;
  box.append(...queue);
  queue = [];
  removeOldRows();
  if (isPinned) scrollToBottom();
}

function removeOldRows() {
  const excess = box.childElementCount - MAX_ROWS;
  if (excess <= 0) return;
  const { scrollHeight, scrollTop } = box;
  for (let i = 0; i < excess; i += 1) box.firstChild.remove();
  // Keeps the visible messages in place.
  if (!isPinned) box.scrollTop = scrollTop - (scrollHeight - box.scrollHeight);
}

function scrollToBottom() {
  box.scrollTop = box.scrollHeight;
  pinnedTop = box.scrollTop;
}

function isAtBottom() {
  return box.scrollHeight - box.scrollTop - box.clientHeight < BOTTOM_TOLERANCE_PX;
}

function isLatestVisible() {
  return isPinned && !document.hidden && document.hasFocus();
}

function updateUnread() {
  if (isLatestVisible()) unread = 0;
  showUnread();
}

function showUnread() {
  const count = unread === 1 ? "1 new message" : `${unread} new messages`;
  jumpButton.textContent = unread > 0 ? count : "Jump to latest";
  jumpButton.hidden = isPinned;
  document.title = unread > 0 ? `(${unread}) TinyChat` : "TinyChat";
}
