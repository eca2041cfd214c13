// DOM helpers. Strings become text nodes, so nothing that a user writes can become markup.

/**
 * The elements whose class matters, by id. An id that is missing here has the type HTMLElement.
 * @typedef {{
 *   composer: HTMLFormElement,
 *   "member-filter": HTMLInputElement,
 *   "jump-to-latest": HTMLButtonElement,
 *   join: HTMLButtonElement,
 *   "join-form": HTMLFormElement,
 *   "message-input": HTMLTextAreaElement,
 *   name: HTMLInputElement,
 *   password: HTMLInputElement,
 * }} Elements
 */

/**
 * The element with this id, which must exist.
 * @template {string} Id
 * @param {Id} id
 * @returns {Id extends keyof Elements ? Elements[Id] : HTMLElement}
 */
export const $ = (id) => /** @type {any} */ (document.getElementById(id));

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, string>} [attributes]
 * @param {...(Node | string)} children
 */
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** @param {string} label  @param {() => void} onClick  @param {Record<string, string>} attributes */
export function button(label, onClick, attributes = { class: "secondary" }) {
  const node = element("button", attributes, label);
  node.addEventListener("click", onClick);
  return node;
}

/**
 * The innermost element around the event's target that matches, or null.
 * @param {Event} event
 * @param {string} selector
 * @returns {HTMLElement | null}
 */
export const closest = ({ target }, selector) => target instanceof Element ? target.closest(selector) : null;

/** The arrow keys, Home and End in a list or menu; the focus wraps around at both ends. @param {KeyboardEvent} event */
export function moveFocus(event) {
  const buttons = [.../** @type {HTMLElement} */ (event.currentTarget).querySelectorAll("button")];
  const index = buttons.findIndex((button) => button === document.activeElement);
  const next = { ArrowDown: index + 1, ArrowUp: index - 1, Home: 0, End: -1 }[event.key];
  if (next === undefined) return;
  buttons.at(next % buttons.length)?.focus();
  event.preventDefault();
}

/** @param {string} name */
export function avatar(name) {
  return setHue(element("span", { class: "avatar", "aria-hidden": "true" }, [...name][0] ?? ""), name);
}

/**
 * The hue depends on the name only, so it is the same on every screen.
 * @template {HTMLElement} T
 * @param {T} node
 * @param {string} name
 */
export function setHue(node, name) {
  let hue = 0; // degrees
  for (const character of name) hue = (hue * 31 + (character.codePointAt(0) ?? 0)) % 360;
  node.style.setProperty("--hue", String(hue));
  return node;
}
