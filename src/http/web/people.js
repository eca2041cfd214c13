// The people in the room, the menus of people and of their messages, and the dialogs that these open.

import { quote } from "./composer.js";
import { $, avatar, button, closest, element } from "./dom.js";
import { copyText } from "./formatting.js";

/** @typedef {{ username: string, is_mod: boolean, is_timed_out: boolean, is_away?: boolean }} Person */

const MAX_ITEMS = 500; // people beyond these are only counted, unless the filter finds them
const MIN_PEOPLE_TO_FILTER = 21;
const MAX_REASON_LENGTH = "500"; // characters; the server allows as many bytes
// Durations by their seconds.
const TIME_OUTS = { 60: "1 minute", 300: "5 minutes", 600: "10 minutes", 3_600: "1 hour" };
const BANS = { 3_600: "1 hour", 86_400: "1 day", 604_800: "1 week", "": "Forever" };
const UNITS = { 60: "minutes", 3_600: "hours", 86_400: "days", 604_800: "weeks" };
const MARGIN_PX = 8; // from a menu to the edges of the window

const list = $("member-list");
const filter = $("member-filter");
const compareNames = new Intl.Collator(undefined, { numeric: true }).compare;
let me = "";
/** @type {Map<string, Person>} */
let people = new Map();
/** @type {Map<string, HTMLElement>} */
let items = new Map();
let tabStop = element("button"); // The list has one; the arrow keys move within it.
/** @type {Record<"run" | "whisper" | "mention" | "showWhispers", (commandOrName: string) => void>} */
let room;
let anchor = document.body; // of the menu
const menu = element("div", { id: "menu", role: "menu", popover: "" });
$("main").append(menu);

/** @param {typeof room} newRoom */
export function connectMenus(newRoom) {
  room = newRoom;
}

/** The user first, then moderators, then everyone else by name. @param {Person[]} users @param {string} ownName */
export function showPeople(users, ownName) {
  me = ownName;
  const rank = (/** @type {Person} */ { username, is_mod }) => (username === me ? 0 : is_mod ? 1 : 2);
  const sorted = users.toSorted((a, b) => rank(a) - rank(b) || compareNames(a.username, b.username));
  people = new Map(sorted.map((person) => [person.username, person]));
  filter.hidden = people.size < MIN_PEOPLE_TO_FILTER && filter.value === "" && filter !== document.activeElement;
  $("member-count").textContent = $("member-badge").textContent = String(people.size);
  showList();
}

/** @param {string} name @param {HTMLElement} anchor */
export function openPersonMenu(name, anchor) {
  const own = { Settings: () => $("settings-panel").showPopover() };
  openMenu(anchor, name, { ...(name === me ? own : contact(name)), ...moderation(name) });
}

/**
 * @param {{ id?: number, sender: string, text: string, isOwn: boolean, isWhisper: boolean, recipient: string | null,
 *   anchor: HTMLElement }} message its text is "" if it is deleted
 */
export function openMessageMenu({ id, sender, text, isOwn, isWhisper, recipient, anchor }) {
  const { Whisper, Mention, "Show whispers": showWhispers } = contact((isOwn ? recipient : sender) ?? "");
  const canDelete = text !== "" && id !== undefined && (isOwn || (people.get(me)?.is_mod && !isWhisper));
  openMenu(anchor, isOwn ? "Your message" : sender, {
    Reply: !isOwn && Mention,
    Whisper,
    "Show whispers": isWhisper && showWhispers,
    "Copy text": text !== "" && (() => copyText(text)),
    "Delete…": canDelete && (() => deleteMessage(id, text)),
    ...(isOwn ? {} : moderation(sender)),
  });
  menu.dataset.message = String(id);
}

/** Closes what is open about a message: it has been deleted. @param {number} id */
export function closeMessage(id) {
  if (menu.dataset.message === String(id)) menu.hidePopover();
  document.querySelector(`dialog [data-message="${id}"]`)?.closest("dialog")?.close();
}

/**
 * Asks, and returns the index of the action that was chosen. The first one cancels, and the last one is the most
 * dangerous. With one field or more and two actions, Enter chooses the second one if the fields are valid.
 * @param {string} title
 * @param {string} text
 * @param {string[]} actions
 * @param {...Node} fields
 * @returns {Promise<number>}
 */
