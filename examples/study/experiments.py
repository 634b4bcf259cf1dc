"""The study's experiments, as a table, and the descriptions of their runs."""
import hashlib
import json
import sys


# ---------------------------------------------------------------------------------------------------- sizes
# Small batches: decay is a matter of steps times lr, and a small study has few steps.
IMAGES, EPOCHS, BATCH = 5000, 16, 32
SEEDS = (1, 2, 3)
FEW_SEEDS = (1, 2)            # the quick study's
HEAT_IMAGES, HEAT_EPOCHS = 3000, 8
LONG_EPOCHS = 48
TEXT = dict(images=100_000, batch=16, epochs=20)  # characters, streams of text
DECAYS = (0, 1e-4, 5e-4, 2e-3, 1e-2)
FEW_DECAYS = (0, 5e-4, 1e-2)
USUAL = 5e-4
OPTIMIZERS = ("sgd", "sgds", "adam", "adamw", "adams", "amsgrad", "yogi", "adabound", "padam", "radam")
LR = {"sgd": 0.03, "sgds": 0.03, "sgd_decoupled": 0.03, "sgd_independent": 0.03, "padam": 0.1}  # all others:
ADAPTIVE_LR = 1e-3
LR_OF = {("vgg", "sgd"): 0.01, ("vgg", "sgds"): 0.01}  # without BatchNorm, more does not learn
# Seconds that an image costs, forward and backward, as a multiple of vgg's; of the LSTM a character.
# They serve the estimate of the time left alone.
COST = {"mlp": 0.04, "vgg": 1.0, "vgg_bn": 1.1, "resnet": 1.8, "lstm": 0.07}
COMMAND = 40000
TEST_IMAGES = 10000 / 6       # forward only, every second epoch

KEYS = ("model", "optimizer", "lr", "weight_decay", "schedule", "milestones", "t_0", "t_mult", "epochs", "images",
        "batch", "seed")


# ---------------------------------------------------------------------------------------------------- runs
def lr_of(model, optimizer):
    return LR_OF.get((model, optimizer), LR.get(optimizer, ADAPTIVE_LR))


def decay_factor(optimizer, lr):
    """What a strength is multiplied by to give the optimizer's weight_decay. A strength is what L2 and SWD are given;
    AdamW's is divided by 0.001, as in the paper; Equation 1's is multiplied by lr, so that it agrees with Equation 2's
    until lr drops."""
    return 1 / ADAPTIVE_LR if optimizer == "adamw" else lr if optimizer == "sgd_independent" else 1


def six(x):
    return float(f"{x:.6g}")


def strength(run):
    return six(run["weight_decay"] / decay_factor(run["optimizer"], run["lr"]))


def runs(models, optimizers, strengths=(USUAL,), seeds=(1,), lrs=None, **changes):
    """One description for each combination. `lrs`: multiples of the optimizer's own."""
    out = []
    for seed in seeds:  # outermost: all rows of a table have their first seed early
        for model in models:
            for optimizer in optimizers:
                for multiple in lrs or (1,):
                    for s in strengths:
                        lr = six(lr_of(model, optimizer) * multiple)
                        run = dict(model=model, optimizer=optimizer, lr=lr,
                                   weight_decay=six(s * decay_factor(optimizer, lr)), schedule="step",
                                   milestones=[0.4, 0.8], t_0=1, t_mult=2, epochs=EPOCHS, images=IMAGES, batch=BATCH,
                                   seed=seed)
                        assert set(changes) <= set(run), changes
                        out.append(run | changes)
    return out


def command(name):
    return [{"command": name}]


def small(models, optimizers, strengths=(USUAL,), seeds=(1,), lrs=None, **changes):
    return runs(models, optimizers, strengths, seeds, lrs, **({"epochs": 2, "images": 1500} | changes))


def key(run):
    """Equal for equal descriptions, however their numbers are written."""
    def plain(x):
        return [plain(y) for y in x] if isinstance(x, list) else x if isinstance(x, str) else six(x)
    return json.dumps({k: plain(v) for k, v in run.items()}, sort_keys=True)


