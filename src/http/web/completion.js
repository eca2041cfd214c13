// The completion of commands and names, in a listbox above the message box.

import { $, closest, element } from "./dom.js";

const MAX_NAMES = 8; // in the listbox
const MENTION = /(?:^|[\s("'])@([^\s@][^\n@]*)?$/; // names may contain spaces
const SLASH_HINT = "Unknown command. To send a line that begins with /, type //.";

/**
 * What can be completed. `present` has all names, the user's own included.
 * @type {{ commands: Record<string, { usage: string }>, names: string[], present: string[] }}
 */
export const completions = { commands: {}, names: [], present: [] };

const input = $("message-input");
const listbox = $("suggestions");
let selected = -1; // index in the listbox, or -1
let range = [0, 0]; // what a suggestion replaces
let suggestedAt = 0; // where the caret was then

/** @param {string} text */
export const isLogin = (text) => /^\s*\/login\s/.test(text);

export function suggest() {
  const { value, selectionStart: caret } = input;
  const { commands } = completions;
  const [command, ...rest] = value.split(" ");
  const usage = Object.hasOwn(commands, command) ? commands[command].usage : "";
  const isCommand = command.startsWith("/") && !command.startsWith("//") && !value.includes("\n");
  $("command-usage").textContent = isCommand && rest.length > 0 ? usage || SLASH_HINT : "";
  showSuggestions([]);
  if (document.activeElement !== input) return;
  if (isCommand && rest.length === 0) {
    const matches = startingWith(command, Object.keys(commands));
    range = [0, value.length];
    showSuggestions(matches.map((name) => [`${name} `, commands[name].usage]));
    if (matches.includes(command)) select(-1); // Enter sends a complete command.
    return;
  }
  if (isCommand && usage.split(" ")[1]?.startsWith("[user")) {
    range = [0, value.length];
    suggestNames(rest.join(" ").replace(/^["@]/, ""), (name) => `${command} ${quoteName(name)} `);
  }
  const mention = MENTION.exec(value.slice(0, caret));
  if (listbox.hidden && mention && caret === input.selectionEnd && !isLogin(value)) {
    const prefix = mention[1] ?? "";
    range = [caret - prefix.length - 1, value[caret] === " " ? caret + 1 : caret];
    suggestNames(prefix, (name) => `@${name} `);
    if (completions.present.some((name) => name.toLowerCase() === prefix.trimEnd().toLowerCase())) select(-1);
  }
}

/** Returns whether the key was for the listbox. @param {KeyboardEvent} event */
export function handleSuggestionKey({ key, shiftKey }) {
  if (listbox.hidden) return false;
  if (key === "ArrowDown") select(selected + 1);
  else if (key === "ArrowUp") select(selected - 1);
  else if (key === "Tab" && !shiftKey) accept(listbox.children[Math.max(selected, 0)]);
  else if (key === "Enter" && selected >= 0) accept(listbox.children[selected]);
  else if (key === "Escape") showSuggestions([]);
  else return false;
  return true;
}

/**
 * The name for a command, in quotes if the command could mean another member, now or once this one has left.
 * @param {string} name
 */
export function quoteName(name) {
  const isPrefix = (/** @type {string} */ other) => other.toLowerCase().startsWith(`${name.toLowerCase()} `);
  const needsQuotes = /^"| /.test(name) || completions.present.some(isPrefix);
  return needsQuotes ? `"${name.replaceAll('"', '""')}"` : name;
}

input.addEventListener("focus", suggest);
input.addEventListener("blur", () => showSuggestions([]));
// What a suggestion replaces is at the caret.
for (const type of ["keyup", "click"]) {
  input.addEventListener(type, () => listbox.hidden || input.selectionStart === suggestedAt || suggest());
}
listbox.addEventListener("mousedown", (event) => {
  event.preventDefault(); // The input keeps the focus.
  const option = closest(event, "li");
  if (option) accept(option);
});

/** @param {string} prefix @param {string[]} texts */
function startingWith(prefix, texts) {
  return texts.filter((text) => text.toLowerCase().startsWith(prefix.toLowerCase()));
}

/** @param {string} prefix @param {(name: string) => string} insertion */
function suggestNames(prefix, insertion) {
  const matches = startingWith(prefix, completions.names).slice(0, MAX_NAMES);
  showSuggestions(matches.map((name) => [insertion(name), name]));
}

/** @param {string[][]} pairs  each of what is inserted, and of its label */
function showSuggestions(pairs) {
  suggestedAt = input.selectionStart;
  const options = pairs.map(([insertion, label], index) =>
    element("li", { role: "option", id: `suggestion-${index}`, "data-insertion": insertion }, label),
  );
  listbox.replaceChildren(...options);
  listbox.hidden = options.length === 0;
  select(0);
}

/** Wraps around at both ends. @param {number} index */
function select(index) {
  const options = [...listbox.children];
  selected = index < -1 ? options.length - 1 : index < options.length ? index : 0;
  options.forEach((option, i) => option.setAttribute("aria-selected", String(i === selected)));
  const option = options[selected];
  if (option) input.setAttribute("aria-activedescendant", option.id);
  else input.removeAttribute("aria-activedescendant");
  option?.scrollIntoView({ block: "nearest" });
}

/** @param {Element} option */
function accept(option) {
  const insertion = /** @type {HTMLElement} */ (option).dataset.insertion ?? "";
  input.focus();
  input.setRangeText(insertion, range[0], range[1], "end");
  input.dispatchEvent(new Event("input"));
  if (insertion.startsWith("@")) showSuggestions([]);
}
