"""Checks a built site: links.py FOLDER

Every link and anchor must lead to something in the folder, every picture must have a text in its place, and nothing may be
loaded from elsewhere: a reader's browser asks no other server. Links to other sites are counted and not followed.
"""

import html.parser
import os
import pathlib
import re
import sys
import urllib.parse

# What a browser loads by itself.
LOADED = {("img", "src"), ("script", "src"), ("iframe", "src"), ("source", "src"), ("video", "src"), ("audio", "src"), ("embed", "src"),
          ("object", "data"), ("link", "href"), ("image", "href"), ("use", "href")}
ELSEWHERE = re.compile(r"(?:[a-z][a-z0-9+.-]*:)?//", re.I)
CSS_URL = re.compile(r"url\(\s*[\"']?([^\"')]+)|@import\s+[\"']([^\"']+)")


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.links, self.loaded, self.anchors, self.faults = [], [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        for name in ("id", "name"):
            if attributes.get(name):
                self.anchors.add(attributes[name])
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        for name, value in attributes.items():
            if (tag, name) in LOADED and value:
                # What `rel` says decides whether a link element is fetched.
                if tag == "link" and not re.search(r"stylesheet|icon|preload|preconnect|prefetch|manifest", attributes.get("rel", "")):
                    continue
                self.loaded.append(value)
        if tag == "img" and attributes.get("alt") is None:
            self.faults.append(f"the picture {attributes.get('src')} has no alt")
        if attributes.get("style"):
            self.loaded += [a or b for a, b in CSS_URL.findall(attributes["style"])]


def check(folder):
    """(pages, links inside, links to other sites, faults)"""
    pages = {}
    for path in sorted(folder.rglob("*.html")):
        pages[path] = Page(path.read_text(encoding="utf-8"))
    inside = outside = 0
    faults = []
    for path, page in pages.items():
        where = path.relative_to(folder)
        faults += [f"{where}: {fault}" for fault in page.faults]
        for link, is_loaded in [(x, False) for x in page.links] + [(x, True) for x in page.loaded]:
            if link.startswith(("data:", "javascript:", "mailto:")):
                continue
            if ELSEWHERE.match(link):
                outside += 1
                if is_loaded:
                    faults.append(f"{where}: loads {link}")
                continue
            inside += 1
            target, _, anchor = link.partition("#")
            target = urllib.parse.unquote(target.partition("?")[0])
            # The page of errors has links from the server's root.
            file = folder / target.lstrip("/") if target.startswith("/") else pathlib.Path(os.path.normpath(path.parent / target)) if target else path
            if file.is_dir():
                file /= "index.html"
            if not file.is_file() or not file.resolve().is_relative_to(folder.resolve()):
                faults.append(f"{where}: {link} leads to nothing")
            elif anchor and file in pages and urllib.parse.unquote(anchor) not in pages[file].anchors and anchor != "__top":
                faults.append(f"{where}: {link} names no anchor")
    for path in sorted(folder.rglob("*.css")):
        for a, b in CSS_URL.findall(path.read_text(encoding="utf-8")):
            if ELSEWHERE.match(a or b):
                faults.append(f"{path.relative_to(folder)}: loads {a or b}")
    return len(pages), inside, outside, faults


if __name__ == "__main__":
    pages, inside, outside, faults = check(pathlib.Path(sys.argv[1]))
    print("\n".join(faults[:50]))
    print(f"{pages} pages, {inside} links checked, {outside} links to other sites, {len(faults)} faults")
    sys.exit(bool(faults) or not pages)
