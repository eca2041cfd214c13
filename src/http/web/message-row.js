// The rows of the message log, as elements.

import { avatar, element, setHue } from "./dom.js";
import { format, linkify } from "./formatting.js";
import { settings } from "./settings.js";

const EMOJI_ONLY = /^(?:\p{Extended_Pictographic}|\p{Emoji_Modifier}|\p{Regional_Indicator}|[\u200d\ufe0f\s]){1,12}$/u;
const MAX_NAMES = 3; // in a line about members that joined; more are shown as a number

const DAY = new Intl.DateTimeFormat("en-GB", { weekday: "long", day: "numeric", month: "long", year: "numeric" });
/** @type {("h23" | "h12")[]} */
const CYCLES = ["h23", "h12"];
const TIMES = CYCLES.map((hourCycle) =>
  [undefined, /** @type {"2-digit"} */ ("2-digit")].map(
    (second) => new Intl.DateTimeFormat("en-GB", { hour: "numeric", minute: "2-digit", second, hourCycle }),
  ),
);
const systemHasAmPm = new Intl.DateTimeFormat(undefined, { hour: "numeric" }).resolvedOptions().hour12 ?? false;

/**
 * A message with a recipient is a whisper; "" stands for one that is not known yet.
 * @param {{ sender: string, text: string, isOwn: boolean, recipient: string | null, ownName: string | null }} message
 */
export function messageRow({ sender, text, isOwn, recipient, ownName }) {
  const isWhisper = recipient !== null;
  const name = element("bdi", { class: "name", "data-name": sender, title: sender }, isOwn ? "You" : sender);
  const header = element("p", { class: "message-header" }, setHue(name, sender));
  if (isWhisper) {
    const label = element("span", { class: "whisper-label" }, isOwn ? "whisper" : "whispers to you");
    if (isOwn && recipient) label.append(" to ", element("bdi", {}, recipient));
    header.append(" ", label);
  }
  header.append(" ", element("time"));
  const textClass = `message-text${EMOJI_ONLY.test(text) ? " emoji" : ""}`;
  const classes = ["message", isOwn && "own", isWhisper && "whisper"].filter(Boolean);
  const body = element("div", { class: textClass, dir: "auto" }, ...format(text, ownName));
  return element("div", { class: classes.join(" "), role: "article", tabindex: "-1" }, avatar(sender), header, body);
}

/**
 * @param {HTMLElement} row
 * @param {Date} date
 * @param {number | undefined} id shown with the exact time, as commands of moderators need it
 */
export function setTime(row, date, id) {
  const label = row.querySelector("time");
  const exact = `${DAY.format(date)}, ${formatTime(date, true)}${id === undefined ? "" : `, ID ${id}`}`;
  if (!label) {
    row.title = exact;
    return;
  }
  label.dateTime = date.toISOString();
  label.title = exact;
  label.textContent = formatTime(date);
}

/** @param {Date} date */
export function formatTime(date, hasSeconds = false) {
  const is12Hour = settings.time === "system" ? systemHasAmPm : settings.time === "12-hour";
  return TIMES[Number(is12Hour)][Number(hasSeconds)].format(date);
}

/** @param {Date} date */
export function formatDay(date) {
  const today = new Date();
  const yesterday = new Date(today.getFullYear(), today.getMonth(), today.getDate() - 1);
  if (date.toDateString() === today.toDateString()) return "Today";
  return date.toDateString() === yesterday.toDateString() ? "Yesterday" : DAY.format(date);
}

/**
 * Shows a delivery state below one of the user's own messages; "" removes it. With `onRetry`, it has a button.
 * @param {HTMLElement} row
 * @param {string} state
 * @param {(() => void) | null} onRetry
 */
export function setDeliveryState(row, state, onRetry = null) {
  const current = /** @type {HTMLElement | null} */ (row.querySelector(".delivery-state"));
  if ((current?.dataset.state ?? "") === state) return;
  current?.remove();
  row.classList.toggle("undelivered", state !== "");
  if (state === "") return;
  const line = element("p", { class: "delivery-state", "data-state": state }, state);
  if (onRetry) {
    const button = element("button", { class: "secondary" }, "Send again");
    button.addEventListener("click", onRetry);
    line.append(" ", button);
  }
  row.append(line);
}

/** @param {HTMLElement} row */
export function setDeleted(row) {
  row.classList.add("deleted");
  row.classList.remove("mentions-me");
  const text = row.querySelector(".message-text") ?? row.firstElementChild;
  text?.classList.remove("emoji");
  text?.replaceChildren("Message deleted");
}

/**
 * @param {"system" | "error" | "connection"} kind
 * @param {string} text
 */
export function noticeRow(kind, text) {
  const body = element("p", {}, kind === "error" ? element("b", {}, "Error: ") : "", ...linkify(text));
  return element("div", { class: `notice ${kind}` }, body);
}

/**
 * @param {"day" | "gap" | "unread"} kind
 * @param {string} text
 */
export function dividerRow(kind, text) {
  return element("div", { class: `divider ${kind}`, role: "separator", "aria-label": text }, text);
}

/**
 * Who joined and who left, in a few sentences. Whoever did both is named once.
 * @param {{ name: string, hasJoined: boolean }[]} events in their order
 */
export function describePresence(events) {
  /** @type {Map<string, string>} */
  const changes = new Map(); // from name to what it did
  for (const { name, hasJoined } of events) {
    const first = changes.get(name);
    const wasHere = first === undefined ? !hasJoined : !first.startsWith("joined");
    const change = wasHere ? ["left", "left and came back"] : ["joined and left", "joined"];
    changes.set(name, change[Number(hasJoined)]);
  }
  return ["joined", "joined and left", "left", "left and came back"]
    .map((change) => [[...changes.keys()].filter((name) => changes.get(name) === change), change])
    .filter(([names]) => names.length > 0)
    .map(([names, change]) => `${listNames(/** @type {string[]} */ (names))} ${change}.`)
    .join(" ");
}

/** @param {string[]} names */
function listNames(names) {
  if (names.length > MAX_NAMES) return `${names[0]} and ${names.length - 1} others`;
  return names.length === 1 ? names[0] : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}
