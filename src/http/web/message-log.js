// The message log: its rows and their order, scrolling, unread messages, moving between messages, and copying.

import { $, element } from "./dom.js";
import { mentions } from "./formatting.js";
import {
  describePresence, dividerRow, formatDay, formatTime, messageRow, noticeRow, setDeleted, setDeliveryState, setTime,
} from "./message-row.js";
import { onSettings, settings } from "./settings.js";

const MAX_ROWS = 10_000; // the oldest are removed, a chunk at a time
const CHUNK_ROWS = 100; // rows share elements: a new one costs the layout of one, and the browser skips invisible ones
const GROUPING_WINDOW_MS = 5 * 60_000; // a sender's messages within this time share one header
const APPEND_DELAY_MS = 20; // appends a burst with one layout
const BOTTOM_TOLERANCE_PX = 40;
const TOP_TOLERANCE_PX = 300; // older messages are requested before the top is reached
const QUIET_MS = 500; // enough for rows to be appended, and for screen readers to notice them
const DAY_CHECK_MS = 30_000; // how late a new day is noticed
const PRESENCE = /^(.{1,32}) (joined|left)\.$/su;

/** @typedef {{ count: number, mentions: number, whispers: number }} Unread */

const box = $("log");
const jumpButton = $("jump-to-latest");
const menuButton = $("message-menu");
const area = $("log-area");
// From row to { ids, time, day, group, message, partner, events, isLast, isAlert }. The separator of a day has none.
/** @type {WeakMap<object, any>} */
const rowData = new WeakMap();
/** @type {WeakMap<object, number>} */
const heights = new WeakMap(); // of chunks, in px
/** @type {Set<Element>} */
const changedPresence = new Set(); // rows to which someone has been added
/** @type {string | null} */
let ownName = null;
/** @type {string | null} */
let epoch = null; // of the ids
/** @type {Map<number | undefined, any>} */
let ids = new Map(); // from id to row, or to null if a message was deleted that is not shown
/** @type {any[]} */
let queue = []; // rows to append
let appendTimer = 0;
/** @type {any[]} */
let pending = []; // the user's rows without a place in the order yet; they stay at the bottom
let isPinned = true; // to the bottom
let end = { scrollHeight: 0, clientHeight: 0 }; // of the box after the last scroll to the bottom
/** @type {Unread} */
let unread = { count: 0, mentions: 0, whispers: 0 };
/** @type {any} */
let divider = null; // above the first unread message
/** @type {string | null} */
let conversation = null; // only whispers with this member are shown
/** @type {any} */
let activeRow = null; // the message that has the menu button
/** @type {(oldestId: number) => boolean} */
let requestOlder = () => false;
/** @type {(unread: Unread) => void} */
let tellUnread = () => {};
/** @type {((message: object) => void) | null} */
let openMenu = null;
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
  const mentionsMe = !isOwn && ownName !== null && mentions(text, ownName);
  const row = messageRow({ sender, text, isOwn, recipient, ownName: isOwn ? null : ownName });
  row.classList.toggle("mentions-me", mentionsMe);
  const isPending = id === undefined;
  row.classList.toggle("pending", isPending);
  if (isPending) pending.push(row);
  register(row, id, time, {
    group: JSON.stringify([isOwn, sender, recipient]),
    message: { id, sender, text, isOwn, isWhisper, recipient },
    partner: isWhisper && (isOwn ? recipient : sender),
  });
  if (isPending && row.hidden) {
    setConversation(null); // else the user would not see it
    showRow(row);
  }
  if (isNew && !isOwn && !(isLatestVisible() && !row.hidden)) countUnread(mentionsMe, isWhisper);
  append(row);
  return row;
}

// Gives a pending message its place in the order, after all messages received so far.
/** @param {Element} row  @param {{ id: number, time: string | number }} message */
export function confirmMessage(row, { id, time }) {
  appendQueue();
  endPending(row);
  if (ids.has(id)) {
    removeRow(row);
    return;
  }
  const data = rowData.get(row);
  data.message.id = id;
  register(row, id, time, data);
  insert(row);
  if (isPinned) scrollToBottom();
}

// A pending message will not be sent.
/** @param {Element} row  @param {string} state */
export function failMessage(row, state) {
  endPending(row);
  setDeliveryState(row, state);
}

/**
 * Returns the row, or null if one with its id is shown already.
 * @param {"system" | "error" | "connection"} kind
 * @param {string} text
 * @param {number} [id]
 * @param {string | number} [time]
 */
