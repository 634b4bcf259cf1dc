"""Records peers.txt (README.md): python3 peers.py RECORDER... > peers.txt.

Runs the optimizers of PyTorch, optax, Keras (over JAX) and ggml, where they are installed (pip install torch jax optax keras
ggml_py), and the RECORDERs, which peers.cpp makes. An import that fails leaves a peer out, with a line on stderr.
"""

import importlib.metadata
import inspect
import os
import subprocess
import sys
import tempfile

import numpy as np

import problem

# The gradients of the last two tensors are so small that eps counts: 3e-8 beside a root, 1e-4 inside one.
SEED, SIZES, STEPS, DROPS, SCALES, UNDECAYED = 20, [6, 5, 4, 4], 60, (40, 50), (1, 1, 1e-4, 3e-8), 2
PROBLEM = (f"problem seed {SEED} sizes {','.join(map(str, SIZES))} steps {STEPS} drops {','.join(map(str, DROPS))} "
           f"scales {','.join(map(str, SCALES))} undecayed {UNDECAYED}")


def recorded(t):
    return t <= 3 or t % 10 == 0 or t in (41, 51)


def tensors_of_problem():
    return [[np.array(column) for column in zip(*rows)] for rows in problem.rows(SEED, SIZES)]


def numbers(options):
    return " ".join(f"{key}={float(value)!r}" for key, value in options.items())


def record(name, who, make, dtype=np.float64, **options):
    """Prints a case. make(weights, options) returns step(weights, gradients, lr, t), which returns the new weights."""
    tensors = tensors_of_problem()
    weights = [theta.astype(dtype) for theta, _, _ in tensors]
    precision = " float=1" if dtype == np.float32 else ""
    print(f'case {name} oracle "{who}" {numbers(options)}{precision}')
    step, factor = make(weights, options), 1.0
    rate = next(options[key] for key in ("lr", "learning_rate", "alpha") if key in options)
    for t in range(1, STEPS + 1):
        factor *= 0.1 if t in DROPS else 1
        gradients = []
        for theta, (_, a, b), scale in zip(weights, tensors, SCALES):
            theta = theta.astype(np.float64)
            gradients.append((scale * (a * theta + b * np.sin(3 * theta + 0.1 * t))).astype(dtype))
        weights = step(weights, gradients, rate * factor, t)
        if recorded(t):
            print("at", t, *(float(x).hex() for theta in weights for x in theta))


def record_defaults(name, function, keys):
    """Prints what a peer's function has as defaults of these arguments; None is 0, and a pair betas is beta1 and beta2."""
    defaults = {key: p.default for key, p in inspect.signature(function).parameters.items()}
    if "betas" in defaults:
        defaults["beta1"], defaults["beta2"] = defaults["betas"]
    known = {key: defaults[key] or 0 for key in keys if defaults.get(key) is not inspect.Parameter.empty}
    print(f"defaults {name} {numbers(known)}")


def version(package):
    return f"{package} {importlib.metadata.version(package)}"


def record_torch():
    import torch

    def case(name, cls, flags={}, **options):
        def make(weights, options):
            parameters = [torch.nn.Parameter(torch.tensor(w)) for w in weights]
            arguments = dict(options, **flags)
            if "beta1" in arguments:
                arguments["betas"] = arguments.pop("beta1"), arguments.pop("beta2")
            optimizer = cls([{"params": parameters[:-UNDECAYED]},
                             {"params": parameters[-UNDECAYED:], "weight_decay": 0}], **arguments)

            def step(weights, gradients, lr, t):
                for group in optimizer.param_groups:
                    group["lr"] = lr
                for parameter, gradient in zip(parameters, gradients):
                    parameter.grad = torch.tensor(gradient)
                optimizer.step()
                return [p.detach().numpy().copy() for p in parameters]

            return step

        record(f"torch/{name}", f"{version('torch')} torch.optim.{cls.__name__}, float64", make, **options)
        record_defaults(f"torch/{name}", cls, options)

    adam = dict(lr=0.02, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1)
    case("adam", torch.optim.Adam, **adam)
    case("adamw", torch.optim.AdamW, **adam)
    case("adam_amsgrad", torch.optim.Adam, {"amsgrad": True}, **adam)
    case("adamw_amsgrad", torch.optim.AdamW, {"amsgrad": True}, **adam)
    case("sgd", torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=0.1, nesterov=True)
    case("rmsprop", torch.optim.RMSprop, lr=0.01, alpha=0.9, eps=1e-8, weight_decay=0.1, momentum=0.8)


