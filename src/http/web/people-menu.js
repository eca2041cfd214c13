// The menus of people and of messages, and their dialogs. What the server would refuse is left out.

import { confirmDialog } from "./dialog.js";
import { $, element } from "./dom.js";
import { copyText } from "./formatting.js";
import { openMenu } from "./menu.js";
import { amModerator, findPerson, isMe } from "./people.js";

const MAX_REASON_LENGTH = "500"; // characters; the server allows as many bytes
// Durations by their seconds.
const TIME_OUTS = { 60: "1 minute", 300: "5 minutes", 600: "10 minutes", 3_600: "1 hour" };
const BANS = { 3_600: "1 hour", 86_400: "1 day", 604_800: "1 week", "": "Forever" };
const UNITS = { 60: "minutes", 3_600: "hours", 86_400: "days", 604_800: "weeks" };

/** @type {Record<"run" | "whisper" | "mention" | "showWhispers", (commandOrName: string) => void>} */
let room;

/** @param {typeof room} newRoom */
export function connectMenus(newRoom) {
  room = newRoom;
}

/** @param {string} name @param {HTMLElement} anchor */
export function openPersonMenu(name, anchor) {
  const own = [{ label: "Settings", action: () => $("settings-panel").showPopover() }];
  openMenu(anchor, name, [isMe(name) ? own : contactItems(name), ...moderationItems(name)]);
}

/**
 * @param {{ id?: number, sender: string, text: string, isOwn: boolean, isWhisper: boolean, recipient: string | null,
 *   anchor: HTMLElement }} message its text is "" if it is deleted
 */
export function openMessageMenu({ id, sender, text, isOwn, isWhisper, recipient, anchor }) {
  const [whisper, mention, showWhispers] = contactItems((isOwn ? recipient : sender) ?? "");
  const canDelete = text !== "" && id !== undefined && (isOwn || (amModerator() && !isWhisper));
  openMenu(anchor, isOwn ? "Your message" : sender, [
    [!isOwn && mention && { ...mention, label: "Reply" }, whisper, isWhisper && showWhispers],
    [
      text !== "" && { label: "Copy text", action: () => copyText(text) },
      canDelete && { label: "Delete…", action: () => deleteMessage(id, text), isDanger: true },
    ],
    ...(isOwn ? [] : moderationItems(sender)),
  ]);
}

/** @param {string} name */
function contactItems(name) {
  if (isMe(name) || !findPerson(name)) return [];
  return [
    { label: "Whisper", action: () => room.whisper(name) },
    { label: "Mention", action: () => room.mention(name) },
    { label: "Show whispers", action: () => room.showWhispers(name) },
  ];
}

/** @param {string} name */
function moderationItems(name) {
  if (!amModerator()) return [];
  const person = findPerson(name);
  const other = !isMe(name) && person;
  return [
    [
      other && { label: "Time out…", action: () => timeOut(name) },
      person?.is_timed_out && { label: "End time-out", action: () => room.run(`/unto ${quote(name)}`) },
      person && { label: "Info", action: () => room.run(`/info ${quote(name)}`) },
    ],
    // Someone who has left can only be banned.
    [
      other && { label: "Kick…", action: () => kick(name), isDanger: true },
      !isMe(name) && { label: "Ban…", action: () => ban(name, person !== undefined), isDanger: true },
    ],
  ];
}

/** @param {string} name */
async function timeOut(name) {
  const { field, seconds } = durationField(TIME_OUTS);
  const text = "They can read, but not write, until the time-out is over.";
  if (await ask(`Time out ${name}?`, text, "Time out", field)) room.run(`/to ${quote(name)} ${seconds()}`);
}

/** @param {string} name */
async function kick(name) {
  const reason = element("input", { maxlength: MAX_REASON_LENGTH });
  const text = "They're removed from the room, but they can come back.";
  const isSure = await ask(`Kick ${name}?`, text, "Kick", element("label", {}, "Reason (optional)", reason));
  if (isSure) room.run(`/kick ${quote(name)} ${reason.value}`);
}

/** @param {string} name @param {boolean} isPresent */
async function ban(name, isPresent) {
  const { field, seconds } = durationField(BANS);
  const title = "The reason for a ban without a duration can't begin with a digit.";
  const reason = element("input", { maxlength: MAX_REASON_LENGTH, title });
  // The server would take the digit for the start of a duration.
  field.addEventListener("change", () => (reason.pattern = seconds() ? ".*" : "\\s*[^\\s\\d].*"));
  const text = isPresent
    ? "They're removed from the room. Their name and their address are banned."
    : "They aren't in the room, so only their name is banned.";
  const isSure = await ask(`Ban ${name}?`, text, "Ban", field, element("label", {}, "Reason (optional)", reason));
  if (isSure) room.run(`/ban ${quote(name)} ${seconds() && `${seconds()}s `}${reason.value}`);
}

/** @param {number} id @param {string} text */
async function deleteMessage(id, text) {
  const quoted = element("blockquote", { dir: "auto" }, text);
  const warning = "It's deleted for everyone. You can't undo this.";
  if (await ask("Delete this message?", warning, "Delete", quoted)) room.run(`/delete ${id}`);
}

// A name in quotes is exactly that name, whoever else is in the room.
/** @param {string} name */
const quote = (name) => `"${name.replaceAll('"', '""')}"`;

/** @param {string} title @param {string} text @param {string} action @param {...Node} fields */
function ask(title, text, action, ...fields) {
  const actions = [{ label: "Cancel", value: "" }, { label: action, value: "yes", isDanger: true }];
  return confirmDialog({ title, text, fields, actions });
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
  const field = element("div", {}, element("label", {}, "Duration", choice), custom);
  const update = () => (custom.hidden = number.disabled = choice.value !== "custom");
  field.addEventListener("change", update);
  update();
  return { field, seconds: () => (custom.hidden ? choice.value : String(+number.value * +unit.value)) };
}

/** @param {Record<string, string>} options */
function select(options) {
  return element("select", {}, ...Object.entries(options).map(([value, text]) => element("option", { value }, text)));
}
