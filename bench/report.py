#!/usr/bin/env python3
"""Draws the report of a benchmark run: FOLDER/report.md and its SVG plots, from the JSON files in FOLDER.

  report.py FOLDER [--command "what was run"]

suite*.json come from Google Benchmark, peers.json from peers/peers.py, compile_time.json from compile_time.py. The report
says which of them are missing. gnuplot draws the plots.
"""
import argparse
import datetime
import json
import pathlib
import platform
import shutil
import subprocess
import sys

COLOURS = ["#1f6feb", "#d1242f", "#8c959f", "#2da44e", "#bf8700", "#8250df", "#e16f24", "#0a7ea4", "#bf3989", "#57606a", "#116329"]


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


class Results:
    """Medians of ns a parameter by the seven parts of a benchmark's name (suite.cpp)."""

    def __init__(self, folder):
        self.ns, self.bytes, self.errors, self.context = {}, {}, {}, None
        for path in sorted(folder.glob("suite*.json")):
            try:
                data = json.loads(path.read_text())
            except ValueError:
                continue  # nothing matched
            self.context = self.context or data["context"]
            for row in data["benchmarks"]:
                key = tuple(row["run_name"].removesuffix("/real_time").split("/"))
                if row.get("error_occurred"):
                    self.errors[key] = row["error_message"]
                elif row.get("aggregate_name") == "median":
                    self.ns[key], self.bytes[key] = row["ns_per_parameter"], row["bytes_per_parameter"]
        # Pure traffic: the faster loop for each number of bytes.
        self.traffic = {}
        for key, ns in self.ns.items():
            if key[0] == "traffic":
                at = (round(self.bytes[key], 2), key[6])
                self.traffic[at] = min(ns, self.traffic.get(at, ns))
        self.shapes = sorted({key[6] for key in self.ns if key[0] == "step"}, key=shape_key)
        self.one = [s for s in self.shapes if "x" not in s]
        self.many = [s for s in self.shapes if "x" in s]
        self.backend = "simd" if any(key[3] == "simd" for key in self.ns) else "scalar"
        self.recipes = list(dict.fromkeys(key[1] for key in self.ns if key[0] == "step"))

    def step(self, recipe, shape, variant="-", backend=None, executor="serial", precision="float"):
        return self.ns.get(("step", recipe, variant, backend or self.backend, executor, precision, shape))

    def twin(self, recipe, shape):
        return self.ns.get(("twin", recipe, "-", "-", "-", "float", shape))

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
        ("pure traffic", [gbs(r.traffic.get((28, s))) for s in here], 'lw 2 dt 2 lc rgb "#8c959f"'),
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
               "it; clipping needs it too.\n")
    variants = [("AdamS, norm given", "adams", "norm_given"), ("AdamS", "adams", "-"), ("AdamS, clipped", "adams", "clipped"),
                ("AdamW, clipped", "adamw", "clipped"), ("AdamW, memory not aligned", "adamw", "unaligned"),
                ("AdamW, denormal gradients and state", "adamw", "denormals"),
                ("the same with `flush_denormals`", "adamw", "denormals_flushed"), ("Padam", "padam", "-"),
                ("Padam, an exponent that is no power of two", "padam", "pow")]
    out.append(table(["variant"] + [shape_name(s) for s in r.shapes], [
        [title] + [two(ratio(r.step(recipe, s, variant), r.step("adamw", s))) for s in r.shapes] for title, recipe, variant in variants]))

    others = []
    for kind, recipe, variant, backend, executor, precision, shape in r.ns:
        row = (recipe, backend, executor, precision)
        if kind == "step" and variant == "-" and row[1:] != (r.backend, "serial", "float") and row not in others:
            others.append(row)
    out.append("## Backends, executors, precisions\n")
    out.append("Time as a multiple of the same recipe's on the default backend, in float, on one thread. Threads join in from 262 144 "
               "parameters on (OpenMP's wait passively, OMP_WAIT_POLICY=passive). The scalar backend is a plain loop, here compiled with flags that keep a square root from being "
               "vectorised (see the plain loops under Peers). Threaded rows are wall time, so on a busy machine they come out too high.\n")
    out.append(table(["recipe, backend, executor, precision"] + [shape_name(s) for s in r.shapes], [
        [", ".join(row)] + [two(ratio(r.step(row[0], s, "-", *row[1:]), r.step(row[0], s))) for s in r.shapes]
        for row in sorted(others)]))
    if r.errors:
        out.append("Not measured: " + "; ".join(f"`{'/'.join(k)}`: {e}" for k, e in sorted(r.errors.items())) + ".\n")
    return "\n".join(out)


def two_or_int(x):
    return "–" if x is None else f"{x:g}"


