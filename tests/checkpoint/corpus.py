"""The corpus's files, by the package safetensors and by the converter: corpus.py PROGRAM FOLDER

PROGRAM is corpus.cpp's, which writes the files and the verdicts into FOLDER. Then each file is given to safetensors, whose
verdict must be the one that the corpus states, and to tools/torch_checkpoint.py, which must agree with gradus::load, raise
nothing but ValueError, and take a small multiple of a header's length in memory.
"""

import os
import pathlib
import subprocess
import sys
import tracemalloc
import warnings

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
try:
    import safetensors
    import torch
    import torch_checkpoint
except ImportError as error:
    print(f"{error}: the corpus is compared with neither safetensors nor the converter here (packages safetensors, torch)")
    sys.exit(77)  # skipped


def verdicts(folder):
    for line in (folder / "verdicts.tsv").read_text().splitlines():
        name, theirs, ours = line.split("\t")
        yield name, folder / f"{name}.safetensors", theirs, ours


def safetensors_verdict(path):
    try:
        safetensors.deserialize(path.read_bytes())
        return "accepted"
    except safetensors.SafetensorError:
        return "refused"


def reader_verdict(path):
    try:
        torch_checkpoint.Reader(path, set(), set())
        return "accepted", ""
    except ValueError as error:
        assert str(error).startswith(f"{path}: "), error
        return "refused", str(error)


def convert(path):
    """The sentence with which the converter refuses a file; None if it takes it."""
    a = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = torch.optim.SGD([a], lr=0.5, momentum=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch_checkpoint.load(optimizer, {"a": a}, path)
        except ValueError as error:
            assert a.tolist() == [1.0, 2.0]
            return str(error)
    return None


def check_verdicts(folder):
    differ, wrong = [], []
    for name, path, theirs, ours in verdicts(folder):
        if (found := safetensors_verdict(path)) != theirs:
            wrong.append(f"{name}: safetensors {safetensors.__version__} says {found}; expected {theirs}")
        reader, sentence = reader_verdict(path)
        if reader != ours:
            wrong.append(f"{name}: the converter says {reader} ({sentence}); expected {ours}, as gradus::load")
        said = convert(path)
        if ours == "refused" and said is None:
            wrong.append(f"{name}: the converter takes it")
        if theirs != ours:
            differ.append(f"  {name}: {ours} by gradus, {theirs} by safetensors")
    print("Differences from safetensors, all deliberate:", *differ, sep="\n")
    assert not wrong, "\n".join(wrong)
    expected = {
        "checkpoint": None, "checkpoint_with_own_strings": None, "checkpoint_frozen": None,
        "checkpoint_of_another_format": "gradus/format is \"2\"; expected 1",
        "checkpoint_of_another_recipe": "\"adam\" in \"1\" groups; expected sgd in 1",
        "checkpoint_with_lr_nan": "gradus/group/0/lr is \"nan\"; expected a number",
        "checkpoint_with_lr_of_text": "gradus/group/0/lr is \"fast\"; expected a number",
        "checkpoint_with_all_steps": "state/a/step is 1.84467e+19, of torch.uint64; expected a whole number below 2^53",
        "checkpoint_with_two_steps": "state/a/step is missing, or is not one number",
        "checkpoint_with_a_foreign_tensor": "state/a/momentum_buffer is of \"C64\"; expected a type that gradus has",
        "checkpoint_with_a_buffer_in_half": "state/a/momentum_buffer has 4 elements; expected 2",
        "checkpoint_with_a_buffer_of_bytes": "expected a scale for each 256 of them",
        "checkpoint_of_another_group": "a is in group \"-1\"; expected 0",
    }
    for name, part in expected.items():
        said = convert(folder / f"{name}.safetensors")
        assert (said is None) if part is None else (said is not None and part in said), (name, said, part)


def file_of(header, data=b""):
    return len(header).to_bytes(8, "little") + header + data


def names():
    letters = [chr(c) for c in range(33, 127) if chr(c) not in '"\\']
    return (a + b + c + d for a in letters for b in letters for c in letters for d in letters)


def check_memory(folder, size=300_000):
    """Headers as in checkpoint/memory."""

    def many(entry):
        found, length = [], 0
        for i, name in enumerate(names()):
            found.append(entry(name, i))
            length += len(found[-1]) + 1
            if length > size:
                return ",".join(found).encode(), len(found)

    pairs, _ = many(lambda name, i: f'"{name}":""')
    ours, _ = many(lambda name, i: f'"gradus/{name}":""')
    empty, _ = many(lambda name, i: f'"{name}":{{"dtype":"","shape":[],"data_offsets":[0,0]}}')
    full, count = many(lambda name, i: f'"{name}":{{"dtype":"U8","shape":[],"data_offsets":[{i},{i + 1}]}}')
    scalar = b'":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}'
    files = {"pairs of metadata": file_of(b'{"__metadata__":{' + pairs + b"}}"), "pairs like gradus's": file_of(b'{"__metadata__":{' + ours + b"}}"),
             "empty tensors": file_of(b"{" + empty + b"}"), "tensors of one byte": file_of(b"{" + full + b"}", bytes(count)),
             "dimensions": file_of(b'{"a":{"dtype":"U8","data_offsets":[0,1],"shape":[1' + b",1" * (size // 2) + b"]}}", b"x"),
             "digits": file_of(b'{"a":{"dtype":"U8","data_offsets":[0,1],"shape":[' + b"1" * size + b"]}}", b"x"),
             "depth": file_of(b'{"a":' + b"[" * size), "objects": file_of(b'{"a":' * (size // 5)), "spaces": file_of(b"{" + b" " * size + b"}")}
    for part in (b"x", b"\x7f", b"\\n", b"\\u0001", b"\\ud83e\\udde0", "é".encode(), "🧠".encode(), b"x\xf0\x9f\xa7\xa0"):
        text = part * (size // len(part))
        files[f"a name of {part}"] = file_of(b'{"' + text + scalar, b"x")
        files[f"a string of {part}"] = file_of(b'{"__metadata__":{"a":"' + text + b'"}}')
        files[f"a recipe of {part}"] = file_of(b'{"__metadata__":{"gradus/format":"1","gradus/recipe":"' + text + b'"}}')
        files[f"a type of {part}"] = file_of(b'{"a":{"dtype":"' + text + b'","shape":[],"data_offsets":[0,1]}}', b"x")
    most = 0, ""
    path = folder / "hostile.safetensors"
    convert(folder / "checkpoint.safetensors")  # what is made once
    for name, content in files.items():
        path.write_bytes(content)
        tracemalloc.start()
        convert(path)
        most = max(most, (tracemalloc.get_traced_memory()[1] / len(content), name))
        tracemalloc.stop()
    path.unlink()
    # tracemalloc does not see PyTorch's own: 32 bytes a tensor, whose entry has at least 50.
    print(f"the converter: at most {most[0]:.2f} times the file ({most[1]})")
    assert most[0] < 4, most


def main():
    program, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    subprocess.run([program], check=True, stdout=subprocess.DEVNULL, env={**os.environ, "GRADUS_TEST_CORPUS": str(folder)})
    check_verdicts(folder)
    check_memory(folder)


main()
