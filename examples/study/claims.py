"""The paper's claims, the tests of each, and the verdicts that follow from the logs."""
import math

import numpy

from cells import figure_text, markdown, p_text
from experiments import (BEST, EPOCHS, FRESH, HEAT, LONG_EPOCHS, RESTARTS, SEEDS, SWD, TEXT, USUAL, key, matched, runs)
from logs import found
from stats import Difference, holm

STRONG = (10,)  # lr 0.01, as a multiple


# ---------------------------------------------------------------------------------------------------- tests
class Test:
    """Differences that a claim gives a sign. `samples(logs)`: the differences; `side`: their sign by the claim."""

    def __init__(self, what, samples, side, field, margin=0.0):
        self.what, self.samples, self.side, self.field, self.margin = what, samples, side, field, margin

    def difference(self, logs):
        """None where fewer than three were run."""
        values = self.samples(logs)
        return Difference(values) if len(values) > 2 else None

    def verdict(self, logs):
        d = self.difference(logs)
        return d.verdict(self.side, self.margin) if d else "not run"


def of_seed(rs, logs, field):
    return {log.run["seed"]: v for log in found(rs, logs) if (v := log.value(field)) is not None}


def less(what, a, b, field, side=-1, margin=0.0):
    """That `field` of runs a is smaller than of runs b (side 1: larger), by seed."""
    def samples(logs):
        of_a, of_b = of_seed(a, logs, field), of_seed(b, logs, field)
        return [of_a[seed] - of_b[seed] for seed in of_a if seed in of_b]
    return Test(what, samples, side, field, margin)


def more(what, a, b, field):
    return less(what, a, b, field, 1)


class Fact:
    """Something that no seed changes: `of(logs)` is a verdict and what it rests on; None where it was not run."""

    def __init__(self, what, of):
        self.what, self.of = what, of


# ---------------------------------------------------------------------------------------------------- runs
def one(optimizer, s=USUAL, model="vgg_bn", seeds=SEEDS, **changes):
    return runs([model], [optimizer], (s,), seeds, **changes)


def long(optimizer):
    return one(optimizer, epochs=LONG_EPOCHS)


def strong(optimizer, s=USUAL):
    return one(optimizer, s, seeds=FRESH, lrs=STRONG)


LONG_MATCHED = matched(["vgg_bn"], SEEDS, epochs=LONG_EPOCHS)
STRONG_MATCHED = matched(["vgg_bn"], FRESH, STRONG)              # to AdamW's 0.5
MILD_MATCHED = matched(["vgg_bn"], FRESH, STRONG, 1e-4)          # to AdamW's 0.1
LM = dict(model="lstm", lrs=(4,), **TEXT)
LM_MATCHED = matched(["lstm"], SEEDS, (4,), 1e-4, **TEXT)


# ---------------------------------------------------------------------------------------------------- facts and samples
def theorem_1(logs):
    log = logs.get(key({"command": "theorem"}))
    if not log:
        return None
    ends = {x["kind"]: x["stationarity"] for x in log.epochs}
    word = "holds" if ends["independent"] > 1e3 * max(ends["coupled"], ends["l2"]) else "does not"
    return word, (f"norm of the objective's gradient at the end {figure_text(ends['independent'])} against "
                  f"{figure_text(ends['coupled'])} and {figure_text(ends['l2'])} (L2)")


def bound_holds(logs):
    log = logs.get(key({"command": "bound"}))
    if not log:
        return None
    ratios = [x["least"] / x["bound"] for x in log.epochs]
    return ("holds" if max(ratios) <= 1 else "does not",
            f"measured over bound is {figure_text(min(ratios))} to {figure_text(max(ratios))} in {len(ratios)} settings")


def grows_with_decay(field):
    """Whether what was measured grows from the smallest to the largest λ at every number of epochs."""
    def of(logs):
        log = logs.get(key({"command": "bound"}))
        if not log:
            return None
        words = []
        for epochs in sorted({x["epochs"] for x in log.epochs}):
            line = [x[field] for x in sorted(log.epochs, key=lambda x: x["lambda"]) if x["epochs"] == epochs]
            words.append("holds" if line == sorted(line) else "does not" if line[-1] < line[0] else "open")
        said = ", ".join(f"{words.count(w)} {w}" for w in dict.fromkeys(words))
        return words[0] if len(set(words)) == 1 else "open", f"of {len(words)} lengths: {said}"
    return of