export function addNotice(kind, text, id, time) {
  if (ids.has(id)) return null;
  const [, name, change] = (kind === "system" && PRESENCE.exec(text)) || [];
  const row = noticeRow(name ? "system presence" : kind, text);
  const events = name && [{ name, hasJoined: change === "joined" }];
  register(row, id, time, { events, isLast: kind === "error", isAlert: kind !== "system" });
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
  const { scrollHeight } = box;
  const isAbove = row.getBoundingClientRect().top < box.getBoundingClientRect().top;
  setDeleted(row);
  const data = rowData.get(row);
  data.events = null;
  if (data.message) data.message.text = "";
  if (isPinned) scrollToBottom();
  else if (isAbove) box.scrollTop += box.scrollHeight - scrollHeight;
  measure();
}

/** @param {string} text */
export function addDivider(text) {
  append(createDivider("gap", text));
}

// Inserts what `add` adds above all other rows; what is visible does not move.
/** @param {() => void} add  @param {boolean} hasMore */
export function addOlder(add, hasMore) {
  appendQueue();
  suppressAnnouncements();
  add();
  const { scrollHeight, scrollTop } = box;
  const next = firstShown();
  if (queue.length > 0) box.prepend(createChunk(queue));
  for (const row of [...queue, next]) arrange(row);
  queue = [];
  showPresence();
  if (isPinned) scrollToBottom();
  else box.scrollTop = scrollTop + box.scrollHeight - scrollHeight;
  measure();
  setOlder(hasMore);
}

