"""Published cells become architectures: the text of DARTS and its successors, and NAS-Bench-201's strings."""

import pytest

import robust_nas
from robust_nas.errors import ArchitectureError
from robust_nas.spaces import import_architecture, load_architecture

# Facts of the papers' own code: quark0/darts, yuhuixu1993/PC-DARTS, nutellamok/advrush, and the code of ARNAS.
DARTS_V2 = """DARTS_V2 = Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0),
    ('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)],
    normal_concat=[2, 3, 4, 5], reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2),
    ('max_pool_3x3', 1), ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)],
    reduce_concat=[2, 3, 4, 5])"""
PC_DARTS = """PC_DARTS_cifar = Genotype(normal=[('sep_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 0),
    ('dil_conv_3x3', 1), ('sep_conv_5x5', 0), ('sep_conv_3x3', 1), ('avg_pool_3x3', 0), ('dil_conv_3x3', 1)],
    normal_concat=range(2, 6), reduce=[('sep_conv_5x5', 1), ('max_pool_3x3', 0), ('sep_conv_5x5', 1),
    ('sep_conv_5x5', 2), ('sep_conv_3x3', 0), ('sep_conv_3x3', 3), ('sep_conv_3x3', 1), ('sep_conv_3x3', 2)],
    reduce_concat=range(2, 6))"""
ADVRUSH = """ADVRUSH = Genotype(normal=[('sep_conv_3x3', 1), ('sep_conv_3x3', 0), # a comment
    ('sep_conv_5x5', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 0),
    ('sep_conv_3x3', 1)], normal_concat=range(2, 6), reduce=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1),
    ('skip_connect', 0), ('dil_conv_3x3', 2), ('skip_connect', 0), ('avg_pool_3x3', 1), ('skip_connect', 0),
    ('skip_connect', 2)], reduce_concat=range(2, 6))"""
NB201 = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|"
HEAD = "from collections import namedtuple\nGenotype = namedtuple('Genotype', 'normal normal_concat')\n"


@pytest.fixture
def read(tmp_path):
    def imported(text, **options):
        path = tmp_path / "cells.txt"
        path.write_text(text)
        return import_architecture(path, **options)

    return imported


def as_text(architecture):
    """Print an architecture as its authors do."""
    parts = []
    for cell in architecture.genotype:
        edges = [(edge.operation, edge.source) for node in cell.nodes for edge in node]
        parts += [f"{cell.kind}={edges}", f"{cell.kind}_concat={list(cell.concat)}"]
    return f"Genotype({', '.join(parts)})"


@pytest.mark.parametrize("name", ["darts_v2", "arnas"])
def test_the_shipped_cells_come_back_from_their_text(read, name):
    shipped = load_architecture(name)
    found = read(as_text(shipped))
    assert found.mismatch is None
    assert found.architecture.genotype == shipped.genotype
    assert found.architecture.with_options(name=shipped.name) == shipped


def test_a_file_of_genotypes_holds_the_published_cells(read):
    text = f"{HEAD}{DARTS_V2}\n\n{PC_DARTS}\n{ADVRUSH}\nDARTS = DARTS_V2\n# OLD = Genotype(normal=[])\n"
    v2 = read(text, name="DARTS").architecture
    assert v2.genotype == load_architecture("darts_v2").genotype
    pc_darts = read(text, name="PC_DARTS_cifar").architecture
    assert (pc_darts.name, pc_darts.cells, pc_darts.channels) == ("pc_darts_cifar", 20, 36)
    cost = robust_nas.count(pc_darts)
    assert cost.params / 1e6 == pytest.approx(3.63, abs=0.005)  # published: 3.63 M and 558 M
    assert cost.macs / 1e6 == pytest.approx(558, rel=0.005)
    advrush = read(text, name="ADVRUSH", cells=8, channels=16).architecture
    assert advrush.cell("reduce").nodes[3] == (("skip_connect", 0), ("skip_connect", 2))
    assert (advrush.cells, advrush.channels) == (8, 16)
    with pytest.raises(
        ArchitectureError, match="4 genotypes; choose one with --name: DARTS_V2, PC_DARTS_cifar"
    ):
        read(text)
    with pytest.raises(ArchitectureError, match="no genotype 'DARTS_V9'; it holds DARTS_V2"):
        read(text, name="DARTS_V9")


