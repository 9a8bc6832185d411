"""Runs pyautoattack's attacks for the tests, in a process of its own: it seeds the global generators and traces.

usage: python autoattack_worker.py INPUT OUTPUT      both written by torch.save
"""

import sys

import torch
from attacked import digits_network
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from pyautoattack.square import SquareAttack

NORMS = {"linf": "Linf", "l2": "L2"}


def main(given, written):
    torch.set_num_threads(1)
    work = torch.load(given, weights_only=True)
    model, images, labels = digits_network().eval(), work["images"], work["labels"]
    model.load_state_dict(work["state"])
    found = {}
    for name, kind, norm, options in work["runs"]:
        common = {"norm": NORMS[norm], "device": "cpu", "seed": 0, **options}
        if kind == "trajectory":  # one run from one start: the best losses, and the examples left standing
            targeted = common.pop("targeted")
            attack = APGDAttack_targeted(model, **common) if targeted else APGDAttack(model, **common)
            attack.init_hyperparam(images)
            if targeted:
                attack.y_target = model(images).sort(dim=1)[1][:, -2]
            torch.manual_seed(common["seed"])
            _, standing, losses, _ = attack.attack_single_run(images, labels)
            found[name] = {"loss": losses.detach(), "right": standing.bool()}
        else:
            attacks = {"apgd": APGDAttack, "apgd-t": APGDAttack_targeted, "square": SquareAttack}
            adversarial = attacks[kind](model, **common).perturb(images, labels)
            found[name] = {"right": model(adversarial).argmax(1) == labels, "images": adversarial}
    torch.save(found, written)


if __name__ == "__main__":
    main(*sys.argv[1:])
