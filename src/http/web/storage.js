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
  try {
    return JSON.parse(storage().getItem(key) ?? "null");
  } catch {
    return null;
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
