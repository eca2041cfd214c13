// A dialog that asks for a decision.

import { element } from "./dom.js";

/**
 * Asks, and returns the value of the action that was chosen, or null if the dialog was closed without one. The first
 * action has the focus, so it should be the harmless one.
 * @param {{ title: string, text?: string, actions: { label: string, value: string, isDanger?: boolean }[] }} question
 * @returns {Promise<string | null>}
 */
export function confirmDialog({ title, text = "", actions }) {
  const dialog = /** @type {HTMLDialogElement} */ (element("dialog", { "aria-labelledby": "dialog-title" }));
  const buttons = actions.map(({ label, value, isDanger = false }) => {
    const button = element("button", { type: "button", class: isDanger ? "primary danger" : "secondary" }, label);
    button.addEventListener("click", () => dialog.close(value));
    return button;
  });
  dialog.append(
    element("h2", { id: "dialog-title" }, title),
    element("p", {}, text),
    element("div", { class: "dialog-actions" }, ...buttons),
  );
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue || null);
    });
  });
}
