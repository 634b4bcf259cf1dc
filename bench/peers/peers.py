#!/usr/bin/env python3
"""Measures one step of AdamW by gradus and other libraries, interleaved in one process, and writes what Google Benchmark
would write (JSON). Every implementation's result is first compared with gradus's on the same input.

  peers.py LIBRARY OUT.json [--rounds N] [--shapes 65536,1000x64 | --model MODEL.txt] [--threads N] [--seconds S] [--recipes]

LIBRARY is libpeers.so. A model is a text with a tensor a line, its name and its dimensions. PyTorch, DeepSpeed and ggml are
measured if this Python can import them; the file names each missing library with the reason. On one thread processor time is
measured, which other programs do not lengthen; on several, where only those are measured that can use them, wall-clock time.
With --recipes not AdamW is measured but each recipe that PyTorch has too, beside PyTorch's own, fused and foreach.
"""
import argparse
import ctypes
import json
import math
import os
import pathlib
import random
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
LR, BETAS, EPS, DECAY = 1e-3, (0.9, 0.999), 1e-8, 1e-2
# The recipes that PyTorch has: its class, and what is not its default (the recipe's: bench::measured in bench/model.hpp).
TORCH = {"sgd": ("SGD", {"momentum": 0.9}), "adam": ("Adam", {}), "adamw": ("AdamW", {}), "amsgrad": ("Adam", {"amsgrad": True}), "radam": ("RAdam", {}),
         "adagrad": ("Adagrad", {}), "adadelta": ("Adadelta", {}), "adamax": ("Adamax", {}), "rmsprop": ("RMSprop", {"momentum": 0.9}), "nadam": ("NAdam", {})}
TOLERANCE = 2e-6  # of a parameter of magnitude 1 after five steps; float's own spacing there is 1.2e-7
CHECK_STEPS = 5
floats = ctypes.POINTER(ctypes.c_float)
size_t, pointer = ctypes.c_size_t, ctypes.c_void_p


def load(path):
    lib = ctypes.CDLL(str(path))
    for name, result, arguments in (
            ("peers_compiler", ctypes.c_char_p, []), ("peers_flags", ctypes.c_char_p, []), ("peer_name", ctypes.c_char_p, [size_t, ctypes.c_bool]),
            ("peer_open", pointer, [ctypes.c_char_p, ctypes.c_bool, size_t, ctypes.POINTER(size_t), ctypes.c_double]), ("peer_close", None, [pointer]),
            ("peer_run", None, [pointer, size_t]), ("peer_result", floats, [pointer, size_t]),
            ("peer_parameters", floats, [pointer, size_t]), ("peer_gradients", floats, [pointer, size_t]),
            ("recipe_open", pointer, [ctypes.c_char_p, size_t, ctypes.POINTER(size_t)]), ("peers_distance", ctypes.c_double, [floats, floats, size_t])):
        f = getattr(lib, name)
        f.restype, f.argtypes = result, arguments
    return lib


class Native:
    """An implementation in libpeers.so."""

    def __init__(self, lib, name, threads, sizes, decay):
        self.lib, self.handle = lib, lib.peer_open(name.encode(), threads, len(sizes), (size_t * len(sizes))(*sizes), decay)

    def run(self, steps):
        self.lib.peer_run(self.handle, steps)

    def result(self, k):
        return self.lib.peer_result(self.handle, k)

    def close(self):
        self.lib.peer_close(self.handle)


class Recipe(Native):
    """A recipe of gradus's in libpeers.so."""

    def __init__(self, lib, name, sizes):
        self.lib, self.handle = lib, lib.recipe_open(name.encode(), len(sizes), (size_t * len(sizes))(*sizes))


class Model(Native):
    """Parameters and gradients for an implementation without memory of its own: gradus's, before its first step."""

    def __init__(self, lib, sizes):
        super().__init__(lib, "traffic", False, sizes, 0)
        self.sizes = sizes
        self.parameters = [lib.peer_parameters(self.handle, k) for k in range(len(sizes))]
        self.gradients = [lib.peer_gradients(self.handle, k) for k in range(len(sizes))]


