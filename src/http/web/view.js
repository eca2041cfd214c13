// What is seen of the room: the log of messages, and the list of people. Text comes in as text and stays text.

const MOST_LINES = 2000; // in the page; older ones go
const MOST_PEOPLE = 500; // by name; the others are counted
const ONE_BREATH = 5 * 60_000; // lines of one person within this time stand together

// An element with its attributes and what is in it. Strings become text nodes, so nothing can become markup.
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value !== null) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

// Text as nodes, in which the addresses of web pages are links.
export function linked(text) {
  const nodes = [];
  let end = 0;
  for (const match of text.matchAll(/\bhttps?:\/\/[^\s<>"]+/gi)) {
    const address = withoutTail(match[0]);
    if (!isAddress(address)) continue;
    nodes.push(text.slice(end, match.index));
    nodes.push(element("a", { href: address, target: "_blank", rel: "noopener noreferrer nofollow" }, address));
    end = match.index + address.length;
  }
  nodes.push(text.slice(end));
  return nodes.filter((node) => node !== "");
}

function isAddress(text) {
  try {
    return ["http:", "https:"].includes(new URL(text).protocol);
  } catch {
    return false;
  }
}

// A full stop or a bracket behind an address is the sentence's, unless the bracket was opened within the address.
function withoutTail(address) {
  let loose = address.split(")").length - address.split("(").length;
  let end = address.length;
  while (address[end - 1] === ")" ? loose-- > 0 : ".,;:!?'*_".includes(address[end - 1])) end -= 1;
  return address.slice(0, end);
}

const ONLY_EMOJI = /^(?:\p{Extended_Pictographic}|\p{Emoji_Modifier}|\p{Regional_Indicator}|[\u200d\ufe0f\s]){1,12}$/u;

// What has become of a line of one's own, where that has to be said; "" takes it away again.
export function setFate(line, fate) {
  line.querySelector(".fate")?.remove();
  if (fate !== "") line.lastChild.append(element("p", { class: "fate" }, fate));
}

// A colour of one's own, the same on every screen.
export function hue(name) {
  let sum = 0;
  for (const character of name) sum = (sum * 31 + character.codePointAt(0)) % 360;
  return sum;
}

function avatar(name) {
  const made = element("span", { class: "avatar", "aria-hidden": "true" }, [...name][0] ?? "");
  made.style.setProperty("--hue", hue(name));
  return made;
}

export class Log {
  #box;
  #newest;
  #onSeen;
  #waiting = []; // lines to be shown all at once, as a burst is cheaper so
  #timer = 0;
  #follows = true; // at the bottom, and to stay there
  #top = 0; // where the last scrolling to the bottom has led
  #unseen = 0;
  #mark = null; // before the first line that has not been seen
  #last = {}; // who said the last line, and when

  // `onSeen` is told how many lines wait to be seen.
  constructor(box, newest, onSeen) {
    this.#box = box;
    this.#newest = newest;
    this.#onSeen = onSeen;
    box.addEventListener("scroll", () => {
      this.#follows = this.#isAtBottom();
      this.#look();
    });
    newest.addEventListener("click", () => {
      this.follow();
      box.focus();
    });
    addEventListener("focus", () => this.#look());
    document.addEventListener("visibilitychange", () => this.#look());
    new ResizeObserver(() => this.#follows && this.#toBottom()).observe(box);
  }

  // Somebody's words: { name, text, time, own, to }; with `to` they are whispered. The line is returned.
  said({ name, text, time, own = false, to = null }) {
    const key = `${own}\n${name}\n${to}`;
    const follows = this.#last.key === key && Date.now() - this.#last.at < ONE_BREATH;
    this.#last = { key, at: Date.now() };
    const kind = `said${own ? " own" : ""}${to === null ? "" : " whisper"}${follows ? " follows" : ""}`;
    const whom = to === null ? [] : [element("span", { class: "to" }, own ? " whisper to " : " whispers to you")];
    if (to !== null && own) whom.push(element("bdi", {}, to));
    const who = element("p", { class: "who" }, element("bdi", { class: "name", "data-name": name }, own ? "You" : name));
    who.append(...whom, " ", element("time", {}, time.slice(0, 5)));
    who.firstChild.style.setProperty("--hue", hue(name));
    const words = element("p", { class: `words${ONLY_EMOJI.test(text) ? " emoji" : ""}`, dir: "auto" }, ...linked(text));
    const line = element("div", { class: kind, title: time }, own ? "" : avatar(name), element("div", {}, who, words));
    this.#add(line, !own);
    return line;
  }

  // What the server or this page says: kind is "system", "error" or "state".
  notice(kind, text) {
    this.#last = {};
    const words = element("p", {}, kind === "error" ? element("b", {}, "Error: ") : "", ...linked(text));
    this.#add(element("div", { class: `notice ${kind}` }, words), false);
  }

  follow() {
    this.#follows = true;
    this.#toBottom();
    this.#look();
  }

  clear() {
    this.#waiting = [];
    this.#mark = null;
    this.#last = {};
    this.#unseen = 0;
    this.#box.replaceChildren();
    this.follow();
  }

  #add(line, counts) {
    if (counts && !this.#isSeen()) {
      this.#unseen += 1;
      if (this.#unseen === 1) {
        this.#mark?.remove();
        this.#mark = element("div", { class: "mark", role: "separator", "aria-label": "New" }, "New");
        this.#waiting.push(this.#mark);
      }
      this.#tell();
    }
    this.#waiting.push(line);
    if (this.#waiting.length > MOST_LINES) this.#waiting.shift();
    this.#timer ||= setTimeout(() => this.#show(), 20);
  }

  #show() {
    const box = this.#box;
    this.#timer = 0;
    // Somebody may have scrolled up a moment ago, and the event for it is still to come.
    if (box.scrollTop < this.#top - 4 && !this.#isAtBottom()) this.#follows = false;
    box.append(...this.#waiting);
    this.#waiting = [];
    const spare = box.childElementCount - MOST_LINES;
    if (spare > 0) {
      const height = box.scrollHeight;
      const top = box.scrollTop;
      for (let i = 0; i < spare; i += 1) box.firstChild.remove();
      // What is being read stays where it is.
      if (!this.#follows) box.scrollTop = top - (height - box.scrollHeight);
    }
    if (this.#follows) this.#toBottom();
  }

  #toBottom() {
    this.#box.scrollTop = this.#box.scrollHeight;
    this.#top = this.#box.scrollTop;
  }

  #isAtBottom() {
    return this.#box.scrollHeight - this.#box.scrollTop - this.#box.clientHeight < 40;
  }

  #isSeen() {
    return this.#follows && !document.hidden && document.hasFocus();
  }

  #look() {
    if (this.#isSeen()) this.#unseen = 0;
    this.#tell();
  }

  #tell() {
    const lines = this.#unseen === 1 ? "1 new message" : `${this.#unseen} new messages`;
    this.#newest.textContent = this.#unseen > 0 ? lines : "To the newest";
    this.#newest.hidden = this.#follows;
    this.#onSeen(this.#unseen);
  }
}

export class People {
  #list;
  #counts;
  #items = new Map(); // from name to what is shown of it
  #more = element("li", { class: "hint" });
  users = [];

  constructor(list, counts, onChosen) {
    this.#list = list;
    this.#counts = counts;
    list.addEventListener("click", ({ target }) => {
      const chosen = target.closest("button");
      if (chosen) onChosen(chosen.dataset.name);
    });
  }

  // Only what has changed is touched, so that the keyboard's focus stays where it is.
  show(users, me) {
    this.users = users;
    const shown = users.slice(0, MOST_PEOPLE);
    const names = new Set(shown.map((user) => user.username));
    for (const [name, { item }] of this.#items) {
      if (!names.has(name)) {
        item.remove();
        this.#items.delete(name);
      }
    }
    shown.forEach((user, place) => {
      const name = user.username;
      if (!this.#items.has(name)) this.#items.set(name, this.#person(name));
      const { item, marks } = this.#items.get(name);
      const wanted = [name === me && "you", user.is_mod && "moderator", user.is_timed_out && "timed out"].filter(Boolean);
      if (marks.dataset.marks !== wanted.join()) {
        marks.dataset.marks = wanted.join();
        const badges = wanted.map((mark) => element("span", { class: `badge ${mark.replace(" ", "-")}` }, mark));
        marks.replaceChildren(...badges.flatMap((badge) => [" ", badge]));
      }
      if (this.#list.children[place] !== item) this.#list.insertBefore(item, this.#list.children[place] ?? null);
    });
    const more = users.length - shown.length;
    this.#more.textContent = `and ${more} more`;
    if (more > 0) this.#list.append(this.#more);
    else this.#more.remove();
    for (const count of this.#counts) count.textContent = users.length;
  }

  #person(name) {
    const marks = element("span", { class: "marks" });
    const button = element("button", { type: "button", title: "Whisper", "data-name": name }, avatar(name));
    button.append(element("bdi", { class: "name" }, name), marks);
    return { item: element("li", {}, button), marks };
  }
}
