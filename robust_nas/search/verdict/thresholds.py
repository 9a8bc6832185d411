"""Where a finding on a search turns from PASS to WARN and FAIL: every threshold, and what it rests on.

"Simulated" ones are measured by `scripts/simulate_search_verdict.py` on trajectories of noise and on planted ones;
docs/explanation/search-verdict.md holds its table. Others follow the source that is named, or are our choice.
"""

from __future__ import annotations

# All tests against chance: one-sided level of a PASS. The usual 5 %. Simulated: agreement and margin together pass on
# at most .5 % of the searches of noise, because each has about this level and they are independent under noise.
LEVEL = 0.05

# Draws of a null distribution, and the seed of all of them: a verdict is the same every time. The level that they give
# has a standard error of 1 % (499) and .5 % (2,000).
FLIPS, DRAWS, WALKS = 499, 2000, 499
SEED = 0

# Trajectories. A block moved where its increment is at least this share of the largest one (warm-up epochs have none,
# but for DARTS's 1e-3 at the start). More blocks than this are merged. Weights are recorded to six digits.
MOVED, MOST_BLOCKS, SMALLEST_WEIGHT = 0.01, 12, 5e-7
# Blocks in which the alphas moved in each search, and sign patterns of all, below which the margin is not tested: of
# 2^B patterns one is the search itself, and fewer than 1 / LEVEL cannot tell it from noise. Four blocks: our choice.
LEAST_BLOCKS, LEAST_PATTERNS = 4, 32

# Last epochs: the part of the search whose derived cells are compared with the final ones. Our choice.
LAST_PART = 0.25

# Entropy: mean over edges, as a share of ln O. Above it the best of seven operations has a weight below .37 where it
# alone rose. Our choice.
STILL_EVEN = 0.9

# Collapse: FAIL above a share of skips in a cell (`spread.collapsed`, our choice; DARTS+, Liang et al. 2019, stops at
# two of eight), WARN above a share of one operation. Our choice.
SKIPS, ONE_OPERATION = 0.5, 0.75

# Discretisation: what the derived network keeps of the supernet's robust accuracy above chance. Our choice.
KEPT_BY_DERIVED = 0.5

# Losses: late fall as a share of the whole fall (a straight line has 1/3), and what the alphas' half misses of what the
# weights' half learned. Our choice.
LATE_FALL, LOST_ON_ALPHAS_HALF = 0.25, 0.5

# Gamma: distance of its mean over the last part from 0 or 1. Our choice; the quickstart's search has 0.03.
GAMMA_END = 0.1
