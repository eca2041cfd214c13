// The chat page: what people do goes to the connection, and what the connection hears is shown.

import { Connection } from "./connection.js";
import { Log, People, element, setFate } from "./view.js";

const MOST_KEPT = 50; // lines that may wait for the connection
const $ = (id) => document.getElementById(id);
const [welcome, nameBox, room, text, choices] = ["welcome", "name", "room", "text", "choices"].map($);

let me = null; // the name in the room, as the server writes it
let commands = {}; // from name to { usage }
let kept = []; // what was said while there was no connection: { content, line }
let lostAt = null;
let wasModerator = false;
let sent = null; // what went out last: { content, line }; a command has no line

const log = new Log($("log"), $("newest"), (unseen) => {
  document.title = unseen > 0 ? `(${unseen}) TinyChat` : "TinyChat";
});
const people = new People($("people-list"), [$("people-count"), $("people-badge")], whisperTo);

const url = new URL(".", location.href);
url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
const connection = new Connection(url.href, {
  state(state, detail) {
    const words = {
      idle: () => "Not connected",
      connecting: () => "Connecting…",
      online: () => "Connected",
      waiting: () => `Offline: next try in ${Math.max(1, Math.round(detail))} s`,
      name: () => "Your name is still in use: waiting for it…",
    };
    $("state").textContent = words[state]();
    $("state").dataset.state = state;
    $("retry").hidden = state !== "waiting";
    $("join").disabled = me === null && state === "connecting";
  },

  joined(again) {
    if (!again) {
      showRoom(true);
    } else {
      const seconds = Math.round((Date.now() - lostAt) / 1000);
      log.notice("state", `Back in the room after ${seconds} s. What was said meanwhile is not shown.`);
      if (wasModerator) log.notice("state", "You are no moderator any more: /login makes you one again.");
    }
    wasModerator = false;
  },

  refused(why) {
    showRoom(false);
    $("join-error").textContent = why;
    nameBox.setAttribute("aria-invalid", "true");
    nameBox.select();
  },

  lost(code, reason) {
    lostAt = Date.now();
    const why = {
      1001: "The server has stopped or restarts.",
      1009: "That message was longer than the server takes.",
    }[code] ?? (reason ? `The connection was closed: ${reason}` : "The connection was lost.");
    log.notice("state", `${why} Trying to come back; what you write is kept.`);
    if (code === 1009 && sent) {
      if (sent.line) setFate(sent.line, "not sent: too long");
      if (text.value === "") setText(sent.content);
    }
  },

  message(message) {
    const { type, content, timestamp = "" } = message;
    setClock(timestamp);
    if (type === "public") {
      log.said({ name: message.username, text: content, time: timestamp });
    } else if (type === "private") {
      const own = message.from === me;
      log.said({ name: message.from, text: content, time: timestamp, own, to: message.to });
    } else if (type === "system" || type === "error") {
      log.notice(type, content);
    } else if (type === "user_list") {
      showPeople(content);
    } else if (type === "command_list") {
      commands = content;
    }
  },
});

// --- Joining and leaving

// Where browsers may keep nothing, this throws, and the name is typed again.
try {
  nameBox.value = localStorage.getItem("name") ?? "";
} catch {}
showRoom(false);

welcome.addEventListener("submit", (event) => {
  event.preventDefault();
  $("join-error").textContent = "";
  nameBox.removeAttribute("aria-invalid");
  me = null;
  connection.join(nameBox.value.trim());
});

$("leave").addEventListener("click", () => {
  connection.leave();
  kept = [];
  log.clear();
  showRoom(false);
});
$("retry").addEventListener("click", () => connection.wake());

function showRoom(isIn) {
  if (!isIn) me = null;
  welcome.hidden = isIn;
  for (const id of ["room", "people-button", "leave"]) $(id).hidden = !isIn;
  showDrawer(false);
  (isIn ? text : nameBox).focus();
}

// --- People

function showPeople(users) {
  // The list is in order of joining, so at first the newcomer is the last.
  if (me === null) {
    me = users.at(-1).username;
    try {
      localStorage.setItem("name", me);
    } catch {}
  }
  people.show(users, me);
  const self = users.find((user) => user.username === me);
  wasModerator ||= self?.is_mod ?? false;
  room.classList.toggle("timed-out", self?.is_timed_out ?? false);
  text.placeholder = isTimedOut() ? "You are timed out: for now you can only read" : "Message, or / for commands";
  sendKept();
}

const isTimedOut = () => room.classList.contains("timed-out");

function whisperTo(name) {
  showDrawer(false);
  const draft = text.value.startsWith("/") ? "" : text.value;
  setText(`/whisper ${name} ${draft}`);
  text.focus();
}

$("log").addEventListener("click", ({ target }) => {
  showDrawer(false);
  if (target.dataset.name && target.dataset.name !== me) whisperTo(target.dataset.name);
});

// On a narrow screen the people are in a drawer.
function showDrawer(isOpen) {
  room.classList.toggle("drawer", isOpen);
  $("people-button").setAttribute("aria-expanded", isOpen);
}

