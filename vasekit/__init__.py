"""Shared library of the VaseVQA-3D training kit. Entry points live in filter/, data/, model/, plugin/ and eval/."""

__version__ = "0.1.0"
