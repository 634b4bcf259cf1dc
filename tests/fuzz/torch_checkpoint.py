"""Any bytes, as a checkpoint for tools/torch_checkpoint.py: torch_checkpoint.py FOLDER [OPTIONS of libFuzzer]

The converter must take it or raise ValueError, and then have left the weights alone. FOLDER has the first files, such as those
that checkpoint/corpus writes. Needs the packages atheris, torch and safetensors.
"""

import pathlib
import sys
import tempfile
import warnings

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
try:
    import atheris
    import safetensors
    import torch
except ImportError as error:
    print(f"{error}: the converter is not fuzzed here (packages atheris, torch, safetensors)")
    sys.exit(0)
with atheris.instrument_imports(include=["torch_checkpoint"]):
    import torch_checkpoint

torch.set_num_threads(1)
warnings.simplefilter("ignore")
file = tempfile.NamedTemporaryFile(suffix=".safetensors")
KINDS = (lambda a: torch.optim.SGD([a], lr=0.5, momentum=0.5), lambda a: torch.optim.NAdam([a], lr=0.5),
         lambda a: torch.optim.RMSprop([a], lr=0.5, centered=True))


def run(data):
    file.seek(0)
    file.truncate()
    file.write(data)
    file.flush()
    for kind in KINDS:
        a = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        try:
            torch_checkpoint.load(kind(a), {"a": a}, file.name)
        except ValueError:
            if a.tolist() != [1.0, 2.0]:
                raise RuntimeError("a refused file has changed the weights") from None


run(b"")  # PyTorch imports more for its first optimizer, which takes longer than a run may
atheris.Setup(sys.argv, run)
atheris.Fuzz()