def name(run):
    """A file name: what mostly differs in words, the rest as a hash."""
    if "command" in run:
        return run["command"]
    text = f"{run['model']}-{run['optimizer']}-lr{run['lr']:g}-wd{run['weight_decay']:g}-{run['schedule']}"
    text += f"-{run['epochs']}x{run['images']}-seed{run['seed']}"
    rest = {k: run[k] for k in ("milestones", "t_0", "t_mult", "batch")}
    if rest != dict(milestones=[0.4, 0.8], t_0=1, t_mult=2, batch=BATCH):
        text += "-" + hashlib.sha256(key(rest).encode()).hexdigest()[:6]
    return text


def work(run, epochs=None):
    """In images of vgg's, for the estimate of the time left."""
    if "command" in run:
        return COMMAND if epochs is None else 0
    epochs = run["epochs"] if epochs is None else epochs
    each = COST[run["model"]] * (run["images"] + TEST_IMAGES)
    return epochs * each


# ---------------------------------------------------------------------------------------------------- experiments
# Tables are pivots: (what is shown, a field of the last epoch or of the last line, the rows' fields, the columns').
ERROR = ("test error, %", "test_error")
NORM = ("gradient norm, last epoch", "grad_norm")
SCALED_NORM = ("gradient norm times weight norm, last epoch", "scaled_grad_norm")
L2S = ("sgd", "adam", "adamw")
SWD = ("adams", "adamw", "adam")

