"""The study's figures, drawn from the logs alone. Colours are those of Okabe and Ito, which the colour-blind can tell apart; markers
and dashes tell lines apart without colours."""
import io
import math
import statistics

from experiments import SWD, USUAL, entrant, key, strength
from logs import by_kind, found, groups, label, measured, of
from stats import mean_and_half
from svg import lighter

BLACK, ORANGE, SKY, GREEN, BLUE, VERMILLION, PURPLE = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00",
                                                       "#CC79A7")
SOLID, DASHED, DOTTED, MIXED = "-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5))
LOOKS = {"adams": (BLUE, "o", SOLID), "adams matched": (SKY, "D", DASHED), "adamw": (VERMILLION, "s", MIXED),
         "adam": (BLACK, "^", DOTTED), "sgd": (GREEN, "v", SOLID), "sgds": (ORANGE, "P", DASHED),
         "amsgrad": (PURPLE, "X", SOLID), "yogi": (ORANGE, "<", DOTTED), "adabound": (BLACK, ">", DASHED),
         "padam": (PURPLE, "*", DASHED), "radam": (GREEN, "p", DOTTED),
         "sgd_decoupled": (BLUE, "o", SOLID), "sgd_independent": (VERMILLION, "s", DASHED),
         "coupled": (BLUE, "o", SOLID), "independent": (VERMILLION, "s", DASHED), "l2": (BLACK, "^", DOTTED)}
SEQUENCE = ((BLACK, "^", DOTTED), (BLUE, "o", SOLID), (GREEN, "v", MIXED), (ORANGE, "D", DASHED), (VERMILLION, "s", SOLID),
            (PURPLE, "X", DOTTED))
AXES = {"test_error": "test error, %", "grad_norm": "gradient norm", "grad_norm_l2": "gradient norm with L2 term",
        "probe_grad_norm": "norm of the probe's gradient", "decay_factor": "decay factor 1/√v̄",
        "sharpness": "top Hessian eigenvalue", "probe_loss": "loss on the probe", "train_loss": "training loss",
        "perplexity": "perplexity", "scaled_grad_norm": "gradient norm · ‖θ‖", "weight_norm": "‖θ‖",
        "scaled_sharpness": "top Hessian eigenvalue · ‖θ‖²"}
LOGARITHMIC = ("grad_norm", "grad_norm_l2", "probe_grad_norm", "decay_factor", "sharpness", "probe_loss", "train_loss",
               "scaled_grad_norm", "scaled_sharpness", "weight_norm")


# ---------------------------------------------------------------------------------------------------- tools
def pyplot():
    """matplotlib, set so that the same logs give the same bytes."""
    import matplotlib
    matplotlib.use("svg")
    from matplotlib import pyplot as plt
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "study", "font.size": 9, "axes.grid": True,
                         "axes.axisbelow": True, "grid.color": "#d0d7de", "grid.linewidth": 0.5, "axes.spines.top": False,
                         "axes.spines.right": False, "legend.frameon": False, "legend.handlelength": 3.2,
                         "lines.linewidth": 1.3, "lines.markersize": 3.5})
    return plt


def svg_of(figure):
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    pyplot().close(figure)
    return lighter(text.getvalue())


