#!/usr/bin/env python3
"""mdBook's preprocessor for docs/: links that leave the book lead to the repository, since the pages that mdBook makes have no files around them; and
links to README.md lead to what mdBook makes of it, which is called index."""

import json
import re
import sys
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\]\(([^)\s:#]+)(#[^)\s]*)?\)")


def outward(path, source, repository, text):
    """The text of a page, with addresses for what is outside of the book."""

    def lead(link):
        target = (ROOT / source / PurePosixPath(path).parent / link[1]).resolve()
        if target.is_relative_to(ROOT / source):
            return link[0].replace("README.md", "index.md") if target.name == "README.md" else link[0]
        kind = "tree" if target.is_dir() else "blob"
        return f"]({repository}/{kind}/HEAD/{target.relative_to(ROOT)}{link[2] or ''})"

    return LINK.sub(lead, text)


def chapters(items):
    """Every chapter; what is not one is a word, or a title."""
    for item in items:
        if isinstance(item, dict) and "Chapter" in item:
            yield item["Chapter"]
            yield from chapters(item["Chapter"]["sub_items"])


def main():
    if sys.argv[1:2] == ["supports"]:
        return
    context, book = json.load(sys.stdin)
    source, repository = context["config"]["book"]["src"], context["config"]["output"]["html"]["git-repository-url"]
    # Called sections before mdBook 0.5.
    for chapter in chapters(book.get("items") or book["sections"]):
        if chapter["path"]:
            chapter["content"] = outward(chapter["path"], source, repository, chapter["content"])
    json.dump(book, sys.stdout)


if __name__ == "__main__":
    main()
