"""Which packages there are; the rest is in setup.cfg. The folder experiments/ becomes lightning_mem1/experiments."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["lightning_mem1*"]), "lightning_mem1.experiments"],
    package_dir={"lightning_mem1.experiments": "experiments"},
)
