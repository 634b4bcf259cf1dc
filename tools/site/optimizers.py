"""A page for each optimizer, made from what the code and the pages say: recipes.hpp (fields, defaults, comments), the headers
and the pages of its four rules, the tables of README.md and docs/algorithms.md, and notes.md beside this file (when to use it).
Whatever is missing or does not fit is an error, so that no page falls behind the code.
"""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
FAMILIES = ("first_moment", "second_moment", "step_size", "decay")
# In Python's classes, as docs/python.md lists them; the others are capitalized.
CLASSES = {name.lower().replace("_", ""): name for name in
           "SGD SGDS Adam AdamW AdamS AMSGrad Yogi AdaBound Padam RAdam Adagrad Adadelta Adamax RMSprop AdaBelief ADOPT AdEMAMix Lion "
           "NAdam Adan ScheduleFreeAdamW LAMB StableAdamW CautiousAdamW Adai AdaiS".split()}
# A recipe in the "subject" column of the table of conventions.
SUBJECTS = {"amsgrad": ["AMSGrad"], "adam": ["Adam"], "radam": ["RAdam"], "adabound": ["AdaBound"], "padam": ["Padam"], "yogi": ["Yogi"],
            "sgd": ["SGD"], "sgds": ["SGD"], "adamw": ["AdamW"], "adams": ["SWD"]}


def read(path):
    return (ROOT / path).read_text(encoding="utf-8")


def need(found, sentence):
    if not found:
        raise ValueError(f"the pages of the optimizers: {sentence}")
    return found


def table(text, first_column):
    """The rows of the table whose first column has this name, as lists of cells."""
    lines = text.split("\n")
    start = next((k for k, line in enumerate(lines) if line.startswith(f"| {first_column} |")), None)
    need(start is not None, f"no table begins with the column '{first_column}'")
    rows = []
    for line in lines[start + 2:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip().strip("|").split(" | ")])
    return rows


def sections(text, level):
    """Title -> text of the sections of this level."""
    parts = re.split(rf"^{'#' * level} (.+)$", text, flags=re.M)
    return {title.strip("`"): body for title, body in zip(parts[1::2], parts[2::2])}


def comment_before(text, at):
    """The doc comment that ends at this place, as one text."""
    lines = text[:at].rstrip("\n").split("\n")
    comment = []
    while lines and lines[-1].startswith("///"):
        comment.insert(0, lines.pop()[3:].strip())
    return " ".join(comment)


def structure(text, name):
    """The code of a struct with its comment."""
    match = need(re.search(rf"^struct {name}\b[^;\n]*{{\n.*?^}};\n", text, re.M | re.S), f"no struct {name}")
    start = match.start()
    before = text[:start].split("\n")
    k = len(before) - 1
    while k > 0 and (before[k - 1].startswith("///") or before[k - 1].startswith("template")):
        k -= 1
    return "\n".join(before[k:]) + match[0].rstrip("\n")


class Recipe:
    def __init__(self, name, recipes, ranges, named):
        self.name = name
        match = need(re.search(rf"^struct {name} {{\n(.*?)^}};\n", recipes, re.M | re.S), f"recipes.hpp has no {name}")
        self.comment, self.code, body = comment_before(recipes, match.start()), structure(recipes, name), match[1]
        listed = {}
        for hyper, member in re.findall(rf"hyper::(\w+)\(&{name}::(\w+)\)", body):
            listed[member] = ranges[need(named.get(hyper), f"hyper::{hyper} is not known")]
        for member, values in re.findall(rf'field{{"\w+",\s*&{name}::(\w+),\s*range::(\w+)}}', body):
            listed[member] = ranges[values]
        self.fields = []  # (name, range, default, meaning)
        for member, default, meaning in re.findall(r"^  (?:double|bool) (\w+) = ([^;]+);\s*///< (.*)$", body, re.M):
            self.fields.append((member, need(listed.get(member), f"{name}::{member} has no range"), default, meaning))
        need(self.fields and len(self.fields) == len(listed), f"{name}: fields with comments {[f[0] for f in self.fields]}, with ranges {list(listed)}")
        rule = need(re.search(r"return compose\((.*?)\);\n", body, re.S), f"{name} composes nothing")[1]
        self.rules = {family: need(re.search(rf"\b{family}::(\w+)", rule), f"{name} has no {family}")[1] for family in FAMILIES}


