"""The study's experiments, as a table, and the descriptions of their runs."""
import hashlib
import json
import sys


# ---------------------------------------------------------------------------------------------------- sizes
# Small batches: decay is a matter of steps times lr, and a small study has few steps.
IMAGES, EPOCHS, BATCH = 5000, 16, 32
SEEDS = (1, 2, 3)
FEW_SEEDS = (1, 2)            # the quick study's
HEAT = dict(images=3000, epochs=8)
RESTARTS = dict(schedule="warm_restarts", t_0=EPOCHS / 15)
LONG_EPOCHS = 48
FRESH = (2, 3, 4, 5, 6)       # where seed 1 has chosen what is tested
TEXT = dict(images=100_000, batch=16, epochs=20)  # characters, streams of text
WARM = ["adams", "adamw", "adam", "sgd", "sgds"]
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
# A pilot run chose each of these: AdamS's λ for which λ/√v̄, over the run, is on average AdamW's weight_decay, and the strength that
# this has. By (model, lr, batch); `report.py` tabulates what was reached.
MATCHED = {("vgg_bn", 1e-3, 32): {1e-2: 5e-4}, ("vgg", 1e-3, 32): {1.5e-2: 5e-4}, ("mlp", 1e-3, 32): {4.8e-3: 5e-4},
           ("lstm", 4e-3, 16): {6.2e-5: 1e-4}, ("vgg_bn", 1e-2, 32): {1e-3: 1e-4, 6e-3: 5e-4},
           ("vgg_bn", 1e-2, 16): {1.4e-3: 1e-4}, ("vgg_bn", 1e-2, 128): {1.7e-3: 1e-4}}
# At lr 0.01 (experiment k), each optimizer's strength with the lowest error of seed 1.
BEST = {"adams": 1e-3, "adamw": 1e-4, "adam": 0}
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


def matches_of(run):
    return MATCHED.get(tuple(run.get(k) for k in ("model", "lr", "batch")), {}) if run.get("optimizer") == "adams" else {}


def is_matched(run):
    """Whether this is AdamS with a decay as strong as AdamW's on average."""
    return run.get("weight_decay") in matches_of(run)


def entrant(run):
    """The optimizer, where AdamS at matched strength is one of its own."""
    return "adams matched" if is_matched(run) else run["optimizer"]


def setting(run):
    """The strength at which a run is compared: of AdamS at matched strength AdamW's."""
    return matches_of(run).get(run["weight_decay"]) or strength(run)


def matched(models, seeds=(1,), lrs=None, s=USUAL, **changes):
    """AdamS at the strength that matches AdamW's s."""
    out = []
    for seed in seeds:
        for model in models:
            here = MATCHED[model, six(ADAPTIVE_LR * (lrs or (1,))[0]), changes.get("batch", BATCH)]
            out += runs([model], ["adams"], [x for x, of in here.items() if of == s], (seed,), lrs, **changes)
    return out


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


COMMANDS = ("theorem", "bound", "time")  # of the worker, which train no network of the tables


