// The people in the room.

import { $, avatar, element } from "./dom.js";

const MAX_ITEMS = 500; // members beyond these are shown as a number

const list = $("member-list");
const items = new Map(); // from name to { item, badges }
const overflow = element("li", { class: "hint" });

// Changes only what differs, to preserve the keyboard focus.
export function showMembers(users, me) {
  const shown = users.slice(0, MAX_ITEMS);
  removeAllExcept(new Set(shown.map((user) => user.username)));
  shown.forEach((user, index) => {
    const name = user.username;
    if (!items.has(name)) items.set(name, createItem(name));
    const { item, badges } = items.get(name);
    const marks = [user.is_mod && "moderator", user.is_timed_out && "timed out", user.is_away && "away"];
    setBadges(badges, [name === me && "you", ...marks]);
    const current = list.children[index] ?? null;
    if (current !== item) list.insertBefore(item, current);
  });
  const rest = users.length - shown.length;
  overflow.textContent = `and ${rest} more`;
  if (rest > 0) list.append(overflow);
  else overflow.remove();
  $("member-count").textContent = $("member-badge").textContent = users.length;
}

function removeAllExcept(names) {
  for (const [name, { item }] of items) {
    if (names.has(name)) continue;
    item.remove();
    items.delete(name);
  }
}

function createItem(name) {
  const badges = element("span", { class: "badges" });
  const label = element("bdi", { class: "name" }, name);
  const button = element("button", { title: "Whisper", "data-name": name }, avatar(name), label, badges);
  return { item: element("li", {}, button), badges };
}

function setBadges(badges, labels) {
  const wanted = labels.filter(Boolean);
  if (badges.dataset.labels === wanted.join()) return;
  badges.dataset.labels = wanted.join();
  const spans = wanted.map((label) => element("span", { class: `badge ${label.replace(" ", "-")}` }, label));
  badges.replaceChildren(...spans.flatMap((span) => [" ", span]));
}
