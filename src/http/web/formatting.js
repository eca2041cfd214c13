// Turns URLs in messages into links.

import { element } from "./dom.js";

// Splits the text into strings and links.
export function linkify(text) {
  const nodes = [];
  let end = 0;
  for (const match of text.matchAll(/\bhttps?:\/\/[^\s<>"]+/gi)) {
    const url = trimTrailingPunctuation(match[0]);
    if (!isValid(url)) continue;
    nodes.push(text.slice(end, match.index));
    nodes.push(element("a", { href: url, target: "_blank", rel: "noopener noreferrer nofollow" }, url));
    end = match.index + url.length;
  }
  nodes.push(text.slice(end));
  return nodes.filter((node) => node !== "");
}

export function mentions(text, name) {
  const words = (string) => ` ${string.normalize("NFC").toLowerCase().replace(/[^\p{L}\p{N}]+/gu, " ")} `;
  return words(text).includes(words(name));
}

// Trailing punctuation belongs to the sentence, and so does a ")" without its "(" in the URL.
function trimTrailingPunctuation(url) {
  let unmatched = url.split(")").length - url.split("(").length;
  let end = url.length;
  while (url[end - 1] === ")" ? unmatched-- > 0 : ".,;:!?'*_".includes(url[end - 1])) end -= 1;
  return url.slice(0, end);
}

function isValid(url) {
  try {
    return Boolean(new URL(url));
  } catch {
    return false;
  }
}
