"""Says which convention an implementation of Adam, AdamW, AMSGrad, RMSprop, Adagrad or SGD follows: where eps stands, what is
corrected for bias, how weight decay and the learning rate enter. Python 3.8, one file, no dependencies (NumPy if it is there).

    from conformance import Settings, examine

    def step(tensors, t, lr):
        for x in tensors:  # x.parameters is updated in place: NumPy arrays, or array.array without NumPy
            my_adam(x.parameters, x.gradients, lr, x.weight_decay, t)

    print(examine(Settings(), step).text)

The suite makes a small problem and trains it with the implementation. It has its own formulas, in double, for every combination
of conventions and of common mistakes. Each formula predicts every step from the parameters before it, so differences do not
add up, and parts from the implementation at the first step that it does not predict to rounding. The formula that never parts
is the verdict. conformance.hpp is the same in C++, with the same sentences.
"""

import array
import math
import struct
import sys
from dataclasses import dataclass, field

try:
    import numpy
except ImportError:
    numpy = None


@dataclass
class Settings:
    """The hyperparameters that the implementation is configured with. Those that it does not have are ignored."""

    lr: float = 0.02  # the first learning rate; each call of the step passes the current one
    beta1: float = 0.9
    beta2: float = 0.95  # near 1 hides AMSGrad's maximum
    eps: float = 1e-8  # the problem has gradients as small as eps and as its root
    weight_decay: float = 0.1  # 0 for an implementation without
    momentum: float = 0.9  # SGD's and RMSprop's
    dampening: float = 0  # SGD's
    nesterov: bool = False  # whether SGD should take Nesterov's step
    initial_accumulator: float = 0  # Adagrad's start value


@dataclass
class Problem:
    """The tensors, their gradients and the learning rates (tests/golden/README.md in gradus's repository)."""

    seed: int = 20
    sizes: tuple = (6, 5, 4, 4)
    steps: int = 60
    drops: tuple = (40, 50)  # steps from which on the learning rate is a tenth
    scales: tuple = ()  # of each tensor's gradients; empty for 1
    undecayed: int = 2  # so many last tensors have weight_decay 0


def fault_of(s, p):
    """What is wrong with settings or a problem, in a sentence; empty if nothing is."""
    expected = {"lr": "a finite number above 0", **dict.fromkeys(("beta1", "beta2", "momentum"), "a number in [0, 1)"),
                **dict.fromkeys(("eps", "weight_decay", "initial_accumulator"), "a finite number of at least 0"),
                "dampening": "a finite number"}
    for name, words in expected.items():
        x = getattr(s, name)
        good = (x > 0 if name == "lr" else name == "dampening" or x >= 0) and (x < 1 if "[0, 1)" in words else math.isfinite(x))
        if not good:
            return f"The setting {name} is {x:.9g}; expected {words}."
    if sum(p.sizes) == 0 or p.steps < 1:
        return "The problem has no tensors or no steps."
    if p.scales and len(p.scales) != len(p.sizes):
        return f"The problem has {len(p.sizes)} tensors and {len(p.scales)} scales; expected one for each, or none."
    if p.undecayed > len(p.sizes):
        return (f"The problem has {len(p.sizes)} tensors, of which {p.undecayed} are undecayed; expected at most all.")
    return ""


def fault_of_observations(s, seen):
    """The same of what was observed."""
    p = seen.problem
    if fault_of(s, p):
        return fault_of(s, p)
    for t, parameters in sorted(seen.at.items()):
        if not 1 <= t <= p.steps or len(parameters) != sum(p.sizes):
            return (f"Step {t} was observed with {len(parameters)} parameters; expected steps 1 to {p.steps} and {sum(p.sizes)} "
                    "parameters.")
    return "" if seen.at else "No step was observed."


def problem_for(s):
    """The suite's own problem: two tensors as usual, then one with gradients near √eps, and one with gradients near eps."""
    eps = max(s.eps, 1e-17)  # so that g² does not underflow in float
    return Problem(scales=(1, 1, math.sqrt(eps), 3 * eps))


