// Messages not yet acknowledged, in the order of sending. Pure: no DOM, no socket.

/**
 * What is to be sent.
 * @typedef {object} Content
 * @property {"public" | "whisper" | "command"} kind
 * @property {string} content
 * @property {string | null} to the recipient of a whisper; null: `content` is a command that names the recipient
 */
/** @typedef {{ epoch: string, since: number }} Position the newest message known */
/**
 * @typedef {object} Delivery
 * @property {string} txnId identifies the item; the server returns it in the ack, the error and the history
 * @property {"waiting" | "sent" | "unknown"} state "waiting": to be sent; "unknown": it was sent, and it is not known
 *   whether it arrived
 * @property {Position | null} position when it was sent
 */
/**
 * The rest is not saved.
 * @typedef {Content & Delivery & { row?: HTMLElement | null, sentAt?: number, isFromMenu?: boolean }} Item
 */

const MAX_ITEMS = 50; // messages
export const TXN_ID_LENGTH = 32; // characters

export class Outbox {
  /** @type {Item[]} */
  #items;
  #save;

  /**
   * Calls `save` with what a reload must preserve, after each change. `saved` is what it was last called with.
   * @param {Item[] | null} saved
   * @param {(items: Item[]) => void} save
   */
  constructor(saved, save) {
    this.#items = (saved ?? []).map((item) => ({ ...item, to: item.to ?? null }));
    this.#save = save;
  }

  get isFull() {
    return this.#items.length >= MAX_ITEMS;
  }

  get items() {
    return [...this.#items];
  }

  // What a reload must preserve. Commands are not: they may contain passwords.
  get saved() {
    const items = this.#items.filter(({ kind }) => kind !== "command");
    return items.map(({ txnId, kind, content, to, state, position }) => ({ txnId, kind, content, to, state, position }));
  }

  // The position to resume from after a reload: everything after it shows which items arrived.
  get position() {
    return positionOf(this.#items);
  }

  /** @param {Content} content @returns {Item} */
  add(content) {
    /** @type {Item} */
    const item = { txnId: newTxnId(), ...content, state: "waiting", position: null };
    this.#items.push(item);
    this.#onChange();
    return item;
  }

  /** Puts items before all others. @param {Item[]} items */
  restore(items) {
    this.#items.unshift(...items);
    this.#onChange();
  }

  /** @param {Item} item */
  has(item) {
    return this.#items.includes(item);
  }

  /** Returns what it removed, if anything. @param {string | undefined} txnId */
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

  /** @param {Item} item @param {Position} position */
  markSent(item, position) {
    item.state = "sent";
    item.position = { ...position };
    this.#onChange();
  }

  /**
   * Decides about each sent item that was not in the answer to a join, and returns the commands that may not have run.
   * @param {{ epoch: string, recovered?: boolean }} answer
   */
  reconcile({ epoch, recovered }) {
    for (const item of this.#items.filter(({ state }) => state === "sent")) {
      // In a new epoch the server has no earlier messages, so the item is sent again.
      const isAbsent = recovered === true || item.position?.epoch !== epoch;
      item.state = isAbsent && item.kind !== "command" ? "waiting" : "unknown";
    }
    // Most commands are not in the history, so it does not show whether they ran.
    const commands = this.#items.filter(({ kind }) => kind === "command");
    this.#items = this.#items.filter((item) => !commands.includes(item));
    this.#onChange();
    return commands;
  }

  #onChange() {
    this.#save(this.saved);
  }
}

/** @param {Item[]} items */
export function positionOf(items) {
  return items.find((item) => item.state === "sent")?.position ?? null;
}

// crypto.randomUUID() exists only where the page came over TLS or from this machine.
function newTxnId() {
  const bytes = crypto.getRandomValues(new Uint8Array(TXN_ID_LENGTH / 2));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