def test_a_log_gives_the_last_genotype_and_nodes_may_have_lists_of_their_own(read):
    lines = [
        f"05/06 12:{minute} PM genotype = {text.partition(' = ')[2]}"
        for minute, text in ((1, ADVRUSH), (2, PC_DARTS))
    ]
    found = read("\n".join(["05/06 arg: (", *lines])).architecture
    assert found.genotype == read(PC_DARTS).architecture.genotype
    nested = "Genotype(normal=[[('skip_connect', 0)]], normal_concat=[2], reduce=[[('none', 1)]], reduce_concat=[2])"
    small = read(nested)
    assert [len(cell.nodes) for cell in small.architecture.genotype] == [1, 1]
    assert "cell has 1 nodes" in small.mismatch


def test_a_string_of_nas_bench_201_becomes_its_network(read):
    found = read(f"index 17\n{NB201}\n")
    assert found.architecture == load_architecture(NB201)
    assert found.mismatch is None
    small = read(NB201, cells=3, channels=4).architecture
    assert (small.cells, small.channels, small.string) == (3, 4, NB201)
    two = f"{NB201}\n|none~0|+|none~0|none~1|+|none~0|none~1|none~2|\n"
    assert read(two, name="1").architecture.string == NB201
    with pytest.raises(ArchitectureError, match="holds 2 genotypes"):
        read(two)


def test_what_is_read_trains_and_counts(call, tmp_path):
    (tmp_path / "genotypes.py").write_text(HEAD + ADVRUSH)
    made = call("spaces", "import", "genotypes.py", "--cells", 4, "--channels", 2, "--out", "advrush.yaml")
    assert (made.code, made.out) == (0, "advrush.yaml\n")
    assert call("count", "advrush.yaml", "--input", "1x8x8").code == 0
    network = robust_nas.build_network(load_architecture("advrush.yaml"), input_shape=(1, 8, 8), classes=10)
    assert (
        sum(p.numel() for p in network.parameters())
        == robust_nas.count(load_architecture("advrush.yaml"), (1, 8, 8), 10).params
    )
    assert "exists already" in call("spaces", "import", "genotypes.py", "--out", "advrush.yaml").err
    noted = call("spaces", "import", "genotypes.py", "--name", "nothing")
    assert (noted.code, noted.out) == (2, "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            PC_DARTS.replace("'skip_connect'", "'sep_conv_7x7'").replace("'avg_pool_3x3'", "'conv_9'"),
            r"normal cell, node 0: operation 'sep_conv_7x7' is not known; known: .*; normal cell, node 3: .*'conv_9'",
        ),
        (ADVRUSH.replace("('sep_conv_5x5', 0)", "('sep_conv_5x5', 3)"), "node 1: source 3 .* allowed: 0..2"),
        (ADVRUSH.replace("('sep_conv_5x5', 0)", "('sep_conv_5x5', -1)"), "lists of"),
        (ADVRUSH.replace("('sep_conv_5x5', 0)", "('sep_conv_5x5',)"), r"node 1: got \['sep_conv_5x5'\]"),
        (ADVRUSH.replace("('sep_conv_5x5', 0),", ""), "7 edges are no whole nodes of 2"),
        (
            ADVRUSH.replace("normal_concat=range(2, 6)", "normal_concat=range(2, 9)"),
            "concat .* distinct nodes",
        ),
        (ADVRUSH.replace("normal_concat=range(2, 6),", ""), "normal and normal_concat are both needed"),
        (ADVRUSH.replace("range(2, 6)", "open('x')"), r"got open\('x'\)"),
        ("Genotype([('none', 0)], [2])", "keywords are needed"),
        ("Genotype(fast=[('none', 0)], fast_concat=[2])", "its cells are fast; name a space"),
        ("Genotype(normal=" + "[" * 5000, "holds no Genotype"),
        ("Genotype(" * 400_000, "holds no Genotype"),
        ("{}", "holds no Genotype"),
        (NB201.replace("nor_conv_1x1", "nor_conv_7x7"), r"cells\.txt: .*nor_conv_7x7"),
        (NB201.replace("none~2", "none~3"), "source 3 is not before it"),
    ],
)
def test_a_mistake_names_its_edge(read, text, message):
    with pytest.raises(ArchitectureError, match=message):
        read(text)


def test_nothing_in_the_file_is_executed(read, tmp_path):
    mark = tmp_path / "ran"
    text = f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n{ADVRUSH}\n"
    assert read(text).architecture.name == "advrush"
    assert not mark.exists()


def test_a_file_that_is_none_is_named(tmp_path):
    with pytest.raises(ArchitectureError, match=r"nothing\.py: cannot be read"):
        import_architecture(tmp_path / "nothing.py")
    (tmp_path / "bytes.py").write_bytes(b"\xff\xfe")
    with pytest.raises(ArchitectureError, match=r"bytes\.py: cannot be read"):
        import_architecture(tmp_path / "bytes.py")
