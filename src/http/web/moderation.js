// What moderators can do about people, and the dialogs for it. Only moderators load this file.

import { quote, showLeft } from "./composer.js";
import { element } from "./dom.js";
import { ask, run as runCommand } from "./menus.js";
import { me, people } from "./people.js";

const MAX_REASON_BYTES = 500; // as on the server
// Durations by their seconds.
const TIME_OUTS = { 60: "1 minute", 300: "5 minutes", 600: "10 minutes", 3_600: "1 hour" };
const BANS = { 3_600: "1 hour", 86_400: "1 day", 604_800: "1 week", "": "Forever" };
const UNITS = { 60: "minutes", 3_600: "hours", 86_400: "days", 604_800: "weeks" };

/** @param {string} name @returns {import("./menus.js").Items} */
export function moderation(name) {
  const person = people.get(name);
  const isOther = name !== me;
  return {
    "Time out…": isOther && person && (() => timeOut(name)),
    "End time-out": person?.is_timed_out && (() => run("unto", name)),
    Info: person && (() => run("info", name)),
    "Kick…": isOther && person && (() => kick(name)),
    // Also someone who has left.
    "Ban…": isOther && (() => ban(name)),
  };
}

/** @param {string} name */
async function timeOut(name) {
  const { field, seconds } = durationField(TIME_OUTS);
  const text = "They can read but not write until the time-out ends.";
  if (await ask(`Time out ${name}?`, text, ["Cancel", "Time out"], field)) run("to", name, seconds());
}

/** @param {string} name */
async function kick(name) {
  const { field, reason } = reasonField();
  const text = "They'll be removed from the room, but they can come back.";
  if (await ask(`Kick ${name}?`, text, ["Cancel", "Kick"], field)) run("kick", name, reason.value);
}

/** @param {string} name */
async function ban(name) {
  const duration = durationField(BANS);
  const { field, reason } = reasonField();
  reason.title = "The reason for a permanent ban can't start with a digit.";
  // The server would take the digit for the start of a duration.
  duration.field.addEventListener("change", () => (reason.pattern = duration.seconds() ? ".*" : "\\s*[^\\s\\d].*"));
  const text = people.has(name)
    ? "They'll be removed from the room, and their name and address will be banned."
    : "They aren't in the room, so only their name will be banned.";
  const isSure = await ask(`Ban ${name}?`, text, ["Cancel", "Ban"], duration.field, field);
  const seconds = duration.seconds();
  if (isSure) run("ban", name, seconds && `${seconds}s`, reason.value);
}

/** @param {string} command @param {string} name @param {...string} rest */
const run = (command, name, ...rest) =>
  runCommand([`/${command}`, quote(name), ...rest].filter(Boolean).join(" ").trim());

// With "Custom…" there are fields for a number and a unit.
/** @param {Record<string, string>} durations */
function durationField(durations) {
  const choice = select({ ...durations, custom: "Custom…" });
  const attributes = { type: "number", min: "1", max: "999", value: "30", required: "", "aria-label": "Number" };
  const number = element("input", attributes);
  const unit = select(UNITS, { "aria-label": "Unit" });
  const custom = element("div", { class: "input-row" }, number, unit);
  const field = element("div", {}, element("label", {}, "Duration", choice), custom);
  const update = () => (custom.hidden = number.disabled = choice.value !== "custom");
  field.addEventListener("change", update);
  update();
  return { field, seconds: () => (custom.hidden ? choice.value : String(+number.value * +unit.value)) };
}

function reasonField() {
  const reason = element("input");
  const size = element("p", { class: "hint", role: "status" });
  reason.addEventListener("input", () => {
    const bytes = new TextEncoder().encode(reason.value.trim()).length;
    showLeft(size, MAX_REASON_BYTES - bytes, bytes);
    reason.setCustomValidity(bytes > MAX_REASON_BYTES ? size.textContent : "");
  });
  return { reason, field: element("div", {}, element("label", {}, "Reason (optional)", reason), size) };
}

/** @param {Record<string, string>} options */
function select(options, attributes = {}) {
  const items = Object.entries(options).map(([value, text]) => element("option", { value }, text));
  return element("select", attributes, ...items);
}
