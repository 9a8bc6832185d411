from .blur import Blur as Blur
from .defence import DEFENCES as DEFENCES
from .defence import Defence as Defence
from .defended import Defended as Defended
from .feature_squeezing import FeatureSqueezing as FeatureSqueezing
from .squeezer import SqueezedInput as SqueezedInput
from .stored import Calibration as Calibration
from .stored import StoredDefence as StoredDefence
