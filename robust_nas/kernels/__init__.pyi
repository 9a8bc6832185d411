from .kernel import KERNELS as KERNELS
from .kernel import Kernel as Kernel
from .linear import LinearKernel as LinearKernel
from .myrtle_ntk import MyrtleNTK as MyrtleNTK
from .regression import centred_targets as centred_targets
from .regression import solve as solve
from .relu_nngp import ReLUNNGP as ReLUNNGP
from .relu_ntk import ReLUNTK as ReLUNTK
