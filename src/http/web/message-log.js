// The message log: its rows and their order, scrolling, unread messages, moving between messages, and copying.

import { $, element } from "./dom.js";
import {
  describePresence, dividerRow, formatDay, formatTime, messageRow, noticeRow, setDeliveryState, setTime,
} from "./formatting.js";
import { onSettings, settings } from "./settings.js";

// Rows are in chunks: a new row costs the layout of its chunk only, and the browser skips chunks that are out of sight.
const CHUNK_ROWS = 100;
const MAX_CHUNKS = 100; // the oldest are removed
const GROUPING_WINDOW_MS = 5 * 60_000; // a sender's messages within this time share one header
const BOTTOM_TOLERANCE_PX = 40;
const TOP_TOLERANCE_PX = 300; // older messages are requested before the top is reached
const QUIET_MS = 500; // enough for rows to be added, and for screen readers to notice them
const DAY_CHECK_MS = 30_000; // how late a new day is noticed
// Not the answer to a time-out, whose reason may end like this.
const PRESENCE = /^(?!You are timed out)(.{1,32}) (joined|left)\.$/u;

/**
 * An element with `data`: { id, time, day, separator, group, message, unread, partner, changes, isLast, isAlert }. The
 * separator of a day has none.
 * @typedef {any} Row
 */
/** @typedef {{ count: number, mentions: number, whispers: number }} Unread */

/**
 * What room.js does for the log. `requestOlder` returns whether it could.
 * @type {{ requestOlder: (oldestId?: number) => boolean, showUnread: (unread: Unread) => void,
 *   openMenu: (message: any) => void }}
 */
export const actions = { requestOlder: () => false, showUnread() {}, openMenu() {} };

const box = $("log");
const jumpButton = $("jump-to-latest");
// It moves to the row that has the pointer or the focus.
const menuButton = element(
  "button",
  { id: "message-menu", class: "secondary", "aria-label": "Message actions", "aria-haspopup": "menu", "aria-live": "off" },
  "⋯",
);
/** @type {string | null} */
let ownName = null;
/** @type {string | null} */
let epoch = null; // of the ids
/** @type {Map<number | undefined, Row>} */
let ids = new Map(); // from id to row, or to null if a message was deleted that is not shown
/** @type {Set<Row>} */
const pending = new Set(); // the user's rows without a place in the order yet; they stay at the bottom
/** @type {Row[] | null} */
let older = null; // rows to insert above all others, while they are collected
let isPinned = true; // to the bottom
let lastTop = 0; // where it was last scrolled to the bottom
/** @type {{ row: Row, bottom: number } | undefined} */
let anchor; // the first message that is visible
/** @type {Unread} */
let unread = { count: 0, mentions: 0, whispers: 0 }; // replaced when all is read: a row that counts refers to it
/** @type {Row} */
let divider = null; // above the first unread message
/** @type {string | null} */
let conversation = null; // only whispers with this member are shown
let hasOlder = false; // whether there are older messages than those shown
let isRequested = false;
let quietTimer = 0;
let today = new Date().toDateString();

/**
 * Returns the message's row, or null if a message with its id is shown already. A message without an id is pending.
 * @param {{ id?: number, sender: string, text: string, time?: string | number, isOwn?: boolean,
 *   recipient?: string | null, isNew?: boolean }} message
 */
export function addMessage({ id, sender, text, time, isOwn = false, recipient = null, isNew = true }) {
  if (ids.has(id)) return null;
  const isWhisper = recipient !== null;
  const message = { sender, text, isOwn, isWhisper, recipient };
  /** @type {Row} */
  const row = messageRow(message, ownName);
  const partner = isWhisper && (isOwn ? recipient : sender);
  register(row, { message, partner, group: JSON.stringify([isOwn, sender, recipient]) }, id, time);
  if (isNew && !isOwn && (row.hidden || !isLatestVisible())) addUnread(row);
  if (id === undefined) {
    row.classList.add("pending");
    pending.add(row);
  }
  append(row);
  if (id === undefined && row.hidden) setConversation(null); // else the user would not see it
  return row;
}

