"""What does each operation of a forward pass make, keep for the backward pass, and compute?

Sizes are in elements. What is kept follows PyTorch's ``tools/autograd/derivatives.yaml``: a
product keeps a factor only when the other one wants a gradient, so a frozen weight makes
autograd keep nothing of the input. Temporaries of a backward step count too.
"""

from typing import Literal

from loratlas.cost.tape import FLOAT32, Storage, Tape, Value

Growth = Literal["token", "pair", "fixed"]


def add(tape: Tape, first: Value, second: Value) -> Value:
    """Add two values of one size; both get the same gradient, which is not copied.

    Of unlike types, a CPU writes the narrower one out in the wider type first.
    """
    width = max(first.width, second.width)
    is_mixed = first.width != second.width and tape.on_cpu
    widened = tape.new(first.num_elements, width) if is_mixed else None
    node = tape.node((first, second), lambda g: (g, g))
    result = tape.value(first.num_elements, width, node)
    del widened
    return result


def add_constant(tape: Tape, value: Value) -> Value:
    """Add a constant, or a tensor that wants no gradient."""
    return tape.value(value.num_elements, value.width, tape.node((value,), lambda g: (g,)))


def scale(tape: Tape, value: Value) -> Value:
    """Multiply by a number, or by a frozen tensor: nothing of the value is kept."""
    n, width = value.num_elements, value.width
    return tape.value(n, width, tape.node((value,), lambda _: (tape.new(n, width),)))


def multiply(tape: Tape, first: Value, second: Value) -> Value:
    """Multiply two values; the second may hold one number a row, which is repeated."""
    n, few, width = first.num_elements, second.num_elements, max(first.width, second.width)
    want_first, want_second = first.wants_gradient, second.wants_gradient

    def gradients(_: Storage) -> tuple[Storage | None, Storage | None]:
        left = tape.new(n, width) if want_first else None
        right = tape.new(n, width) if want_second else None
        if right is not None and few < n:
            right = tape.new(few, width)
        return left, right

    saved = [*([first.storage] if want_second else ()), *([second.storage] if want_first else ())]
    return tape.value(n, width, tape.node((first, second), gradients, saved))


def power(tape: Tape, value: Value) -> Value:
    """Raise to a power. The gradient passes through two temporaries of the full size."""
    n, width = value.num_elements, value.width

    def gradients(_: Storage) -> tuple[Storage]:
        temporaries = (tape.new(n, width), tape.new(n, width))
        result = tape.new(n, width)
        del temporaries
        return (result,)

    return tape.value(n, width, tape.node((value,), gradients, (value.storage,)))


def mean_of_rows(tape: Tape, value: Value, num_rows: int) -> Value:
    """Take the mean of each row."""
    n, width = value.num_elements, value.width
    node = tape.node((value,), lambda _: (tape.new(n, width),))
    return tape.value(num_rows, width, node)


def keeps_input(tape: Tape, value: Value) -> Value:
    """Apply a function in one kernel that needs its input again: gelu, silu."""
    n, width = value.num_elements, value.width
    node = tape.node((value,), lambda _: (tape.new(n, width),), (value.storage,))
    return tape.value(n, width, node)


def keeps_result(tape: Tape, value: Value) -> Value:
    """Apply a function in one kernel that needs its result again: relu, tanh, softmax."""
    n, width = value.num_elements, value.width
    storage = tape.new(n, width)
    node = tape.node((value,), lambda _: (tape.new(n, width),), (storage,))
    return Value(n, width, storage, node)


def dropout(tape: Tape, value: Value, share: float) -> Value:
    """Drop a share of the elements; on a CPU the mask is a float for each, elsewhere a byte.

    The mask is drawn whether or not the value wants a gradient; it is kept only if it does.
    """
    if share == 0:
        return value
    n, width = value.num_elements, value.width
    mask = tape.new(n, width if tape.on_cpu else 1)
    node = tape.node((value,), lambda _: (tape.new(n, width),), (mask,))
    return tape.value(n, width, node)


