// The rows of the log, and the formatting of their text and times. In a text, these are formatted:
//
//   ```rust       a block of code, up to a line with ``` only; the language may be left out
//   `x` or ``x``  code
//   **x** or *x*  bold
//   _x_           italic
//   > x           a quote
//   - x or 1. x   an item of a list: stays as it is, with a hanging indent
//
// Links and the user's own name are marked as well. Except for a block of code, nothing spans lines. An opening * or _
// follows a space, an opening bracket or a quotation mark; a closing one precedes a space or punctuation. So snake_case,
// 2*3*4 and *.js stay as they are, as does all that has no end or is in code or a URL. The time is linear, as what is
// between two marks has a limited length.

import { avatar, button, element, setHue } from "./dom.js";
import { onSettings, settings } from "./settings.js";

const FENCE = /^```[\w+#.-]*[ \t]*$/;
const FENCE_END = /^```[ \t]*$/;
const QUOTE = /^> +\S/;
const ITEM = /^[ \t]*(?:[-*+•]|\d{1,9}[.)])[ \t]+\S/;
const URLS = /(?<url>\bhttps?:\/\/[^\s<>"]+)/giu;
// Letters of other scripts (\p{Lo}), as some languages have no spaces between words.
const OPENING = "(?<=^|[\\s\\p{Lo}\\p{Ps}\\p{Pi}\\p{Pd}\"'¿¡])MARK(?=[^\\s.,;:!?/)\\]}])";
const CLOSING = "(?<=\\S)\\k<mark>(?=$|[\\s\\p{Lo}\\p{P}])";
const TOKENS = new RegExp(
  [
    "(?<!`)(?<ticks>`{1,3})(?!`)(?<code>.{1,1000}?)(?<!`)\\k<ticks>(?!`)",
    URLS.source,
    OPENING.replace("MARK", "(?<mark>\\*\\*?(?!\\*)|_(?!_))") +
      `(?<content>(?:(?!${OPENING.replace("MARK", "\\k<mark>")})(?:\`+[^\`]+\`+|[^\`])){1,500}?)${CLOSING}`,
  ].join("|"),
  "giu",
);
const WORD = "\\p{L}\\p{M}\\p{N}_@";
const MARKS = "[\\uFE0F\\p{EMod}\\u{E0020}-\\u{E007F}]";
const PICTURE = `(?:\\p{EPres}|\\p{ExtPict}(?=${MARKS}))${MARKS}*`;
// A text that is shown larger: up to three emoji. \p{RGI_Emoji} would need browsers of 2023.
const EMOJI = new RegExp(
  `^(?:(?:\\p{RI}{2}|[0-9#*]\\uFE0F?\\u20E3|${PICTURE}(?:\\u200D${PICTURE})*)\\s*){1,3}$`,
  "u",
);
const MAX_ELEMENTS = 500; // in a message; one with more is shown as it was typed, as its layout would block the page
const COPIED_MS = 2_000; // how long the button says "Copied"
const MAX_NAMES = 3; // in a sentence about members that joined or left
// From the first and the last thing that a member did.
const CHANGES = {
  "joined,joined": "joined",
  "joined,left": "joined and left",
  "left,left": "left",
  "left,joined": "left and came back",
};

const DAYS = new Intl.DateTimeFormat("en-GB", { dateStyle: "full" });
const LIST = new Intl.ListFormat("en-GB");
const systemHas12Hours = new Intl.DateTimeFormat(undefined, { hour: "numeric" }).resolvedOptions().hour12;
let [times, moments] = [DAYS, DAYS];
onSettings(() => {
  const hourCycle = (settings.time === "system" ? systemHas12Hours : settings.time === "12-hour") ? "h12" : "h23";
  times = new Intl.DateTimeFormat("en-GB", { timeStyle: "short", hourCycle });
  moments = new Intl.DateTimeFormat("en-GB", { dateStyle: "full", timeStyle: "medium", hourCycle });
});

/** @typedef {(string | Node)[]} Nodes */

/**
 * A message with a recipient is a whisper; "" stands for one that is not known yet.
 * @param {{ sender: string, text: string, isOwn: boolean, isWhisper: boolean, recipient: string | null }} message
 * @param {string | null} ownName
 */
export function messageRow({ sender, text, isOwn, isWhisper, recipient }, ownName) {
  const name = element("bdi", { class: "name", "data-name": sender, title: sender }, sender);
  const header = element("p", { class: "message-header" }, setHue(name, sender), " ");
  if (isWhisper) {
    const to = isOwn && recipient ? [" to ", element("bdi", {}, recipient)] : [];
    header.append(element("span", { class: "whisper-label" }, isOwn ? "whisper" : "whispers to you", ...to), " ");
  }
  header.append(element("time"));
  const body = element("div", { class: "message-text" }, ...format(text, isOwn ? null : ownName));
  const isMention = body.querySelector("mark") !== null;
  if (body.querySelectorAll("*").length > MAX_ELEMENTS) body.replaceChildren(text);
  body.dir = "auto"; // last, as the browser looks for it anew with each child
  const picture = avatar(sender);
  picture.dataset.name = sender; // a click opens a menu
  const row = element("div", { class: "message", role: "article", tabindex: "-1" }, picture, header, body);
  row.classList.toggle("own", isOwn);
  row.classList.toggle("whisper", isWhisper);
  row.classList.toggle("emoji", EMOJI.test(text));
  row.classList.toggle("mentions-me", isMention);
  return row;
}

/** @param {string} kind "system", "error" or "connection"  @param {string} text */
export function noticeRow(kind, text) {
  const body = element("p", {}, kind === "error" ? element("b", {}, "Error: ") : "", ...inline(text, null, URLS));
  return element("div", { class: `notice ${kind}` }, body);
}

/** @param {string} kind "day", "gap" or "unread"  @param {string} text */
export function dividerRow(kind, text) {
  return element("div", { class: `divider ${kind}`, role: "separator", "aria-label": text }, text);
}

/**
 * @param {HTMLElement} row
 * @param {Date} date
 * @param {number} [id] shown with the exact time, as moderators need it for commands
 */
export function setTime(row, date, id) {
  const label = row.querySelector("time");
  (label ?? row).title = moments.format(date).replace(",", "") + (id === undefined ? "" : `, ID ${id}`);
  if (!label) return;
  label.dateTime = date.toISOString();
  label.textContent = formatTime(date);
}

/** @param {Date} date */
export const formatTime = (date) => times.format(date).replace(/^0(?=.*m$)/, "");

/** @param {Date} date */
export function formatDay(date) {
  const yesterday = new Date();
  if (date.toDateString() === yesterday.toDateString()) return "Today";
  yesterday.setDate(yesterday.getDate() - 1);
  // Some browsers put a comma after the weekday.
  return date.toDateString() === yesterday.toDateString() ? "Yesterday" : DAYS.format(date).replace(",", "");
}

// Shows a delivery state below one of the user's own messages, with a button for each action; "" removes it.
/** @param {any} row  @param {string} state  @param {Record<string, (() => void) | false>} actions */
export function setDeliveryState(row, state, actions = {}) {
  const line = element("p", { class: "delivery-state" }, state);
  for (const [label, action] of Object.entries(actions)) {
    if (action) line.append(" ", button(label, action));
  }
  const current = row.querySelector(".delivery-state");
  if (current?.textContent === line.textContent) return; // so that a button keeps the focus
  current?.remove();
  if (state) row.append(line);
}

// Who joined and who left, in sentences. Whoever did both is named once.
/** @param {Map<string, string[]>} changes from a name to the first and the last thing that it did */
export function describePresence(changes) {
  const sentences = Object.entries(CHANGES).map(([change, verb]) => {
    const [first, ...rest] = [...changes.keys()].filter((name) => String(changes.get(name)) === change);
    const names = rest.length < MAX_NAMES ? [first, ...rest] : [first, `${rest.length} others`];
    return first === undefined ? "" : `${LIST.format(names)} ${verb}.`;
  });
  return sentences.filter(Boolean).join(" ");
}

// Marks mentions of `ownName`, if it is not null: the name as a word of its own, with or without an @. A name of one
// character needs the @.
/** @param {string} text  @param {string | null} ownName */
export function format(text, ownName = null) {
  const lines = text.split("\n");
  const lastFence = lines.findLastIndex((line) => FENCE_END.test(line));
  /** @type {Nodes} */
  const nodes = [];
  let isAfterText = false; // then a line break is needed before more text
  for (let i = 0; i < lines.length; i += 1) {
    const start = i;
    let block = null;
    if (i < lastFence && FENCE.test(lines[i])) {
      do i += 1; while (!FENCE_END.test(lines[i]));
      block = codeBlock(lines.slice(start + 1, i).join("\n"));
    } else if (QUOTE.test(lines[i])) {
      while (/^>(?: |$)/.test(lines[i + 1])) i += 1;
      const quoted = lines.slice(start, i + 1).map((line) => ["\n", ...inline(line.slice(2), ownName)]);
      block = element("blockquote", {}, ...quoted.flat().slice(1));
    } else if (ITEM.test(lines[i])) {
      block = element("div", { class: "item" }, ...inline(lines[i], ownName));
    }
    // At the end of a text, an empty line is visible only with a line break of its own.
    if (isAfterText && (!block || lines[start - 1] === "")) nodes.push("\n");
    nodes.push(...(block ? [block] : inline(lines[i], ownName)));
    isAfterText = !block;
  }
  return nodes;
}

/**
 * Returns whether the text is on the clipboard. Without TLS, there is no `navigator.clipboard`.
 * @param {string} text
 */
export function copyText(text) {
  const fill = (/** @type {any} */ event) => {
    event.clipboardData?.setData("text/plain", text);
    event.preventDefault();
    event.stopImmediatePropagation();
  };
  const types = ["beforecopy", "copy"]; // Without a selection, Safari copies only if the first is prevented.
  for (const type of types) addEventListener(type, fill, true);
  const isCopied = document.execCommand("copy");
  for (const type of types) removeEventListener(type, fill, true);
  return isCopied;
}

/** @param {string} line  @param {string | null} ownName  @returns {Nodes} */
function inline(line, ownName, tokens = TOKENS) {
  /** @type {Nodes} */
  const nodes = [];
  let end = 0;
  for (const { 0: token, index, groups = {} } of line.matchAll(tokens)) {
    const { code, mark, content } = groups;
    let { length } = token;
    let node;
    if (code) {
      node = element("code", {}, code);
    } else if (mark) {
      node = element(mark === "_" ? "em" : "strong", {}, ...inline(content, ownName));
    } else {
      const url = trimTrailingPunctuation(token);
      if (!URL.canParse(url)) continue;
      node = element("a", { href: url, target: "_blank", rel: "noopener noreferrer nofollow" }, url);
      ({ length } = url);
    }
    nodes.push(...markMentions(line.slice(end, index), ownName), node);
    end = index + length;
  }
  return [...nodes, ...markMentions(line.slice(end), ownName)];
}

/** @param {string} text  @param {string | null} ownName */
function markMentions(text, ownName) {
  const parts = ownName === null ? [text] : text.split(mentionPattern(ownName));
  return parts.map((part, index) => (index % 2 === 1 ? element("mark", {}, part) : part)).filter(Boolean);
}

/** @param {string} name */
function mentionPattern(name) {
  const forms = ["NFC", "NFD"].map((form) => name.normalize(form).replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"));
  const at = [...name].length === 1 ? "@" : "@?";
  return new RegExp(`(?<![${WORD}])(${at}(?:${forms.join("|")}))(?![${WORD}])`, "giu");
}

/** @param {string} code */
function codeBlock(code) {
  const content = element("pre", { dir: "ltr" }, element("code", {}, code));
  // The style sheet shows the label, so that it is not a part of the text.
  const copy = button("", () => {
    copy.ariaLabel = copyText(code) ? "Copied" : "Couldn't copy";
    setTimeout(() => (copy.ariaLabel = "Copy"), COPIED_MS);
  });
  copy.ariaLabel = "Copy";
  return element("div", { class: "code" }, content, copy);
}

// Trailing punctuation belongs to the sentence, and so does a ")" without its "(" in the URL.
/** @param {string} url */
function trimTrailingPunctuation(url) {
  let unmatched = url.split(")").length - url.split("(").length;
  let end = url.length;
  while (url[end - 1] === ")" ? unmatched-- > 0 : ".,;:!?'*_`".includes(url[end - 1])) end -= 1;
  return url.slice(0, end);
}
