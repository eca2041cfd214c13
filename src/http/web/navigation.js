// The browser's Back button. In the room there is an entry in the browser's history that Back uses up: first it closes
// what is open, then it shows a hint, and only the next one leaves the page.

const MAX_BUTTON = 2; // of a mouse; those after it are Back and Forward

/** @type {{ closeTop: () => boolean, showHint: (isShown: boolean) => void }} */
let page;
let isInRoom = false;

/**
 * @param {() => boolean} closeTop closes what is open above the room, and returns whether there was anything
 * @param {(isShown: boolean) => void} showHint that the next Back leaves
 */
export function guardBack(closeTop, showHint) {
  page = { closeTop, showHint };
}

/** @param {boolean} value */
export function setInRoom(value) {
  if (value === isInRoom) return;
  isInRoom = value;
  if (isInRoom) addEntry();
  else if (history.state === "room") history.back();
}

addEventListener("popstate", () => {
  if (!isInRoom) return;
  if (history.state === "room") page.showHint(false);
  else if (page.closeTop()) addEntry();
  else page.showHint(true);
});

// Not before the user does something: browsers skip entries that were added without, so that no page can be a trap.
addEventListener("pointerdown", ({ button }) => button <= MAX_BUTTON && restore(), { capture: true });
addEventListener("keydown", ({ key, altKey, ctrlKey, metaKey }) => {
  // Alt+Left is Back as well.
  if (!altKey && !ctrlKey && !metaKey && !key.startsWith("Browser")) restore();
});

function restore() {
  if (isInRoom) addEntry();
}

function addEntry() {
  if (history.state === "room") return;
  history.pushState("room", "");
  page.showHint(false);
}
