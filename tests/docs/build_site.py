"""Builds the site as ./dev docs does, and shows that the check of its links finds what is wrong: build_site.py SOURCE WORK

Exits with 77 where MkDocs or doxygen cannot be had.
"""

import pathlib
import shutil
import subprocess
import sys

source, work = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
sys.path.insert(0, str(source / "tools" / "site"))

import links  # noqa: E402
import site_builder  # noqa: E402

failed = 0


def expect(condition, sentence):
    global failed
    if not condition:
        print(f"site: {sentence}")
        failed += 1


def faults_of(body):
    folder = work / "wrong"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "index.html").write_text(body, encoding="utf-8")
    (folder / "other.html").write_text("<h2 id='there'>x</h2>", encoding="utf-8")
    return links.check(folder)[3]


def checks_links():
    for body in ("<a href='other.html'>x</a>", "<a href='other.html#there'>x</a>", "<a href='https://arxiv.org/'>x</a>",
                 "<a id='a' href='#a'>x</a>", "<link rel='canonical' href='https://example.org/'>", "<img src='data:,' alt=''>"):
        expect(not faults_of(body), f"{body} is right, and is refused: {faults_of(body)}")
    for body in ("<a href='missing.html'>x</a>", "<a href='other.html#here'>x</a>", "<a href='#a'>x</a>", "<a href='../site.html'>x</a>",
                 "<script src='https://example.org/x.js'></script>", "<script src='//example.org/x.js'></script>",
                 "<link rel='stylesheet' href='https://example.org/x.css'>", "<img src='https://example.org/x.png' alt='x'>",
                 "<p style='background: url(https://example.org/x.png)'>x</p>", "<img src='other.html'>"):
        expect(len(faults_of(body)) == 1, f"{body} is wrong, and the check finds {faults_of(body)}")


checks_links()
environment = source / "build" / "docs"
try:
    site_builder.make_environment(environment)
    subprocess.run(["doxygen", "--version"], check=True, capture_output=True)
except (subprocess.CalledProcessError, OSError) as error:
    print(f"site: not built, because its tools cannot be had: {error}")
    sys.exit(1 if failed else 77)
faults, sentence = site_builder.build(source, environment)
print(f"site: {sentence}")
sys.exit(int(failed + faults > 0))