def load():
    recipes, hyper = read("include/gradus/recipes.hpp"), read("include/gradus/rules/hyperparameters.hpp")
    words = {"a finite number >= ": "≥ ", "a finite number > ": "> ", "a number in ": "", "a finite number": "any", "0 or 1": "false, true"}
    ranges = {}
    for name, text in re.findall(r'case range::(\w+): return "([^"]*)"', hyper):
        for long, short in words.items():
            text = text.replace(long, short)
        ranges[name] = text
    named = dict(re.findall(r'inline constexpr named (\w+){"\w+", range::(\w+)}', hyper))
    names = re.findall(r'f\("(\w+)", std::type_identity<', recipes)
    need(len(names) > 10, "for_each_recipe has no recipes")
    return {name: Recipe(name, recipes, ranges, named) for name in names}


def example(recipe):
    """The first fields with their defaults, and a loop."""
    shown = [f for f in recipe.fields if f[0] in ("lr", "momentum", "weight_decay")]
    fields = ", ".join(f".{name} = {default if name != 'momentum' else '0.9'}" for name, _, default, _ in shown)
    return f"""gradus::optimizer opt(gradus::{recipe.name}{{{fields}}});
opt.add("weights", weights, gradients);
while (training) {{
  compute(weights, gradients);
  opt.step();
}}"""


def equations(page):
    """The first indented block of a rule's section."""
    block = re.search(r"(?:^    \S.*\n(?:\n(?=    ))?)+", page, re.M)
    return block[0].rstrip("\n") if block else ""


def page_of_rule(pages, family, rule):
    """(title, text) of a rule's section, which it may share with another."""
    for title, text in pages[family].items():
        if rule in re.split(r" and |, ", title):
            return title, text
    return need(None, f"docs/{family}.md has no section {rule}")


def slug(title):
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def one_line(text):
    return text.replace("|", "\\|")


def render(recipe, facts):
    name = recipe.name
    title = CLASSES.get(name.replace("_", ""), name)
    readme = need(facts["readme"].get(name), f"README.md's table has no {name}")
    slots = need(facts["algorithms"].get(name), f"docs/algorithms.md's table has no {name}")[-1]
    notes = need(facts["notes"].get(name), f"tools/site/notes.md has no section {name}")
    comment = re.sub(r"docs/(\w+)\.md", lambda m: f"[{m[1].replace('_', ' ')}](../{m[1]}.md)", recipe.comment)
    out = [f"# {title}", "", comment, "", "```cpp", example(recipe), "```", "", notes.strip(), ""]

    out += ["## Equations", "",
            f"θ is a weight, g its gradient, α the learning rate, λ `weight_decay`, t the step, from 1, bc1 and bc2 the bias corrections "
            f"1 − β₁ᵗ and 1 − β₂ᵗ ([symbols](../algorithms.md#one-element-one-step)). A step takes four rules:", ""]
    for family in FAMILIES:
        rule = recipe.rules[family]
        heading, text = page_of_rule(facts["pages"], family, rule)
        label = family.replace("_", " ")
        out += [f"{label[0].upper()}{label[1:]}: [`{rule}`](../{family}.md#{slug(heading)})", ""]
        block = equations(text)
        if block:
            out += [block, ""]
    out += ["Together: θ ← θ − (s·θ + u), where u is the step, and s the decay of the weights, 0 with L2 and without decay.", ""]

    text = need(facts["pictures"].get(name), f"docs/trajectories.svg has no {name}; ./dev docs --pictures draws it")[1]
    out += ["## Its path", "", f"![The paths of {text}]({name}.svg)", "", "On [three functions of two variables](../trajectories.md), with the learning rate that ends lowest, and AdamW's "
            "path for comparison (dashed). A circle is every twentieth step; the cross is the minimum.", ""]
    out += ["## Hyperparameters", "", "| name | default | range | meaning |", "|---|---|---|---|"]
    out += [f"| `{member}` | {default} | {values} | {one_line(meaning.removeprefix('≥ 0; '))} |" for member, values, default, meaning in recipe.fields]
    out += ["", "A value out of its range is refused with a sentence that names it. Defaults are PyTorch's where it has the optimizer, otherwise the authors'.", ""]

    out += ["## State", "", f"Arrays a tensor: {slots}. Bytes a parameter, in float: {readme[5]}. In double twice as many; in bfloat16 or 8-bit codes half or a "
            f"quarter ([mixed precision](../precision.md)).", ""]
    state = re.search(r"State: ([^.]*)\.", recipe.comment)
    if state and "`" in state[1]:
        first = re.search(r"`(\w+)`", state[1])[1]
        out += [f"Names in `state` and in checkpoints, PyTorch's where it has them: {state[1]}. `opt.state(\"weights\", \"{first}\")` is a view of one.", ""]

    differences = [row for row in facts["conventions"] if any(re.search(rf"(?:^|[ ,]){s}(?:[:, ]|$)", row[0].split(":")[0] + ":") for s in SUBJECTS.get(name, []))]
    out += ["## Other implementations", ""]
    if differences:
        out += ["| subject | gradus | paper | PyTorch | optax | why |", "|---|---|---|---|---|---|"]
        out += ["| " + " | ".join(row) + " |" for row in differences] + [""]
    edges = []
    for family in FAMILIES:
        heading, text = page_of_rule(facts["pages"], family, recipe.rules[family])
        if re.search(r"^Edge cases?:", text, re.M):
            edges.append(f"[{family.replace('_', ' ')}, {recipe.rules[family]}](../{family}.md#{slug(heading)})")
    out += [f"A recorded trajectory of another implementation, which the tests follow to a relative 1e-10 or less, is in `tests/golden`."
            + (f" Edge cases: {'; '.join(edges)}." if edges else ""), ""]

    out += ["## By name, in C and in Python", "", "```cpp", f'gradus::any_optimizer_of<float, gradus::{name}> opt("{name}", {{{{"lr", {recipe.fields[0][2]}}}}});', "```", "",
            "```c", f'gradus_number numbers[] = {{{{"lr", {recipe.fields[0][2]}}}}};', "gradus_optimizer* opt;", f'gradus_create("{name}", numbers, 1, GRADUS_FLOAT32, &opt);', "```", "",
            "```python", "import gradus", "from gradus.torch import " + title, "", f'opt = gradus.Optimizer("{name}", lr={recipe.fields[0][2]})', "```", ""]

    out += ["## Its code", "", "The recipe, from [recipes.hpp](../../include/gradus/recipes.hpp):", "", "```cpp", recipe.code, "```", ""]
    for family in FAMILIES:
        rule = recipe.rules[family]
        if rule in ("none", "one"):
            continue
        out += [f"`{family}::{rule}`, from [{family}.hpp](../../include/gradus/rules/{family}.hpp):", "", "```cpp", structure(facts["headers"][family], rule), "```", ""]
    source = readme[6] if len(readme) > 6 and readme[6] else ""
    out += ["## Source", "", (source + ". " if source else "") + "The pages of its rules name theirs."]
    return title, "\n".join(out) + "\n"


