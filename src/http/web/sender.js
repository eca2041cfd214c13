// Sends what the user writes, resends it after a lost connection if necessary, and shows its delivery state.

import { isLogin, setDraft } from "./composer.js";
import { $ } from "./dom.js";
import { addMessage, addNotice, confirmMessage, failMessage, removeRow } from "./message-log.js";
import { setDeliveryState } from "./message-row.js";
import { Outbox } from "./outbox.js";
import { load, save } from "./storage.js";

const WHISPER = /^\/whisper\s+\S+\s+\S/;
const SLOW_MS = 1_000; // then the message is shown as being sent
const OVERDUE_MS = 3_000; // then the connection is checked

export class Sender {
  isTimedOut = false;
  #connection;
  #outbox = new Outbox(load("outbox"), (items) => save("outbox", items.length > 0 ? items : null));

  constructor(connection) {
    this.#connection = connection;
  }

  get position() {
    return this.#outbox.position;
  }

  get hasUnsent() {
    return this.#outbox.items.length > 0;
  }

  // Returns an error message, or null on success.
  submit(content) {
    if (this.isTimedOut) return "You're timed out and can only read for now.";
    const command = WHISPER.test(content) ? "whisper" : "command";
    const kind = content.startsWith("/") ? command : "public";
    if (kind === "command" && !this.#connection.isOnline) return "Commands can't be sent while you're offline.";
    if (this.#outbox.isFull) return "Too many messages are waiting to be sent.";
    this.#outbox.add(content, kind);
    this.sendWaiting();
    return null;
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

  // Takes a message of the history or a whisper's echo. Returns whether it is one of the user's that is shown already.
  confirm(message) {
    const item = this.#outbox.remove(message.txn_id);
    if (!item?.row) return false;
    if (item.kind === "public") confirmMessage(item.row, message);
    else removeRow(item.row);
    return item.kind === "public";
  }

  // The same for a message that is older than those shown.
  confirmOlder(message) {
    const item = this.#outbox.remove(message.txn_id);
    if (item?.row) removeRow(item.row);
  }

  onAck(message) {
    this.confirm(message);
  }

  // Returns whether the error is shown at the message that it answers.
  onError({ txn_id: txnId, content }) {
    const item = this.#outbox.remove(txnId);
    if (!item?.row) return false;
    failMessage(item.row, `Not sent: ${content}`);
    return true;
  }

  // After the messages of the answer to a join have been passed to confirm().
  onJoined(answer) {
    for (const { content } of this.#outbox.reconcile(answer)) {
      const shown = isLogin(content) ? "/login" : content; // without the password
      const isReturned = returnText(content);
      const where = isReturned ? " It is back in the message box." : "";
      addNotice("error", `The connection was lost, so this command may not have run: ${shown}.${where}`);
    }
    this.sendWaiting();
  }

  // The server has closed the connection because a message was too long. It does not say which.
  onTooLong() {
    const sent = this.#outbox.items.filter(({ state }) => state === "sent");
    const [item] = sent.sort((one, other) => other.content.length - one.content.length);
    if (!item) return;
    this.#outbox.remove(item.txnId);
    if (item.row) failMessage(item.row, "Not sent: too long");
    returnText(item.content);
  }

  clear() {
    this.#outbox.clear();
  }

  #send(item) {
    const type = item.kind === "public" ? "public" : "command";
    if (!this.#connection.send({ type, content: item.content, txn_id: item.txnId })) return;
    this.#outbox.markSent(item, this.#connection.position);
    item.sentAt = Date.now();
    setTimeout(() => this.#showState(item), SLOW_MS);
    setTimeout(() => this.#outbox.has(item) && this.#connection.isOnline && this.#connection.check(), OVERDUE_MS);
  }

  #showState(item) {
    if (!this.#outbox.has(item) || item.kind === "command") return;
    const isSlow = Date.now() - item.sentAt >= SLOW_MS;
    let state = isSlow ? "Sending…" : "";
    if (item.state === "waiting" || !this.#connection.isOnline) state = "Not sent yet";
    if (item.state === "unknown") state = "May not have been sent";
    // A whisper is shown when the server returns it, as the server understood it; until then only if that takes long.
    if (state === "" && item.kind === "whisper" && !item.row) return;
    const recipient = item.kind === "whisper" ? "" : null;
    item.row ??= addMessage({ sender: this.#connection.name, text: item.content, isOwn: true, recipient });
    setDeliveryState(item.row, state, item.state === "unknown" ? () => this.#sendAgain(item) : null);
  }

  #sendAgain(item) {
    this.#outbox.remove(item.txnId);
    removeRow(item.row);
    this.#outbox.add(item.content, item.kind);
    this.sendWaiting();
    $("message-input").focus();
  }
}

// Puts the text back into the message box, unless it contains a password or the user is writing something else. Returns
// whether it did.
function returnText(text) {
  if (isLogin(text) || $("message-input").value !== "") return false;
  setDraft(text);
  return true;
}