// Gives a pending message its place in the order, after all messages received so far.
/** @param {Row} row  @param {{ id: number, time: string | number }} message */
export function confirmMessage(row, { id, time }) {
  const [first] = pending;
  endPending(row);
  const isShown = ids.has(id);
  if (row !== first || isShown) removeRow(row);
  if (isShown) return;
  register(row, row.data, id, time);
  if (row.isConnected) arrange(row);
  else append(row);
}

// A pending message has been sent, or will not be.
/** @param {Row} row */
export function endPending(row, state = "") {
  pending.delete(row);
  row.classList.remove("pending");
  setDeliveryState(row, state);
}

/**
 * Returns the row, or null if one with its id is shown already.
 * @param {"system" | "error" | "connection"} kind
 * @param {string} text
 * @param {number} [id] of a line that the server keeps; it doesn't keep who joined or left
 * @param {string | number} [time]
 */
export function addNotice(kind, text, id, time) {
  if (ids.has(id)) return null;
  const [, name, change] = (kind === "system" && id === undefined && PRESENCE.exec(text)) || [];
  /** @type {Row} */
  const row = noticeRow(name ? "system presence" : kind, text);
  const changes = name && new Map([[name, [change, change]]]);
  register(row, { changes, isLast: kind === "error", isAlert: kind !== "system" }, id, time);
  append(row);
  return row;
}

// Replaces the text of the message with this id. If it is still to come, it will not be shown.
/** @param {number} id */
export function deleteMessage(id) {
  const row = ids.get(id);
  if (!row) {
    ids.set(id, null);
    return;
  }
  if (row.data.unread === unread) countUnread(row, -1);
  row.data.unread = null;
  row.classList.remove("mentions-me", "emoji");
  row.classList.add("deleted");
  keepPlace(() => textOf(row).replaceChildren("Message deleted"));
  if (row.data.message) row.data.message.text = "";
}

/** @param {string} text */
export function addDivider(text, kind = "gap") {
  /** @type {Row} */
  const row = dividerRow(kind, text);
  row.data = {};
  showRow(row);
  append(row);
  return row;
}

// Inserts what `add` adds above all other rows.
/** @param {() => void} add  @param {boolean} hasMore */
export function addOlder(add, hasMore) {
  suppressAnnouncements();
  older = [];
  add();
  const rows = [...older, shown("firstChild", box)];
  keepPlace(() => {
    if (older?.length) box.prepend(createChunk(older));
    rows.forEach((row) => arrange(row));
  });
  older = null;
  setOlder(hasMore);
}

/** @param {Row} row */
export function removeRow(row) {
  pending.delete(row);
  if (!row.isConnected) return;
  const after = shown("nextSibling", row);
  row.data.separator?.remove();
  remove(row);
  arrange(after);
}

// Whether there are messages older than those shown.
/** @param {boolean} value */
export function setOlder(value) {
  hasOlder = value;
  isRequested = false;
  // Not at once, so that an answer without messages cannot cause a busy loop. Of a page, a conversation may show nothing:
  // there, only scrolling requests another.
  if (conversation === null) setTimeout(checkTop);
}

// The name that counts as a mention in the messages that follow.
/** @param {string | null} name */
export function setOwnName(name) {
  ownName = name;
}

// Shows only the whispers with this member, or everything.
/** @param {string | null} name */
export function setConversation(name) {
  if (name === conversation) return;
  conversation = name;
  $("conversation").hidden = name === null;
  $("conversation-name").textContent = name;
  box.classList.toggle("filtered", name !== null);
  refresh();
  jumpToLatest();
}

// Sets the epoch of the messages that follow. Rows of an earlier epoch lose their ids, which start over. Returns
// whether it is the first.
/** @param {string} newEpoch */
export function startEpoch(newEpoch) {
  isRequested = false;
  if (newEpoch === epoch) return false;
  const isFirst = epoch === null;
  if (!isFirst) hasOlder = false;
  epoch = newEpoch;
  for (const row of ids.values()) {
    if (!row) continue;
    row.data.id = undefined;
    showRow(row);
  }
  ids = new Map();
  return isFirst;
}

