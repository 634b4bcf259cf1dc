#!/usr/bin/env python3
"""Draws the report of a benchmark run: FOLDER/report.md and its SVG plots, from the JSON files in FOLDER.

  report.py FOLDER [--command "what was run"] [--model MODEL]

suite*.json and choices.json come from Google Benchmark, peers.json, peers-threads.json and recipes.json from peers/peers.py,
compile_time.json from compile_time.py. The report says which of them are missing. With a model it is about that model's
tensors alone. gnuplot draws the plots.
"""
import argparse
import datetime
import json
import math
import pathlib
import platform
import re
import shutil
import subprocess
import sys

COLOURS = ["#1f6feb", "#d1242f", "#8c959f", "#2da44e", "#bf8700", "#8250df", "#e16f24", "#0a7ea4", "#bf3989", "#57606a", "#116329"]
TRAFFIC = COLOURS[2]  # the machine's limit is grey


def is_shape(shape):
    return re.fullmatch(r"(\d+x)?\d+", shape) is not None


def shape_key(shape):
    tensors, _, size = shape.rpartition("x")
    return (int(tensors or 1), int(size))


def shape_name(shape):
    tensors, size = shape_key(shape)
    for unit, name in ((1 << 20, " Mi"), (1 << 10, " Ki")):
        if tensors == 1 and size % unit == 0:
            return f"{size // unit}{name}"
    return f"{tensors} × {size}" if tensors > 1 else str(size)


