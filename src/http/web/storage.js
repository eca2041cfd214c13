// Values that survive a reload of this tab (sessionStorage), or that last (localStorage). If the browser blocks
// storage, nothing is saved.

/** @typedef {(key: string) => any} Load  `null` if there is no value */
/** @typedef {(key: string, value: unknown) => void} Save  `null` removes the value */

/** @type {Load} */
export const load = (key) => read(() => sessionStorage, key);
/** @type {Save} */
export const save = (key, value) => write(() => sessionStorage, key, value);
/** @type {Load} */
export const loadLasting = (key) => read(() => localStorage, key);
/** @type {Save} */
export const saveLasting = (key, value) => write(() => localStorage, key, value);

/**
 * @param {() => Storage} storage  reading `sessionStorage` itself throws where the browser blocks it
 * @param {string} key
 */
function read(storage, key) {
  let text = null;
  try {
    text = storage().getItem(key);
    return JSON.parse(text ?? "null");
  } catch {
    return text; // as an earlier version of the page saved it
  }
}

/** @param {() => Storage} storage @param {string} key @param {unknown} value */
function write(storage, key, value) {
  try {
    if (value === null) storage().removeItem(key);
    else storage().setItem(key, JSON.stringify(value));
  } catch {
    // not saved
  }
}
