// What is asked before something is done to a link or a migration.

import { beginMigration, changeLink, createLink, deleteLink, linkAction, migrationAction } from "../../api/zksync";
import type { Action, Migration, SyncLink } from "../../model/sync";
import { refresh } from "../../state/poll";
import { go, question } from "../../state/shell";

async function done(work: Promise<void>, words: string): Promise<string> {
  await work;
  refresh("zk/");
  return words;
}

export function askForLink(): void {
  question.value = {
    title: "A new link",
    text: "What A has is copied to B, and from then on every change as it happens. A plan with mappings, policies and credentials is made with “orchestrator zk plan”.",
    action: "Make the link",
    fields: [
      { name: "id", label: "Name", kind: "text", value: "", hint: "Letters, digits, - and _" },
      { name: "a", label: "A: host:port,host:port/chroot", kind: "text", value: "" },
      { name: "b", label: "B: host:port,host:port/chroot", kind: "text", value: "" },
      { name: "both", label: "In both directions", kind: "checkbox", value: "false" },
      { name: "manual", label: "Conflicts wait for a person", kind: "checkbox", value: "false", hint: "Else the last write wins." },
    ],
    run: async (values) => {
      const id = (values["id"] ?? "").trim();
      const definition = {
        id,
        a: { connect: (values["a"] ?? "").trim() },
        b: { connect: (values["b"] ?? "").trim() },
        mode: values["both"] === "true" ? "both" : "a_to_b",
        strategy: values["manual"] === "true" ? "manual" : "last_write_wins",
      };
      const words = await done(createLink(definition), `The link ${id} runs.`);
      go("zookeeper", ["link", id]);
      return words;
    },
  };
}

export function askToPause(link: SyncLink): void {
  question.value = { title: `Pause ${link.id}`, text: "Nothing is carried until it is resumed; nothing is lost.", action: "Pause", isGrave: true, run: () => done(linkAction(link.id, "pause"), `${link.id} is paused.`) };
}

export function resume(link: SyncLink): void {
  question.value = { title: `Resume ${link.id}`, text: "What has changed meanwhile is carried now.", action: "Resume", run: () => done(linkAction(link.id, "resume"), `${link.id} goes on.`) };
}

export function askToResync(link: SyncLink): void {
  question.value = { title: `Read both sides of ${link.id} again`, text: "Everything is compared and what differs is carried. This takes as long as the first copy at most.", action: "Read again", run: () => done(linkAction(link.id, "resync"), `${link.id} is read again.`) };
}

export function askToApproveDeletes(link: SyncLink): void {
  const count = link.status?.heldDeletes ?? 0;
  question.value = {
    title: `Carry out ${count} deletes`,
    text: "They were held back because so many came at once. What they delete on the other side is gone.",
    action: "Delete",
    isGrave: true,
    typed: link.id,
    run: () => done(linkAction(link.id, "approve-deletes"), "They are carried out."),
  };
}

export function askToChange(link: SyncLink, change: { mode?: string; strategy?: string }, words: string): void {
  question.value = { title: `Change ${link.id}`, text: words, action: "Change", isGrave: true, run: () => done(changeLink(link.id, change), `${link.id} is changed.`) };
}

export function askToDelete(link: SyncLink): void {
  question.value = {
    title: `End the link ${link.id}`,
    text: "Nothing is carried any more. What was copied stays on both sides.",
    action: "End it",
    isGrave: true,
    typed: link.id,
    run: async () => {
      const words = await done(deleteLink(link.id), `The link ${link.id} is ended.`);
      go("zookeeper");
      return words;
    },
  };
}

export function askToMigrate(link: SyncLink): void {
  question.value = {
    title: `Move the clients of A to B`,
    text: "Both sides are looked at, copied and compared; nothing is switched before you say so.",
    action: "Begin",
    fields: [{ name: "none", label: "Nobody may be connected to A any more before it counts as done", kind: "checkbox", value: "true" }],
    run: (values) => done(beginMigration(link.id, values["none"] === "true"), "The migration has begun."),
  };
}

const WORDS: Readonly<Record<Action, { action: string; text: string; isGrave?: boolean; isTyped?: boolean }>> = {
  cutover: { action: "Cut over", text: "The writers are stopped, the last changes are carried, both sides are compared, and the clients are sent to B.", isGrave: true, isTyped: true },
  advance: { action: "The clients are moved", text: "Say so when every client has been given B's addresses. Who is still connected to A is looked at next." },
  complete: { action: "Complete", text: "A is not kept in step any more. There is no way back after this.", isGrave: true, isTyped: true },
  pause: { action: "Pause", text: "It stays in this phase until it is resumed." },
  resume: { action: "Resume", text: "It goes on." },
  rollback: { action: "Roll back", text: "The clients go back to A; what they wrote on B is carried back to A.", isGrave: true, isTyped: true },
};

export function actionWords(action: Action): string {
  return WORDS[action].action;
}

export function isGrave(action: Action): boolean {
  return WORDS[action].isGrave === true;
}

export function askToAct(id: string, migration: Migration, action: Action): void {
  const isBack = migration.phase.startsWith("rollback");
  const words = action === "advance" && isBack ? { ...WORDS.advance, text: "Say so when every client has been given A's addresses again. Who is still connected to B is looked at next." } : WORDS[action];
  const holders = isBack ? "" : migration.holders.length > 0 && (action === "complete" || action === "advance") ? ` ${migration.holders.length === 1 ? "One process is" : `${migration.holders.length} processes are`} still connected to A.` : "";
  question.value = {
    title: `${words.action}: ${id}`,
    text: `${words.text}${holders}`,
    action: words.action,
    ...(words.isGrave ? { isGrave: true } : {}),
    ...(words.isTyped ? { typed: id } : {}),
    run: () => done(migrationAction(id, action), `${words.action}: it is being done.`),
  };
}