def record_optax():
    import jax
    import optax

    jax.config.update("jax_enable_x64", True)

    def case(name, **options):
        def make(weights, options):
            function = getattr(optax, name.split(":")[0])
            schedule = optax.piecewise_constant_schedule(options["learning_rate"], {t - 1: 0.1 for t in DROPS})
            arguments = dict(options, learning_rate=schedule)
            if "weight_decay" in arguments:
                arguments["mask"] = [k < len(SIZES) - UNDECAYED for k in range(len(SIZES))]
            if arguments.get("momentum") == 0:
                arguments["momentum"] = None
            optimizer = function(**arguments)
            state = optimizer.init([jax.numpy.asarray(w) for w in weights])

            def step(weights, gradients, lr, t):
                nonlocal state
                weights = [jax.numpy.asarray(w) for w in weights]
                updates, state = optimizer.update([jax.numpy.asarray(g) for g in gradients], state, weights)
                return [np.asarray(w) for w in optax.apply_updates(weights, updates)]

            return step

        record(f"optax/{name}", f"{version('optax')}, {version('jax')}, float64", make, **options)
        record_defaults(f"optax/{name}", getattr(optax, name.split(":")[0]), options)

    adam = dict(learning_rate=0.02, b1=0.9, b2=0.95, eps=1e-8)
    case("adam", **adam)
    case("adam:eps_root", **dict(adam, eps=0), eps_root=1e-8)
    case("adamw", **adam, weight_decay=0.1)
    case("amsgrad", **adam)
    case("sgd", learning_rate=0.05, momentum=0.9, nesterov=True)
    case("rmsprop", learning_rate=0.01, decay=0.9, eps=1e-8, momentum=0)
    case("rmsprop:momentum", learning_rate=0.01, decay=0.9, eps=1e-8, momentum=0.8, nesterov=True)
    case("rmsprop:centered", learning_rate=0.01, decay=0.9, eps=1e-8, centered=True, momentum=0.8)
    case("adagrad", learning_rate=0.05, initial_accumulator_value=0.1, eps=1e-7)
    case("yogi", learning_rate=0.02, b1=0.9, b2=0.95, eps=1e-3)
    case("lion", learning_rate=0.01, b1=0.9, b2=0.99, weight_decay=0.1)


def record_keras():
    os.environ["KERAS_BACKEND"] = "jax"
    import jax

    jax.config.update("jax_enable_x64", True)
    import keras

    keras.config.set_floatx("float64")

    def case(name, cls, flags={}, **options):
        def make(weights, options):
            variables = [keras.Variable(w) for w in weights]
            optimizer = cls(**options, **flags)
            optimizer.exclude_from_weight_decay(var_list=variables[-UNDECAYED:])
            optimizer.build(variables)

            def step(weights, gradients, lr, t):
                optimizer.learning_rate = lr
                optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients], variables)
                return [np.asarray(v) for v in variables]

            return step

        who = f"{version('keras')} {cls.__name__} over {version('jax')}, float64"
        record(f"tensorflow/{name}", who, make, **options)
        record_defaults(f"tensorflow/{name}", cls, options)

    adam = dict(learning_rate=0.02, beta_1=0.9, beta_2=0.95, epsilon=1e-7, weight_decay=0.1)
    case("adam", keras.optimizers.Adam, **dict(adam, weight_decay=0))
    case("adamw", keras.optimizers.AdamW, **adam)
    case("amsgrad", keras.optimizers.Adam, {"amsgrad": True}, **adam)
    case("sgd", keras.optimizers.SGD, learning_rate=0.05, momentum=0.9, weight_decay=0.1)
    case("sgd:nesterov", keras.optimizers.SGD, learning_rate=0.05, momentum=0.9, nesterov=True, weight_decay=0.1)
    case("rmsprop", keras.optimizers.RMSprop, learning_rate=0.01, rho=0.9, epsilon=1e-7, weight_decay=0.1)
    case("rmsprop:centered", keras.optimizers.RMSprop, learning_rate=0.01, rho=0.9, momentum=0.8, epsilon=1e-7,
         centered=True, weight_decay=0.1)
    case("adagrad", keras.optimizers.Adagrad, learning_rate=0.05, initial_accumulator_value=0.1, epsilon=1e-7,
         weight_decay=0.1)
    case("nadam", keras.optimizers.Nadam, **adam)