def l2_term(logs):
    rs = [r for model in ("vgg_bn", "vgg") for o in ("sgd", "adam", "adamw") for s in (0, 1e-4, 5e-4, 2e-3, 1e-2)
          for r in runs([model], [o], (s,), SEEDS)]
    apart = [abs(log.epochs[-1]["grad_norm_l2"] / log.epochs[-1]["grad_norm"] - 1) for log in found(rs, logs)]
    if not apart:
        return None
    return ("holds" if max(apart) < 0.01 else "does not",
            f"the two norms differ by at most {100 * max(apart):.2g} % in {len(apart)} runs")


def cost(a, b):
    def of(logs):
        log = logs.get(key({"command": "time"}))
        if not log:
            return None
        us = {x["optimizer"]: x["ns_per_step"] / 1e3 for x in log.epochs}
        return ("holds" if us[a] < us[b] else "does not", f"{a} {us[a]:.1f} µs, {b} {us[b]:.1f} µs, medians of 15 rounds, "
                                                          "without an interval")
    return of


def spread_of(optimizer, lr, logs, over):
    """[(decay, error)] at this lr, by decay."""
    rs = [r for s in (1e-4, 5e-4, 2e-3, 1e-2, 5e-2, 2e-1) for r in runs(["vgg_bn"], [optimizer], (s,), lrs=(lr,), **HEAT)]
    return sorted((x, e) for log in found(rs, logs)
                  if (x := log.run["weight_decay"] if over == "λ" else log.value("effective_decay")) is not None
                  and (e := log.value("test_error")) is not None)


def narrower(other, over):
    """By lr, the range of AdamS's errors over decays less the other's. On the effective decays that both have where that is
    what AdamS is compared on."""
    def samples(logs):
        out = []
        for lr in (0.3, 1, 3, 10, 30):
            lines = [spread_of(o, lr, logs, over) for o in ("adams", other)]
            if over == "λ":
                lines = [[p for p in line if p[0] <= 1e-2] for line in lines]
            if all(len(line) > 3 for line in lines):
                low, high = max(line[0][0] for line in lines), min(line[-1][0] for line in lines)
                at = [numpy.log(x) for x in sorted({low, high, *(x for line in lines for x, _ in line if low <= x <= high)})]
                errors = [numpy.interp(at, [math.log(x) for x, _ in line], [e for _, e in line]) for line in lines]
                out.append(float(numpy.ptp(errors[0]) - numpy.ptp(errors[1])))
        return out
    return samples


def best_decays(logs):
    """Seed 1's best strength of each optimizer at lr 0.01."""
    out = {}
    for o in SWD:
        rs = [r for s in (0, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 6e-3, 1.2e-2) for r in one(o, s, seeds=(1,), lrs=STRONG)]
        errors = {log.run["weight_decay"]: log.value("test_error") for log in found(rs, logs)}
        if errors:
            out[o] = min(errors, key=errors.get)
    return out


def different_best(logs):
    best = best_decays(logs)
    if len(best) < 3:
        return None
    apart = best["adamw"] / max(best["adams"], best["adam"], 1e-4)
    return ("holds" if apart > 10 else "does not",
            f"best weight_decay of seed 1: {', '.join(f'{o} {best[o]:g}' for o in SWD)}")


