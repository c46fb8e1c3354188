"""What the Hunyuan-Large report's own laws say, from the constants it prints.

The report names the best pair, 58.1 B active parameters and 5.6 T tokens, but not the budget. Each
of the two laws can be solved for it, and C = 9.59 N D + 2.3e8 D gives it a third time: all three
agree within 3 %, which is what there is to check. It then chose 52 B and 7 T, as the minimum is
flat.
"""

from dataclasses import dataclass

from hunyuan.report.scaling import PAPER, PAPER_SIZE, PAPER_TOKENS

BEST_SIZE = 58.1e9
BEST_TOKENS = 5.6e12
CHOSEN_SIZE = 52e9
CHOSEN_TOKENS = 7e12


@dataclass(frozen=True, kw_only=True)
class PaperNumbers:
    """The report's optimum, worked out again."""

    flops: float
    """C_min at which N_opt is 58.1 B."""
    size: float
    """N_opt there."""
    tokens: float
    """D_opt there, to be compared with 5.6 T."""
    flops_by_tokens: float
    """C_min at which D_opt is 5.6 T."""
    flops_of_pair: float
    """C of 58.1 B and 5.6 T."""
    flops_chosen: float
    """C of what was trained, 52 B and 7 T."""


def paper_numbers(flops: float | None = None) -> PaperNumbers:
    """The optimum at a budget; by default at the one that the report's size belongs to."""
    found = PAPER_SIZE.inverse(BEST_SIZE) if flops is None else flops
    return PaperNumbers(
        flops=found,
        size=PAPER_SIZE.at(found),
        tokens=PAPER_TOKENS.at(found),
        flops_by_tokens=PAPER_TOKENS.inverse(BEST_TOKENS),
        flops_of_pair=PAPER.flops(BEST_SIZE, BEST_TOKENS),
        flops_chosen=PAPER.flops(CHOSEN_SIZE, CHOSEN_TOKENS),
    )
