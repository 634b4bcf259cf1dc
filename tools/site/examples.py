"""Where a name of the library is used, so that the reference can lead there: on a page, in a program, or in the library itself."""

import pathlib
import re

from pymdownx.slugs import slugify

import optimizers

ROOT = pathlib.Path(__file__).resolve().parents[2]
SLUG = slugify(case="lower")
# These come first; then the other pages, the programs, and code of the library that uses what it offers.
PAGES = ["docs/guide.md", "docs/algorithms.md", "docs/checkpoint.md", "docs/precision.md", "docs/distributed.md", "README.md"]
PROGRAMS = ["examples", "bindings/c", "bindings/python", "include/gradus", "backends"]


def blocks_of_page(path):
    text = (ROOT / path).read_text(encoding="utf-8")
    title, anchor = re.match(r"# (.+)", text)[1], ""
    for match in re.finditer(r"^```(\w+)\n(.*?)^```$|^#{2,4} ([^\n]+)$", text, re.M | re.S):
        if match[3]:
            title = match[3].replace("`", "")
            anchor = "#" + SLUG(title, "-")
        elif match[1] == "cpp" and not match[2][:1].isspace():  # an indented block is a quote of a header
            yield match[2], title, path + anchor


def code_of_program(file):
    return re.sub(r"^\s*(//|\*|#include).*$", "", file.read_text(encoding="utf-8"), flags=re.M)


class Index:
    def __init__(self):
        others = sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))
        pages = PAGES + [path for path in others if path not in PAGES] + ["CONTRIBUTING.md"]
        self.blocks = [block for path in pages for block in blocks_of_page(path)]
        for folder in PROGRAMS:
            for file in sorted((ROOT / folder).rglob("*")):
                if file.suffix in (".cpp", ".cu", ".hpp"):
                    path = file.relative_to(ROOT).as_posix()
                    self.blocks.append((code_of_program(file), path, path))
        # The first optimizer with a rule has the rule's formula and its code on its page.
        self.rules = {}
        for name, recipe in optimizers.load().items():
            for family, rule in recipe.rules.items():
                self.rules.setdefault(f"{family}::{rule}", name)
            self.rules[name] = name

    def find(self, pattern, but):
        return next(((title, path) for code, title, path in self.blocks if path != but and re.search(pattern, code)), None)

    def of(self, name, kind, header):
        """(title, path with anchor) of where a public name is used; None if it is nowhere. header: where it is declared."""
        last = re.escape(name.split("::")[-1])
        if kind == "member":
            found = self.find(rf"(\.|->)(template )?{last}(<[^;(]*>)?\(", header) or self.find(rf"\b{last}(<[^;(]*>)?\(", header)
        elif kind == "function":
            found = self.find(rf"\b{last}(<[^;(]*>)?\(", header)
        else:
            qualified = name if kind in ("struct", "class") or "::" in name else last
            found = self.find(rf"\b{qualified}\b", header) or self.find(rf"\b{last}\b", header)
        if name in self.rules and (found is None or not found[1].startswith(("docs/", "README"))):
            found = self.rules[name], f"docs/optimizers/{self.rules[name]}.md"
        return found