@dataclass
class Tensor:
    """What a step receives of each tensor, the same objects in every step. It updates `parameters`."""

    parameters: object
    gradients: object
    weight_decay: float  # settings' or 0


@dataclass
class Observations:
    """The parameters after some of the steps, tensor after tensor, as the implementation left them."""

    problem: Problem
    single: bool  # in float
    at: dict


# Each axis: its name, its families (a Adam, r RMSprop, g Adagrad, s SGD), and its choices with a cost: 0 for a textbook's, 1 for a
# convention of some libraries, 2 for what is probably a mistake.
AXES = {
    "family": ("optimizer", "args", [("adam", "Adam", 0), ("rmsprop", "RMSprop", 0), ("adagrad", "Adagrad", 0),
                                     ("sgd", "SGD", 0)]),
    "second": ("second moment", "a", [
        ("plain", "the average v of g²", 0),
        ("maximum", "AMSGrad's running maximum of v, before bias correction (PyTorch, Keras, ensmallen)", 0),
        ("corrected_maximum", "AMSGrad's running maximum of the bias-corrected v (optax)", 1)]),
    "eps_place": ("eps", "a", [
        ("beside_corrected", "beside the bias-corrected root, sqrt(v/(1-beta2^t)) + eps (PyTorch, optax, ggml, DeepSpeed)", 0),
        ("beside_uncorrected",
         "beside the uncorrected root, sqrt(v) + eps (Keras and TensorFlow, dlib, ensmallen; the paper's epsilon hat)", 1),
        ("inside_corrected", "inside the bias-corrected root, sqrt(v/(1-beta2^t) + eps) (optax's eps_root)", 1),
        ("inside_uncorrected", "inside the uncorrected root, sqrt(v + eps)", 1),
        ("no_eps", "none: it is ignored", 2)]),
    "root": ("eps", "rg", [
        ("beside", "beside the root, sqrt(v) + eps (PyTorch, ensmallen)", 0),
        ("inside", "inside the root, sqrt(v + eps) (Keras and TensorFlow, optax)", 0),
        ("no_eps", "none: it is ignored", 2)]),
    "correction": ("bias correction", "a", [
        ("both", "of both moments, with a count of steps from 1", 0),
        ("none", "none (BERT's Adam, DeepSpeed's and apex's option)", 1),
        ("only_first", "of the first moment only", 2),
        ("only_second", "of the second moment only", 2),
        ("once_a_tensor", "with a count that advances once a tensor in place of once a step", 2),
        ("ahead", "with a count that is one ahead: the first step counts as the second", 2),
        ("stuck", "with a count that stays 1", 2)]),
    "momentum": ("momentum", "s", [
        ("outside", "b = mu*b + g, and the step is lr*b (PyTorch, optax)", 0),
        ("lr_inside",
         "b = mu*b + lr*g, and the step is b: the learning rate is inside (Keras and TensorFlow, dlib, ensmallen)", 1),
        ("complement", "b = mu*b + (1-mu)*g, without bias correction", 1),
        ("dampened", "b = mu*b + (1-dampening)*g after the first step (PyTorch)", 0),
        ("no_momentum", "none: it is ignored", 2)]),
    "buffer": ("momentum", "r", [
        ("no_buffer", "none", 0),
        ("buffer_outside", "b = mu*b + g/root, and the step is lr*b (PyTorch)", 0),
        ("buffer_inside",
         "b = mu*b + lr*g/root, and the step is b: the learning rate is inside (Keras and TensorFlow, optax)", 0)]),
    "nesterov": ("Nesterov", "s", [("no", "no", 0), ("yes", "yes, g + mu*b", 0)]),
    "decay": ("weight decay", "args", [
        ("l2", "L2, added to the gradient (PyTorch's Adam and SGD, dlib)", 0),
        ("decoupled",
         "decoupled, lr*lambda of the weight before the step (AdamW of PyTorch, optax, Keras, ggml, DeepSpeed)", 0),
        ("without_lr", "decoupled, lambda of the weight without the learning rate", 1),
        ("base_lr", "decoupled, with the first learning rate in place of the current one", 1),
        ("after", "decoupled, of the weight after the step", 1),
        ("proximal", "proximal: the weight after the step is divided by 1 + lr*lambda (Adan)", 1),
        ("stable", "decoupled, lr*lambda*(1-dampening)/(1-mu) of the weight (stable weight decay)", 1),
        ("first_only", "L2 in the first moment only: the second does not see it", 2),
        ("in_ratio", "added to the corrected first moment, and divided by the root of the second", 2),
        ("twice", "L2 with twice lambda, the derivative of lambda*|w|^2", 2),
        ("no_decay", "none: it is ignored", 2)]),
    "rate": ("learning rate", "args", [
        ("followed", "as passed to the step", 0),
        ("ignored", "always the first: its drops are ignored", 2),
        ("late", "that of the step before: its drops act a step late", 2)]),
    "groups": ("groups", "args", [("own", "each tensor has its own weight decay", 0),
                                  ("ignored", "ignored: all tensors decay", 2)]),
    "state": ("state", "args", [("own", "of each tensor's own", 0),
                                ("shared", "shared: the buffers of one tensor go on in the next", 2)]),
    "betas": ("betas", "a", [("given", "as given", 0), ("swapped", "swapped", 2)]),
}
LETTERS = {"adam": "a", "rmsprop": "r", "adagrad": "g", "sgd": "s"}
NAMES = list(AXES)
NOT_WORTH_A_LINE = ("rate", "groups", "state", "betas")


