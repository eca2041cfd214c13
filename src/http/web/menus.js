// A menu that opens at an element, and a dialog that asks for a decision.

import { $, element } from "./dom.js";

const MARGIN_PX = 8; // to the edges of the window

let anchor = document.body;
const menu = element("div", { id: "menu", role: "menu", popover: "" });
$("main").append(menu);

/**
 * @param {HTMLElement} newAnchor gets the focus back
 * @param {string} title
 * @param {Record<string, (() => void) | false | undefined>} actions by their labels; those without a function are left out
 */
export function openMenu(newAnchor, title, actions) {
  menu.hidePopover();
  anchor = newAnchor;
  anchor.focus();
  menu.ariaLabel = title;
  menu.replaceChildren(...Object.entries(actions).flatMap(([label, action]) => (action ? item(label, action) : [])));
  menu.showPopover();
  place();
  menu.querySelector("button")?.focus();
}

/**
 * Asks, and returns the index of the action that was chosen. The first one does nothing, and the last one is the most
 * dangerous. With one field or more and two actions, Enter chooses the second one if the fields are valid.
 * @param {string} title
 * @param {string} text
 * @param {string[]} actions
 * @param {...Node} fields
 * @returns {Promise<number>}
 */
export function ask(title, text, actions, ...fields) {
  const buttons = actions.map((label, index) => {
    const look = index > 0 && index === actions.length - 1 ? "primary danger" : "secondary";
    return element("button", { value: String(index), class: look, type: index > 0 ? "submit" : "button" }, label);
  });
  const content = [element("h2", {}, title), element("p", {}, text), ...fields];
  const form = element("form", { method: "dialog" }, ...content, element("div", { class: "dialog-actions" }, ...buttons));
  const dialog = element("dialog", { "aria-label": title }, form);
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

/**
 * Handles the arrow keys, Home and End in a list of buttons. Wraps around at both ends.
 * @param {HTMLElement} list
 * @param {KeyboardEvent} event
 */
export function moveFocus(list, event) {
  const buttons = [...list.querySelectorAll("button")];
  const index = buttons.findIndex((button) => button === document.activeElement);
  const next = { ArrowDown: index + 1, ArrowUp: index - 1, Home: 0, End: -1 }[event.key];
  if (next === undefined) return;
  buttons.at(next % buttons.length)?.focus();
  event.preventDefault();
}

menu.addEventListener("keydown", (event) => {
  if (event.key === "Tab") menu.hidePopover();
  moveFocus(menu, event);
});
menu.addEventListener("toggle", () => {
  if (!anchor.isConnected) $("message-input").focus();
});
addEventListener("resize", place); // as when a phone hides its keyboard

/** @param {string} label @param {() => void} action */
function item(label, action) {
  const button = element("button", { role: "menuitem", tabindex: "-1" }, label);
  button.addEventListener("click", () => {
    menu.hidePopover();
    action();
  });
  return button;
}

// At the anchor, and inside the window.
function place() {
  const { left, bottom } = anchor.getBoundingClientRect();
  const limit = (/** @type {number} */ at, /** @type {number} */ room) => `${Math.max(MARGIN_PX, Math.min(at, room - MARGIN_PX))}px`;
  menu.style.left = limit(left, innerWidth - menu.offsetWidth);
  menu.style.top = limit(bottom, innerHeight - menu.offsetHeight);
}