/** @param {Element} row */
export function removeRow(row) {
  appendQueue();
  endPending(row);
  detach(row);
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

/** @param {typeof requestOlder} callback called with the oldest id; returns whether it could */
export function onOlderWanted(callback) {
  requestOlder = callback;
}

/** @param {typeof tellUnread} callback called when the numbers change */
export function onUnread(callback) {
  tellUnread = callback;
}

// `callback` is called with { id, sender, text, isOwn, isWhisper, recipient, anchor }.
/** @param {(message: any) => void} callback */
export function onMessageMenu(callback) {
  openMenu = callback;
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
  appendQueue();
  conversation = name;
  $("conversation").hidden = name === null;
  $("conversation-name").textContent = name;
  box.classList.toggle("filtered", name !== null);
  activate(null);
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
  ids = new Map();
  return isFirst;
}

// For `QUIET_MS`, screen readers do not announce added rows.
export function suppressAnnouncements() {
  box.setAttribute("aria-live", "off");
  clearTimeout(quietTimer);
  quietTimer = setTimeout(() => box.removeAttribute("aria-live"), QUIET_MS);
}

export function jumpToLatest() {
  isPinned = true;
  scrollToBottom();
  updateUnread();
}

export function clearLog() {
  [queue, pending, ids, epoch, divider] = [[], [], new Map(), null, null];
  hasOlder = false;
  box.replaceChildren();
  setConversation(null);
  activate(null);
  setUnread(0, 0, 0);
  jumpToLatest();
}

// --- Rows

/** @param {Element} row  @param {number | undefined} id  @param {string | number} time  @param {object} data */
function register(row, id, time = Date.now(), data) {
  const date = new Date(time);
  rowData.set(row, { ...data, ids: id === undefined ? [] : [id], time: Number(date), day: date.toDateString() });
  if (id !== undefined) ids.set(id, row);
  showRow(row);
}

/** @param {string} kind  @param {string} text */
function createDivider(kind, text) {
  const row = dividerRow(kind, text);
  rowData.set(row, { ids: [] });
  showRow(row);
  return row;
}

/** @param {any} row */
function showRow(row) {
  const { events, ids: [id], isAlert, partner, time } = rowData.get(row);
  row.hidden = conversation === null ? events && settings.joins === "hidden" : !isAlert && partner !== conversation;
  if (time) setTime(row, new Date(time), id);
}

/** @param {Element[]} rows */
function createChunk(rows) {
  const chunk = element("div", { class: "chunk" }, ...rows);
  resizes.observe(chunk);
  return chunk;
}

/** @returns {any[]} */
const allRows = () => [...box.children].flatMap((chunk) => [...chunk.children]);

const rowCount = () => [...box.children].reduce((sum, chunk) => sum + chunk.childElementCount, 0);

/** @param {any} row */
const rowBefore = (row) =>
  row.previousElementSibling ?? row.parentNode?.previousElementSibling?.lastElementChild ?? null;

/** @param {any} row */
const rowAfter = (row) => row.nextElementSibling ?? row.parentNode?.nextElementSibling?.firstElementChild ?? null;

/** @param {any} row */
const isSeparator = (row) => row !== null && !rowData.has(row);

// The next row that is shown, and not the separator of a day.
/** @param {any} row */
function shown(row, step = rowAfter) {
  do row = step(row); while (row && (row.hidden || isSeparator(row)));
  return row;
}

function firstShown() {
  /** @type {any} */
  const first = box.firstElementChild?.firstElementChild;
  return first && (first.hidden || isSeparator(first)) ? shown(first) : first;
}

/** @param {any} row */
function endPending(row) {
  row.classList.remove("pending");
  setDeliveryState(row, "");
  pending = pending.filter((other) => other !== row);
}

/** @param {any} row */
function append(row) {
  queue.push(row);
  if (queue.length > MAX_ROWS) releaseIds(queue.shift());
  appendTimer ||= setTimeout(appendQueue, APPEND_DELAY_MS);
}

function appendQueue() {
  clearTimeout(appendTimer);
  appendTimer = 0;
  if (queue.length === 0) return;
  checkPinned(); // The user may have scrolled up just now, with the scroll event still to come.
  queue.forEach(insert);
  queue = [];
  showPresence();
  removeOldRows();
  if (isPinned) scrollToBottom();
  checkTop();
}

// Rows are appended in order of arrival, above pending messages.
/** @param {any} row */
function insert(row) {
  const isLast = pending.includes(row) || rowData.get(row).isLast;
  const next = isLast ? null : pending.find((other) => other.isConnected);
  if (!row.isConnected || (next && next.compareDocumentPosition(row) & Node.DOCUMENT_POSITION_FOLLOWING)) {
    detach(row);
    place(row, next);
  }
  const after = shown(row);
  arrange(row);
  arrange(after);
}

/** @param {any} row  @param {any} next */
function place(row, next) {
  const chunk = next ? next.parentNode : box.lastElementChild;
  if (!chunk) {
    box.append(createChunk([row]));
    return;
  }
  chunk.insertBefore(row, (next && isSeparator(rowBefore(next)) ? next.previousElementSibling : next) ?? null);
  if (chunk.childElementCount <= CHUNK_ROWS) return;
  const rows = [...chunk.children];
  chunk.after(createChunk(rows.slice(rows.indexOf(row))));
}

/** @param {any} row */
function detach(row) {
  if (!row.isConnected) return;
  const after = shown(row);
  if (isSeparator(rowBefore(row))) remove(rowBefore(row));
  remove(row);
  arrange(after);
}

/** @param {any} row */
function remove(row) {
  const chunk = row.parentNode;
  if (row.contains(document.activeElement)) box.focus();
  row.remove();
  if (chunk.childElementCount === 0) chunk.remove();
}

// Adapts a row to the one shown above it: unites the two if both are about members that came or went, adds or removes
// the separator of a day, and hides the header of a message that follows another of the same group.
/** @param {any} row */
function arrange(row, previous = row && shown(row, rowBefore)) {
  if (!row || row.hidden) return;
  const data = rowData.get(row);
  const last = rowData.get(previous);
  if (!data.time) {
    data.day = last?.day; // a divider has no day of its own
    return;
  }
  const isSameDay = data.day === last?.day;
  const hasSeparator = isSeparator(rowBefore(row));
  if (isSameDay && hasSeparator) remove(rowBefore(row));
  if (!isSameDay && !hasSeparator) row.before(dividerRow("day", formatDay(new Date(data.time))));
  if (isSameDay && data.events && last.events) {
    unite(previous, row);
  } else if (data.group) {
    const isClose = Math.abs(data.time - last?.time) < GROUPING_WINDOW_MS;
    row.classList.toggle("grouped", isSameDay && isClose && data.group === last.group);
  }
}

// Screen readers don't announce who is added to a row, so that a crowd can't keep them busy.
/** @param {any} row  @param {any} added */
function unite(row, added) {
  const [data, more] = [rowData.get(row), rowData.get(added)];
  data.events.push(...more.events);
  data.ids.push(...more.ids);
  data.time = more.time;
  for (const id of more.ids) ids.set(id, row);
  if (row.getClientRects().length > 0) row.ariaLive = "off";
  changedPresence.add(row);
  remove(added);
}

// Once for all that were added, so that the time is linear in their number.
function showPresence() {
  for (const row of changedPresence) row.firstElementChild?.replaceChildren(describePresence(rowData.get(row).events));
  changedPresence.clear();
}

// Shows all rows anew, after a change of what is shown or how.
function refresh() {
  suppressAnnouncements();
  let previous = null;
  for (const row of allRows()) {
    if (isSeparator(row)) {
      remove(row);
      continue;
    }
    showRow(row);
    arrange(row, previous);
    if (row.isConnected && !row.hidden) previous = row;
  }
  showPresence();
  if (isPinned) scrollToBottom();
}

function removeOldRows() {
  const { scrollHeight, scrollTop } = box;
  let excess = rowCount() - MAX_ROWS;
  /** @type {any} */
  let chunk = box.firstElementChild;
  if (excess < chunk.childElementCount) return;
  for (; excess >= chunk.childElementCount; chunk = box.firstElementChild) {
    excess -= chunk.childElementCount;
    [...chunk.children].forEach(releaseIds);
    if (chunk.contains(document.activeElement)) box.focus();
    chunk.remove();
  }
  arrange(firstShown());
  // Keeps the visible messages in place.
  if (!isPinned) box.scrollTop = scrollTop - (scrollHeight - box.scrollHeight);
  measure();
}

// A message that is removed can be requested again.
/** @param {any} row */
function releaseIds(row) {
  for (const id of rowData.get(row)?.ids ?? []) {
    if (ids.get(id) !== row) continue;
    ids.delete(id);
    hasOlder = true;
  }
}

function checkTop() {
  if (!hasOlder || isRequested || queue.length > 0 || rowCount() >= MAX_ROWS) return;
  if (box.clientHeight === 0 || box.scrollTop > TOP_TOLERANCE_PX) return;
  const row = allRows().find((candidate) => ids.get(rowData.get(candidate)?.ids[0]) === candidate);
  isRequested = requestOlder(rowData.get(row)?.ids[0]);
}

// --- Scrolling

// Whenever sizes change, the log stays at its end, or else what is visible stays in its place.
const resizes = new ResizeObserver(() => {
  const shift = measure();
  if (isPinned) scrollToBottom();
  else if (shift !== 0) box.scrollTop += shift;
  placeMenuButton();
});
resizes.observe(box);
// To measure its text, the message input shrinks and grows again. Meanwhile the box is higher, which can scroll it.
new MutationObserver(() => isPinned && scrollToBottom()).observe($("composer"), {
  attributeFilter: ["style"],
  subtree: true,
});

box.addEventListener("scroll", () => {
  checkPinned();
  updateUnread();
  checkTop();
  placeMenuButton();
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
  if (today === new Date().toDateString()) return;
  today = new Date().toDateString();
  refresh();
}, DAY_CHECK_MS);

// Returns by how much the chunks above the visible part have grown since the last call.
function measure() {
  const { scrollTop } = box;
  let [bottom, shift] = [0, 0];
  for (const chunk of /** @type {any} */ (box.children)) {
    const { height } = chunk.getBoundingClientRect();
    const previous = heights.get(chunk) ?? 0;
    bottom += previous;
    if (bottom <= scrollTop) shift += height - previous;
    heights.set(chunk, height);
    if (chunk === box.lastElementChild || chunk.matches(".settled")) continue;
    chunk.style.containIntrinsicBlockSize = `auto ${height}px`;
    chunk.classList.add("settled"); // The browser can skip it from now on.
  }
  return shift;
}

function scrollToBottom() {
  box.scrollTop = box.scrollHeight;
  end = { scrollHeight: box.scrollHeight, clientHeight: box.clientHeight };
}

// Only the user's scrolling ends the pinning: a change of size can scroll the box too.
function checkPinned() {
  const { scrollTop, scrollHeight, clientHeight } = box;
  const isResized = scrollHeight !== end.scrollHeight || clientHeight !== end.clientHeight;
  if (isPinned && isResized) scrollToBottom();
  else isPinned = scrollHeight - scrollTop - clientHeight < BOTTOM_TOLERANCE_PX;
}

// --- Unread messages

function isLatestVisible() {
  return isPinned && !document.hidden && document.hasFocus();
}

/** @param {boolean} mentionsMe  @param {boolean} isWhisper */
function countUnread(mentionsMe, isWhisper) {
  if (unread.count === 0) {
    if (divider) detach(divider);
    divider = createDivider("unread", "New");
    append(divider);
  }
  setUnread(unread.count + 1, unread.mentions + Number(mentionsMe), unread.whispers + Number(isWhisper));
}

function updateUnread() {
  if (isLatestVisible() && conversation === null) setUnread(0, 0, 0);
  jumpButton.hidden = isPinned;
}

/** @param {number} count  @param {number} mentionCount  @param {number} whispers */
function setUnread(count, mentionCount, whispers) {
  if (count === unread.count) return;
  unread = { count, mentions: mentionCount, whispers };
  const parts = [plural(count, "new message"), plural(mentionCount, "mention"), plural(whispers, "whisper")];
  jumpButton.textContent = parts.filter(Boolean).join(", ") || "Jump to latest";
  $("show-all").textContent = count > 0 ? `Show all (${count} new)` : "Show all";
  tellUnread(unread);
}

/** @param {number} count  @param {string} noun */
const plural = (count, noun) => (count > 0 ? `${count} ${noun}${count > 1 ? "s" : ""}` : "");

// --- Moving between messages, and their menu

for (const type of ["pointerover", "click", "focusin"]) {
  box.addEventListener(type, (/** @type {Event} */ { target }) => activate(messageOf(target)));
}
area.addEventListener("pointerleave", () => activate(messageOf(document.activeElement)));
menuButton.addEventListener("click", showMenu);
area.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
  const row = messageOf(event.target);
  if (event.target !== row && event.target !== box && event.target !== menuButton) return;
  if (event.key === "ArrowUp") focusMessage(row, rowBefore);
  else if (event.key === "ArrowDown") focusMessage(row, rowAfter);
  else if (event.key === "Escape") $("message-input").focus();
  else if (event.target === row && (event.key === "Enter" || event.key === "ContextMenu")) showMenu();
  else return;
  event.preventDefault();
});

