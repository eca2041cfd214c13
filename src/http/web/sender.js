// Sends what the user writes, resends it after a lost connection if necessary, and shows its delivery state.

import { inBytes, isLogin, returnText } from "./composer.js";
import { $ } from "./dom.js";
import { setDeliveryState } from "./formatting.js";
import { addMessage, addNotice, confirmMessage, endPending, removeRow } from "./message-log.js";
import { Outbox, TXN_ID_LENGTH } from "./outbox.js";
import { load, save } from "./storage.js";

/**
 * @typedef {import("./outbox.js").Content} Content
 * @typedef {import("./outbox.js").Item} Item
 * @typedef {{ txn_id?: string, to?: string, id: number, time: string, content: string }} Message
 */

const WHISPER = /^\/whisper\s+\S+\s+\S/;
const SLOW_MS = 1_000; // then the message is shown as being sent
const OVERDUE_MS = 3_000; // then the connection is tested

export class Sender {
  isTimedOut = false;
  #connection;
  #outbox = new Outbox(load("outbox"), saveOutbox);

  /** @param {import("./connection.js").Connection} connection */
  constructor(connection) {
    this.#connection = connection;
  }

  /** @param {string} name */
  position(name) {
    return this.#outbox.position(name);
  }

  // Whether there are messages that the server has not confirmed, under whatever name.
  get hasUnsent() {
    return this.#outbox.saved.length > 0;
  }

  // How many there are under this name.
  get unsent() {
    return this.#items.filter(({ kind }) => kind !== "command").length;
  }

