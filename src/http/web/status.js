// The state of the connection, in the header.

import { $ } from "./dom.js";

let countdown = 0; // its timer

/**
 * @param {import("./connection.js").State} state
 * @param {number} retryAt in ms
 * @param {boolean} isLost whether the connection was there before
 */
export function showStatus(state, retryAt, isLost) {
  const loss = navigator.onLine ? "Connection lost" : "You're offline";
  $("status-text").textContent = {
    idle: "Not connected",
    connecting: isLost ? `${loss}. Reconnecting…` : "Connecting…",
    online: "Connected",
    unresponsive: "Offline: the server isn't responding",
    backoff: `${loss}. Retrying`,
    "name-in-use": "Your name is in use. Waiting for it…",
    replaced: "Open in another tab",
    removed: "Removed",
  }[state];
  $("status").dataset.state = state;
  $("retry").hidden = state !== "backoff" && state !== "unresponsive";
  $("rejoin").hidden = state !== "replaced" && state !== "removed";
  $("rejoin").textContent = state === "removed" ? "Join again" : "Use here";
  clearInterval(countdown);
  $("countdown").textContent = "";
  if (state === "backoff") startCountdown(retryAt);
}

// Outside of the text that screen readers announce: they would announce every second.
/** @param {number} retryAt */
function startCountdown(retryAt) {
  const end = Math.ceil((retryAt - Date.now()) / 1000);
  const start = Date.now();
  const show = () => {
    const seconds = Math.max(1, end - Math.round((Date.now() - start) / 1000));
    $("countdown").textContent = `in ${seconds} s`;
  };
  show();
  countdown = setInterval(show, 1_000);
}