$("people-button").addEventListener("click", () => {
  showDrawer(!room.classList.contains("drawer"));
  if (room.classList.contains("drawer")) $("people-list").querySelector("button")?.focus();
});

addEventListener("keydown", ({ key }) => {
  if (key === "Escape" && room.classList.contains("drawer")) {
    showDrawer(false);
    $("people-button").focus();
  }
});

// --- Writing

// One's own lines show the server's time, too, which may be that of another zone.
let ahead = 0; // milliseconds

const now = () => new Date(Date.now() + ahead).toTimeString().slice(0, 8);

function setClock(timestamp) {
  const [hours, minutes, seconds] = timestamp.split(":").map(Number);
  if (seconds >= 0) ahead = new Date().setHours(hours, minutes, seconds) - Date.now();
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const content = text.value.trim();
  if (content === "") return;
  if (isTimedOut()) {
    log.notice("error", "You are timed out, and can only read for now. Your text is kept.");
  } else if (content.startsWith("/")) {
    if (connection.send({ type: "command", content })) {
      sent = { content, line: null };
      setText("");
    } else {
      log.notice("error", "There is no connection for a command. It is kept below.");
    }
  } else if (kept.length >= MOST_KEPT) {
    log.notice("error", "Too much waits for the connection already. Your text is kept below.");
  } else {
    sendPublic(content, log.said({ name: me, text: content, time: now(), own: true }));
    setText("");
  }
  showChoices([]);
  log.follow();
});

function sendPublic(content, line) {
  sent = { content, line };
  if (connection.send({ type: "public", content })) return;
  setFate(line, "waits for the connection");
  kept.push({ content, line });
}

function sendKept() {
  if (isTimedOut()) return;
  const waiting = kept;
  kept = [];
  for (const { content, line } of waiting) {
    setFate(line, "");
    sendPublic(content, line);
  }
}

function setText(value) {
  text.value = value;
  text.setSelectionRange(value.length, value.length);
  written();
}

text.addEventListener("input", written);
text.addEventListener("focus", suggest);
text.addEventListener("blur", () => showChoices([]));

function written() {
  // As high as what is written, up to the limit in style.css.
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight + 2}px`;
  suggest();
}

text.addEventListener("keydown", (event) => {
  const { key } = event;
  const isOpen = !choices.hidden;
  if (event.isComposing) return; // This Enter ends a word in an input method.
  if (isOpen && (key === "ArrowDown" || key === "ArrowUp")) {
    choose(chosen + (key === "ArrowDown" ? 1 : -1));
  } else if (isOpen && key === "Tab" && !event.shiftKey) {
    take(Math.max(chosen, 0));
  } else if (isOpen && key === "Enter" && chosen >= 0) {
    take(chosen);
  } else if (isOpen && key === "Escape") {
    showChoices([]);
  } else if (key === "Enter" && !event.shiftKey) {
    $("composer").requestSubmit();
  } else {
    return;
  }
  event.preventDefault();
});

// --- Completing commands and names

let offered = []; // the whole texts that the choices stand for
let chosen = -1;

function suggest() {
  const written = text.value;
  const [command, ...rest] = written.split(" ");
  const usage = Object.hasOwn(commands, command) ? commands[command].usage : "";
  $("usage").textContent = rest.length > 0 ? usage : "";
  if (!written.startsWith("/") || written.includes("\n")) {
    showChoices([]);
  } else if (rest.length === 0) {
    const names = Object.keys(commands).filter((name) => name.startsWith(command.toLowerCase()));
    showChoices(names.map((name) => [`${name} `, commands[name].usage]), names.includes(command));
  } else if (usage.split(" ")[1] === "[user]") {
    const begun = rest.join(" ").toLowerCase();
    const names = people.users.map((user) => user.username).filter((name) => name !== me);
    const fitting = names.filter((name) => name.toLowerCase().startsWith(begun)).slice(0, 8);
    showChoices(fitting.map((name) => [`${command} ${name} `, name]));
  } else {
    showChoices([]);
  }
}

// Pairs of the text that a choice stands for and what is shown of it. A whole command needs no choosing: Enter sends.
function showChoices(pairs, isWhole = false) {
  offered = pairs.map(([whole]) => whole);
  choices.replaceChildren(
    ...pairs.map(([, shown], place) => element("li", { role: "option", id: `choice-${place}` }, shown)),
  );
  choices.hidden = pairs.length === 0;
  choose(isWhole ? -1 : 0);
}

function choose(place) {
  const options = [...choices.children];
  chosen = options.length === 0 || place < -1 ? options.length - 1 : place >= options.length ? 0 : place;
  options.forEach((option, at) => option.setAttribute("aria-selected", at === chosen));
  if (options[chosen]) text.setAttribute("aria-activedescendant", options[chosen].id);
  else text.removeAttribute("aria-activedescendant");
  options[chosen]?.scrollIntoView({ block: "nearest" });
}

function take(place) {
  setText(offered[place]);
  text.focus();
}

choices.addEventListener("mousedown", (event) => {
  event.preventDefault(); // The focus stays in the text.
  const place = [...choices.children].indexOf(event.target.closest("li"));
  if (place >= 0) take(place);
});
