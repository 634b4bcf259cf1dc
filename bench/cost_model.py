#!/usr/bin/env python3
"""What a step of `sharded` costs on machines that are not at hand: a model of time and memory, not a measurement.

  cost_model.py [--machine cpu|gpu] [--ranks 8,64,512,4096] [--parameters 1e9,1e10,1e11,1e12] [--out FOLDER]
                [--memory-rate B/S] [--near-rate B/S] [--far-rate B/S] [--latency S] [--bucket BYTES] [--buckets N]

Prints a table, and with --out draws FOLDER/cost_model_MACHINE.svg with gnuplot. A machine is a set of defaults for the rates:

  cpu  a rank is a server with 250 GB/s of memory, on a network of 200 Gb/s (20 GB/s of data). All numbers are floats.
  gpu  a rank is a GPU with 2.8 TB/s of memory; 360 GB/s to the others of its node of 8, and 45 GB/s beyond it. Parameters
       and gradients are bfloat16, moments and master weights float.

The model, with W ranks, ψ parameters of p bytes, and gradients of g bytes:

  exchange, gather  an all-to-all and an all-gather of B = g·ψ and p·ψ bytes. A rank sends B·(W − 1)/W bytes at the rate of
                    the slowest link, and W − 1 messages a bucket, each of which takes the latency α
  scalars           one all-reduce of 616 bytes: 2·⌈log₂ W⌉·α, up a tree and down again
  add               a rank reads the g·ψ bytes that it received and writes ψ/W floats
  step              AdamW reads and writes, for ψ/W parameters: two moments of 4 bytes, the sum of the gradients (read only),
                    and parameters, or master weights and the parameters rounded from them (written only)
  total             exchange beside add, then scalars, then step beside gather. Of two that go on beside each other, the
                    shorter one shows only in one bucket

  unsharded         the same without shares: an all-reduce, which sends 2·g·ψ·(W − 1)/W bytes, and a step of ψ parameters
  memory            of a rank: parameters, gradients, two received buckets, float sums of 16-bit gradients, and its state
"""
import argparse
import math
import pathlib

from report import COLOURS, block, gnuplot, table

MACHINES = {
    "cpu": {"memory_rate": 250e9, "near_rate": 20e9, "far_rate": 20e9, "in_node": 1, "latency": 2e-6, "bytes": 4},
    "gpu": {"memory_rate": 2.8e12, "near_rate": 360e9, "far_rate": 45e9, "in_node": 8, "latency": 5e-6, "bytes": 2},
}
PAGE = 4096
SCALARS = 616


def beside(a, b, buckets):
    """The time of two things that go on at the same time, bucket by bucket."""
    return max(a, b) + min(a, b) / buckets


def cost(m, n, ranks, bucket=64 << 20, buckets=None):
    """Seconds and bytes of a step of n parameters. m: a machine. Either the bytes of a bucket are given, or their number."""
    size = m["bytes"]  # of a parameter and of a gradient
    masters = 4 if size == 2 else 0
    if buckets is None:
        buckets = math.ceil(size * n / max(bucket, size * PAGE * ranks))
    rate = m["near_rate"] if ranks <= m["in_node"] else m["far_rate"]
    sent = size * n * (ranks - 1) / ranks
    one_way = sent / rate + buckets * (ranks - 1) * m["latency"]
    share = n / ranks
    adding = (size * n + 4 * share) / m["memory_rate"] if ranks > 1 else 0
    # Two moments and what holds the weights are read and written; the gradient is read, a rounded parameter written.
    moved = 2 * (8 + (masters or size)) + (size if masters else 0)
    scalars = 2 * math.ceil(math.log2(ranks)) * m["latency"]
    step, whole_step = ((moved + g) * x / m["memory_rate"] for g, x in ((4, share), (size, n)))
    state = 8 + masters
    return {
        "buckets": buckets, "sent": 2 * sent, "exchange": one_way, "gather": one_way, "scalars": scalars, "add": adding, "step": step,
        "total": beside(one_way, adding, buckets) + scalars + beside(step, one_way, buckets),
        "unsharded": 2 * one_way + whole_step,
        "memory": 2 * size * n + (2 * size * n / buckets if ranks > 1 else 0) + (4 * share if masters else 0) + state * share,
        "unsharded_memory": 2 * size * n + state * n,
    }


def amount(x, units):
    """A number in the largest unit in which it is at least 1."""
    factor, name = next(((f, u) for f, u in units if x >= f), units[-1])
    x /= factor
    return f"{x:.{max(0, 2 - math.floor(math.log10(x)))}f} {name}" if x > 0 else f"0 {name}"


