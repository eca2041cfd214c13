// Turns the text of a message into nodes:
//
//   ```rust       a block of code, up to a line with ``` only; the language may be left out
//   `x` or ``x``  code
//   **x** or *x*  bold
//   _x_           italic
//   > x           a quote, if the line begins with it
//   - x or 1. x   an item of a list, which stays text and gets a hanging indent
//
// Links, and the user's own name, are marked as well. Except for a block of code, nothing spans lines. An opening * or _
// stands at the start, or after a space or an opening bracket or quotation mark; a closing one stands before a space,
// punctuation or the end. So snake_case, 2*3*4 and *.js stay as they are, as does anything in code or in a URL, and
// whatever has no end. The time is linear in the length of the text.

import { element } from "./dom.js";

const FENCE = /^```[\w+#.-]*[ \t]*$/;
const FENCE_END = /^```[ \t]*$/;
const QUOTE = /^> +\S/;
const QUOTE_GOES_ON = /^>(?: |$)/;
const ITEM = /^[ \t]*(?:[-*+•]|\d{1,9}[.)])[ \t]+\S/;
const URLS = /\bhttps?:\/\/[^\s<>"]+/gi;
const TOKENS = new RegExp(`\`+|${URLS.source}|\\*+|_+`, "gi");
// Languages without spaces between words have letters beside a * or _.
const SPACELESS = "\\p{sc=Han}\\p{sc=Hiragana}\\p{sc=Katakana}\\p{sc=Hangul}";
const BEFORE_OPENING = new RegExp(`^$|[\\s\\p{Ps}\\p{Pi}\\p{Pd}"'*_¿¡${SPACELESS}]`, "u");
const AFTER_OPENING = /[^\s.,;:!?/)\]}]/;
const AFTER_CLOSING = new RegExp(`^$|[\\s\\p{Pe}\\p{Pf}\\p{Pd}"'*_.,;:!?…、。，！？${SPACELESS}]`, "u");
const MAX_LENGTH = 60_000; // UTF-16 code units; a longer text is shown as it is
const COPIED_MS = 2_000; // how long the button says so

/** @typedef {string | Node} Piece */

/** @type {{ name: string | null, pattern: RegExp | null }} */
let mention = { name: null, pattern: null }; // of the last name

/**
 * Marks mentions of `ownName`, if it is not null.
 * @param {string} text
 * @param {string | null} ownName
 * @returns {Piece[]}
 */
export function format(text, ownName = null) {
  if (text.length > MAX_LENGTH) return [text];
  const lines = text.split("\n");
  const lastFence = lines.findLastIndex((line) => FENCE_END.test(line));
  /** @type {Piece[]} */
  const nodes = [];
  let isAfterText = false; // then a line break is needed before more text
  for (let i = 0; i < lines.length; i += 1) {
    let end = i;
    let block = null;
    if (i < lastFence && FENCE.test(lines[i])) {
      do end += 1; while (!FENCE_END.test(lines[end]));
      block = codeBlock(lines.slice(i + 1, end).join("\n"));
    } else if (QUOTE.test(lines[i])) {
      while (QUOTE_GOES_ON.test(lines[end + 1] ?? "")) end += 1;
      const quoted = lines.slice(i, end + 1).map((line) => inline(line.slice(2), ownName));
      block = element("blockquote", {}, ...quoted.flatMap((line, index) => (index > 0 ? ["\n", ...line] : line)));
    } else if (ITEM.test(lines[i])) {
      block = element("div", { class: "item" }, ...inline(lines[i], ownName));
    }
    if (block === null) {
      if (isAfterText) nodes.push("\n");
      nodes.push(...inline(lines[i], ownName));
    } else {
      if (isAfterText && lines[i - 1] === "") nodes.push("\n"); // Else the empty line above would not be visible.
      nodes.push(block);
    }
    isAfterText = block === null;
    i = end;
  }
  return nodes;
}

/**
 * Whether the text contains the name as a word of its own, with or without an @. A name of one character needs the @.
 * @param {string} text
 * @param {string} name
 */
export function mentions(text, name) {
  return text.replace(URLS, " ").search(mentionPattern(name)) >= 0;
}

/**
 * Splits the text into strings and links.
 * @param {string} text
 * @returns {Piece[]}
 */
export function linkify(text) {
  const nodes = [];
  let end = 0;
  for (const { 0: found, index } of text.matchAll(URLS)) {
    const url = trimTrailingPunctuation(found);
    if (!isValid(url)) continue;
    nodes.push(text.slice(end, index), link(url));
    end = index + url.length;
  }
  return [...nodes, text.slice(end)].filter((node) => node !== "");
}

/**
 * Puts the text on the clipboard, and returns whether that worked.
 * @param {string} text
 */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without TLS there is no `navigator.clipboard`.
    document.addEventListener(
      "copy",
      (event) => {
        event.clipboardData?.setData("text/plain", text);
        event.preventDefault();
        event.stopImmediatePropagation();
      },
      { once: true, capture: true },
    );
    return document.execCommand("copy");
  }
}

/**
 * @param {string} line
 * @param {string | null} ownName
 */