def torch_tensors(torch, model):
    def copy(p, size):
        return torch.frombuffer((ctypes.c_float * size).from_address(ctypes.addressof(p.contents)), dtype=torch.float32).clone()
    theta = [torch.nn.Parameter(copy(p, n)) for p, n in zip(model.parameters, model.sizes)]
    for x, g, n in zip(theta, model.gradients, model.sizes):
        x.grad = copy(g, n)
    return theta


class Torch:
    def __init__(self, torch, make, model, decay):
        self.theta = torch_tensors(torch, model)
        self.optimizer = make(self.theta, decay)
        model.close()

    def run(self, steps):
        for _ in range(steps):
            self.optimizer.step()

    def result(self, k):
        return ctypes.cast(self.theta[k].data_ptr(), floats)

    def close(self):
        self.theta = self.optimizer = None


class TorchRaw:
    def __init__(self, raw, model, decay):
        self.raw, self.model = raw, model
        tensors = len(model.sizes)
        array = floats * tensors
        self.handle = raw.torch_raw_open(tensors, (size_t * tensors)(*model.sizes), array(*model.parameters),
                                         array(*model.gradients), decay)

    def run(self, steps):
        self.raw.torch_raw_run(self.handle, steps)

    def result(self, k):
        return self.model.parameters[k]

    def close(self):
        self.raw.torch_raw_close(self.handle)
        self.model.close()


def torch_raw(torch, build):
    """Compiles torch_raw.cpp against the wheel, once."""
    library = build / "libtorch_raw.so"
    root = pathlib.Path(torch.__file__).parent
    source = HERE / "torch_raw.cpp"
    if not library.exists() or library.stat().st_mtime < source.stat().st_mtime:
        print("compiling torch_raw.cpp against PyTorch (about a minute)", flush=True)
        abi = int(torch.compiled_with_cxx11_abi())
        subprocess.run(["g++", "-std=c++20", "-O2", "-shared", "-fPIC", f"-D_GLIBCXX_USE_CXX11_ABI={abi}", f"-I{root}/include", f"-I{root}/backends/simd/include",
                        str(source), "-o", str(library), f"-L{root}/lib", f"-Wl,-rpath,{root}/lib", "-ltorch_cpu", "-lc10"],
                       check=True, capture_output=True, text=True)
    raw = ctypes.CDLL(str(library))
    raw.torch_raw_open.restype = pointer
    raw.torch_raw_open.argtypes = [size_t, ctypes.POINTER(size_t), ctypes.POINTER(floats), ctypes.POINTER(floats), ctypes.c_double]
    raw.torch_raw_run.argtypes, raw.torch_raw_close.argtypes = [pointer, size_t], [pointer]
    return raw


class Ggml:
    """ggml's optimizer step as a graph with one node per tensor, on one thread, through its C interface."""

    def __init__(self, base, cpu, model, decay):
        class Params(ctypes.Structure):
            _fields_ = [("mem_size", size_t), ("mem_buffer", pointer), ("no_alloc", ctypes.c_bool)]
        base.ggml_init.restype, base.ggml_init.argtypes = pointer, [Params]
        for name, arguments in (("ggml_new_tensor_1d", [pointer, ctypes.c_int, ctypes.c_int64]),
                                ("ggml_new_graph_custom", [pointer, size_t, ctypes.c_bool]), ("ggml_get_data_f32", [pointer]),
                                ("ggml_opt_step_adamw", [pointer] * 6)):
            getattr(base, name).restype, getattr(base, name).argtypes = pointer, arguments
        base.ggml_set_param.argtypes, base.ggml_free.argtypes = [pointer], [pointer]
        base.ggml_build_forward_expand.argtypes = [pointer, pointer]
        cpu.ggml_graph_compute_with_ctx.argtypes = [pointer, pointer, ctypes.c_int]
        self.base, self.cpu, self.t, self.decay = base, cpu, 0, decay
        # The context of the parameters stays; each run of steps uses a small context of its own.
        tensors = len(model.sizes)
        self.context = base.ggml_init(Params(16 * sum(model.sizes) + 8192 * tensors + (1 << 20), None, False))

        def floats_of(x):
            return ctypes.cast(base.ggml_get_data_f32(x), floats)

        def tensor(n, source=None):
            x = base.ggml_new_tensor_1d(self.context, 0, n)
            if source:
                ctypes.memmove(floats_of(x), source, 4 * n)
            else:
                ctypes.memset(floats_of(x), 0, 4 * n)
            return x
        self.options = tensor(7)
        self.settings = ctypes.cast(floats_of(self.options), ctypes.POINTER(ctypes.c_float * 7)).contents
        self.graph = base.ggml_new_graph_custom(self.context, 8 * tensors + 64, False)
        self.theta = []
        for k, size in enumerate(model.sizes):
            theta = tensor(size, model.parameters[k])
            base.ggml_set_param(theta)
            step = base.ggml_opt_step_adamw(self.context, theta, tensor(size, model.gradients[k]), tensor(size), tensor(size),
                                            self.options)
            base.ggml_build_forward_expand(self.graph, step)
            self.theta.append(floats_of(theta))
        self.work = lambda: base.ggml_init(Params(1 << 20, None, False))
        model.close()

    def run(self, steps):
        work = self.work()
        for i in range(steps):
            self.t += 1
            self.settings[:] = [LR, *BETAS, EPS, self.decay, 1 / (1 - BETAS[0]**self.t), 1 / (1 - BETAS[1]**self.t)]
            self.cpu.ggml_graph_compute_with_ctx(work, self.graph, 1)
            if i % 256 == 255:  # each call takes a little of it
                self.base.ggml_free(work)
                work = self.work()
        self.base.ggml_free(work)

    def result(self, k):
        return self.theta[k]

    def close(self):
        self.base.ggml_free(self.context)


