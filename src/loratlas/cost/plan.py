"""What does a placement cost: parameters, bytes, operations, peak memory?

One `Estimator` serves every placement of a model; what blocks of equal shape cost is worked out
once.
"""

from dataclasses import dataclass

from loratlas.anatomy.sites import Anatomy, Family
from loratlas.cost.flops import StepFlops, step_flops
from loratlas.cost.layout import UnaccountedError, lay_out
from loratlas.cost.memory import Memory, memory_of
from loratlas.cost.parameters import adapter_bytes, optimiser_bytes
from loratlas.cost.setting import Adapted, Setting
from loratlas.cost.step import Account, Step
from loratlas.placement.peft_config import reached_as_parameters
from loratlas.placement.placement import Placement


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a placement costs.

    Attributes:
        trainable_parameters: adapter parameters.
        adapter_bytes: their bytes, in fp32.
        optimiser_bytes: bytes of AdamW's two averages.
        flops: operations of an optimiser step, None where they are not known.
        memory: what is in use at the peak, None where it is not known.
        unknown: why flops or memory are not known, None where both are.
    """

    trainable_parameters: int
    adapter_bytes: int
    optimiser_bytes: int
    flops: StepFlops | None
    memory: Memory | None
    unknown: str | None


class Estimator:
    """Says what placements of one model cost in one setting."""

    def __init__(self, anatomy: Anatomy, setting: Setting) -> None:
        self._anatomy = anatomy
        self._setting = setting
        self._unknown: str | None = None
        self._account: Account | None = None
        try:
            self._account = Account(lay_out(anatomy, setting.blueprint), setting)
        except UnaccountedError as error:
            self._unknown = f"the forward pass of {anatomy.model} is not known: {error}"

    def cost(self, placement: Placement) -> Cost:
        """Return what a placement costs.

        Parameters and bytes are always known. Operations and memory are None where what the
        model does with an adapted site is not known; `unknown` then says so.
        """
        count = placement.trainable_parameters
        unknown = self._unknown or _unknown_site(placement)
        flops = memory = None
        if unknown is None and self._account is not None:
            step = self._step(placement)
            flops = step_flops(step.flops, self._setting.workload)
            unknown = self._unknown_memory()
            if unknown is None:
                memory = memory_of(self._anatomy, placement, self._setting, step.peak_bytes)
        return Cost(
            trainable_parameters=count,
            adapter_bytes=adapter_bytes(count),
            optimiser_bytes=optimiser_bytes(count),
            flops=flops,
            memory=memory,
            unknown=unknown,
        )

    def memory_as_modelled(self, placement: Placement) -> Memory:
        """Return the account's figure of memory, also where nothing holds it to be true.

        `cost` leaves out what has not been held against a measurement; measuring takes the
        figure itself.

        Raises:
            UnaccountedError: there is no account of this model.
        """
        return memory_of(self._anatomy, placement, self._setting, self._step(placement).peak_bytes)

    def _step(self, placement: Placement) -> Step:
        if self._account is None:
            raise UnaccountedError(self._unknown)
        ranks = {adapter.site.path: adapter.rank for adapter in placement.adapters}
        bare = frozenset(adapter.site.path for adapter in reached_as_parameters(placement))
        return self._account.step(Adapted(ranks=ranks, bare=bare))

    def _unknown_memory(self) -> str | None:
        blueprint, model_type = self._setting.blueprint, self._anatomy.model_type
        if not self._setting.on_cpu:
            return "peak memory on a GPU: the account has been held against CPUs only"
        if not blueprint.is_described:
            return (
                f"the peak memory of {model_type} models is not modelled: "
                "what their blocks hold between the maps is not described"
            )
        if self._setting.checkpointing and len(self._anatomy.stacks) > 1:
            return "the peak memory of encoder-decoder models under checkpointing is not modelled"
        if 0 < blueprint.window < self._setting.workload.tokens:
            return (
                f"the peak memory of {model_type} models on rows beyond attention's window of "
                f"{blueprint.window} tokens is not modelled"
            )
        return None


def _unknown_site(placement: Placement) -> str | None:
    for adapter in placement.adapters:
        site = adapter.site
        if site.in_block and site.role.family in (Family.EMBEDDING, Family.OTHER):
            return f"what an adapter on {site.path} ({site.role}) costs in operations"
    return None
