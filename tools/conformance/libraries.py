"""The conformance suite on optimizers of Python libraries: python3 libraries.py, for those that are installed (pip install torch
optax keras ggml_py, and gradus). Each callback is also an example of how one is written."""

import ctypes
import os

import numpy

from conformance import Settings, examine

S = Settings()


def torch():
    import torch

    def optimizer(cls, **options):
        made = []

        def step(tensors, t, lr):
            if t == 1:  # the tensors of PyTorch are views of the suite's arrays
                made[:] = [cls([{"params": [torch.nn.Parameter(torch.from_numpy(x.parameters))], "weight_decay": x.weight_decay}
                                for x in tensors], lr=lr, **options)]
            for group, x in zip(made[0].param_groups, tensors):
                group["lr"] = lr
                group["params"][0].grad = torch.from_numpy(x.gradients.copy())
            made[0].step()

        return step

    betas = dict(betas=(S.beta1, S.beta2), eps=S.eps)
    yield "torch.optim.Adam", S, optimizer(torch.optim.Adam, **betas)
    yield "torch.optim.AdamW", S, optimizer(torch.optim.AdamW, **betas)
    yield "torch.optim.AdamW, amsgrad", S, optimizer(torch.optim.AdamW, amsgrad=True, **betas)
    yield "torch.optim.SGD", S, optimizer(torch.optim.SGD, momentum=S.momentum)
    yield "torch.optim.RMSprop", S, optimizer(torch.optim.RMSprop, alpha=S.beta2, eps=S.eps)


def optax():
    import jax
    import optax

    jax.config.update("jax_enable_x64", True)

    def optimizer(make, **options):
        kept = [None, None]

        def step(tensors, t, lr):
            if t == 1:
                mask = {"mask": [x.weight_decay > 0 for x in tensors]} if "weight_decay" in options else {}
                kept[0] = optax.inject_hyperparams(make, static_args=tuple(mask))(learning_rate=lr, **options, **mask)
                kept[1] = kept[0].init([jax.numpy.asarray(x.parameters) for x in tensors])
            kept[1].hyperparams["learning_rate"] = lr
            weights = [jax.numpy.asarray(x.parameters) for x in tensors]
            updates, kept[1] = kept[0].update([jax.numpy.asarray(x.gradients) for x in tensors], kept[1], weights)
            for x, w in zip(tensors, optax.apply_updates(weights, updates)):
                x.parameters[:] = w

        return step

    adam = dict(b1=S.beta1, b2=S.beta2, eps=S.eps)
    plain = Settings(weight_decay=0)
    yield "optax.adam", plain, optimizer(optax.adam, **adam)
    yield "optax.adam, eps_root", plain, optimizer(optax.adam, b1=S.beta1, b2=S.beta2, eps=0.0, eps_root=S.eps)
    yield "optax.adamw", S, optimizer(optax.adamw, weight_decay=S.weight_decay, **adam)
    yield "optax.amsgrad", plain, optimizer(optax.amsgrad, **adam)
    yield "optax.sgd", plain, optimizer(optax.sgd, momentum=S.momentum)
    yield "optax.rmsprop", plain, optimizer(optax.rmsprop, decay=S.beta2, eps=S.eps)


def keras():
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras

    if keras.backend.backend() == "jax":
        import jax

        jax.config.update("jax_enable_x64", True)
    keras.config.set_floatx("float64")

    def optimizer(cls, **options):
        kept = [None, None]

        def step(tensors, t, lr):
            if t == 1:
                kept[1] = [keras.Variable(x.parameters) for x in tensors]
                kept[0] = cls(learning_rate=lr, weight_decay=S.weight_decay, **options)
                kept[0].exclude_from_weight_decay([v for v, x in zip(kept[1], tensors) if x.weight_decay == 0])
                kept[0].build(kept[1])
            kept[0].learning_rate = lr
            kept[0].apply([keras.ops.convert_to_tensor(x.gradients) for x in tensors], kept[1])
            for x, variable in zip(tensors, kept[1]):
                x.parameters[:] = keras.ops.convert_to_numpy(variable)

        return step

    adam = dict(beta_1=S.beta1, beta_2=S.beta2, epsilon=S.eps)
    yield "keras Adam", S, optimizer(keras.optimizers.Adam, **adam)
    yield "keras AdamW", S, optimizer(keras.optimizers.AdamW, **adam)
    yield "keras Adam, amsgrad", S, optimizer(keras.optimizers.Adam, amsgrad=True, **adam)
    yield "keras SGD", S, optimizer(keras.optimizers.SGD, momentum=S.momentum)
    yield "keras SGD, nesterov", Settings(nesterov=True), optimizer(keras.optimizers.SGD, momentum=S.momentum, nesterov=True)
    yield "keras RMSprop", S, optimizer(keras.optimizers.RMSprop, rho=S.beta2, epsilon=S.eps)


