"""A pytest plugin that puts seawall's module in a package's place: the package's own tests import ours."""

import importlib
import os
import sys

name = os.environ["SEAWALL_SWAPPED"]
sys.modules[name] = importlib.import_module(f"seawall.compat.{name}")


def pytest_report_header() -> str:
    return f"{name} is {sys.modules[name].__file__}"
