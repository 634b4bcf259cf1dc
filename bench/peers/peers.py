#!/usr/bin/env python3
"""Measures one step of AdamW by gradus and other libraries, interleaved in one process, and writes what Google Benchmark
would write (JSON). Every implementation's result is first compared with gradus's on the same input.

  peers.py LIBRARY OUT.json [--rounds N] [--shapes 65536,1000x64] [--seconds S]

LIBRARY is libpeers.so. PyTorch, DeepSpeed and ggml are measured if this Python can import them; the file names each missing
library with the reason. One thread each; processor time, which other programs do not lengthen.
"""
import argparse
import ctypes
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import time

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", DS_ACCELERATOR="cpu")
HERE = pathlib.Path(__file__).resolve().parent
LR, BETAS, EPS, DECAY = 1e-3, (0.9, 0.999), 1e-8, 1e-2
TOLERANCE = 2e-6  # of a parameter of magnitude 1 after five steps; float's own spacing there is 1.2e-7
CHECK_STEPS = 5
floats = ctypes.POINTER(ctypes.c_float)
size_t, pointer = ctypes.c_size_t, ctypes.c_void_p


def load(path):
    lib = ctypes.CDLL(str(path))
    for name, result, arguments in (
            ("peers_compiler", ctypes.c_char_p, []), ("peers_flags", ctypes.c_char_p, []), ("peer_name", ctypes.c_char_p, [size_t]),
            ("peer_open", pointer, [ctypes.c_char_p, size_t, size_t, ctypes.c_double]), ("peer_close", None, [pointer]),
            ("peer_run", None, [pointer, size_t]), ("peer_result", floats, [pointer, size_t]),
            ("peer_parameters", floats, [pointer, size_t]), ("peer_gradients", floats, [pointer, size_t]),
            ("peers_distance", ctypes.c_double, [floats, floats, size_t])):
        f = getattr(lib, name)
        f.restype, f.argtypes = result, arguments
    return lib


class Native:
    """An implementation in libpeers.so."""

    def __init__(self, lib, name, tensors, size, decay):
        self.lib, self.handle = lib, lib.peer_open(name.encode(), tensors, size, decay)

    def run(self, steps):
        self.lib.peer_run(self.handle, steps)

    def result(self, k):
        return self.lib.peer_result(self.handle, k)

    def close(self):
        self.lib.peer_close(self.handle)


class Model(Native):
    """Parameters and gradients for an implementation without memory of its own: gradus's, before its first step."""

    def __init__(self, lib, tensors, size):
        super().__init__(lib, "traffic", tensors, size, 0)
        self.parameters = [lib.peer_parameters(self.handle, k) for k in range(tensors)]
        self.gradients = [lib.peer_gradients(self.handle, k) for k in range(tensors)]


def torch_tensors(torch, model, tensors, size):
    def copy(p):
        return torch.frombuffer((ctypes.c_float * size).from_address(ctypes.addressof(p.contents)), dtype=torch.float32).clone()
    theta = [torch.nn.Parameter(copy(p)) for p in model.parameters]
    for x, g in zip(theta, model.gradients):
        x.grad = copy(g)
    return theta


class Torch:
    def __init__(self, torch, make, model, tensors, size, decay):
        self.theta = torch_tensors(torch, model, tensors, size)
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
    def __init__(self, raw, model, tensors, size, decay):
        self.raw, self.model = raw, model
        array = floats * tensors
        self.handle = raw.torch_raw_open(tensors, size, array(*model.parameters), array(*model.gradients), decay)

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
    raw.torch_raw_open.argtypes = [size_t, size_t, ctypes.POINTER(floats), ctypes.POINTER(floats), ctypes.c_double]
    raw.torch_raw_run.argtypes, raw.torch_raw_close.argtypes = [pointer, size_t], [pointer]
    return raw


class Ggml:
    """ggml's optimizer step as a graph with one node per tensor, on one thread, through its C interface."""

    def __init__(self, base, cpu, model, tensors, size, decay):
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
        self.context = base.ggml_init(Params(tensors * (16 * size + 8192) + (1 << 20), None, False))

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
        for k in range(tensors):
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


