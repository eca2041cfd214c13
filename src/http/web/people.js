// The list of people in the room.

import { $, avatar, element, moveFocus } from "./dom.js";

/** @typedef {{ username: string, is_mod: boolean, is_timed_out: boolean, is_away?: boolean }} Person */

const MAX_ITEMS = 500; // people beyond these are only counted, unless the filter finds them
const MIN_PEOPLE_TO_FILTER = 21;

const list = $("member-list");
const filter = $("member-filter");
const compareNames = new Intl.Collator(undefined, { numeric: true }).compare;
export let me = "";
/** @type {Map<string, Person>} */
export let people = new Map();
/** @type {Map<string, HTMLElement>} */
let items = new Map();
let tabStop = element("button"); // The list has one; the arrow keys move within it.

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

filter.addEventListener("input", showList);
list.addEventListener("focusin", ({ target }) => setTabStop(/** @type {HTMLButtonElement} */ (target)));
list.addEventListener("keydown", moveFocus);

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