def seconds(x):
    return amount(x, ((1, "s"), (1e-3, "ms"), (1e-6, "µs")))


def bytes_of(x):
    return amount(x, ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1, "B")))


def power(n):
    exponent = round(math.log10(n))
    return "10" + "".join("⁰¹²³⁴⁵⁶⁷⁸⁹"[int(d)] for d in str(exponent)) if math.isclose(n, 10**exponent) else f"{n:g}"


def rows(m, parameters, ranks, **how):
    for n in parameters:
        for w in ranks:
            c = cost(m, n, w, **how)
            yield [power(n), str(w), bytes_of(c["sent"]), *(seconds(c[k]) for k in ("exchange", "gather", "scalars", "add", "step", "total",
                   "unsharded")), bytes_of(c["memory"]), bytes_of(c["unsharded_memory"])]


HEAD = ["parameters", "ranks", "sent", "exchange", "gather", "scalars", "add", "step", "total", "unsharded", "memory", "unsharded memory"]


def picture(folder, name, m, parameters, **how):
    """Left the time of a step, right the memory of a rank: solid sharded, dashed unsharded; dotted the weights' update alone."""
    ranks = [2**k for k in range(3, 13)]
    script = f'set terminal svg size 980,430 font "Helvetica,13" background "white"\nset output "{folder / name}.svg"\n'
    for i, n in enumerate(parameters):
        costs = [cost(m, n, w, **how) for w in ranks]
        script += block(f"data{i}", [[w] + [c[k] for k in ("total", "unsharded", "step", "memory", "unsharded_memory")]
                                     for w, c in zip(ranks, costs)])
    script += f"""set logscale xy
set xtics ({", ".join(f'"{w}" {w}' for w in ranks[::3])})
set xrange [8:4096]
set xlabel "ranks"
set key outside top left horizontal maxrows 1
set multiplot layout 1,2
"""
    times = '("1 µs" 1e-6, "10 µs" 1e-5, "100 µs" 1e-4, "1 ms" 1e-3, "10 ms" 1e-2, "100 ms" 0.1, "1 s" 1, "10 s" 10, "100 s" 100, "1000 s" 1000)'
    memory = '("1 GB" 1e9, "10 GB" 1e10, "100 GB" 1e11, "1 TB" 1e12, "10 TB" 1e13, "100 TB" 1e14)'
    for title, tics, lines in (("a step", times, ((2, "lw 2.5"), (3, "lw 1.6 dt 2"), (4, "lw 1.2 dt 3"))),
                               ("memory of a rank", memory, ((5, "lw 2.5"), (6, "lw 1.6 dt 2")))):
        script += f'set ylabel "{title}"\nset ytics {tics}\nplot ' + ", ".join(
            f'$data{i} using 1:{column} with lines {style} lc rgb "{COLOURS[i % len(COLOURS)]}" ' +
            (f'title "{power(n)}"' if column == lines[0][0] else "notitle")
            for i, n in enumerate(parameters) for column, style in lines) + "\n"
    return gnuplot(folder, name, script + "unset multiplot\n")


def positive(text):
    x = float(text)
    if not 0 < x < math.inf:
        raise argparse.ArgumentTypeError(f"{text}; expected more than 0")
    return x


def whole(text):
    x = positive(text)
    if x != int(x):
        raise argparse.ArgumentTypeError(f"{text}; expected a whole number")
    return int(x)


def numbers(text):
    return [whole(x) for x in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machine", choices=MACHINES, default="cpu")
    parser.add_argument("--ranks", type=numbers, default=[8, 64, 512, 4096])
    parser.add_argument("--parameters", type=numbers, default=[10**9, 10**10, 10**11, 10**12])
    for name in ("memory-rate", "near-rate", "far-rate", "latency"):
        parser.add_argument(f"--{name}", type=positive)
    parser.add_argument("--bucket", type=whole, default=64 << 20, help="bytes of gradients in a bucket")
    parser.add_argument("--buckets", type=whole, help="their number, in place of --bucket")
    parser.add_argument("--out", type=pathlib.Path)
    o = parser.parse_args()
    m = dict(MACHINES[o.machine])
    m.update({k: v for k in ("memory_rate", "near_rate", "far_rate", "latency") if (v := getattr(o, k))})
    how = {"bucket": o.bucket, "buckets": o.buckets}
    print(table(HEAD, rows(m, o.parameters, o.ranks, **how)), end="")
    if o.out:
        o.out.mkdir(parents=True, exist_ok=True)
        print(picture(o.out, f"cost_model_{o.machine}", m, o.parameters, **how), end="")


if __name__ == "__main__":
    main()
