// The user's settings, which last in this browser.

import { loadLasting, saveLasting } from "./storage.js";

const DEFAULTS = {
  theme: "system", // or "light", "dark"
  notifications: "off", // or "mentions" (and whispers), "all"
  sound: false,
  density: "comfortable", // or "compact"
  showsJoins: true, // lines about members that joined or left
  time: "system", // or "12-hour", "24-hour"
};

const listeners = [];
export const settings = { ...DEFAULTS, ...loadLasting("settings") };

export function changeSetting(name, value) {
  settings[name] = value;
  saveLasting("settings", settings);
  apply();
}

// Calls `listener` now and after each change.
export function onSettings(listener) {
  listeners.push(listener);
  listener(settings);
}

function apply() {
  for (const listener of listeners) listener(settings);
}