def pages():
    """{name: (title, Markdown)} in the order of the code, links as from docs/optimizers/."""
    facts = {
        "readme": {row[0].strip("`"): row for row in table(read("README.md"), "recipe")},
        "algorithms": {row[0].strip("`"): row for row in table(read("docs/algorithms.md"), "recipe")},
        "conventions": [[cell.replace("](", "](../").replace("](../http", "](http") for cell in row] for row in table(read("docs/algorithms.md"), "subject")],
        "pages": {family: sections(read(f"docs/{family}.md"), 2) for family in FAMILIES},
        "headers": {family: read(f"include/gradus/rules/{family}.hpp") for family in FAMILIES},
        "pictures": pictures(),
        "notes": sections(read("tools/site/notes.md"), 2),
    }
    return {name: render(recipe, facts) for name, recipe in load().items()}


def pictures():
    """{name: (SVG, its text)}: the rows of docs/trajectories.svg, each as a picture of its own."""
    svg = read("docs/trajectories.svg")
    head = need(re.match(r'<svg xmlns="[^"]*" viewBox="0 0 ([\d.]+) [^>]*>\n<title>.*?</title>\n(.*?</defs>\n)', svg, re.S), "docs/trajectories.svg has no head")
    rows = re.findall(r'^<g id="(\w+)" transform="translate\(0 [\d.]+\)"><title>(.*?)</title>\n(.*?)^</g>\n', svg, re.M | re.S)
    height = need(re.search(r'viewBox="0 0 [\d.]+ ([\d.]+)"', svg), "docs/trajectories.svg has no size")[1]
    box = f'viewBox="0 0 {head[1]} {float(height) / len(rows):g}"'
    return {name: (f'<svg xmlns="http://www.w3.org/2000/svg" {box}>\n<title>{title}</title>\n{head[2]}{body}</svg>\n', title) for name, title, body in rows}


def index(made):
    readme = read("README.md")
    out = ["# The optimizers", "", "Each has a page with its equations, hyperparameters, state and code. They are composed of four rules, and so is [any other combination](../algorithms.md#free-composition).", "",
           "| optimizer | first moment | second moment | step size | decay | state, bytes a parameter (float) |", "|---|---|---|---|---|---|"]
    for row in table(readme, "recipe"):
        name = row[0].strip("`")
        out.append(f"| [{made[name][0]}]({name}.md) | " + " | ".join(row[1:6]) + " |")
    out += ["", "[Muon](../muon.md), for matrices, has a header of its own. Most recipes can keep an [average of the weights](../average.md)."]
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    for name, (title, text) in pages().items():
        print(text)