# ---------------------------------------------------------------------------------------------------- claims
CNN = "CNNs of millions of parameters on CIFAR"
SMALL = "vgg_bn, 29 000 parameters"
SHORT_RUN = "lr 0.001, 16 epochs"
CLAIMS = [
    dict(claim="Decay that does not follow the learning rate (Equation 1) ends in a higher test error than decay that does "
               "(Equation 2).", paper=f"Figure 1; {CNN}", here=f"{SMALL}; a: SGD, 16 epochs",
         tests=[more(f"λ = {s:g}", one("sgd_independent", s), one("sgd_decoupled", s), "test_error") for s in (5e-2, 5e-3)]),
    dict(claim="Decay as in Equation 1 also ends with larger gradients.", paper=f"Figure 1; {CNN}", here=f"{SMALL}; a: SGD, 16 epochs",
         tests=[more(f"λ = {s:g}", one("sgd_independent", s), one("sgd_decoupled", s), "grad_norm") for s in (5e-2, 5e-3)]),
    dict(claim="With Equation 1, the point that was reached is no longer stationary once the learning rate drops.",
         paper="Theorem 1; any loss", here="a: one convex example, full batch", tests=[Fact("", theorem_1)]),
    dict(claim="Stronger weight decay ends with larger gradients.", paper=f"Figure 2; {CNN}, 200 epochs",
         here=f"{SMALL}; k: lr 0.01; i: 48 epochs; b: 16 epochs",
         tests=[more("AdamW 0.1 against 0 (k)", strong("adamw", 1e-4), strong("adam", 0), "grad_norm"),
                more("AdamW 0.5 against 0.1 (k)", strong("adamw"), strong("adamw", 1e-4), "grad_norm"),
                more("AdamS 6e-3 against 5e-4 (k)", STRONG_MATCHED, strong("adams"), "grad_norm"),
                more("AdamW 0.5 against Adam, hardly decayed (i)", long("adamw"), long("adam"), "grad_norm"),
                more("SGD 5e-4 against 0 (b)", one("sgd"), one("sgd", 0), "grad_norm"),
                more("SGD 0.01 against 0 (b)", one("sgd", 1e-2), one("sgd", 0), "grad_norm")]),
    dict(claim="Shorter weights do not explain these larger gradients: times ‖θ‖ they grow, too.", paper="Section 2",
         here=f"{SMALL}; k: lr 0.01; i: 48 epochs",
         tests=[more("AdamW 0.1 against 0 (k)", strong("adamw", 1e-4), strong("adam", 0), "scaled_grad_norm"),
                more("AdamW 0.5 against 0.1 (k)", strong("adamw"), strong("adamw", 1e-4), "scaled_grad_norm"),
                more("AdamW 0.5 against Adam, hardly decayed (i)", long("adamw"), long("adam"), "scaled_grad_norm")]),
    dict(claim="Stronger decay ends with larger gradients without BatchNorm, too.", paper="Figure 3; VGG16", here="vgg, 29 000 parameters; b: 16 epochs",
         tests=[more("AdamW 0.5 against 0", one("adamw", model="vgg"), one("adam", 0, "vgg"), "grad_norm"),
                more("SGD 5e-4 against 0", one("sgd", model="vgg"), one("sgd", 0, "vgg"), "grad_norm")]),
    dict(claim="All this holds whether or not the gradient includes the L2 term.", paper="Figures 2, 3; VGG16",
         here="b: vgg_bn and vgg", tests=[Fact("", l2_term)]),
    dict(claim="Without BatchNorm and weight decay, gradient norms spike; decay wipes the spikes out.",
         paper="Figure 3; VGG16", here="vgg, 29 000 parameters; b: 16 epochs; largest epoch over the mean of its neighbours",
         tests=[more(f"{o}, λ = 0 against 5e-4", one(o, 0, "vgg"), one(o, model="vgg"), "spike") for o in ("sgd", "adam")]),
    dict(claim="The least squared gradient norm is below a bound that grows with λ and falls with training time.",
         paper="Theorem 2; any smooth loss", here="m: logistic regression, 50 to 2000 epochs",
         tests=[Fact("the bound", bound_holds), Fact("what is measured grows with λ", grows_with_decay("least"))]),
    dict(claim="Gradients and test error fall with the number of epochs.", paper="the appendix's table; 50 to 2000 epochs",
         here="mlp, 102 000 parameters; m: 1000 images, SGD, λ = 5e-4",
         tests=[less(f"{what}, 2000 against 50 epochs", one("sgd", model="mlp", epochs=2000, images=1000),
                     one("sgd", model="mlp", epochs=50, images=1000), field)
                for what, field in (("gradient norm", "grad_norm"), ("error", "test_error"))]),
    dict(claim="SWD is a negative feedback: a larger initial λ ends with a smaller factor.",
         paper=f"Figure 6; {CNN}", here=f"{SMALL}; k: lr 0.01; i: 48 epochs",
         tests=[less("6e-3 against 5e-4 (k)", STRONG_MATCHED, strong("adams"), "decay_factor"),
                less("0.01 against 5e-4 (i)", LONG_MATCHED, long("adams"), "decay_factor")]),
    dict(claim="AdamS trains with smaller gradients than AdamW.", paper=f"Figures 4, 5; {CNN}",
         here=f"{SMALL}; k: lr 0.01; i: 48 epochs",
         tests=[less("5e-4 against AdamW 0.5 (k)", strong("adams"), strong("adamw"), "grad_norm"),
                less("5e-4 against AdamW 0.5 (i)", long("adams"), long("adamw"), "grad_norm"),
                less("matched to 0.1 (k)", MILD_MATCHED, strong("adamw", 1e-4), "grad_norm"),
                less("matched to 0.5 (k)", STRONG_MATCHED, strong("adamw"), "grad_norm"),
                less("matched to 0.5 (i)", LONG_MATCHED, long("adamw"), "grad_norm")]),
    dict(claim="AdamS ends with a lower training loss than AdamW.", paper=f"Figure 4; {CNN}",
         here=f"{SMALL}; k: lr 0.01; i: 48 epochs",
         tests=[less("5e-4 against AdamW 0.5 (k)", strong("adams"), strong("adamw"), "train_loss"),
                less("5e-4 against AdamW 0.5 (i)", long("adams"), long("adamw"), "train_loss"),
                less("matched to 0.1 (k)", MILD_MATCHED, strong("adamw", 1e-4), "train_loss"),
                less("matched to 0.5 (k)", STRONG_MATCHED, strong("adamw"), "train_loss"),
                less("matched to 0.5 (i)", LONG_MATCHED, long("adamw"), "train_loss")]),
    dict(claim="Stronger decay ends in sharper minima.", paper=f"Figure 6; {CNN}", here=f"{SMALL}; k: lr 0.01; i: 48 epochs",
         tests=[more("AdamW 0.1 against 0 (k)", strong("adamw", 1e-4), strong("adam", 0), "sharpness"),
                more("AdamW 0.5 against 0.1 (k)", strong("adamw"), strong("adamw", 1e-4), "sharpness"),
                more("AdamS 6e-3 against 5e-4 (k)", STRONG_MATCHED, strong("adams"), "sharpness"),
                more("AdamW 0.5 against Adam, hardly decayed (i)", long("adamw"), long("adam"), "sharpness")]),
    dict(claim="AdamS ends in flatter minima than AdamW.", paper=f"Figure 8; {CNN}",
         here=f"{SMALL}; k: lr 0.01; i: 48 epochs; vgg: without BatchNorm, 16 epochs",
         tests=[less("5e-4 against AdamW 0.5 (k)", strong("adams"), strong("adamw"), "sharpness"),
                less("5e-4 against AdamW 0.5 (i)", long("adams"), long("adamw"), "sharpness"),
                less("matched to 0.1 (k)", MILD_MATCHED, strong("adamw", 1e-4), "sharpness"),
                less("matched to 0.5 (k)", STRONG_MATCHED, strong("adamw"), "sharpness"),
                less("matched to 0.5 (i)", LONG_MATCHED, long("adamw"), "sharpness"),
                less("matched (vgg)", matched(["vgg"], SEEDS), one("adamw", model="vgg"), "sharpness")]),
    dict(claim="AdamS has the lowest test error of the adaptive optimizers.", paper="Table 1, Figures 9, 14; five CNNs of millions of parameters",
         here=f"{SMALL}; e: {SHORT_RUN}, λ = 5e-4; k: lr 0.01",
         tests=[*(less(f"against {o} (e)", one("adams"), one(o), "test_error")
                  for o in ("adam", "adamw", "amsgrad", "yogi", "adabound", "padam", "radam")),
                less("against AdamW 0.5 (k)", strong("adams"), strong("adamw"), "test_error"),
                less("against Adam, λ = 0 (k)", strong("adams"), strong("adam", 0), "test_error")]),
    dict(claim="AdamS has a lower test error than AdamW at matched strength.", paper="–", here=f"{SMALL}; e: {SHORT_RUN}; k: lr 0.01",
         tests=[less("against AdamW (e)", matched(["vgg_bn"], SEEDS), one("adamw"), "test_error"),
                less("against AdamW (e, vgg)", matched(["vgg"], SEEDS), one("adamw", model="vgg"), "test_error"),
                less("against AdamW (e, mlp)", matched(["mlp"], SEEDS), one("adamw", model="mlp"), "test_error"),
                less("against AdamW 0.1 (k)", MILD_MATCHED, strong("adamw", 1e-4), "test_error"),
                less("against AdamW 0.5 (k)", STRONG_MATCHED, strong("adamw"), "test_error"),
                less("against AdamW 0.5 (i)", LONG_MATCHED, long("adamw"), "test_error")]),
    dict(claim="AdamS is best with each optimizer at its best λ.", paper="Figure 10; CIFAR", here=f"{SMALL}; k: lr 0.01, seed 1 chose λ",
         tests=[less(f"against {o}", strong("adams", BEST["adams"]), strong(o, BEST[o]), "test_error")
                for o in ("adamw", "adam")]),
    dict(claim="AdamS's test error is near SGD's or below it.", paper="Table 1; five CNNs of millions of parameters",
         here="29 000 to 102 000 parameters; e: 16 epochs; near: within 0.5 points",
         tests=[less(f"{m}", one("adams", model=m), one("sgd", model=m), "test_error", margin=0.5)
                for m in ("vgg_bn", "vgg", "mlp")]),
    dict(claim="SGDS is no worse than SGD with L2.", paper="the authors' code", here="29 000 to 102 000 parameters; e: 16 epochs; worse: by 0.5 points",
         tests=[less(f"{m}", one("sgds", model=m), one("sgd", model=m), "test_error", margin=0.5)
                for m in ("vgg_bn", "vgg", "mlp")]),
    dict(claim="At λ = 1e-4 AdamS is still the best, and below SGD.", paper="Table 2; five CNNs of millions of parameters", here=f"{SMALL}; e: {SHORT_RUN}",
         tests=[less(f"against {o}", one("adams", 1e-4), one(o, 1e-4), "test_error") for o in ("adamw", "adam", "sgd")]),
    dict(claim="At a similar or higher training loss AdamS generalises better than AdamW.",
         paper="Figures 15, 19; DenseNet121", here=f"{SMALL}; k: lr 0.01; i: 48 epochs; loss on the test less loss on the probe",
         tests=[less("5e-4 against AdamW 0.5 (k)", strong("adams"), strong("adamw"), "gap"),
                less("matched to 0.1 (k)", MILD_MATCHED, strong("adamw", 1e-4), "gap"),
                less("matched to 0.5 (k)", STRONG_MATCHED, strong("adamw"), "gap"),
                less("matched to 0.5 (i)", LONG_MATCHED, long("adamw"), "gap")]),
    dict(claim="AdamS's error depends less on λ than AdamW's and Adam's.", paper="Figures 10, 11, 16; ResNet34 on CIFAR-100",
         here=f"{SMALL}; f: five learning rates, 8 epochs; the range of errors over decays",
         tests=[Test("against AdamW, the same effective decays", narrower("adamw", "effective"), -1, "test_error"),
                Test("against Adam, the same λ", narrower("adam", "λ"), -1, "test_error")]),
    dict(claim="AdamW needs its λ tuned anew: its best is far from L2's and SWD's.", paper="Figure 10; CIFAR",
         here=f"{SMALL}; k: lr 0.01",
         tests=[Fact("", different_best),
                more("AdamW without decay against its best", strong("adam", 0), strong("adamw", BEST["adamw"]), "test_error")]),
    dict(claim="AdamS is ahead of AdamW at various batch sizes.", paper="Appendix B; CIFAR", here=f"{SMALL}; l: AdamW 0.1 at lr 0.01, 8 epochs",
         tests=[less(f"batch {b}, {what}", a, one("adamw", 1e-4, lrs=STRONG, **(HEAT | dict(batch=b))), "test_error")
                for b in (16, 128)
                for what, a in (("λ = 5e-4", one("adams", lrs=STRONG, **(HEAT | dict(batch=b)))),
                                ("matched", matched(["vgg_bn"], SEEDS, STRONG, 1e-4, **(HEAT | dict(batch=b)))))]),
    dict(claim="AdamS is ahead under cosine annealing with warm restarts, in error and training loss.",
         paper="Figures 12, 20; CIFAR", here=f"{SMALL}; g: 16 epochs",
         tests=[test for what, a in (("λ = 5e-4", one("adams", **RESTARTS)), ("matched", matched(["vgg_bn"], SEEDS, **RESTARTS)))
                for test in (less(f"error, {what}", a, one("adamw", **RESTARTS), "test_error"),
                             less(f"loss, {what}", a, one("adamw", **RESTARTS), "train_loss"))]),
    dict(claim="For an LSTM language model L2 is better than decoupled and scheduled decay.",
         paper="Figure 13; an LSTM of millions of parameters, words of Penn Treebank", here="an LSTM of 242 000 parameters; h: characters, λ = 1e-4",
         tests=[less("against AdamW", one("adam", 1e-4, **LM), one("adamw", 1e-4, **LM), "perplexity"),
                less("against AdamS", one("adam", 1e-4, **LM), one("adams", 1e-4, **LM), "perplexity"),
                less("AdamW against AdamS matched", one("adamw", 1e-4, **LM), LM_MATCHED,
                     "perplexity")]),
    dict(claim="AdamS is ahead of AdamW and Adam in much longer training, too.", paper="Figure 17; ResNet18, 900 epochs",
         here=f"{SMALL}; i: 48 epochs",
         tests=[less("against AdamW", long("adams"), long("adamw"), "test_error"),
                less("against Adam", long("adams"), long("adam"), "test_error"),
                less("matched, against AdamW", LONG_MATCHED, long("adamw"), "test_error")]),
    dict(claim="AdamS is slightly slower than AdamW and slightly faster than Adam.", paper="Section 4",
         here="j: steps of gradus, 29 000 parameters",
         tests=[Fact("AdamW faster than AdamS", cost("adamw", "adams")), Fact("AdamS faster than Adam", cost("adams", "adam"))]),
]