export function ask(title, text, actions, ...fields) {
  const buttons = actions.map((label, index) => {
    const attributes = { value: String(index), class: index === actions.length - 1 ? "primary danger" : "secondary" };
    return element("button", attributes, label);
  });
  const row = element("div", { class: "dialog-actions" }, ...buttons);
  const form = element("form", { method: "dialog" }, element("h2", {}, title), element("p", {}, text), ...fields, row);
  const dialog = element("dialog", { "aria-label": title }, form);
  buttons[0].type = "button"; // Enter in a field chooses the next one.
  buttons[0].addEventListener("click", () => dialog.close());
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(Number(dialog.returnValue));
    });
  });
}

filter.addEventListener("input", showList);
list.addEventListener("focusin", ({ target }) => setTabStop(/** @type {HTMLButtonElement} */ (target)));
list.addEventListener("click", (event) => {
  const button = closest(event, "button");
  if (button) openPersonMenu(button.dataset.name ?? "", button);
});
for (const box of [list, menu]) box.addEventListener("keydown", (event) => moveFocus(box, event));
menu.addEventListener("toggle", () => {
  if (!anchor.isConnected) $("message-input").focus();
});
addEventListener("resize", place); // as when a phone hides its keyboard

// --- The list

// Changes only what differs, and keeps the focus.
function showList() {
  const wanted = plain(filter.value.trim());
  const found = [...people.values()].filter(({ username }) => plain(username).includes(wanted));
  const shown = found.slice(0, MAX_ITEMS);
  const hasFocus = list.contains(document.activeElement);
  const index = [...list.children].findIndex((item) => item.contains(tabStop));

  const before = items;
  items = new Map(shown.map((person) => [person.username, showPerson(person, before.get(person.username))]));
  for (const [name, item] of before) if (!items.has(name)) item.remove();
  let next = list.firstElementChild;
  for (const item of items.values()) {
    // An item that moves down makes way, so that those below it can stay.
    if (next && next.nextElementSibling === item) next.remove();
    else if (next !== item) list.insertBefore(item, next);
    next = item.nextElementSibling;
  }
  const rest = found.length - shown.length;
  const more = rest > 0 ? `and ${rest} more. Filter by name to find them.` : "";
  $("member-note").textContent = found.length > 0 ? more : "No one by that name";

  const nearest = (list.children[Math.max(0, index)] ?? list.lastElementChild)?.querySelector("button");
  if (!tabStop.isConnected && nearest) setTabStop(nearest);
  if (hasFocus) (nearest ? tabStop : filter).focus();
}

/** @param {Person} person */
function showPerson({ username, is_mod, is_timed_out, is_away }, item = createItem(username)) {
  const labels = { you: username === me, moderator: is_mod, "timed out": is_timed_out, away: is_away };
  const badges = Object.entries(labels).flatMap(([label, applies]) =>
    applies ? [" ", element("span", { class: `badge ${label.replace(" ", "-")}` }, label)] : []);
  item.querySelector(".badges")?.replaceChildren(...badges);
  return item;
}

/** @param {string} name @returns {HTMLElement} */
function createItem(name) {
  const button = element("button", { "data-name": name, "aria-haspopup": "menu", tabindex: "-1" });
  button.append(avatar(name), element("bdi", { class: "name" }, name), element("span", { class: "badges" }));
  return element("li", {}, button);
}

/** @param {HTMLButtonElement} button */
function setTabStop(button) {
  tabStop.tabIndex = -1;
  tabStop = button;
  tabStop.tabIndex = 0;
}

// Without case and accents.
/** @param {string} name */
const plain = (name) => name.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();

// --- What the menus offer: not what the server would refuse

/** @param {string} name @returns {Parameters<typeof openMenu>[2]} */
function contact(name) {
  if (name === me || !people.has(name)) return {};
  return {
    Whisper: () => room.whisper(name),
    Mention: () => room.mention(name),
    "Show whispers": () => room.showWhispers(name),
  };
}

/** @param {string} name @returns {Parameters<typeof openMenu>[2]} */
function moderation(name) {
  if (!people.get(me)?.is_mod) return {};
  const person = people.get(name);
  const isOther = name !== me;
  return {
    "Time out…": isOther && person && (() => timeOut(name)),
    "End time-out": person?.is_timed_out && (() => run("unto", name)),
    Info: person && (() => run("info", name)),
    "Kick…": isOther && person && (() => kick(name)),
    // Also someone who has left.
    "Ban…": isOther && (() => ban(name)),
  };
}

/** @param {string} name */
async function timeOut(name) {
  const { field, seconds } = durationField(TIME_OUTS);
  const text = "They can read but not write until the time-out ends.";
  if (await ask(`Time out ${name}?`, text, ["Cancel", "Time out"], field)) run("to", name, seconds());
}

