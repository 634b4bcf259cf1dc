"""The problem of README.md, for the scripts that record others on it."""


def rows(seed, sizes):
    """For each tensor the rows (θ, a, b) of its elements: the weight at the start, and the gradient's two coefficients."""
    state = seed

    def draw():
        nonlocal state
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (state >> 11) / 2**53

    return [[(-1 + 2 * draw(), 0.1 + 1.9 * draw(), -0.5 + draw()) for _ in range(size)] for size in sizes]
