"""The cascade in small, and the evaluation by it on a few images."""

from evaluation_networks import EPS

from robust_nas.evaluation import EvaluationOptions, follow_protocol

# The cascade in small: a first attack, one that chooses its steps, one that is immune to the scale of the logits.
SMALL = (
    {"name": "pgd", "steps": 10},
    {"name": "apgd", "steps": 20},
    {"name": "apgd", "steps": 20, "loss": "dlr-targeted", "targets": 2},
)
# The same on the module as it is: folding traces it, and a trace has its own gradients, right ones.
AS_IT_IS = tuple({**attack, "fold": False} for attack in SMALL)


def evaluated(model, dataset, *attacks, eps=EPS, images=48, **keys):
    """The evaluation on the first images of the order, with all findings by default."""
    tree = {
        "threat_model": {"eps": eps, "norm": keys.pop("norm", "linf")},
        "attacks": [{"attack": attack} for attack in attacks or SMALL],
        "images": images,
        "findings": "full",
    }
    return follow_protocol(model, dataset.test, EvaluationOptions.model_validate({**tree, **keys}))


def by_name(found):
    return {finding.name: finding for finding in found.findings}


def statuses(found):
    return {finding.name: finding.status for finding in found.findings}