def has_axis(h, axis):
    return LETTERS[h["family"]] in AXES[axis][1]


def chosen(h, axis):
    """The index, text and cost of a hypothesis's choice."""
    for index, (key, text, cost) in enumerate(AXES[axis][2]):
        if key == h[axis]:
            return index, text, cost


def predict(h, s, e, theta, g, t, count, lr, before, lam):
    """One step of one element as the hypothesis has it: the new weight, and the reach of its step. e is [m, v, largest, size]."""
    decay = h["decay"]
    alpha = s.lr if h["rate"] == "ignored" else before if h["rate"] == "late" else lr
    l2 = lam * theta if decay in ("l2", "first_only") else 2 * lam * theta if decay == "twice" else 0.0
    gm = g + l2
    gv, size, mu = (g if decay == "first_only" else gm), abs(g) + abs(l2), s.momentum
    family = h["family"]
    if family == "adam":
        b1, b2 = (s.beta2, s.beta1) if h["betas"] == "swapped" else (s.beta1, s.beta2)
        e[0] = b1 * e[0] + (1 - b1) * gm
        e[3] = b1 * e[3] + (1 - b1) * size
        e[1] = b2 * e[1] + (1 - b2) * gv * gv
        n = {"once_a_tensor": count + 1, "ahead": t + 1, "stuck": 1}.get(h["correction"], t)
        c1 = 1.0 if h["correction"] in ("none", "only_second") else 1 - b1**n
        c2 = 1.0 if h["correction"] in ("none", "only_first") else 1 - b2**n
        v = e[1]
        if h["second"] == "maximum":
            v = e[2] = max(e[2], e[1])
        elif h["second"] == "corrected_maximum":
            v = e[2] = max(e[2], e[1] / c2)
            c2 = 1.0
        place = h["eps_place"]
        if place == "beside_corrected":
            divisor = math.sqrt(v / c2) + s.eps
        elif place == "beside_uncorrected":
            divisor = (math.sqrt(v) + s.eps) / math.sqrt(c2)
        elif place == "inside_corrected":
            divisor = math.sqrt(v / c2 + s.eps)
        elif place == "inside_uncorrected":
            divisor = math.sqrt(v + s.eps) / math.sqrt(c2)
        else:
            divisor = math.sqrt(v / c2)
        more = lam * theta if decay == "in_ratio" else 0.0
        divisor = divisor or math.nan
        u = alpha * (e[0] / c1 + more) / divisor
        reach = alpha * (e[3] / c1 + abs(more)) / divisor
    elif family == "sgd":
        first, inner, momentum = t == 1, h["momentum"] == "lr_inside", h["momentum"]
        kept = 0.0 if momentum == "no_momentum" or (momentum == "dampened" and first) else mu
        share = (1 - mu if momentum == "complement" else 1 - s.dampening if momentum == "dampened" and not first
                 else alpha if inner else 1.0)
        e[0] = kept * e[0] + share * gm
        e[3] = kept * e[3] + share * size
        outer, ahead = (1.0, alpha) if inner else (alpha, 1.0)
        u = outer * (ahead * gm + mu * e[0] if h["nesterov"] == "yes" else e[0])
        reach = outer * (ahead * size + mu * e[3] if h["nesterov"] == "yes" else e[3])
    else:
        if t == 1 and family == "adagrad":
            e[1] = s.initial_accumulator
        e[1] = e[1] + gv * gv if family == "adagrad" else s.beta2 * e[1] + (1 - s.beta2) * gv * gv
        divisor = (math.sqrt(e[1]) + s.eps if h["root"] == "beside"
                   else math.sqrt(e[1] + (s.eps if h["root"] == "inside" else 0.0))) or math.nan
        inner = alpha if h["buffer"] == "buffer_inside" else 1.0
        kept = 0.0 if h["buffer"] == "no_buffer" else mu
        more = lam * theta if decay == "in_ratio" else 0.0
        e[0] = kept * e[0] + inner * (gm + more) / divisor
        e[3] = kept * e[3] + inner * (size + abs(more)) / divisor
        outer = 1.0 if h["buffer"] == "buffer_inside" else alpha
        u, reach = outer * e[0], outer * e[3]
    if decay in ("decoupled", "without_lr", "base_lr", "stable"):
        rate = (alpha if decay == "decoupled" else s.lr if decay == "base_lr" else 1.0 if decay == "without_lr"
                else alpha * (1 - s.dampening) / (1 - mu))
        return theta - rate * lam * theta - u, reach
    if decay == "after":
        return (1 - alpha * lam) * (theta - u), reach
    if decay == "proximal":
        return (theta - u) / (1 + alpha * lam), reach
    return theta - u, reach


