"""The reference: a page for each header, made from its doc comments by way of doxygen's XML."""

import pathlib
import re
import subprocess
import xml.etree.ElementTree as ElementTree

import examples

ROOT = pathlib.Path(__file__).resolve().parents[2]
INCLUDES = ("include/", "backends/simd/include/", "backends/dispatch/include/", "backends/thrust/include/", "backends/mpi/include/")
# Headers in the order in which people need them; the others follow by name.
FIRST = ["gradus/optimizer.hpp", "gradus/optimizer/options.hpp", "gradus/recipes.hpp", "gradus/schedule.hpp", "gradus/any_optimizer.hpp", "gradus/checkpoint.hpp",
         "gradus/checkpoint/options.hpp", "gradus/average.hpp", "gradus/muon.hpp", "gradus/rules/first_moment.hpp", "gradus/rules/second_moment.hpp", "gradus/rules/step_size.hpp",
         "gradus/rules/decay.hpp", "gradus/rules/composition.hpp", "gradus/rules/hyperparameters.hpp", "gradus/rules/concepts.hpp", "gradus/kernel.hpp", "gradus/error.hpp"]


def run_doxygen(folder):
    """XML of all headers; raises OSError without doxygen."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = (ROOT / "docs/Doxyfile").read_text(encoding="utf-8") + f"""
GENERATE_HTML = NO
GENERATE_XML = YES
XML_PROGRAMLISTING = NO
WARNINGS = NO
JAVADOC_AUTOBRIEF = NO
OUTPUT_DIRECTORY = {folder}
INPUT_FILTER = "sed -E 's,///(<?) > ,///\\1 \\&gt; ,'"
"""  # the filter: a comment that begins with "> 0" would be a quotation
    subprocess.run(["doxygen", "-"], cwd=ROOT, input=settings, text=True, check=True, capture_output=True)
    return folder / "xml"


def escape(text):
    return re.sub(r"([\\`*_{}\[\]<>|])", r"\\\1", text)


def plain(element):
    return "".join(element.itertext()) if element is not None else ""


# The members of rules are what kernels call; each rule's page shows its code.
RULES = ("first_moment::", "second_moment::", "step_size::", "decay::", "average::")
BLOCKS = {"verbatim", "programlisting", "itemizedlist", "orderedlist", "parameterlist", "simplesect", "preformatted"}


def inline(element):
    """What is in an element, as Markdown."""
    return "".join(x for x in parts_of(element) if isinstance(x, str))


def parts_of(element):
    """Texts as Markdown, and between them the elements that are blocks of their own."""
    yield escape(element.text or "")
    for child in element:
        if child.tag in BLOCKS:
            yield child
        elif child.tag == "computeroutput":
            yield f"`{plain(child)}`"
        elif child.tag == "ulink":
            yield f"[{escape(plain(child))}]({child.get('url')})"
        elif child.tag in ("emphasis", "bold"):
            yield f"**{inline(child)}**"
        elif child.tag == "linebreak":
            yield "\n"
        else:
            yield inline(child)
        yield escape(child.tail or "")


def code_of(element):
    if element.tag == "programlisting":
        lines = []
        for line in element.iter("codeline"):
            text = ""
            for part in line.iter():
                text += " " if part.tag == "sp" else part.text or ""
                text += "" if part is line else part.tail or ""
            lines.append(text)
        return "\n".join(lines)
    return plain(element)


def block_of(child):
    if child.tag in ("verbatim", "programlisting", "preformatted"):
        return "```cpp\n" + code_of(child).strip("\n") + "\n```"
    if child.tag in ("itemizedlist", "orderedlist"):
        return "\n".join("- " + " ".join(blocks(item)).replace("\n", " ") for item in child.findall("listitem"))
    if child.tag == "parameterlist":
        items = []
        for item in child.findall("parameteritem"):
            name = ", ".join(plain(n) for n in item.iter("parametername"))
            meaning = " ".join(blocks(item.find("parameterdescription")))
            items.append(f"- **throws** `{name}` {meaning}" if child.get("kind") == "exception" else f"- `{name}`: {meaning}")
        return "\n".join(items)
    label = {"return": "Returns ", "see": "See ", "note": "Note: "}.get(child.get("kind"), "")  # simplesect
    return label + " ".join(blocks(child))


def blocks(element):
    """Paragraphs, lists and code of a description, as blocks of Markdown."""
    out = []
    for para in element:
        if para.tag != "para":
            continue
        text = ""
        for part in [*parts_of(para), None]:
            if isinstance(part, str):
                text += part
                continue
            text = re.sub(r"\s*\n\s*", " ", text).strip()
            out += ([text] if text else []) + ([block_of(part)] if part is not None else [])
            text = ""
    return out


def description(element):
    """With links to the pages that it names."""
    out = blocks(element.find("briefdescription")) + blocks(element.find("detaileddescription"))
    return re.sub(r"\bdocs/([\w\\]+)\.md(\w*)", lambda m: f"[docs/{m[1]}.md](../{m[1].replace(chr(92), '')}.md)", "\n\n".join(out))


def tidy(code):
    """Without doxygen's spaces in angle brackets."""
    return re.sub(r"< | >(?=>|$|[ ,&*)])", lambda m: m[0].strip(), code.strip())


