"""The study's logs, and the tables and figures that are made from them alone."""
import io
import json
import lzma
import math
import statistics

from experiments import EXPERIMENTS, USUAL, key, name, planned, refuse, six, strength, unique
from svg import lighter


# ---------------------------------------------------------------------------------------------------- logs
def lines_of(path):
    """A log's lines; a last one that was cut off in writing does not count."""
    out = []
    try:
        for line in path.read_text().splitlines():
            out.append(json.loads(line))
    except (OSError, ValueError):
        pass
    return out


def packed_lines(path):
    """The lines of a file that `pack` wrote: one line for each run."""
    try:
        with lzma.open(path, "rt", encoding="utf-8") as file:
            return [json.loads(line) for line in file]
    except (EOFError, ValueError, lzma.LZMAError) as error:
        refuse(f"{path} is damaged ({error}); expected JSON lines, compressed by xz")


class Log:
    """A finished run: its description, its epochs' lines (of a command: its lines), its last line."""

    def __init__(self, run, head, epochs, done):
        self.run, self.head, self.done = run, head, done
        self.diverged = any(e.get("diverged") for e in epochs)
        self.epochs = [e for e in epochs if not e.get("diverged")]

    def value(self, field):
        """At the end of the run; None where there is none."""
        if self.diverged or not self.epochs:
            return None
        return measured(self.epochs[-1] | {"sharpness": self.done.get("sharpness")}, field)


# Where a network does not depend on the scale of its weights, gradients go as 1/‖θ‖ and the Hessian as 1/‖θ‖²: what is
# left after multiplying with these is not decay's mere shortening of the weights.
DERIVED = {"perplexity": ("test_loss", math.exp),
           "scaled_grad_norm": ("grad_norm", "weight_norm", lambda g, w: g * w),
           "scaled_sharpness": ("sharpness", "weight_norm", lambda h, w: h * w * w)}


def measured(epoch, field):
    """None where it was not measured: the test is not taken in every epoch."""
    *sources, f = DERIVED.get(field, (field, lambda x: x))
    values = [epoch.get(source) for source in sources]
    return None if None in values else f(*values)


def read_logs(folder, size):
    """The plan's finished runs by key, from logs as the worker writes them and from packed ones."""
    wanted = set(map(key, unique(planned(None, size))))
    out = {}
    for path in sorted([*folder.glob("*.jsonl"), *folder.glob("*.jsonl.xz")]):
        lines = packed_lines(path) if path.suffix == ".xz" else lines_of(path)
        if path.suffix == ".xz":
            logs = [Log(x["run"], x["head"], x["epochs"], x["done"]) for x in lines]
        elif path.stem in ("theorem", "time"):
            rows = [x for x in lines if "kind" in x or "optimizer" in x]  # no head and no last line needed
            logs = [Log({"command": path.stem}, {}, rows, {"done": True})]
        elif lines and "done" in lines[-1]:
            head = {k: v for k, v in lines[0].items() if k != "run"}
            logs = [Log(lines[0]["run"], head, lines[1:-1], lines[-1])]
        else:
            logs = []
        for log in logs:  # rounded as packed ones are, so that both give the same figures
            log.epochs, log.done = shortened(log.epochs), shortened(log.done)
            if key(log.run) in wanted:
                out[key(log.run)] = log
    return out


def shortened(x):
    if isinstance(x, float):
        return six(x)
    if isinstance(x, dict):
        return {k: shortened(v) for k, v in x.items()}
    return [shortened(v) for v in x] if isinstance(x, list) else x


def pack_command(o):
    logs = read_logs(o.logs, o.size)
    o.out.mkdir(parents=True, exist_ok=True)
    path, text = o.out / "study.jsonl.xz", ""
    for log in sorted(logs.values(), key=lambda log: name(log.run)):
        epochs = log.epochs + ([{"diverged": True}] if log.diverged else [])
        line = {"run": log.run, "head": log.head, "epochs": epochs, "done": log.done}
        text += json.dumps(line, separators=(",", ":")) + "\n"
    # xz stores no time, so the same logs give the same bytes.
    path.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))
    print(f"study: {len(logs)} runs in {path}, {path.stat().st_size / 1e6:.2f} MB")


