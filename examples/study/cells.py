"""Numbers and tables as Markdown."""
from stats import mean_and_half


def figure_text(x, field=""):
    return f"{x:.2f}" if field == "test_error" else f"{x:.3g}" if abs(x) < 1000 else f"{x:.0f}"


def summary(values, field):
    """Mean and half the width of its interval, else the values themselves: two tell no spread. What was set is one number."""
    if len(set(values)) == 1:
        return figure_text(values[0], field)
    if len(values) < 3:
        return " / ".join(figure_text(v, field) for v in values)
    return " ± ".join(figure_text(v, field) for v in mean_and_half(values))


FEW = 0.001  # a p below which only that is said


def p_text(p):
    return f"p < {FEW:g}" if p < FEW else f"p = {p:.2g}"


def markdown(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"