  /**
   * Sends the text: to everyone, to the recipient, or as a command. Returns an error message, or null on success.
   * @param {string} text
   * @param {string | null} recipient
   */
  submit(text, recipient) {
    const [content, excess] = [parse(text, recipient), this.excess(text, recipient)];
    if (this.isTimedOut) return "You're timed out and can only read for now.";
    if (content.kind === "command" && !this.#connection.isOnline) return "Commands can't be sent while you're offline.";
    if (this.#outbox.isFull) return "Too many messages are waiting to be sent.";
    if (excess > 0) return `Your message is ${inBytes(excess)} over the limit.`;
    this.#outbox.add(content, this.#connection.name);
    this.sendWaiting();
    return null;
  }

  /**
   * By how many bytes the text exceeds the server's limit; negative if it does not.
   * @param {string} text
   * @param {string | null} recipient
   */
  excess(text, recipient) {
    return this.#excess({ ...parse(text, recipient), txnId: "0".repeat(TXN_ID_LENGTH) });
  }

  sendWaiting() {
    for (const item of this.#items) {
      if (item.state === "waiting" && !this.isTimedOut) this.#send(item);
    }
    this.showStates();
  }

  showStates() {
    for (const item of this.#items) this.#showState(item);
  }

  /**
   * Takes a message of the history or a whisper's echo. Returns whether it is one of the user's that is shown already.
   * @param {Message} message
   */
  confirm(message) {
    const item = this.#outbox.remove(message.txn_id);
    if (!item?.row) return false;
    // For a command, the server decides to whom it whispers.
    const isSame = item.kind === "public" || (item.to !== null && item.to === message.to);
    if (isSame) confirmMessage(item.row, message);
    else removeRow(item.row);
    return isSame;
  }

  /** The same for a message that is older than those shown. @param {Message} message */
  confirmOlder(message) {
    const item = this.#outbox.remove(message.txn_id);
    if (item?.row) removeRow(item.row);
  }

  /** Returns whether the error is shown at the message that it answers. @param {Message} error */
  onError({ txn_id: txnId, content }) {
    const item = this.#outbox.remove(txnId);
    if (item?.row) endPending(item.row, `Not sent: ${content}`);
    else if (item) giveBack(item);
    return Boolean(item?.row);
  }

  /**
   * After the messages of the answer to a join have been passed to confirm().
   * @param {{ epoch: string, recovered?: boolean }} answer
   */
  onJoined(answer) {
    for (const item of this.#outbox.reconcile(answer, this.#connection.name)) {
      const shown = isLogin(item.content) ? "/login" : item.content; // without the password
      const where = giveBack(item) ? " It's back in the message box." : "";
      addNotice("error", `The connection was lost, so this command may not have run: ${shown}.${where}`);
    }
    this.sendWaiting();
  }

  /** The user leaves, and the log is cleared. @param {boolean} keeps */
  leave(keeps) {
    this.#outbox.leave(this.#connection.name, keeps);
  }

  get #items() {
    return this.#outbox.items(this.#connection.name);
  }

  /** @param {Content & { txnId: string }} item */
  #excess(item) {
    const { length } = new TextEncoder().encode(JSON.stringify(frame(item)));
    return length - this.#connection.maxMessageBytes;
  }

  /** @param {Item} item */
  #send(item) {
    // The limit may have been higher when it was written. The server would close the connection.
    if (this.#connection.isOnline && this.#excess(item) > 0) {
      this.#outbox.remove(item.txnId);
      if (item.row) endPending(item.row, "Not sent: too long");
      giveBack(item);
      return;
    }
    if (!this.#connection.send(frame(item))) return;
    this.#outbox.markSent(item, this.#connection.position);
    item.sentAt = Date.now();
    setTimeout(() => this.#showState(item), SLOW_MS);
    setTimeout(() => this.#outbox.has(item) && this.#connection.test(), OVERDUE_MS);
  }

  /** @param {Item} item */
  #showState(item) {
    if (!this.#outbox.has(item) || item.kind === "command") return;
    let state = item.sentAt && Date.now() - item.sentAt >= SLOW_MS ? "Sending…" : "";
    if (item.state === "waiting" || !this.#connection.isOnline) state = "Not sent yet";
    if (item.state === "unknown") state = "May not have been sent";
    // A command that whispers is shown when the server returns it, as the server understood it; until then only if that
    // takes long.
    if (state === "" && item.kind === "whisper" && item.to === null && !item.row) return;
    const recipient = item.kind === "whisper" ? (item.to ?? "") : null;
    item.row ??= addMessage({ sender: item.from, text: item.content, isOwn: true, recipient });
    if (item.row) setDeliveryState(item.row, state, item.state === "unknown" ? () => this.#sendAgain(item) : null);
  }

  /** @param {Item} item */
  #sendAgain({ kind, content, to, from, txnId, row }) {
    this.#outbox.remove(txnId);
    if (row) removeRow(row);
    this.#outbox.add({ kind, content, to }, from);
    this.sendWaiting();
    $("message-input").focus();
  }
}

// Closing or reloading the tab asks the user only if there is something to lose: a listener that is always there can
// make browsers load the page anew when the user comes back to it.
/** @param {Item[]} items */
function saveOutbox(items) {
  save("outbox", items.length > 0 ? items : null);
  if (items.length > 0) addEventListener("beforeunload", preventUnload);
  else removeEventListener("beforeunload", preventUnload);
}

/** @param {Event} event */
function preventUnload(event) {
  event.preventDefault();
}

/** @param {string} text @param {string | null} to @returns {Content} */
function parse(text, to) {
  if (/^\/(?!\/)/.test(text)) return { kind: WHISPER.test(text) ? "whisper" : "command", content: text, to: null };
  return { kind: to === null ? "public" : "whisper", content: text.replace(/^\/\//, "/"), to };
}

/** The message as the server gets it. @param {Content & { txnId: string }} item */
function frame({ kind, content, to, txnId: txn_id }) {
  if (to !== null) return { type: "private", to, content, txn_id };
  return { type: kind === "public" ? "public" : "command", content, txn_id };
}

/** Puts what was not sent back into the message box. Returns whether it did. @param {Item} item */
function giveBack({ kind, content, to }) {
  const isText = kind === "public" || to !== null;
  return returnText(isText ? content.replace(/^\//, "//") : content, isText ? to : undefined);
}
