// Values that survive a reload of this tab (sessionStorage), or that last (localStorage). If the browser blocks
// storage, nothing is saved.

export const load = (key) => read(() => sessionStorage, key);
export const save = (key, value) => write(() => sessionStorage, key, value);
export const loadLasting = (key) => read(() => localStorage, key);
export const saveLasting = (key, value) => write(() => localStorage, key, value);

// Reading `sessionStorage` itself throws where the browser blocks it.
function read(storage, key) {
  try {
    return JSON.parse(storage().getItem(key));
  } catch {
    return null;
  }
}

// `null` removes the value.
function write(storage, key, value) {
  try {
    if (value === null) storage().removeItem(key);
    else storage().setItem(key, JSON.stringify(value));
  } catch {}
}