# ---------------------------------------------------------------------------------------------------- tables
def of(run, field):
    return strength(run) if field == "strength" else run.get(field)


def groups(rs, fields):
    """Runs by the values of fields, in the order of the plan; numbers ascend."""
    out = {}
    for r in rs:
        if "command" not in r:
            out.setdefault(tuple(of(r, f) for f in fields), []).append(r)
    numeric = [i for i, f in enumerate(fields) if f in ("strength", "lr")]
    order = list(out)
    return {k: out[k] for k in sorted(out, key=lambda k: [k[i] if i in numeric else
                                                          min(j for j, other in enumerate(order) if other[i] == k[i])
                                                          for i in range(len(k))])}


def found(rs, logs):
    return [logs[key(r)] for r in rs if key(r) in logs]


def mean_sd(values):
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def figure_text(x, field=""):
    return f"{x:.2f}" if field == "test_error" else f"{x:.3g}" if abs(x) < 1000 else f"{x:.0f}"


def summary(values, field):
    """Mean and standard deviation of three or more, else the values themselves: two have no spread worth the name."""
    if len(values) < 3:
        return " / ".join(figure_text(v, field) for v in values)
    return " ± ".join(figure_text(v, field) for v in mean_sd(values))


def cell(rs, logs, field):
    here = found(rs, logs)
    values = [v for v in (log.value(field) for log in here) if v is not None]
    diverged = sum(log.diverged for log in here)
    text = "–"
    if values:
        text = summary(values, field)
    if diverged:
        text = f"{diverged} diverged" if not values else f"{text} ({diverged} diverged)"
    return text if not here or len(here) == len(rs) else f"{text} ({len(here)} of {len(rs)})"


