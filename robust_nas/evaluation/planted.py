"""Plant adversarial examples into a model's features (Zimmermann, Brendel, Tramer, Carlini, 2022).

Around an image, a read-out of the model's logits tells points inside the ball from one point on its boundary:

    phi_i   logits of inner points, within 0.95 eps, and of the image;  phi_b  of a point at distance eps
    w       least squares for -1 on phi_i and +1 on phi_b
    tau     w phi_b less a tenth of its lead over the largest w phi_i

The image with the score w phi(x) - tau as its margin is a two-class problem that has an adversarial example in the
ball by construction. An attack that does not find one there cannot be believed where it finds none elsewhere. The
paper reads the input of the last linear layer; the logits leave nothing of the model untested, and any module has
them. The read-out (least squares in closed form, instead of a trained one) is our choice. n images, m inner points,
d logits.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robust_nas.attacks import Norm, attack_mode
from robust_nas.attacks.norms import noise_in_ball, on_sphere, project

INNER = 48  # m
RADIUS = 0.95  # of eps, of the inner points
LEAD = 0.9  # of the boundary point's lead, where tau is
RIDGE = 1e-6  # relative to the mean diagonal
RANDOM = 24  # points on the boundary, for how often chance finds one
KNOWN = 3  # times that a random model must know a planted example again


class Planted(nn.Module):
    """The two-class problem of one image each: logits `[n, 2]`, class 1 where the planted example is found.

    Logits of a random model are the mean over `passes`.
    """

    def __init__(self, model: nn.Module, passes: int = 1) -> None:
        super().__init__()
        self.model = model
        self.passes = passes
        self.read_out = torch.empty(0)  # [n, d]
        self.threshold = torch.empty(0)  # [n]
        self.scale = torch.empty(0)  # [n], one unit of it is one nat

    def features(self, x: Tensor) -> Tensor:
        """Return the logits, `[B, d]`; what is not finite in them counts as 0."""
        passes = [self.model(x.clone()).float() for _ in range(self.passes)]
        return torch.stack(passes).mean(0).nan_to_num(0.0, 0.0, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits for images `[n, C, H, W]`, one for each problem, or the first few of them."""
        n = len(x)
        score = (self.features(x) * self.read_out[:n]).sum(1) - self.threshold[:n]
        score = score / self.scale[:n]
        return torch.stack([-score, score], 1) / 2


@torch.no_grad()
def plant(
    problem: Planted, x: Tensor, eps: float, norm: Norm, generator: torch.Generator
) -> tuple[Tensor, float]:
    """Fit the read-outs; return which images got a planted example `[n]`, and how often a random point finds one."""
    with attack_mode(problem):
        inner = [problem.features(x)]
        for _ in range(INNER):
            noise = noise_in_ball(x, RADIUS * eps, norm, generator)
            inner.append(problem.features(project(x + noise, x, RADIUS * eps, norm)))
        example = _boundary(x, eps, norm, generator)
        planted_at = problem.features(example).double()
        points = torch.stack(inner, 1).double()  # [n, m + 1, d]
        centre = points.mean(1, keepdim=True)
        rows = torch.cat([points, planted_at.unsqueeze(1)], 1) - centre  # [n, m + 2, d]
        wanted = rows.new_full(rows.shape[:2], -1.0)
        wanted[:, -1] = 1.0
        gram = rows @ rows.transpose(1, 2)  # dual form: fewer points than features
        mean = gram.diagonal(dim1=1, dim2=2).mean(1)
        ridge = (RIDGE * mean).clamp_min(1e-30).view(-1, 1, 1) * torch.eye(rows.shape[1], device=x.device)
        weights = torch.linalg.solve(gram + ridge, wanted.unsqueeze(2)).squeeze(2)
        read_out = (rows * weights.unsqueeze(2)).sum(1)  # [n, d]
        scores = (torch.cat([points, planted_at.unsqueeze(1)], 1) * read_out.unsqueeze(1)).sum(2)
        highest, own = scores[:, :-1].amax(1), scores[:, -1]
        lead = own - highest
        valid = (lead > 1e-3) & read_out.isfinite().all(1)
        problem.read_out = read_out.float()
        problem.threshold = (highest + LEAD * lead).float()
        problem.scale = lead.clamp_min(1e-6).float()
        # A random model may not know it again: then nothing is planted.
        for _ in range(KNOWN if problem.passes > 1 else 1):
            valid &= problem(example).argmax(1) == 1
        hits = [problem(_boundary(x, eps, norm, generator)).argmax(1) == 1 for _ in range(RANDOM)]
        chance = torch.stack(hits).float()[:, valid].mean() if valid.any() else torch.zeros(())
    return valid, float(chance)


def _boundary(x: Tensor, eps: float, norm: Norm, generator: torch.Generator) -> Tensor:
    """Return a random point at distance eps of each image (less where the box is in the way)."""
    if norm == "l1":
        return project(x + on_sphere(x, eps, norm, generator), x, eps, norm)
    noise = torch.empty(x.shape, dtype=x.dtype, device=x.device).normal_(generator=generator)
    if norm == "linf":
        return project(x + eps * noise.sign(), x, eps, norm)
    return project(x + eps * noise / noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1), x, eps, norm)