def panels(count, columns=3, width=3.4, height=2.7):
    columns = min(columns, count)
    rows = -(-count // columns)
    figure, axes = pyplot().subplots(rows, columns, squeeze=False, figsize=(width * columns + 1.5, height * rows),
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


def look(value, position):
    """How a line is drawn, as arguments of matplotlib's."""
    colour, marker, dash = LOOKS.get(value, SEQUENCE[position % len(SEQUENCE)])
    return dict(color=colour, marker=marker, linestyle=dash)


def ticks_between(low, high):
    """At most seven round numbers for a logarithmic axis, so that their texts stay apart."""
    decades = math.log10(high / low)
    steps = (1, 2, 5) if decades < 1.7 else (1, 3) if decades < 2.5 else (1,)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(1, math.ceil((last - first) / 6))
    out = [x for k in range(first, last + 1, every) for x in (step * 10.0 ** k for step in steps) if low <= x <= high]
    if len(out) > 2:
        return out
    from matplotlib.ticker import MaxNLocator
    return [x for x in MaxNLocator(4).tick_values(low, high) if low <= x <= high]


def scaled(ax, field, axis="y"):
    if field not in LOGARITHMIC or not ax.lines:
        return
    getattr(ax, f"set_{axis}scale")("log")
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
    side = getattr(ax, f"{axis}axis")
    low, high = getattr(ax, f"get_{axis}lim")()
    side.set_major_locator(FixedLocator(ticks_between(low, high)))
    side.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.6g}"))
    side.set_minor_locator(NullLocator())
    getattr(ax, f"set_{axis}lim")(low, high)


def by_epoch(logs, field):
    """[(epoch, mean over seeds, half the interval's width or 0)]"""
    values = {}
    for log in logs:
        for e in log.epochs if not log.diverged else ():
            x = measured(e, field)
            if x is not None:
                values.setdefault(e["epoch"], []).append(x)
    return [(e, m, half or 0) for e, (m, half) in ((e, mean_and_half(v)) for e, v in sorted(values.items()))]


def only(rs, conditions):
    return [r for r in rs if "command" not in r and all(of(r, f) == v for f, v in conditions.items())]


# ---------------------------------------------------------------------------------------------------- kinds of figures
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
                    x, y, half = zip(*points)
                    style = look(value[0], i)
                    ax.plot(x, y, label=label(value[0], series), markevery=max(1, len(x) // 8), **style)
                    if any(half) and len(order) <= 6:  # more bands than that hide each other
                        # Not below a tenth of the mean: it must be seen on a logarithmic axis, too.
                        ax.fill_between(x, [max(m - h, m / 10) for m, h in zip(y, half)],
                                        [m + h for m, h in zip(y, half)], color=style["color"], alpha=0.15, linewidth=0)
            scaled(ax, field)
            ax.xaxis.get_major_locator().set_params(integer=True)
            if field == "test_error" and ax.lines:  # the first epochs' may be anything
                ax.set_ylim(top=min(ax.get_ylim()[1], 3 * min(min(line.get_ydata()) for line in ax.lines)))
            ax.set(title=", ".join(label(v, f) for v, f in zip(values, split)), xlabel="epoch", ylabel=AXES[field])
        one_legend(axes)
        return figure
    return draw


def against(x_field, y_field, series, split):
    """The path of each series over the epochs, from one quantity to another; a marker where it ends."""
    def draw(rs, logs):
        parts = groups(rs, split)
        figure, axes = panels(len(parts), 2)
        for ax, (values, members) in zip(axes, parts.items()):
            for i, (value, same) in enumerate(groups(members, [series]).items()):
                xs, ys = ({e: m for e, m, _ in by_epoch(found(same, logs), f)} for f in (x_field, y_field))
                x, y = ([m[e] for e in xs if e in ys] for m in (xs, ys))
                if x:
                    ax.plot(x, y, label=label(value[0], series), linewidth=0.8, markevery=[len(x) - 1],
                            **look(value[0], i))
            scaled(ax, x_field, "x")
            ax.set(title=", ".join(label(v, f) for v, f in zip(values, split)), xlabel=AXES[x_field],
                   ylabel=AXES[y_field])
        one_legend(axes)
        return figure
    return draw


def ends(rs, logs, field):
    return [v for v in (log.value(field) for log in found(rs, logs)) if v is not None]


def over_decay(fields, split=("model",)):
    """The end of the run over strengths (evenly spaced, so that 0 has its place), a line for each optimizer."""
    def draw(rs, logs):
        parts = [(part, field) for part in groups(rs, split).items() for field in fields]
        figure, axes = panels(len(parts), len(fields))
        for ax, ((values, members), field) in zip(axes, parts):
            ticks = [k[0] for k in groups(members, ["strength"])]
            for i, (value, same) in enumerate(groups(members, ["optimizer"]).items()):
                points = [(ticks.index(s), *mean_and_half(here)) for (s,), there in groups(same, ["strength"]).items()
                          if (here := ends(there, logs, field))]
                if points:
                    x, y, half = zip(*points)
                    ax.errorbar(x, y, [h or 0 for h in half], label=value[0], capsize=2, **look(value[0], i))
            scaled(ax, field)
            ax.set_xticks(range(len(ticks)), [f"{t:g}" for t in ticks], rotation=30)
            ax.set(title=", ".join(map(str, values)), xlabel="λ (AdamW's times 0.001)", ylabel=AXES[field])
        one_legend(axes)
        return figure
    return draw


def effective(rs, logs):
    """The mean effective decay of runs that differ in their seeds alone; None where the decay is not of that kind."""
    here = ends(rs, logs, "effective_decay")
    return statistics.fmean(here) if here else None


def over_effective_decay(fields, split=("model",)):
    """The end of the run over what AdamS and AdamW really took from the weights; no decay is at the left edge."""
    def draw(rs, logs):
        rs = [r for r in rs if r.get("optimizer") in SWD]
        parts = [(part, field) for part in groups(rs, split).items() for field in fields]
        figure, axes = panels(len(parts), min(len(fields), 3))
        for ax, ((values, members), field) in zip(axes, parts):
            points = {}
            for (optimizer, s), same in groups(members, ["optimizer", "strength"]).items():
                x, here = effective(same, logs), ends(same, logs, field)
                if here and (x or s == 0):
                    points.setdefault(optimizer, []).append((x or 0, *mean_and_half(here)))
            least = min((x for p in points.values() for x, *_ in p if x), default=0.01) / 3
            for i, (optimizer, p) in enumerate(points.items()):
                x, y, half = zip(*sorted(p))
                ax.errorbar([v or least for v in x], y, [h or 0 for h in half],
                            label=optimizer if optimizer != "adam" else "adam, λ = 0", capsize=2, **look(optimizer, i))
            scaled(ax, field)
            if ax.lines:
                ax.set_xscale("log")
                from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
                low, high = ax.get_xlim()
                ax.xaxis.set_major_locator(FixedLocator([least, *[t for t in ticks_between(low, high) if t > 2 * least]]))
                ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _, least=least: "0" if v == least else f"{v:.6g}"))
                ax.xaxis.set_minor_locator(NullLocator())
            ax.set(title=", ".join(map(str, values)), xlabel="effective decay, AdamW's λ or λ/√v̄", ylabel=AXES[field])
        one_legend(axes)
        return figure
    return draw


# ---------------------------------------------------------------------------------------------------- single figures
def heat(rs, logs):
    """Test error over lr and effective decay (Adam's λ of L2 in its place), one map for each optimizer. The colours are
    of the whole range."""
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
    plt, parts = pyplot(), groups(rs, ["optimizer"])
    every = sorted(ends(rs, logs, "test_error")) or [1, 2]
    norm = LogNorm(every[0], max(every[-1], every[0] * 1.001))
    figure, axes = panels(len(parts), 3, 4.2, 3.2)
    points = {}
    for (optimizer,), members in parts.items():
        for (s, lr), same in groups(members, ["strength", "lr"]).items():
            x, here = s if optimizer == "adam" else effective(same, logs), ends(same, logs, "test_error")
            if here and x:
                points.setdefault(optimizer, []).append((x, lr, statistics.fmean(here)))
    wide = [x for o, p in points.items() if o != "adam" for x, *_ in p] or [0.1, 1]
    for ax, (optimizer,) in zip(axes, parts):
        for x, lr, error in points.get(optimizer, ()):
            dark = norm(error) > 0.5
            ax.text(x, lr, f"{error:.1f}", ha="center", va="center", color="white" if dark else "black", fontsize=7)
        x, y, z = zip(*points[optimizer]) if optimizer in points else ((1,), (1,), (every[0],))
        image = ax.scatter(x, y, c=z, marker="s", s=430, cmap=plt.get_cmap("cividis_r"), norm=norm, linewidths=0)
        ax.set(xscale="log", yscale="log", title=optimizer, ylabel="lr",
               xlabel="λ of L2" if optimizer == "adam" else "effective decay, AdamW's λ or λ/√v̄")
        low, high = (min(x), max(x)) if optimizer == "adam" else (min(wide), max(wide))
        ax.set_xlim(low / 2, high * 2)
        ax.set_ylim(min(y) / 2, max(y) * 2)
        ax.xaxis.set_major_locator(FixedLocator(ticks_between(*ax.get_xlim())))
        ax.yaxis.set_major_locator(FixedLocator(sorted(set(y))))
        for side in (ax.xaxis, ax.yaxis):
            side.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.6g}"))
            side.set_minor_locator(NullLocator())
        ax.grid(False)
    bar = figure.colorbar(image, ax=axes, label=AXES["test_error"])
    bar.solids.set_rasterized(False)
    bar.ax.yaxis.set_major_locator(FixedLocator(ticks_between(norm.vmin, norm.vmax)))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.6g}"))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    return figure


