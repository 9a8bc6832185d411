from .adversarial_kip import AdversarialKIP as AdversarialKIP
from .distiller import DISTILLERS as DISTILLERS
from .distiller import Distiller as Distiller
from .distiller import LearnedSet as LearnedSet
from .kip import KIP as KIP
from .loop import DistillationOutcome as DistillationOutcome
from .loop import distil as distil