def find(lib, build, threads):
    """All implementations as {name: open(sizes, decay)}, and the missing ones as {name: reason}."""
    present, missing = {}, {}
    several = threads > 1
    i = 0
    while (name := lib.peer_name(i, several)) is not None:
        present[name.decode()] = lambda *a, name=name.decode(): Native(lib, name, several, *a)
        i += 1
    for name, package in (("plain loop, OpenMP", "OpenMP"),) if several else (
            ("Eigen expressions", "libeigen3-dev"), ("Armadillo, as ensmallen writes it", "libarmadillo-dev"), ("dlib", "libdlib-dev"),
            ("hand-written intrinsics", "a processor with AVX2 and FMA")):
        if name not in present:
            missing[name] = f"not built: it needs {package}"

    def model(sizes):
        return Model(lib, sizes)
    try:
        import torch
    except Exception as e:
        torch, reason = None, f"PyTorch cannot be imported ({type(e).__name__}); `./dev bench --full` installs it"
    torch_names = [f"PyTorch AdamW({x}).step()" for x in ("fused=True", "foreach=True", "foreach=False")]
    if torch:
        torch.set_num_threads(threads)
        for name in torch_names:
            option = name[name.index("(") + 1:name.index(")")].split("=")
            def make(theta, decay, option=option):
                return torch.optim.AdamW(theta, lr=LR, betas=BETAS, eps=EPS, weight_decay=decay,
                                         **{option[0]: option[1] == "True"})
            present[name] = lambda s, d, make=make: Torch(torch, make, model(s), d)
        try:
            raw = torch_raw(torch, build)
            present["PyTorch fused kernel, called raw"] = lambda s, d: TorchRaw(raw, model(s), d)
        except Exception as e:
            missing["PyTorch fused kernel, called raw"] = "torch_raw.cpp does not compile against this PyTorch: " + last_line(e)
        try:
            os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(build / "torch_extensions"))
            import deepspeed.utils
            deepspeed.utils.logger.setLevel("ERROR")
            from deepspeed.ops.adam import DeepSpeedCPUAdam
            print("compiling DeepSpeed's CPUAdam, if this is the first time", flush=True)
            def make(theta, decay):
                return DeepSpeedCPUAdam(theta, lr=LR, betas=BETAS, eps=EPS, weight_decay=decay, adamw_mode=True)
            with quiet(build / "deepspeed.log"):
                make([torch.nn.Parameter(torch.zeros(16))], 0)
            present["DeepSpeed CPUAdam.step()"] = lambda s, d: Torch(torch, make, model(s), d)
        except BaseException as e:
            missing["DeepSpeed CPUAdam.step()"] = "its extension cannot be built or imported: " + last_line(e)
    else:
        for name in torch_names + ["PyTorch fused kernel, called raw", "DeepSpeed CPUAdam.step()"]:
            missing[name] = reason
    if several:
        return present, missing  # ggml shares out tensors, and its threads are not measured
    try:
        import importlib.util
        spec = importlib.util.find_spec("ggml")
        if spec is None:
            raise ImportError("the Python package ggml-py is not installed; `./dev bench --full` installs it")
        folder = pathlib.Path(spec.origin).parent / "lib"
        base = ctypes.CDLL(str(folder / "libggml-base.so"), mode=ctypes.RTLD_GLOBAL)
        cpu = ctypes.CDLL(str(folder / "libggml-cpu.so"))
        present["ggml"] = lambda s, d: Ggml(base, cpu, model(s), d)
    except Exception as e:
        missing["ggml"] = last_line(e)
    return present, missing


