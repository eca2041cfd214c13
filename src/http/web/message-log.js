// The message log: which rows it has and in which order, scrolling, and the number of unread messages.

import { $, element } from "./dom.js";
import { mentions } from "./formatting.js";
import {
  describePresence,
  dividerRow,
  formatDay,
  formatTime,
  messageRow,
  noticeRow,
  setDeleted,
  setDeliveryState,
  setTime,
} from "./message-row.js";
import { onSettings, settings } from "./settings.js";

const MAX_ROWS = 10_000; // the oldest are removed, a chunk at a time
// Rows share elements. A new row costs the layout of one of them, and the browser skips those that are not visible.
const CHUNK_ROWS = 100;
const GROUPING_WINDOW_MS = 5 * 60_000; // a sender's messages within this time share one header
const APPEND_DELAY_MS = 20; // appends a burst with one layout
const BOTTOM_TOLERANCE_PX = 40;
const TOP_TOLERANCE_PX = 300; // older messages are requested before the top is reached
const QUIET_MS = 500; // enough for rows to be appended, and for screen readers to notice them
const DAY_CHECK_MS = 30_000; // how late the page notices a new day
const PRESENCE = /^(.{1,32}) (joined|left)\.$/su;

/**
 * What is known about a row. A row without it is the separator of a day.
 * @typedef {object} RowData
 * @property {number[]} ids
 * @property {number} [time] ms; of the last event
 * @property {string} [day] local; a divider has that of the row above it
 * @property {string} [group] messages with the same one share a header
 * @property {{ name: string, hasJoined: boolean }[]} [events] who joined or left
 * @property {string | null} [partner] in a whisper
 * @property {string} [sender]
 * @property {string} [text]
 * @property {boolean} [isOwn]
 * @property {string | null} [recipient]
 * @property {boolean} [isDivider]
 * @property {boolean} [isLast] belongs below pending messages
 * @property {boolean} [isAlert] is shown in every conversation
 */

/** @typedef {{ count: number, mentions: number, whispers: number }} Unread */
/**
 * @typedef {object} MessageMenu
 * @property {number | undefined} id
 * @property {string} sender
 * @property {string} text
 * @property {boolean} isOwn
 * @property {boolean} isWhisper
 * @property {string | null} recipient
 * @property {HTMLElement} anchor
 */

const box = $("log");
const jumpButton = $("jump-to-latest");
const menuButton = $("message-menu");
const area = $("log-area");
/** @type {WeakMap<Element, RowData>} */
const rowData = new WeakMap();
/** @type {WeakMap<Element, number>} */
const heights = new WeakMap(); // px, of chunks
/** @type {string | null} */
let ownName = null;
/** @type {string | null} */
let epoch = null; // of the ids
/** @type {Map<number | undefined, HTMLElement | null>} */
let ids = new Map(); // from id to row, or to null if a message was deleted that is not shown
/** @type {HTMLElement[]} */
let queue = []; // rows to append
let appendTimer = 0;
/** @type {HTMLElement[]} */
let pending = []; // the user's rows without a place in the order yet; they stay at the bottom
let isPinned = true; // to the bottom
let end = { scrollTop: 0, scrollHeight: 0, clientHeight: 0 }; // of the box after the last scroll to the bottom
/** @type {Unread} */
let unread = { count: 0, mentions: 0, whispers: 0 };
/** @type {HTMLElement | null} */
let divider = null; // above the first unread message
/** @type {string | null} */
let conversation = null; // if not null, only whispers with this member are shown
/** @type {HTMLElement | null} */
let activeRow = null; // has the menu button
/** @type {Set<HTMLElement>} */
const changedPresence = new Set(); // rows whose text is to be written anew
let today = new Date().toDateString();
/** @type {(oldestId: number | undefined) => boolean} */
let requestOlder = () => false;
/** @type {(unread: Unread) => void} */
let showUnreadElsewhere = () => {};
/** @type {((message: MessageMenu) => void) | null} */
let openMenu = null;
let hasOlder = false; // whether there are older messages than those shown
let isRequested = false;
let quietTimer = 0;

