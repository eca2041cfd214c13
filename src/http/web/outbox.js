// Messages not yet acknowledged, in the order of sending. Pure: no DOM, no socket.

/**
 * @typedef {object} Content
 * @property {"public" | "whisper" | "command"} kind
 * @property {string} content
 * @property {string | null} to the recipient of a whisper; null: `content` is a command that names the recipient
 * @property {boolean} [isTyped] false: a menu wrote it
 *
 * @typedef {object} Delivery
 * @property {string} from the user's name
 * @property {string} txnId the server returns it in the ack, the error and the history
 * @property {"waiting" | "sent" | "unknown"} state "waiting": to be sent; "unknown": it was sent, and may have arrived
 * @property {Position | null} position when it was sent
 *
 * @typedef {{ epoch: string, since: number }} Position the newest message known
 * @typedef {Content & Delivery & { row?: HTMLElement | null, sentAt?: number }} Item `row` and `sentAt` are not saved
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
    this.#items = saved ?? [];
    this.#save = save;
    this.#onChange();
  }

  get isFull() {
    return this.#items.length >= MAX_ITEMS;
  }

  /** Messages sent under another name wait until the user has that name again. @param {string} name */
  items(name) {
    return this.#items.filter(({ from }) => from === name);
  }

  // Commands are not: they may contain passwords.
  get saved() {
    const items = this.#items.filter(({ kind }) => kind !== "command");
    return items.map((item) => ({ ...item, row: undefined, sentAt: undefined }));
  }

  /** The position to resume from: everything after it shows which items arrived. @param {string} name */
  position(name) {
    return this.items(name).find((item) => item.state === "sent")?.position ?? null;
  }

  /** @param {Content} content @param {string} from */
  add(content, from) {
    this.#items.push({ ...content, from, txnId: newTxnId(), state: "waiting", position: null });
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

  /**
   * Keeps what a reload preserves, or nothing, of the items sent under this name.
   * @param {string} name
   * @param {boolean} keeps
   */
  leave(name, keeps) {
    this.#items = this.#items.filter(({ from, kind }) => from !== name || (keeps && kind !== "command"));
    for (const item of this.items(name)) item.row = null;
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
   * @param {string} name
   */
  reconcile({ epoch, recovered }, name) {
    for (const item of this.items(name).filter(({ state }) => state === "sent")) {
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

// crypto.randomUUID() exists only where the page came over TLS or from this machine.
function newTxnId() {
  const bytes = crypto.getRandomValues(new Uint8Array(TXN_ID_LENGTH / 2));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
