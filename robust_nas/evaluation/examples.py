"""The first images of an evaluation, clean and attacked, for a figure."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from robust_nas.attacks.norms import length
from robust_nas.evaluation.accuracy import as_float
from robust_nas.evaluation.state import EvaluationState

SHOWN = 15  # images that are kept


class Examples:
    """The first images of the order: as they are, and after the attack that broke them, or after the last one."""

    def __init__(self, state: EvaluationState) -> None:
        self.state = state
        self.found: dict[int, dict[str, Any]] = {}

    def keep(self, indices: Tensor, record: dict[str, Any], label: str) -> None:
        """Keep the images of a batch that are shown."""
        right = dict(zip(indices.tolist(), record["right"].tolist(), strict=True))
        for index, (image, logits) in record["shown"].items():
            self.found[index] = {
                "adversarial": image,
                "logits": logits,
                "attack": label,
                "broken": not right[index],
            }

    def shown(self) -> tuple[dict[str, Any], ...]:
        """Return mappings as `robust_nas.figures.plot_adversarial_grid` takes them."""
        state = self.state
        rows = []
        for index, found in sorted(self.found.items()):
            clean, adversarial = as_float(state.pixels[index]), found["adversarial"]
            guesses = [_guess(logits, state) for logits in (state.clean_logits[index], found["logits"])]
            size = length((adversarial - clean).unsqueeze(0), state.threat_model.norm)
            rows.append(
                {
                    "clean": clean.numpy(),
                    "adversarial": adversarial.numpy(),
                    "label": int(state.labels[index]),
                    "clean_prediction": guesses[0][0],
                    "adversarial_prediction": guesses[1][0],
                    "confidence_clean": guesses[0][1],
                    "confidence_adversarial": guesses[1][1],
                    "attack": found["attack"],
                    "broken": found["broken"],
                    "perturbation": float(size),
                }
            )
        return tuple(rows)


def _guess(logits: Tensor, state: EvaluationState) -> tuple[int, float]:
    """Return the class, -1 for a rejection, and its probability."""
    probabilities = logits.softmax(0)
    guess = int(probabilities.argmax())
    rejected = state.predictor.abstains and guess == state.classes
    return (-1 if rejected else guess), float(probabilities.max())
