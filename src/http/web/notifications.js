// What tells the user about new messages while the page is in the background.

import { $ } from "./dom.js";
import { changeSetting, onSettings, settings } from "./settings.js";

/** @typedef {{ sender: string, text: string, isWhisper: boolean, isMention: boolean }} Message */

const MIN_INTERVAL_MS = 5_000; // between notifications; the messages meanwhile share the next
const MIN_SOUND_INTERVAL_MS = 2_000;
const MAX_BODY_LENGTH = 140; // characters

const bell = $("bell");
let waiting = 0; // messages to be shown
let shownAt = -Infinity; // as of performance.now()
let soundedAt = -Infinity;
let timer = 0;
let isRefused = false;
/** @type {Notification | undefined} */
let shown;
/** @type {AudioContext | undefined} */
let audio;

/** @param {Message} message another person's new message */
export function notify(message) {
  const isWanted = settings.notifications === "all" || message.isWhisper || message.isMention;
  if (!isWanted || isInForeground()) return;
  if (settings.sound) playSound();
  if (!areOn()) return;
  waiting += 1;
  clearTimeout(timer);
  timer = setTimeout(() => show(message), Math.max(0, shownAt + MIN_INTERVAL_MS - performance.now()));
}

/** @param {{ count: number }} unread */
export function showUnread({ count }) {
  document.title = count > 0 ? `(${count}) TinyChat` : "TinyChat";
  const file = count > 0 ? "favicon-unread.svg" : "favicon.svg";
  const link = document.querySelector('link[type="image/svg+xml"]');
  if (link?.getAttribute("href") !== file) link?.setAttribute("href", file);
}

// Must be called in answer to a click or a key, as it asks for permission.
/** @param {string | boolean} level */
export async function turnOn(level) {
  if (obstacle() === "") await Notification.requestPermission();
  const isAllowed = obstacle() === "" && Notification.permission === "granted";
  changeSetting("notifications", isAllowed && (areOn() || display("Notifications are on")) ? level : "off");
  if (obstacle() !== "") $("settings-panel").showPopover(); // It shows the obstacle.
}

// Why there can be no notifications, or "".
export function obstacle() {
  if (!isSecureContext) return "Notifications work only if the page is opened over https.";
  if (!("Notification" in globalThis) || isRefused) return "This browser doesn't show notifications from this page.";
  if (Notification.permission !== "denied") return "";
  return "Your browser blocks notifications from this page. You can allow them in its site settings.";
}

export function playSound() {
  const now = performance.now();
  // Browsers play nothing before the first click or key.
  if (now - soundedAt < MIN_SOUND_INTERVAL_MS || !(navigator.userActivation?.hasBeenActive ?? true)) return;
  soundedAt = now;
  audio ??= new AudioContext();
  const start = audio.currentTime;
  const tone = new OscillatorNode(audio, { frequency: 660 });
  const volume = new GainNode(audio, { gain: 0 });
  volume.gain.setTargetAtTime(0.15, start, 0.01);
  volume.gain.setTargetAtTime(0, start + 0.05, 0.12);
  tone.connect(volume).connect(audio.destination);
  tone.start();
  tone.stop(start + 1);
}

/** @param {Message} message */
function show({ sender, text, isWhisper, isMention }) {
  const count = waiting;
  waiting = 0;
  if (isInForeground() || !areOn()) return;
  shownAt = performance.now();
  const characters = [...(count > 1 ? `${sender}: ${text}` : text)];
  const isLong = characters.length > MAX_BODY_LENGTH;
  const title = isWhisper ? `${sender} whispers to you` : isMention ? `${sender} mentions you` : sender;
  display(
    count > 1 ? `${count} new messages` : title,
    characters.slice(0, MAX_BODY_LENGTH).join("") + (isLong ? "…" : ""),
  );
}

/**
 * Replaces the notification before it.
 * @param {string} title
 * @param {string} body
 * @returns {boolean} whether the browser allows it
 */
function display(title, body = "") {
  const options = { body, tag: "tinychat", renotify: true, silent: settings.sound };
  try {
    shown = new Notification(title, options);
    shown.onclick = () => focus();
  } catch {
    isRefused = true; // Chrome on Android allows them only to service workers.
  }
  return !isRefused;
}

const isInForeground = () => !document.hidden && document.hasFocus();
const areOn = () => settings.notifications !== "off" && !obstacle() && Notification.permission === "granted";

addEventListener("focus", () => shown?.close());
bell.addEventListener("click", () => (areOn() ? changeSetting("notifications", "off") : turnOn("mentions")));
bell.hidden = false;
onSettings(() => {
  bell.ariaPressed = String(areOn());
  bell.title = areOn() ? "Turn off notifications" : "Turn on notifications";
});