def to_float(x):
    """x rounded to float, or an infinity."""
    try:
        return struct.unpack("f", struct.pack("f", x))[0]
    except OverflowError:
        return math.copysign(math.inf, x)


def draw(p):
    """For each tensor its start, the coefficients a and b of its gradients, and their scale."""
    state, drawn = p.seed, []

    def next_number():
        nonlocal state
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (state >> 11) / 2**53

    for k, size in enumerate(p.sizes):
        rows = [(-1 + 2 * next_number(), 0.1 + 1.9 * next_number(), -0.5 + next_number()) for _ in range(size)]
        drawn.append([[row[c] for row in rows] for c in range(3)] + [p.scales[k] if p.scales else 1.0])
    return drawn


def gradient_of(x, i, theta, t):
    angle = 3 * theta + 0.1 * t
    return x[3] * (x[1][i] * theta + x[2][i] * (math.sin(angle) if math.isfinite(angle) else math.nan))


def rate_at(s, p, t):
    """The learning rate of a step."""
    lr = s.lr
    for drop in p.drops:
        lr *= 0.1 if t >= drop else 1
    return lr


def observe(s, p, step, single=False):
    """Trains the problem with an implementation, step(tensors, t, lr), in double or in float, and keeps its parameters."""
    def new_array(values):
        if numpy:
            return numpy.array(values, dtype=numpy.float32 if single else numpy.float64)
        return array.array("f" if single else "d", values)

    if fault_of(s, p):
        return Observations(p, single, {})  # judge says why
    data, at = draw(p), {}
    tensors = [Tensor(new_array(x[0]), new_array([0.0] * len(x[0])), s.weight_decay if k + p.undecayed < len(data) else 0.0)
               for k, x in enumerate(data)]
    for t in range(1, p.steps + 1):
        for x, tensor in zip(data, tensors):
            for i in range(len(x[0])):
                tensor.gradients[i] = gradient_of(x, i, float(tensor.parameters[i]), t)
        step(tensors, t, rate_at(s, p, t))
        at[t] = [float(w) for tensor in tensors for w in tensor.parameters]
        if [len(tensor.parameters) for tensor in tensors] != [len(x[0]) for x in data]:
            break
    return Observations(p, single, at)


