// DOM helpers. Strings become text nodes, so nothing that a user writes can become markup.

/**
 * @param {string} id
 * @returns {any} the element, which exists
 */
export const $ = (id) => document.getElementById(id);

/**
 * @param {string} tag
 * @param {Record<string, unknown>} attributes
 * @param {(string | Node)[]} children
 */
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
  node.append(...children);
  return node;
}

/** @param {string} name */
export function avatar(name) {
  return setHue(element("span", { class: "avatar", "aria-hidden": "true" }, [...name][0] ?? ""), name);
}

/**
 * The hue depends on the name only, so it is the same on every screen.
 * @param {HTMLElement} node
 * @param {string} name
 */
export function setHue(node, name) {
  let hue = 0; // degrees
  for (const character of name) hue = (hue * 31 + (character.codePointAt(0) ?? 0)) % 360;
  node.style.setProperty("--hue", String(hue));
  return node;
}
