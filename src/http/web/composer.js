// The message input, and the completion of commands and names in a listbox above it.

import { $, element } from "./dom.js";
import { load, save } from "./storage.js";

const MAX_NAMES = 8; // in the listbox
const COMMAND = /^\s*\/(?!whisper\s)/; // a whisper is a message

// What can be completed: `commands` maps "/name" to { usage }, and `present` has all names, the user's own included.
export const completions = { commands: {}, names: [], present: [] };

const input = $("message-input");
const listbox = $("suggestions");
let selected = -1; // index in the listbox, or -1

export function setDraft(text) {
  input.value = text;
  input.setSelectionRange(text.length, text.length);
  onInput();
}

export function isLogin(text) {
  return /^\s*\/login\s/.test(text);
}

function closeSuggestions() {
  showSuggestions([]);
}

input.addEventListener("input", onInput);
input.addEventListener("focus", suggest);
input.addEventListener("blur", closeSuggestions);
input.addEventListener("keydown", (event) => {
  // While composing, keys belong to the input method.
  if (!event.isComposing && handleKey(event)) event.preventDefault();
});

// Returns whether the key was handled.
function handleKey({ key, shiftKey }) {
  const isOpen = !listbox.hidden;
  if (isOpen && key === "ArrowDown") select(selected + 1);
  else if (isOpen && key === "ArrowUp") select(selected - 1);
  else if (isOpen && key === "Tab" && !shiftKey) accept(listbox.children[Math.max(selected, 0)]);
  else if (isOpen && key === "Enter" && selected >= 0) accept(listbox.children[selected]);
  else if (isOpen && key === "Escape") closeSuggestions();
  else if (key === "Enter" && !shiftKey) submit();
  else return false;
  return true;
}

function submit() {
  closeSuggestions();
  input.form.requestSubmit();
}

function onInput() {
  // Commands may contain passwords.
  save("draft", COMMAND.test(input.value) ? null : input.value || null);
  input.spellcheck = !input.classList.toggle("secret", isLogin(input.value));
  // As high as the text, up to max-height in style.css.
  input.style.height = "auto";
  input.style.height = `${input.scrollHeight + 2}px`;
  suggest();
}

function suggest() {
  const { commands, names } = completions;
  const [command, ...rest] = input.value.split(" ");
  const usage = Object.hasOwn(commands, command) ? commands[command].usage : "";
  const isCommand = command.startsWith("/") && !input.value.includes("\n");
  $("command-usage").textContent = rest.length > 0 ? usage : "";
  if (isCommand && rest.length === 0) {
    const matches = startingWith(command, Object.keys(commands));
    showSuggestions(matches.map((name) => [`${name} `, commands[name].usage]));
    if (matches.includes(command)) select(-1); // Enter sends a complete command.
  } else if (isCommand && usage.split(" ")[1]?.startsWith("[user")) {
    const matches = startingWith(rest.join(" ").replace(/^"/, ""), names).slice(0, MAX_NAMES);
    showSuggestions(matches.map((name) => [`${command} ${quoteName(name)} `, name]));
  } else {
    closeSuggestions();
  }
}

// The name for a command, in quotes if the command could mean another member, now or once this one has left.
export function quoteName(name) {
  const isPrefix = (other) => other.toLowerCase().startsWith(`${name.toLowerCase()} `);
  const needsQuotes = /^"| /.test(name) || completions.present.some(isPrefix);
  return needsQuotes ? `"${name.replaceAll('"', '""')}"` : name;
}

function startingWith(prefix, names) {
  return names.filter((name) => name.toLowerCase().startsWith(prefix.toLowerCase()));
}

// Takes pairs of a draft and its label.
function showSuggestions(pairs) {
  const options = pairs.map(([draft, label], index) =>
    element("li", { role: "option", id: `suggestion-${index}`, "data-draft": draft }, label),
  );
  listbox.replaceChildren(...options);
  listbox.hidden = options.length === 0;
  select(0);
}

// Wraps around at both ends.
function select(index) {
  const options = [...listbox.children];
  selected = index < -1 ? options.length - 1 : index < options.length ? index : 0;
  options.forEach((option, i) => option.setAttribute("aria-selected", i === selected));
  const option = options[selected];
  if (option) input.setAttribute("aria-activedescendant", option.id);
  else input.removeAttribute("aria-activedescendant");
  option?.scrollIntoView({ block: "nearest" });
}

function accept(option) {
  setDraft(option.dataset.draft);
  input.focus();
}

setDraft(load("draft") ?? "");

listbox.addEventListener("mousedown", (event) => {
  event.preventDefault(); // The input keeps the focus.
  const option = event.target.closest("li");
  if (option) accept(option);
});
