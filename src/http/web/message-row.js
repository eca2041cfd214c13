// The rows of the message log, as elements.

import { avatar, element, setHue } from "./dom.js";
import { linkify } from "./formatting.js";

const EMOJI_ONLY = /^(?:\p{Extended_Pictographic}|\p{Emoji_Modifier}|\p{Regional_Indicator}|\u200d|\ufe0f|\s){1,12}$/u;

const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });

// A message with a recipient is a whisper; "" stands for one that is not known yet.
export function messageRow({ sender, text, isOwn, recipient }) {
  const isWhisper = recipient !== null;
  const name = element("bdi", { class: "name", "data-name": sender }, isOwn ? "You" : sender);
  const header = element("p", { class: "message-header" }, setHue(name, sender));
  if (isWhisper && !isOwn) header.append(" whispers to you");
  else if (isWhisper) header.append(recipient ? " whisper to " : " whisper", element("bdi", {}, recipient));
  header.append(" ", element("time"));

  const textClass = `message-text${EMOJI_ONLY.test(text) ? " emoji" : ""}`;
  const body = element("div", {}, header, element("p", { class: textClass, dir: "auto" }, ...linkify(text)));
  const classes = ["message", isOwn && "own", isWhisper && "whisper"].filter(Boolean);
  return element("div", { class: classes.join(" ") }, isOwn ? "" : avatar(sender), body);
}

// The day is shown only if it is not today.
export function setTime(row, date) {
  const day = DAY.format(date);
  const time = date.toTimeString().slice(0, 8);
  const isToday = date.toDateString() === new Date().toDateString();
  row.title = `${day}, ${time}`;
  const label = row.querySelector("time");
  label.dateTime = date.toISOString();
  label.textContent = `${isToday ? "" : `${day}, `}${time.slice(0, 5)}`;
}

// Shows a delivery state below one of the user's own messages; "" removes it. With `onRetry`, it has a button.
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
  row.lastChild.append(line);
}

export function setDeleted(row) {
  row.classList.add("deleted");
  const text = row.querySelector(".message-text") ?? row.firstChild;
  text.classList.remove("emoji");
  text.textContent = "Message deleted";
}

// `kind` is "system", "error" or "connection".
export function noticeRow(kind, text) {
  const body = element("p", {}, kind === "error" ? element("b", {}, "Error: ") : "", ...linkify(text));
  return element("div", { class: `notice ${kind}` }, body);
}

export function dividerRow(kind, text) {
  return element("div", { class: `divider ${kind}`, role: "separator", "aria-label": text }, text);
}