def cast(tape: Tape, value: Value, width: int) -> Value:
    """Change the type; a value that has it already is passed on."""
    if value.width == width:
        return value
    n, before = value.num_elements, value.width
    return tape.value(n, width, tape.node((value,), lambda _: (tape.new(n, before),)))


def copy(tape: Tape, value: Value) -> Value:
    """Write the elements in another order."""
    return tape.value(value.num_elements, value.width, tape.node((value,), lambda g: (g,)))


def view(tape: Tape, value: Value, *, copied_back: bool) -> Value:
    """Look at the same memory in another shape; the gradient may have to be written anew."""
    n, width = value.num_elements, value.width

    def gradients(gradient: Storage) -> tuple[Storage]:
        return (tape.new(n, width) if copied_back else gradient,)

    return Value(n, width, value.storage, tape.node((value,), gradients))


def part(tape: Tape, value: Value, num_elements: int) -> Value:
    """Look at a part; its gradient is written into a tensor of the whole size."""
    n, width = value.num_elements, value.width
    node = tape.node((value,), lambda _: (tape.new(n, width),))
    return Value(num_elements, width, value.storage, node)


def parts(tape: Tape, value: Value, sizes: tuple[int, ...]) -> tuple[Value, ...]:
    """Split into parts whose gradients are joined at once, when all of them are there."""
    n, width = value.num_elements, value.width
    arrived: list[Storage] = []

    def join(_: Storage) -> tuple[Storage]:
        joined = tape.new(n, width)
        arrived.clear()
        return (joined,)

    whole = Value(0, width, value.storage, tape.node((value,), join))

    def keep(gradient: Storage) -> tuple[Storage]:
        arrived.append(gradient)
        return (tape.new(0, width),)

    return tuple(Value(size, width, value.storage, tape.node((whole,), keep)) for size in sizes)


def join(tape: Tape, pieces: tuple[Value, ...]) -> Value:
    """Put values behind each other; the gradients are parts of the whole one."""
    count = len(pieces)
    node = tape.node(pieces, lambda g: (g,) * count)
    return tape.value(sum(piece.num_elements for piece in pieces), pieces[0].width, node)


def gather(tape: Tape, value: Value, num_elements: int, index: Storage) -> Value:
    """Write chosen rows; the index is kept, and the gradient has the size of the whole."""
    n, width = value.num_elements, value.width
    node = tape.node((value,), lambda _: (tape.new(n, width),), (index,))
    return tape.value(num_elements, width, node)


def add_rows(tape: Tape, total: Value, rows: Value, index: Storage) -> Value:
    """Add rows to some of those of a total, in place; PyTorch keeps them for their shape."""
    n, width = rows.num_elements, rows.width
    saved = (index, rows.storage)
    node = tape.node((total, rows), lambda g: (g, tape.new(n, width)), saved)
    return Value(total.num_elements, total.width, total.storage, node)


def sum_of(tape: Tape, value: Value, num_elements: int) -> Value:
    """Sum several values of each element; they share its gradient, which is not copied."""
    return tape.value(num_elements, value.width, tape.node((value,), lambda g: (g,)))


def repeat(tape: Tape, value: Value, times: int) -> Value:
    """Write a value several times; the gradients of the repetitions are summed."""
    if times == 1:
        return value
    n, width = value.num_elements, value.width
    node = tape.node((value,), lambda _: (tape.new(n, width),))
    return tape.value(n * times, width, node)


def layer_norm(tape: Tape, value: Value, num_rows: int) -> Value:
    """Normalise each row in one kernel, which keeps its input, and mean and spread of a row."""
    n, width = value.num_elements, value.width
    statistics = tape.new(2 * num_rows, FLOAT32)
    node = tape.node((value,), lambda _: (tape.new(n, width),), (value.storage, statistics))
    return tape.value(n, width, node)