// For `QUIET_MS`, screen readers do not announce added rows.
export function suppressAnnouncements() {
  box.ariaLive = "off";
  clearTimeout(quietTimer);
  quietTimer = setTimeout(() => (box.ariaLive = null), QUIET_MS);
}

export function jumpToLatest() {
  isPinned = true;
  restorePlace();
  updateUnread();
}

export function clearLog() {
  [ids, epoch, divider, hasOlder] = [new Map(), null, null, false];
  pending.clear();
  box.replaceChildren();
  setConversation(null);
  resetUnread();
  jumpToLatest();
}

// --- Rows

/** @param {Row} row  @param {object} data  @param {number | undefined} id  @param {string | number} time */
function register(row, data, id, time = Date.now()) {
  const date = new Date(time);
  row.data = { ...data, id, time: +date, day: date.toDateString() };
  if (id !== undefined) ids.set(id, row);
  showRow(row);
}

/** @param {Row} row */
function showRow(row) {
  const { changes, id, isAlert, partner, time } = row.data;
  row.hidden = conversation === null ? changes && settings.joins === "hidden" : !isAlert && partner !== conversation;
  if (time) setTime(row, new Date(time), id);
}

/** @param {Row[]} rows */
function createChunk(rows) {
  const chunk = element("div", { class: "chunk" }, ...rows);
  resizes.observe(chunk);
  return chunk;
}

/** @returns {Row[]} */
const allRows = () => [...box.querySelectorAll(".chunk > *")].filter((/** @type {Row} */ row) => row.data);

const walker = document.createTreeWalker(box, NodeFilter.SHOW_ELEMENT, (/** @type {Row} */ node) => {
  if (node.parentNode === box) return NodeFilter.FILTER_SKIP;
  return node.data && !node.hidden ? NodeFilter.FILTER_ACCEPT : NodeFilter.FILTER_REJECT;
});

// The next row in this direction that is shown, and not the separator of a day.
/** @param {"firstChild" | "lastChild" | "previousSibling" | "nextSibling"} direction  @param {Row} from */
function shown(direction, from) {
  walker.currentNode = from;
  return /** @type {Row} */ (walker[direction]());
}

// Rows are in order of arrival, above pending messages. The layout comes with the next frame: see `resizes`.
/** @param {Row} row */
function append(row) {
  if (older) {
    older.push(row);
    return;
  }
  const [first] = pending.has(row) || row.data.isLast ? [] : pending;
  const next = first?.data.separator ?? first ?? null;
  const chunk = next?.parentNode ?? box.lastElementChild ?? box.appendChild(createChunk([]));
  chunk.insertBefore(row, next);
  if (chunk.childElementCount > CHUNK_ROWS) {
    const rows = [...chunk.children];
    chunk.after(createChunk(rows.slice(rows.indexOf(row))));
  }
  arrange(row);
  arrange(first);
  removeOldRows();
}

/** @param {Row} node a row or a chunk */
function remove(node) {
  const parent = node.parentNode;
  if (node.contains(document.activeElement)) box.focus();
  node.remove();
  if (parent !== box && !parent.firstChild) parent.remove();
}

// Adapts a row to the one shown above it: adds the separator of a day, unites the two if both are about members that
// came or went, and hides the header of a message that follows another of the same group.
/** @param {Row} row */
function arrange(row, previous = row && shown("previousSibling", row)) {
  if (!row) return;
  const { data } = row;
  data.separator?.remove();
  data.separator = null;
  if (row.hidden) return;
  const last = previous?.data ?? {};
  if (!data.time) {
    data.day = last.day; // a divider has no day of its own
    return;
  }
  const isSameDay = data.day === last.day;
  if (!isSameDay) row.before((data.separator = dividerRow("day", formatDay(new Date(data.time)))));
  if (data.group) {
    const isClose = Math.abs(data.time - last.time) < GROUPING_WINDOW_MS;
    row.classList.toggle("grouped", isSameDay && isClose && data.group === last.group);
  } else if (isSameDay && data.changes && last.changes) {
    for (const [name, [from, to]] of data.changes) last.changes.set(name, [last.changes.get(name)?.[0] ?? from, to]);
    last.time = data.time;
    previous.ariaLive = "off"; // so that a crowd can't keep screen readers busy
    previous.firstChild.textContent = describePresence(last.changes);
    remove(row);
  }
}