def theorem_figure(_, logs):
    figure, (ax,) = panels(1, 1, 5)
    log = logs.get(key({"command": "theorem"}))
    for kind, lines in by_kind(log).items() if log else ():
        kept = lines[::max(1, len(lines) // 200)]
        ax.plot([x["step"] for x in kept], [x["stationarity"] for x in kept], label=kind, markevery=max(1, len(kept) // 8),
                **look(kind, 0))
        ax.set_yscale("log")
    ax.set(xlabel="step", ylabel="norm of the objective's gradient")
    one_legend([ax])
    return figure


def bound_figure(_, logs):
    """What was measured and what Theorem 2 allows, over λ and over the epochs."""
    figure, axes = panels(2, 2)
    log = logs.get(key({"command": "bound"}))
    lines = log.epochs if log else []
    for ax, (over, fixed, values) in zip(axes, (("lambda", "epochs", (50, 2000)), ("epochs", "lambda", (0, 0.1)))):
        for i, value in enumerate(values):
            here = [x for x in lines if x[fixed] == value and x[over] > 0]
            name = f"{value} epochs" if fixed == "epochs" else f"λ = {value}"
            for dash, field, what in ((SOLID, "least", "measured"), (DOTTED, "bound", "bound")):
                if here:
                    ax.plot([x[over] for x in here], [x[field] for x in here], label=f"{what}, {name}",
                            **(look(None, i + 1 + 2 * (fixed == "lambda")) | dict(linestyle=dash)))
        ax.set(xlabel="λ" if over == "lambda" else "epochs", ylabel="least E‖∇f‖²", xscale="log", yscale="log")
    one_legend(axes)
    return figure


def lengths_figure(rs, logs):
    """The end of runs of different lengths, a line for each strength."""
    figure, axes = panels(2, 2)
    for ax, field in zip(axes, ("grad_norm", "test_error")):
        for i, ((s,), members) in enumerate(groups(rs, ["strength"]).items()):
            points = [(n, *mean_and_half(here)) for (n,), there in sorted(groups(members, ["epochs"]).items())
                      if (here := ends(there, logs, field))]
            if points:
                x, y, half = zip(*points)
                ax.errorbar(x, y, [h or 0 for h in half], label=label(s, "strength"), capsize=2, **look(None, i))
                ax.set_xscale("log")
                ax.set_xticks(x, [str(n) for n in x])
                ax.minorticks_off()
        scaled(ax, field)
        ax.set(xlabel="epochs of the run", ylabel=AXES[field])
    one_legend(axes)
    return figure


def time_figure(_, logs):
    log = logs.get(key({"command": "time"}))
    lines = sorted(log.epochs, key=lambda x: -x["ns_per_parameter"]) if log else []
    figure, (ax,) = panels(1, 1, 5, 0.8 + 0.25 * len(lines))
    for i, x in enumerate(lines):
        ax.barh(i, x["ns_per_parameter"], color=look(x["optimizer"], i)["color"], height=0.7)
        ax.text(x["ns_per_parameter"], i, f" {100 * x['share_of_step']:.2f} % of a training step", va="center",
                fontsize=7)
    ax.set_yticks(range(len(lines)), [x["optimizer"] for x in lines])
    ax.set(xlabel="ns a parameter and step")
    ax.grid(False, axis="y")
    return figure


FIGURES = {  # of each experiment: file, caption, what draws it
    "a": [("a_curves", "Test error and gradient norm",
           curves(["test_error", "grad_norm"], "optimizer", ("model", "strength"), 2)),
          ("a_theorem", "Full batch: the distance from the stationary point reached before lr drops", theorem_figure)],
    "b": [("b_norms", "Gradient norm", curves(["grad_norm"], "strength", ("model", "optimizer"))),
          ("b_over_decay", "Gradient norms at the end, and times the norm of the weights",
           over_decay(["grad_norm", "scaled_grad_norm"]))],
    "c": [("c_factor", "AdamS's decay factor", curves(["decay_factor", "grad_norm"], "strength", optimizer="adams")),
          ("c_norms", "Gradient norms and training loss", curves(["grad_norm", "probe_grad_norm", "train_loss"], "entrant",
                                                                 setting=USUAL))],
    "d": [("d_sharpness", "Sharpness at the end, over effective decay",
           over_effective_decay(["sharpness", "scaled_sharpness"]))],
    "e": [("e_curves", "Learning curves", curves(["test_error"], "entrant", ("model", "setting"), 2)),
          ("e_losses", "Loss on the probe against test error",
           against("probe_loss", "test_error", "entrant", ("model", "setting")))],
    "f": [("f_heat", "Test error over learning rate and effective decay", heat)],
    "g": [("g_curves", "Warm restarts", curves(["test_error", "probe_loss"], "entrant"))],
    "h": [("h_perplexity", "Perplexity of the test text", over_decay(["perplexity"]))],
    "i": [("i_curves", "Long training",
           curves(["test_error", "probe_loss", "grad_norm", "decay_factor"], "entrant", columns=2))],
    "j": [("j_time", "What a step costs", time_figure)],
    "k": [("k_over_decay", "At lr 0.01, over effective decay",
           over_effective_decay(["test_error", "grad_norm", "sharpness", "scaled_grad_norm", "scaled_sharpness", "weight_norm"])),
          ("k_factor", "AdamS's decay factor and gradients at lr 0.01",
           curves(["decay_factor", "grad_norm"], "strength", optimizer="adams"))],
    "l": [("l_curves", "Batch sizes", curves(["test_error", "grad_norm"], "entrant", ("model", "batch"), 2))],
    "m": [("m_bound", "Theorem 2 on logistic regression", bound_figure),
          ("m_lengths", "The end of runs of different lengths", lengths_figure)],
}
