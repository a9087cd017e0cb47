"""What is installed with the package is what its code imports; what is optional is imported only where it is needed."""

import ast
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def normal(name):
    return re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9_.-]", name)[0]).lower()


def imports_of(file):
    """Top-level packages that a file imports: (package, whether always, when the file is imported)."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module]
        elif (
            isinstance(node, ast.Call)
            and getattr(node.func, "id", getattr(node.func, "attr", "")) in ("require", "import_module", "_imported")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            names = [node.args[0].value]
        else:
            continue
        yield from ((name.partition(".")[0], node in tree.body) for name in names)


def imported():
    own = {*sys.stdlib_module_names, "tomostain"}
    for file in sorted((ROOT / "src").rglob("*.py")):
        for package, always in imports_of(file):
            if package not in own:
                yield package, always, file.relative_to(ROOT).as_posix()


OPTIONAL_FILES = ("scanner.py", "zeiss.py")
"""Readers that the decoding process imports only where their library is installed."""
DISTRIBUTIONS = metadata.packages_distributions()


def test_everything_that_is_imported_is_declared():
    required = {normal(name) for name in PROJECT["dependencies"]}
    extras = {normal(name) for key, names in PROJECT["optional-dependencies"].items() if key != "dev" for name in names}
    missing = []
    for package, always, file in imported():
        known = {normal(name) for name in DISTRIBUTIONS.get(package, [package])}
        always &= Path(file).name not in OPTIONAL_FILES
        if not known & (required if always else required | extras):
            missing.append(f"{file} imports {package}")
    assert not missing, missing


def test_everything_that_is_declared_is_imported():
    used = {normal(name) for package, _, _ in imported() for name in DISTRIBUTIONS.get(package, [package])}
    read_by_name = {"imagecodecs", "hdf5plugin", "openslide-bin"}  # tifffile, h5py and openslide load them
    read_by_name |= {"npe2", "pyside6-essentials", "snakemake"}  # and napari; snakemake reads the workflow
    names = [*PROJECT["dependencies"]]
    names += [name for key, extra in PROJECT["optional-dependencies"].items() if key != "dev" for name in extra]
    assert {normal(name) for name in names} - used <= read_by_name


def test_the_development_environment_has_what_is_optional():
    """Or the tests of optional parts are skipped without a word."""
    dev = {normal(name) for name in PROJECT["optional-dependencies"]["dev"]}
    optional = {
        normal(name)
        for key in ("formats", "cluster", "slides", "czi", "int8", "view")
        for name in PROJECT["optional-dependencies"][key]
    }
    assert optional <= dev


def test_no_file_of_the_package_is_over_400_lines_and_nothing_knows_where_it_was_developed():
    long = {f.name: n for f in (ROOT / "src").rglob("*.py") if (n := len(f.read_text().splitlines())) > 400}
    assert not long
    for file in (ROOT / "src").rglob("*.*"):
        if file.suffix in (".py", ".yaml", ".html"):
            assert not re.search(r"\.\./shared|TOMOSTAIN_SHARED", file.read_text(encoding="utf-8")), file


def test_every_step_but_demo_and_experiment_is_in_the_contract_that_steps_do_not_import_each_other():
    text = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = [one for one in text["tool"]["importlinter"]["contracts"] if one["type"] == "independence"]
    steps = {f"tomostain.steps.{file.stem}" for file in (ROOT / "src" / "tomostain" / "steps").glob("[a-z]*.py")}
    assert set(contract["modules"]) == steps - {"tomostain.steps.demo", "tomostain.steps.experiment"}
