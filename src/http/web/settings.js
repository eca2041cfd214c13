// The user's settings, which are stored in this browser and shared by its tabs, and the panel that shows them.

import { $, element } from "./dom.js";
import { loadLasting, saveLasting } from "./storage.js";

// The label of each setting, and its values, the default first.
const SETTINGS = {
  theme: ["Theme", "system", "light", "dark"],
  density: ["Density", "comfortable", "compact"],
  time: ["Time format", "system", "12-hour", "24-hour"],
  joins: ["Joins and leaves", "shown", "hidden"],
  notifications: ["Notifications", "off", "mentions and whispers", "all messages"],
  sound: ["Sound", "off", "mentions and whispers"],
};

/** @typedef {(changed?: string) => void} Listener */

export const settings = /** @type {Record<keyof typeof SETTINGS, string>} */ ({});
/** @type {Listener[]} */
const listeners = [];
const selects = Object.entries(SETTINGS).map(([name, [label, ...values]]) => {
  const options = values.map((value) => element("option", { value }, value[0].toUpperCase() + value.slice(1)));
  const select = element("select", { name }, ...options);
  select.addEventListener("change", () => changeSetting(name, select.value));
  $("settings-hint").before(element("label", {}, label, select));
  return select;
});

/** @param {string} name @param {string} value */
export function changeSetting(name, value) {
  const changed = { ...settings, [name]: value };
  saveLasting("settings", changed);
  apply(changed, name);
}

/**
 * Calls `listener` now and after each change; with the name of the setting if the user has changed it here.
 * @param {Listener} listener
 */
export function onSettings(listener) {
  listeners.push(listener);
  listener();
}

selects[0].autofocus = true;
apply(loadLasting("settings"));
$("settings-button").hidden = false;
// In another tab.
addEventListener("storage", ({ key }) => key === "settings" && apply(loadLasting("settings")));

/** @param {any} values what is stored, maybe by another version of the page @param {string} [changed] */
function apply(values, changed) {
  for (const select of selects) {
    select.value = values?.[select.name];
    if (select.selectedIndex < 0) select.selectedIndex = 0;
    Object.assign(settings, { [select.name]: select.value });
  }
  Object.assign(document.documentElement.dataset, settings);
  ["light", "dark"].forEach((scheme, index) => {
    const media = { system: `(prefers-color-scheme: ${scheme})`, [scheme]: "all" }[settings.theme] ?? "not all";
    document.getElementsByName("theme-color")[index].setAttribute("media", media);
  });
  for (const listener of listeners) listener(changed);
}