def find(lib, build):
    """All implementations as {name: open(tensors, size, decay)}, and the missing ones as {name: reason}."""
    present, missing = {}, {}
    i = 0
    while (name := lib.peer_name(i)) is not None:
        present[name.decode()] = lambda *a, name=name.decode(): Native(lib, name, *a)
        i += 1
    for name, package in (("Eigen expressions", "libeigen3-dev"), ("dlib", "libdlib-dev"),
                          ("hand-written intrinsics", "a processor with AVX2 and FMA")):
        if name not in present:
            missing[name] = f"not built: it needs {package}"
    missing["ensmallen"] = ("Debian 12 has no package of it, and its Python packages offer whole optimisation loops with a "
                            "callback, not a step")

    def model(tensors, size):
        return Model(lib, tensors, size)
    try:
        import torch
    except Exception as e:
        torch, reason = None, f"PyTorch cannot be imported ({type(e).__name__}); `./dev bench --full` installs it"
    torch_names = [f"PyTorch AdamW({x}).step()" for x in ("fused=True", "foreach=True", "foreach=False")]
    if torch:
        torch.set_num_threads(1)
        for name in torch_names:
            option = name[name.index("(") + 1:name.index(")")].split("=")
            def make(theta, decay, option=option):
                return torch.optim.AdamW(theta, lr=LR, betas=BETAS, eps=EPS, weight_decay=decay,
                                         **{option[0]: option[1] == "True"})
            present[name] = lambda t, s, d, make=make: Torch(torch, make, model(t, s), t, s, d)
        try:
            raw = torch_raw(torch, build)
            present["PyTorch fused kernel, called raw"] = lambda t, s, d: TorchRaw(raw, model(t, s), t, s, d)
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
            present["DeepSpeed CPUAdam.step()"] = lambda t, s, d: Torch(torch, make, model(t, s), t, s, d)
        except BaseException as e:
            missing["DeepSpeed CPUAdam.step()"] = "its extension cannot be built or imported: " + last_line(e)
    else:
        for name in torch_names + ["PyTorch fused kernel, called raw", "DeepSpeed CPUAdam.step()"]:
            missing[name] = reason
    try:
        import importlib.util
        spec = importlib.util.find_spec("ggml")
        if spec is None:
            raise ImportError("the Python package ggml-py is not installed; `./dev bench --full` installs it")
        folder = pathlib.Path(spec.origin).parent / "lib"
        base = ctypes.CDLL(str(folder / "libggml-base.so"), mode=ctypes.RTLD_GLOBAL)
        cpu = ctypes.CDLL(str(folder / "libggml-cpu.so"))
        present["ggml"] = lambda t, s, d: Ggml(base, cpu, model(t, s), t, s, d)
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


def check(lib, name, make):
    """The largest difference of a result from gradus's. dlib's weight decay is L2, so it is compared without decay."""
    tensors, size = 3, 1000
    decay = 0 if name == "dlib" else DECAY
    ours, other = Native(lib, "gradus", tensors, size, decay), make(tensors, size, decay)
    ours.run(CHECK_STEPS)
    other.run(CHECK_STEPS)
    worst = max(lib.peers_distance(ours.result(k), other.result(k), size) for k in range(tensors))
    ours.close()
    other.close()
    return worst


def seconds(x, steps):
    start = time.thread_time()
    x.run(steps)
    return time.thread_time() - start


def main():
    options = argparse.ArgumentParser()
    options.add_argument("library", type=pathlib.Path)
    options.add_argument("out", type=pathlib.Path)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--seconds", type=float, default=0.02, help="the least length of one sample")
    options.add_argument("--shapes", default="4096,65536,1048576,16777216,1000x64,1000x1000")
    o = options.parse_args()
    lib = load(o.library)
    present, missing = find(lib, o.library.parent)

    rows, checks = [], {}
    for name in list(present):
        if name.startswith("traffic"):
            continue
        try:
            checks[name] = check(lib, name, present[name])
            if not checks[name] <= TOLERANCE:
                missing[name] = f"its result is {checks[name]:.2g} from gradus's; expected at most {TOLERANCE:.2g}"
        except Exception as e:
            missing[name] = last_line(e)
        if name in missing:
            del present[name]

    for shape in o.shapes.split(","):
        tensors, size = [int(x) for x in ("1x" + shape if "x" not in shape else shape).split("x")]
        opened = {name: make(tensors, size, DECAY) for name, make in present.items()}
        steps, samples = {}, {name: [] for name in opened}
        for name, x in opened.items():
            seconds(x, 1)
            once, count = seconds(x, 1), 1
            while once < o.seconds / 4 and count < 1 << 20:
                count *= 4
                once = seconds(x, count)
            steps[name] = max(1, round(count * o.seconds / max(once, 1e-9)))
        for _ in range(o.rounds):
            order = list(opened)
            random.shuffle(order)
            for name in order:
                samples[name].append(seconds(opened[name], steps[name]) / steps[name])
        for name, x in opened.items():
            median = statistics.median(samples[name])
            rows.append({"name": f"peer/{name}/-/-/-/float/{shape}_median", "run_name": f"peer/{name}/-/-/-/float/{shape}",
                         "run_type": "aggregate", "aggregate_name": "median", "repetitions": o.rounds,
                         "cpu_time": median * 1e9, "time_unit": "ns", "tensors": tensors, "bytes_per_parameter": 28,
                         "ns_per_parameter": median * 1e9 / (tensors * size), "bytes_per_second": 28 * tensors * size / median})
            x.close()
        print(f"peers: {shape} done", flush=True)

    versions = {}
    for module in ("torch", "deepspeed", "ggml"):
        if module in sys.modules or (module == "ggml" and "ggml" in present):
            from importlib import metadata
            versions[module] = metadata.version("ggml-py" if module == "ggml" else module)
    context = {"compiler": lib.peers_compiler().decode(), "flags": lib.peers_flags().decode(), "versions": versions,
               "tolerance": TOLERANCE, "check_steps": CHECK_STEPS, "distances": checks, "missing": missing}
    o.out.write_text(json.dumps({"context": context, "benchmarks": rows}, indent=1))
    sys.stdout.flush()
    os._exit(0)  # without the farewells that some libraries print


main()