def markdown(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def label(x, field):
    return f"λ = {x:g}" if field == "strength" else f"{x:g}" if isinstance(x, float) else str(x)


def pivot(rs, logs, field, rows, column):
    columns = [k[0] for k in groups(rs, [column])]
    body = []
    for row, members in groups(rs, rows).items():
        cells = groups(members, [column])
        body.append([label(x, f) for x, f in zip(row, rows)] +
                    [cell(cells[(c,)], logs, field) if (c,) in cells else "" for c in columns])
    return markdown(rows + [label(c, column) for c in columns], body)


def paired_table(rs, logs, reference):
    """Test error less that of the reference with the same seed: seeds share first weights and the order of the data."""
    fields, body = ["model", "strength"], []
    others = [k[0] for k in groups(rs, ["optimizer"]) if k[0] != reference]
    for row, members in groups(rs, fields).items():
        by = {(r["optimizer"], r["seed"]): logs[key(r)].value("test_error") for r in members if key(r) in logs}
        cells = []
        for other in others:
            pairs = [(v, by.get((reference, seed))) for (o, seed), v in by.items() if o == other]
            values = [a - b for a, b in pairs if a is not None and b is not None]
            cells.append(summary(values, "test_error") if values else "–")
        body.append([label(x, f) for x, f in zip(row, fields)] + cells)
    return markdown(fields + others, body)


def theorem_table(log):
    """Each kind's distance from stationarity just before lr drops, and at the end."""
    body = []
    for kind, lines in by_kind(log).items():
        before = [x for x in lines if x["lr"] == lines[0]["lr"]][-1]
        body.append([kind] + [figure_text(x["stationarity"]) for x in (before, lines[-1])])
    return markdown(["weight decay", "gradient norm of the objective before lr drops", "at the end"], body)


def by_kind(log):
    out = {}
    for x in log.epochs:
        out.setdefault(x["kind"], []).append(x)
    return out


def time_table(log):
    return markdown(["optimizer", "µs a step", "ns a parameter", "share of a training step"], [
        [x["optimizer"], figure_text(x["ns_per_step"] / 1e3), figure_text(x["ns_per_parameter"]),
         f"{100 * x['share_of_step']:.2f} %"] for x in sorted(log.epochs, key=lambda x: x["ns_per_parameter"])])


def speed_table(logs):
    models = {}
    for log in logs.values():
        if "model" in log.run:
            for e in log.epochs:
                m = models.setdefault(log.run["model"], [0, 0, 0, 0.0, 0.0])
                for i, x in enumerate((e["epoch"] == 1, 1, e["examples"], e["seconds"], e["optimizer_seconds"])):
                    m[i] += x
    head = ["model", "runs", "epochs", "examples", "hours of training", "examples/s, one process", "optimizer's share"]
    return markdown(head, [[m, str(n), str(epochs), str(examples), f"{s / 3600:.2f}", figure_text(examples / s),
                            f"{100 * steps / s:.2f} %"]
                           for m, (n, epochs, examples, s, steps) in sorted(models.items()) if s > 0])


# ---------------------------------------------------------------------------------------------------- figures
COLOURS = {"sgd": "#1f6feb", "sgds": "#0a7ea4", "adam": "#d1242f", "adamw": "#bf8700", "adams": "#2da44e",
           "amsgrad": "#8250df", "yogi": "#bf3989", "adabound": "#57606a", "padam": "#e16f24", "radam": "#116329",
           "sgd_decoupled": "#2da44e", "sgd_independent": "#d1242f", "independent": "#d1242f", "coupled": "#2da44e",
           "l2": "#1f6feb"}
SEQUENCE = ("#8c959f", "#1f6feb", "#2da44e", "#bf8700", "#d1242f")
AXES = {"test_error": "test error, %", "grad_norm": "gradient norm", "grad_norm_l2": "gradient norm with L2 term",
        "probe_grad_norm": "norm of the probe's gradient", "decay_factor": "decay factor 1/√v̄",
        "sharpness": "top Hessian eigenvalue", "probe_loss": "loss on the probe", "perplexity": "perplexity",
        "scaled_grad_norm": "gradient norm · ‖θ‖", "scaled_sharpness": "top Hessian eigenvalue · ‖θ‖²"}
LOGARITHMIC = ("grad_norm", "grad_norm_l2", "probe_grad_norm", "decay_factor", "sharpness", "probe_loss", "scaled_grad_norm",
               "scaled_sharpness")


def pyplot():
    """matplotlib, set so that the same logs give the same bytes."""
    import matplotlib
    matplotlib.use("svg")
    from matplotlib import pyplot as plt
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "study", "font.size": 9, "axes.grid": True,
                         "axes.axisbelow": True, "grid.color": "#d0d7de", "grid.linewidth": 0.5, "axes.spines.top": False,
                         "axes.spines.right": False, "legend.frameon": False, "lines.linewidth": 1.3})
    return plt


def save(figure, path):
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    pyplot().close(figure)
    path.write_text(lighter(text.getvalue()))


