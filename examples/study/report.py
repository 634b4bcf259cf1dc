"""The study's tables, made from the logs alone, and the report of them and the figures."""
import pathlib

from claims import claim_table, every_test, test_table
from experiments import EXPERIMENTS, entrant, key, planned
from figures import AXES, FIGURES, svg_of
from logs import by_kind, found, groups, label, read_logs
from cells import figure_text, markdown, p_text, summary
from stats import Difference


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


def pivot(rs, logs, field, rows, column):
    columns = [k[0] for k in groups(rs, [column])]
    body = []
    for row, members in groups(rs, rows).items():
        cells = groups(members, [column])
        body.append([label(x, f) for x, f in zip(row, rows)] +
                    [cell(cells[(c,)], logs, field) if (c,) in cells else "" for c in columns])
    return markdown(rows + [label(c, column) for c in columns], body)


def paired_table(rs, logs, field, reference):
    """What a measurement is less the reference's with the same seed: seeds share first weights and the order of the data."""
    fields, body = ["model", "setting"], []
    fields += [f for f in ("batch",) if len(groups(rs, [f])) > 1]
    others = [k[0] for k in groups(rs, ["entrant"]) if k[0] != reference]
    for row, members in groups(rs, fields).items():
        by = {(entrant(r), r["seed"]): logs[key(r)].value(field) for r in members if key(r) in logs}
        cells = []
        for other in others:
            pairs = [(v, by.get((reference, seed))) for (o, seed), v in by.items() if o == other]
            values = [a - b for a, b in pairs if a is not None and b is not None]
            text = summary(values, field) if values else "–"
            cells.append(f"{text}, {p_text(Difference(values).p)}" if len(values) > 2 else text)
        if set(cells) != {"–"}:
            body.append([label(x, f) for x, f in zip(row, fields)] + cells)
    return markdown(fields + others, body)


def theorem_table(log):
    """Each kind's distance from stationarity just before lr drops, and at the end."""
    body = []
    for kind, lines in by_kind(log).items():
        before = [x for x in lines if x["lr"] == lines[0]["lr"]][-1]
        body.append([kind] + [figure_text(x["stationarity"]) for x in (before, lines[-1])])
    return markdown(["weight decay", "gradient norm of the objective before lr drops", "at the end"], body)


def bound_table(log):
    """Theorem 2: what was measured, and the bound."""
    return markdown(["λ", "epochs", "least E‖∇f‖²", "bound", "E‖∇f‖² at the end", "E‖∇L‖² at the end"], [
        [f"{x['lambda']:g}", str(x["epochs"])] + [figure_text(x[f]) for f in ("least", "bound", "last", "last_of_loss")]
        for x in log.epochs])


def time_table(log):
    return markdown(["optimizer", "µs a step", "ns a parameter", "share of a training step"], [
        [x["optimizer"], figure_text(x["ns_per_step"] / 1e3), figure_text(x["ns_per_parameter"]),
         f"{100 * x['share_of_step']:.2f} %"] for x in sorted(log.epochs, key=lambda x: x["ns_per_parameter"])])


def speed_table(logs):
    models = {}
    for log in logs.values():
        if "model" in log.run and log.epochs:
            m = models.setdefault(log.run["model"], [0, 0, 0.0, 0, 0.0, 0.0])
            steps = [sum(e[f] for e in log.epochs) for f in ("examples", "seconds", "optimizer_seconds")]
            for i, x in enumerate((1, log.epochs[-1]["epoch"], log.done.get("seconds", 0.0), *steps)):
                m[i] += x
    head = ["model", "runs", "epochs", "hours, tests included", "examples/s in training, one process", "optimizer's share"]
    return markdown(head, [[m, str(n), str(epochs), f"{hours / 3600:.2f}", figure_text(examples / s),
                            f"{100 * steps / s:.2f} %"]
                           for m, (n, epochs, hours, examples, s, steps) in sorted(models.items()) if s > 0])