/**
 * Returns the message's row, or null if a message with its id is shown already. A message without an id is pending.
 * @param {{ id?: number, sender: string, text: string, time?: string | number, isOwn?: boolean,
 *   recipient?: string | null, isNew?: boolean }} message
 */
export function addMessage({ id, sender, text, time = Date.now(), isOwn = false, recipient = null, isNew = true }) {
  if (ids.has(id)) return null;
  const isWhisper = recipient !== null;
  const mentionsMe = !isOwn && ownName !== null && mentions(text, ownName);
  const row = messageRow({ sender, text, isOwn, recipient, ownName: isOwn ? null : ownName });
  row.classList.toggle("mentions-me", mentionsMe);
  const partner = isWhisper ? (isOwn ? recipient : sender) : null;
  const group = JSON.stringify([isOwn, sender, recipient]);
  rowData.set(row, { ids: [], group, partner, sender, text, isOwn, recipient });
  setMoment(row, time, id);
  if (id === undefined) {
    row.classList.add("pending");
    pending.push(row);
  }
  row.hidden = isFilteredOut(row);
  if (row.hidden && id === undefined) setConversation(null);
  if (isNew && !isOwn) countUnread(row, mentionsMe, isWhisper);
  append(row);
  return row;
}

/**
 * Gives a pending message its place in the order, after all messages received so far.
 * @param {HTMLElement} row
 * @param {{ id: number, time: string | number }} message
 */
export function confirmMessage(row, { id, time }) {
  appendQueue();
  endPending(row);
  if (ids.has(id)) {
    removeRow(row);
    return;
  }
  setMoment(row, time, id);
  insert(row);
  if (isPinned) scrollToBottom();
}

/**
 * A pending message will not be sent.
 * @param {HTMLElement} row
 * @param {string} state
 */
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
export function addNotice(kind, text, id, time = Date.now()) {
  if (ids.has(id)) return null;
  const row = noticeRow(kind, text);
  const [, name, change] = (kind === "system" && PRESENCE.exec(text)) || [];
  const events = name ? [{ name, hasJoined: change === "joined" }] : undefined;
  if (events) row.classList.add("presence");
  rowData.set(row, { ids: [], events, isLast: kind === "error", isAlert: kind !== "system" });
  setMoment(row, time, id);
  row.hidden = isFilteredOut(row);
  append(row);
  return row;
}

/**
 * Replaces the text of the message with this id. If it is still to come, it will not be shown.
 * @param {number} id
 */
export function deleteMessage(id) {
  const row = ids.get(id);
  if (!row) {
    ids.set(id, null);
    return;
  }
  const { scrollHeight } = box;
  const isAbove = row.getBoundingClientRect().top < box.getBoundingClientRect().top;
  setDeleted(row);
  Object.assign(dataOf(row), { text: "", events: undefined });
  placeMenuButton();
  if (isPinned) scrollToBottom();
  else if (isAbove) box.scrollTop += box.scrollHeight - scrollHeight;
  measure();
}

/** @param {string} text */
export function addDivider(text) {
  append(createDivider("gap", text));
}

/**
 * Inserts what `add` adds above all other rows; what is visible does not move.
 * @param {() => void} add
 * @param {boolean} hasMore
 */
export function addOlder(add, hasMore) {
  appendQueue();
  suppressAnnouncements();
  add();
  const rows = queue;
  queue = [];
  clearTimeout(appendTimer);
  appendTimer = 0;
  const { scrollHeight, scrollTop } = box;
  const next = firstShown();
  if (rows.length > 0) box.prepend(createChunk(rows));
  for (const row of rows) arrange(row);
  if (next) arrange(next);
  showPresence();
  if (isPinned) scrollToBottom();
  else box.scrollTop = scrollTop + box.scrollHeight - scrollHeight;
  measure();
  setOlder(hasMore);
}