/** @param {any} node */
function messageOf(node) {
  return node === menuButton ? activeRow : (node?.closest?.("#log .message") ?? null);
}

// The next message, or the latest if none has the focus yet.
/** @param {any} row  @param {typeof rowAfter} step */
function focusMessage(row, step) {
  let next = row ? step(row) : box.lastElementChild?.lastElementChild;
  while (next && (next.hidden || !next.matches(".message"))) next = (row ? step : rowBefore)(next);
  if (!next) return;
  next.ariaLabel = describeSender(next) + next.querySelector(".message-text").textContent;
  next.focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
}

/** @param {any} row */
function activate(row) {
  activeRow?.classList.remove("active");
  activeRow = row;
  activeRow?.classList.add("active");
  placeMenuButton();
}

// At the top of the row, or of its visible part.
function placeMenuButton() {
  const [row, bounds] = [(activeRow ?? area).getBoundingClientRect(), box.getBoundingClientRect()];
  const isVisible = activeRow?.isConnected && row.bottom > bounds.top && row.top < bounds.bottom;
  menuButton.hidden = !openMenu || !isVisible;
  menuButton.style.top = `${Math.max(row.top, bounds.top) - area.getBoundingClientRect().top}px`;
}

function showMenu() {
  openMenu?.({ ...rowData.get(activeRow)?.message, anchor: menuButton });
}