// Shows all rows anew, after a change of what is shown or how.
function refresh() {
  suppressAnnouncements();
  keepPlace(() => {
    /** @type {Row} */
    let previous = null;
    for (const row of allRows()) {
      showRow(row);
      arrange(row, previous);
      if (row.isConnected && !row.hidden) previous = row;
    }
  });
}

function removeOldRows() {
  /** @type {any} */
  const chunk = box.firstChild;
  if (box.childElementCount <= MAX_CHUNKS) return;
  keepPlace(() => {
    // They can be requested again.
    for (const row of chunk.children) if (ids.get(row.data?.id) === row) hasOlder = ids.delete(row.data.id);
    remove(chunk);
    arrange(shown("firstChild", box));
  });
}

function checkTop() {
  if (!hasOlder || isRequested || box.childElementCount >= MAX_CHUNKS) return;
  if (box.clientHeight === 0 || box.scrollTop > TOP_TOLERANCE_PX) return;
  const [oldestId] = [...ids.keys()].filter((id) => ids.get(id)).sort((a, b) => Number(a) - Number(b));
  isRequested = actions.requestOlder(oldestId);
}

// --- Scrolling

const resizes = new ResizeObserver(() => {
  // Their heights are known now, so the browser can skip them when they are invisible.
  for (const chunk of box.querySelectorAll(".chunk:not(.settled, :last-child)")) chunk.classList.add("settled");
  restorePlace();
});
resizes.observe(box);

// Only the user's scrolling ends the pinning: a change of size can scroll the box too, but to its end.
box.addEventListener("scroll", () => {
  const { scrollTop, scrollHeight, clientHeight } = box;
  isPinned = scrollHeight - scrollTop - clientHeight < BOTTOM_TOLERANCE_PX || (isPinned && scrollTop >= lastTop);
  findAnchor();
  updateUnread();
  checkTop();
});
jumpButton.addEventListener("click", () => {
  jumpToLatest();
  box.focus();
});
$("show-all").addEventListener("click", () => {
  setConversation(null);
  box.focus();
});
addEventListener("focus", updateUnread);
document.addEventListener("visibilitychange", updateUnread);
onSettings(refresh);
setInterval(() => {
  if (today !== (today = new Date().toDateString())) refresh();
}, DAY_CHECK_MS);

/** @param {() => void} change */
function keepPlace(change) {
  findAnchor();
  change();
  restorePlace();
}

function findAnchor() {
  const isBelow = (/** @type {Element} */ node) => bottomOf(node) > 0;
  const chunk = isPinned ? undefined : [...box.children].find(isBelow);
  const row = chunk && [...chunk.querySelectorAll(".message")].find(isBelow);
  anchor = row && { row, bottom: bottomOf(row) };
}

/** @param {Element} node */
const bottomOf = (node) => node.getBoundingClientRect().bottom - box.getBoundingClientRect().top;

// The log stays at its end, or else what is visible stays in its place.
function restorePlace() {
  if (isPinned) {
    box.scrollTop = box.scrollHeight;
    lastTop = box.scrollTop;
  } else if (anchor?.row.isConnected) {
    box.scrollTop += bottomOf(anchor.row) - anchor.bottom;
  }
}

// --- Unread messages

function isLatestVisible() {
  return isPinned && !document.hidden && document.hasFocus();
}

/** @param {Row} row */
function addUnread(row) {
  if (unread.count === 0) {
    if (divider) removeRow(divider);
    divider = addDivider("New", "unread");
  }
  row.data.unread = unread;
  countUnread(row, 1);
}