def ggml():
    import ggml

    library = ctypes.CDLL(os.path.join(os.path.dirname(ggml.__file__), "lib", "libggml-base.so"))

    def address(pointer):
        return ctypes.c_void_p(ctypes.cast(pointer, ctypes.c_void_p).value)

    def optimizer(operator, moments):
        function = getattr(library, f"ggml_opt_step_{operator}")
        function.restype = ctypes.c_void_p
        context = ggml.ggml_init(ggml.ggml_init_params(mem_size=1 << 27, mem_buffer=None, no_alloc=False))

        def tensor(values):
            new = ggml.ggml_new_tensor_1d(context, ggml.GGML_TYPE_F32, len(values))
            array = numpy.ctypeslib.as_array(ctypes.cast(ggml.ggml_get_data(new), ctypes.POINTER(ctypes.c_float)), (len(values),))
            array[:] = values
            return new, array

        kept = []

        def step(tensors, t, lr):
            if t == 1:
                kept[:] = [[tensor(x.parameters)] + [tensor(0 * x.parameters) for _ in range(1 + moments)] for x in tensors]
            for x, model in zip(tensors, kept):
                library.ggml_set_param(address(model[0][0]))
                model[1][1][:] = x.gradients
                scalars = [lr, x.weight_decay]
                if moments:  # as ggml_opt passes them
                    scalars = [lr, S.beta1, S.beta2, S.eps, x.weight_decay, 1 / (1 - S.beta1**t), 1 / (1 - S.beta2**t)]
                node = function(ctypes.c_void_p(context), *(address(p) for p, _ in model), address(tensor(scalars)[0]))
                graph = ggml.ggml_new_graph(context)
                ggml.ggml_build_forward_expand(graph, ctypes.cast(node, ctypes.POINTER(ggml.ggml_tensor)))
                ggml.ggml_graph_compute_with_ctx(context, graph, 1)
                x.parameters[:] = model[0][1]

        return step

    yield "ggml_opt_step_adamw", S, optimizer("adamw", 2)
    yield "ggml_opt_step_sgd", Settings(momentum=0), optimizer("sgd", 0)


def gradus():
    import gradus

    def optimizer(name, **options):
        made = []

        def step(tensors, t, lr):
            if t == 1:
                made.append(gradus.Optimizer(name, lr=lr, weight_decay=S.weight_decay, **options))
                undecayed = made[0].add_group(weight_decay=0)
                for k, x in enumerate(tensors):
                    made[0].add(f"tensor{k}", x.parameters, x.gradients, group=0 if x.weight_decay else undecayed)
            made[0].step(lr=lr)

        return step

    adam = dict(beta1=S.beta1, beta2=S.beta2, eps=S.eps)
    yield "gradus adam", S, optimizer("adam", **adam)
    yield "gradus adamw", S, optimizer("adamw", **adam)
    yield "gradus amsgrad", S, optimizer("amsgrad", **adam)
    yield "gradus sgd", S, optimizer("sgd", momentum=S.momentum)


def verdicts():
    """Yields the name of each optimizer, and the verdict; for a library that is not installed, its name and None."""
    for library in gradus, torch, optax, keras, ggml:
        try:
            for name, settings, step in library():
                yield name, examine(settings, step, single=library is ggml)
        except ImportError:
            yield library.__name__, None


if __name__ == "__main__":
    for name, verdict in verdicts():
        print(f"== {name}\n{verdict.text if verdict else '  not installed' + chr(10)}", end="")