/** @param {HTMLElement} row */
export function removeRow(row) {
  appendQueue();
  endPending(row);
  detach(row);
}

/**
 * Whether there are messages older than those shown.
 * @param {boolean} value
 */
export function setOlder(value) {
  hasOlder = value;
  isRequested = false;
  // Not at once, so that an answer without messages cannot cause a busy loop. While rows are filtered, a page may show
  // none, so that only scrolling requests another.
  if (conversation === null) setTimeout(checkTop);
}

/** @param {(oldestId: number | undefined) => boolean} callback returns whether it could */
export function onOlderWanted(callback) {
  requestOlder = callback;
}

/** @param {(unread: Unread) => void} callback called when the numbers change */
export function onUnread(callback) {
  showUnreadElsewhere = callback;
}

/** @param {(message: MessageMenu) => void} callback called when the user opens the menu of a message */
export function onMessageMenu(callback) {
  openMenu = callback;
}

/**
 * The name that counts as a mention of the user, in messages that follow.
 * @param {string | null} name
 */
export function setOwnName(name) {
  ownName = name;
}

/**
 * Shows only the whispers with this member, or everything.
 * @param {string | null} name
 */
export function setConversation(name) {
  if (name === conversation) return;
  appendQueue();
  conversation = name;
  $("conversation").hidden = name === null;
  box.classList.toggle("filtered", name !== null);
  $("conversation-name").textContent = name;
  activate(null);
  suppressAnnouncements();
  arrangeAll();
  jumpToLatest();
  showUnread();
}

/**
 * Sets the epoch of the messages that follow. Rows of an earlier epoch lose their ids, which start over. Returns
 * whether it is the first.
 * @param {string} newEpoch
 */
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

/** @param {HTMLElement} row */
const dataOf = (row) => /** @type {RowData} */ (rowData.get(row));

/** @param {HTMLElement} row  @param {string | number} time  @param {number | undefined} id */
function setMoment(row, time, id) {
  const [data, date] = [dataOf(row), new Date(time)];
  data.time = Number(date);
  data.day = date.toDateString();
  setTime(row, date, id);
  if (id === undefined) return;
  data.ids.push(id);
  ids.set(id, row);
}

/** @param {"gap" | "unread"} kind  @param {string} text */
function createDivider(kind, text) {
  const row = dividerRow(kind, text);
  rowData.set(row, { ids: [], isDivider: true });
  row.hidden = isFilteredOut(row);
  return row;
}

/** @param {HTMLElement[]} rows */
function createChunk(rows) {
  const chunk = element("div", { class: "chunk" }, ...rows);
  resizes.observe(chunk);
  return chunk;
}

/** @returns {HTMLElement[]} */
function allRows() {
  return /** @type {HTMLElement[]} */ ([...box.children].flatMap((chunk) => [...chunk.children]));
}

/** @param {HTMLElement | null | undefined} row  @returns {HTMLElement | null} */
function rowBefore(row) {
  const before = row?.previousElementSibling ?? row?.parentElement?.previousElementSibling?.lastElementChild;
  return /** @type {HTMLElement | null} */ (before ?? null);
}

/** @param {HTMLElement | null | undefined} row  @returns {HTMLElement | null} */
function rowAfter(row) {
  const after = row?.nextElementSibling ?? row?.parentElement?.nextElementSibling?.firstElementChild;
  return /** @type {HTMLElement | null} */ (after ?? null);
}

/** @param {HTMLElement | null} row whether it is shown and not the separator of a day */
const isShown = (row) => row !== null && !row.hidden && rowData.has(row);

/** @param {HTMLElement} row */
function shownBefore(row) {
  let before = rowBefore(row);
  while (before && !isShown(before)) before = rowBefore(before);
  return before;
}

/** @param {HTMLElement} row */
function shownAfter(row) {
  let after = rowAfter(row);
  while (after && !isShown(after)) after = rowAfter(after);
  return after;
}

