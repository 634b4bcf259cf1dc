"""What MkDocs does for gradus's site beside its own: the pages that are not in docs/, and links that hold on GitHub and here.

- README.md is the front page; CONTRIBUTING.md, CHANGELOG.md and SECURITY.md are pages.
- A link to another file of the repository, such as a header, leads to a page that shows the file.
- Each optimizer has a page (optimizers.py), and the front page's table leads there.
- Each header has a page of its names (api.py).
- GitHub takes a list right behind a paragraph; Python's Markdown wants an empty line between them.
"""

import pathlib
import posixpath
import re
import sys

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import api  # noqa: E402
import optimizers  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Pages outside docs/: name on the site -> file of the repository.
OUTSIDE = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md", "security.md": "SECURITY.md"}
LANGUAGES = {".hpp": "cpp", ".h": "c", ".cpp": "cpp", ".cu": "cpp", ".c": "c", ".py": "python", ".f90": "fortran", ".txt": "cmake", ".sh": "sh"}
LINK = re.compile(r"(\]\()([^)\s]+)(\))")

# The path in the repository of a page, and the page of a path.
repository_path, page_of = {}, {}
# The pages of the headers' names.
reference = {}


def outside_code(markdown, change):
    """Applies change(text) to all that is in no fence, block or span of code."""
    lines, in_fence = markdown.split("\n"), False
    for k, line in enumerate(lines):
        if line.startswith("```"):
            in_fence = not in_fence
        elif not in_fence and not line.startswith("    "):
            parts = re.split(r"(`+[^`]+`+)", line)
            # A link's text may be a span of code, so spans stay where they are and links are sought around them.
            spans = parts[1::2]
            masked = "".join(part if k % 2 == 0 else "\0" for k, part in enumerate(parts))
            masked = change(masked)
            lines[k] = re.sub("\0", lambda _: spans.pop(0), masked)
    return "\n".join(lines)


def links_of(markdown):
    found = []
    outside_code(markdown, lambda text: (found.extend(m[2] for m in LINK.finditer(text)), text)[1])
    return found


def target_of(link, at):
    """The path in the repository that a link on the page of path `at` leads to, and its anchor; None for links elsewhere."""
    if re.match(r"[a-z]+:|#|/", link):
        return None
    path, _, anchor = link.partition("#")
    return posixpath.normpath(posixpath.join(posixpath.dirname(at), path)), anchor


def shown(path):
    """A page that shows a file, or a folder's files."""
    file = ROOT / path
    head = f"---\ntitle: {path}\nsearch:\n  exclude: true\n---\n\n# {path}\n\n"
    if file.is_dir():
        names = sorted(p.name + ("/" if p.is_dir() else "") for p in file.iterdir() if p.name != "__pycache__")
        return head + "\n".join(f"- `{name}`" for name in names) + "\n"
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".md":
        return head + text
    return f"{head}``````{LANGUAGES.get(file.suffix, 'text')}\n{text}\n``````\n"


def generated(config, files, name, text, path):
    files.append(File.generated(config, name, content=text))
    repository_path[name] = path
    page_of[path] = name


def on_config(config):
    """Lists the optimizers and the headers in the navigation."""
    made = optimizers.pages()
    entry = next(item for item in config.nav if "Optimizers" in item)["Optimizers"]
    entry[:1] = ["optimizers/index.md", {"One by one": [{title: f"optimizers/{name}.md"} for name, (title, _) in made.items()]}]
    reference.update(api.pages(ROOT / "build" / "api"))
    entry = next(item for item in config.nav if "Reference" in item)["Reference"]
    entry[1:] = [f"api/{name}" for name in reference if name != "index.md"]
    return config


def on_files(files, config):
    for file in files:
        path = f"docs/{file.src_uri}"
        repository_path[file.src_uri] = path
        page_of[path] = file.src_uri
    made = optimizers.pages()
    for name, (_, text) in made.items():
        generated(config, files, f"optimizers/{name}.md", text, f"docs/optimizers/{name}.md")
    for name, (svg, _) in optimizers.pictures().items():
        files.append(File.generated(config, f"optimizers/{name}.svg", content=svg))
        page_of[f"docs/optimizers/{name}.svg"] = f"optimizers/{name}.svg"
    generated(config, files, "optimizers/index.md", optimizers.index(made), "docs/optimizers/index.md")
    for name, text in reference.items():
        generated(config, files, f"api/{name}", text, f"docs/api/{name}")
    for name, path in OUTSIDE.items():
        generated(config, files, name, (ROOT / path).read_text(encoding="utf-8"), path)
    for file in list(files.documentation_pages()):
        at = repository_path[file.src_uri]
        for link in links_of(file.content_string):
            target = target_of(link, at)
            if target and target[0] not in page_of:
                if not (ROOT / target[0]).exists():
                    raise PluginError(f"{at} has a link to {target[0]}, which is not there")
                name = re.sub(r"(^|/)[.]", r"\1dot-", target[0])  # MkDocs leaves out names that start with a dot
                generated(config, files, f"source/{name}.md", shown(target[0]), target[0])
    return files


def on_page_markdown(markdown, page, config, files):
    name = page.file.src_uri
    if name.startswith("source/") and not name.endswith(".md.md"):
        return markdown
    at = repository_path[name]
    if name == "index.md":
        for recipe in optimizers.load():
            markdown = markdown.replace(f"\n| `{recipe}` |", f"\n| [`{recipe}`](docs/optimizers/{recipe}.md) |")

    def relink(match):
        target = target_of(match[2], at)
        if target is None or target[0] not in page_of:
            return match[0]
        path = posixpath.relpath(page_of[target[0]], posixpath.dirname(name) or ".")
        return f"{match[1]}{path}{'#' + target[1] if target[1] else ''}{match[3]}"

    markdown = outside_code(markdown, lambda text: LINK.sub(relink, text))
    lines, out, in_fence = markdown.split("\n"), [], False
    for line in lines:
        is_item = re.match(r"([-*]|\d+\.) ", line)
        if is_item and not in_fence and out and out[-1].strip() and not re.match(r"([-*]|\d+\.) |  ", out[-1]):
            out.append("")
        if line.startswith("```"):
            in_fence = not in_fence
        out.append(line)
    return "\n".join(out)


def on_post_page(output, page, config):
    """Names the search's dialog for screen readers."""
    return output.replace('data-md-component="search" role="dialog"', 'data-md-component="search" role="dialog" aria-label="Search"')
