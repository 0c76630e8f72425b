// What Mesos' Docker containerizer calls its containers.

const NAME = /mesos-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/i;

/** The Mesos container that the texts of a node tell of; `null` when it is none. */
export function mesosContainerOf(texts: readonly string[]): string | null {
  for (const text of texts) {
    const match = NAME.exec(text);
    if (match?.[1] !== undefined) return match[1];
  }
  return null;
}
