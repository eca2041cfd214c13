// The WebSocket to the chat, kept alive: when it is lost it comes back by itself, under the same name.
//
// It reports to a listener with these methods:
//   state(state, detail)   "idle", "connecting", "online", "waiting" (detail: seconds), or "name" (still taken)
//   joined(again)          in the room; what the server says from here on comes to message()
//   refused(why)           no first joining, and why
//   lost(code, reason)     the room was lost; it is on its way back
//   message(message)       whatever the server says

const FIRST_WAIT = 1; // seconds; doubled with each failure
const LONGEST_WAIT = 30;
const CONNECT_TIMEOUT = 15;
// After a cut the server may take its ping interval twice to see that the old connection is gone.
const NAME_TRIES = 20;
const NAME_WAIT = 5;
const PROBE_TIMEOUT = 8;
const MOST_SILENCE = 45; // pings are not seen from here, so after it the line is probed
// No message of this type is known, so the server answers it, and changes nothing.
const PROBE = "still-there";

export class Connection {
  #url;
  #listener;
  #socket = null;
  #name = null;
  #isIn = false; // in the room at this moment
  #wasIn = false; // in the room under this name before
  #failures = 0;
  #nameTries = 0;
  #timer = 0; // the one thing that is waited for: a connection, a retry, or the name
  #probe = 0; // the wait for any sign that the line stands
  #unanswered = 0; // probes
  #heardAt = 0;

  constructor(url, listener) {
    this.#url = url;
    this.#listener = listener;
    addEventListener("online", () => this.wake());
    addEventListener("pageshow", () => this.wake());
    document.addEventListener("visibilitychange", () => document.hidden || this.wake());
    // A clock that has jumped means that the computer slept.
    let last = Date.now();
    setInterval(() => {
      const isSilent = this.#isIn && Date.now() - this.#heardAt > MOST_SILENCE * 1000;
      if (isSilent || Date.now() - last > 30_000) this.wake();
      last = Date.now();
    }, 5_000);
  }

  join(name) {
    this.#name = name;
    if (this.#socket?.readyState === WebSocket.OPEN) this.#sendJoin();
    else this.#open();
  }

  leave() {
    this.#drop();
    this.#name = null;
    this.#wasIn = false;
    this.#failures = 0;
    this.#listener.state("idle");
  }

  // Whether it has gone out. Nothing is kept here: what cannot be sent stays with who wanted to.
  send(message) {
    if (!this.#isIn || this.#socket.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  // Something has changed, or somebody is impatient: do not wait any longer, and see whether the line still stands.
  wake() {
    if (this.#name === null) return;
    if (!this.#socket) {
      this.#open();
    } else if (this.#isIn && !this.#probe && this.send({ type: PROBE })) {
      this.#unanswered += 1;
      this.#probe = setTimeout(() => this.#ended(1006, ""), PROBE_TIMEOUT * 1000);
    }
  }

  #open() {
    this.#drop();
    this.#listener.state("connecting");
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    this.#waitForAnswer();
    socket.onopen = () => {
      this.#nameTries = 0;
      this.#sendJoin();
    };
    socket.onmessage = ({ data }) => this.#heard(data);
    socket.onclose = ({ code, reason }) => this.#ended(code, reason);
  }

  #sendJoin() {
    this.#socket.send(JSON.stringify({ type: "join", username: this.#name }));
    this.#waitForAnswer();
  }

  #heard(data) {
    this.#heardAt = Date.now();
    this.#stopProbe();
    let message;
    try {
      message = JSON.parse(data);
    } catch {
      return; // Not of this protocol, so not for us.
    }
    if (this.#isIn) {
      if (!this.#isAnswerToProbe(message)) this.#listener.message(message);
    } else if (message.type === "user_list") {
      clearTimeout(this.#timer);
      const again = this.#wasIn;
      this.#isIn = this.#wasIn = true;
      this.#failures = 0;
      this.#listener.state("online");
      this.#listener.message(message);
      this.#listener.joined(again);
    } else if (message.type === "error") {
      this.#notLetIn(message.content);
    }
  }

  // Anything that is heard proves that the line stands.
  #stopProbe() {
    clearTimeout(this.#probe);
    this.#probe = 0;
  }

  // The answer itself, or that of a time-out, is not for people.
  #isAnswerToProbe({ type, content }) {
    if (this.#unanswered === 0) return false;
    const isAnswer =
      (type === "error" && content.includes(`"${PROBE}"`)) ||
      (type === "system" && content.startsWith("You are timed out:"));
    if (isAnswer) this.#unanswered -= 1;
    return isAnswer;
  }

  #notLetIn(why) {
    if (this.#wasIn && this.#nameTries < NAME_TRIES) {
      this.#nameTries += 1;
      this.#listener.state("name");
      this.#wait(NAME_WAIT, () => this.#sendJoin());
    } else {
      // The connection stays, and another name may be tried on it.
      clearTimeout(this.#timer);
      this.#name = null;
      this.#wasIn = false;
      this.#listener.state("idle");
      this.#listener.refused(why);
    }
  }

  #ended(code, reason) {
    const [wasIn, isFirst] = [this.#isIn, !this.#wasIn];
    this.#drop();
    if (this.#name === null) return;
    if (isFirst) {
      this.#name = null;
      this.#listener.state("idle");
      this.#listener.refused("The server cannot be reached, or has no place at the moment. Try again soon.");
      return;
    }
    if (wasIn) this.#listener.lost(code, reason);
    const longest = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** this.#failures);
    this.#failures += 1;
    // Jitter: when a server comes back, not everybody is to come at the same moment.
    const seconds = longest * (0.5 + Math.random() / 2);
    this.#listener.state("waiting", seconds);
    this.#wait(seconds, () => this.#open());
  }

  // Lets go of the socket, whose events count no more.
  #drop() {
    clearTimeout(this.#timer);
    this.#stopProbe();
    this.#unanswered = 0;
    this.#isIn = false;
    if (this.#socket) {
      this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
      this.#socket.close();
      this.#socket = null;
    }
  }

  #waitForAnswer() {
    this.#wait(CONNECT_TIMEOUT, () => this.#ended(1006, ""));
  }

  #wait(seconds, then) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(then, seconds * 1000);
  }
}
