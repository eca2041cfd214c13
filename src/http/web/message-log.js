// The message log: which rows it has and in which order, scrolling, and the number of unread messages.

import { $ } from "./dom.js";
import { dividerRow, messageRow, noticeRow, setDeleted, setDeliveryState, setTime } from "./message-row.js";

const MAX_ROWS = 2_000; // the oldest are removed
const MAX_ROWS_SCROLLED_UP = 10_000; // while the user reads older messages
const GROUPING_WINDOW_MS = 5 * 60_000; // a sender's messages within this time share one header
const APPEND_DELAY_MS = 20; // appends a burst with one layout
const BOTTOM_TOLERANCE_PX = 40;
const TOP_TOLERANCE_PX = 300; // older messages are requested before the top is reached
const QUIET_MS = 500; // enough for rows to be appended, and for screen readers to notice them

const box = $("log");
const jumpButton = $("jump-to-latest");
const rowData = new WeakMap(); // from row to { id, group, time }
let epoch = null; // of the ids
let ids = new Map(); // from id to row, or to null if a message was deleted that is not shown
let queue = []; // rows to append
let appendTimer = 0;
let pending = []; // the user's rows without a place in the order yet; they stay at the bottom
let isPinned = true; // to the bottom
let pinnedTop = 0; // scrollTop after the last scroll to the bottom
let unread = 0;
let divider = null; // above the first unread message
let requestOlder = null; // called with the oldest id; returns whether it could
let hasOlder = false; // whether there are older messages than those shown
let isRequested = false;
let quietTimer = 0;
let reportUnread = (unread) => {};

// Returns the message's row, or null if a message with its id is shown already. A message without an id is pending.
export function addMessage({ id, sender, text, time = Date.now(), isOwn = false, recipient = null, isNew = true }) {
  if (ids.has(id)) return null;
  const row = messageRow({ sender, text, isOwn, recipient });
  setTime(row, new Date(time));
  rowData.set(row, { group: `${isOwn}\n${sender}\n${recipient}`, time: Number(new Date(time)) });
  if (id === undefined) {
    row.classList.add("pending");
    pending.push(row);
  } else {
    setId(row, id);
  }
  if (isNew && !isOwn) countUnread();
  append(row);
  return row;
}

// Gives a pending message its place in the order, after all messages received so far.
export function confirmMessage(row, { id, time }) {
  appendQueue();
  endPending(row);
  if (ids.has(id)) {
    removeRow(row);
    return;
  }
  rowData.get(row).time = Number(new Date(time));
  setTime(row, new Date(time));
  setId(row, id);
  insert(row);
}

// A pending message will not be sent.
export function failMessage(row, state) {
  endPending(row);
  setDeliveryState(row, state);
}

// Returns the row, or null if one with its id is shown already.
export function addNotice(kind, text, id) {
  if (ids.has(id)) return null;
  const row = noticeRow(kind, text);
  rowData.set(row, { isLast: kind === "error" });
  if (id !== undefined) setId(row, id);
  append(row);
  return row;
}

// Replaces the text of the message with this id. If it is still to come, it will not be shown.
export function deleteMessage(id) {
  const row = ids.get(id);
  if (!row) {
    ids.set(id, null);
    return;
  }
  const { scrollHeight } = box;
  const isAbove = row.getBoundingClientRect().top < box.getBoundingClientRect().top;
  setDeleted(row);
  if (isPinned) scrollToBottom();
  else if (isAbove) box.scrollTop += box.scrollHeight - scrollHeight;
}

export function addDivider(text) {
  append(dividerRow("gap", text));
}

// Inserts what `add` adds above all other rows; what is visible does not move.
export function addOlder(add, hasMore) {
  appendQueue();
  suppressAnnouncements();
  add();
  const { scrollHeight, scrollTop } = box;
  box.prepend(...queue);
  for (const row of queue) group(row);
  group(queue.at(-1)?.nextElementSibling);
  queue = [];
  if (isPinned) scrollToBottom();
  else box.scrollTop = scrollTop + box.scrollHeight - scrollHeight;
  setOlder(hasMore);
}

export function removeRow(row) {
  appendQueue();
  endPending(row);
  const next = row.nextElementSibling;
  row.remove();
  group(next);
}

// Whether there are messages older than those shown.
export function setOlder(value) {
  hasOlder = value;
  isRequested = false;
  // Not at once, so that an answer without messages cannot cause a busy loop.
  setTimeout(checkTop);
}