function firstShown() {
  const first = /** @type {HTMLElement | null | undefined} */ (box.firstElementChild?.firstElementChild);
  return !first || isShown(first) ? first : shownAfter(first);
}

/** @returns {number} including separators of days */
function rowCount() {
  return [...box.children].reduce((sum, chunk) => sum + chunk.childElementCount, 0);
}

/** @param {HTMLElement} row */
function isFilteredOut(row) {
  const { partner, events, isAlert } = dataOf(row);
  if (conversation !== null) return !isAlert && partner !== conversation;
  return events !== undefined && !settings.showsJoins;
}

/** @param {HTMLElement} row */
function endPending(row) {
  row.classList.remove("pending");
  setDeliveryState(row, "");
  pending = pending.filter((other) => other !== row);
}

/** @param {HTMLElement} row */
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
  const rows = queue;
  queue = [];
  rows.forEach(insert);
  showPresence();
  removeOldRows();
  if (isPinned) scrollToBottom();
  checkTop();
}

/**
 * Rows are appended in order of arrival, above pending messages.
 * @param {HTMLElement} row
 */
function insert(row) {
  const isLast = pending.includes(row) || dataOf(row).isLast;
  const next = isLast ? null : pending.find((other) => other.isConnected);
  if (!row.isConnected || (next && next.compareDocumentPosition(row) & Node.DOCUMENT_POSITION_FOLLOWING)) {
    if (row.isConnected) detach(row);
    place(row, next);
  }
  const after = shownAfter(row);
  arrange(row);
  if (after) arrange(after);
}

/** @param {HTMLElement} row  @param {HTMLElement | null | undefined} next */
function place(row, next) {
  const chunk = /** @type {HTMLElement | null} */ (next ? next.parentElement : box.lastElementChild);
  if (!chunk) {
    box.append(createChunk([row]));
    return;
  }
  const before = next && isDaySeparator(rowBefore(next)) ? rowBefore(next) : next;
  chunk.insertBefore(row, before ?? null);
  if (chunk.childElementCount <= CHUNK_ROWS) return;
  const rest = [row];
  while (rest.at(-1)?.nextElementSibling) rest.push(/** @type {HTMLElement} */ (rest.at(-1)?.nextElementSibling));
  chunk.after(createChunk(rest));
}

/** @param {HTMLElement | null} row */
const isDaySeparator = (row) => row !== null && !rowData.has(row);

/** @param {HTMLElement} row */
function detach(row) {
  const after = shownAfter(row);
  const before = rowBefore(row);
  if (isDaySeparator(before)) removeElement(before);
  removeElement(row);
  if (after) arrange(after);
}

/** @param {HTMLElement | null} row */
function removeElement(row) {
  const chunk = row?.parentElement;
  if (row?.contains(document.activeElement)) box.focus();
  row?.remove();
  if (chunk?.childElementCount === 0) chunk.remove();
}

/**
 * Adapts a row to the one shown above it: joins the two if both are about members that came or went, adds or removes
 * the separator of a day, and hides the header of a message that follows another of the same group.
 * @param {HTMLElement} row
 */
function arrange(row, previous = shownBefore(row)) {
  if (!isShown(row)) return;
  const data = dataOf(row);
  const last = previous ? dataOf(previous) : null;
  if (data.isDivider) {
    data.day = last?.day;
    return;
  }
  const isSameDay = data.day === last?.day;
  setDaySeparator(row, isSameDay ? null : new Date(data.time ?? 0));
  if (data.events && last?.events && previous && isSameDay) {
    mergePresence(previous, row);
    return;
  }
  if (!data.group) return;
  const isClose = Math.abs((data.time ?? 0) - (last?.time ?? 0)) < GROUPING_WINDOW_MS;
  row.classList.toggle("grouped", isSameDay && isClose && data.group === last?.group);
}

/** @param {HTMLElement} row  @param {Date | null} date */
function setDaySeparator(row, date) {
  const before = rowBefore(row);
  if (date === null) {
    if (isDaySeparator(before)) removeElement(before);
  } else if (!isDaySeparator(before)) {
    row.before(dividerRow("day", formatDay(date)));
  }
}

