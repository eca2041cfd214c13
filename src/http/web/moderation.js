// Dialogs that end in a command. Each returns it, or "" if the user decides against it.

import { confirmDialog } from "./dialog.js";
import { element } from "./dom.js";

const MAX_REASON_LENGTH = "500"; // characters; the server allows as many bytes
// By their seconds.
const TIME_OUTS = { 60: "1 minute", 300: "5 minutes", 600: "10 minutes", 3_600: "1 hour" };
const BANS = { 3_600: "1 hour", 86_400: "1 day", 604_800: "1 week", "": "Forever" };
const UNITS = { 60: "minutes", 3_600: "hours", 86_400: "days", 604_800: "weeks" };

/** @param {string} name */
export async function askToTimeOut(name) {
  const { field, seconds } = durationField(TIME_OUTS);
  const text = "They can read, but not write, until the time-out is over.";
  return (await ask(`Time out ${name}?`, text, "Time out", field)) && `/to ${quote(name)} ${seconds()}`;
}

/** @param {string} name */
export async function askToKick(name) {
  const reason = element("input", { maxlength: MAX_REASON_LENGTH });
  const text = "They're removed from the room, but they can come back.";
  const isSure = await ask(`Kick ${name}?`, text, "Kick", label("Reason (optional)", reason));
  return isSure && `/kick ${quote(name)} ${reason.value}`;
}

/** @param {string} name @param {boolean} isPresent */
export async function askToBan(name, isPresent) {
  const { field, seconds } = durationField(BANS);
  const title = "The reason for a ban without a duration can't begin with a digit.";
  const reason = element("input", { maxlength: MAX_REASON_LENGTH, title });
  // The server would take the digit for the start of a duration.
  field.addEventListener("change", () => (reason.pattern = seconds() ? ".*" : "\\s*[^\\s\\d].*"));
  const text = isPresent
    ? "They're removed from the room. Their name and their address are banned."
    : "They aren't in the room, so only their name is banned.";
  const isSure = await ask(`Ban ${name}?`, text, "Ban", field, label("Reason (optional)", reason));
  return isSure && `/ban ${quote(name)} ${seconds() && `${seconds()}s `}${reason.value}`;
}

/** @param {number} id @param {string} text */
export async function askToDelete(id, text) {
  const quoted = element("blockquote", { dir: "auto" }, text);
  const warning = "It's deleted for everyone. You can't undo this.";
  return (await ask("Delete this message?", warning, "Delete", quoted)) && `/delete ${id}`;
}

// The name as a command takes it, which then is for exactly this one.
/** @param {string} name */
export const quote = (name) => `"${name.replaceAll('"', '""')}"`;

/** @param {string} title @param {string} text @param {string} action @param {...Node} fields */
async function ask(title, text, action, ...fields) {
  const actions = [{ label: "Cancel", value: "" }, { label: action, value: "yes", isDanger: true }];
  return (await confirmDialog({ title, text, fields, actions })) ?? "";
}

// With "Custom…" there are fields for a number and a unit.
/** @param {Record<string, string>} durations */
function durationField(durations) {
  const choice = select({ ...durations, custom: "Custom…" });
  const attributes = { type: "number", min: "1", max: "999", value: "30", required: "", "aria-label": "Number" };
  const number = element("input", attributes);
  const unit = select(UNITS);
  unit.ariaLabel = "Unit";
  const custom = element("div", { class: "input-row" }, number, unit);
  const field = element("div", {}, label("Duration", choice), custom);
  const update = () => (custom.hidden = number.disabled = choice.value !== "custom");
  field.addEventListener("change", update);
  update();
  return { field, seconds: () => (custom.hidden ? choice.value : String(+number.value * +unit.value)) };
}

/** @param {string} text @param {Node} control */
const label = (text, control) => element("label", {}, text, control);

/** @param {Record<string, string>} options */
function select(options) {
  return element("select", {}, ...Object.entries(options).map(([value, text]) => element("option", { value }, text)));
}
