"""Bits of held-out codes as figures: with a row's own conditions, with others', and without."""
from collections.abc import Mapping
from typing import Any

from prior.evaluation import HeldOutBits
from prior.model import PriorConfig
from prior.sequence import SequenceLayout
from tokenizer.evaluation.figures import Figure, finite

SHUFFLED = "those of the row half way round the rows that are measured"


def bits_figures(bits: HeldOutBits, config: PriorConfig,
                 common: Mapping[str, Any]) -> dict[str, Figure]:
    """Every figure of `HeldOutBits` with its conditions."""
    figures = {
        "bits_per_code": _figure(bits.matched, "bits per code", common, given="each row's own"),
        "bits_per_image": _figure(bits.bits_per_image, "bits per image", common, given="each row's "
                                  "own", codes_per_image=bits.codes_per_image)}
    if bits.shuffled is not None:
        figures["bits_per_code_shuffled"] = _figure(
            bits.shuffled, "bits, conditions of others", common, "", given=SHUFFLED)
        figures["gap"] = _gap(bits.shuffled - bits.matched, "gap, conditions of others", common,
                              "all")
    for name, value in bits.shuffled_each.items():
        if len(bits.shuffled_each) > 1:
            figures[f"gap_{name}"] = _gap(value - bits.matched, f"gap, {name} of others", common,
                                          name)
    if bits.without is not None:
        figures["bits_per_code_without"] = _figure(
            bits.without, "bits, nothing given", common, "", given="nothing",
            **_untrained(config, [condition.name for condition in config.conditions]))
    for name, value in bits.without_each.items():
        figures[f"bits_per_code_without_{name}"] = _figure(
            value, f"bits, without {name}", common, "", given=f"each row's own without {name}",
            **_untrained(config, [name]))
    return figures


def bits_left_out(bits: HeldOutBits, layout: SequenceLayout) -> dict[str, str]:
    """Why figures of a prior with conditions are missing, by name."""
    if not layout.conditions:
        return {}
    left_out: dict[str, str] = {}
    if bits.shuffled is None:
        left_out |= dict.fromkeys(("bits_per_code_shuffled", "gap"), "one image is measured, and "
                                  "there are no conditions of others: hold out or give more")
    if bits.without is None:
        left_out["bits_per_code_without"] = "the prior has no code for what is not given"
    return left_out


def _figure(value: float, label: str, common: Mapping[str, Any], better: str = "lower",
            **own: Any) -> Figure:
    return Figure(value=finite(value), label=label, unit="bits", better=better,
                  conditions={**common, **own})


def _gap(value: float, label: str, common: Mapping[str, Any], exchanged: str) -> Figure:
    """How much more codes cost with conditions of other rows: what the prior makes of them."""
    return Figure(value=finite(value), label=label, unit="bits", better="higher",
                  conditions={**common, "given": SHUFFLED, "exchanged": exchanged})


def _untrained(config: PriorConfig, missing: list[str]) -> dict[str, str]:
    """A ``caution`` where training never left these conditions out."""
    needed = config.indispensable(missing)
    return {"caution": f"training always gave {' and '.join(needed)}"} if needed else {}