// --- Copying

document.addEventListener("copy", (event) => {
  const text = selectedLines();
  if (!text) return;
  event.clipboardData?.setData("text/plain", text);
  event.preventDefault();
});

// The selected rows, with names and times. Null if the selection lies within one row.
function selectedLines() {
  const selection = getSelection();
  if (!selection?.rangeCount) return null;
  const range = selection.getRangeAt(0);
  const common = range.commonAncestorContainer;
  const container = common instanceof Element ? common : common.parentElement;
  if (container?.closest("#log > * > *") || !range.intersectsNode(box)) return null;
  const lines = allRows()
    .filter((row) => !row.hidden && range.intersectsNode(row))
    .map((row) => [describeSender(row), selectedText(row, range)])
    .filter(([, text]) => text.trim() !== "");
  return lines.length === 1 ? lines[0][1] : lines.map(([sender, text]) => sender + text).join("\n");
}

/** @param {any} row */
function describeSender(row) {
  const { message, time } = rowData.get(row) ?? {};
  if (!message) return "";
  return `${message.sender}${message.recipient ? ` to ${message.recipient}` : ""}, ${formatTime(new Date(time))}: `;
}

// What is selected of a message's text, or the text as it was written if that is all of it.
/** @param {any} row  @param {Range} range */
function selectedText(row, range) {
  const content = row.querySelector(".message-text") ?? row;
  const part = document.createRange();
  part.selectNodeContents(content);
  if (range.compareBoundaryPoints(Range.START_TO_START, part) > 0) part.setStart(range.startContainer, range.startOffset);
  if (range.compareBoundaryPoints(Range.END_TO_END, part) < 0) part.setEnd(range.endContainer, range.endOffset);
  const selected = String(part);
  return (selected === content.textContent && rowData.get(row)?.message?.text) || selected;
}
