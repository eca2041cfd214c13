// A dialog that asks for a decision.

import { element } from "./dom.js";

/**
 * Asks, and returns the value of the action that was chosen, or null if the dialog was closed without one. Without
 * fields, the first action has the focus, so it should be the harmless one. With fields, the last one is chosen by Enter
 * as well, if they are valid.
 * @param {{ title: string, text?: string, fields?: Node[],
 *   actions: { label: string, value: string, isDanger?: boolean }[] }} question
 * @returns {Promise<string | null>}
 */
export function confirmDialog({ title, text = "", fields = [], actions }) {
  const dialog = /** @type {HTMLDialogElement} */ (element("dialog", { "aria-labelledby": "dialog-title" }));
  const buttons = actions.map(({ label, value, isDanger = false }, index) => {
    const type = fields.length > 0 && index === actions.length - 1 ? "submit" : "button";
    const button = element("button", { type, value, class: isDanger ? "primary danger" : "secondary" }, label);
    if (type === "button") button.addEventListener("click", () => dialog.close(value));
    return button;
  });
  const form = element("form", { method: "dialog" });
  form.append(
    element("h2", { id: "dialog-title" }, title),
    element("p", {}, text),
    ...fields,
    element("div", { class: "dialog-actions" }, ...buttons),
  );
  dialog.append(form);
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue || null);
    });
  });
}