def last_line(e):
    text = (getattr(e, "stderr", None) or str(e) or type(e).__name__).strip()
    return text.splitlines()[-1][:200] if text else type(e).__name__


class quiet:
    """Redirects the process's output, also that of C libraries, to a file."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        sys.stdout.flush()
        self.saved = os.dup(1), os.dup(2)
        with open(self.path, "w") as f:
            os.dup2(f.fileno(), 1)
            os.dup2(f.fileno(), 2)

    def __exit__(self, *_):
        sys.stdout.flush()
        for fd, saved in zip((1, 2), self.saved):
            os.dup2(saved, fd)
            os.close(saved)


def find_recipe(lib, recipe):
    """The recipe by gradus and by PyTorch, as in find; and what PyTorch has not."""
    import inspect
    import torch
    torch.set_num_threads(1)
    name, options = TORCH[recipe]
    kind = getattr(torch.optim, name)
    options = {"weight_decay": inspect.signature(kind).parameters["weight_decay"].default or 1e-4, **options}
    present = {"gradus": lambda sizes, _: Recipe(lib, recipe, sizes)}
    for way in ("fused", "foreach"):
        if way in inspect.signature(kind).parameters:
            present[way] = lambda sizes, _, way=way: Torch(torch, lambda theta, decay: kind(theta, **options, **{way: True}), Model(lib, sizes), 0)
    return present


def every_recipe(lib, shapes, o, clock):
    """Rows of each recipe beside PyTorch's own; how far their results are apart; and what was not measured, with the reason."""
    rows, checks, missing = [], {}, {}
    for recipe in TORCH:
        try:
            present = find_recipe(lib, recipe)
        except Exception as e:
            return rows, checks, {"PyTorch": f"cannot be imported ({type(e).__name__}: {last_line(e)}); `./dev bench --full` installs it"}
        for way in [way for way in present if way != "gradus"]:
            keep_if_right(lib, f"{recipe}, {way}", present, way, checks, missing, lambda sizes, _: Recipe(lib, recipe, sizes))
        for shape, sizes in shapes.items():
            for way, median in measure(present, sizes, o, clock).items():
                rows.append(row_of(f"recipe/{recipe}/{way}/-/-/float/{shape}", median, sizes, o))
        print(f"peers: {recipe} done", flush=True)
    return rows, checks, missing


def row_of(name, median, sizes, o):
    """As Google Benchmark writes it."""
    return {"name": f"{name}_median", "run_name": name, "run_type": "aggregate", "aggregate_name": "median", "repetitions": o.rounds,
            "cpu_time": median * 1e9, "time_unit": "ns", "tensors": len(sizes), "ns_per_parameter": median * 1e9 / sum(sizes)}


def check(lib, name, make, gradus=None):
    """The largest difference of a result from gradus's. dlib's weight decay is L2, so it is compared without decay."""
    sizes = [1000, 7, 640]
    decay = 0 if name == "dlib" else DECAY
    ours, other = gradus(sizes, decay) if gradus else Native(lib, "gradus", False, sizes, decay), make(sizes, decay)
    ours.run(CHECK_STEPS)
    other.run(CHECK_STEPS)
    worst = max(lib.peers_distance(ours.result(k), other.result(k), size) for k, size in enumerate(sizes))
    ours.close()
    other.close()
    return worst


def keep_if_right(lib, name, present, key, checks, missing, *reference):
    """Compares present[key] with gradus (check), and takes it out of what is measured if it differs or fails."""
    try:
        checks[name] = check(lib, name, present[key], *reference)
        if not checks[name] <= TOLERANCE:
            missing[name] = f"its result is {checks[name]:.2g} from gradus's; expected at most {TOLERANCE:.2g}"
    except Exception as e:
        missing[name] = last_line(e)
    if name in missing:
        del present[key]


