// A menu that opens at an element.

import { $, element, moveFocus } from "./dom.js";

/** @typedef {{ label: string, action: () => void, isDanger?: boolean }} MenuItem */

const MARGIN_PX = 8; // to the edges of the window

let anchor = document.body;
const title = element("p", { class: "hint" });
const list = element("div", { role: "menu" });
const popover = element("div", { id: "menu", popover: "" }, title, list);
$("main").append(popover);

/**
 * @param {HTMLElement} newAnchor gets the focus back
 * @param {string} label
 * @param {(MenuItem | false | undefined)[][]} groups what is not an item is left out
 */
export function openMenu(newAnchor, label, groups) {
  popover.hidePopover();
  anchor = newAnchor;
  anchor.focus();
  title.textContent = list.ariaLabel = label;
  const shown = groups.map((items) => items.flatMap((item) => (item ? button(item) : []))).filter((items) => items[0]);
  list.replaceChildren(...shown.flatMap((items) => [element("hr"), ...items]).slice(1));
  popover.showPopover();
  const { left, bottom } = anchor.getBoundingClientRect();
  const place = (/** @type {number} */ at, /** @type {number} */ room) => `${Math.max(MARGIN_PX, Math.min(at, room - MARGIN_PX))}px`;
  popover.style.left = place(left, innerWidth - popover.offsetWidth);
  popover.style.top = place(bottom, innerHeight - popover.offsetHeight);
  list.querySelector("button")?.focus();
}

/** @param {MenuItem} item */
function button({ label, action, isDanger = false }) {
  const item = element("button", { role: "menuitem", tabindex: "-1", class: isDanger ? "danger" : "" }, label);
  item.addEventListener("click", () => {
    popover.hidePopover();
    action();
  });
  return item;
}

list.addEventListener("keydown", (event) => {
  if (event.key === "Tab") popover.hidePopover();
  moveFocus(list, event);
});

popover.addEventListener("toggle", () => {
  if (!anchor.isConnected) $("message-input").focus();
});
addEventListener("resize", () => popover.hidePopover());
