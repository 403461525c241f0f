"""Links between documents that are given out: one that leads to what is not given out with them becomes its own text.

    python3 deploy/dist/links.py mend FOLDER     does that to all documents in it
    python3 deploy/dist/links.py check FOLDER    exit code 1, and a line for each, if one leads nowhere
"""

import pathlib
import posixpath
import re
import sys

LINK = re.compile(r"!?\[([^\[\]]*)\]\(([^()\s]+)\)")


def leads_to(name, target):
    """The file that a link in the document of that name leads to; none if it leads elsewhere, or to a part of itself."""
    path = target.partition("#")[0]
    if not path or re.match(r"[a-z][a-z0-9+.-]*:", target):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), path))


def mended(text, name, is_there):
    """The document without links to what is not there."""

    def mend(link):
        file = leads_to(name, link[2])
        return link[0] if file is None or is_there(file) else link[1]

    return LINK.sub(mend, text)


def dead(text, name, is_there):
    """The targets of its links that lead nowhere."""
    targets = [link[2] for link in LINK.finditer(text)]
    return [it for it in targets if (file := leads_to(name, it)) is not None and not is_there(file)]


def main(what, folder):
    folder, wrong = pathlib.Path(folder), []
    for document in sorted(folder.rglob("*.md")):
        name, text = str(document.relative_to(folder)), document.read_text()
        is_there = lambda file: (folder / file).exists()
        if what == "mend":
            document.write_text(mended(text, name, is_there))
        wrong += [f"{name}: {target}" for target in dead(document.read_text(), name, is_there)]
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
