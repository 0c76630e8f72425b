"""The book in docs/: its links lead somewhere, its commands are run or say what they need, and what is generated is as the programs say."""

import dataclasses
import os
import re
import subprocess

from .common import ROOT, Missing

DOCS = ROOT / "docs"
# What stands before a block of commands: `<!-- tested -->`, `<!-- tested: prints TEXT -->` or `<!-- needs: a cluster -->`.
MARK = re.compile(r"<!-- (tested(?:: prints (?P<prints>.+))?|needs: (?P<needs>.+?)) -->")
GENERATED = re.compile(r"<!-- begin: (?P<command>[^>]+?) -->\n.*?<!-- end -->", re.S)


@dataclasses.dataclass
class Block:
    """Commands in a document."""

    line: int
    text: str
    tested: bool
    needs: str | None
    expected: list


def pages():
    """Every page of the book, and the documents at the top."""
    yield ROOT / "README.md"
    yield ROOT / "deploy/README.md"
    for path in sorted(DOCS.rglob("*.md")):
        # Why things are as they are is no instruction.
        if "decisions" not in path.parts:
            yield path


def blocks():
    """Path, text and blocks of commands of every page."""
    for path in pages():
        lines, these, at, mark = path.read_text().split("\n"), [], 0, None
        while at < len(lines):
            marked = MARK.search(lines[at])
            fence = re.match(r"(\s*)```(\w*)", lines[at])
            if marked:
                mark = marked
            elif fence:
                begun, indent = at + 1, len(fence[1])
                at += 1
                while at < len(lines) and not re.match(r"\s*```\s*$", lines[at]):
                    at += 1
                if fence[2] in ("sh", "bash"):
                    text = "\n".join(it[indent:] for it in lines[begun:at])
                    prints = [mark["prints"]] if mark and mark["prints"] else []
                    these.append(Block(begun, text, bool(mark) and mark[1].startswith("tested"), mark["needs"] if mark else None, prints))
                mark = None
            elif lines[at].strip():
                mark = None
            at += 1
        yield path.relative_to(ROOT), path.read_text(), these


def slug(title):
    """The anchor that a heading gets."""
    plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", title).strip().lower()
    return re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", plain))


def anchors(path):
    return {slug(it) for it in re.findall(r"^#+ (.+)$", path.read_text(), re.M)}


def check_documents(_):
    """Every page is led to, every link and picture is there, and every block of commands of the book is tested or says what it needs."""
    found = []
    summary = (DOCS / "SUMMARY.md").read_text()
    listed = {(DOCS / it).resolve() for it in re.findall(r"\]\(([^)#]+\.md)\)", summary)}
    found += [f"docs/SUMMARY.md: there is no {it}" for it in listed if not it.exists()]
    linked = {(path.parent / it).resolve() for path in pages() for it in re.findall(r"\]\(([^)\s#]+\.md)", path.read_text())}
    for path in pages():
        where = path.relative_to(ROOT)
        if DOCS in path.parents and path.name != "SUMMARY.md" and path.resolve() not in linked:
            found.append(f"{where}: nothing leads there; it belongs into docs/SUMMARY.md")
        text = re.sub(r"```.*?```", "", path.read_text(), flags=re.S)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:", target):
                continue
            file, _, anchor = target.partition("#")
            at = (path.parent / file).resolve() if file else path
            if not at.exists():
                found.append(f"{where}: {target} leads nowhere")
            elif anchor and at.suffix == ".md" and anchor not in anchors(at):
                found.append(f"{where}: {target}: there is no such heading")
    # mdBook has room for the pages of the summary alone, and takes a word in angle brackets for HTML: it would not be seen.
    for path in [*pages(), *sorted(DOCS.glob("decisions/*.md"))]:
        if DOCS not in path.parents or path.name == "SUMMARY.md":
            continue
        where = path.relative_to(ROOT)
        if path.resolve() not in listed:
            found.append(f"{where}: docs/SUMMARY.md does not list it, so the book has no such page")
        text = re.sub(r"```.*?```|`[^`]*`", "", path.read_text(), flags=re.S)
        found += [f"{where}: {it} is HTML to mdBook; it belongs into backquotes" for it in re.findall(r"<[a-z][\w-]*>", text)]
    # Nobody who is called at night has the right namespace chosen.
    for path in sorted((DOCS / "runbooks").glob("*.md")):
        for said in re.findall(r"kubectl [^`\n]+", path.read_text()):
            if not re.search(r" (-n|--namespace)[ =]| (kustomize|apply|create|label|taint) | clusterissuer", said):
                found.append(f"{path.relative_to(ROOT)}: {said!r} names no namespace")
    # What is only indented is seen by no check.
    deploying = (ROOT / "deploy/README.md").read_text()
    found += [f"deploy/README.md: {it.strip()!r} is not in a block with sh" for it in re.findall(r"^    (?:kubectl|helm|cargo|deploy/).*", deploying, re.M)]
    count = 0
    for where, _, these in blocks():
        for block in these:
            count += 1
            # The book's own, and what deploys; what stands at the top is for people who have nothing yet.
            if (ROOT / where).resolve() in {*listed, ROOT / "deploy/README.md"} and not block.tested and not block.needs:
                found.append(f"{where}:{block.line}: neither tested nor marked with what it needs")
    return found if count > 20 else [*found, "hardly any commands were found"]


