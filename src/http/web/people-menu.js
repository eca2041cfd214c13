// The menus of people and of messages. What the server would refuse is left out.

import { $ } from "./dom.js";
import { copyText } from "./formatting.js";
import { openMenu } from "./menu.js";
import { askToBan, askToDelete, askToKick, askToTimeOut, quote } from "./moderation.js";
import { amModerator, findPerson, isMe } from "./people.js";

/** @type {(command: string) => void} */
let run;
/** @type {Record<"whisper" | "mention" | "showWhispers", (name: string) => void>} */
let actions;

/** @param {typeof run} runCommand @param {typeof actions} newActions */
export function connectMenus(runCommand, newActions) {
  run = runCommand;
  actions = newActions;
}

/** @param {string} name @param {HTMLElement} anchor */
export function openPersonMenu(name, anchor) {
  const own = [{ label: "Settings", action: () => $("settings-panel").showPopover() }];
  openMenu(anchor, name, [isMe(name) ? own : contactItems(name), ...moderationItems(name)]);
}

/**
 * @param {{ id?: number, sender: string, text: string, isOwn: boolean, isWhisper: boolean, recipient: string | null,
 *   anchor: HTMLElement }} message
 */
export function openMessageMenu({ id, sender, text, isOwn, isWhisper, recipient, anchor }) {
  const isDeleted = text === "";
  const canDelete = !isDeleted && id !== undefined && (isOwn || (amModerator() && !isWhisper));
  const items = [
    !isDeleted && { label: "Copy text", action: () => copyText(text) },
    canDelete && { label: "Delete…", action: async () => run(await askToDelete(id, text)), isDanger: true },
  ];
  const other = (isOwn ? recipient : sender) ?? "";
  const [whisper, mention, ...rest] = contactItems(other);
  openMenu(anchor, isOwn ? "Your message" : sender, [
    [!isOwn && mention && { ...mention, label: "Reply" }, whisper, ...(isWhisper ? rest : [])],
    items,
    ...(isOwn ? [] : moderationItems(sender)),
  ]);
}

/** @param {string} name */
function contactItems(name) {
  if (isMe(name) || !findPerson(name)) return [];
  return [
    { label: "Whisper", action: () => actions.whisper(name) },
    { label: "Mention", action: () => actions.mention(name) },
    { label: "Show whispers", action: () => actions.showWhispers(name) },
  ];
}

/** @param {string} name */
function moderationItems(name) {
  if (!amModerator()) return [];
  const person = findPerson(name);
  const other = !isMe(name) && person;
  return [
    [
      other && { label: "Time out…", action: async () => run(await askToTimeOut(name)) },
      person?.is_timed_out && { label: "End time-out", action: () => run(`/unto ${quote(name)}`) },
      person && { label: "Info", action: () => run(`/info ${quote(name)}`) },
    ],
    // Someone who has left can only be banned.
    [
      other && { label: "Kick…", action: async () => run(await askToKick(name)), isDanger: true },
      !isMe(name) && { label: "Ban…", action: async () => run(await askToBan(name, !!person)), isDanger: true },
    ],
  ];
}