@dataclass
class Parting:
    """Where a hypothesis parts from the implementation: the first step that it does not predict; 0 if there is none."""

    step: int = 0
    tensor: int = 0
    element: int = 0
    expected: float = 0.0
    came: float = 0.0


def follow(h, s, seen, data, single):
    """Follows the observations with a hypothesis, to rounding of float or of double. Between steps that were not observed it goes
    on from its own parameters."""
    p, unit = seen.problem, 2.0**(-24 if single else -53)
    elements = [[[to_float(theta) if single else theta, 0.0, [0.0] * 4] for theta in x[0]] for x in data]
    shared = [[0.0] * 4 for _ in range(max(p.sizes))] if h["state"] == "shared" else None
    count = 0
    for t in range(1, p.steps + 1):
        lr, before = rate_at(s, p, t), rate_at(s, p, max(t - 1, 1))
        observed, at = seen.at.get(t), 0
        for k, x in enumerate(data):
            spared = h["groups"] == "own" and k + p.undecayed >= len(data)
            lam = 0.0 if h["decay"] == "no_decay" or spared else s.weight_decay
            for i, element in enumerate(elements[k]):
                theta, slack, own = element
                g = gradient_of(x, i, theta, t)
                g = to_float(g) if single else g
                new, reach = predict(h, s, shared[i] if shared else own, theta, g, t, count, lr, before, lam)
                # Parameters are rounded a few times. A step of v, and of 1 - beta2 rounded to float, loses some more digits.
                slack = 1.05 * slack + unit * (4 * abs(theta) + (32 if h["family"] == "sgd" else 256) * reach)
                element[0], element[1] = new, slack
                if observed is not None:
                    came = observed[at]
                    if not abs(came - new) <= slack:
                        return Parting(t, k, i, new, came)
                    element[0], element[1] = came, 0.5 * slack  # what remains is in the state
                at += 1
            count += 1
    return Parting()


@dataclass
class Verdict:
    """What the suite finds."""

    follows: bool = False  # a hypothesis predicts every step
    best: dict = field(default_factory=dict)  # the simplest of these; or the simplest of those that part last
    parts: Parting = field(default_factory=Parting)  # where it parts
    single: bool = False  # it follows to rounding of float only
    mistakes: int = 0  # how many choices of `best` are probably mistakes
    undecided: list = field(default_factory=list)  # what the problem could not tell apart
    text: str = ""  # all this in sentences


def hypotheses(s):
    """Each hypothesis of up to two mistakes and four choices that are not the textbook's."""
    h = {axis: choices[0][0] for axis, (_, _, choices) in AXES.items()}

    def meaningless(axis, key):
        """Whether a choice means the same as another, or nothing, with these settings."""
        uncorrected = h["correction"] in ("none", "only_first")
        if axis == "decay":
            if s.weight_decay == 0:
                return key != "no_decay"
            if h["family"] == "sgd":
                return key in ("first_only", "in_ratio") or (key == "stable" and s.momentum == 0)
            return key == "stable"
        if axis == "groups":
            return key == "ignored" and (s.weight_decay == 0 or h["decay"] == "no_decay")
        if axis == "correction" and h["family"] == "adam" and uncorrected:
            return h["eps_place"] in ("beside_uncorrected", "inside_uncorrected") or h["second"] == "corrected_maximum"
        if axis in ("eps_place", "root") and s.eps == 0:
            return key not in ("beside_corrected", "beside")
        if axis == "eps_place" and h["second"] == "corrected_maximum":
            return key in ("beside_uncorrected", "inside_uncorrected")
        if axis == "momentum" and h["family"] == "sgd":
            return key != "no_momentum" if s.momentum == 0 else key == "dampened" and s.dampening == 0
        if axis == "buffer":
            return s.momentum == 0 and key != "no_buffer"
        if axis == "nesterov":
            return key == "yes" and h["momentum"] == "no_momentum"
        if axis == "rate":
            return key == "ignored" and h["decay"] == "base_lr"
        return axis == "betas" and key == "swapped" and s.beta1 == s.beta2

    def recurse(a, mistakes, conventions):
        if mistakes > 2 or mistakes + conventions > 4:
            return
        if a == len(NAMES):
            yield dict(h)
            return
        axis = NAMES[a]
        applies = has_axis(h, axis)
        for key, _, cost in AXES[axis][2][:None if applies else 1]:
            h[axis] = key
            if meaningless(axis, key):
                continue
            idle = not applies or (axis == "decay" and s.weight_decay == 0) or (axis == "momentum" and s.momentum == 0)
            yield from recurse(a + 1, mistakes + (cost == 2 and not idle), conventions + (cost == 1 and not idle))
        h[axis] = AXES[axis][2][0][0]

    return recurse(0, 0, 0)


