"""On PYTHONPATH of a case job: gives cpt_ml the stage `case`, under torchrun too, which runs `-m cpt_ml` itself."""

import importlib.abc
import importlib.util
import sys
from pathlib import Path


class CaseFinder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        return importlib.util.spec_from_file_location(name, Path(__file__).with_name("cluster_stage.py")) if name == "cpt_ml.case" else None


sys.meta_path.insert(0, CaseFinder())