def peers_part(folder):
    path = folder / "peers.json"
    if not path.exists():
        return "## Peers\n\nNot run.\n"
    data = json.loads(path.read_text())
    context, ns = data["context"], {}
    for row in data["benchmarks"]:
        _, name, *_, shape = row["run_name"].split("/")
        ns[name, shape] = row["ns_per_parameter"]
    shapes = sorted({s for _, s in ns}, key=shape_key)
    for s in shapes:
        ns["pure traffic", s] = min(ns["traffic", s], ns["traffic, prefetching", s])
    names = [n for n in dict.fromkeys(n for n, _ in ns) if not n.startswith("traffic") and n not in ("gradus", "pure traffic")]
    middle = "1048576" if "1048576" in shapes else shapes[0]
    names.sort(key=lambda n: ns[n, middle])
    out = ["## Peers\n"]
    out.append("The same step of AdamW, float32, one thread, in one process: implementations take turns in random order, and medians are "
               "compared. Before it is timed, each one's result after "
               f"{context['check_steps']} steps is compared with gradus's (at most {context['tolerance']:.0e} apart; dlib, whose weight "
               "decay is another, without any).\n")
    versions = ", ".join(f"{k} {v}" for k, v in context["versions"].items())
    if versions:
        out.append(f"Versions: {versions}.\n")

    bars = [s for s in ("65536", "1048576", "16777216") if s in shapes]
    ordered = ["pure traffic", "gradus"] + names
    script = block("data", [[f'"{n}"'] + [round(ns[n, s] / ns["gradus", s], 3) for s in bars] for n in reversed(ordered)])
    script += f"""set terminal svg size 860,{90 + 38 * len(ordered)} font "Helvetica,13" background "white"
set output "{folder}/peers.svg"
set logscale x 2
set grid noytics xtics lc rgb "#d0d7de" lw 0.7
set xlabel "time of a step as a multiple of gradus's (logarithmic)"
set xrange [0.25:*]
set yrange [-0.6:{len(ordered) - 0.4}]
set offsets 0,0,0,0
set ytics ({", ".join(f'"{n}" {i}' for i, n in enumerate(reversed(ordered)))})
set arrow from 1,graph 0 to 1,graph 1 nohead lc rgb "#1f6feb" dt 2
"""
    script += "plot " + ", ".join(
        f'$data using (0.25):($0+{0.25 * (1 - k)}):(0.25):{k + 2}:($0+{0.25 * (1 - k) - 0.11}):($0+{0.25 * (1 - k) + 0.11}) '
        f'with boxxyerror fs solid noborder lc rgb "{COLOURS[(0, 3, 4)[k]]}" title "{shape_name(s)}"' for k, s in enumerate(bars))
    if bars:
        out.append(gnuplot(folder, "peers", script))
    out.append("Time as a multiple of gradus's (above 1.00: slower than gradus); the first two rows are nanoseconds a parameter, "
               "on a thousand tensors too.\n")
    out.append(table(["implementation"] + [shape_name(s) for s in shapes],
                     [["gradus, ns a parameter"] + [f"{ns['gradus', s]:.3f}" for s in shapes],
                      ["pure traffic, ns a parameter"] + [f"{ns['pure traffic', s]:.3f}" for s in shapes]] +
                     [[n] + [two(ratio(ns.get((n, s)), ns["gradus", s])) for s in shapes] for n in names]))
    out.append("- *Called raw* is PyTorch's fused kernel through its C++ library; `step()` adds the cost of Python, which a thousand "
               "small tensors make visible.\n- *Plain loop* is the textbook's, compiled like gradus; a square root that may set `errno` keeps it "
               "from being vectorised. With `-fno-math-errno` it is; then a compiler's loop is near the hand-written one.\n"
               "- Eigen's square root of floats is not rounded as IEEE asks, which makes it cheaper; its three expressions are "
               "three passes.\n")
    if context["missing"]:
        out.append("Not measured:\n\n" + "\n".join(f"- {name}: {reason}." for name, reason in context["missing"].items()) + "\n")
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
    o = options.parse_args()
    r = Results(o.folder)
    context = r.context or {}
    caches = ", ".join(f"L{c['level']} {c['type'].lower()} {c['size'] // 1024} KiB" for c in context.get("caches", []) if c["type"] != "Instruction")
    facts = [("machine", f"{machine()}, {context.get('num_cpus', '?')} cores; caches as reported: {caches or 'unknown'}"),
             ("compiler", f"{context.get('compiler', '?')}, flags `{context.get('flags', '?')}`"),
             ("date", f"{context.get('date', datetime.datetime.now().isoformat())[:16]}, load average at the start "
                      f"{', '.join(two(x) for x in context.get('load_avg', [])) or '?'}"),
             ("command", f"`{o.command}`")]
    text = ["# gradus: benchmark report\n", "\n".join(f"- **{k}**: {v}" for k, v in facts) + "\n",
            "Absolute figures hold for this machine and day; the ratios are the point. What is compared ran interleaved in one process; "
            "figures are medians of repetitions. Work on one thread is measured by its processor time, which other programs on the machine do "
            "not lengthen (though they share its caches and memory).\n",
            suite_part(o.folder, r), peers_part(o.folder), compile_part(o.folder), checkpoint_part(o.folder)]
    (o.folder / "report.md").write_text("\n".join(text))
    print(o.folder / "report.md")


sys.exit(main())
