"""What an installation holds."""

import importlib.metadata
import zlib
from pathlib import Path, PurePosixPath

import pytest

from lowlight_iqa.weights.files import BUNDLED


@pytest.fixture(scope="module")
def files():
    try:
        distribution = importlib.metadata.distribution("lowlight_iqa")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package is not installed: pip install .")
    listed = [PurePosixPath(str(file)) for file in distribution.files or []]
    if not any(file.name == "card.py" for file in listed):
        pytest.skip("the installation is editable and lists no files")
    return listed


def test_nothing_but_the_package_at_top_level(files):
    tops = {file.parts[0] for file in files if ".." not in file.parts}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"lowlight_iqa"}


def test_types_weights_and_license_are_there(files):
    names = {file.name for file in files}
    assert {"py.typed", "leiq.safetensors", "LICENSE"} <= names


def test_the_metadata_name_the_license_of_the_code_and_that_of_the_weights(files):
    metadata = importlib.metadata.metadata("lowlight_iqa")
    assert metadata["License-Expression"] == "Apache-2.0 AND LicenseRef-lowlight-iqa-weights"
    named = set(metadata.get_all("License-File"))
    assert {"LICENSE", "LICENSES/LicenseRef-lowlight-iqa-weights.txt"} <= named
    notices = {f"lowlight_iqa/weights/bundled/{file.name}" for file in BUNDLED.glob("NOTICE.*")}
    assert notices
    assert notices <= named
    held = {str(file) for file in files}
    assert all(any(file.endswith(f"dist-info/licenses/{name}") for file in held) for name in named)


def test_the_only_script_is_the_command(files):
    assert [file.name for file in files if "bin" in file.parts] == ["lowlight-iqa"]


def test_the_code_is_small(files):
    package = Path(importlib.metadata.distribution("lowlight_iqa").locate_file("lowlight_iqa"))
    code = list(package.rglob("*.py"))
    assert len(code) > 10
    assert sum(len(zlib.compress(file.read_bytes())) for file in code) < 300e3  # as a wheel holds it


def test_direct_dependencies_are_few():
    try:
        needed = importlib.metadata.requires("lowlight_iqa") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package is not installed: pip install .")
    # Pillow and tqdm come with the other eight; they are named because the code imports them.
    assert len([need for need in needed if "extra ==" not in need]) <= 10
