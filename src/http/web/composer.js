// The message box: writing, the drafts, and the person whom the user whispers to.

import { completions, handleSuggestionKey, isLogin, quoteName, suggest } from "./completion.js";
import { $, closest } from "./dom.js";
import { load, save } from "./storage.js";

export { completions, isLogin, quoteName };

const COMMAND = /^\s*\/(?!\/|whisper\s)/; // "//" begins a message, and a whisper is a message
const COUNTER_FROM = 0.9; // of the server's limit
const ANNOUNCEMENT_DELAY_MS = 1_000; // so that a screen reader does not read a number after each key
// The keys anywhere on the page that go to the box: characters, and those that begin a composition.
const TEXT_KEY = /^(?:[^ ]|Dead|Process)$/u;
const OTHER_INPUTS = "input, textarea, select, dialog, [popover], [role=menu], [contenteditable]";

/**
 * The rest of the page.
 * @typedef {object} Room
 * @property {(text: string, recipient: string | null) => boolean} send returns whether the text was taken
 * @property {(text: string, recipient: string | null) => { bytes: number, limit: number }} measure as it would be sent
 */

/** @type {Room} */
let room = { send: () => false, measure: () => ({ bytes: 0, limit: Infinity }) };
const input = $("message-input");
const form = $("composer");
const isTouch = matchMedia("(pointer: coarse)");
/** @type {Map<string | null, string>} by recipient; null is the room */
const drafts = new Map();
/** @type {string | null} of whispers; null: what is written is for the room */
let recipient = null;
/** @type {{ text: string, recipient: string | null } | null} the last message sent */
let last = null;
let isTimedOut = false;
let announcementTimer = 0;

/** @param {Room} newRoom */
export function connectComposer(newRoom) {
  room = newRoom;
}

/** From now on, what is written is for this person. The draft for the room stays until then. @param {string} name */
export function startWhisper(name) {
  setRecipient(name);
  input.focus();
}

/** Inserts the name at the caret. @param {string} name */
export function insertMention(name) {
  const { selectionStart: start, selectionEnd: end, value } = input;
  const space = /\S$/.test(value.slice(0, start)) ? " " : "";
  input.focus();
  input.setRangeText(`${space}@${name} `, start, end, "end");
  onInput();
}

/** @param {string} text */
export function setDraft(text) {
  input.value = text;
  input.setSelectionRange(text.length, text.length);
  onInput();
}

/**
 * Puts text that was not sent back into the box, unless it contains a password or the user is writing something else.
 * Returns whether it did.
 * @param {string} text @param {string | null} to
 */
export function returnText(text, to = recipient) {
  if (isLogin(text) || drafts.has(to)) return false;
  drafts.set(to, text);
  if (to === recipient) setDraft(text);
  else saveDrafts();
  return true;
}

/** Empties the box. Returns all drafts, for restoreDrafts(). */
export function takeDrafts() {
  const taken = savedDrafts();
  drafts.clear();
  last = null;
  setRecipient(null);
  return taken;
}

/** @param {{ texts: [string | null, string][], recipient: string | null } | null} saved */
export function restoreDrafts(saved) {
  for (const [to, text] of saved?.texts ?? []) drafts.set(to, text);
  setRecipient(saved?.recipient ?? null);
}

/** @param {boolean} value */
export function setTimedOut(value) {
  isTimedOut = value;
  showPlaceholder();
}

// To be called when the limit may have changed, too.
export function showSize() {
  const text = input.value.trim();
  const { bytes, limit } = room.measure(text, recipient);
  const isOver = bytes > limit;
  const count = Math.abs(limit - bytes);
  const label = `${count.toLocaleString("en")} ${count === 1 ? "byte" : "bytes"} ${isOver ? "over the limit" : "left"}`;
  const shown = text !== "" && bytes > limit * COUNTER_FROM ? label : "";
  $("size").textContent = shown;
  $("size").classList.toggle("over", isOver && shown !== "");
  input.ariaInvalid = String(isOver && shown !== "");
  clearTimeout(announcementTimer);
  announcementTimer = setTimeout(() => ($("size-status").textContent = shown), ANNOUNCEMENT_DELAY_MS);
}

input.addEventListener("input", onInput);
input.addEventListener("focus", fit);
addEventListener("resize", fit);
input.addEventListener("keydown", (event) => {
  // While composing, keys belong to the input method.
  if (!event.isComposing && (handleSuggestionKey(event) || handleKey(event))) event.preventDefault();
});

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = input.value.trim();
  if (text !== "" && room.send(text, recipient)) {
    if (!isLogin(text)) last = { text, recipient };
    setDraft("");
  }
  input.focus();
});
// The box keeps the focus, and a phone its keyboard.
$("send").addEventListener("mousedown", (event) => event.preventDefault());
$("stop-whisper").addEventListener("click", stopWhisper);

addEventListener("keydown", (event) => {
  const isShortcut = (event.ctrlKey || event.altKey) && !event.getModifierState("AltGraph");
  if (event.defaultPrevented || isShortcut || event.metaKey || !TEXT_KEY.test(event.key)) return;
  if (!closest(event, OTHER_INPUTS) && !document.querySelector("dialog[open]")) input.focus();
});

const showEnterKey = () => (input.enterKeyHint = isTouch.matches ? "enter" : "send");
isTouch.addEventListener("change", showEnterKey);
showEnterKey();

restoreDrafts(load("drafts"));

/**
 * Returns whether the key was handled.
 * @param {KeyboardEvent} event
 */
function handleKey({ key, shiftKey, ctrlKey, metaKey }) {
  const sends = ctrlKey || metaKey || (!shiftKey && !isTouch.matches); // On a touch screen, the button sends.
  if (key === "Enter" && sends) form.requestSubmit();
  else if (key === "Escape" && recipient !== null) stopWhisper();
  else if (key === "ArrowUp" && input.value === "" && last) recall(last);
  else return false;
  return true;
}

/** @param {{ text: string, recipient: string | null }} message */
function recall(message) {
  setRecipient(message.recipient);
  if (input.value === "") setDraft(message.text);
}

function stopWhisper() {
  setRecipient(null);
  input.focus();
}

/** @param {string | null} name */
function setRecipient(name) {
  recipient = name;
  form.classList.toggle("whispering", name !== null);
  $("recipient").hidden = name === null;
  $("recipient-name").textContent = name;
  $("stop-whisper").ariaLabel = $("stop-whisper").title = `Stop whispering to ${name}`;
  showPlaceholder();
  setDraft(drafts.get(name) ?? "");
}

function showPlaceholder() {
  const whisper = recipient === null ? "Message, or / for commands" : `Whisper to ${recipient}`;
  input.placeholder = isTimedOut ? "You're timed out and can only read for now" : whisper;
}

function onInput() {
  if (input.value === "") drafts.delete(recipient);
  else drafts.set(recipient, input.value);
  saveDrafts();
  input.spellcheck = !input.classList.toggle("secret", isLogin(input.value));
  fit();
  showSize();
  suggest();
}

function saveDrafts() {
  save("drafts", savedDrafts());
}

// Commands may contain passwords.
function savedDrafts() {
  return { texts: [...drafts].filter(([, text]) => !COMMAND.test(text)), recipient };
}

// As high as the text, up to max-height in style.css. The form keeps its height meanwhile, so that the log does not
// move.
function fit() {
  form.style.height = `${form.offsetHeight}px`;
  input.style.height = "auto";
  input.style.height = `${input.scrollHeight + 2}px`;
  form.style.height = "";
}