def template_of(element):
    parameters = element.find("templateparamlist")
    if parameters is None:
        return ""
    shown = []
    for p in parameters.findall("param"):
        text = " ".join(x for x in (plain(p.find("type")), plain(p.find("declname"))) if x)
        shown.append(text + (f" = {plain(p.find('defval'))}" if p.find("defval") is not None else ""))
    return f"template <{', '.join(shown)}>\n"


def signature(member):
    kind = member.get("kind")
    type_ = tidy(plain(member.find("type")))
    requires = plain(member.find("requiresclause")).strip()
    if kind == "function":
        arguments = re.sub(r"(\w)=(?=[\w{])", r"\1 = ", plain(member.find("argsstring")))
        text = f"{type_} {plain(member.find('name'))}{arguments}".strip()
        static = "static " if member.get("static") == "yes" else ""
        text = f"{static}{text}"
    elif kind == "typedef":
        text = f"using {plain(member.find('name'))} = {type_}"
    else:
        static = "static " if member.get("static") == "yes" else ""
        text = f"{static}{type_} {plain(member.find('name'))} {plain(member.find('initializer'))}".strip()
    return template_of(member) + text + (f"\n  requires {requires}" if requires else "") + ";"


def is_documented(element):
    return bool(plain(element.find("briefdescription")).strip() or plain(element.find("detaileddescription")).strip())


def one_line(markdown):
    return markdown.replace("\n\n", " ").replace("\n", " ")


def members_of(compound):
    for section in compound.findall("sectiondef"):
        if section.get("kind", "").startswith(("private", "protected", "friend")):
            continue
        for member in section.findall("memberdef"):
            if member.get("prot") == "public" and member.get("kind") != "friend" and is_documented(member):
                yield member


def short(name):
    return re.sub(r"^gradus::", "", name)


class Uses:
    """A line for each public name that says where it is used."""

    def __init__(self):
        self.index = examples.Index()
        self.missing = []

    def line(self, element, name, kind):
        if "```" in description(element):
            return ""
        header, path = header_of(element)
        found = self.index.of(name, kind, path)
        if not found:
            if header in FIRST and kind != "concept" and not name.startswith(RULES) and not header.startswith("gradus/rules/"):
                self.missing.append(f"{name} ({header})")
            return ""
        title, at = found
        return f"{'Example' if at.startswith(('docs/', 'README', 'examples/')) else 'Used in'}: [{escape(title)}](../../{at})"


def render_member(member, level, uses, kind):
    name = plain(member.find("name"))
    line = uses.line(member, name, kind) if kind and not name.startswith("operator") else ""
    return [f"{'#' * level} {escape(name)}", "", "```cpp", signature(member), "```", "", description(member), "", line, ""]


def render_enum(member, level, uses):
    name = plain(member.find("name"))
    out = [f"{'#' * level} {escape(name)}", "", description(member), "", "| value | meaning |", "|---|---|"]
    out += [f"| `{plain(v.find('name'))}` | {one_line(description(v))} |" for v in member.findall("enumvalue")]
    return out + ["", uses.line(member, name, "enum"), ""]


