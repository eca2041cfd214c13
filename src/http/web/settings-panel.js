// The panel with the settings.

import { $, element } from "./dom.js";
import { obstacle, playSound, turnOn } from "./notifications.js";
import { changeSetting, onSettings, VALUES } from "./settings.js";

// The label of each setting, and those of its values in the order of VALUES.
const LABELS = {
  theme: ["Theme", "System", "Light", "Dark"],
  density: ["Density", "Comfortable", "Compact"],
  time: ["Time format", "System", "12-hour", "24-hour"],
  showsJoins: ["Joins and leaves", "Shown", "Hidden"],
  notifications: ["Notifications", "Off", "Mentions and whispers", "All messages"],
  sound: ["Sound", "Off", "On"],
};

const panel = $("settings-panel");
const hint = element("p", { class: "hint", role: "status" });

for (const [name, [label, ...options]] of Object.entries(LABELS)) {
  const select = element("select", {}, ...options.map((option) => element("option", {}, option)));
  panel.append(element("label", {}, label, select));
  select.addEventListener("change", () => change(name, VALUES[name][select.selectedIndex]));
  onSettings((settings) => {
    select.selectedIndex = VALUES[name].indexOf(settings[/** @type {keyof typeof LABELS} */ (name)]);
  });
}
panel.append(hint);
panel.querySelector("select")?.setAttribute("autofocus", "");
panel.addEventListener("beforetoggle", showHint);
onSettings(showHint);
$("settings-button").hidden = false;

/** @param {string} name @param {string | boolean} value */
function change(name, value) {
  if (name === "notifications" && value !== "off") turnOn(value);
  else changeSetting(name, value);
  if (name === "sound" && value) playSound();
}

function showHint() {
  hint.textContent = obstacle();
}
