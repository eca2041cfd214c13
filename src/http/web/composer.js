// The message box: writing, the drafts, and the person whom the user whispers to.

import { completions, handleSuggestionKey, isLogin, quoteName, suggest } from "./completion.js";
import { $, closest } from "./dom.js";
import { setConversation } from "./message-log.js";
import { load, save } from "./storage.js";

export { completions, isLogin, quoteName };

/** @typedef {string | null} Recipient of a whisper; null: what is written is for the room, or a command */

const COMMAND = /^\s*\/(?!\/|whisper\s)/; // "//" begins a message, and a whisper is a message
// The keys that go to the box from anywhere on the page: characters, and those that begin a composition.
const TEXT_KEY = /^(?:[^ ]|Dead|Process)$/u;
const OTHER_INPUTS = "input, textarea, select, dialog, [popover], [role=menu]";
const SIZE_DELAY_MS = 300; // so that screen readers do not announce the size after each key

const form = $("composer");
const input = $("message-input");
const isTouch = matchMedia("(pointer: coarse)");
/** @type {Map<Recipient, string>} */
const drafts = new Map();
let owner = ""; // of the drafts
/** @type {Recipient} */
let recipient = null;
/** @type {{ text: string, recipient: Recipient } | null} */
let last = null; // sent
let isTimedOut = false;
let sizeTimer = 0;

/**
 * `send` returns whether the text was taken, and `excess` by how many bytes it exceeds the server's limit, if positive.
 * @type {{ send: (text: string, to: Recipient) => boolean, excess: (text: string, to: Recipient) => number }}
 */
export const actions = { send: () => false, excess: () => 0 };

/** From now on, what is written is for this person. The draft for the room waits. @param {string} name */
export function startWhisper(name) {
  setRecipient(name);
  input.focus();
}

/** At the caret. @param {string} name */
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
 * @param {string} text
 */
export function returnText(text, to = recipient) {
  if (isLogin(text) || drafts.has(to)) return false;
  drafts.set(to, text);
  if (to === recipient) setDraft(text);
  else saveDrafts();
  return true;
}

/** Shows the drafts that were written under this name in this tab. @param {string} name */
export function openDrafts(name) {
  const isOpen = owner !== ""; // A new name, after the old one was refused, changes nothing.
  owner = name;
  const saved = isOpen ? null : load("drafts");
  if (saved?.owner !== name) return;
  for (const [key, text] of saved.texts) drafts.set(key, text);
  setRecipient(saved.to);
}

/** Empties the box. Its drafts stay until someone joins under another name. @param {boolean} discards */
export function closeDrafts(discards) {
  if (discards) save("drafts", null);
  owner = "";
  drafts.clear();
  last = null;
  setRecipient(null);
}

/** @param {boolean} value */
export function setTimedOut(value) {
  isTimedOut = value;
  showPlaceholder();
}

// To be called when the limit may have changed, too.
export function showSize() {
  const text = input.value.trim();
  const count = text === "" ? -Infinity : actions.excess(text, recipient);
  const isOver = count > 0;
  const isNear = -count < text.length / 9; // from about 90 % of the limit on
  $("size").textContent = isNear ? `${inBytes(Math.abs(count))} ${isOver ? "over the limit" : "left"}` : "";
  $("size").classList.toggle("over", isOver);
  input.ariaInvalid = String(isOver);
}

/** @param {number} count */
export const inBytes = (count) => `${count.toLocaleString("en")} ${count === 1 ? "byte" : "bytes"}`;

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
  if (text !== "" && actions.send(text, recipient)) {
    if (!isLogin(text)) last = { text, recipient };
    setDraft("");
  }
  input.focus();
});
// The box keeps the focus, and a phone its keyboard.
$("send").addEventListener("mousedown", (event) => event.preventDefault());
$("recipient-label").addEventListener("click", () => setConversation(recipient));
$("stop-whisper").addEventListener("click", stopWhisper);
addEventListener("keydown", (event) => {
  const isShortcut = event.metaKey || ((event.ctrlKey || event.altKey) && !event.getModifierState("AltGraph"));
  if (event.defaultPrevented || isShortcut || !TEXT_KEY.test(event.key)) return;
  if (!closest(event, OTHER_INPUTS) && !document.querySelector("dialog[open]")) input.focus();
});

setRecipient(null);
const showEnterKey = () => (input.enterKeyHint = isTouch.matches ? "enter" : "send");
isTouch.addEventListener("change", showEnterKey);
showEnterKey();

/** Returns whether the key was handled. @param {KeyboardEvent} event */
function handleKey({ key, shiftKey, ctrlKey, metaKey }) {
  const sends = ctrlKey || metaKey || (!shiftKey && !isTouch.matches); // On a touch screen, the button does.
  if (key === "Enter" && sends) form.requestSubmit();
  else if (key === "Escape" && recipient !== null) stopWhisper();
  else if (key === "ArrowUp" && input.value === "" && last) recall(last);
  else return false;
  return true;
}

/** @param {NonNullable<typeof last>} message */
function recall(message) {
  setRecipient(message.recipient);
  if (input.value === "") setDraft(message.text);
}

function stopWhisper() {
  setConversation(null);
  setRecipient(null);
  input.focus();
}

/** @param {Recipient} name */
function setRecipient(name) {
  recipient = name;
  form.classList.toggle("whispering", name !== null);
  $("recipient").hidden = name === null;
  $("recipient-name").textContent = name;
  input.setAttribute("aria-describedby", name === null ? "command-usage" : "recipient-label command-usage");
  $("recipient-label").title = `Show only whispers with ${name}`;
  $("stop-whisper").ariaLabel = $("stop-whisper").title = `Stop whispering to ${name}`;
  showPlaceholder();
  setDraft(drafts.get(name) ?? "");
}

function showPlaceholder() {
  const purpose = recipient === null ? "Message, or / for commands" : `Whisper to ${recipient}`;
  input.placeholder = isTimedOut ? "You're timed out and can only read for now" : purpose;
}

function onInput() {
  if (input.value === "") drafts.delete(recipient);
  else drafts.set(recipient, input.value);
  saveDrafts();
  input.spellcheck = !input.classList.toggle("secret", isLogin(input.value));
  fit();
  clearTimeout(sizeTimer);
  sizeTimer = setTimeout(showSize, SIZE_DELAY_MS);
  suggest();
}

function saveDrafts() {
  if (owner === "") return;
  const texts = [...drafts].filter(([, text]) => !COMMAND.test(text)); // Commands may contain passwords.
  save("drafts", texts.length > 0 || recipient !== null ? { owner, texts, to: recipient } : null);
}

// As high as the text, up to max-height in style.css. The form keeps its height meanwhile, so that the log does not
// move.
function fit() {
  form.style.height = `${form.offsetHeight}px`;
  input.style.height = "auto";
  input.style.height = `${input.scrollHeight + 2}px`;
  form.style.height = "";
}