def panels(count, columns=3, width=3.4, height=2.7):
    columns = min(columns, count)
    rows = -(-count // columns)
    figure, axes = pyplot().subplots(rows, columns, squeeze=False, figsize=(width * columns + 1.3, height * rows),
                                     layout="constrained")
    axes = list(axes.flat)
    for spare in axes[count:]:
        spare.set_axis_off()
    return figure, axes[:count]


def one_legend(axes):
    """Of all panels, beside the first row's last one."""
    entries = {}
    for ax in axes:
        for handle, text in zip(*ax.get_legend_handles_labels()):
            entries.setdefault(text, handle)
    if entries:
        place = [ax.get_subplotspec() for ax in axes]
        ax = next(ax for ax, p in zip(axes, place) if p.is_first_row() and p.is_last_col())
        ax.legend(entries.values(), entries.keys(), loc="upper left", bbox_to_anchor=(1.02, 1), borderaxespad=0)


def colour(value, position):
    return COLOURS.get(value, SEQUENCE[position % len(SEQUENCE)])


def scaled(ax, field, axis="y"):
    if field in LOGARITHMIC and ax.lines:
        getattr(ax, f"set_{axis}scale")("log")


def by_epoch(logs, field):
    """[(epoch, mean over seeds, standard deviation or 0)]"""
    values = {}
    for log in logs:
        for e in log.epochs if not log.diverged else ():
            x = measured(e, field)
            if x is not None:
                values.setdefault(e["epoch"], []).append(x)
    return [(e, m, sd or 0) for e, (m, sd) in ((e, mean_sd(v)) for e, v in sorted(values.items()))]


def only(rs, conditions):
    return [r for r in rs if "command" not in r and all(of(r, f) == v for f, v in conditions.items())]


def curves(fields, series, split=("model",), columns=3, **conditions):
    """Fields over epochs: a panel for each field and value of split, a line for each value of series."""
    def draw(rs, logs):
        rs = only(rs, conditions)
        parts = [(part, field) for part in groups(rs, split).items() for field in fields]
        figure, axes = panels(len(parts), columns)
        order = list(groups(rs, [series]))
        for ax, ((values, members), field) in zip(axes, parts):
            for value, same in groups(members, [series]).items():
                points, i = by_epoch(found(same, logs), field), order.index(value)
                if points:
                    x, y, sd = zip(*points)
                    ax.plot(x, y, color=colour(value[0], i), label=label(value[0], series))
                    if any(sd) and len(order) <= 5:  # more bands than that hide each other
                        # Not below a tenth of the mean: it must be seen on a logarithmic axis, too.
                        ax.fill_between(x, [max(m - s, m / 10) for m, s in zip(y, sd)], [m + s for m, s in zip(y, sd)],
                                        color=colour(value[0], i), alpha=0.2, linewidth=0)
            scaled(ax, field)
            ax.xaxis.get_major_locator().set_params(integer=True)
            if field == "test_error" and ax.lines:  # the first epochs' may be anything
                ax.set_ylim(top=min(ax.get_ylim()[1], 3 * min(min(line.get_ydata()) for line in ax.lines)))
            ax.set(title=", ".join(label(v, f) for v, f in zip(values, split)), xlabel="epoch", ylabel=AXES[field])
        one_legend(axes)
        return figure
    return draw


def against(x_field, y_field, series, split):
    """The path of each series over the epochs, from one quantity to another; a dot where it ends."""
    def draw(rs, logs):
        parts = groups(rs, split)
        figure, axes = panels(len(parts), 2)
        for ax, (values, members) in zip(axes, parts.items()):
            for i, (value, same) in enumerate(groups(members, [series]).items()):
                xs, ys = ({e: m for e, m, _ in by_epoch(found(same, logs), f)} for f in (x_field, y_field))
                x, y = ([m[e] for e in xs if e in ys] for m in (xs, ys))
                if x:
                    ax.plot(x, y, color=colour(value[0], i), label=label(value[0], series), linewidth=0.8)
                    ax.plot(x[-1:], y[-1:], "o", color=colour(value[0], i), markersize=4)
            scaled(ax, x_field, "x")
            ax.set(title=", ".join(label(v, f) for v, f in zip(values, split)), xlabel=AXES[x_field],
                   ylabel=AXES[y_field])
        one_legend(axes)
        return figure
    return draw


def over_decay(fields, split=("model",)):
    """The end of the run over strengths (evenly spaced, so that 0 has its place), a line for each optimizer."""
    def draw(rs, logs):
        parts = [(part, field) for part in groups(rs, split).items() for field in fields]
        figure, axes = panels(len(parts), len(fields))
        for ax, ((values, members), field) in zip(axes, parts):
            ticks = [k[0] for k in groups(members, ["strength"])]
            for i, (value, same) in enumerate(groups(members, ["optimizer"]).items()):
                points = []
                for (s,), runs_there in groups(same, ["strength"]).items():
                    ends = [v for v in (log.value(field) for log in found(runs_there, logs)) if v is not None]
                    if ends:
                        points.append((ticks.index(s), *mean_sd(ends)))
                if points:
                    x, y, sd = zip(*points)
                    ax.errorbar(x, y, [s or 0 for s in sd], color=colour(value[0], i), label=value[0], marker="o",
                                markersize=3, capsize=2)
            scaled(ax, field)
            ax.set_xticks(range(len(ticks)), [f"{t:g}" for t in ticks])
            ax.set(title=", ".join(map(str, values)), xlabel="λ (AdamW's times 0.001)", ylabel=AXES[field])
        one_legend(axes)
        return figure
    return draw


def heat(rs, logs):
    """Test error over lr and strength, one map for each optimizer; the colours end at the ninth decile."""
    plt, parts = pyplot(), groups(rs, ["optimizer"])
    ends = sorted(v for v in (log.value("test_error") for log in found(rs, logs)) if v is not None) or [0, 1]
    low, high = ends[0], max(ends[(9 * (len(ends) - 1)) // 10], ends[0] + 1e-9)
    figure, axes = panels(len(parts), 3, 3.0, 2.9)
    for ax, ((optimizer,), members) in zip(axes, parts.items()):
        x, y = ([k[0] for k in groups(members, [f])] for f in ("strength", "lr"))
        grid = [[math.nan] * len(x) for _ in y]
        for (s, lr), same in groups(members, ["strength", "lr"]).items():
            here = found(same, logs)
            values = [v for v in (log.value("test_error") for log in here) if v is not None]
            i, j = y.index(lr), x.index(s)
            grid[i][j] = statistics.fmean(values) if values else math.nan
            text = f"{grid[i][j]:.1f}" if values else "div." if here else "–"
            dark = values and grid[i][j] > (low + high) / 2
            ax.text(j, i, text, ha="center", va="center", color="white" if dark else "black", fontsize=8)
        image = ax.pcolormesh(range(len(x)), range(len(y)), grid, cmap=plt.get_cmap("viridis_r", 32), vmin=low,
                              vmax=high)
        ax.grid(False)
        ax.set_xticks(range(len(x)), [f"{v:g}" for v in x])
        ax.set_yticks(range(len(y)), [f"{v:g}" for v in y])
        ax.set(title=optimizer, xlabel="λ (AdamW's times 0.001)", ylabel="lr")
    figure.colorbar(image, ax=axes, label=AXES["test_error"]).solids.set_rasterized(False)
    return figure


def theorem_figure(_, logs):
    figure, (ax,) = panels(1, 1, 5)
    log = logs.get(key({"command": "theorem"}))
    for kind, lines in by_kind(log).items() if log else ():
        kept = lines[::max(1, len(lines) // 200)]
        ax.plot([x["step"] for x in kept], [x["stationarity"] for x in kept], color=colour(kind, 0), label=kind)
        ax.set_yscale("log")
    ax.set(xlabel="step", ylabel="norm of the objective's gradient")
    one_legend([ax])
    return figure


def time_figure(_, logs):
    log = logs.get(key({"command": "time"}))
    lines = sorted(log.epochs, key=lambda x: -x["ns_per_parameter"]) if log else []
    figure, (ax,) = panels(1, 1, 5, 0.8 + 0.25 * len(lines))
    for i, x in enumerate(lines):
        ax.barh(i, x["ns_per_parameter"], color=colour(x["optimizer"], i), height=0.7)
        ax.text(x["ns_per_parameter"], i, f" {100 * x['share_of_step']:.2f} % of a training step", va="center",
                fontsize=7)
    ax.set_yticks(range(len(lines)), [x["optimizer"] for x in lines])
    ax.set(xlabel="ns a parameter and step")
    ax.grid(False, axis="y")
    return figure


FIGURES = {  # of each experiment: file, caption, what draws it
    "a": [("a_curves", "Test error and gradient norm", curves(["test_error", "grad_norm"], "optimizer", ("model", "strength"), 2)),
          ("a_theorem", "Full batch: the distance from the stationary point reached before lr drops", theorem_figure)],
    "b": [("b_norms", "Gradient norm", curves(["grad_norm"], "strength", ("model", "optimizer"))),
          ("b_norms_l2", "Gradient norm, the L2 term counted",
           curves(["grad_norm_l2"], "strength", ("model", "optimizer"))),
          ("b_over_decay", "Gradient norms at the end, and times the norm of the weights", over_decay(["grad_norm", "scaled_grad_norm"]))],
    "c": [("c_factor", "AdamS's decay factor", curves(["decay_factor", "grad_norm"], "strength", optimizer="adams")),
          ("c_norms", "Gradient norms", curves(["grad_norm", "probe_grad_norm"], "optimizer", strength=USUAL))],
    "d": [("d_sharpness", "Sharpness at the end", over_decay(["sharpness", "scaled_sharpness"]))],
    "e": [("e_curves", "Learning curves", curves(["test_error"], "optimizer", ("model", "strength"), 2)),
          ("e_losses", "Loss on the probe against test error",
           against("probe_loss", "test_error", "optimizer", ("model", "strength")))],
    "f": [("f_heat", "Test error over learning rate and weight decay", heat)],
    "g": [("g_curves", "Warm restarts", curves(["test_error", "probe_loss"], "optimizer"))],
    "h": [("h_perplexity", "Perplexity of the test text", over_decay(["perplexity"]))],
    "i": [("i_curves", "Long training", curves(["test_error", "probe_loss"], "optimizer"))],
    "j": [("j_time", "What a step costs", time_figure)],
}


# ---------------------------------------------------------------------------------------------------- report
def tables(logs, size):
    """The text of tables.md, which shows every figure."""
    text = ["# The study: tables and figures\n",
            "Made from the logs by `study.py report`. At the last epoch: mean ± standard deviation over three seeds, or the "
            "values themselves where there are fewer; (k of n): k runs are done of n planned; –: none. *Gradient norm*: "
            "the mean over an epoch's batches; the *probe*: the first 512 training images (of the text, 70 characters of "
            "each stream), without augmentation and dropout. λ is what L2 and SWD are given; AdamW's `weight_decay` is λ/0.001, "
            "and that of Equation 1 (`sgd_independent`) is lr·λ.\n"]
    heads = [log.head for log in logs.values() if "machine" in log.head]
    where = sorted({f"{head['machine']}, commit {head['commit']}" for head in heads})
    text.append("".join(f"- {line}\n" for line in where) + "\n" + speed_table(logs))
    for letter, rs in planned(None, size).items():
        e = EXPERIMENTS[letter]
        text.append(f"## {letter}. {e['title']}\n\nThe paper: {e['paper']}. {e['question']} "
                    f"Runs: {len(found(rs, logs))} of {len(rs)}.\n")
        for title, field, rows, column in e["tables"]:
            text.append(f"{title[0].upper()}{title[1:]}:\n\n" + pivot(rs, logs, field, rows, column))
        if "reference" in e:
            text.append(f"Test error less that of {e['reference']} with the same seed, %:\n\n" +
                        paired_table(rs, logs, e["reference"]))
        for special, table in (("theorem", theorem_table), ("time", time_table)):
            if {"command": special} in rs:
                log = logs.get(key({"command": special}))
                text.append(table(log) if log else "–\n")
        text += [f"![{caption}]({file}.svg)\n" for file, caption, _ in FIGURES[letter]]
    return "\n".join(text)


def report_command(o):
    logs = read_logs(o.logs, o.size)
    o.out.mkdir(parents=True, exist_ok=True)
    (o.out / "tables.md").write_text(tables(logs, o.size))
    for letter, rs in planned(None, o.size).items():
        for file, _, draw in FIGURES[letter]:
            save(draw(rs, logs), o.out / f"{file}.svg")
    print(f"study: {o.out / 'tables.md'}, from {len(logs)} runs")
