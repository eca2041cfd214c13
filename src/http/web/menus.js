// The menus of people and messages, and the dialog that asks for confirmation.

import * as composer from "./composer.js";
import { $, button, element, moveFocus } from "./dom.js";
import { copyText } from "./formatting.js";
import * as log from "./message-log.js";
import { me, people } from "./people.js";

/** @typedef {Record<string, (() => void) | false | undefined>} Items by label; those without a function are left out */

const MARGIN_PX = 8; // from a menu to the edges of the window

let anchor = document.body; // of the menu; gets the focus back
const menu = element("div", { id: "menu", role: "menu", popover: "" });
$("main").append(menu);
menu.addEventListener("keydown", (event) => {
  if (event.key === "Tab") menu.hidePopover();
  else moveFocus(event);
});
menu.addEventListener("toggle", () => {
  if (!anchor.isConnected) $("message-input").focus();
});
addEventListener("resize", place); // as when a phone hides its keyboard

/** @param {string} name @param {HTMLElement} anchor */
export async function openPersonMenu(name, anchor) {
  const own = { Settings: () => $("settings-panel").showPopover() };
  open(anchor, name, { ...(name === me ? own : contact(name)), ...(await moderation(name)) });
}

/**
 * @param {{ id?: number, sender: string, text: string, isOwn: boolean, isWhisper: boolean, recipient: string | null,
 *   anchor: HTMLElement }} message its text is "" if it is deleted
 */
export async function openMessageMenu({ id, sender, text, isOwn, isWhisper, recipient, anchor }) {
  const { Whisper, Mention, "Show whispers": showWhispers } = contact((isOwn ? recipient : sender) ?? "");
  const canDelete = text !== "" && id !== undefined && (isOwn || (people.get(me)?.is_mod && !isWhisper));
  const items = {
    Reply: !isOwn && Mention,
    Whisper,
    "Show whispers": isWhisper && showWhispers,
    "Copy text": text !== "" && (() => copyText(text)),
    "Delete…": canDelete && (() => deleteMessage(id, text)),
    ...(isOwn ? {} : await moderation(sender)),
  };
  open(anchor, isOwn ? "Your message" : sender, items, String(id));
}

/** Closes the menu and the dialog of a message that was deleted. @param {number} id */
export function closeMessage(id) {
  if (menu.dataset.message === String(id)) menu.hidePopover();
  document.querySelector(`dialog [data-message="${id}"]`)?.closest("dialog")?.close();
}

/** Runs a command. Its result is in the log. @param {string} command */
export function run(command) {
  const error = composer.submit(command, null, false);
  if (error) log.addNotice("error", error);
}

/**
 * Shows a dialog, and returns the index of the chosen action. The first one cancels, and the last one is the most
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

// --- The items of the menus: only what the server would accept

/** @param {string} name @returns {Items} */
function contact(name) {
  if (name === me || !people.has(name)) return {};
  return {
    Whisper: () => composer.startWhisper(name),
    Mention: () => composer.insertMention(name),
    "Show whispers": () => {
      composer.startWhisper(name); // What is written there must not go to everyone.
      log.setConversation(name);
    },
  };
}

/** @param {string} name @returns {Promise<Items>} */
async function moderation(name) {
  if (!people.get(me)?.is_mod) return {};
  try {
    return (await import("./moderation.js")).moderation(name);
  } catch {
    log.addNotice("error", "Couldn't load the menu for moderators. Reload the page to try again.");
    return {};
  }
}

/** @param {number} id @param {string} text */
async function deleteMessage(id, text) {
  const quoted = element("blockquote", { dir: "auto", "data-message": String(id) }, text);
  const warning = "It will be deleted for everyone. This can't be undone.";
  if (await ask("Delete this message?", warning, ["Cancel", "Delete"], quoted)) run(`/delete ${id}`);
}

// --- A menu that opens at an element

/** @param {HTMLElement} newAnchor @param {string} title @param {Items} items @param {string} message its id, or "" */
function open(newAnchor, title, items, message = "") {
  menu.hidePopover();
  anchor = newAnchor;
  anchor.focus();
  menu.ariaLabel = title;
  menu.dataset.message = message;
  menu.replaceChildren();
  for (const [label, action] of Object.entries(items)) if (action) menu.append(item(label, action));
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
