// The entry point. The join form needs few files, so that it can be used early on a slow connection; the room, with
// everything else, is loaded after it.

import { $ } from "./dom.js";
import { load, loadLasting } from "./storage.js";
import "./settings.js";

const NOT_LOADED = { reason: "Couldn't load the chat. Reload the page to try again." };
const nameInput = $("name");
const passwordInput = $("password");

nameInput.value = loadLasting("name") ?? "";
const session = load("session");
const isResuming = Boolean(session?.name && session.session);
if (!isResuming) showJoinForm();

const loading = import("./room.js").then(({ room }) => room, () => null);
loading.then((room) => {
  if (!room) return showJoinForm(NOT_LOADED);
  room.onLeft = showJoinForm;
  if (isResuming) room.resume();
});

/** @param {{ reason?: string, name?: string, needsPassword?: boolean }} [rejection]  why a join failed, if one did */
function showJoinForm({ reason = "", name = nameInput.value, needsPassword = false } = {}) {
  $("join-form").hidden = false;
  $("join").disabled = false;
  nameInput.value = name;
  $("join-error").textContent = reason;
  if (needsPassword) {
    $("password-field").hidden = false;
    nameInput.autocomplete = "username"; // for password managers
  }
  const input = needsPassword ? passwordInput : nameInput;
  input.focus();
  if (!reason) return;
  input.ariaInvalid = "true";
  input.select();
}

$("join-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  if ($("join").disabled) return;
  $("join-error").textContent = "";
  nameInput.ariaInvalid = passwordInput.ariaInvalid = null;
  $("join").disabled = true; // until the answer, so that a second press does nothing
  const room = await loading;
  if (!room) return showJoinForm(NOT_LOADED);
  // Browsers may fill in hidden fields.
  room.join(nameInput.value.trim(), $("password-field").hidden ? "" : passwordInput.value);
});