/** @param {Row} row  @param {1 | -1} change */
function countUnread(row, change) {
  unread.count += change;
  if (row.matches(".mentions-me")) unread.mentions += change;
  if (row.data.message.isWhisper) unread.whispers += change;
  showUnread();
}

function updateUnread() {
  if (isLatestVisible() && conversation === null && unread.count > 0) resetUnread();
  jumpButton.hidden = isPinned;
}

function resetUnread() {
  unread = { count: 0, mentions: 0, whispers: 0 };
  showUnread();
}

function showUnread() {
  const { count, mentions, whispers } = unread;
  const parts = [plural(count, "new message"), plural(mentions, "mention"), plural(whispers, "whisper")];
  jumpButton.textContent = parts.filter(Boolean).join(", ") || "Jump to latest";
  $("show-all").textContent = count ? `Show all (${count} new)` : "Show all";
  actions.showUnread(unread);
}

/** @param {number} count  @param {string} noun */
const plural = (count, noun) => (count ? `${count} ${noun}${count > 1 ? "s" : ""}` : "");

// --- Moving between messages, and their menu

// Not pointerover, which is also sent when the log scrolls under a resting pointer.
for (const type of ["pointermove", "click", "focusin"]) box.addEventListener(type, activate);
menuButton.addEventListener("click", showMenu);
box.addEventListener("keydown", (event) => {
  const { target, key } = event;
  const row = messageOf(target);
  if (target !== row && target !== box && target !== menuButton) return;
  if (key === "ArrowUp") focusMessage(row, "previousSibling");
  else if (key === "ArrowDown") focusMessage(row, "nextSibling");
  else if (key === "Escape") $("message-input").focus();
  else if (target === row && (key === "Enter" || key === "ContextMenu")) {
    activate(event);
    showMenu();
  } else return;
  event.preventDefault();
});

/** @param {any} node */
const messageOf = (node) => node.closest(".message");

// The next message, or the latest if none has the focus yet.
/** @param {Row} row  @param {"previousSibling" | "nextSibling"} direction */
function focusMessage(row, direction) {
  let next = row ? shown(direction, row) : shown("lastChild", box);
  while (next && !next.data.message) next = shown(row ? direction : "previousSibling", next);
  if (!next) return;
  next.ariaLabel = describeSender(next) + textOf(next).textContent;
  next.focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
}

/** @param {Event} event */
function activate({ target }) {
  const row = messageOf(target);
  if (!row || row.contains(menuButton)) return;
  const isFocused = menuButton === document.activeElement;
  row.append(menuButton);
  if (isFocused) menuButton.focus();
}

function showMenu() {
  const { id, message } = messageOf(menuButton).data;
  actions.openMenu({ ...message, id, anchor: menuButton });
}

// --- Copying

// What is selected in several rows is copied with names and times.
document.addEventListener("copy", (event) => {
  const selection = getSelection();
  if (!selection?.rangeCount) return;
  const lines = allRows()
    .filter((row) => !row.hidden && selection.containsNode(textOf(row), true))
    .map((row) => [describeSender(row), selectedText(row, selection.getRangeAt(0))])
    .filter(([, text]) => text.trim() !== "");
  if (lines.length < 2) return;
  event.clipboardData?.setData("text/plain", lines.map((line) => line.join("")).join("\n"));
  event.preventDefault();
});

/** @param {Row} row */
const textOf = (row) => row.querySelector(".message-text, .notice > p") ?? row;

/** @param {Row} row */
function describeSender({ data: { message, time } }) {
  if (!message) return "";
  return `${message.sender}${message.recipient ? ` to ${message.recipient}` : ""}, ${formatTime(new Date(time))}: `;
}

// All of a message's text is copied as it was written.
/** @param {Row} row  @param {Range} range */
function selectedText(row, range) {
  const text = textOf(row);
  const part = range.cloneRange();
  if (!text.contains(part.startContainer)) part.setStart(text, 0);
  if (!text.contains(part.endContainer)) part.setEnd(text, text.childNodes.length);
  const selected = String(part);
  return (selected === text.textContent && row.data.message?.text) || selected;
}