/** @param {string} name */
async function kick(name) {
  const { field, reason } = reasonField();
  const text = "They'll be removed from the room, but they can come back.";
  if (await ask(`Kick ${name}?`, text, ["Cancel", "Kick"], field)) run("kick", name, reason.value);
}

/** @param {string} name */
async function ban(name) {
  const duration = durationField(BANS);
  const { field, reason } = reasonField();
  reason.title = "The reason for a permanent ban can't start with a digit.";
  // The server would take the digit for the start of a duration.
  duration.field.addEventListener("change", () => (reason.pattern = duration.seconds() ? ".*" : "\\s*[^\\s\\d].*"));
  const text = people.has(name)
    ? "They'll be removed from the room, and their name and address will be banned."
    : "They aren't in the room, so only their name will be banned.";
  const isSure = await ask(`Ban ${name}?`, text, ["Cancel", "Ban"], duration.field, field);
  const seconds = duration.seconds();
  if (isSure) run("ban", name, seconds && `${seconds}s`, reason.value);
}

/** @param {number} id @param {string} text */
async function deleteMessage(id, text) {
  const quoted = element("blockquote", { dir: "auto", "data-message": String(id) }, text);
  const warning = "It will be deleted for everyone. This can't be undone.";
  if (await ask("Delete this message?", warning, ["Cancel", "Delete"], quoted)) room.run(`/delete ${id}`);
}

/** @param {string} command @param {string} name @param {...string} rest */
const run = (command, name, ...rest) => room.run([`/${command}`, quote(name), ...rest.filter(Boolean)].join(" "));

// With "Custom…" there are fields for a number and a unit.
/** @param {Record<string, string>} durations */
function durationField(durations) {
  const choice = select({ ...durations, custom: "Custom…" });
  const attributes = { type: "number", min: "1", max: "999", value: "30", required: "", "aria-label": "Number" };
  const number = element("input", attributes);
  const unit = select(UNITS, { "aria-label": "Unit" });
  const custom = element("div", { class: "input-row" }, number, unit);
  const field = element("div", {}, element("label", {}, "Duration", choice), custom);
  const update = () => (custom.hidden = number.disabled = choice.value !== "custom");
  field.addEventListener("change", update);
  update();
  return { field, seconds: () => (custom.hidden ? choice.value : String(+number.value * +unit.value)) };
}

function reasonField() {
  const reason = element("input", { maxlength: MAX_REASON_LENGTH });
  return { reason, field: element("label", {}, "Reason (optional)", reason) };
}

/** @param {Record<string, string>} options */
function select(options, attributes = {}) {
  const items = Object.entries(options).map(([value, text]) => element("option", { value }, text));
  return element("select", attributes, ...items);
}

// --- A menu that opens at an element

/**
 * @param {HTMLElement} newAnchor gets the focus back
 * @param {string} title
 * @param {Record<string, (() => void) | false | undefined>} actions by their labels; those without a function are left out
 */
function openMenu(newAnchor, title, actions) {
  menu.hidePopover();
  anchor = newAnchor;
  anchor.focus();
  menu.ariaLabel = title;
  menu.dataset.message = "";
  menu.replaceChildren();
  for (const [label, action] of Object.entries(actions)) if (action) menu.append(item(label, action));
  menu.showPopover();
  place();
  menu.querySelector("button")?.focus();
}

/** @param {string} label @param {() => void} action */
function item(label, action) {
  const onClick = () => {
    menu.hidePopover();
    action();
  };
  return button(label, onClick, { role: "menuitem", tabindex: "-1" });
}

// At the anchor, and inside the window.
function place() {
  const { left, bottom } = anchor.getBoundingClientRect();
  const limit = (/** @type {number} */ at, /** @type {number} */ end) =>
    `${Math.max(MARGIN_PX, Math.min(at, end - MARGIN_PX))}px`;
  menu.style.left = limit(left, innerWidth - menu.offsetWidth);
  menu.style.top = limit(bottom, innerHeight - menu.offsetHeight);
}

/** The arrow keys, Home and End; the focus wraps around at both ends. @param {HTMLElement} box @param {KeyboardEvent} event */
function moveFocus(box, event) {
  const buttons = [...box.querySelectorAll("button")];
  const index = buttons.findIndex((button) => button === document.activeElement);
  const next = { ArrowDown: index + 1, ArrowUp: index - 1, Home: 0, End: -1 }[event.key];
  if (event.key === "Tab") menu.hidePopover();
  if (next === undefined) return;
  buttons.at(next % buttons.length)?.focus();
  event.preventDefault();
}