def record_ggml():
    """The operators of ggml's graph that take a step, with the scalars that its ggml_opt passes to them."""
    import ctypes
    import ggml

    library = ctypes.CDLL(os.path.join(os.path.dirname(ggml.__file__), "lib", "libggml-base.so"))
    library.ggml_opt_step_adamw.restype = library.ggml_opt_step_sgd.restype = ctypes.c_void_p
    float32 = np.float32

    def make(operator):
        def make(weights, options):
            context = ggml.ggml_init(ggml.ggml_init_params(mem_size=1 << 27, mem_buffer=None, no_alloc=False))

            def tensor(values):
                new = ggml.ggml_new_tensor_1d(context, ggml.GGML_TYPE_F32, len(values))
                array = np.ctypeslib.as_array(ctypes.cast(ggml.ggml_get_data(new), ctypes.POINTER(ctypes.c_float)),
                                              (len(values),))
                array[:] = values
                return new, array

            models = []
            for w in weights:
                models.append([tensor(w)] + [tensor(np.zeros_like(w)) for _ in range(3)])
                library.ggml_set_param(ctypes.c_void_p(address(models[-1][0][0])))

            def step(weights, gradients, lr, t):
                for k, (model, gradient) in enumerate(zip(models, gradients)):
                    wd = options["wd"] if k < len(models) - UNDECAYED else 0
                    model[1][1][:] = gradient
                    if operator == "adamw":
                        beta1, beta2 = float32(options["beta1"]), float32(options["beta2"])
                        scalars = [lr, beta1, beta2, options["eps"], wd, 1 / (1 - beta1**float32(t)),
                                   1 / (1 - beta2**float32(t))]
                    else:
                        scalars = [lr, wd]
                    arguments = [x for x, _ in (model if operator == "adamw" else model[:2])]
                    arguments.append(tensor(scalars)[0])
                    node = getattr(library, f"ggml_opt_step_{operator}")(
                        ctypes.c_void_p(context), *map(ctypes.c_void_p, map(address, arguments)))
                    graph = ggml.ggml_new_graph(context)
                    ggml.ggml_build_forward_expand(graph, ctypes.cast(node, ctypes.POINTER(ggml.ggml_tensor)))
                    ggml.ggml_graph_compute_with_ctx(context, graph, 1)
                return [model[0][1].copy() for model in models]

            return step

        return make

    def address(pointer):
        return ctypes.cast(pointer, ctypes.c_void_p).value

    library.ggml_version.restype = ctypes.c_char_p
    who = f"ggml {library.ggml_version().decode()} of {version('ggml_py')}, float32"
    record("ggml/adamw", who, make("adamw"), float32, alpha=0.02, beta1=0.9, beta2=0.95, eps=1e-8, wd=0.1)
    record("ggml/sgd", who, make("sgd"), float32, alpha=0.05, wd=0.1)


print(PROBLEM)
for peer in record_torch, record_optax, record_keras, record_ggml:
    try:
        peer()
    except ImportError as error:
        print(f"{peer.__name__}: {error}", file=sys.stderr)
with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
    print(PROBLEM, file=file, flush=True)
    for recorder in sys.argv[1:]:
        print(subprocess.run([recorder, file.name], check=True, capture_output=True, text=True).stdout, end="")