export function onOlderWanted(callback) {
  requestOlder = callback;
}

// Calls `callback` with { count } when the number of unread messages may have changed.
export function onUnread(callback) {
  reportUnread = callback;
}

// Sets the epoch of the messages that follow. Rows of an earlier epoch lose their ids, which start over. Returns
// whether it is the first.
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
  unread = 0;
  box.replaceChildren();
  jumpToLatest();
}

box.addEventListener("scroll", () => {
  isPinned = isAtBottom();
  updateUnread();
  checkTop();
});
jumpButton.addEventListener("click", () => {
  jumpToLatest();
  box.focus();
});
addEventListener("focus", updateUnread);
document.addEventListener("visibilitychange", updateUnread);
new ResizeObserver(() => isPinned && scrollToBottom()).observe(box);

function setId(row, id) {
  ids.set(id, row);
  rowData.get(row).id = id;
  row.title += `${row.title && ", "}ID ${id}`;
}

function endPending(row) {
  row.classList.remove("pending");
  setDeliveryState(row, "");
  pending = pending.filter((other) => other !== row);
}

function append(row) {
  queue.push(row);
  if (queue.length > MAX_ROWS) releaseId(queue.shift());
  appendTimer ||= setTimeout(appendQueue, APPEND_DELAY_MS);
}

function appendQueue() {
  clearTimeout(appendTimer);
  appendTimer = 0;
  if (queue.length === 0) return;
  // The user may have scrolled up just now, with the scroll event still to come.
  if (box.scrollTop < pinnedTop - 4 && !isAtBottom()) isPinned = false;
  queue.forEach(insert);
  queue = [];
  removeOldRows();
  if (isPinned) scrollToBottom();
  checkTop();
}

// Rows are appended in order of arrival, above pending messages.
function insert(row) {
  const isLast = pending.includes(row) || rowData.get(row)?.isLast;
  const next = isLast ? null : pending.find((other) => other.parentNode === box);
  if (!row.isConnected || (next && next.compareDocumentPosition(row) & Node.DOCUMENT_POSITION_FOLLOWING)) {
    box.insertBefore(row, next ?? null);
  }
  group(row);
  group(row.nextElementSibling);
}

// Hides the header of a message that follows another of the same group.
function group(row) {
  const data = rowData.get(row);
  if (!data?.group) return;
  const previous = rowData.get(row.previousElementSibling);
  const isGrouped = previous?.group === data.group && Math.abs(data.time - previous.time) < GROUPING_WINDOW_MS;
  row.classList.toggle("grouped", isGrouped);
}

function removeOldRows() {
  const excess = box.childElementCount - (isPinned ? MAX_ROWS : MAX_ROWS_SCROLLED_UP);
  if (excess <= 0) return;
  const { scrollHeight, scrollTop } = box;
  for (let i = 0; i < excess; i += 1) {
    releaseId(box.firstChild);
    box.firstChild.remove();
  }
  group(box.firstChild);
  // Keeps the visible messages in place.
  if (!isPinned) box.scrollTop = scrollTop - (scrollHeight - box.scrollHeight);
}

// A message that is removed can be requested again.
function releaseId(row) {
  const id = rowData.get(row)?.id;
  if (ids.get(id) !== row) return;
  ids.delete(id);
  hasOlder = true;
}

function checkTop() {
  if (!hasOlder || isRequested || queue.length > 0 || box.childElementCount >= MAX_ROWS_SCROLLED_UP) return;
  if (box.clientHeight === 0 || box.scrollTop > TOP_TOLERANCE_PX) return;
  isRequested = requestOlder(oldestId());
}

function oldestId() {
  const rows = [...box.children];
  return rowData.get(rows.find((row) => ids.get(rowData.get(row)?.id) === row))?.id;
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

function countUnread() {
  if (isLatestVisible()) return;
  unread += 1;
  if (unread === 1) {
    divider?.remove();
    divider = dividerRow("unread", "New");
    append(divider);
  }
  showUnread();
}

function updateUnread() {
  if (isLatestVisible()) unread = 0;
  showUnread();
}

function showUnread() {
  const count = unread === 1 ? "1 new message" : `${unread} new messages`;
  jumpButton.textContent = unread > 0 ? count : "Jump to latest";
  jumpButton.hidden = isPinned;
  reportUnread({ count: unread });
}
