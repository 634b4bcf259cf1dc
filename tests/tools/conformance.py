#!/usr/bin/env python3
"""The conformance suite in Python: conformance.py ROOT PROGRAM

Loops with one mistake each, which it must name; and the recorded trajectories of tests/golden, on which it must say what is known
of them, and the same as PROGRAM, tools/conformance/main.cpp.
"""

import math
import pathlib
import subprocess
import sys
import tempfile

root, program = pathlib.Path(sys.argv[1]), sys.argv[2]
sys.path.insert(0, str(root / "tools" / "conformance"))
import conformance  # noqa: E402

failures = 0


def check(condition, what, text):
    global failures
    if not condition:
        failures += 1
        print(f"FAILED: {what}\n{text}")


def adam(s, wrong):
    """Adam as people write it, with a mistake that `wrong` names."""
    m, v, x, count = {}, {}, {}, 0

    def step(tensors, t, lr):
        nonlocal count
        for k, tensor in enumerate(tensors):
            count += 1
            n = count if wrong == "t once a tensor" else 1 if wrong == "t stays 1" else t
            lam = s.weight_decay if wrong == "groups ignored" else tensor.weight_decay
            rate = s.lr if wrong == "lr drops ignored" else lr
            b1, b2 = (s.beta2, s.beta1) if wrong == "betas swapped" else (s.beta1, s.beta2)
            c1, c2 = (1, 1) if wrong == "no bias correction" else (1 - b1**n, 1 - b2**n)
            for i in range(len(tensor.parameters)):
                key = i if wrong == "shared state" else (k, i)
                theta, g = float(tensor.parameters[i]), float(tensor.gradients[i])
                g += {"L2": lam * theta, "L2 twice": 2 * lam * theta}.get(wrong, 0)
                m[key] = b1 * m.get(key, 0) + (1 - b1) * g
                v[key] = b2 * v.get(key, 0) + (1 - b2) * g * g
                x[key] = max(x.get(key, 0), v[key])
                value = x[key] if wrong == "AMSGrad" else v[key]
                divisor = {"eps inside the root": math.sqrt(value / c2 + s.eps),
                           "epsilon hat": (math.sqrt(value) + s.eps) / math.sqrt(c2)}.get(wrong, math.sqrt(value / c2) + s.eps)
                u = rate * m[key] / c1 / divisor
                decays = wrong not in ("L2", "L2 twice", "no decay")
                tensor.parameters[i] = theta - u - (lam if wrong == "decay without lr" else rate * lam) * theta * decays

    return step


def check_mutants():
    s = conformance.Settings()
    mutants = {
        "nothing": (0, {}), "L2": (0, {"decay": "l2"}), "AMSGrad": (0, {"second": "maximum"}),
        "epsilon hat": (0, {"eps_place": "beside_uncorrected"}),
        "eps inside the root": (0, {"eps_place": "inside_corrected"}),
        "no bias correction": (0, {"correction": "none"}), "decay without lr": (0, {"decay": "without_lr"}),
        "t once a tensor": (1, {"correction": "once_a_tensor"}), "t stays 1": (1, {"correction": "stuck"}),
        "no decay": (1, {"decay": "no_decay"}), "L2 twice": (1, {"decay": "twice"}),
        "groups ignored": (1, {"groups": "ignored"}), "lr drops ignored": (1, {"rate": "ignored"}),
        "shared state": (1, {"state": "shared"}), "betas swapped": (1, {"betas": "swapped"}),
    }
    plain = dict({axis: choices[0][0] for axis, (_, _, choices) in conformance.AXES.items()}, decay="decoupled")
    for wrong, (mistakes, choices) in mutants.items():
        for single in (False, True):
            v = conformance.examine(s, adam(s, wrong), single)
            check(v.follows and v.best == dict(plain, **choices) and v.mistakes == mistakes, wrong, v.text)
            check(v.single == single, f"{wrong}: precision", v.text)
    check(not conformance.examine(s, lambda tensors, t, lr: None).follows, "a step that does nothing", "")


