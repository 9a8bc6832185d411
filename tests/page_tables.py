"""What is shortened where commands and blocks of the pages run, what is not run and why, and files of the reader."""

import re

import torch
from examples_in_docs import blocks
from extending import EXAMPLES
from safetensors.torch import save_file
from small_tables import cells_csv, robust_csv

# The reductions: overrides and options behind the page's own, by verb; those of `MORE` by the command, all that fit.
DATA = ["data.limit=100", "data.validation=0.2", "checkpoint_seconds=600"]
TRAINING = ["training.epochs=1", "training.validate_from=1", "training.validation_attack.steps=1"]
NETWORK = ["network.cells=4", "network.channels=2"]
SEARCH = ["search.cells=4", "search.channels=2", "space.changes.nodes=1"]
ONE_SHOT = ["search.epochs=2", "search.stage1_epochs=1"]
SAMPLED = ["search.evaluations=2", "search.batch=2", "search.evaluator.epochs=1"]
QUICK = ["evaluation.suite=quick", "evaluation.images=8", "evaluation.findings=none"]
CSTAR = [
    "compression.max_loss=0.99",
    "compression.cstar.epochs=1",
    "compression.cstar.finetune_epochs=1",
    "compression.cstar.baselines=[]",
]
STUDY = [
    "seeds=1",
    "space.0.axes={widths.2: [16, 64]}",
    "data.limit=100",
    "training.epochs=1",
    "training.validate_every=1",
    "metrics.images=16",
    "guard.max_hours=24",
    "analysis.draws=200",
]
COMPARE = [
    "compare.metrics={images: 16}",
    "compare.analysis={draws: 200}",
    "--losses",
    "natural",
    "--workers",
    "1",
]
REDUCED = {
    "run": [*DATA, *TRAINING, *NETWORK, *SEARCH, *ONE_SHOT, *QUICK, "compression=null"],
    "search": [*DATA, *NETWORK, *SEARCH],
    "train": [*DATA, *TRAINING],
    "evaluate": QUICK,
    "compress": QUICK,
    "attack run": ["--images", "4", "steps=2"],
    "defend": ["images=16"],
    "study run": STUDY,
    "compare": [*DATA, *TRAINING, *QUICK, *COMPARE],
    "export": ["--images", "16"],
    "rank": [
        "--sample",
        "3",
        "data.name=digits",
        "method.draws=1",
        "method.channels=4",
        "method.batch_size=16",
    ],
    "benchmark strategies": ["--runs", "2", "--external-runs", "1", "--evaluations", "1,2"],
}
MORE = {
    r" search quickstart( --strategy darts .*)?$": ["search.epochs=2"],
    r"one-shot-search.md: .* search quickstart$": ONE_SHOT,
    r" search .*(evolution|local-search|nsga2)": [*TRAINING, *QUICK, *SAMPLED],
    r" search .*local-search": ["search.macs=0.001M:1M"],
    r" search .*latency_ms: min": ["search.population=4"],
    r" search .*constraints": ['search.constraints={latency_ms: "0:100"}'],
    r" search .*nas-bench-201": [
        "space.changes={}",
        "search.cells=3",
        "search.compressed_macs=0.95",
        "compression.gdws.budgets=[0.9]",
    ],
    r" (evolution|--resume) .*controls": ["search.controls=1"],
    r"(one-shot|sampled)-search.md: (?!.*--resume)": ["--overwrite"],
    r"README.md: .* evaluate results": ["evaluation.images=12"],  # others than the run's
    r"README.md: .* compress ": [*CSTAR, "--ratio=1.1"],
    r"compression.md: .*(ratio|cstar)": CSTAR,
    r"compression.md: .*--ratio": ["--ratio=1.1"],
    r"compression.md: .*finetune": ["compression.gdws.finetune_epochs=1"],
    r"compare .*--resume": ["--seeds", "2"],
    r"compare (?!.*--resume)": ["--seeds", "1"],
    r"studies.md: .* --resume": ["seeds=[0,1]"],
    r"tables.md: .* strategies .*latency": ["--reference", "0,50"],
}
TEXTS = {
    "README.md": ('"cascade", images=100', '"quick", images=8'),
    "tutorials/own-model.md": ('"quick", images=50', '"quick", images=8'),
    "how-to/comparisons.md": ("robust_nas.run_study(config)", '"results/quickstart-compare"'),
    "how-to/configs.md": ("config =", "import robust_nas\n\nconfig ="),
    "how-to/defences.md": ('["quality=75"]', '["quality=75", "images=16"]'),
    "how-to/python.md": ('"training.epochs=2"', '"training.epochs=1"'),
    "how-to/studies.md": (
        "robust_nas.run_study(config)",
        '__import__("pathlib").Path("results/huang-width-last-ci")',
    ),
    "train_net.py": ("range(10)", "range(1)"),
    # the folder of the command above it: workers take ten seconds to start
    "tutorials/width-study.md": (
        "robust_nas.run_study(config)",
        '__import__("pathlib").Path("results/huang-width-last-ci")',
    ),
    "tutorials/own-images.md": (
        "enumerate(zip(images.pixels, images.labels))",
        "enumerate(zip(images.pixels[:150], images.labels))",
    ),
}
# What is not run, and why: flags, and where there is one the config, are checked all the same.
NOT_RUN = {
    r"README.md: .* search quickstart --seeds 3": "tests/cli/test_search_cli.py repeats a search",
    r"README.md: .* --suite autoattack": "minutes; tests/attacks/test_autoattack.py runs it",
    r"README.md: .* compare ": "the page on comparisons runs it",
    r"README.md: .* study run": "the tutorial on width runs it",
    r"README.md: .* evaluate --module": "the tutorial on own models runs it",
    r"tutorials/own-images.md: .* run flowers.yaml$": "the try before it is the same job with fewer images",
    r"tutorials/width-study.md: .* plan": "it times steps; tests/cli/test_study_cli.py runs it",
    r"tutorials/width-study.md: .* run huang.* --resume": "the page on studies runs it",
    r"tutorials/width-study.md: .* run widths.yaml": "as the study above it; the Python block reads it",
    r"tutorials/logistic.md: ": "tests/statistics/test_logistic_tutorial.py runs the script",
    r"bash scripts/": "sets up the machine; what it calls is `run quickstart`, or this suite",
    r"pip install": "a package index is needed",
    r": (source|export) ": "the environment of a shell; tests/execution reads the allocator",
    r": (torchrun|ray) |--engine ray": "a cluster; tests/execution and tests/in_ranks.py run engines and ranks",
    r"how-to/execution.md: .* --workers 2": "the tutorial on width runs a study in workers",
    r"sampled-search.md: .* --workers 4": "tests/search evaluates candidates in workers",
    r"how-to/nni.md: ": "NNI may be absent; tests/integrations runs the bridge",
    r"how-to/extending.md: ": "test_extending_commands.py runs all of them",
    r": python scripts/": "tables that are not shipped, and CPU hours",
    r"ranking.md: .*(method train|name: train)": "200 steps at least; tests/search/test_ranking_training.py runs it",
    r"watching.md: .* train ": "packages that are not there; test_watching_page.py runs imitations",
}
NOT_RUN_BLOCKS = {
    "how-to/nni.md": "NNI may be absent; tests/integrations runs the bridge",
    "how-to/watching.md": "packages that are not there; test_watching_page.py runs them against imitations",
    "how-to/extending.md": "files; test_extending.py runs them",
}
GENOTYPE = (
    "PC_DARTS_cifar = Genotype(normal=[('sep_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 0),"
    " ('dil_conv_3x3', 1), ('sep_conv_5x5', 0), ('sep_conv_3x3', 1), ('avg_pool_3x3', 0), ('dil_conv_3x3', 1)],"
    " normal_concat=range(2, 6), reduce=[('sep_conv_5x5', 1), ('max_pool_3x3', 0), ('sep_conv_5x5', 1),"
    " ('sep_conv_5x5', 2), ('sep_conv_3x3', 0), ('sep_conv_3x3', 3), ('sep_conv_3x3', 1), ('sep_conv_3x3', 2)],"
    " reduce_concat=range(2, 6))\n"
)