EXPERIMENTS = {
    "a": dict(
        title="Vanilla weight decay under a stepped learning rate", paper="Figure 1, Theorem 1",
        question="Does decay that is not multiplied by the learning rate (Equation 1) generalise worse, with larger "
                 "gradients, than decay that is (Equation 2), and leave the stationary point that it had reached?",
        # Ten times as strong as L2, which momentum 0.9 multiplies by ten.
        full=runs(["vgg_bn"], ["sgd_independent", "sgd_decoupled"], (5e-3, 5e-2), SEEDS) + command("theorem"),
        quick=small(["mlp"], ["sgd_independent", "sgd_decoupled"], (5e-3,), FEW_SEEDS) + command("theorem"),
        tables=[(*ERROR, ["model", "strength"], "optimizer"), (*NORM, ["model", "strength"], "optimizer"),
                (*SCALED_NORM, ["model", "strength"], "optimizer")], reference="sgd_decoupled"),
    "b": dict(
        title="Gradient norms over weight decays", paper="Figures 2 and 3",
        question="Does stronger weight decay end in larger gradients, with and without BatchNorm, and whether or not "
                 "the L2 term counts?",
        full=runs(["vgg_bn"], L2S, DECAYS) + runs(["vgg"], L2S, FEW_DECAYS) +
        runs(["vgg_bn", "vgg"], L2S, seeds=SEEDS),
        quick=small(["vgg_bn", "mlp"], L2S, (0, USUAL)),
        tables=[(*NORM, ["model", "optimizer"], "strength"),
                ("gradient norm with the L2 term, last epoch", "grad_norm_l2", ["model", "optimizer"], "strength"),
                ("norm of the probe's gradient, last epoch", "probe_grad_norm", ["model", "optimizer"], "strength"),
                (*SCALED_NORM, ["model", "optimizer"], "strength"),
                ("weight norm, last epoch", "weight_norm", ["model", "optimizer"], "strength"),
                (*ERROR, ["model", "optimizer"], "strength")]),
    "c": dict(
        title="What SWD does", paper="Figures 4, 5 and 6",
        question="Does the decay factor settle by negative feedback whatever the initial strength, and are AdamS's "
                 "gradients smaller than AdamW's and Adam's?",
        full=runs(["vgg_bn"], ["adams"], (5e-4, 2e-3, 1e-2, 5e-2)) + runs(["vgg_bn"], SWD, seeds=SEEDS),
        quick=small(["mlp"], ["adams"], (5e-5, 5e-4, 5e-3)) + small(["mlp"], SWD, seeds=FEW_SEEDS),
        tables=[("decay factor, last epoch", "decay_factor", ["model", "optimizer"], "strength"),
                (*NORM, ["model", "optimizer"], "strength"), (*SCALED_NORM, ["model", "optimizer"], "strength")]),
    "d": dict(
        title="Sharpness", paper="Figures 6 and 8",
        question="Are the minima that AdamS finds flatter than AdamW's, over weight decays?",
        full=runs(["vgg_bn"], SWD, DECAYS) + runs(["vgg_bn"], SWD, seeds=SEEDS) + runs(["vgg"], SWD, seeds=SEEDS),
        quick=small(["mlp"], SWD, (0, USUAL)),
        tables=[("top eigenvalue of the Hessian", "sharpness", ["model", "optimizer"], "strength"),
                ("top eigenvalue times the square of the weight norm", "scaled_sharpness", ["model", "optimizer"],
                 "strength"),
                (*ERROR, ["model", "optimizer"], "strength")]),
    "e": dict(
        title="Ten optimizers", paper="Tables 1 and 2, Figures 9, 14 and 15",
        question="How do the optimizers rank by test error, and is AdamS the best of the adaptive ones?",
        full=runs(["vgg_bn"], OPTIMIZERS, seeds=SEEDS) + runs(["mlp"], OPTIMIZERS, seeds=SEEDS) +
        runs(["vgg"], OPTIMIZERS, seeds=SEEDS) + runs(["mlp"], OPTIMIZERS, (1e-4,), SEEDS) +
        runs(["vgg_bn"], ("sgd", "sgds", *SWD), (1e-4,), SEEDS),
        quick=small(["mlp"], OPTIMIZERS, seeds=SEEDS),
        tables=[(*ERROR, ["model", "strength"], "optimizer"),
                ("loss on the probe", "probe_loss", ["model", "strength"], "optimizer")], reference="adams"),
    "f": dict(
        title="Learning rate and weight decay together", paper="Figures 10, 11 and 16",
        question="Over how much of the plane of learning rate and weight decay is each optimizer good, and whose best "
                 "point is best?",
        full=runs(["vgg_bn"], SWD, (1e-4, 5e-4, 2e-3, 1e-2), lrs=(0.3, 1, 3, 10), epochs=HEAT_EPOCHS,
                  images=HEAT_IMAGES),
        quick=small(["mlp"], SWD, (5e-4, 5e-3), lrs=(0.3, 1)),
        tables=[(*ERROR, ["optimizer", "lr"], "strength")]),
    "g": dict(
        title="Cosine annealing with warm restarts", paper="Figures 12 and 20",
        question="Does the order of the optimizers hold under another schedule?",
        full=runs(["vgg_bn"], ["adams", "adamw", "adam", "sgd", "sgds"], seeds=SEEDS, schedule="warm_restarts",
                  t_0=EPOCHS / 15),
        quick=small(["mlp"], ["adams", "adamw", "adam", "sgd", "sgds"], schedule="warm_restarts", epochs=3),
        tables=[(*ERROR, ["model"], "optimizer"), (*NORM, ["model"], "optimizer")], reference="adams"),
    "h": dict(
        title="A language model", paper="Figure 13",
        question="Is L2 better than decoupled and scheduled decay for an LSTM, as the paper finds?",
        full=runs(["lstm"], ["adam", "adamw", "adams"], (0, 1e-5, 1e-4, 3e-4), SEEDS, (4,), **TEXT),
        quick=runs(["lstm"], ["adam", "adamw", "adams"], (1e-5,), lrs=(4,), **(TEXT | dict(images=20_000, epochs=1))),
        tables=[("perplexity of the test text", "perplexity", ["model", "optimizer"], "strength")]),
    "i": dict(
        title="Long training", paper="Figure 17",
        question="Does the order hold when training goes on three times as long?",
        full=runs(["vgg_bn"], SWD, seeds=SEEDS, epochs=LONG_EPOCHS), quick=small(["mlp"], SWD, epochs=4),
        tables=[(*ERROR, ["model"], "optimizer"), ("loss on the probe", "probe_loss", ["model"], "optimizer")],
        reference="adams"),
    "j": dict(
        title="What a step costs", paper="the paper's remark that SWD costs next to nothing",
        question="How long does each optimizer's step take on the same network, and what share of training is it?",
        full=command("time"), quick=command("time"), tables=[]),
}


def refuse(message):
    print(f"study: {message}", file=sys.stderr)
    sys.exit(2)  # as argparse


def planned(only, size):
    """Of each experiment, its runs, each once."""
    letters = only.split(",") if only else EXPERIMENTS
    for letter in letters:
        if letter not in EXPERIMENTS:
            refuse(f"no experiment {letter!r}; there are {', '.join(EXPERIMENTS)}")
    return {letter: list({key(r): r for r in EXPERIMENTS[letter][size]}.values()) for letter in letters}


def unique(plan):
    return list({key(r): r for rs in plan.values() for r in rs}.values())
