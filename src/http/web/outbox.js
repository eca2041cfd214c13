// Messages not yet acknowledged, in the order of sending. Pure: no DOM, no socket.
//
// An item has these fields:
//   txnId     identifies the item; the server returns it in the ack, the error and the history
//   kind      "public", "whisper" or "command"
//   content   as the user wrote it
//   state     "waiting" (to be sent), "sent", or "unknown": it was sent, and it is not known whether it arrived
//   position  { epoch, since }: the newest message known when it was sent

const MAX_ITEMS = 50; // messages

export class Outbox {
  #items = [];
  #save;

  // Calls `save` with what a reload must preserve, after each change. `saved` is what it was last called with.
  constructor(saved, save) {
    this.#items = saved ?? [];
    this.#save = save;
  }

  get isFull() {
    return this.#items.length >= MAX_ITEMS;
  }

  get items() {
    return [...this.#items];
  }

  // The position to resume from after a reload: everything after it shows which items arrived.
  get position() {
    return this.#items.find((item) => item.state === "sent")?.position ?? null;
  }

  add(content, kind) {
    const item = { txnId: newTxnId(), kind, content, state: "waiting", position: null };
    this.#items.push(item);
    this.#onChange();
    return item;
  }

  has(item) {
    return this.#items.includes(item);
  }

  // Returns what it removed, if anything.
  remove(txnId) {
    const index = this.#items.findIndex((item) => item.txnId === txnId);
    if (index < 0) return null;
    const [item] = this.#items.splice(index, 1);
    this.#onChange();
    return item;
  }

  clear() {
    this.#items = [];
    this.#onChange();
  }

  markSent(item, position) {
    item.state = "sent";
    item.position = { ...position };
    this.#onChange();
  }

  // Decides about each sent item that was not in the answer to a join, and returns the commands that may not have run.
  reconcile({ epoch, recovered }) {
    for (const item of this.#items.filter(({ state }) => state === "sent")) {
      // In a new epoch the server has no earlier messages, so the item is sent again.
      const isAbsent = recovered === true || item.position.epoch !== epoch;
      item.state = isAbsent && item.kind !== "command" ? "waiting" : "unknown";
    }
    // Most commands are not in the history, so it does not show whether they ran.
    const commands = this.#items.filter(({ kind }) => kind === "command");
    this.#items = this.#items.filter((item) => !commands.includes(item));
    this.#onChange();
    return commands;
  }

  // Commands are not saved: they may contain passwords.
  #onChange() {
    const items = this.#items.filter(({ kind }) => kind !== "command");
    this.#save(
      items.map(({ txnId, kind, content, state, position }) => ({ txnId, kind, content, state, position })),
    );
  }
}

// crypto.randomUUID() exists only where the page came over TLS or from this machine.
function newTxnId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
