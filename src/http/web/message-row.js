// The rows of the message log, as elements.

import { avatar, element, setHue } from "./dom.js";
import { format, linkify } from "./formatting.js";
import { settings } from "./settings.js";

const EMOJI_ONLY = /^(?:\p{Extended_Pictographic}|\p{Emoji_Modifier}|\p{Regional_Indicator}|\u200d|\ufe0f|\s){1,12}$/u;
const MAX_NAMES = 3; // in a sentence about members that joined or left

const DAY = new Intl.DateTimeFormat("en-GB", { dateStyle: "full" });
const LIST = new Intl.ListFormat("en-GB");
/** @type {any[]} */
const CYCLES = ["h23", "h12"];
/** @type {any[]} */
const STYLES = [{ timeStyle: "short" }, { dateStyle: "full", timeStyle: "medium" }];
const [TIMES, MOMENTS] = STYLES.map((style) =>
  CYCLES.map((hourCycle) => new Intl.DateTimeFormat("en-GB", { ...style, hourCycle })),
);
const systemHas12Hours = new Intl.DateTimeFormat(undefined, { hour: "numeric" }).resolvedOptions().hour12;

/**
 * A message with a recipient is a whisper; "" stands for one that is not known yet.
 * @param {{ sender: string, text: string, isOwn: boolean, recipient: string | null, ownName: string | null }} message
 */
export function messageRow({ sender, text, isOwn, recipient, ownName }) {
  const isWhisper = recipient !== null;
  const name = element("bdi", { class: "name", "data-name": sender, title: sender }, isOwn ? "You" : sender);
  const header = element("p", { class: "message-header" }, setHue(name, sender), " ");
  if (isWhisper) {
    const to = isOwn && recipient ? [" to ", element("bdi", {}, recipient)] : [];
    header.append(element("span", { class: "whisper-label" }, isOwn ? "whisper" : "whispers to you", ...to), " ");
  }
  header.append(element("time"));
  const textClass = `message-text${EMOJI_ONLY.test(text) ? " emoji" : ""}`;
  const body = element("div", { class: textClass, dir: "auto" }, ...format(text, ownName));
  const classes = ["message", isOwn && "own", isWhisper && "whisper"].filter(Boolean);
  return element("div", { class: classes.join(" "), role: "article", tabindex: "-1" }, avatar(sender), header, body);
}

/**
 * @param {HTMLElement} row
 * @param {Date} date
 * @param {number} [id] shown with the exact time, as moderators need it for commands
 */
export function setTime(row, date, id) {
  const label = row.querySelector("time");
  (label ?? row).title = MOMENTS[cycle()].format(date).replace(",", "") + (id === undefined ? "" : `, ID ${id}`);
  if (!label) return;
  label.dateTime = date.toISOString();
  label.textContent = formatTime(date);
}

/** @param {Date} date */
export function formatTime(date) {
  return TIMES[cycle()].format(date).replace(/^0(?=.*m$)/, "");
}

const cycle = () => Number(settings.time === "system" ? systemHas12Hours : settings.time === "12-hour");

/** @param {Date} date */
export function formatDay(date) {
  const today = new Date();
  const yesterday = new Date(today.getFullYear(), today.getMonth(), today.getDate() - 1);
  if (date.toDateString() === today.toDateString()) return "Today";
  // Some browsers put a comma after the weekday.
  return date.toDateString() === yesterday.toDateString() ? "Yesterday" : DAY.format(date).replace(",", "");
}

// Shows a delivery state below one of the user's own messages; "" removes it. With `onRetry`, it has a button.
/** @param {any} row  @param {string} state  @param {(() => void) | null} onRetry */
export function setDeliveryState(row, state, onRetry = null) {
  const current = row.querySelector(".delivery-state");
  if ((current?.dataset.state ?? "") === state) return;
  current?.remove();
  if (state === "") return;
  const line = element("p", { class: "delivery-state", "data-state": state }, state);
  if (onRetry) {
    const button = element("button", { class: "secondary" }, "Send again");
    button.addEventListener("click", onRetry);
    line.append(" ", button);
  }
  row.append(line);
}

/** @param {Element} row */
export function setDeleted(row) {
  row.classList.remove("mentions-me");
  row.classList.add("deleted");
  const text = row.querySelector(".message-text") ?? row.firstElementChild;
  text?.classList.remove("emoji");
  text?.replaceChildren("Message deleted");
}

/** @param {string} kind "system", "error" or "connection"  @param {string} text */
export function noticeRow(kind, text) {
  const body = element("p", {}, kind === "error" ? element("b", {}, "Error: ") : "", ...linkify(text));
  return element("div", { class: `notice ${kind}` }, body);
}

/** @param {string} kind "day", "gap" or "unread"  @param {string} text */
export function dividerRow(kind, text) {
  return element("div", { class: `divider ${kind}`, role: "separator", "aria-label": text }, text);
}

// Who joined and who left, in sentences. Whoever did both is named once.
/** @param {{ name: string, hasJoined: boolean }[]} events in their order */
export function describePresence(events) {
  /** @type {Map<string, string>} */
  const changes = new Map(); // from name to what it did
  for (const { name, hasJoined } of events) {
    const isNew = changes.get(name)?.startsWith("joined") ?? hasJoined;
    const [joined, left] = isNew ? ["joined", "joined and left"] : ["left and came back", "left"];
    changes.set(name, hasJoined ? joined : left);
  }
  const sentences = ["joined", "joined and left", "left", "left and came back"].map((change) => {
    const [first, ...rest] = [...changes.keys()].filter((name) => changes.get(name) === change);
    const names = rest.length < MAX_NAMES ? [first, ...rest] : [first, `${rest.length} others`];
    return first === undefined ? "" : `${LIST.format(names)} ${change}.`;
  });
  return sentences.filter(Boolean).join(" ");
}
