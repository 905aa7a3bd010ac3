"""What stands between the maps of a block: norms, dropout, activations?"""

from loratlas.cost import operations as op
from loratlas.cost.setting import Pass
from loratlas.cost.tape import Value


def norm(run: Pass, value: Value, num_rows: int) -> Value:
    """Normalise rows in the model's way."""
    if run.code.norm == "rms_norm":
        return op.rms_norm(run.tape, value, num_rows)
    return op.layer_norm(run.tape, value, num_rows)


def dropped(run: Pass, value: Value) -> Value:
    """Apply the base's dropout on what a part gives back."""
    return op.dropout(run.tape, value, run.blueprint.hidden_dropout)


def activate(run: Pass, value: Value) -> Value:
    """Apply the feed-forward's function."""
    name = run.blueprint.activation
    if name == "gelu_new":
        return op.gelu_in_steps(run.tape, value)
    return (op.keeps_result if name in ("relu", "tanh", "sigmoid") else op.keeps_input)(
        run.tape, value
    )
