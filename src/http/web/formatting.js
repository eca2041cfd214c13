// Turns the text of a message into nodes:
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
// 2*3*4 and *.js stay as they are, as does all that has no end or is in code or a URL. The time is linear.

import { element } from "./dom.js";

const FENCE = /^```[\w+#.-]*[ \t]*$/;
const FENCE_END = /^```[ \t]*$/;
const QUOTE = /^> +\S/;
const ITEM = /^[ \t]*(?:[-*+•]|\d{1,9}[.)])[ \t]+\S/;
const URLS = /\bhttps?:\/\/[^\s<>"]+/gi;
const TOKENS = new RegExp(`\`+|${URLS.source}|\\*+|_+`, "gi");
const RUNS = ["`", "``", "```"].map((run) => new RegExp(`(?<!\`)${run}(?!\`)`));
// Some languages have no spaces between words.
const SPACELESS = "\\p{sc=Han}\\p{sc=Hiragana}\\p{sc=Katakana}\\p{sc=Hangul}";
const BEFORE_OPENING = new RegExp(`^$|[\\s\\p{Ps}\\p{Pi}\\p{Pd}"'*_¿¡${SPACELESS}]`, "u");
const AFTER_OPENING = /[^\s.,;:!?/)\]}]/;
const AFTER_CLOSING = new RegExp(`^$|[\\s\\p{Pe}\\p{Pf}\\p{Pd}"'*_.,;:!?…、。，！？${SPACELESS}]`, "u");
const WORD = "\\p{L}\\p{M}\\p{N}_@";
const MAX_LENGTH = 60_000; // UTF-16 code units; a longer text is shown as it is
const COPIED_MS = 2_000; // how long the button says so

/** @typedef {(string | Node)[]} Nodes */

/** @type {{ name?: string, pattern: RegExp }} */
let mention = { pattern: /./ }; // for the last name

// Marks mentions of `ownName`, if it is not null.
/** @param {string} text  @param {string | null} ownName */
export function format(text, ownName = null) {
  if (text.length > MAX_LENGTH) return [text];
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

// Whether the text contains the name as a word of its own, with or without an @. A name of one character needs the @.
/** @param {string} text  @param {string} name */
export function mentions(text, name) {
  return text.replace(URLS, " ").search(mentionPattern(name)) >= 0;
}

// Marks links only.
/** @param {string} text */
export function linkify(text) {
  return inline(text, null, URLS);
}

/** @param {string} line  @param {string | null} ownName */
function inline(line, ownName, tokens = TOKENS) {
  /** @type {Nodes} */
  const pieces = []; // strings, a possible delimiter being one, and finished nodes
  const closings = new Map(); // from the index of a delimiter in `pieces` to that of its counterpart
  const openings = new Map(); // from a delimiter to the index of the last one without a counterpart yet
  const unclosed = new Set(); // runs of backticks without a counterpart
  let end = 0;
  tokens.lastIndex = 0;
  for (let match = tokens.exec(line); match; match = tokens.exec(line)) {
    const { 0: token, index } = match;
    let next = index + token.length;
    let piece = null;
    if (token[0] === "`") {
      const run = unclosed.has(token) ? undefined : RUNS[token.length - 1];
      const length = run ? line.slice(next).search(run) : -1;
      if (length < 0) {
        unclosed.add(token);
        continue;
      }
      piece = element("code", {}, line.slice(next, next + length));
      next += length + token.length;
    } else if (token[0] !== "*" && token[0] !== "_") {
      const url = trimTrailingPunctuation(token);
      if (!URL.canParse(url)) continue;
      piece = element("a", { href: url, target: "_blank", rel: "noopener noreferrer nofollow" }, url);
      next = index + url.length;
    } else if (/^(?:\*\*?|_)$/.test(token)) {
      const [before, after] = [line.charAt(index - 1), line.charAt(next)];
      const opening = openings.get(token);
      const place = pieces.length + 1;
      if (opening && /\S/.test(before) && AFTER_CLOSING.test(after)) {
        closings.set(opening, place);
        for (const [other, at] of openings) if (at >= opening) openings.delete(other);
      } else if (BEFORE_OPENING.test(before) && AFTER_OPENING.test(after)) {
        openings.set(token, place);
      } else {
        continue;
      }
    } else {
      continue;
    }
    pieces.push(line.slice(end, index), piece ?? token);
    end = tokens.lastIndex = next;
  }
  pieces.push(line.slice(end));
  return nest(pieces, closings, ownName, 0, pieces.length);
}

/**
 * Puts what is between delimiters into elements.
 * @param {Nodes} pieces
 * @param {Map<number, number>} closings
 * @param {string | null} ownName
 * @param {number} from
 * @param {number} to
 */
function nest(pieces, closings, ownName, from, to) {
  /** @type {Nodes} */
  const nodes = [];
  let text = "";
  for (let i = from; i < to; i += 1) {
    const piece = pieces[i];
    const closing = closings.get(i);
    if (closing) {
      const content = nest(pieces, closings, ownName, i + 1, closing);
      nodes.push(...markMentions(text, ownName), element(piece === "_" ? "em" : "strong", {}, ...content));
      text = "";
      i = closing;
    } else if (typeof piece === "string") {
      text += piece;
    } else {
      nodes.push(...markMentions(text, ownName), piece);
      text = "";
    }
  }
  return [...nodes, ...markMentions(text, ownName)];
}

/** @param {string} text  @param {string | null} ownName */
function markMentions(text, ownName) {
  const parts = ownName === null ? [text] : text.split(mentionPattern(ownName));
  return parts.map((part, index) => (index % 2 === 1 ? element("mark", {}, part) : part)).filter(Boolean);
}

/** @param {string} name */
function mentionPattern(name) {
  if (mention.name !== name) {
    const forms = ["NFC", "NFD"].map((form) => name.normalize(form).replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"));
    const at = [...name].length === 1 ? "@" : "@?";
    mention = { name, pattern: new RegExp(`(?<![${WORD}])(${at}(?:${forms.join("|")}))(?![${WORD}])`, "giu") };
  }
  return mention.pattern;
}

/**
 * Returns whether the text is on the clipboard. Without TLS, there is no `navigator.clipboard`.
 * @param {string} text
 */
export function copyText(text) {
  const fill = (/** @type {ClipboardEvent} */ event) => {
    event.clipboardData?.setData("text/plain", text);
    event.preventDefault();
    event.stopImmediatePropagation();
  };
  addEventListener("copy", fill, { capture: true, once: true });
  return document.execCommand("copy");
}

/** @param {string} code */
function codeBlock(code) {
  const content = element("pre", { dir: "ltr" }, element("code", {}, code));
  // The style sheet shows the label, so that it is not a part of the text.
  const button = element("button", { type: "button", class: "secondary", "aria-label": "Copy" });
  button.addEventListener("click", () => {
    button.ariaLabel = copyText(code) ? "Copied" : "Couldn't copy";
    setTimeout(() => (button.ariaLabel = "Copy"), COPIED_MS);
  });
  return element("div", { class: "code" }, content, button);
}

// Trailing punctuation belongs to the sentence, and so does a ")" without its "(" in the URL.
/** @param {string} url */
function trimTrailingPunctuation(url) {
  let unmatched = url.split(")").length - url.split("(").length;
  let end = url.length;
  while (url[end - 1] === ")" ? unmatched-- > 0 : ".,;:!?'*_`".includes(url[end - 1])) end -= 1;
  return url.slice(0, end);
}