// All rows at once, after a change of what is shown.
function arrangeAll() {
  /** @type {HTMLElement | null} */
  let previous = null;
  for (const row of allRows()) {
    if (isDaySeparator(row)) {
      removeElement(row);
      continue;
    }
    row.hidden = isFilteredOut(row);
    if (row.hidden) continue;
    arrange(row, previous);
    if (row.isConnected) previous = row;
  }
  showPresence();
}

/**
 * Adds the events of the second row to the first. Screen readers do not announce the change, so that a crowd cannot
 * keep them busy.
 * @param {HTMLElement} row
 * @param {HTMLElement} added
 */
function mergePresence(row, added) {
  const [data, { events = [], ids: addedIds, time }] = [dataOf(row), dataOf(added)];
  data.events?.push(...events);
  data.ids.push(...addedIds);
  data.time = time;
  for (const id of addedIds) if (ids.get(id) === added) ids.set(id, row);
  if (row.getClientRects().length > 0) row.setAttribute("aria-live", "off");
  changedPresence.add(row);
  removeElement(added);
}

// Once for all changes, so that the time is linear in their number.
function showPresence() {
  for (const row of changedPresence) row.firstElementChild?.replaceChildren(describePresence(dataOf(row).events ?? []));
  changedPresence.clear();
}

function removeOldRows() {
  const { scrollHeight, scrollTop } = box;
  let excess = rowCount() - MAX_ROWS;
  const hasExcess = () => box.firstElementChild && excess >= box.firstElementChild.childElementCount;
  if (!hasExcess()) return;
  while (hasExcess()) {
    const chunk = /** @type {HTMLElement} */ (box.firstElementChild);
    excess -= chunk.childElementCount;
    for (const row of chunk.children) releaseIds(/** @type {HTMLElement} */ (row));
    if (chunk.contains(document.activeElement)) box.focus();
    chunk.remove();
  }
  const first = firstShown();
  if (first) arrange(first);
  // Keeps the visible messages in place.
  if (!isPinned) box.scrollTop = scrollTop - (scrollHeight - box.scrollHeight);
  measure();
}

/**
 * A message that is removed can be requested again.
 * @param {HTMLElement | undefined} row
 */
function releaseIds(row) {
  for (const id of (row && rowData.get(row)?.ids) ?? []) {
    if (ids.get(id) !== row) continue;
    ids.delete(id);
    hasOlder = true;
  }
}

function checkTop() {
  if (!hasOlder || isRequested || queue.length > 0 || rowCount() >= MAX_ROWS) return;
  if (box.clientHeight === 0 || box.scrollTop > TOP_TOLERANCE_PX) return;
  isRequested = requestOlder(oldestId());
}

function oldestId() {
  for (const row of allRows()) {
    const id = rowData.get(row)?.ids.find((candidate) => ids.get(candidate) === row);
    if (id !== undefined) return id;
  }
  return undefined;
}

// --- Scrolling

// The log stays at its end when its size or that of its rows changes, or else what is visible stays in its place. The
// height of a chunk that was not visible yet is an estimate.
const resizes = new ResizeObserver(() => {
  const shift = measure();
  if (isPinned) scrollToBottom();
  else if (shift !== 0) box.scrollTop += shift;
  placeMenuButton();
});
resizes.observe(box);
// The message input shrinks and grows again to measure its text. Meanwhile the box is higher, which can scroll it.
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

// Returns by how much the chunks above the visible part have grown since the last call.
function measure() {
  const { scrollTop } = box;
  let [bottom, shift] = [0, 0];
  for (const chunk of box.children) {
    const { height } = chunk.getBoundingClientRect();
    const previous = heights.get(chunk) ?? 0;
    bottom += previous;
    if (bottom <= scrollTop) shift += height - previous;
    heights.set(chunk, height);
  }
  return shift;
}