def rms_norm(tape: Tape, value: Value, num_rows: int) -> Value:
    """Normalise each row by its root mean square, as transformers writes it: step by step."""
    wide = cast(tape, value, FLOAT32)
    root = mean_of_rows(tape, power(tape, wide), num_rows)
    root = keeps_result(tape, add_constant(tape, root))
    return scale(tape, cast(tape, multiply(tape, wide, root), value.width))


def capped(tape: Tape, value: Value) -> Value:
    """Return c tanh(x / c), every step a tensor of its own."""
    return scale(tape, keeps_result(tape, scale(tape, value)))


def gelu_in_steps(tape: Tape, value: Value) -> Value:
    """Return 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), every step a tensor of its own."""
    half = scale(tape, value)
    inner = scale(tape, add(tape, value, scale(tape, power(tape, value))))
    return multiply(tape, half, add_constant(tape, keeps_result(tape, inner)))


def product(
    tape: Tape,
    first: Value,
    second: Value,
    *,
    flops: int,
    num_elements: int,
    growth: Growth = "token",
) -> Value:
    """Multiply matrices; each of the two gradients costs as much as the product itself."""
    width, sizes = first.width, (first.num_elements, second.num_elements)
    wanted = (first.wants_gradient, second.wants_gradient)

    def gradients(_: Storage) -> list[Storage | None]:
        tape.count(flops * sum(wanted), growth, backward=True)
        pairs = zip(sizes, wanted, strict=True)
        return [tape.new(size, width) if want else None for size, want in pairs]

    saved = [*([first.storage] if wanted[1] else ()), *([second.storage] if wanted[0] else ())]
    node = tape.node((first, second), gradients, saved)
    tape.count(flops, growth)
    return tape.value(num_elements, width, node)


def frozen_map(tape: Tape, value: Value, *, num_rows: int, d_in: int, d_out: int) -> Value:
    """Apply frozen weights: 2 * rows * d_in * d_out, and as much again for the gradient.

    They are kept for it, and take no memory here: they are there before the step.
    """
    width, flops = value.width, 2 * num_rows * d_in * d_out
    weights = tape.new(0, 0)

    def gradients(_: Storage) -> tuple[Storage]:
        tape.count(flops, "token", backward=True)
        return (tape.new(num_rows * d_in, width),)

    node = tape.node((value,), gradients, (weights,))
    tape.count(flops, "token")
    return tape.value(num_rows * d_out, width, node)


def attention_kernel(
    tape: Tape,
    query: Value,
    key: Value,
    value: Value,
    *,
    flops: tuple[int, int],
    num_elements: int,
    statistics: int,
    mask: Value | None,
) -> Value:
    """Attend in one kernel, which keeps its three inputs, its result and one sum per row.

    Args:
        tape: the account.
        query: of all heads.
        key: of all heads.
        value: of all heads.
        flops: operations of query times key, and of weights times value. The backward pass is
            counted by the steps of plain attention: a kernel computes the scores once more.
        num_elements: size of the result.
        statistics: number of rows of all heads.
        mask: an additive mask of this call, kept as well.
    """
    inputs = (query, key, value)
    width = query.width
    wants_scores = query.wants_gradient or key.wants_gradient
    backward = flops[0] * (query.wants_gradient + key.wants_gradient)
    backward += flops[1] * (value.wants_gradient + wants_scores)
    result = tape.new(num_elements, width)
    saved = [*(each.storage for each in inputs), result, tape.new(statistics, FLOAT32)]
    saved += [] if mask is None else [mask.storage]

    def gradients(_: Storage) -> list[Storage]:
        tape.count(backward, "pair", backward=True)
        return [tape.new(each, width) for each in sizes]

    sizes = [each.num_elements for each in inputs]
    tape.count(sum(flops), "pair")  # its result is kept, so it is run before that
    return Value(num_elements, width, result, tape.node(inputs, gradients, saved))
