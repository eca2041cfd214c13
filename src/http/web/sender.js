// Sends what the user writes, resends it after a lost connection if necessary, and shows its delivery state.

import { isLogin, restoreDrafts, returnText, takeDrafts } from "./composer.js";
import { $ } from "./dom.js";
import { addMessage, addNotice, confirmMessage, failMessage, removeRow } from "./message-log.js";
import { setDeliveryState } from "./message-row.js";
import { Outbox, TXN_ID_LENGTH, positionOf } from "./outbox.js";
import { load, save } from "./storage.js";

/** @typedef {import("./outbox.js").Content} Content */
/** @typedef {import("./outbox.js").Item} Item */
/** @typedef {{ type: string, txn_id?: string, to?: string, id: number, time: string, content: string }} Message */

const WHISPER = /^\/whisper\s+\S+\s+\S/;
const SLOW_MS = 1_000; // then the message is shown as being sent
const OVERDUE_MS = 3_000; // then the connection is tested

export class Sender {
  isTimedOut = false;
  #connection;
  #outbox = new Outbox(load("outbox"), (items) => this.#save(items));

  /** @param {import("./connection.js").Connection} connection */
  constructor(connection) {
    this.#connection = connection;
    this.#save(this.#outbox.saved);
  }

  get position() {
    return this.#outbox.position;
  }

  // How many messages the server has not confirmed.
  get unsent() {
    return this.#outbox.saved.length;
  }

  /**
   * Sends what the user has written: to everyone, to the recipient, or as a command. Returns an error message, or null
   * on success.
   * @param {string} text @param {string | null} recipient
   */
  submit(text, recipient) {
    return this.#submit(parse(text, recipient));
  }

  /**
   * The same for a command that the user has not typed, so that it is not put back into the message box if it fails.
   * @param {string} content
   */
  command(content) {
    return this.#submit({ kind: "command", content, to: null }, true);
  }

  /** The size of the text as it would be sent. @param {string} text @param {string | null} recipient */
  measure(text, recipient) {
    return this.#measure(parse(text, recipient));
  }

  sendWaiting() {
    for (const item of this.#outbox.items) {
      if (item.state === "waiting" && !this.isTimedOut) this.#send(item);
    }
    this.showStates();
  }