def table(head, rows):
    """Markdown; the first column left, the others right."""
    lines = ["| " + " | ".join(head) + " |", "|---" + "|--:" * (len(head) - 1) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def two(x):
    return "–" if x is None else f"{x:.2f}" if x < 100 else f"{x:.0f}"


def ratio(a, b):
    return a / b if a is not None and b else None


# The order in tables; what is not here comes last.
ORDER = ["sgd", "sgds", "adam", "adamw", "adams", "amsgrad", "yogi", "adabound", "padam", "radam", "adagrad", "adadelta", "adamax", "rmsprop",
         "adabelief", "adopt", "ademamix", "lion", "nadam", "adan", "schedule_free_adamw", "lamb", "stable_adamw", "cautious_adamw", "adai", "adais",
         "float", "double", "bf16_state", "8bit_state", "bf16_with_master", "bf16_with_remainder", "bf16_all", "serial", "thread_pool", "openmp", "tbb"]


def place(name):
    kind = name.partition("(")[0]
    return ORDER.index(kind) if kind in ORDER else len(ORDER), numbers_first(name)


def numbers_first(text):
    return [int(x) if x.isdigit() else 0 for x in re.findall(r"\d+|\D+", text)], text


class Results:
    """Medians of ns a parameter by the seven parts of a benchmark's name (measure.hpp)."""

    def __init__(self, folder, files):
        self.ns, self.error, self.bytes, self.state, self.errors, self.context = {}, {}, {}, {}, {}, None
        for path in sorted(folder.glob(files)):
            try:
                data = json.loads(path.read_text())
            except ValueError:
                continue  # nothing matched
            self.context = self.context or data["context"]
            for row in data["benchmarks"]:
                key = tuple(row["run_name"].removesuffix("/real_time").removesuffix("/manual_time").split("/"))
                if row.get("error_occurred"):
                    self.errors[key] = row["error_message"]
                elif row.get("aggregate_name") == "median":
                    self.ns[key], self.bytes[key] = row["ns_per_parameter"], row["bytes_per_parameter"]
                    self.state[key] = row["state_bytes"]
                elif row.get("aggregate_name") == "stddev":  # the standard error
                    self.error[key] = row["ns_per_parameter"] / math.sqrt(row["repetitions"])
        # Pure traffic: the faster loop for each number of bytes.
        self.traffic = {}
        for key, ns in self.ns.items():
            if key[0] == "traffic":
                at = (round(self.bytes[key], 2), key[6])
                self.traffic[at] = min(ns, self.traffic.get(at, ns))
        steps = {key[6] for key in self.ns if key[0] == "step"}
        self.shapes = sorted((s for s in steps if is_shape(s)), key=shape_key)
        self.one = [s for s in self.shapes if "x" not in s]
        self.many = [s for s in self.shapes if "x" in s]
        self.backend = "simd" if any(key[3] == "simd" for key in self.ns) else "scalar"
        self.recipes, self.executors, self.precisions = (
            sorted({key[part] for key in self.ns if key[0] == "step"}, key=place) for part in (1, 4, 5))

    def step(self, recipe, shape, variant="-", backend=None, executor="serial", precision="float"):
        return self.ns.get(("step", recipe, variant, backend or self.backend, executor, precision, shape))

    def twin(self, recipe, shape, precision="float"):
        return self.ns.get(("twin", recipe, "-", "-", "-", precision, shape))

    def and_reading(self, shape):
        """A step of AdamW and one more reading of the gradients, as a multiple of the step."""
        read, step = self.traffic.get((4, shape)), self.step("adamw", shape)
        return read and step and 1 + read / step

    def of_traffic(self, key):
        return ratio(self.ns.get(key), self.traffic.get((round(self.bytes.get(key, 0), 2), key[6])))

    def recipe_of_traffic(self, recipe, shape):
        return self.of_traffic(("step", recipe, "-", self.backend, "serial", "float", shape))


def gnuplot(folder, name, script):
    if not shutil.which("gnuplot"):
        return f"(The plot {name} is left out: gnuplot is not installed.)\n"
    head = f"""set terminal svg size 860,420 font "Helvetica,13" background "white"
set output "{folder / name}.svg"
set encoding utf8
set border 3 lc rgb "#57606a"
set tics nomirror textcolor rgb "#24292f"
set grid ytics lc rgb "#d0d7de" lw 0.7
set key outside right top Left reverse textcolor rgb "#24292f"
"""
    run = subprocess.run(["gnuplot"], input=head + script, text=True, capture_output=True)
    if run.returncode:
        return f"(The plot {name} failed: {run.stderr.strip()})\n"
    return f"![{name}]({name}.svg)\n"


def block(name, rows):
    return f"${name} << EOD\n" + "\n".join(" ".join("?" if x is None else str(x) for x in row) for row in rows) + "\nEOD\n"


def lines_plot(folder, name, labels, series, y_label, extra=""):
    """series: [(title, [y…], style)]"""
    script = 'set datafile missing "?"\n' + block("data", [[i] + [ys[i] for _, ys, _ in series] for i in range(len(labels))])
    tics = ", ".join(f'"{label}" {i}' for i, label in enumerate(labels))
    script += f'set xtics ({tics})\nset xlabel "parameters"\nset ylabel "{y_label}"\nset xrange [-0.15:{len(labels) - 0.85}]\n{extra}\n'
    script += "plot " + ", ".join(f'$data using 1:{k + 2} with linespoints pt 7 ps 0.6 {style} title "{title}"'
                                  for k, (title, _, style) in enumerate(series))
    return gnuplot(folder, name, script)


def suite_part(folder, r):
    if not r.ns:
        return "## The suite\n\nNot run: Google Benchmark was not found when the benchmarks were built.\n"
    out = []
    here = [s for s in r.one if r.step("adamw", s)]

    def gbs(ns):
        return None if not ns else round(28 / ns, 2)
    out.append("## One step of AdamW, from the first cache to memory\n")
    out.append(lines_plot(folder, "adamw", [shape_name(s) for s in here], [
        ("pure traffic", [gbs(r.traffic.get((28, s))) for s in here], f'lw 2 dt 2 lc rgb "{TRAFFIC}"'),
        ("by hand", [gbs(r.twin("adamw", s)) for s in here], 'lw 2 lc rgb "#d1242f"'),
        ("gradus", [gbs(r.step("adamw", s)) for s in here], 'lw 2.5 lc rgb "#1f6feb"')],
        "GB/s", "set yrange [0:*]"))
    out.append("Bytes that AdamW reads and writes (28 a parameter) over the time of a step. *Pure traffic* is the machine's limit: a "
               "loop that moves the same bytes and computes next to nothing. *By hand* is the same arithmetic, exact square root and "
               "division, written in intrinsics.\n")
    out.append("## Every recipe\n")
    out.append("Time of a step in float, one thread, as a multiple of the pure traffic of the recipe's own bytes (1.00 is the limit), "
               "and, after the stroke, of the same step written by hand (below 1.00: faster than that). In the caches the first figure "
               "is bound by the processor's divider, so there the second is the one to look at. AdamS here computes the gradients' norm "
               "itself, four bytes a parameter more to read, which its twin does not; the table of variants has it with the norm given.\n")
    out.append(table(["recipe", "bytes"] + [shape_name(s) for s in r.one], [
        [recipe, two_or_int(r.bytes.get(("step", recipe, "-", r.backend, "serial", "float", r.one[0])))] +
        [f"{two(r.recipe_of_traffic(recipe, s))} / {two(ratio(r.step(recipe, s), r.twin(recipe, s)))}" for s in r.one]
        for recipe in r.recipes]))
    out.append(lines_plot(folder, "recipes", [shape_name(s) for s in r.one], [
        (recipe, [ratio(1.0, r.recipe_of_traffic(recipe, s)) for s in r.one], f'lw 1.8 lc rgb "{COLOURS[i % len(COLOURS)]}"')
        for i, recipe in enumerate(r.recipes)], "fraction of pure traffic's speed", "set yrange [0:1.2]"))

    doubles = [recipe for recipe in r.recipes if any(r.step(recipe, s, precision="double") for s in r.shapes)]
    if doubles:
        out.append("In double: as a multiple of the pure traffic of its bytes, and, after the stroke, of the step written by hand in double.\n")
        out.append(table(["recipe"] + [shape_name(s) for s in r.shapes], [
            [recipe] + [f"{two(r.of_traffic(('step', recipe, '-', r.backend, 'serial', 'double', s)))} / "
                        f"{two(ratio(r.step(recipe, s, precision='double'), r.twin(recipe, s, 'double')))}" for s in r.shapes]
            for recipe in doubles]))

    if r.many:
        out.append("## Many tensors\n")
        out.append("Nanoseconds a tensor and step; after the stroke, as a multiple of the step by hand over the same tensors.\n")
        out.append(table(["recipe"] + [shape_name(s) for s in r.many], [
            [recipe] + [f"{two(r.step(recipe, s) and r.step(recipe, s) * shape_key(s)[1])} / {two(ratio(r.step(recipe, s), r.twin(recipe, s)))}"
                        for s in r.many] for recipe in r.recipes]))
        flat = ratio(r.step("adamw", "1000x1000"), r.step("adamw", "1048576"))
        if flat:
            out.append(f"A parameter of a thousand tensors of a thousand costs AdamW {two(flat)}× one of a single tensor of a million.\n")
        added = sorted((shape_key(key[6])[0], ns) for key, ns in r.ns.items() if key[0] == "add")
        if added:
            out.append("Adding tensors: " + ", ".join(f"{ns * 64:.0f} ns each for {n}" for n, ns in added) + ".\n")

    out.append("## AdamS, clipping, alignment, denormal numbers, powers\n")
    out.append("Time as a multiple of plain AdamW's. AdamS needs the gradients' norm: it computes it, or takes it from a caller who has "
               "it; clipping needs it too. No norm that is computed before the step can be had for less than the last row, which adds a "
               "loop that only reads the gradients to AdamW.\n")
    variants = [("AdamS, norm given", "adams", "norm_given"), ("AdamS", "adams", "-"), ("AdamS, clipped", "adams", "clipped"),
                ("AdamW, clipped", "adamw", "clipped"), ("AdamW, memory not aligned", "adamw", "unaligned"),
                ("AdamW, denormal gradients and state", "adamw", "denormals"),
                ("the same with `flush_denormals`", "adamw", "denormals_flushed"), ("Padam", "padam", "-"),
                ("Padam, an exponent that is no power of two", "padam", "pow")]
    out.append(table(["variant"] + [shape_name(s) for s in r.shapes], [
        [title] + [two(ratio(r.step(recipe, s, variant), r.step("adamw", s))) for s in r.shapes] for title, recipe, variant in variants] +
        [["AdamW, and reading the gradients"] + [two(r.and_reading(s)) for s in r.shapes]]))

    others = []
    for kind, recipe, variant, backend, executor, precision, shape in r.ns:
        row = (recipe, backend, executor, precision)
        if kind == "step" and variant == "-" and row[1:] != (r.backend, "serial", "float") and row not in others:
            others.append(row)
    out.append("## Backends, executors, precisions\n")
    out.append("Time as a multiple of the same recipe's on the default backend, in float, on one thread. Threads join in from "
               f"{r.context.get('threads_from', '?')} parameters on (OpenMP's wait passively, OMP_WAIT_POLICY=passive). The scalar backend is a plain loop, here compiled with flags that keep a square root from being "
               "vectorised (see the plain loops under Peers). Threaded rows are wall time, so on a busy machine they come out too high.\n")
    out.append(table(["recipe, backend, executor, precision"] + [shape_name(s) for s in r.shapes], [
        [", ".join(row)] + [two(ratio(r.step(row[0], s, "-", *row[1:]), r.step(row[0], s))) for s in r.shapes]
        for row in sorted(others, key=lambda row: [place(x) for x in row])]))
    if r.errors:
        out.append("Not measured: " + "; ".join(f"`{'/'.join(k)}`: {e}" for k, e in sorted(r.errors.items())) + ".\n")
    return "\n".join(out)


def recipes_part(folder, r):
    """Every recipe against AdamW, by the suite, and against PyTorch's own, by peers.py --recipes."""
    path = folder / "recipes.json"
    data = json.loads(path.read_text()) if path.exists() else {"benchmarks": [], "context": {"missing": {"PyTorch": "not run"}}}
    ns = {}
    for row in data["benchmarks"]:
        _, recipe, way, *_, shape = row["run_name"].split("/")
        ns[recipe, way, shape] = row["ns_per_parameter"]
    shapes = [s for s in ("65536", "16777216") if s in r.shapes or any(key[2] == s for key in ns)]
    names = sorted({*r.recipes, *(recipe for recipe, _, _ in ns)}, key=place)
    if not names:
        return ""

    def to_torch(recipe, way, shape):
        return two(ratio(ns.get((recipe, way, shape)), ns.get((recipe, "gradus", shape))))
    ways = [way for way in ("fused", "foreach") if any(key[1] == way for key in ns)]
    head = ["recipe"] + [f"/ adamw, {shape_name(s)}" for s in shapes] + [f"PyTorch {way}, {shape_name(s)}" for way in ways for s in shapes]
    out = ["## Every recipe against AdamW, and against PyTorch\n",
           "A step in float on one thread: its time over AdamW's; and, where PyTorch has the optimizer, the time of PyTorch's own `step()` over "
           "gradus's (above 1.00: slower than gradus), the two in turns in one process. Settings are the defaults, with a momentum of 0.9 and "
           "some weight decay.\n",
           table(head, [[recipe] + [two(ratio(r.step(recipe, s), r.step("adamw", s))) for s in shapes] +
                        [to_torch(recipe, way, s) for way in ways for s in shapes] for recipe in names])]
    version = data["context"].get("versions", {}).get("torch")
    if version:
        out.append(f"PyTorch {version}.\n")
    if data["context"]["missing"]:
        out.append("Not measured: " + "; ".join(f"{name}: {reason}" for name, reason in data["context"]["missing"].items()) + ".\n")
    return "\n".join(out)


def two_or_int(x):
    return "–" if x is None else f"{x:g}"


class Peers:
    """Medians of ns a parameter of AdamW by implementation and shape (peers/peers.py)."""

    def __init__(self, folder, file):
        self.ns, self.shapes, self.names, self.context = {}, [], [], None
        path = folder / file
        if not path.exists():
            return
        data = json.loads(path.read_text())
        self.context = data["context"]
        for row in data["benchmarks"]:
            _, name, *_, shape = row["run_name"].split("/")
            self.ns[name, shape] = row["ns_per_parameter"]
        self.shapes = list(dict.fromkeys(s for _, s in self.ns))
        if all(is_shape(s) for s in self.shapes):
            self.shapes.sort(key=shape_key)
        for s in self.shapes:
            traffic = [x for x in (self.ns.get((n, s)) for n in ("traffic", "traffic, prefetching")) if x]
            if traffic:
                self.ns["pure traffic", s] = min(traffic)
        self.names = [n for n in dict.fromkeys(n for n, _ in self.ns)
                      if not n.startswith("traffic") and n not in ("gradus", "pure traffic")]
        middle = "1048576" if "1048576" in self.shapes else self.shapes[0]
        self.names.sort(key=lambda n: self.ns[n, middle])

    def to_gradus(self, name, shape):
        return ratio(self.ns.get((name, shape)), self.ns["gradus", shape])

    def faster(self):
        """What is faster than gradus by more than a twentieth, in words."""
        found = [f"{n} {where(s)} ({two(self.to_gradus(n, s))})" for n in self.names for s in self.shapes if self.to_gradus(n, s) < 0.95]
        return "Faster than gradus by more than a twentieth (its time over gradus's): " + ("; ".join(found) or "nothing") + ".\n"


def where(shape):
    return f"at {shape_name(shape)}" if is_shape(shape) else f"on {shape}"


def styles(names):
    """Lines as different as possible: gradus's thick and blue, the others in the other colours, first solid, then dashed."""
    others, palette = [n for n in names if n != "gradus"], [c for c in COLOURS[1:] if c != TRAFFIC]
    style = {n: f'lw 1.6 dt {1 + i // len(palette)} lc rgb "{palette[i % len(palette)]}"' for i, n in enumerate(others)}
    return {"gradus": f'lw 4 lc rgb "{COLOURS[0]}"'} | style


def limit_part(folder, p):
    """The first picture: every implementation's distance from the machine's limit, by size."""
    if not p.ns:
        return ""
    names = ["gradus"] + p.names
    style = styles(names)
    many, one = [s for s in p.shapes if "x" in s], [s for s in p.shapes if "x" not in s]
    at = {s: i for i, s in enumerate(many)} | {s: i + len(many) + (0.5 if many else 0) for i, s in enumerate(one)}
    right = at[p.shapes[-1]] if not one else at[one[-1]]

    def far(name, shape):
        return ratio(p.ns.get((name, shape)), p.ns.get(("pure traffic", shape)))
    # The labels stand beside the last points, and apart from each other.
    step, y, labels = 1.28, 0, []
    for name in sorted(names, key=lambda n: far(n, (one or many)[-1])):
        y = max(far(name, (one or many)[-1]), y * step)
        labels.append(f'set label "{name}" at {right + 0.4},{y:.3f} textcolor {style[name].partition("lc ")[2]}')
        labels.append(f'set arrow from {right + 0.12},{y:.3f} to {right + 0.36},{y:.3f} nohead {style[name]}')
    script = 'set datafile missing "?"\n'
    for k, shapes in enumerate((many, one)):
        script += block(f"data{k}", [[at[s]] + [far(n, s) for n in names] for s in shapes])
    tics = ", ".join(f'"{shape_name(s)}" {x}' for s, x in at.items())
    highest = max(far(n, s) for n in names for s in p.shapes)
    script += f"""set terminal svg size 980,560 font "Helvetica,13" background "white"
set output "{folder}/limit.svg"
unset key
set rmargin 38
set xtics ({tics})
set xlabel "parameters"
set xrange [-0.3:{right + 0.1}]
set logscale y 2
set yrange [0.6:{highest * 1.3}]
set ytics (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
set ylabel "time of a step / time to move its bytes (logarithmic)"
set label "the limit: moving the bytes" at {right},0.82 right textcolor rgb "#57606a"
set arrow from graph 0,first 1 to graph 1,first 1 nohead lw 1.5 dt 2 lc rgb "{TRAFFIC}"
{chr(10).join(labels)}
"""
    script += "plot " + ", ".join(
        f'$data{k} using 1:{i + 2} with linespoints pt 7 ps {0.9 if n == "gradus" else 0.5} {style[n]}'
        for k, shapes in enumerate((many, one)) if shapes for i, n in reversed(list(enumerate(names))))
    return ("## How far from the machine's limit\n\n" + gnuplot(folder, "limit", script) +
            "\nOne step of AdamW on one thread. The limit is a loop that moves the same bytes and computes next to nothing. From memory "
            "(the largest sizes) good implementations reach it; in the caches the exact square root and division take longer than "
            "the bytes, and the hand-written loop is the one to reach; with many small tensors the cost of a call decides.\n\n" + p.faster())


def bars(folder, name, p, ordered, shapes):
    script = block("data", [[f'"{n}"'] + [round(p.to_gradus(n, s), 3) for s in shapes] for n in reversed(ordered)])
    script += f"""set terminal svg size 860,{90 + (14 + 8 * len(shapes)) * len(ordered)} font "Helvetica,13" background "white"
set output "{folder}/{name}.svg"
set logscale x 2
set grid noytics xtics lc rgb "#d0d7de" lw 0.7
set xlabel "time of a step as a multiple of gradus's (logarithmic)"
set xrange [0.25:*]
set yrange [-0.6:{len(ordered) - 0.4}]
set offsets 0,0,0,0
set ytics ({", ".join(f'"{n}" {i}' for i, n in enumerate(reversed(ordered)))})
set arrow from 1,graph 0 to 1,graph 1 nohead lc rgb "#1f6feb" dt 2
"""
    middle = (len(shapes) - 1) / 2
    script += "plot " + ", ".join(
        f'$data using (0.25):($0+{0.25 * (middle - k)}):(0.25):{k + 2}:($0+{0.25 * (middle - k) - 0.11}):($0+{0.25 * (middle - k) + 0.11}) '
        f'with boxxyerror fs solid noborder lc rgb "{COLOURS[(0, 3, 4)[k]]}" {title(shapes, s)}' for k, s in enumerate(shapes))
    return gnuplot(folder, name, script)


def title(shapes, shape):
    return f'title "{shape_name(shape)}"' if len(shapes) > 1 else "notitle"


def peers_table(p, shapes, unit):
    """Ratios to gradus; the first rows are times."""
    def times(name):
        return [f"{name}, {unit[0]}"] + [unit[1](p.ns[name, s]) for s in shapes]
    rows = [times(n) for n in ("gradus", "pure traffic") if (n, shapes[0]) in p.ns]
    return table(["implementation"] + [shape_name(s) if is_shape(s) else s for s in shapes],
                 rows + [[n] + [two(p.to_gradus(n, s)) for s in shapes] for n in p.names])


PER_PARAMETER = ("ns a parameter", lambda ns: f"{ns:.3f}")


def missing_list(p):
    return "Not measured:\n\n" + "\n".join(f"- {n}: {reason}." for n, reason in p.context["missing"].items()) + "\n" if p.context["missing"] else ""


NOTES = ("- *Called raw* is PyTorch's fused kernel through its C++ library; `step()` adds the cost of Python, which a thousand "
         "small tensors make visible.\n- *Plain loop* is the textbook's, compiled like gradus; a square root that may set `errno` keeps it "
         "from being vectorised, and Armadillo's expressions too. With `-fno-math-errno` it is; then a compiler's loop is near the "
         "hand-written one. The loop with OpenMP is compiled with it too.\n"
         "- Eigen's square root of floats is not rounded as IEEE asks, which makes it cheaper; its three expressions are "
         "three passes.\n"
         "- *Armadillo, as ensmallen writes it*: the expressions of ensmallen's update policy for Adam, which is a library over Armadillo, "
         "with a factor for the weight decay; ensmallen itself is no package of Debian 12.\n")


def peers_part(folder, p, on_threads):
    if not p.ns:
        return "## Peers\n\nNot run.\n"
    out = ["## Peers\n"]
    out.append("The same step of AdamW, float32, one thread, in one process: implementations take turns in random order, and medians are "
               "compared. Before it is timed, each one's result after "
               f"{p.context['check_steps']} steps is compared with gradus's (at most {p.context['tolerance']:.0e} apart; dlib, whose weight "
               "decay is another, without any).\n")
    versions = ", ".join(f"{k} {v}" for k, v in p.context["versions"].items())
    if versions:
        out.append(f"Versions: {versions}.\n")
    shown = [s for s in ("65536", "1048576", "16777216") if s in p.shapes]
    if shown:
        out.append(bars(folder, "peers", p, ["pure traffic", "gradus"] + p.names, shown))
    out.append("Time as a multiple of gradus's (above 1.00: slower than gradus); the first two rows are nanoseconds a parameter, "
               "on a thousand tensors too.\n")
    out.append(peers_table(p, p.shapes, PER_PARAMETER))
    out += [NOTES, missing_list(p)]
    if on_threads.ns:
        out.append(f"### On {on_threads.context['threads']} threads\n")
        out.append("The same for what can use threads, in wall-clock time: gradus on its own pool, OpenMP's threads waiting as they do "
                   "by default (they spin for a while). Small steps of gradus run on one thread. Its row \"one thread\" is from the "
                   "table above.\n")
        rows = [["gradus, one thread"] + [two(ratio(p.ns.get(("gradus", s)), on_threads.ns["gradus", s])) for s in on_threads.shapes]]
        out.append(peers_table(on_threads, on_threads.shapes, PER_PARAMETER) + "".join("| " + " | ".join(row) + " |\n" for row in rows))
        out += [on_threads.faster(), missing_list(on_threads)]
    return "\n".join(out)


def choices_part(r):
    if not r.ns:
        return "## Choices\n\nNot measured.\n"
    out = ["## Choices\n",
           "Of what changes speed and no bits, gradus ships one choice for all machines, or one by the processor's vendor. Each is here "
           "beside others, in turns: time over the shipped choice's, below 1.00 faster than it. *Shipped again* is the shipped choice once "
           "more, so its row shows the noise. A figure is bold if it is better than the faster of these two beyond noise: by more than 3 %, "
           "by more than three times what they differ, and by more than three times the standard error of the difference.\n"]
    better, tables = [], []
    for what, recipe, executor in sorted({(key[2], key[1], key[4]) for key in r.ns}):
        def key(option, shape):
            return "choice", recipe, what, option, executor, "float", shape
        shapes = sorted({k[6] for k in r.ns if k[1:3] == (recipe, what)}, key=shape_key)
        options = ["shipped again"] + sorted({k[3] for k in r.ns if k[1:3] == (recipe, what) and not k[3].startswith("shipped")}, key=numbers_first)
        rows = [[o] for o in options]
        for s in shapes:
            shipped, again = r.ns[key("shipped", s)], r.ns[key("shipped again", s)]
            found = []
            for o, row in zip(options, rows):
                x, gain = r.ns[key(o, s)], min(shipped, again) - r.ns[key(o, s)]
                error = math.hypot(r.error[key("shipped", s)], r.error[key(o, s)])
                is_better = o != "shipped again" and gain > max(0.03 * shipped, 3 * abs(shipped - again), 3 * error)
                row.append(f"**{two(x / shipped)}**" if is_better else two(x / shipped))
                found += [(x / shipped, o)] if is_better else []
            if found:
                better.append(f"- {what} ({recipe}), {shape_name(s)}: {min(found)[1]}, {two(min(found)[0])}")
        tables.append(f"{what} ({recipe}):\n\n" + table(["choice"] + [shape_name(s) for s in shapes], rows))
    out.append("Better than the shipped choice on this machine:\n\n" + "\n".join(better) + "\n" if better else
               "On this machine no choice is better than the shipped one.\n")
    return "\n".join(out + tables)


def step_time(ns):
    """A duration, with three digits."""
    for unit, of in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= of:
            return f"{ns / of:.3g} {unit}"
    return f"{ns:.3g} ns"


def size(number):
    for unit, of in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= of:
            return f"{number / of:.3g} {unit}"
    return f"{number:.0f} B"


def model_part(folder, r, p, on_threads, model):
    name = model.stem
    lengths = [math.prod(int(d) for d in line.split()[1:]) for line in model.read_text().splitlines()]
    n = sum(lengths)
    out = [f"{n:,} parameters in {len(lengths)} tensors of {min(lengths):,} to {max(lengths):,} elements. The figures are times of one "
           "step.\n"]

    def time(recipe, precision, executor="serial", backend=r.backend):
        ns = r.step(recipe, name, "-", backend, executor, precision)
        return step_time(ns * n) if ns else "–"
    if p.ns:
        out.append("## AdamW, by gradus and others\n")
        out.append(bars(folder, "model", p, ["pure traffic", "gradus"] + p.names, [name]))
        out.append("On one thread, as multiples of gradus's time; the first two rows are times. *Pure traffic* is the machine's limit: a loop "
                   "that moves the same bytes and computes next to nothing.\n")
        out.append(peers_table(p, [name], ("time", lambda ns: step_time(ns * n))))
        out += [p.faster(), NOTES, missing_list(p)]
    if on_threads.ns:
        out.append(f"On {on_threads.context['threads']} threads:\n")
        out.append(peers_table(on_threads, [name], ("time", lambda ns: step_time(ns * n))))
        out += [on_threads.faster(), missing_list(on_threads)]
    precisions, executors = r.precisions, r.executors
    out.append("## Every recipe, on one thread\n")
    out.append("By precision. The two columns after float are its time as a multiple of the pure traffic of the recipe's bytes, and of the "
               "step written by hand.\n")
    out.append(table(["recipe", "float", "/ traffic", "/ by hand"] + precisions[1:], [
        [recipe, time(recipe, "float"), two(r.recipe_of_traffic(recipe, name)), two(ratio(r.step(recipe, name), r.twin(recipe, name)))] +
        [time(recipe, x) for x in precisions[1:]] for recipe in r.recipes]))
    out.append("Bytes of state:\n")
    out.append(table(["recipe"] + precisions, [
        [recipe] + [size(r.state.get(("step", recipe, "-", r.backend, "serial", x, name), 0)) for x in precisions] for recipe in r.recipes]))
    if len(executors) > 1:
        out.append("## Every recipe, on several threads\n")
        out.append(f"A step of fewer than {r.context.get('threads_from', '?')} parameters runs on one.\n")
        for x in precisions:
            out.append(f"{x}:\n")
            out.append(table(["recipe"] + executors, [[recipe] + [time(recipe, x, e) for e in executors] for recipe in r.recipes]))
    backends = sorted({key[3] for key in r.ns if key[0] == "step"} - {r.backend})
    if backends:
        out.append("## Every recipe, on the other backends\n")
        out.append("In float, on one thread.\n")
        out.append(table(["recipe", r.backend] + backends, [
            [recipe, time(recipe, "float")] + [time(recipe, "float", backend=b) for b in backends] for recipe in r.recipes]))
    if r.errors:
        out.append("Not measured: " + "; ".join(f"`{'/'.join(k)}`: {e}" for k, e in sorted(r.errors.items())) + ".\n")
    return "\n".join(out)


def compile_part(folder):
    path = folder / "compile_time.json"
    if not path.exists():
        return "## Compile time\n\nNot run.\n"
    data = json.loads(path.read_text())
    compilers = list(dict.fromkeys(row["compiler"] for row in data["benchmarks"]))
    rows = {(row["compiler"], row["case"]): row for row in data["benchmarks"]}
    cases = list(dict.fromkeys(row["case"] for row in data["benchmarks"]))
    out = ["## Compile time and size\n",
           f"Seconds of processor time (median of {data['context']['rounds']}, `{data['context']['flags']}`; with xsimd `-march=native` too), "
           "lines after preprocessing, and bytes of code.\n"]
    head, body = ["what is compiled"], [[case] for case in cases]
    for c in compilers:
        head += [f"{c}: s", "lines", "code"]
        for row, case in zip(body, cases):
            x = rows.get((c, case))
            row += [two(x["seconds"]), str(x["preprocessed_lines"]), str(x["text_bytes"])] if x else ["–"] * 3
    out.append(table(head, body))
    for name, reason in data["context"]["missing"].items():
        out.append(f"Not measured: {name}: {reason}.\n")
    return "\n".join(out)


def checkpoint_part(folder):
    path = folder / "checkpoints.txt"
    measured = f"```\n{path.read_text()}```\n" if path.exists() else "Not run.\n"
    return ("## Checkpoints\n\n*save* and *load* against a plain *write* and *read* of the same bytes from one piece of memory. "
            "Writes are flushed to the disk; reads come from the page cache.\n\n" + measured)


def machine():
    text = {}
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            text.setdefault(name.strip(), value.strip())
    except OSError:
        pass
    return f"{text.get('model name', platform.processor() or platform.machine())} (family {text.get('cpu family', '?')}, model {text.get('model', '?')})"


def main():
    options = argparse.ArgumentParser()
    options.add_argument("folder", type=pathlib.Path)
    options.add_argument("--command", default="bench/run.sh")
    options.add_argument("--model", type=pathlib.Path)
    o = options.parse_args()
    r, choices = Results(o.folder, "suite*.json"), Results(o.folder, "choices.json")
    peers, on_threads = Peers(o.folder, "peers.json"), Peers(o.folder, "peers-threads.json")
    context = r.context or {}
    caches = ", ".join(f"L{c['level']} {c['type'].lower()} {c['size'] // 1024} KiB" for c in context.get("caches", []) if c["type"] != "Instruction")
    facts = [("machine", f"{machine()}, {context.get('num_cpus', '?')} cores; caches as reported: {caches or 'unknown'}"),
             ("compiler", f"{context.get('compiler', '?')}, flags `{context.get('flags', '?')}`"),
             ("date", f"{context.get('date', datetime.datetime.now().isoformat())[:16]}, load average at the start "
                      f"{', '.join(two(x) for x in context.get('load_avg', [])) or '?'}"),
             ("command", f"`{o.command}`")]
    text = [f"# gradus: benchmark report{f' on {o.model.stem}' if o.model else ''}\n", "\n".join(f"- **{k}**: {v}" for k, v in facts) + "\n",
            "Absolute figures hold for this machine and day; the ratios are the point. What is compared ran interleaved in one process; "
            "figures are medians of repetitions. Work on one thread is measured by its processor time, which other programs on the machine do "
            "not lengthen (though they share its caches and memory).\n"]
    if o.model:
        text.append(model_part(o.folder, r, peers, on_threads, o.model))
    else:
        text += [limit_part(o.folder, peers), suite_part(o.folder, r), recipes_part(o.folder, r), choices_part(choices), peers_part(o.folder, peers, on_threads),
                 compile_part(o.folder), checkpoint_part(o.folder)]
    (o.folder / "report.md").write_text("\n".join(text))
    print(o.folder / "report.md")


if __name__ == "__main__":
    sys.exit(main())