function inline(line, ownName) {
  /** @type {Piece[]} */
  const pieces = []; // strings, a possible delimiter being one, and finished nodes
  const closings = new Map(); // from the index of a delimiter in `pieces` to that of its counterpart
  const openings = new Map(); // from a delimiter to the index of the last one without a counterpart yet
  const unclosed = new Set(); // lengths of runs of backticks without a counterpart
  let end = 0;
  TOKENS.lastIndex = 0;
  for (let match = TOKENS.exec(line); match; match = TOKENS.exec(line)) {
    const { 0: token, index } = match;
    const { length } = token;
    /** @type {Piece} */
    let piece = token;
    if (token[0] === "`") {
      const closing = unclosed.has(length) ? -1 : findBackticks(line, index + length, length);
      if (closing < 0) {
        unclosed.add(length);
        continue;
      }
      piece = element("code", {}, line.slice(index + length, closing));
      TOKENS.lastIndex = closing + length;
    } else if (token[0] !== "*" && token[0] !== "_") {
      const url = trimTrailingPunctuation(token);
      if (!isValid(url)) continue;
      piece = link(url);
      TOKENS.lastIndex = index + url.length;
    } else {
      if (length > 2 || token === "__") continue;
      const [before, after] = [line.charAt(index - 1), line.charAt(index + length)];
      const opening = openings.get(token);
      const place = pieces.length + 1; // of the token
      if (opening !== undefined && /\S/.test(before) && AFTER_CLOSING.test(after)) {
        closings.set(opening, place);
        for (const [other, at] of openings) if (at >= opening) openings.delete(other);
      } else if (BEFORE_OPENING.test(before) && AFTER_OPENING.test(after)) {
        openings.set(token, place);
      } else {
        continue;
      }
    }
    pieces.push(line.slice(end, index), piece);
    end = TOKENS.lastIndex;
  }
  pieces.push(line.slice(end));
  return nest(pieces, closings, ownName, 0, pieces.length);
}

/**
 * Puts what is between delimiters into elements.
 * @param {Piece[]} pieces
 * @param {Map<number, number>} closings
 * @param {string | null} ownName
 * @param {number} from
 * @param {number} to
 */
function nest(pieces, closings, ownName, from, to) {
  /** @type {Piece[]} */
  const nodes = [];
  let text = "";
  for (let i = from; i < to; i += 1) {
    const piece = pieces[i];
    const closing = closings.get(i);
    if (typeof piece === "string" && closing === undefined) {
      text += piece;
      continue;
    }
    nodes.push(...markMentions(text, ownName));
    text = "";
    if (closing === undefined) {
      nodes.push(piece);
    } else {
      nodes.push(element(piece === "_" ? "em" : "strong", {}, ...nest(pieces, closings, ownName, i + 1, closing)));
      i = closing;
    }
  }
  return [...nodes, ...markMentions(text, ownName)];
}

/**
 * @param {string} text
 * @param {string | null} ownName
 */
function markMentions(text, ownName) {
  if (ownName === null) return text === "" ? [] : [text];
  /** @type {Piece[]} */
  const nodes = [];
  let end = 0;
  for (const { 0: name, index } of text.matchAll(mentionPattern(ownName))) {
    nodes.push(text.slice(end, index), element("mark", {}, name));
    end = index + name.length;
  }
  return [...nodes, text.slice(end)].filter((node) => node !== "");
}

/** @param {string} name */
function mentionPattern(name) {
  if (mention.name === name && mention.pattern) return mention.pattern;
  const forms = ["NFC", "NFD"].map((form) => name.normalize(form).replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&"));
  const at = [...name].length === 1 ? "@" : "@?";
  const pattern = new RegExp(`(?<![\\p{L}\\p{M}\\p{N}_@])${at}(?:${forms.join("|")})(?![\\p{L}\\p{M}\\p{N}_@])`, "giu");
  mention = { name, pattern };
  return pattern;
}

/**
 * Where a run of exactly this many backticks begins, or -1.
 * @param {string} line
 * @param {number} from
 * @param {number} length
 */
function findBackticks(line, from, length) {
  const run = "`".repeat(length);
  let at = line.indexOf(run, from);
  while (at >= 0 && line[at + length] === "`") {
    let end = at + length;
    while (line[end] === "`") end += 1;
    at = line.indexOf(run, end);
  }
  return at;
}

/** @param {string} code */
function codeBlock(code) {
  // The style sheet shows the label, so that it isn't part of the text when the message is copied.
  const button = element("button", { type: "button", class: "secondary", "aria-label": "Copy" });
  button.addEventListener("click", async () => {
    button.ariaLabel = (await copyText(code)) ? "Copied" : "Couldn't copy";
    setTimeout(() => (button.ariaLabel = "Copy"), COPIED_MS);
  });
  return element("div", { class: "code" }, element("pre", { dir: "ltr" }, element("code", {}, code)), button);
}

/** @param {string} url */
function link(url) {
  return element("a", { href: url, target: "_blank", rel: "noopener noreferrer nofollow" }, url);
}

/**
 * Trailing punctuation belongs to the sentence, and so does a ")" without its "(" in the URL.
 * @param {string} url
 */
function trimTrailingPunctuation(url) {
  let unmatched = url.split(")").length - url.split("(").length;
  let end = url.length;
  while (url[end - 1] === ")" ? unmatched-- > 0 : ".,;:!?'*_`".includes(url[end - 1])) end -= 1;
  return url.slice(0, end);
}

/** @param {string} url */
function isValid(url) {
  try {
    return Boolean(new URL(url));
  } catch {
    return false;
  }
}