function scrollToBottom() {
  box.scrollTop = box.scrollHeight;
  const { scrollTop, scrollHeight, clientHeight } = box;
  end = { scrollTop, scrollHeight, clientHeight };
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

/** @param {HTMLElement} row  @param {boolean} mentionsMe  @param {boolean} isWhisper */
function countUnread(row, mentionsMe, isWhisper) {
  if (isLatestVisible() && !row.hidden) return;
  if (unread.count === 0) {
    if (divider?.isConnected) detach(divider);
    divider = createDivider("unread", "New");
    append(divider);
  }
  setUnread(unread.count + 1, unread.mentions + Number(mentionsMe), unread.whispers + Number(isWhisper));
}

function updateUnread() {
  if (isLatestVisible() && conversation === null) setUnread(0, 0, 0);
  else showUnread();
}

/** @param {number} count  @param {number} mentionCount  @param {number} whispers */
function setUnread(count, mentionCount, whispers) {
  const hasChanged = count !== unread.count;
  unread = { count, mentions: mentionCount, whispers };
  showUnread();
  if (hasChanged) showUnreadElsewhere(unread);
}

function showUnread() {
  const { count, mentions: mentionCount, whispers } = unread;
  const parts = [plural(count, "new message"), plural(mentionCount, "mention"), plural(whispers, "whisper")];
  const summary = parts.filter((part) => !part.startsWith("0")).join(", ");
  jumpButton.textContent = summary || "Jump to latest";
  jumpButton.hidden = isPinned;
  $("show-all").textContent = count > 0 ? `Show all (${count} new)` : "Show all";
}

/** @param {number} count  @param {string} noun */
const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

// --- Times

// Shows the moments again, as their format or the day has changed.
function showTimes() {
  for (const row of allRows()) {
    const data = rowData.get(row);
    if (data?.time === undefined) continue;
    const date = new Date(data.time);
    setTime(row, date, data.ids[0]);
    const before = rowBefore(row);
    if (before && !rowData.has(before)) before.replaceWith(dividerRow("day", formatDay(date)));
  }
}

setInterval(() => {
  if (today === new Date().toDateString()) return;
  today = new Date().toDateString();
  showTimes();
}, DAY_CHECK_MS);

let shown = { ...settings };
onSettings(() => {
  const previous = shown;
  shown = { ...settings };
  if (previous.time !== settings.time) showTimes();
  if (previous.showsJoins !== settings.showsJoins) arrangeAll();
  if (isPinned) scrollToBottom();
});

// --- Moving between messages, and their menus

box.addEventListener("pointerover", ({ target }) => activate(messageOf(target)));
box.addEventListener("click", ({ target }) => activate(messageOf(target))); // a touch
box.addEventListener("focusin", ({ target }) => activate(messageOf(target)));
area.addEventListener("pointerleave", () => activate(messageOf(document.activeElement)));
menuButton.addEventListener("click", showMenu);
box.addEventListener("contextmenu", (event) => {
  // By the keyboard: a mouse or a touch gets the browser's own menu.
  if (event.button !== 0 || event.target !== activeRow || document.activeElement !== activeRow) return;
  event.preventDefault();
  showMenu();
});
area.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || !handleKey(event)) return;
  event.preventDefault();
});

/** @param {EventTarget | null} target  @returns {HTMLElement | null} */
function messageOf(target) {
  if (target === menuButton) return activeRow;
  return target instanceof Element ? target.closest("#log .message") : null;
}

/** @param {KeyboardEvent} event  @returns {boolean} whether it was handled */
function handleKey({ key, target }) {
  const row = messageOf(target);
  if (target !== row && target !== box && target !== menuButton) return false;
  if (key === "ArrowUp") focusRow(row ? nextMessage(row, rowBefore) : lastVisible());
  else if (key === "ArrowDown") focusRow(row ? nextMessage(row, rowAfter) : lastVisible());
  else if (key === "Escape") $("message-input").focus();
  else if (key === "Enter" && target === row) showMenu();
  else return false;
  return true;
}