  showStates() {
    for (const item of this.#outbox.items) this.#showState(item);
  }

  /**
   * Takes a message of the history or a whisper's echo. Returns whether it is one of the user's that is shown already.
   * @param {Message} message
   */
  confirm(message) {
    const item = this.#outbox.remove(message.txn_id);
    if (!item?.row) return false;
    // The server decides to whom a command whispers, and how the name is written.
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

  /** @param {Message} message */
  onAck(message) {
    this.confirm(message);
  }

  /** Returns whether the error is shown at the message that it answers. @param {Message} error */
  onError({ txn_id: txnId, content }) {
    const item = this.#outbox.remove(txnId);
    if (!item) return false;
    if (item.row) failMessage(item.row, `Not sent: ${content}`);
    else this.#return(item);
    return Boolean(item.row);
  }

  /**
   * After the messages of the answer to a join have been passed to confirm().
   * @param {{ epoch: string, recovered?: boolean }} answer
   */
  onJoined(answer) {
    for (const item of this.#outbox.reconcile(answer)) {
      const shown = isLogin(item.content) ? "/login" : item.content; // without the password
      const where = this.#return(item) ? " It's back in the message box." : "";
      addNotice("error", `The connection was lost, so this command may not have run: ${shown}.${where}`);
    }
    this.sendWaiting();
  }

  /**
   * When the user leaves: puts away the drafts, and what has not been sent unless it is to be discarded, until
   * takeBack().
   * @param {string} name @param {boolean} discards
   */
  putAway(name, discards) {
    const kept = keptByName();
    if (discards) this.#outbox.clear();
    kept.set(name, { items: this.#outbox.saved, drafts: takeDrafts() });
    save("kept", [...kept]);
    this.#outbox.clear();
  }

  /** After a join under this name, and before the messages of the answer are passed to confirm(). @param {string} name */
  takeBack(name) {
    const kept = keptByName();
    const { items, drafts } = kept.get(name) ?? {};
    if (!items) return;
    kept.delete(name);
    save("kept", [...kept]);
    this.#outbox.restore(items);
    restoreDrafts(drafts);
  }

  /** The position from which a join shows what has arrived of what was put away. @param {string} name */
  keptPosition(name) {
    return positionOf(keptByName().get(name)?.items ?? []);
  }

  /** @param {Content} content */
  #submit(content, isFromMenu = false) {
    if (this.isTimedOut) return "You're timed out and can only read for now.";
    if (content.kind === "command" && !this.#connection.isOnline) return "Commands can't be sent while you're offline.";
    if (this.#outbox.isFull) return "Too many messages are waiting to be sent.";
    const { bytes, limit } = this.#measure(content);
    if (bytes > limit) return `That's ${(bytes - limit).toLocaleString("en")} bytes over the limit.`;
    this.#outbox.add(content).isFromMenu = isFromMenu;
    this.sendWaiting();
    return null;
  }

  /** @param {Content} content */
  #measure(content) {
    const json = JSON.stringify(frame({ ...content, txnId: "0".repeat(TXN_ID_LENGTH) }));
    return { bytes: new TextEncoder().encode(json).length, limit: this.#connection.maxMessageBytes };
  }

  /** @param {Item} item */
  #send(item) {
    const { bytes, limit } = this.#measure(item);
    if (this.#connection.isOnline && bytes > limit) {
      // The limit was higher when the user wrote it. The server would close the connection.
      this.#outbox.remove(item.txnId);
      if (item.row) failMessage(item.row, "Not sent: too long");
      this.#return(item);
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
    const isSlow = item.sentAt !== undefined && Date.now() - item.sentAt >= SLOW_MS;
    let state = isSlow ? "Sending…" : "";
    if (item.state === "waiting" || !this.#connection.isOnline) state = "Not sent yet";
    if (item.state === "unknown") state = "May not have been sent";
    // A command that whispers is shown when the server returns it, as the server understood it; until then only if that
    // takes long.
    const isCommand = item.kind === "whisper" && item.to === null;
    if (state === "" && isCommand && !item.row) return;
    const recipient = item.kind === "whisper" ? (item.to ?? "") : null;
    item.row ??= addMessage({ sender: this.#connection.name, text: item.content, isOwn: true, recipient });
    if (item.row) setDeliveryState(item.row, state, item.state === "unknown" ? () => this.#sendAgain(item) : null);
  }

  /** @param {Item} item */
  #sendAgain(item) {
    const { txnId, kind, content, to, row } = item;
    this.#outbox.remove(txnId);
    if (row) removeRow(row);
    this.#outbox.add({ kind, content, to });
    this.sendWaiting();
    $("message-input").focus();
  }

  /** Puts what was not sent back into the message box. Returns whether it did. @param {Item} item */
  #return({ kind, content, to, isFromMenu }) {
    if (isFromMenu) return false;
    const isText = kind === "public" || to !== null;
    return returnText(isText && content.startsWith("/") ? `/${content}` : content, isText ? to : undefined);
  }

  // Closing or reloading the tab asks the user only if there is something to lose. (A listener that is always there
  // makes browsers load the page anew when the user comes back to it.)
  /** @param {Item[]} items */
  #save(items) {
    save("outbox", items.length > 0 ? items : null);
    if (items.length > 0) addEventListener("beforeunload", preventUnload);
    else removeEventListener("beforeunload", preventUnload);
  }
}

/** @param {Event} event */
const preventUnload = (event) => event.preventDefault();

/** @returns {Map<string, any>} */
const keptByName = () => new Map(load("kept"));

/** @param {string} text @param {string | null} recipient @returns {Content} */
function parse(text, recipient) {
  if (/^\/(?!\/)/.test(text)) return { kind: WHISPER.test(text) ? "whisper" : "command", content: text, to: null };
  const content = text.startsWith("//") ? text.slice(1) : text;
  return { kind: recipient === null ? "public" : "whisper", content, to: recipient };
}

/** The message as the server gets it. @param {Content & { txnId: string }} item */
function frame({ kind, content, to, txnId: txn_id }) {
  if (kind === "public") return { type: "public", content, txn_id };
  return to === null ? { type: "command", content, txn_id } : { type: "private", to, content, txn_id };
}