def check_what_steps_do():
    """Steps that leave the parameters in another way than as numbers in their place."""
    s = conformance.Settings()

    def text_after(change, settings=s):
        """The verdict on Adam, followed by change(tensors, t)."""
        inner = adam(settings, "nothing")

        def step(tensors, t, lr):
            inner(tensors, t, lr)
            change(tensors, t)

        return conformance.examine(settings, step).text

    def rebind(tensors, t):
        for x in tensors:
            x.parameters = [float(w) for w in x.parameters]

    def infinite(tensors, t):
        if t == 30:
            tensors[2].parameters[1] = math.inf

    def longer(tensors, t):
        tensors[1].parameters = list(tensors[1].parameters) + [1.0]

    def exchanged(tensors, t):
        tensors[0].parameters, tensors[1].parameters = tensors[1].parameters, tensors[0].parameters

    for change, expected in ((rebind, "Follows AdamW over all 60 steps, to rounding of double."),
                             (infinite, "The parameters are not finite after step 30.\n"),
                             (longer, "Step 1 was observed with 20 parameters; expected steps 1 to 60 and 19 parameters.\n"),
                             (exchanged, "Follows no convention that the suite knows.")):
        text = text_after(change)
        check(text.startswith(expected), change.__name__, text)

    def rest(tensors, t, lr, whole=adam(s, "nothing")):
        before = [list(x.parameters) for x in tensors]
        whole(tensors, t, lr)
        for x, old in zip(tensors, before):
            for i in range(len(old) // 4 * 4, len(old)):
                x.parameters[i] = old[i]

    text = conformance.examine(s, rest).text
    check("The nearest is AdamW, from which it parts at step 1, in tensor 0, element 4: " in text, "a rest is left out", text)
    text = text_after(lambda tensors, t: None, conformance.Settings(eps=0))
    check("  eps: not tested, because eps is 0\n" in text and "eps: beside" not in text, "eps is 0", text)


def check_refusals():
    """Settings and problems that no optimizer can have."""
    def never(tensors, t, lr):
        raise AssertionError("the step is called")

    for name, value, expected in (("lr", 0, "a finite number above 0"), ("lr", math.inf, "a finite number above 0"),
                                  ("beta1", 1, "a number in [0, 1)"), ("beta2", -0.5, "a number in [0, 1)"),
                                  ("momentum", 1, "a number in [0, 1)"), ("eps", -1e-8, "a finite number of at least 0"),
                                  ("weight_decay", math.nan, "a finite number of at least 0"),
                                  ("initial_accumulator", -1, "a finite number of at least 0"),
                                  ("dampening", math.nan, "a finite number")):
        text = conformance.examine(conformance.Settings(**{name: value}), never).text
        check(text == f"The setting {name} is {value:.9g}; expected {expected}.\n", name, text)
    for problem in ({"sizes": ()}, {"sizes": (0, 0)}, {"scales": (1,)}, {"undecayed": 5}, {"steps": 0}):
        s, p = conformance.Settings(), conformance.Problem(**problem)
        text = conformance.judge(s, conformance.observe(s, p, never)).text
        check(text.startswith("The problem has"), problem, text)


def check_files():
    """A file as people write it: decimal numbers, empty lines, and nothing said that has a default."""
    s = conformance.Settings(weight_decay=0)
    p = conformance.Problem(undecayed=1)
    seen = conformance.observe(s, p, adam(s, "epsilon hat"))
    lines = ["problem sizes 6,5,4,4 steps 60", "", f"case mine lr={s.lr} beta1={s.beta1} beta2={s.beta2}"]
    lines += [f"at {t} " + " ".join(map(repr, parameters)) for t, parameters in seen.at.items()]
    script = root / "tools" / "conformance" / "conformance.py"
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "mine.txt"
        for text, expected in (("\n".join(lines), "== mine\nFollows Adam over all 60 steps, to rounding of double.\n"),
                               ("\n\ncase\n\n", "== \nNo step was observed.\n"), ("", ""), (None, "")):
            path.unlink() if text is None else path.write_text(text, encoding="utf-8")
            for command in ([program], [sys.executable, "-B", str(script)]):
                done = subprocess.run([*command, str(path)], capture_output=True, text=True, encoding="utf-8")
                check(done.stdout.startswith(expected) and done.stdout.count("== ") == (expected != ""), f"file: {text}", done.stdout)
                check((done.returncode != 0 and done.stderr.startswith("conformance: ") if not expected else done.returncode == 0),
                      f"file: {text}: status", done.stderr)


# What the first line says of a case, and words of the others. Of the cases that are not here, the suite knows no formula.
KNOWN = {
    "sgd": ("SGD", "the step is lr*b", "L2, added"), "sgd_nesterov": ("SGD", "yes, g + mu*b"),
    "sgd_dampening": ("SGD", "(1-dampening)*g"), "sgds": ("SGD", "stable weight decay"),
    "adam": ("Adam", "beside the bias-corrected", "L2, added"),
    "adamw": ("AdamW", "beside the bias-corrected", "weight before the step"),
    "amsgrad": ("AMSGrad", "before bias correction", "L2, added"), "rmsprop": ("RMSprop", "beside the root", "momentum: none"),
    "torch/adam": ("Adam", "beside the bias-corrected", "L2, added"),
    "torch/adamw": ("AdamW", "beside the bias-corrected", "weight before the step"),
    "torch/adam_amsgrad": ("AMSGrad", "before bias correction", "L2, added"),
    "torch/adamw_amsgrad": ("AMSGradW", "before bias correction", "weight before the step"),
    "torch/sgd": ("SGD", "the step is lr*b", "yes, g + mu*b", "L2, added"),
    "torch/rmsprop": ("RMSprop", "beside the root", "the step is lr*b", "L2, added"),
    "optax/adam": ("Adam", "beside the bias-corrected"), "optax/adam:eps_root": ("Adam", "inside the bias-corrected"),
    "optax/adamw": ("AdamW", "beside the bias-corrected", "weight before the step"),
    "optax/amsgrad": ("AMSGrad", "of the bias-corrected v"), "optax/sgd": ("SGD", "the step is lr*b", "yes, g + mu*b"),
    "optax/rmsprop": ("RMSprop", "inside the root", "momentum: none"), "optax/adagrad": ("Adagrad", "inside the root"),
    "tensorflow/adam": ("Adam", "beside the uncorrected"),
    "tensorflow/adamw": ("AdamW", "beside the uncorrected", "weight before the step"),
    "tensorflow/amsgrad": ("AMSGradW", "before bias correction", "beside the uncorrected", "weight before the step"),
    "tensorflow/sgd": ("SGD", "the learning rate is inside", "Nesterov: no", "weight before the step"),
    "tensorflow/sgd:nesterov": ("SGD", "the learning rate is inside", "yes, g + mu*b", "weight before the step"),
    "tensorflow/rmsprop": ("RMSprop", "inside the root", "momentum: none", "weight before the step"),
    "tensorflow/adagrad": ("Adagrad", "inside the root", "weight before the step"),
    "ggml/adamw": ("AdamW", "beside the bias-corrected", "weight before the step"), "ggml/sgd": ("SGD",),
    "dlib/adam": ("Adam", "beside the uncorrected", "L2, added"), "dlib/sgd": ("SGD", "the learning rate is inside", "L2, added"),
    "ensmallen/adam": ("Adam", "beside the uncorrected"), "ensmallen/amsgrad": ("AMSGrad", "beside the uncorrected"),
    "ensmallen/momentum_sgd": ("SGD", "the learning rate is inside", "Nesterov: no"),
    "ensmallen/momentum_sgd:nesterov": ("SGD", "the learning rate is inside", "yes, g + mu*b"),
    "ensmallen/rmsprop": ("RMSprop", "beside the root"),
    "deepspeed/adam": ("Adam", "beside the bias-corrected", "L2, added"),
    "deepspeed/adam:adamw": ("AdamW", "beside the bias-corrected", "weight before the step"),
    "deepspeed/adam:uncorrected": ("AdamW", "bias correction: none", "weight before the step"),
}
# Where the problem leaves something open: SGD without momentum keeps no state, and its two decays are the same.
UNDECIDED = {"ggml/sgd"}


def check_recordings():
    files = [str(root / "tests" / "golden" / name) for name in ("trajectories.txt", "beyond.txt", "peers.txt")]
    theirs = subprocess.run([program, *files], check=True, capture_output=True, text=True, encoding="utf-8").stdout
    ours, seen = "", set()
    for path in files:
        for name, settings, recording in conformance.recordings(path):
            v = conformance.judge(settings, recording)
            ours += f"== {name}\n{v.text}"
            seen.add(name)
            if name not in KNOWN:
                check(not v.follows, name, v.text)
                continue
            headline, *words = KNOWN[name]
            check(v.text.startswith(f"Follows {headline} over all"), name, v.text)
            check(v.single == recording.single, f"{name}: precision", v.text)
            check(all(word in v.text for word in words), name, v.text)
            check(v.mistakes == 0, f"{name}: mistakes", v.text)
            check(bool(v.undecided) == (name in UNDECIDED), f"{name}: undecided", v.text)
    check(seen >= KNOWN.keys(), "all known cases are recorded", sorted(KNOWN.keys() - seen))
    check(ours == theirs, "C++ and Python say the same", "")


def check_page():
    """The code of the page runs as it stands."""
    page = (root / "docs" / "conformance.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[1].split("```")[0]
    done = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True, encoding="utf-8",
                          cwd=root / "tools" / "conformance")
    check(done.stdout.startswith("Follows SGD over all 60 steps, to rounding of double.\n  momentum: b = mu*b + lr*g"),
          "docs/conformance.md", done.stdout + done.stderr)


check_mutants()
check_what_steps_do()
check_refusals()
check_files()
check_recordings()
check_page()
print("conformance.py:", "FAILED" if failures else "all as expected")
sys.exit(failures > 0)