def name_of(h, s):
    if h["family"] != "adam":
        return chosen(h, "family")[1]
    shrinks = h["decay"] in ("decoupled", "without_lr", "base_lr", "after", "proximal") and s.weight_decay > 0
    return ("Adam" if h["second"] == "plain" else "AMSGrad") + ("W" if shrinks else "")


def judge(s, seen):
    """Says what observations follow."""
    v = Verdict()
    if fault_of_observations(s, seen):
        v.text = fault_of_observations(s, seen) + "\n"
        return v
    for t, parameters in sorted(seen.at.items()):
        for i, x in enumerate(parameters):
            if not math.isfinite(x):
                v.text = f"The parameters are not finite after step {t}."
                if t == min(seen.at):
                    v.text += " A bias correction whose count starts from 0 divides by 1 - beta^0 = 0."
                v.text += "\n"
                k, element = [(k, j) for k, size in enumerate(seen.problem.sizes) for j in range(size)][i]
                v.parts, v.mistakes = Parting(t, k, element, 0.0, x), 1
                return v

    data, followers = draw(seen.problem), []
    for single in (False, True):
        if followers or (seen.single and not single):
            continue
        v.single, best = single, None
        for h in hypotheses(s):
            costs = [chosen(h, axis) for axis in NAMES if has_axis(h, axis)]
            cost = sum(100 * c for _, _, c in costs) + sum(h[axis] != AXES[axis][2][0][0] for axis in NAMES[1:] if has_axis(h, axis))
            if h["family"] == "sgd" and (h["nesterov"] == "yes") != s.nesterov:
                cost += 200
            at = follow(h, s, seen, data, single)
            if at.step == 0:
                followers.append(h)
            rank = (at.step or math.inf, at.tensor, at.element, -cost)  # the later it parts, the nearer
            if best is None or rank > best:
                best, v.best, v.parts, v.mistakes = rank, h, at, sum(c == 2 for _, _, c in costs)
    v.follows = v.parts.step == 0
    h, without_decay = v.best, s.weight_decay == 0
    is_sgd = h["family"] == "sgd"
    unasked = is_sgd and (h["nesterov"] == "yes") != s.nesterov and h["momentum"] != "no_momentum"
    v.mistakes += unasked - without_decay - (is_sgd and s.momentum == 0)  # it ignores none that there is not

    # What else fits: hypotheses that differ in one choice.
    if v.follows:
        for axis in NAMES:
            for other in followers:
                if other[axis] != h[axis] and sum(other[b] != h[b] for b in NAMES) == 1:
                    v.undecided.append(f"{AXES[axis][0]}: or {chosen(other, axis)[1]}")

    name = name_of(h, s)
    if v.follows:
        v.text = (f"Follows {name} over all {seen.problem.steps} steps, to rounding of {'float' if v.single else 'double'}"
                  f"{', although its numbers are double' if v.single and not seen.single else ''}.\n")
    else:
        v.text = (f"Follows no convention that the suite knows. The nearest is {name}, from which it parts at step "
                  f"{v.parts.step}, in tensor {v.parts.tensor}, element {v.parts.element}: {v.parts.expected:.9g} was expected, "
                  f"{v.parts.came:.9g} came.\n")
    # What the nearest has in common with it is worth telling if it was followed for some steps.
    for axis in NAMES[1:] if v.follows or v.parts.step > 3 else ():
        if not has_axis(h, axis) or (without_decay and axis in ("decay", "groups")) or (
                s.eps == 0 and axis in ("eps_place", "root")):
            continue
        _, text, cost = chosen(h, axis)
        standard = cost == 0 and (axis in NOT_WORTH_A_LINE or h[axis] == "plain")
        if standard or (axis == "momentum" and is_sgd and s.momentum == 0) or (
                axis == "nesterov" and h["momentum"] == "no_momentum"):
            continue
        v.text += f"{'! ' if cost == 2 else '  '}{AXES[axis][0]}: {text}\n"
    if unasked:
        v.text += "! Nesterov: " + ("asked for, and ignored\n" if s.nesterov else "not asked for\n")
    if s.eps == 0 and v.follows and not is_sgd:
        v.text += "  eps: not tested, because eps is 0\n"
    if without_decay and v.follows:
        v.text += "  weight decay: not tested, because weight_decay is 0\n"
    for undecided in v.undecided:
        v.text += f"  cannot be told apart: {undecided}\n"
    return v