def command(name):
    assert name in COMMANDS, name
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
WEIGHTS = ("weight norm, last epoch", "weight_norm")
SHARPNESS = ("top eigenvalue of the Hessian", "sharpness")
SCALED_SHARPNESS = ("top eigenvalue times the square of the weight norm", "scaled_sharpness")
PROBE = ("loss on the probe", "probe_loss")
EFFECTIVE = ("effective decay: AdamW's weight_decay, AdamS's mean of λ/√v̄ over the run", "effective_decay")
WEIGHTED = ("effective decay, the mean over the run weighted by lr", "weighted_decay")
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
                (*SCALED_NORM, ["model", "strength"], "optimizer")],
        pairs=[("test_error", "sgd_decoupled"), ("grad_norm", "sgd_decoupled")]),
    "b": dict(
        title="Gradient norms over weight decays", paper="Figures 2 and 3",
        question="Does stronger weight decay end in larger gradients, with and without BatchNorm, and whether or not "
                 "the L2 term counts?",
        full=runs(["vgg_bn"], L2S, DECAYS) + runs(["vgg"], L2S, FEW_DECAYS) +
        runs(["vgg_bn", "vgg"], L2S, seeds=SEEDS) + runs(["vgg"], ["sgd", "adam"], (0,), SEEDS) +
        runs(["vgg_bn"], ["sgd"], (0, 1e-2), SEEDS),
        quick=small(["vgg_bn", "mlp"], L2S, (0, USUAL)),
        tables=[(*NORM, ["model", "optimizer"], "strength"),
                ("gradient norm with the L2 term, last epoch", "grad_norm_l2", ["model", "optimizer"], "strength"),
                ("norm of the probe's gradient, last epoch", "probe_grad_norm", ["model", "optimizer"], "strength"),
                (*SCALED_NORM, ["model", "optimizer"], "strength"), (*WEIGHTS, ["model", "optimizer"], "strength"),
                ("largest ratio of an epoch's gradient norm to the mean of its neighbours'", "spike",
                 ["model", "optimizer"], "strength"),
                (*ERROR, ["model", "optimizer"], "strength")]),
    "c": dict(
        title="What SWD does", paper="Figures 4, 5 and 6",
        question="Does the decay factor settle by negative feedback whatever the initial strength, and are AdamS's "
                 "gradients smaller than AdamW's and Adam's?",
        full=runs(["vgg_bn"], ["adams"], (5e-4, 2e-3, 1e-2, 5e-2)) + runs(["vgg_bn"], SWD, seeds=SEEDS) +
        matched(["vgg_bn"], SEEDS),
        quick=small(["mlp"], ["adams"], (5e-5, 5e-4)) + small(["mlp"], SWD, seeds=FEW_SEEDS) +
        matched(["mlp"], FEW_SEEDS, epochs=2, images=1500),
        tables=[("decay factor, last epoch", "decay_factor", ["model", "optimizer"], "strength"),
                (*EFFECTIVE, ["model", "optimizer"], "strength"), (*WEIGHTED, ["model", "optimizer"], "strength"),
                (*NORM, ["model", "optimizer"], "strength"), (*SCALED_NORM, ["model", "optimizer"], "strength"),
                ("loss on the training batches, last epoch", "train_loss", ["model", "optimizer"], "strength")],
        pairs=[("grad_norm", "adamw"), ("train_loss", "adamw")]),
    "d": dict(
        title="Sharpness", paper="Figures 6 and 8",
        question="Are the minima that AdamS finds flatter than AdamW's, over weight decays, and does stronger decay end "
                 "in sharper ones?",
        full=runs(["vgg_bn"], SWD, DECAYS) + runs(["vgg_bn", "vgg"], SWD, seeds=SEEDS) + matched(["vgg_bn", "vgg"], SEEDS),
        quick=small(["mlp"], SWD, (0, USUAL)) + matched(["mlp"], epochs=2, images=1500),
        tables=[(*SHARPNESS, ["model", "optimizer"], "strength"),
                (*SCALED_SHARPNESS, ["model", "optimizer"], "strength"), (*ERROR, ["model", "optimizer"], "strength")],
        pairs=[("sharpness", "adamw")]),
    "e": dict(
        title="Ten optimizers", paper="Tables 1 and 2, Figures 9, 14 and 15",
        question="How do the optimizers rank by test error, and is AdamS the best of the adaptive ones?",
        full=runs(["vgg_bn", "mlp", "vgg"], OPTIMIZERS, seeds=SEEDS) + matched(["vgg_bn", "mlp", "vgg"], SEEDS) +
        runs(["mlp"], OPTIMIZERS, (1e-4,), SEEDS) + runs(["vgg_bn"], ("sgd", "sgds", *SWD), (1e-4,), SEEDS),
        quick=small(["mlp"], OPTIMIZERS, seeds=SEEDS) + matched(["mlp"], SEEDS, epochs=2, images=1500),
        tables=[(*ERROR, ["model", "setting"], "entrant"), (*PROBE, ["model", "setting"], "entrant"),
                (*EFFECTIVE, ["model", "setting"], "entrant"), (*WEIGHTED, ["model", "setting"], "entrant")],
        pairs=[("test_error", "adams"), ("test_error", "adams matched")]),
    "f": dict(
        title="Learning rate and weight decay together", paper="Figures 10, 11 and 16",
        question="Over how much of the plane of learning rate and weight decay is each optimizer good, and whose best "
                 "point is best?",
        full=runs(["vgg_bn"], SWD, (1e-4, 5e-4, 2e-3, 1e-2), lrs=(0.3, 1, 3, 10), **HEAT) +
        runs(["vgg_bn"], ["adams"], (5e-2, 2e-1), lrs=(0.3, 1, 3, 10), **HEAT) +
        runs(["vgg_bn"], SWD, (1e-4, 5e-4, 2e-3, 1e-2), lrs=(30,), **HEAT),
        quick=small(["mlp"], SWD, (5e-4, 5e-3), lrs=(0.3, 1)),
        tables=[(*ERROR, ["optimizer", "lr"], "strength"), (*EFFECTIVE, ["optimizer", "lr"], "strength")]),
    "g": dict(
        title="Cosine annealing with warm restarts", paper="Figures 12 and 20",
        question="Does the order of the optimizers hold under another schedule?",
        full=runs(["vgg_bn"], WARM, seeds=SEEDS, **RESTARTS) + matched(["vgg_bn"], SEEDS, **RESTARTS),
        quick=small(["mlp"], WARM, schedule="warm_restarts", epochs=3),
        tables=[(*ERROR, ["model"], "entrant"), (*NORM, ["model"], "entrant"), (*PROBE, ["model"], "entrant"),
                (*EFFECTIVE, ["model"], "entrant")],
        pairs=[("test_error", "adams"), ("test_error", "adams matched"), ("probe_loss", "adams matched")]),
    "h": dict(
        title="A language model", paper="Figure 13",
        question="Is L2 better than decoupled and scheduled decay for an LSTM, as the paper finds?",
        full=runs(["lstm"], ["adam", "adamw", "adams"], (0, 1e-5, 1e-4, 3e-4), SEEDS, (4,), **TEXT) +
        matched(["lstm"], SEEDS, (4,), 1e-4, **TEXT),
        quick=runs(["lstm"], ["adam", "adamw", "adams"], (1e-5,), lrs=(4,), **(TEXT | dict(images=20_000, epochs=1))),
        tables=[("perplexity of the test text", "perplexity", ["model", "optimizer"], "strength"),
                (*EFFECTIVE, ["model", "optimizer"], "strength")],
        pairs=[("perplexity", "adamw")]),
    "i": dict(
        title="Long training", paper="Figure 17",
        question="Does the order hold when training goes on three times as long, and how large are gradients and "
                 "curvature then?",
        full=runs(["vgg_bn"], SWD, seeds=SEEDS, epochs=LONG_EPOCHS) + matched(["vgg_bn"], SEEDS, epochs=LONG_EPOCHS),
        quick=small(["mlp"], SWD, epochs=4),
        tables=[(*ERROR, ["model"], "entrant"), (*PROBE, ["model"], "entrant"), (*NORM, ["model"], "entrant"),
                (*SCALED_NORM, ["model"], "entrant"), (*SHARPNESS, ["model"], "entrant"),
                (*SCALED_SHARPNESS, ["model"], "entrant"), (*WEIGHTS, ["model"], "entrant"),
                (*EFFECTIVE, ["model"], "entrant"), (*WEIGHTED, ["model"], "entrant")],
        pairs=[(field, reference) for reference in ("adams", "adamw")
               for field in ("test_error", "grad_norm", "sharpness")]),
    "j": dict(
        title="What a step costs", paper="the paper's remark that AdamS is slightly slower than AdamW and slightly "
                                         "faster than Adam",
        question="How long does each optimizer's step take on the same network, and what share of training is it?",
        full=command("time"), quick=command("time"), tables=[]),
    "k": dict(
        title="A learning rate that trains well, and each optimizer's best decay",
        paper="Figures 2, 4, 6, 8 and 10 at strong decay, Table 1 with tuning",
        question="At lr 0.01, where decay takes ten times as much of the weights as at 0.001: what do decay's strength "
                 "and AdamS's schedule do to gradients, sharpness and error, and does AdamS win at matched strength or "
                 "with each optimizer at its best decay? Seed 1 chooses, the other seeds test.",
        full=runs(["vgg_bn"], ["adamw"], (5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3), lrs=(10,)) +
        runs(["vgg_bn"], ["adams"], (5e-4, 1e-3, 2e-3, 6e-3, 1.2e-2), lrs=(10,)) +
        runs(["vgg_bn"], ["adam"], (0, 5e-4, 2e-3), lrs=(10,)) +
        [r for seed in FRESH for r in runs(["vgg_bn"], ["adam"], (0,), (seed,), (10,)) +
         runs(["vgg_bn"], ["adamw"], (1e-4, 5e-4), (seed,), (10,)) +
         runs(["vgg_bn"], ["adams"], (5e-4, 1e-3, 6e-3), (seed,), (10,)) +
         [r for o in SWD for r in runs(["vgg_bn"], [o], (BEST[o],), (seed,), (10,))]],
        quick=small(["mlp"], SWD, (0, USUAL), FEW_SEEDS, (10,)),
        tables=[(*t, ["model", "optimizer"], "strength")
                for t in (ERROR, PROBE, NORM, SCALED_NORM, SHARPNESS, SCALED_SHARPNESS, WEIGHTS, EFFECTIVE, WEIGHTED)],
        pairs=[]),
    "l": dict(
        title="Batch sizes", paper="Appendix B.1",
        question="Does AdamS's standing depend on the batch size?",
        full=[r for b in (16, 128) for r in
              runs(["vgg_bn"], ["adamw"], (1e-4,), SEEDS, (10,), **(HEAT | dict(batch=b))) +
              runs(["vgg_bn"], ["adams"], seeds=SEEDS, lrs=(10,), **(HEAT | dict(batch=b))) +
              matched(["vgg_bn"], SEEDS, (10,), 1e-4, **(HEAT | dict(batch=b)))],
        quick=small(["mlp"], ["adamw", "adams"], lrs=(10,), batch=16),
        tables=[(*ERROR, ["model", "batch"], "entrant"), (*NORM, ["model", "batch"], "entrant"),
                (*EFFECTIVE, ["model", "batch"], "entrant"), (*WEIGHTED, ["model", "batch"], "entrant")]),
    "m": dict(
        title="Theorem 2, and gradients over the length of training", paper="Theorem 2 and the appendix's table",
        question="Does the bound on the least squared gradient norm hold, and do the gradients grow with λ and shrink "
                 "with the epochs as it does?",
        full=[r for n in (50, 100, 200, 1000, 2000) for r in runs(["mlp"], ["sgd"], seeds=SEEDS, epochs=n, images=1000) +
              runs(["mlp"], ["sgd"], (0, 5e-3), epochs=n, images=1000)] + command("bound"),
        quick=small(["mlp"], ["sgd"], (0, USUAL)) + command("bound"),
        tables=[("squared norm of the probe's gradient, last epoch", "probe_square", ["model", "strength"], "epochs"),
                (*NORM, ["model", "strength"], "epochs"), (*ERROR, ["model", "strength"], "epochs"),
                (*WEIGHTS, ["model", "strength"], "epochs")]),
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