# ---------------------------------------------------------------------------------------------------- report
def tables(logs, size):
    """The text of tables.md, which shows every figure."""
    text = ["# The study: tables and figures\n",
            "Made from the logs by `study.py report`. At the last epoch: mean ± half the width of the mean's 95 % t interval "
            "over seeds (2.48 standard deviations of three seeds, 1.24 of five), or the values themselves where there are one "
            "or two; (k of n): k runs are done of n planned; –: none. Tables of differences have p for no difference, "
            "two-sided; they are many, so one in twenty with p < 0.05 is to be expected by chance. *adams matched*: AdamS with "
            "the λ whose λ/√v̄ is on average AdamW's `weight_decay`. *Gradient norm*: the mean over an epoch's batches; the *probe*: the first 512 training images (of the text, 70 characters of "
            "each stream), without augmentation and dropout. λ is what L2 and SWD are given; AdamW's `weight_decay` is λ/0.001, "
            "and that of Equation 1 (`sgd_independent`) is lr·λ.\n"]
    heads = [log.head for log in logs.values() if "machine" in log.head]
    where = sorted({f"{head['machine']}, commit {head['commit']}" for head in heads})
    text.append("".join(f"- {line}\n" for line in where) + "\n" + speed_table(logs))
    if size == "full":
        text.append((pathlib.Path(__file__).parent / "methods.md").read_text())
    for letter, rs in planned(None, size).items():
        e = EXPERIMENTS[letter]
        text.append(f"## {letter}. {e['title']}\n\nThe paper: {e['paper']}. {e['question']} "
                    f"Runs: {len(found(rs, logs))} of {len(rs)}.\n")
        for title, field, rows, column in e["tables"]:
            text.append(f"{title[0].upper()}{title[1:]}:\n\n" + pivot(rs, logs, field, rows, column))
        for field, reference in e.get("pairs", ()):
            what = AXES[field].removesuffix(", %")
            text.append(f"{what[0].upper()}{what[1:]} less that of {reference} with the same seed:\n\n" +
                        paired_table(rs, logs, field, reference))
        for special, table in (("theorem", theorem_table), ("bound", bound_table), ("time", time_table)):
            if {"command": special} in rs:
                log = logs.get(key({"command": special}))
                text.append(table(log) if log else "–\n")
        text += [f"![{caption}]({file}.svg)\n" for file, caption, _ in FIGURES[letter]]
    if size == "full":
        text.append("## Tests\n\nEvery interval that the [verdicts](../paper.md#claims) rest on: 95 %, of differences with the "
                    f"same seed where not said otherwise. Holm: whether no difference is excluded in all {len(every_test())} "
                    "tests together, with a chance of 5 % that any exclusion is wrong.\n")
        text.append(test_table(logs))
    return "\n".join(text)


MARKS = ("<!-- claims: written by ./dev study report -->\n", "<!-- end of claims -->\n")


def progress(logs):
    """A paragraph on the planned runs that are missing; empty if there are none."""
    plan = planned(None, "full")
    missing = {letter: sum(key(r) not in logs for r in rs) for letter, rs in plan.items()}
    said = ", ".join(f"{n} of {len(plan[letter])} in {letter}" for letter, n in missing.items() if n)
    return f"\nPlanned runs that are not done yet: {said}. `./dev study --missing` takes them.\n" if said else ""


def page_with_claims(page, logs):
    """The page, with the table of claims between its marks made anew."""
    before, rest = page.split(MARKS[0])
    return before + MARKS[0] + "\n" + claim_table(logs) + progress(logs) + "\n" + MARKS[1] + rest.split(MARKS[1])[1]


def report_command(o):
    logs = read_logs(o.logs, o.size)
    o.out.mkdir(parents=True, exist_ok=True)
    (o.out / "tables.md").write_text(tables(logs, o.size))
    for letter, rs in planned(None, o.size).items():
        for file, _, draw in FIGURES[letter]:
            (o.out / f"{file}.svg").write_text(svg_of(draw(rs, logs)))
    if o.page:
        o.page.write_text(page_with_claims(o.page.read_text(), logs))
    print(f"study: {o.out / 'tables.md'}, from {len(logs)} runs")