def texts_of(block):
    """Return the text of a block with its reduction."""
    text = block.text
    for place in {block.file, block.page} & TEXTS.keys():
        text = text.replace(*TEXTS[place])
    return text


def small_settings(command, verb):
    """Return the settings that shorten a command of a page."""
    if "--print-config" in command.words:
        return []
    if "--module" in command.words and verb == "evaluate":
        return ["evaluation.findings=none", "evaluation.suite=quick"]
    more = [each for pattern in MORE if re.search(pattern, str(command)) for each in MORE[pattern]]
    return [*REDUCED.get(verb, []), *more]


def reason(command):
    """Return why a command is not run; empty where it is."""
    return next((why for pattern, why in NOT_RUN.items() if re.search(pattern, str(command))), "")


def write_readers_files(folder):
    """Write the files that the how-to pages take as given: published cells and tables, and files of other pages."""
    (folder / "genotypes.py").write_text(GENOTYPE)
    (folder / "cells.txt").write_text(
        "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|none~2|\n"
    )
    robust_csv(folder)
    cells_csv(folder / "latency.csv.gz", {"raspi4_ms": (4.0, 6.0, 3.0, 30.0)})
    (folder / "mine.csv").write_text("arch_id,loss\n0,1.5\n14,2.2\n21,1.3\n")
    (folder / "svd.py").write_text(EXAMPLES["svd.py"])
    net = next(block for block in blocks("python") if block.file == "net.py")
    (folder / "net.py").write_text(net.text)
    made = {}
    exec(compile(net.text, "net.py", "exec"), made)  # noqa: S102
    torch.manual_seed(0)
    save_file(made["build"]().state_dict(), folder / "net.safetensors")