def render_compound(compound, uses):
    name, kind = short(plain(compound.find("compoundname"))), compound.get("kind")
    out = [f"## {escape(name)}", ""]
    if kind == "concept":
        text = re.sub(r"concept gradus::(?:\w+::)*(\w+) = +", r"concept \1 = ", plain(compound.find("initializer")).strip())
        return out + [description(compound), "", "```cpp", text + ";", "```", "", uses.line(compound, name, kind), ""]
    bases = [plain(b) for b in compound.findall("basecompoundref") if b.get("prot") == "public" and "detail" not in plain(b)]
    out += ["```cpp", f"{template_of(compound)}{kind} {name.split('::')[-1]}{' : ' + ', '.join(bases) if bases else ''};", "```", "", description(compound), "", uses.line(compound, name, kind), ""]
    members = list(members_of(compound))
    members = [m for m in members if plain(m.find("name")) != "named_fields_only"]
    fields = [m for m in members if m.get("kind") == "variable" and m.get("static") != "yes"]
    if fields:
        out += ["| field | type | default | meaning |", "|---|---|---|---|"]
        for m in fields:
            default = plain(m.find("initializer")).removeprefix("=").strip()
            out.append(f"| `{plain(m.find('name'))}` | `{one_line(tidy(plain(m.find('type')))).replace('|', chr(92) + '|')}` | {'`' + default + '`' if default else ''} | {one_line(description(m))} |")
        out.append("")
    for m in members:
        if m in fields:
            continue
        is_constructor = plain(m.find("name")) == name.split("::")[-1]
        is_method = m.get("kind") == "function" and not is_constructor and not name.startswith(RULES)
        out += render_enum(m, 3, uses) if m.get("kind") == "enum" else render_member(m, 3, uses, "member" if is_method else "")
    return out


def header_of(element):
    file = element.find("location").get("file", "")
    for prefix in INCLUDES:
        if file.startswith(prefix):
            return file.removeprefix(prefix), file
    return file, file


def pages(folder):
    """{page: Markdown} with links as from docs/api/, and an index."""
    xml = run_doxygen(folder)
    uses = Uses()
    headers = {}  # name -> [path, comment, parts]
    compounds = []
    for entry in ElementTree.parse(xml / "index.xml").getroot():
        compound = ElementTree.parse(xml / f"{entry.get('refid')}.xml").getroot().find("compounddef")
        if entry.get("kind") == "file":
            name, path = header_of(compound)
            headers[name] = [path, description(compound), []]
        else:
            compounds.append(compound)
    for compound in compounds:
        name, kind = plain(compound.find("compoundname")), compound.get("kind")
        if kind in ("struct", "class", "concept") and compound.get("prot") != "private" and name.startswith("gradus::") and "<" not in name and not name.endswith("::formula") and is_documented(compound):
            header = header_of(compound)[0]
            headers[header][2].append((int(compound.find("location").get("line")), short(name), render_compound(compound, uses)))
        elif kind == "namespace" and name.startswith("gradus") and "safetensors" not in name:
            for member in members_of(compound):
                header = header_of(member)[0]
                kind = member.get("kind")
                rendered = render_enum(member, 2, uses) if kind == "enum" else render_member(member, 2, uses, kind)
                headers[header][2].append((int(member.find("location").get("line")), plain(member.find("name")), rendered))
    shown = {name: parts for name, parts in headers.items() if parts[2]}
    order = [name for name in FIRST if name in shown] + sorted(name for name in shown if name not in FIRST)
    out = {}
    rows = ["# Reference", "", "Every public name, by header, from the comments that editors show. `gradus/gradus.hpp` includes the optimizer, the recipes, the rules and the schedules. "
            "The search finds names, too.", "", "| header | names |", "|---|---|"]
    for name in order:
        path, comment, parts = shown[name]
        text = [f"# {escape(name.removeprefix('gradus/'))}", "", f"`#include <{name}>` ([source](../../{path}))", "", comment, ""]
        names = []
        for _, what, rendered in sorted(parts, key=lambda p: p[0]):
            text += rendered
            names += [what] if what not in names else []
        page = name.removeprefix("gradus/").removesuffix(".hpp").replace("/", "_") + ".md"
        out[page] = "\n".join(text) + "\n"
        rows.append(f"| [{escape(name.removeprefix('gradus/'))}]({page}) | {', '.join(f'`{n}`' for n in names[:14])}{', …' if len(names) > 14 else ''} |")
    if uses.missing:
        raise ValueError(f"neither a page nor a program uses {', '.join(uses.missing)}")
    return {"index.md": "\n".join(rows) + "\n", **out}
