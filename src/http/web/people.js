// The people in the room: the user first, then moderators, then everyone else by name.

import { $, avatar, closest, element, moveFocus } from "./dom.js";

/** @typedef {{ username: string, is_mod: boolean, is_timed_out: boolean, is_away?: boolean }} Person */

const MAX_ITEMS = 500; // people beyond these are only counted, unless the filter finds them
const MIN_PEOPLE_TO_FILTER = 21;

const list = $("member-list");
const filter = $("member-filter");
const note = $("member-note");
const compareNames = new Intl.Collator(undefined, { numeric: true }).compare;
/** @type {Map<string, Person>} */
let people = new Map();
/** @type {Map<string, { item: HTMLElement, badges: HTMLElement }>} */
const items = new Map();
let me = "";
/** @type {HTMLElement | null | undefined} */
let tabStop; // The list has one; the arrow keys move within it.

/** @param {Person[]} users @param {string} ownName */
export function showPeople(users, ownName) {
  me = ownName;
  const rank = (/** @type {Person} */ { username, is_mod }) => (isMe(username) ? 0 : is_mod ? 1 : 2);
  const byName = new Map(users.map((person) => [person.username, person]));
  // Sorting is fast if most are in order already.
  const almostSorted = [...new Set([...people.keys(), ...byName.keys()])].flatMap((name) => byName.get(name) ?? []);
  const sorted = almostSorted.sort((a, b) => rank(a) - rank(b) || compareNames(a.username, b.username));
  people = new Map(sorted.map((person) => [person.username, person]));
  filter.hidden = people.size < MIN_PEOPLE_TO_FILTER && filter.value === "" && filter !== document.activeElement;
  $("member-count").textContent = $("member-badge").textContent = String(people.size);
  showList();
}

/** @param {string} name */
export const isMe = (name) => name === me;
/** @param {string} name @returns whether and how this person is in the room */
export const findPerson = (name) => people.get(name);
export const amModerator = () => people.get(me)?.is_mod ?? false;

// Calls `callback` when the user chooses a person.
/** @param {(name: string, anchor: HTMLElement) => void} callback */
export function onPersonMenu(callback) {
  list.addEventListener("click", (event) => {
    const button = closest(event, "button");
    if (button) callback(button.dataset.name ?? "", button);
  });
}

filter.addEventListener("input", showList);
list.addEventListener("keydown", (event) => moveFocus(list, event));
list.addEventListener("focusin", (event) => setTabStop(closest(event, "button")));

// Changes only what differs, and keeps the focus.
function showList() {
  const wanted = plain(filter.value.trim());
  const found = [...people.keys()].filter((name) => wanted === "" || plain(name).includes(wanted));
  const shown = new Set(found.slice(0, MAX_ITEMS));
  const focused = list.querySelector(":focus");
  const focusedAt = [...list.children].findIndex((item) => item.contains(focused));

  for (const [name, { item }] of items) {
    if (shown.has(name)) continue;
    item.remove();
    items.delete(name);
  }
  let current = list.firstElementChild;
  for (const name of shown) {
    const item = showPerson(name);
    // An item that moves down makes way, so that those below it can stay.
    if (current && current.nextElementSibling === item) current.remove();
    else if (current !== item) list.insertBefore(item, current);
    current = item.nextElementSibling;
  }
  const rest = found.length - shown.size;
  const more = rest > 0 ? `and ${rest} more. Filter by name to find them.` : "";
  const text = shown.size > 0 ? more : "No one by that name";
  if (note.textContent !== text) note.textContent = text; // Screen readers announce each change.

  const nearest = list.children[Math.max(0, Math.min(focusedAt, shown.size - 1))];
  if (!tabStop?.isConnected) setTabStop(nearest?.querySelector("button"));
  if (focused && document.activeElement === document.body) (tabStop ?? filter).focus();
}

/** @param {string} name */
function showPerson(name) {
  const entry = items.get(name) ?? createItem(name);
  items.set(name, entry);
  const person = people.get(name);
  const labels = Object.entries({
    you: isMe(name),
    moderator: person?.is_mod,
    "timed out": person?.is_timed_out,
    away: person?.is_away,
  }).flatMap(([label, applies]) => (applies ? label : []));
  if (entry.badges.dataset.labels !== String(labels)) {
    entry.badges.dataset.labels = String(labels);
    const badges = labels.map((label) => element("span", { class: `badge ${label.replace(" ", "-")}` }, label));
    entry.badges.replaceChildren(...badges.flatMap((badge) => [" ", badge]));
  }
  return entry.item;
}

/** @param {string} name */
function createItem(name) {
  const badges = element("span", { class: "badges" });
  const content = [avatar(name), element("bdi", { class: "name" }, name), badges];
  const button = element("button", { "data-name": name, "aria-haspopup": "menu", tabindex: "-1" }, ...content);
  return { item: element("li", {}, button), badges };
}

/** @param {HTMLElement | null | undefined} button */
function setTabStop(button) {
  if (tabStop) tabStop.tabIndex = -1;
  if (button) button.tabIndex = 0;
  tabStop = button;
}

// Without case and accents.
/** @param {string} name */
const plain = (name) => name.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
