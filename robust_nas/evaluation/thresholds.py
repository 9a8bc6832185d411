"""Where a finding turns from PASS to WARN and FAIL: every threshold, and what it rests on.

"Simulated" ones are measured by `scripts/simulate_findings.py` on honest networks of nine kinds and on masks whose true
accuracy is 0; docs/explanation/verdict.md holds its table. They lie so that no honest network fails. Others follow the
source that is named, or are our choice.
"""

from __future__ import annotations

# All checks: images, below which a check says nothing. Our choice.
LEAST_IMAGES = 8

# Logits, not probabilities: how far their sums may be from 1. Croce and Hein 2020.
SUM_OF_PROBABILITIES = 1e-3

# Deterministic forward: disagreement of two passes (`layers/agreement.py`), Croce and Hein 2020; and with the answers
# that the images got in another batch, which is rounded otherwise, by less than 1e-5 on all simulated networks.
MOVED = 1e-4
MOVED_IN_ANOTHER_BATCH = 1e-3

# Loss plateau, by Pintor et al. 2022; the numbers are our choice.
LATE_GAIN, FAR_FROM_SETTLED = 0.1, 0.5  # share of the gain in the last tenth of the steps: WARN, FAIL
NEVER_ROSE = 0.1  # share of the survivors
RESOLVED_EPS = 1e-4  # below which float32 losses cannot tell a step from rounding

# Silent success: share of the images that were right. Our choice.
PASSED_BY = 0.05

# Zero gradients: share of the images without any, and of the pixels whose gradient is not finite. Our choice; simulated
# networks have none of either.
BLIND_IMAGES = 0.1
BROKEN_PIXELS = 0.01

# Gradients predict the margin. Simulated: honest networks have at least 0.95 close, 0.66 at eps, and follow on all
# images; masked ones at most 0.03, 0.06 and on none, but for NaN gradients (0.72), which "zero gradients" counts.
PREDICTED = {"close": 0.8, "far": 0.4, "step": 0.9, "images": 0.9}  # PASS
MISLED = {"close": 0.5, "far": 0.2, "step": 0.8, "images": 0.75}  # FAIL below
SHORT_STEP = (
    0.75  # of its way, on an image; simulated: at least 0.76 on honest networks, 0.7 and less under the mask
)
MISLED_FEW = 2  # images, up to which misled ones are no proof
RESOLVED_CHANGE = 1e-5  # of the label's logit: smaller changes of the margin are rounding in float32

# A chosen class, of the way from chance to 1. Simulated: honest networks reach at least 97 %.
REACHED, BLIND = 0.5, 0.25

# Active test: share of the planted examples found. Simulated: honest networks at least 0.96.
PLANTED_FOUND, PLANTED_MISSED = 0.9, 0.7
PLANTED_FEW = 8  # below which none found is no proof

# Attacks on survivors (FGSM, noise, Square, HopSkipJump, transfer, more effort): by how much the robust accuracy would
# fall if they broke all survivors at their rate, and above one image. Our choice; weak attacks that succeed at all are
# the stronger evidence. Simulated: at an L2 eps far beyond the training, Square broke 5 of 24 survivors of an
# honest network, at 23 % robust accuracy: in shares of the survivors that was a FAIL.
BROKEN, BROKEN_BY_THE_WEAK = 0.05, 0.02
SQUARE_GAIN = 0.002  # of all images, where Square is in the list: AutoAttack's own rule

# Adaptive and unaware attack on the same images: level of McNemar's exact test, and images that no test speaks of. Our
# choice; the level is that of the intervals.
WEAKER = 0.05

# Accuracy against eps. Our choice: two images of 64 are within the luck of a random start.
RISE, UNBOUNDED_LEFT = 0.05, 0.05

# EOT sample curve: fall beyond the suite's own passes. Our choice.
EOT_FALL = 0.1

# Signal to noise of a random model's averaged gradient. At 1 half of its power is noise, and its cosine with the mean
# gradient is 0.71. Our choice.
SIGNAL_TO_NOISE = 1.0

FALSE_ALARMS = 0.1  # clean images that a detector may reject, whatever it was calibrated to