def examine(s, step, single=False):
    """Trains the suite's problem with an implementation, step(tensors, t, lr), and says what it follows."""
    return judge(s, observe(s, problem_for(s), step, single))


def first_of(numbers, names, otherwise):
    return next((numbers[name] for name in names if name in numbers), otherwise)


def settings_of(numbers):
    """The settings of a recorded case, from the names that libraries have for them."""
    s = Settings()
    alpha = numbers.get("alpha", s.lr)  # RMSprop's beta2, or ggml's learning rate
    s.lr = first_of(numbers, ("lr", "learning_rate", "step_size"), alpha)
    s.beta1 = first_of(numbers, ("beta1", "b1", "beta_1", "momentum1"), s.beta1)
    s.beta2 = first_of(numbers, ("beta2", "b2", "beta_2", "momentum2", "rho", "decay"), s.beta2 if s.lr == alpha else alpha)
    s.eps = max(first_of(numbers, ("eps", "epsilon"), s.eps), numbers.get("eps_root", 0))
    s.weight_decay = first_of(numbers, ("weight_decay", "wd"), 0)
    s.momentum, s.dampening = numbers.get("momentum", 0), numbers.get("dampening", 0)
    s.nesterov = numbers.get("nesterov", 0) != 0
    s.initial_accumulator = first_of(numbers, ("initial_accumulator", "initial_accumulator_value"), 0)
    return s


def number(text):
    """A number in decimal or, with 0x, in hexadecimal."""
    return float.fromhex(text) if "x" in text.lower() else float(text)


def recordings(path):
    """The cases of a file in the format of tests/golden/README.md: their names, settings and observations."""
    cases, p = [], Problem()
    with open(path, encoding="utf-8") as file:
        for words in map(str.split, file):
            if words[:1] == ["problem"]:
                p = Problem(undecayed=1)
                for key, text in zip(words[1::2], words[2::2]):
                    if key in ("seed", "steps", "undecayed"):
                        setattr(p, key, int(text))
                    elif key in ("sizes", "drops", "scales"):
                        setattr(p, key, tuple(map(float if key == "scales" else int, text.split(","))))
            elif words[:1] == ["case"]:
                numbers = {key: number(value) for key, value in (w.split("=") for w in words[2:] if "=" in w)}
                cases.append((" ".join(words[1:2]), settings_of(numbers), Observations(p, "float" in numbers, {})))
            elif words[:1] == ["at"] and cases:
                cases[-1][2].at[int(words[1])] = [number(x) for x in words[2:]]
    return cases


def main(files):
    """Prints the verdict on each recorded case of the files."""
    for path in files:
        try:
            cases = recordings(path)
        except (OSError, ValueError) as fault:
            sys.exit(f"conformance: {path} cannot be read: {fault}")
        if not cases:
            sys.exit(f"conformance: {path} has no case")
        for name, settings, seen in cases:
            print(f"== {name}\n{judge(settings, seen).text}", end="")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: conformance.py FILE...")
    main(sys.argv[1:])
