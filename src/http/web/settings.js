// The user's settings, which last in this browser and are the same in all of its tabs.

import { loadLasting, saveLasting } from "./storage.js";

/**
 * @typedef {object} Settings
 * @property {"system" | "light" | "dark"} theme
 * @property {"comfortable" | "compact"} density
 * @property {"system" | "12-hour" | "24-hour"} time
 * @property {boolean} showsJoins lines about people who join or leave
 * @property {"off" | "mentions" | "all"} notifications "mentions" includes whispers
 * @property {boolean} sound
 */

/**
 * The values that each setting can have, the default first.
 * @type {Record<string, (string | boolean)[]>}
 */
export const VALUES = {
  theme: ["system", "light", "dark"],
  density: ["comfortable", "compact"],
  time: ["system", "12-hour", "24-hour"],
  showsJoins: [true, false],
  notifications: ["off", "mentions", "all"],
  sound: [false, true],
};
const SCHEMES = ["light", "dark"]; // of the theme-color elements, in their order

/** @type {(() => void)[]} */
const listeners = [];
export const settings = /** @type {Settings} */ ({});
load();

/** @param {string} name @param {string | boolean} value */
export function changeSetting(name, value) {
  saveLasting("settings", Object.assign(settings, { [name]: value }));
  apply();
}

// Calls `listener` now and after each change.
/** @param {(settings: Settings) => void} listener */
export function onSettings(listener) {
  listeners.push(() => listener(settings));
  listener(settings);
}

// In another tab.
addEventListener("storage", ({ key }) => key === "settings" && load());

// What is stored may come from another version of the page.
function load() {
  const stored = loadLasting("settings") ?? {};
  for (const [name, values] of Object.entries(VALUES)) {
    Object.assign(settings, { [name]: values.includes(stored[name]) ? stored[name] : values[0] });
  }
  apply();
}

function apply() {
  const { theme, density, showsJoins } = settings;
  const { style, dataset } = document.documentElement;
  style.colorScheme = theme === "system" ? "" : theme;
  document.querySelectorAll('meta[name="theme-color"]').forEach((meta, index) => {
    const isChosen = theme === SCHEMES[index] ? "all" : "not all";
    meta.setAttribute("media", theme === "system" ? `(prefers-color-scheme: ${SCHEMES[index]})` : isChosen);
  });
  dataset.density = density;
  dataset.joins = showsJoins ? "shown" : "hidden";
  for (const listener of listeners) listener();
}
