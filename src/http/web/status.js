// The state of the connection, in the header.

import { $ } from "./dom.js";

const TICK_MS = 250; // so that the countdown skips no second

let timer = 0;

/** `isLost`: there was a connection before. @param {import("./connection.js").State} state */
export function showStatus(state, retryAt = 0, isLost = false) {
  const loss = navigator.onLine ? "Connection lost" : "You're offline";
  $("status").dataset.state = state;
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
  $("retry").hidden = state !== "backoff" && state !== "unresponsive";
  $("rejoin").hidden = state !== "replaced" && state !== "removed";
  $("rejoin").textContent = state === "removed" ? "Join again" : "Use here";

  // The seconds are outside of what screen readers announce.
  const showSeconds = () => {
    const seconds = Math.max(1, Math.ceil((retryAt - Date.now()) / 1000));
    $("countdown").textContent = state === "backoff" ? `in ${seconds} s` : "";
  };
  clearInterval(timer);
  showSeconds();
  if (state === "backoff") timer = setInterval(showSeconds, TICK_MS);
}
