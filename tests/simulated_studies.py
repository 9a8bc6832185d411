"""Studies whose truth is known.

An answer is right where sqrt(shared) d[i] + sqrt(own) c[config, i] + sqrt(rest) e[config, seed, i] lies below the
quantile of the seed's accuracy, all standard normal. So the accuracy over all images is exactly
`accuracy[config] + sd z[config, seed]`, images are as hard for every configuration (correlation `shared`), and seeds
and images are drawn anew in every study.
"""

import numpy as np
from scipy.special import ndtri

from robust_nas.statistics import Measurements

SHARED, OWN = 0.9, 0.03


def answers(accuracy, rng, seeds=3, images=1000, sd=0.01, shared=SHARED, own=OWN):
    """`[P, S, N]` bool of configurations with these accuracies over all images and seeds; `sd` a number or one each."""
    accuracy = np.asarray(accuracy, dtype=float)
    P = len(accuracy)
    seed = accuracy[:, None] + np.broadcast_to(sd, P)[:, None] * rng.standard_normal((P, seeds))
    image, config, rest = (
        np.sqrt(part) * rng.standard_normal(shape, dtype=np.float32)
        for part, shape in ((shared, images), (own, (P, 1, images)), (1 - shared - own, (P, seeds, images)))
    )
    latent = image + config + rest
    return latent < ndtri(np.clip(seed, 1e-9, 1 - 1e-9))[..., None]


def study(accuracy, rng, factors=None, arms=None, **design):
    """Points `p0`, `p1`, ... with `robust` answers; `factors` maps a name to one value per point."""
    outcomes = answers(accuracy, rng, **design)
    return [
        Measurements(
            name=f"p{c}",
            arm="" if arms is None else arms[c],
            factors={key: values[c] for key, values in (factors or {}).items()},
            seeds=tuple(range(outcomes.shape[1])),
            outcomes={"robust": outcomes[c]},
        )
        for c in range(len(outcomes))
    ]