/** @param {HTMLElement} row  @param {(row: HTMLElement) => HTMLElement | null} step */
function nextMessage(row, step) {
  let next = step(row);
  while (next && (next.hidden || !next.matches(".message"))) next = step(next);
  return next;
}

function lastVisible() {
  const { bottom } = box.getBoundingClientRect();
  const rows = allRows().reverse();
  return rows.find((row) => row.matches(".message:not([hidden])") && row.getBoundingClientRect().top < bottom) ?? null;
}

/** @param {HTMLElement | null} row */
function focusRow(row) {
  if (!row) return;
  const { sender, text, isOwn, time = 0 } = dataOf(row);
  const label = row.querySelector(".whisper-label")?.textContent ?? "";
  const shownText = row.classList.contains("deleted") ? "Message deleted" : text;
  row.setAttribute("aria-label", `${isOwn ? "You" : sender} ${label}, ${formatTime(new Date(time))}: ${shownText}`);
  row.focus({ preventScroll: true });
  row.scrollIntoView({ block: "nearest" });
}

/** @param {HTMLElement | null} row */
function activate(row) {
  if (row === activeRow && !menuButton.hidden) return;
  activeRow?.classList.remove("active");
  activeRow = row;
  activeRow?.classList.add("active");
  placeMenuButton();
}

// At the top right of the row.
function placeMenuButton() {
  const top = activeRow?.isConnected ? activeRow.getBoundingClientRect().top : NaN;
  const bounds = box.getBoundingClientRect();
  menuButton.hidden = openMenu === null || !(top > bounds.top - 20 && top < bounds.bottom - 20);
  menuButton.style.setProperty("top", `${top - area.getBoundingClientRect().top}px`);
}

function showMenu() {
  if (!activeRow) return;
  const { ids: [id], sender = "", text = "", isOwn = false, recipient = null } = dataOf(activeRow);
  openMenu?.({ id, sender, text, isOwn, isWhisper: recipient !== null, recipient, anchor: menuButton });
}

// --- Copying

document.addEventListener("copy", (event) => {
  const text = selectedLines();
  if (text === null) return;
  event.clipboardData?.setData("text/plain", text);
  event.preventDefault();
});

// The selected rows, with names and times. Null if what is selected lies within one row, or is not in the log.
function selectedLines() {
  const selection = getSelection();
  if (!selection || selection.rangeCount === 0) return null;
  const range = selection.getRangeAt(0);
  const common = range.commonAncestorContainer;
  const parent = common instanceof Element ? common : common.parentElement;
  if (parent?.closest("#log > * > *") || !range.intersectsNode(box)) return null;
  const lines = [];
  for (const row of allRows()) {
    if (row.hidden || !range.intersectsNode(row)) continue;
    const text = selectedText(row, range);
    if (text.trim() !== "") lines.push([describeSender(row), text]);
  }
  if (lines.length === 0) return null;
  return lines.length === 1 ? lines[0][1] : lines.map(([sender, text]) => sender + text).join("\n");
}

/** @param {HTMLElement} row */
function describeSender(row) {
  const { sender, recipient, time = 0 } = rowData.get(row) ?? {};
  if (sender === undefined) return "";
  return `${sender}${recipient ? ` to ${recipient}` : ""}, ${formatTime(new Date(time))}: `;
}

/**
 * What is selected of a message's text, as it was written if that is all of it.
 * @param {HTMLElement} row
 * @param {Range} range
 */
function selectedText(row, range) {
  const content = row.querySelector(".message-text") ?? row;
  const part = document.createRange();
  part.selectNodeContents(content);
  if (range.compareBoundaryPoints(Range.START_TO_START, part) > 0) part.setStart(range.startContainer, range.startOffset);
  if (range.compareBoundaryPoints(Range.END_TO_END, part) < 0) part.setEnd(range.endContainer, range.endOffset);
  const selected = part.toString();
  return (selected === content.textContent && rowData.get(row)?.text) || selected;
}
