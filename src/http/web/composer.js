// The message box: the drafts, whom the user whispers to, completion, sending, and what has not been delivered.

import * as connection from "./connection.js";
import { $, closest, element } from "./dom.js";
import { setDeliveryState } from "./formatting.js";
import * as log from "./message-log.js";
import { load, save } from "./storage.js";

/**
 * @typedef {string | null} Recipient of a whisper; null: what is written is for the room, or a command
 *
 * @typedef {object} Item a message that the server has not acknowledged
 * @property {string} content
 * @property {Recipient} to
 * @property {boolean} isCommand
 * @property {boolean} isTyped whether it belongs in the message box if it fails
 * @property {string} from the user's name
 * @property {string} txnId the server returns it in the ack, the error and the history
 * @property {"waiting" | "sent" | "unknown"} state "waiting": to be sent; "unknown": it was sent, and may have arrived
 * @property {import("./connection.js").Position | null} position when it was sent
 * @property {HTMLElement | null} [row] not saved
 *
 * @typedef {{ txn_id?: string, id: number, time: string, content: string }} Message
 */

const COMMAND = /^\s*\/(?!\/|whisper\s)/; // "//" begins a message, and a whisper is a message
// The keys that go to the box from anywhere on the page: characters, and those that begin a composition.
const TEXT_KEY = /^(?:[^ ]|Dead|Process)$/u;
const OTHER_INPUTS = "input, textarea, select, dialog, [popover], [role=menu]";
const SIZE_DELAY_MS = 300; // so that screen readers do not announce the size after each key
const MAX_NAMES = 8; // in the listbox
const MENTION = /(?:^|[\s("'])@([^\s@][^\n@]*)?$/; // names may contain spaces
const MAX_ITEMS = 50; // messages
const TXN_ID_BYTES = 16;
const TIMED_OUT = "You're timed out and can only read for now.";
const SLASH_HINT = "Unknown command. To send a message that starts with /, type //.";

const form = $("composer");
const input = $("message-input");
const listbox = $("suggestions");
const isTouch = matchMedia("(pointer: coarse)");
/** @type {Map<Recipient, string>} */
const drafts = new Map();
let owner = ""; // of the drafts
/** @type {Recipient} */
let recipient = null;
/** @type {{ text: string, recipient: Recipient } | null} */
let last = null; // the last text that was sent
let isTimedOut = false;
let sizeTimer = 0;
let selected = -1; // index in the listbox, or -1
/** @type {[number, number]} */
let range = [0, 0]; // what a suggestion replaces
/** @type {Item[]} */
let items = []; // in the order of sending
// Without those that another version of the page saved.
setItems([load("outbox")].flat().filter((item) => item?.from));

/**
 * The names are all of those in the room.
 * @type {{ commands: Record<string, { usage: string }>, names: string[] }}
 */
export const completions = { commands: {}, names: [] };

/** From now on, what is written is for this person. The draft for the room waits. @param {string} name */
export function startWhisper(name) {
  setRecipient(name);
  input.focus();
}

/** At the caret. @param {string} name */
export function insertMention(name) {
  const { selectionStart: start, selectionEnd: end, value } = input;
  input.focus();
  insert(`${/\S$/.test(value.slice(0, start)) ? " " : ""}@${name} `, start, end);
}

// Shows the drafts that were written under this name in this tab.
export function openDrafts() {
  const saved = owner === "" ? load("drafts") : null; // A new name, after the old one was refused, changes nothing.
  owner = connection.name;
  if (saved?.owner !== owner) return;
  for (const [key, text] of saved.texts) drafts.set(key, text);
  setRecipient(saved.to);
}

/** @param {boolean} value */
export function setTimedOut(value) {
  isTimedOut = value;
  showPurpose();
  sendWaiting();
}

/** The position to resume from: everything after it shows which items arrived. @param {string} name */
export function resumePosition(name) {
  return items.find(({ from, state }) => from === name && state === "sent")?.position ?? null;
}

// How many messages have not been confirmed under this name.
export const unsent = () => ownItems().filter(({ isCommand }) => !isCommand).length;

/**
 * Sends the text: to everyone, to the recipient, or as a command. Returns an error message, or "" on success.
 * @param {string} text
 * @param {string | null} recipient
 */
export function submit(text, recipient, isTyped = true) {
  const item = { ...newItem(text, recipient), isTyped };
  if (isTimedOut) return TIMED_OUT;
  if (item.isCommand && !connection.isOnline()) return "Commands can't be sent while you're offline.";
  if (items.length >= MAX_ITEMS) return "Too many messages are waiting to be sent.";
  if (excessOf(item) > 0) return `Your message is ${inBytes(excessOf(item))} over the limit.`;
  setItems([...items, item]);
  sendWaiting();
  return "";
}

export function showStates() {
  for (const item of ownItems().filter(({ isCommand }) => !isCommand)) {
    item.row ??= log.addMessage({ sender: item.from, text: item.content, isOwn: true, recipient: item.to });
    const isUnknown = item.state === "unknown";
    const isSent = item.state === "sent" && connection.state === "online";
    const text = isUnknown ? "May not have been sent" : isSent ? "" : "Not sent yet";
    // A message in flight would be in the room, but not on the page.
    const canDiscard = item.state !== "sent" || !connection.isOnline();
    setDeliveryState(item.row, text, {
      "Send again": isUnknown && (() => sendAgain(item)),
      Discard: canDiscard && (() => giveUp(item)),
    });
  }
}

/** Returns whether the message is one of the user's that is shown already. @param {Message} message */
export function confirm(message) {
  const row = remove(message.txn_id)?.row;
  if (row) log.confirmMessage(row, message);
  return Boolean(row);
}

/** A message of the user's is among the older ones, which are about to be shown. @param {string | undefined} id */
export function discard(id) {
  const row = remove(id)?.row;
  if (row) log.removeRow(row);
}

/** Returns whether the error is shown at the message that it answers. @param {Message} error */
export function onError({ txn_id, content }) {
  const item = remove(txn_id);
  if (item?.row) log.endPending(item.row, `Not sent: ${content}`);
  else if (item) giveBack(item);
  return Boolean(item?.row);
}

/**
 * To be called after the messages of the answer to a join have been passed to confirm().
 * @param {{ epoch: string, recovered?: boolean }} answer
 */
export function onJoined({ epoch, recovered }) {
  openDrafts();
  for (const item of ownItems()) {
    if (item.isCommand) {
      // Most commands are not in the history, so it does not show whether they ran.
      remove(item.txnId);
      const shown = isLogin(item.content) ? "/login" : item.content; // without the password
      const where = giveBack(item) ? " It's back in the message box." : "";
      log.addNotice("error", `The connection was lost, so this command may not have run: ${shown}.${where}`);
    } else if (item.state === "sent") {
      // In a new epoch the server has no earlier messages, so the item is sent again.
      item.state = recovered || item.position?.epoch !== epoch ? "waiting" : "unknown";
    }
  }
  setItems(items);
  sendWaiting();
  showSize(); // The limit may have changed.
}

/** The user leaves. What is not discarded waits until someone joins under the name again. @param {boolean} discards */
export function leave(discards) {
  for (const item of ownItems()) {
    if (discards || item.isCommand) remove(item.txnId);
    else item.row = null;
  }
  if (discards) save("drafts", null);
  owner = "";
  drafts.clear();
  last = null;
  setRecipient(null);
}

input.addEventListener("input", onInput);
input.addEventListener("focus", () => {
  input.enterKeyHint = isTouch.matches ? "enter" : "send";
  fit();
  suggest();
});
for (const type of ["blur", "pointerdown"]) input.addEventListener(type, () => showSuggestions([]));
addEventListener("resize", fit);
input.addEventListener("keydown", (event) => {
  // While composing, keys belong to the input method.
  if (!event.isComposing && handleKey(event)) event.preventDefault();
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = input.value.trim();
  const error = text && submit(text, recipient);
  if (error) {
    log.addNotice("error", `${error} Your text is still in the message box.`);
  } else if (text) {
    if (!isLogin(text)) last = { text, recipient };
    setText("");
  }
  log.jumpToLatest();
  input.focus();
});
// The box keeps the focus, and a phone its keyboard.
for (const node of [$("send"), listbox]) node.addEventListener("mousedown", (event) => event.preventDefault());
listbox.addEventListener("click", (event) => accept(closest(event, "li")));
$("recipient-label").addEventListener("click", () => log.setConversation(recipient));
$("stop-whisper").addEventListener("click", stopWhisper);
addEventListener("keydown", (event) => {
  const isShortcut = event.metaKey || ((event.ctrlKey || event.altKey) && !event.getModifierState("AltGraph"));
  if (event.defaultPrevented || isShortcut || !TEXT_KEY.test(event.key)) return;
  if (!closest(event, OTHER_INPUTS)) input.focus();
});
setRecipient(null);

/** Returns whether the key was handled. @param {KeyboardEvent} event */
function handleKey({ key, shiftKey, ctrlKey, metaKey }) {
  const isOpen = !listbox.hidden;
  const sends = ctrlKey || metaKey || (!shiftKey && !isTouch.matches); // On a touch screen, the button does.
  if (isOpen && key === "ArrowDown") select(selected + 1);
  else if (isOpen && key === "ArrowUp") select(selected - 1);
  else if (isOpen && key === "Tab" && !shiftKey) accept(listbox.children[Math.max(selected, 0)]);
  else if (isOpen && key === "Enter" && selected >= 0) accept(listbox.children[selected]);
  else if (isOpen && key === "Escape") showSuggestions([]);
  else if (key === "Enter" && sends) form.requestSubmit();
  else if (key === "Escape" && recipient !== null) stopWhisper();
  else if (key === "ArrowUp" && input.value === "" && last) recall(last);
  else {
    // What a suggestion replaces is at the caret.
    if (/^(Arrow|Home|End|Page)/.test(key)) showSuggestions([]);
    return false;
  }
  return true;
}

/** @param {NonNullable<typeof last>} message */
function recall(message) {
  setRecipient(message.recipient);
  if (input.value === "") setText(message.text);
}

function stopWhisper() {
  log.setConversation(null);
  setRecipient(null);
  input.focus();
}

/** @param {Recipient} name */
function setRecipient(name) {
  recipient = name;
  $("recipient").hidden = name === null;
  $("recipient-name").textContent = name;
  $("stop-whisper").ariaLabel = `Stop whispering to ${name}`;
  showPurpose();
  setText(drafts.get(name) ?? "");
}

function showPurpose() {
  input.ariaLabel = recipient === null ? "Message" : `Whisper to ${recipient}`;
  input.placeholder = isTimedOut ? TIMED_OUT : recipient === null ? "Message, or / for commands" : input.ariaLabel;
}

/** @param {string} text */
function setText(text) {
  insert(text, 0, input.value.length);
}

/** @param {string} text @param {number} start @param {number} end */
function insert(text, start, end) {
  input.setRangeText(text, start, end, "end");
  onInput();
}

function onInput() {
  const { value } = input;
  if (value === "") drafts.delete(recipient);
  else drafts.set(recipient, value);
  saveDrafts();
  input.spellcheck = !input.classList.toggle("secret", isLogin(value));
  fit();
  clearTimeout(sizeTimer);
  sizeTimer = setTimeout(showSize, SIZE_DELAY_MS);
  suggest();
}

function saveDrafts() {
  if (owner === "") return;
  const texts = [...drafts].filter(([, text]) => !COMMAND.test(text)); // Commands may contain passwords.
  save("drafts", texts[0] || recipient !== null ? { owner, texts, to: recipient } : null);
}

// As high as the text, up to max-height in style.css. The form keeps its height meanwhile, so that the log does not
// move.
function fit() {
  form.style.height = `${form.offsetHeight}px`;
  input.style.height = "auto";
  input.style.height = `${input.scrollHeight + 2}px`;
  form.style.height = "";
}

function showSize() {
  const text = input.value.trim();
  const left = text ? -excessOf(newItem(text, recipient)) : Infinity;
  showLeft($("size"), left, text.length);
  input.ariaInvalid = String(left < 0);
}

/** From about 90 % of a limit on. @param {HTMLElement} node @param {number} left in bytes @param {number} used */
export function showLeft(node, left, used) {
  const isNear = left < used / 9;
  node.textContent = left < 0 ? `${inBytes(-left)} over the limit` : isNear ? `${inBytes(left)} left` : "";
  node.classList.toggle("over", left < 0);
}

/** @param {number} count */
const inBytes = (count) => `${count.toLocaleString("en")} ${count === 1 ? "byte" : "bytes"}`;

/** @param {string} text */
function isLogin(text) {
  return /^\s*\/login\s/.test(text);
}

// --- Completion

function suggest() {
  const { value, selectionStart: caret } = input;
  const { commands } = completions;
  const [command, ...rest] = value.split(" ");
  const isCommand = /^\/(?!\/).*$/.test(value);
  const usage = commands[command]?.usage ?? "";
  $("command-usage").textContent = isCommand && rest[0] !== undefined ? usage || SLASH_HINT : "";
  showSuggestions([]);
  if (document.activeElement !== input) return;
  range = [0, value.length];
  if (isCommand && rest[0] === undefined) {
    const matches = startingWith(command, Object.keys(commands));
    showSuggestions(matches.map((name) => [`${name} `, commands[name].usage]), matches.includes(command));
  } else if (isCommand && /^\S+ \[user/.test(usage)) {
    suggestNames(rest.join(" ").replace(/^["@]/, ""), (name) => `${command} ${quoteName(name)} `);
  }
  const mention = MENTION.exec(value.slice(0, caret));
  if (listbox.hidden && mention && !isLogin(value)) {
    const prefix = mention[1] ?? "";
    range = [caret - prefix.length - 1, value[caret] === " " ? caret + 1 : caret];
    suggestNames(prefix, (name) => `@${name} `);
  }
}

// In quotes if the command could mean another member, now or once this one has left.
/** @param {string} name */
function quoteName(name) {
  return /^"| /.test(name) || startingWith(`${name} `, completions.names)[0] ? quote(name) : name;
}

/** A name in quotes is exactly that name, whoever else is in the room. @param {string} name */
export const quote = (name) => `"${name.replaceAll('"', '""')}"`;

/** @param {string} prefix @param {string[]} texts */
function startingWith(prefix, texts) {
  return texts.filter((text) => text.toLowerCase().startsWith(prefix.toLowerCase()));
}

/** @param {string} prefix @param {(name: string) => string} insertion */
function suggestNames(prefix, insertion) {
  const { names } = completions;
  const matches = startingWith(prefix, names).filter((name) => name !== owner).slice(0, MAX_NAMES);
  const isComplete = names.some((name) => name.toLowerCase() === prefix.trimEnd().toLowerCase());
  showSuggestions(matches.map((name) => [insertion(name), name]), isComplete);
}

/**
 * @param {string[][]} pairs each of what is inserted, and of its label
 * @param {boolean} [isComplete] whether Enter sends what is there
 */
function showSuggestions(pairs, isComplete) {
  const options = pairs.map(([insertion, label], index) =>
    element("li", { role: "option", id: `suggestion-${index}`, "data-insertion": insertion }, label),
  );
  listbox.replaceChildren(...options);
  listbox.hidden = !options[0];
  select(isComplete ? -1 : 0);
}

/** Wraps around at both ends. @param {number} index */
function select(index) {
  const options = [...listbox.children];
  selected = index < -1 ? options.length - 1 : index < options.length ? index : 0;
  options.forEach((option, i) => (option.ariaSelected = String(i === selected)));
  const option = options[selected];
  if (option) input.setAttribute("aria-activedescendant", option.id);
  else input.removeAttribute("aria-activedescendant");
  option?.scrollIntoView({ block: "nearest" });
}

/** @param {any} option */
function accept(option) {
  if (!option) return;
  const { insertion } = option.dataset;
  input.focus();
  insert(insertion, ...range);
  if (insertion.startsWith("@")) showSuggestions([]);
}

// --- Sending

function sendWaiting() {
  for (const item of ownItems()) {
    if (item.state === "waiting" && !isTimedOut && connection.isOnline()) send(item);
  }
  showStates();
}

const ownItems = () => items.filter(({ from }) => from === connection.name);

/** Returns what it removed, if anything. @param {string | undefined} id */
function remove(id) {
  const item = items.find(({ txnId }) => txnId === id);
  if (item) setItems(items.filter((other) => other !== item));
  return item;
}

/** @param {Item[]} newItems */
function setItems(newItems) {
  items = newItems;
  // Commands may contain passwords.
  const saved = items.filter(({ isCommand }) => !isCommand).map((item) => ({ ...item, row: undefined }));
  save("outbox", saved[0] ? saved : null);
  // Closing or reloading the tab asks the user only if there is something to lose: a listener that is always there can
  // make browsers load the page anew when the user comes back to it.
  window.onbeforeunload = saved[0] ? (event) => event.preventDefault() : null;
}

/** @param {string} text @param {string | null} to @returns {Item} */
function newItem(text, to) {
  // crypto.randomUUID() exists only where the page came over TLS or from this machine.
  const bytes = crypto.getRandomValues(new Uint8Array(TXN_ID_BYTES));
  const txnId = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  const message = /^\/(?!\/)/.test(text) ? parseWhisper(text) : { to, content: text.replace(/^\/\//, "/") };
  const command = { to: null, content: text, isCommand: !message, isTyped: true };
  return { ...command, ...message, from: connection.name, txnId, state: "waiting", position: null };
}

/** A typed whisper, if it is to someone who is here. The longest name counts, as on the server. @param {string} text */
function parseWhisper(text) {
  const rest = /^\/whisper\s+(.*)/s.exec(text)?.[1] ?? "";
  for (const to of completions.names.toSorted((a, b) => b.length - a.length)) {
    const start = [`${quote(to)} `, `${to} `].find((start) => startingWith(start, [rest])[0]);
    if (start) return { to, content: rest.slice(start.length).trim() };
  }
  return null;
}

/** The message as the server gets it. @param {Item} item */
const frame = ({ content, to, isCommand, txnId }) => ({
  type: isCommand ? "command" : to === null ? "public" : "private",
  to: to ?? undefined,
  content,
  txn_id: txnId,
});

/** @param {Item} item */
const excessOf = (item) => new TextEncoder().encode(JSON.stringify(frame(item))).length - connection.maxMessageBytes;

/** @param {Item} item */
function send(item) {
  // The limit may have been higher when it was written. The server would close the connection.
  if (excessOf(item) > 0) {
    remove(item.txnId);
    if (item.row) log.endPending(item.row, "Not sent: too long");
    giveBack(item);
    return;
  }
  connection.send(frame(item));
  item.state = "sent";
  item.position = connection.position;
  setItems(items);
}

/** @param {Item} item */
function sendAgain(item) {
  discard(item.txnId);
  setItems([...items, { ...item, row: null, state: "waiting" }]);
  sendWaiting();
  input.focus();
}

/** As with what was sent, arrow up brings the text back. @param {Item} item */
function giveUp({ txnId, content, to }) {
  discard(txnId);
  last = { text: escapeSlash(content), recipient: to };
  input.focus();
}

/** The text of a message as it is typed. @param {string} content */
const escapeSlash = (content) => content.replace(/^\//, "//");

/**
 * Puts what was not sent back into the box, unless it contains a password or the user is writing something else. Returns
 * whether it did.
 * @param {Item} item
 */
function giveBack({ isCommand, isTyped, content, to }) {
  const [text, key] = isCommand ? [content, recipient] : [escapeSlash(content), to];
  if (!isTyped || isLogin(text) || drafts.has(key)) return false;
  drafts.set(key, text);
  if (key === recipient) setText(text);
  else saveDrafts();
  return true;
}