def seconds(x, steps, clock):
    start = clock()
    x.run(steps)
    return clock() - start


def memory():
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def race(opened, o, clock):
    """The samples of each implementation, seconds a step, which take turns in random order."""
    steps, samples = {}, {name: [] for name in opened}
    for name, x in opened.items():
        seconds(x, 1, clock)
        once, count = seconds(x, 1, clock), 1
        while once < o.seconds / 4 and count < 1 << 20:
            count *= 4
            once = seconds(x, count, clock)
        steps[name] = max(1, round(count * o.seconds / max(once, 1e-9)))
    for _ in range(o.rounds):
        order = list(opened)
        random.shuffle(order)
        for name in order:
            if o.threads > 1:  # the threads of the one before spin for a while
                time.sleep(0.005)
                seconds(opened[name], 1, clock)
            samples[name].append(seconds(opened[name], steps[name], clock) / steps[name])
    return samples


def measure(present, sizes, o, clock):
    """The median of each implementation, seconds a step. What does not fit into memory at once takes turns with gradus."""
    others = [name for name in present if name != "gradus"]
    at_once = max(1, int(memory() / 2 / (20 * sum(sizes))) - 1)
    medians, ours = {}, []
    for i in range(0, len(others), at_once):
        opened = {name: present[name](sizes, DECAY) for name in ["gradus"] + others[i:i + at_once]}
        samples = race(opened, o, clock)
        for x in opened.values():
            x.close()
        ours += samples["gradus"]
        for name in opened:
            medians[name] = statistics.median(samples[name]) / statistics.median(samples["gradus"])
    return {name: x * statistics.median(ours) for name, x in medians.items()}


def main():
    options = argparse.ArgumentParser()
    options.add_argument("library", type=pathlib.Path)
    options.add_argument("out", type=pathlib.Path)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--seconds", type=float, default=0.02, help="the least length of one sample")
    options.add_argument("--shapes", default="4096,65536,1048576,16777216,1000x64,1000x1000")
    options.add_argument("--model", type=pathlib.Path)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--recipes", action="store_true")
    o = options.parse_args()
    os.environ.update(OMP_NUM_THREADS=str(o.threads), MKL_NUM_THREADS=str(o.threads), DS_ACCELERATOR="cpu")
    clock = time.thread_time if o.threads == 1 else time.perf_counter
    if o.model:
        lines = [line.split() for line in o.model.read_text().splitlines()]
        shapes = {o.model.stem: [math.prod(int(d) for d in line[1:]) for line in lines]}
    else:
        shapes = {}
        for shape in o.shapes.split(","):
            tensors, _, size = shape.rpartition("x")
            shapes[shape] = [int(size)] * int(tensors or 1)
    lib = load(o.library)
    if o.recipes:
        rows, checks, missing = every_recipe(lib, shapes, o, clock)
        present, shapes = {}, {}
    else:
        present, missing = find(lib, o.library.parent, o.threads)
        rows, checks = [], {}
    for name in list(present):
        if name.startswith("traffic"):
            continue
        keep_if_right(lib, name, present, name, checks, missing)

    for shape, sizes in shapes.items():
        n = sum(sizes)
        for name, median in measure(present, sizes, o, clock).items():
            rows.append({**row_of(f"peer/{name}/-/-/-/float/{shape}", median, sizes, o), "bytes_per_parameter": 28, "bytes_per_second": 28 * n / median})
        print(f"peers: {shape} done", flush=True)

    versions = {}
    for module in ("torch", "deepspeed", "ggml"):
        if module in sys.modules or (module == "ggml" and "ggml" in present):
            from importlib import metadata
            versions[module] = metadata.version("ggml-py" if module == "ggml" else module)
    context = {"compiler": lib.peers_compiler().decode(), "flags": lib.peers_flags().decode(), "versions": versions,
               "tolerance": TOLERANCE, "check_steps": CHECK_STEPS, "distances": checks, "missing": missing, "threads": o.threads}
    o.out.write_text(json.dumps({"context": context, "benchmarks": rows}, indent=1))
    sys.stdout.flush()
    os._exit(0)  # without the farewells that some libraries print


main()