def helped(binaries, command):
    """What a program says of itself."""
    program, *arguments = command.split()
    done = subprocess.run([binaries / program, *arguments], capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"], "COLUMNS": "100"})
    if done.returncode:
        raise AssertionError(f"{command}: {done.stderr.strip()}")
    return "\n".join(it.rstrip() for it in done.stdout.strip().splitlines())


def paths_of(openapi):
    """The table of an API's paths, from its description."""
    rows = []
    for path, methods in sorted(openapi["paths"].items()):
        for method, operation in methods.items():
            if method in ("get", "put", "post", "delete", "patch", "head"):
                said = (operation.get("summary") or operation.get("description") or "").split("\n")[0].replace("|", "\\|")
                rows.append(f"| `{method.upper()}` | `{path}` | {said} |")
    return "\n".join(["| | Path | What |", "| --- | --- | --- |", *rows])


def calls_of(file):
    """The table of the calls of a file's services, from the comments that stand before them."""
    text = (ROOT / "proto/proto" / file).read_text()
    package = re.search(r"^package ([\w.]+);", text, re.M)[1]
    rows = []
    for service, body in re.findall(r"^service (\w+) \{\n(.*?)^\}", text, re.M | re.S):
        for comment, name, asked, answered in re.findall(r"((?:^ *//.*\n)*)^ *rpc (\w+)\(([^)]*)\) returns \(([^)]*)\)", body, re.M):
            said = re.sub(r"\s*//\s*", " ", comment).strip()
            # The first sentence; the file has the rest.
            said = re.split(r"(?<=[.]) (?=[A-Z])", said)[0].replace("|", "\\|")
            streams = " and ".join(who for who, it in (("client", asked), ("server", answered)) if it.startswith("stream "))
            rows.append(f"| `{service}.{name}` | {said} | {f'streams: {streams}' if streams else ''} |")
    return "\n".join([f"`{package}`, in [{file.split('/')[-1]}](../../proto/proto/{file}):", "", "| Call | What | |", "| --- | --- | --- |", *rows])


def filled(path, options, openapi):
    """A page with what its generated parts should be."""

    def part(it):
        command = it["command"]
        if command == "openapi":
            text = paths_of(openapi(options))
        elif command.startswith("proto "):
            text = calls_of(command.removeprefix("proto "))
        else:
            text = f"```text\n{helped(options.binaries, command)}\n```"
        return f"<!-- begin: {command} -->\n{text}\n<!-- end -->"

    return GENERATED.sub(part, path.read_text())


def check_generated(options, openapi):
    """What the book says of settings and paths is what the programs say of themselves."""
    if not options.binaries:
        raise Missing("--binaries")
    found, seen = [], 0
    for path in pages():
        seen += len(GENERATED.findall(path.read_text()))
        text = filled(path, options, openapi)
        if text != path.read_text():
            if options.bless:
                path.write_text(text)
            else:
                found.append(f"{path.relative_to(ROOT)} is not what the programs say; cargo xtask deploy-check --bless writes it anew")
    return found if seen else ["nothing is generated"]