# ---------------------------------------------------------------------------------------------------- tables
def every_test():
    return [t for c in CLAIMS for t in c["tests"] if isinstance(t, Test)]


def survivors(logs):
    """The tests that Holm's correction leaves."""
    done = [(t, t.difference(logs)) for t in every_test()]
    done = [(t, d) for t, d in done if d]
    return {id(t) for (t, _), kept in zip(done, holm([d.p for _, d in done])) if kept}


def signed(x, field):
    return ("+" if x > 0 else "−" if x < 0 else "") + figure_text(abs(x), field)


def said(test, logs, strict):
    """(the word, what it rests on)"""
    if isinstance(test, Fact):
        return test.of(logs) or ("not run", "")
    d = test.difference(logs)
    if not d:
        return "not run", ""
    star = "\\*" if id(test) in strict else ""
    return test.verdict(logs), (f"{signed(d.mean, test.field)}{star} ({signed(d.low, test.field)} to "
                                f"{signed(d.high, test.field)})")


def verdict_text(claim, logs, strict):
    """The words of a claim's tests, those with the same word together."""
    by_word = {}
    for t in claim["tests"]:
        word, why = said(t, logs, strict)
        by_word.setdefault(word, []).append(": ".join(x for x in (t.what, why) if x))
    return "; ".join(f"**{word}** {', '.join(why)}" for word, why in by_word.items())


def claim_table(logs):
    strict = survivors(logs)
    return markdown(["", "the paper's claim", "there", "here", "verdict: difference (95 % interval)"],
                    [[str(i), c["claim"], c["paper"], c["here"], verdict_text(c, logs, strict)] for i, c in enumerate(CLAIMS, 1)])


def test_table(logs):
    strict, rows = survivors(logs), []
    for i, c in enumerate(CLAIMS, 1):
        for t in c["tests"]:
            if isinstance(t, Fact):
                continue
            d = t.difference(logs)
            row = [str(i), t.what, t.field]
            if d:
                row += [str(d.n), signed(d.mean, t.field), f"{signed(d.low, t.field)} to {signed(d.high, t.field)}", p_text(d.p),
                        "yes" if id(t) in strict else "no", t.verdict(logs)]
            rows.append(row + ["–"] * (5 if not d else 0) + (["not run"] if not d else []))
    return markdown(["claim", "test", "measured", "n", "difference", "95 % interval", "p", "Holm", "verdict"], rows)
