// How the user learns of new messages while the page is in the background: notifications, a sound, and the title and
// icon of the page.

import { $ } from "./dom.js";
import { changeSetting, onSettings, settings } from "./settings.js";

/** @typedef {{ sender: string, text: string, isWhisper: boolean, isMention: boolean }} Message */

const MIN_INTERVAL_MS = 5_000; // between notifications; the messages meanwhile share the next
const MIN_SOUND_INTERVAL_MS = 2_000;
const EXCESS = /(?<=^.{140}).+/su; // what is left out of a long message
const SOUND_SECONDS = 0.5;

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
  const isPersonal = message.isWhisper || message.isMention;
  if (isInForeground()) return;
  if (isPersonal) playSound();
  if (!areOn() || (!isPersonal && settings.notifications !== "all messages")) return;
  waiting += 1;
  clearTimeout(timer);
  timer = setTimeout(show, Math.max(0, shownAt + MIN_INTERVAL_MS - performance.now()), message);
}

/** @param {{ count: number }} unread */
export function showUnread({ count }) {
  document.title = count > 0 ? `(${count}) TinyChat` : "TinyChat";
  const file = count > 0 ? "favicon-unread.svg" : "favicon.svg";
  const link = document.querySelector("link[rel=icon]");
  if (link?.getAttribute("href") !== file) link?.setAttribute("href", file);
}

onSettings((changed) => {
  if (changed === "sound") playSound();
  if (changed === "notifications" && settings.notifications !== "off") turnOn();
  showState();
});
bell.hidden = false;
bell.addEventListener("click", () => changeSetting("notifications", areOn() ? "off" : "mentions and whispers"));
addEventListener("focus", () => shown?.close());
$("settings-panel").addEventListener("beforetoggle", showState);

// In answer to a click or a key, as it asks for permission.
async function turnOn() {
  if (!obstacle()) await Notification.requestPermission();
  if (!areOn() || !display("Notifications are on")) changeSetting("notifications", "off");
  if (obstacle()) $("settings-panel").showPopover();
  showState();
}

function showState() {
  $("settings-hint").textContent = obstacle();
  bell.ariaPressed = String(areOn());
}

function areOn() {
  return settings.notifications !== "off" && !obstacle() && Notification.permission === "granted";
}

const isInForeground = () => !document.hidden && document.hasFocus();

// Why there can be no notifications, or "".
function obstacle() {
  if (!isSecureContext) return "Notifications only work over https.";
  if (!("Notification" in globalThis) || isRefused) return "This browser doesn't support notifications from this page.";
  if (Notification.permission !== "denied") return "";
  return "Your browser is blocking notifications from this page. You can allow them in its site settings.";
}

/** @param {Message} message the latest of those that are waiting */
function show({ sender, text, isWhisper, isMention }) {
  const one = isWhisper ? `${sender} whispered to you` : isMention ? `${sender} mentioned you` : sender;
  const [title, body] = waiting > 1 ? [`${waiting} new messages`, `${sender}: ${text}`] : [one, text];
  waiting = 0;
  if (isInForeground() || !areOn()) return;
  shownAt = performance.now();
  display(title, body.replace(EXCESS, "…"));
}

/** Replaces the notification before it. Returns whether the browser allows it. @param {string} title */
function display(title, body = "") {
  const options = { body, tag: "tinychat", renotify: true, silent: true };
  try {
    shown = new Notification(title, options);
    shown.onclick = () => focus();
  } catch {
    isRefused = true; // Chrome on Android allows them only to service workers.
  }
  return !isRefused;
}

function playSound() {
  const now = performance.now();
  // Browsers play nothing before the first click or key.
  const isTooSoon = now - soundedAt < MIN_SOUND_INTERVAL_MS || !navigator.userActivation.hasBeenActive;
  if (settings.sound === "off" || isTooSoon) return;
  soundedAt = now;
  audio ??= new AudioContext();
  const tone = new OscillatorNode(audio, { frequency: 660 });
  const volume = new GainNode(audio, { gain: 0 });
  volume.gain.setValueCurveAtTime([0, 0.12, 0.04, 0.01, 0], audio.currentTime, SOUND_SECONDS);
  tone.connect(volume).connect(audio.destination);
  tone.start();
  tone.stop(audio.currentTime + SOUND_SECONDS);
}
