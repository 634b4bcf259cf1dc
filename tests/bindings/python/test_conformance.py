"""The conformance suite on gradus and on the libraries that are installed (tools/conformance/libraries.py)."""

from __future__ import annotations

import subprocess
import sys

from support import ROOT

# The first line's optimizer, and words of the others.
EXPECTED = {
    "gradus adam": ("Adam", "beside the bias-corrected", "L2, added"),
    "gradus adamw": ("AdamW", "beside the bias-corrected", "weight before the step"),
    "gradus amsgrad": ("AMSGrad", "before bias correction", "L2, added"),
    "gradus sgd": ("SGD", "the step is lr*b", "L2, added"),
    "torch.optim.Adam": ("Adam", "beside the bias-corrected", "L2, added"),
    "torch.optim.AdamW": ("AdamW", "beside the bias-corrected", "weight before the step"),
    "torch.optim.AdamW, amsgrad": ("AMSGradW", "before bias correction", "weight before the step"),
    "torch.optim.SGD": ("SGD", "the step is lr*b", "Nesterov: no", "L2, added"),
    "torch.optim.RMSprop": ("RMSprop", "beside the root", "L2, added"),
    "optax.adam": ("Adam", "beside the bias-corrected"),
    "optax.adam, eps_root": ("Adam", "inside the bias-corrected"),
    "optax.adamw": ("AdamW", "beside the bias-corrected", "weight before the step"),
    "optax.amsgrad": ("AMSGrad", "of the bias-corrected v"),
    "optax.sgd": ("SGD", "the step is lr*b"),
    "optax.rmsprop": ("RMSprop", "inside the root"),
    "keras Adam": ("AdamW", "beside the uncorrected", "weight before the step"),
    "keras AdamW": ("AdamW", "beside the uncorrected", "weight before the step"),
    "keras Adam, amsgrad": ("AMSGradW", "beside the uncorrected", "weight before the step"),
    "keras SGD": ("SGD", "the learning rate is inside", "weight before the step"),
    "keras SGD, nesterov": ("SGD", "the learning rate is inside", "yes, g + mu*b"),
    "keras RMSprop": ("RMSprop", "inside the root", "weight before the step"),
    "ggml_opt_step_adamw": ("AdamW", "beside the bias-corrected", "weight before the step"),
    "ggml_opt_step_sgd": ("SGD", "cannot be told apart: weight decay: or decoupled"),
}


def test_libraries() -> None:
    # In a process of its own, because JAX and Keras are told there to compute in double.
    program = ROOT / "tools" / "conformance" / "libraries.py"
    output = subprocess.run([sys.executable, "-B", program], check=True, capture_output=True, text=True).stdout
    seen = set()
    for part in output.split("== ")[1:]:
        name, _, text = part.partition("\n")
        if text.strip() == "not installed":
            print(f"{name} is not installed: its optimizers are left out")
            continue
        headline, *words = EXPECTED[name]
        assert text.startswith(f"Follows {headline} over all 60 steps"), part
        assert all(word in text for word in words), part
        assert "! " not in text, part
        seen.add(name)
    assert {"gradus adam", "gradus adamw", "gradus amsgrad", "gradus sgd"} <= seen
