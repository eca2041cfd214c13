// The WebSocket. When it is lost, it reconnects and joins again under the same name.
//
// It calls these methods of its listener:
//   onState(state, seconds)      "idle", "connecting", "online", "name-in-use" or "backoff" (retry in `seconds`)
//   onJoined(isRejoin)           after the first user_list has been passed to onMessage()
//   onJoinRejected(reason)       the join failed and is not retried
//   onDisconnected(code, reason) the connection of a member was lost and is retried
//   onMessage(message)           any message while joined

const MIN_BACKOFF_MS = 1_000; // doubled with each failure
const MAX_BACKOFF_MS = 30_000;
const CONNECT_TIMEOUT_MS = 15_000;
// The server takes up to two ping intervals to notice a dead connection and free its name.
const NAME_RETRIES = 20;
const NAME_RETRY_MS = 5_000;
const MAX_SILENCE_MS = 45_000; // then the connection is probed, as scripts cannot see pings
const PROBE_TIMEOUT_MS = 8_000;
// An unknown type: the server answers with an error and does nothing else.
const PROBE_TYPE = "still-there";

export class Connection {
  #url;
  #listener;
  #socket = null;
  #name = null;
  #isMember = false;
  #wasMember = false; // under this name, on this or an earlier socket
  #failures = 0;
  #nameRetries = 0;
  #timer = 0; // for the response to a connect or join, or for the next retry
  #probeTimer = 0;
  #unansweredProbes = 0;
  #receivedAt = 0; // ms

  constructor(url, listener) {
    this.#url = url;
    this.#listener = listener;
    for (const event of ["online", "pageshow"]) addEventListener(event, () => this.retryOrProbe());
    document.addEventListener("visibilitychange", () => document.hidden || this.retryOrProbe());
    let checkedAt = Date.now();
    setInterval(() => {
      const isSilent = this.#isMember && Date.now() - this.#receivedAt > MAX_SILENCE_MS;
      const hasSlept = Date.now() - checkedAt > 30_000; // the computer, as the clock jumped
      if (isSilent || hasSlept) this.retryOrProbe();
      checkedAt = Date.now();
    }, 5_000);
  }

  join(name) {
    this.#name = name;
    if (this.#socket?.readyState === WebSocket.OPEN) this.#sendJoin();
    else this.#open();
  }

  leave() {
    this.#close();
    this.#name = null;
    this.#wasMember = false;
    this.#failures = 0;
    this.#listener.onState("idle");
  }

  // Returns whether the message was sent. Nothing is queued here.
  send(message) {
    if (!this.#isMember || this.#socket.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  // Reconnects now, or checks that the connection still works.
  retryOrProbe() {
    if (this.#name === null) return;
    if (!this.#socket) {
      this.#open();
    } else if (this.#isMember && !this.#probeTimer && this.send({ type: PROBE_TYPE })) {
      this.#unansweredProbes += 1;
      this.#probeTimer = setTimeout(() => this.#onClose(1006, ""), PROBE_TIMEOUT_MS);
    }
  }

  #open() {
    this.#close();
    this.#listener.onState("connecting");
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    this.#startTimeout();
    socket.onopen = () => {
      this.#nameRetries = 0;
      this.#sendJoin();
    };
    socket.onmessage = ({ data }) => this.#onMessage(data);
    socket.onclose = ({ code, reason }) => this.#onClose(code, reason);
  }

  #sendJoin() {
    this.#socket.send(JSON.stringify({ type: "join", username: this.#name }));
    this.#startTimeout();
  }

  #onMessage(data) {
    this.#receivedAt = Date.now();
    this.#stopProbe(); // any message proves that the connection works
    let message;
    try {
      message = JSON.parse(data);
    } catch {
      return;
    }
    if (this.#isMember) {
      if (!this.#isProbeResponse(message)) this.#listener.onMessage(message);
    } else if (message.type === "user_list") {
      clearTimeout(this.#timer);
      const isRejoin = this.#wasMember;
      this.#isMember = this.#wasMember = true;
      this.#failures = 0;
      this.#listener.onState("online");
      this.#listener.onMessage(message);
      this.#listener.onJoined(isRejoin);
    } else if (message.type === "error") {
      this.#onJoinError(message.content);
    }
  }

  // A timed-out member gets the time left instead of the error.
  #isProbeResponse({ type, content }) {
    if (this.#unansweredProbes === 0) return false;
    const isResponse =
      (type === "error" && content.includes(`"${PROBE_TYPE}"`)) ||
      (type === "system" && content.startsWith("You are timed out:"));
    if (isResponse) this.#unansweredProbes -= 1;
    return isResponse;
  }

  #onJoinError(reason) {
    if (this.#wasMember && this.#nameRetries < NAME_RETRIES) {
      this.#nameRetries += 1;
      this.#listener.onState("name-in-use");
      this.#setTimer(NAME_RETRY_MS, () => this.#sendJoin());
    } else {
      // The socket stays open for another name.
      clearTimeout(this.#timer);
      this.#rejectJoin(reason);
    }
  }

  #onClose(code, reason) {
    const wasJoined = this.#isMember;
    this.#close();
    if (this.#name === null) return;
    if (!this.#wasMember) {
      this.#rejectJoin("Couldn't connect. The server may be unreachable or full. Try again in a moment.");
      return;
    }
    if (wasJoined) this.#listener.onDisconnected(code, reason);
    const backoff = Math.min(MAX_BACKOFF_MS, MIN_BACKOFF_MS * 2 ** this.#failures);
    this.#failures += 1;
    // Jitter, so that clients do not all reconnect at once after a restart.
    const delay = backoff * (0.5 + Math.random() / 2);
    this.#listener.onState("backoff", delay / 1000);
    this.#setTimer(delay, () => this.#open());
  }

  #rejectJoin(reason) {
    this.#name = null;
    this.#wasMember = false;
    this.#listener.onState("idle");
    this.#listener.onJoinRejected(reason);
  }

  // Later events of the socket are ignored.
  #close() {
    clearTimeout(this.#timer);
    this.#stopProbe();
    this.#unansweredProbes = 0;
    this.#isMember = false;
    if (this.#socket) {
      this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
      this.#socket.close();
      this.#socket = null;
    }
  }

  #stopProbe() {
    clearTimeout(this.#probeTimer);
    this.#probeTimer = 0;
  }

  #startTimeout() {
    this.#setTimer(CONNECT_TIMEOUT_MS, () => this.#onClose(1006, ""));
  }

  #setTimer(ms, callback) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(callback, ms);
  }
}
