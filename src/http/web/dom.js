// DOM helpers. Strings become text nodes, so nothing that a user writes can become markup.

export const $ = (id) => document.getElementById(id);

export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

export function avatar(name) {
  return setHue(element("span", { class: "avatar", "aria-hidden": "true" }, [...name][0] ?? ""), name);
}

// The hue depends on the name only, so it is the same on every screen.
export function setHue(node, name) {
  let hue = 0; // degrees
  for (const character of name) hue = (hue * 31 + character.codePointAt(0)) % 360;
  node.style.setProperty("--hue", hue);
  return node;
}
