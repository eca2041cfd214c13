// The Back button. The room has an entry in the browser's history, which Back uses up: first it closes what is open, then
// it shows a hint, and only the next one leaves the page.

const MAX_BUTTON = 2; // of a mouse; those after it are Back and Forward

let isInRoom = false;
/** @type {() => boolean} */
let closeTop;
/** @type {(isShown: boolean) => void} */
let showHint;

/**
 * @param {typeof closeTop} newCloseTop closes what is open above the room, and returns whether there was anything
 * @param {typeof showHint} newShowHint that the next Back leaves
 */
export function guardBack(newCloseTop, newShowHint) {
  [closeTop, showHint] = [newCloseTop, newShowHint];
}

/** @param {boolean} value */
export function setInRoom(value) {
  const wasInRoom = isInRoom;
  isInRoom = value;
  if (isInRoom) addEntry();
  else if (wasInRoom && history.state === "room") history.back();
}

addEventListener("popstate", () => {
  if (!isInRoom) return;
  if (history.state === "room") showHint(false);
  else if (closeTop()) addEntry();
  else showHint(true);
});
// Only now: browsers skip entries that were added before the user did something, so that no page is a trap.
addEventListener("pointerdown", ({ button }) => button <= MAX_BUTTON && addEntry(), { capture: true });
addEventListener("keydown", ({ key, altKey, ctrlKey, metaKey }) => {
  // Alt+Left is Back as well.
  if (!altKey && !ctrlKey && !metaKey && !key.startsWith("Browser")) addEntry();
});

function addEntry() {
  if (!isInRoom || history.state === "room") return;
  history.pushState("room", "");
  showHint(false);
}
