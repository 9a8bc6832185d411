"""Random small architectures of every family, by the family's name: the conformance suites run over them."""

from hypothesis import strategies as st
from spaces_strategies import NAMES, architectures, mlp_architectures, residual_architectures

from robust_nas.kernels import LinearKernel, ReLUNNGP, ReLUNTK
from robust_nas.spaces import (
    Cell,
    Edge,
    EnsembleArchitecture,
    MeanFieldArchitecture,
    NASBench201Architecture,
)
from robust_nas.spaces.kernel_regression import KernelRegressionArchitecture
from robust_nas.spaces.nas_bench_201 import OPERATIONS


@st.composite
def nas_bench_201_architectures(draw: st.DrawFn) -> NASBench201Architecture:
    """Any number of nodes and edges, of the benchmark's operations."""
    nodes = tuple(
        tuple(
            Edge(draw(st.sampled_from(OPERATIONS)), source)
            for source in draw(st.lists(st.integers(0, node), min_size=1, max_size=3))
        )
        for node in range(draw(st.integers(1, 3)))
    )
    cell = Cell(
        kind="cell",
        inputs=1,
        aggregation=draw(st.sampled_from(["sum", "mean"])),
        nodes=nodes,
        concat=(draw(st.integers(1, len(nodes))),),
    )
    return NASBench201Architecture(
        name=draw(NAMES),
        cells=draw(st.integers(2, 5)),
        channels=draw(st.integers(2, 4)),
        genotype=(cell,),
    )


KERNELS = (ReLUNTK(), ReLUNTK(depth=2), ReLUNNGP(bias_variance=0.0), LinearKernel())
kernel_regressions = st.builds(
    KernelRegressionArchitecture, name=NAMES, support=st.integers(1, 6), kernel=st.sampled_from(KERNELS)
)

MEMBERS = {
    "cell": architectures(),
    "residual": residual_architectures(),
    "mlp": mlp_architectures(),
    "nas-bench-201": nas_bench_201_architectures(),
}


@st.composite
def ensemble_architectures(draw: st.DrawFn) -> EnsembleArchitecture:
    """Few particles of any family, all or some of them in an answer."""
    return EnsembleArchitecture(
        name=draw(NAMES),
        member=draw(st.one_of(*MEMBERS.values())),
        particles=draw(st.integers(1, 3)),
        draws=draw(st.none() | st.integers(1, 4)),
    )


@st.composite
def mean_field_architectures(draw: st.DrawFn) -> MeanFieldArchitecture:
    """A posterior over the weights of any family."""
    return MeanFieldArchitecture(
        name=draw(NAMES),
        member=draw(st.one_of(*MEMBERS.values())),
        samples=draw(st.integers(1, 20)),
        initial_sigma=draw(st.floats(1e-3, 1.0)),
    )


FAMILY_CASES = {
    **MEMBERS,
    "ensemble": ensemble_architectures(),
    "mean-field": mean_field_architectures(),
    "kernel-regression": kernel_regressions,
}
