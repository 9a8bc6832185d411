"""Small tables of every form that is read, written as their publishers do; the numbers are made up."""

import gzip
import json

from robust_nas.spaces import load_space, sample
from robust_nas.spaces.nas_bench_201 import string_of

# A network, one of its class (an edge behind a zero edge), a disconnected one, and another network.
CODES = ("000300", "000310", "030000", "333333")
ROBUST = (0.40, 0.42, 0.10, 0.45)  # as in a table with a row a string
MS = {"pixel3_ms": (4.0, 6.0, 0.003, 30.0), "fpga_ms": (1.0, 1.5, 0.9, 5.0)}
COLUMN = "advtrain/cifar10/val_pgd_8_acc"


def write(path, text):
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def cells_csv(path, columns, codes=CODES):
    lines = [
        f"{7 * number},{string_of(code)},{','.join(str(values[number]) for values in columns.values())}"
        for number, code in enumerate(codes)
    ]
    return write(path, "\n".join([f"arch_id,arch_str,{','.join(columns)}", *lines]) + "\n")


def robust_csv(folder, name="robust.csv.gz"):
    return cells_csv(folder / name, {COLUMN: ROBUST, "advtrain/cifar10/val_acc": (0.7, 0.72, 0.1, 0.8)})


def latency_csv(folder, **changes):
    return cells_csv(folder / "latency.csv", {**MS, **changes})


def project_page(folder, codes=CODES):
    """The networks 0, 2 and 3; 1 is an alias of 0."""
    write(folder / "ops.json", f"arch={json.dumps(codes)}")
    rows = {str(number): [ROBUST[number], 0.5] for number in (0, 2, 3)}
    tree = {"": ["cifar10#val_pgd_8_acc", "cifar10#val_acc"], **rows, "1": 0}
    return write(folder / "NAS-RobBench-201_html.json", f"acc={json.dumps(tree)};")


def darts_csv(folder, rows=4):
    space = load_space("darts")
    lines = ["seed,channels,cells,normal,normal_concat,reduce,reduce_concat,clean_best,adversarial_best"]
    for seed in range(rows):
        cells = {cell.kind: cell for cell in sample(space, seed).genotype}
        texts = []
        for kind in ("normal", "reduce"):
            edges = [[edge.operation, edge.source] for node in cells[kind].nodes for edge in node]
            texts += [json.dumps(edges), json.dumps([2, 3, 4, 5])]
        quoted = ",".join('"' + text.replace('"', '""') + '"' for text in texts)
        lines.append(f"{seed},16,8,{quoted},{70 + seed},{40 + seed}")
    return write(folder / "darts.csv", "\n".join(lines) + "\n")


WRITERS = {
    "nas-robbench-201": project_page,
    "nas-robbench-201-csv": robust_csv,
    "nas-bench-201-latency": latency_csv,
    "tiny-robustbench": darts_csv,
}
